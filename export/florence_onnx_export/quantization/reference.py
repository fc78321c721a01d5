"""Reference for the errors of other precisions: answers of the float32 graphs."""

import functools
from pathlib import Path

from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.engine.sessions import Graphs, open_graphs
from florence_onnx_export.quantization.calibration import Calibration, calibration_requests
from florence_onnx_export.quantization.fidelity import (
    PICTURES,
    Feeds,
    Fidelity,
    answer,
    compare,
    decoder_steps,
    drawn_requests,
    encoder_feeds,
    start_steps,
)
from florence_onnx_export.quantization.mixed import Measured
from florence_onnx_export.quantization.pictures import OwnPictures
from florence_onnx_export.quantization.running import lean_options

SAMPLES = 3
"""Number of requests on which single graphs are measured for the choice of matmuls."""

_FAST = 1
"""Drawn pictures that errors are measured on where that should be fast."""


class Reference:
    """Answers of the float32 graphs to the requests, for comparison with other precisions."""

    def __init__(
        self,
        folder: Path,
        pictures: int = PICTURES,
        own: OwnPictures | None = None,
        fast: bool = False,
    ) -> None:
        """Runs the float32 graphs of a model folder.

        Args:
            folder: The model folder.
            pictures: Number of drawn pictures on which errors are measured.
            own: Pictures of the user for measurement and calibration, in place of drawn pictures.
            fast: Whether fewer drawn pictures serve for measurement and calibration.
        """
        self.folder = folder
        self.assets = Assets.read(folder)
        self.own = own
        self.fast = fast
        seeds = range(_FAST if fast else pictures)
        self.requests = own.held_back if own else drawn_requests(self.assets, seeds)
        model = self._open()
        self.answers = answer(model, self.assets, self.requests)
        samples = list(zip(self.requests, self.answers.features, strict=True))[:SAMPLES]
        self._features = [[features[None]] for _, features in samples]
        self._feeds: dict[str, list[Feeds]] = {graph: [] for graph in contract.GRAPHS}
        for request, features in samples:
            encoder = encoder_feeds(model, self.assets, features, request.prompts[:1])
            _, steps, _ = next(decoder_steps(start_steps(model, encoder), 1, self.assets))
            self._feeds[contract.VISION_ENCODER].append({"pixel_values": request.pixel_values})
            self._feeds[contract.ENCODER].append(encoder)
            self._feeds[contract.DECODER].append(steps.inputs())
        layers = model.geometry["decoder_layers"]
        self._outputs = {
            **{name: list(s.of(layers).outputs) for name, s in model.layout.graphs.items()},
            contract.DECODER: ["logits"],
        }
        seen = own.rounded_for if own else calibration_requests(self.assets, fast)
        self._calibration = Calibration(self._open, self.assets, seen, fast)

    def measured(self, graph: str) -> Measured:
        """Returns a float32 graph with inputs for the measurement of errors."""
        path = SLOTS.path(self.folder, graph, "fp32")
        return Measured(
            path,
            self._feeds[graph],
            self._outputs[graph],
            functools.partial(self._calibration.feeds, graph),
            functools.partial(self._calibration.keep, graph),
            self._features if graph == contract.VISION_ENCODER else (),
        )

    def fidelity(self, folder: Path, precision: str) -> Fidelity:
        """Measures the difference of the graphs of ``precision`` in ``folder`` from float32."""
        model = _open(folder, precision)
        answers = answer(model, self.assets, self.requests, feed=self.answers.fed)
        return compare(answers, self.answers, self.assets.tokenizer.eos_token_id)

    def _open(self) -> Graphs:
        return _open(self.folder, "fp32")


def _open(folder: Path, precision: str) -> Graphs:
    options = lean_options(packed=precision != "fp32")
    return open_graphs(folder, precision, ["CPUExecutionProvider"], session_options=options)
