"""Stages of a request in transformers, the same as in `florence_onnx.profiling`."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.harness.common import BEAMS, Picture
from benchmarks.peers.transformers_eager import Transformers
from benchmarks.peers.vision_engines import Pixels

TASK = "<OD>"


class Clock:
    """Clock for marks at which the device has finished all work."""

    def __init__(self) -> None:
        self._last = self.now()

    def now(self) -> float:
        """Waits for the device and returns the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def lap(self) -> float:
        """Returns the seconds since the mark before."""
        before, self._last = self._last, self.now()
        return self._last - before


@torch.inference_mode()
def time_transformers(
    peer: Transformers, picture: Picture, tokens: int
) -> tuple[dict[str, float], list[float]]:
    """Times one request stage by stage.

    Args:
        peer: The opened model.
        picture: uint8 [H,W,3].
        tokens: Tokens to generate.

    Returns:
        The seconds per stage, and the seconds of every step but the last.
    """
    clock = Clock()
    inputs = peer.inputs([picture], TASK)
    stages = {"preprocess": clock.lap()}
    features = peer.model.get_image_features(inputs["pixel_values"]).pooler_output
    stages["vision"] = clock.lap()
    encoded = _encode(peer.model, features, inputs["input_ids"], inputs["attention_mask"])
    stages["embed_encoder"] = clock.lap()
    starts: list[float] = [time.perf_counter()]
    decoder = peer.model.model.language_model.decoder
    # The hook misses the preparations of generate, with which the first step begins.
    hook = decoder.register_forward_pre_hook(lambda *ignored: starts.append(time.perf_counter()))
    found = peer.model.generate(
        encoder_outputs=BaseModelOutput(encoded),
        attention_mask=inputs["attention_mask"],
        num_beams=BEAMS,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
    )
    hook.remove()
    row: Sequence[int] = found[0].tolist()
    clock.lap()
    peer.parse(row, TASK, picture)
    stages["parse"] = clock.lap()
    del starts[1]
    steps = [after - before for before, after in pairwise(starts)]
    return {**stages, "first_token": steps[0]}, steps


def vision_alone(peer: Transformers) -> Callable[[Pixels], Any]:
    """Runs the vision encoder alone on pixel values of the host; waits for the device."""

    @torch.inference_mode()
    def vision(pixel_values: Pixels) -> Any:
        pixels = torch.from_numpy(pixel_values).to(peer.model.device, peer.model.dtype)
        return peer.model.get_image_features(pixels).pooler_output.cpu()

    return vision


def _encode(model: Any, features: Any, input_ids: Any, mask: Any) -> Any:
    """Puts the features in the place of the prompt's image tokens, and runs the encoder."""
    embeds = model.get_input_embeddings()(input_ids)
    places = model.get_placeholder_mask(input_ids, inputs_embeds=embeds, image_features=features)
    embeds = embeds.masked_scatter(places, features.to(embeds.dtype))
    encoder = model.model.language_model.encoder
    return encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
