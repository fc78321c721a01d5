"""Inputs of the graphs that weights are rounded for, from pictures nothing is measured on."""

from collections.abc import Iterator

from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.sessions import Graphs
from florence_onnx_export.quantization.fidelity import (
    PICTURES,
    Feeds,
    decoder_steps,
    drawn_requests,
    encoder_feeds,
)

_SEEDS = range(PICTURES, PICTURES + 4)
"""Drawn pictures that are not among those that errors are measured on."""

_PROMPTS_APART = 5
"""Every how many-th prompt the encoder is given: most of its rows are those of the picture."""


def calibration_feeds(model: Graphs, assets: Assets, graph: str) -> Iterator[Feeds]:
    """Inputs of one graph, as the float32 graphs before it make them.

    Args:
        model: The float32 graphs.
        assets: The model's other files.
        graph: The vision encoder, the encoder or the decoder.
    """
    for request in drawn_requests(assets, _SEEDS):
        if graph == contract.VISION_ENCODER:
            yield {"pixel_values": request.pixel_values}
            continue
        features = model.image_features(request.pixel_values)[0]
        apart = _PROMPTS_APART if graph == contract.ENCODER else 1
        encoder = encoder_feeds(model, assets, features, request.prompts[::apart])
        if graph == contract.ENCODER:
            yield encoder
        else:
            for _, steps, _ in decoder_steps(model, assets, encoder):
                yield steps.inputs()
