"""Inputs of the graphs that weights are rounded for, from pictures nothing is measured on."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.sessions import Graphs
from florence_onnx_export.quantization.fidelity import (
    PICTURES,
    Array,
    Feeds,
    Request,
    decoder_steps,
    drawn_requests,
    encoder_feeds,
    start_steps,
)

_SEEDS = range(PICTURES, PICTURES + 4)
"""Drawn pictures that are not among those that errors are measured on."""

_APART = 3
"""The encoder is given every third task of a picture, and of the next picture the tasks after
these: most rows of the encoder are those of the picture."""


def calibration_requests(assets: Assets) -> list[Request]:
    """Drawn pictures, each asked every task; the same ones whenever it is called."""
    return drawn_requests(assets, _SEEDS)


class Calibration:
    """Makes the inputs of each graph with the float32 graphs before it.

    The image features of the run that the vision encoder's weights are rounded for are kept.
    """

    def __init__(
        self, open_model: Callable[[], Graphs], assets: Assets, requests: Sequence[Request]
    ) -> None:
        """Runs nothing yet.

        Args:
            open_model: Opens the float32 graphs.
            assets: The model's other files.
            requests: Pictures, and what they are asked.
        """
        self._open, self._assets, self._requests = open_model, assets, requests
        self._features: list[Array] = []

    def feeds(self, graph: str) -> Iterator[Feeds]:
        """The inputs of the vision encoder, the encoder or the decoder."""
        if graph == contract.VISION_ENCODER:
            self._features.clear()
            for request in self._requests:
                yield {"pixel_values": request.pixel_values}
            return
        model = self._open()
        features = self._features
        if len(features) < len(self._requests):
            features = [model.image_features(r.pixel_values)[0] for r in self._requests]
        for number, (request, of_picture) in enumerate(zip(self._requests, features, strict=True)):
            prompts = request.prompts
            if graph == contract.ENCODER:
                yield encoder_feeds(
                    model, self._assets, of_picture, prompts[number % _APART :: _APART]
                )
                continue
            start = start_steps(model, encoder_feeds(model, self._assets, of_picture, prompts))
            for _, steps, _ in decoder_steps(start, len(prompts), self._assets):
                yield steps.inputs()

    def keep(self, graph: str, outputs: Mapping[str, Array]) -> None:
        """Takes all outputs of a graph for one of its inputs."""
        if graph == contract.VISION_ENCODER:
            self._features.append(outputs["image_features"][0])
