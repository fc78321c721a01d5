"""Margin by which a beam search decided between two answers, computed again in float64."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.harness.common import Picture, Setup
from florence_onnx.assets.reading import Assets


class Judge:
    """Judge of ties: repeats searches with transformers' network in float64, beam by beam."""

    def __init__(self, setup: Setup, longest: int) -> None:
        """Opens the checkpoint; ``longest`` is max_new_tokens of the searches."""
        folder = setup.checkpoint
        self._network = Florence2ForConditionalGeneration.from_pretrained(folder).double()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._assets = Assets.read(setup.exported)
        self._longest = longest

    def margin(
        self, picture: Picture, prompt: str, beams: int, answers: Sequence[tuple[int, ...]]
    ) -> float:
        """Finds the largest difference of scores that excluded one of the answers."""
        from tests.helpers.plain_search import lost_by, plain_search

        network, encoded = self._network, self._encode(picture, prompt)

        @functools.cache
        def log_probs(sequence: tuple[int, ...]) -> npt.NDArray[np.float64]:
            with torch.inference_mode():
                output = network(
                    encoder_outputs=BaseModelOutput(encoded),
                    decoder_input_ids=torch.tensor([sequence]),
                    use_cache=False,
                )
            return torch.log_softmax(output.logits[0, -1], dim=-1).numpy()

        policy = self._assets.policy.replace(num_beams=beams, max_new_tokens=self._longest)
        found, steps = plain_search(log_probs, policy)
        lost = [ids for ids in answers if ids != found[0][0]]
        return max((float(lost_by(log_probs, policy, steps, ids)) for ids in lost), default=0.0)

    def _encode(self, picture: Picture, prompt: str) -> torch.Tensor:
        pixels = torch.from_numpy(self._assets.preprocessor(picture)[None]).double()
        with torch.inference_mode():
            tokens = self._network.get_image_features(pixels).pooler_output.shape[1]
            image = [self._network.config.image_token_id] * tokens
            output = self._network(
                input_ids=torch.tensor([image + self._tokenizer.encode(prompt).ids]),
                pixel_values=pixels,
                decoder_input_ids=torch.tensor([[self._assets.policy.decoder_start_token_id]]),
            )
        hidden: torch.Tensor = output.encoder_last_hidden_state
        return hidden
