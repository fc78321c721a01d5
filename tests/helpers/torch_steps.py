"""The decoder of a torch model as the step() callable of the search."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

Ids = npt.NDArray[np.int64]


class TorchScores:
    """The scores of one step, with the logits as torch gave them."""

    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits

    def top(self, k: int) -> tuple[npt.NDArray[np.float32], Ids]:
        log_probs = torch.log_softmax(self._logits, dim=-1)
        best, ids = log_probs.topk(min(k, log_probs.shape[1]))
        return best.numpy(), ids.numpy()

    def logits(self) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._logits.numpy()
        return logits


class TorchSteps:
    """Encodes a batch once, then runs the decoder with a cache gathered by row."""

    def __init__(
        self, model: Florence2ForConditionalGeneration, inputs: dict[str, torch.Tensor]
    ) -> None:
        self._model = model
        self._mask = inputs["attention_mask"]
        start = torch.zeros((len(self._mask), 1), dtype=torch.int64)
        output = model(**inputs, decoder_input_ids=start, use_cache=False)
        self._encoded = output.encoder_last_hidden_state
        self._cache: Any = None

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> TorchScores:
        owners = torch.from_numpy(np.repeat(requests, len(token_ids) // len(requests)))
        if self._cache is not None:
            self._cache.reorder_cache(torch.from_numpy(rows))
        output = self._model(
            encoder_outputs=BaseModelOutput(self._encoded[owners]),
            attention_mask=self._mask[owners],
            decoder_input_ids=torch.from_numpy(token_ids)[:, None],
            cache=self._cache,
            use_cache=True,
        )
        self._cache = output.cache
        return TorchScores(output.logits[:, -1])
