"""Loss of one optimiser step. Each picture is encoded once for several questions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration

from florence_onnx.assets.writing import RELEASED_PREPROCESSING
from florence_onnx.locations import BINS
from florence_onnx_export.graphs.stages import image_features
from florence_onnx_export.training.batches import Batch
from florence_onnx_export.training.dense import DenseHead
from florence_onnx_export.training.losses import token_loss
from florence_onnx_export.training.vocabulary import token_id

PAD = 1
_EOS = 2


class AnswerLoss:
    """Losses of a batch."""

    def __init__(
        self,
        network: Florence2ForConditionalGeneration,
        tokenizer: Tokenizer,
        groups: int,
        bfloat16: bool,
    ) -> None:
        """Stores the arguments and chooses the network's attention.

        Args:
            network: The network to train.
            tokenizer: Tokenizer of the network.
            groups: Number of parts of a batch, each of answers of similar length, to save padding.
            bfloat16: Whether matmuls run in bfloat16. Weights and losses stay float32.
        """
        self._network = network
        self._tokenizer = tokenizer
        self._groups = groups
        self._bfloat16 = bfloat16
        # On CPUs in bfloat16, the backward pass of the fused attention is slower.
        network.set_attn_implementation("eager" if bfloat16 else "sdpa")
        self._first_location = token_id(tokenizer, "<loc_0>")

    def __call__(
        self, batch: Batch, sigma: float, head: DenseHead | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the loss of the answers per token, and the loss of the head, 0 without head."""
        device = self._network.device
        pixels = pixel_values(batch.pictures).to(device)
        with self._autocast():
            features = image_features(self._network, pixels)
        features = features.float()
        dense = features.new_zeros(())
        if head is not None:
            embeddings = self._network.model.language_model.shared.weight
            locations = embeddings[self._first_location : self._first_location + BINS]
            dense = head.loss(features, batch.dense, locations, sigma)
        if not batch.questions:
            return features.new_zeros(()), dense
        prompts = [self._tokenizer.encode(prompt).ids for _, prompt, _ in batch.questions]
        answers = [self._tokenizer.encode(answer).ids for _, _, answer in batch.questions]
        by_length = np.argsort([len(ids) for ids in answers], kind="stable")
        total, tokens = features.new_zeros(()), 0
        for group in np.array_split(by_length, self._groups):
            pictures = torch.tensor([batch.questions[i][0] for i in group])
            labels = padded([answers[i] for i in group])
            with self._autocast():
                hidden = self._decode(
                    features[pictures], padded([prompts[i] for i in group]), labels
                )
                kept = labels != PAD
                logits = self._network.lm_head(hidden[kept])
            loss = token_loss(logits.float(), labels[kept], self._first_location, sigma)
            total, tokens = total + loss * len(logits), tokens + len(logits)
        return total / tokens, dense

    def _autocast(self) -> torch.autocast:
        device = self._network.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._bfloat16)

    def _decode(
        self, features: torch.Tensor, prompts: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Returns the decoder states [questions, tokens, width] before each label."""
        language = self._network.model.language_model
        embedded = self._network.get_input_embeddings()(prompts)
        mask = torch.cat([prompts.new_ones(features.shape[:2]), prompts != PAD], 1)
        encoded = language.encoder(
            inputs_embeds=torch.cat([features.to(embedded.dtype), embedded], 1),
            attention_mask=mask,
        )[0]
        start = labels.new_full((len(labels), 1), _EOS)
        states: torch.Tensor = language.decoder(
            input_ids=torch.cat([start, labels[:, :-1]], 1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        )[0]
        return states


def pixel_values(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Turns uint8 [pictures, size, size, 3] into model input, float32 [pictures, 3, size, size]."""
    scaled = torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255
    mean, std = (torch.tensor(RELEASED_PREPROCESSING[f"image_{name}"]) for name in ("mean", "std"))
    return ((scaled - mean) / std).permute(0, 3, 1, 2).contiguous()


def padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Puts token ids into int64 [sequences, longest], padded on the right."""
    ids = torch.full((len(sequences), max(map(len, sequences))), PAD)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return ids
