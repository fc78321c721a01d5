"""Inputs of the graphs that weights are rounded for, from pictures nothing is measured on."""

from collections.abc import Iterator

from florence_onnx import graphs
from florence_onnx.companions import Companions
from florence_onnx.sessions import Graphs
from florence_onnx_export.fidelity import (
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


def calibration_feeds(model: Graphs, companions: Companions, graph: str) -> Iterator[Feeds]:
    """Inputs of one graph, as the float32 graphs before it make them.

    Args:
        model: The float32 graphs.
        companions: The model's other files.
        graph: The vision encoder, the encoder or the decoder.
    """
    for request in drawn_requests(companions, _SEEDS):
        if graph == graphs.VISION_ENCODER:
            yield {"pixel_values": request.pixel_values}
            continue
        features = model.image_features(request.pixel_values)[0]
        apart = _PROMPTS_APART if graph == graphs.ENCODER else 1
        encoder = encoder_feeds(model, companions, features, request.prompts[::apart])
        if graph == graphs.ENCODER:
            yield encoder
        else:
            for _, feeds, _ in decoder_steps(model, companions, encoder):
                yield feeds
