"""Calibration: inputs of the graphs for which weights are rounded.

The pictures are others than those on which errors are measured.
"""

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
"""Seeds of drawn pictures on which no error is measured."""

_FAST = 2
"""Number of these pictures for fast rounding. With one picture, the image features have an error of
2.1 % in q8 of the base geometry, which is beyond the bound; with two pictures, 1.5 %."""

_APART = 3
"""Step between the tasks that the encoder gets of one picture; pictures take turns in the tasks. A
few tasks per picture are enough, because most rows of the encoder belong to the picture and not to
the prompt."""


def calibration_requests(assets: Assets, fast: bool) -> list[Request]:
    """Draws pictures and asks every task about each; always the same pictures."""
    return drawn_requests(assets, _SEEDS[:_FAST] if fast else _SEEDS)


class Calibration:
    """Maker of the inputs of each graph, by the float32 graphs that come before.

    `keep` stores the image features of the vision encoder's calibration run for the later graphs.
    """

    def __init__(
        self,
        open_model: Callable[[], Graphs],
        assets: Assets,
        requests: Sequence[Request],
        fast: bool,
    ) -> None:
        """Stores the arguments. No graph is run yet.

        Args:
            open_model: Opens the float32 graphs.
            assets: The model's other files.
            requests: Pictures and prompts.
            fast: Whether the decoder gets only those tasks of a picture that the encoder gets.
        """
        self._open, self._assets, self._requests = open_model, assets, requests
        self._fast = fast
        self._features: list[Array] = []

    def feeds(self, graph: str) -> Iterator[Feeds]:
        """Yields inputs of the vision encoder, the encoder or the decoder."""
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
            if graph == contract.ENCODER or self._fast:
                prompts = prompts[number % _APART :: _APART]
            encoder = encoder_feeds(model, self._assets, of_picture, prompts)
            if graph == contract.ENCODER:
                yield encoder
                continue
            start = start_steps(model, encoder)
            for _, steps, _ in decoder_steps(start, len(prompts), self._assets):
                yield steps.inputs()

    def keep(self, graph: str, outputs: Mapping[str, Array]) -> None:
        """Stores the outputs of a run of a graph if later graphs need these outputs."""
        if graph == contract.VISION_ENCODER:
            self._features.append(outputs["image_features"][0])
