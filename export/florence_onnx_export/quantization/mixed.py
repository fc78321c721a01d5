"""Mixed precision: a method per matmul, chosen by the measured error of the graph's outputs."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from florence_onnx_export.graphs.files import load_weights
from florence_onnx_export.graphs.half_storage import load_float32
from florence_onnx_export.quantization.channels import channel_attentions, quantize_channels
from florence_onnx_export.quantization.fidelity import Array, Feeds
from florence_onnx_export.quantization.gptq import inverse_factor
from florence_onnx_export.quantization.hessians import Hessians
from florence_onnx_export.quantization.matmuls import (
    Matrix,
    Method,
    Tensors,
    matmul_weights,
    replace_matmuls,
)
from florence_onnx_export.quantization.methods import (
    CHANNELS,
    FP32,
    METHODS,
    SMOOTH,
    STEPS,
    STORED,
    STORED16,
    levels,
)
from florence_onnx_export.quantization.running import lean_options, return_freed_memory
from florence_onnx_export.quantization.smoothquant import (
    Vector,
    peaks_graph,
    smooth_inputs,
    smoothing_factors,
)
from florence_onnx_export.quantization.stored import storable_weights, store_weights


class Measured:
    """Float32 graph with inputs, which measures the errors of quantised forms of the graph."""

    def __init__(
        self,
        path: Path,
        feeds: Sequence[Feeds],
        outputs: Sequence[str],
        calibration: Callable[[], Iterable[Feeds]],
        keep: Callable[[Mapping[str, Array]], None] = lambda outputs: None,
        wanted: Sequence[Sequence[Array]] = (),
    ) -> None:
        """Reads the graph without weights. Nothing is run yet.

        Args:
            path: File of the graph.
            feeds: Inputs on which errors are measured.
            outputs: Names of the outputs whose errors count.
            calibration: Makes other inputs, for which weights are rounded and inputs smoothed.
            keep: Called with all outputs for each input of ``calibration``, once.
            wanted: Outputs for each of ``feeds``, where they are known.
        """
        self.model = load_float32(path, weights=False)
        self.matmuls = list(matmul_weights(self.model.graph))
        self.stored = storable_weights(self.model.graph)
        self.channels = [found.value for found in channel_attentions(self.model.graph)]
        self.feeds = feeds
        self.outputs = list(outputs)
        self._folder = path.parent
        self._calibration = calibration
        self._keep = keep
        self._known = wanted
        self._last: tuple[tuple[int, ...], Matrix] | None = None
        self._made: dict[tuple[str, ...], tuple[onnx.NodeProto, Tensors]] = {}

    def levels(self, precision: str, graph: str) -> dict[str, tuple[str, ...]]:
        """Weight name -> methods to try in a graph of this precision, fastest first."""
        return levels(precision, graph, self.matmuls, self.stored, self.channels)

    def quantized(self, methods: Mapping[str, str]) -> onnx.ModelProto:
        """Makes a copy of the graph in which some matmuls have other methods.

        Args:
            methods: Weight name -> name of the method.
        """
        smooth = [name for name, key in methods.items() if key == SMOOTH]
        smooth_by = {name: smoothing_factors(self._peaks[name]) for name in smooth}
        replaced: dict[str, Method] = {
            name: functools.partial(self._matmul, key, name, smooth_by.get(name))
            for name, key in methods.items()
            if key in METHODS
        }
        channels = [name for name, key in methods.items() if key == CHANNELS]
        stored = [
            [name for name in self.stored if methods.get(name) in keys]
            for keys in ((STORED, CHANNELS), (STORED16,))
        ]
        folder = str(self._folder)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        smooth_inputs(model, smooth_by, folder)
        replace_matmuls(model, replaced, folder)
        quantize_channels(model, channels)
        store_weights(model, stored[0], self._factor, folder)
        store_weights(model, stored[1], folder=folder, bits=16)
        load_weights(model, folder)
        return model

    def _matmul(
        self,
        key: str,
        weight_name: str,
        smooth_by: Vector | None,
        x: str,
        name: str,
        weight: Matrix,
        bias: str,
        y: str,
        factor: Matrix | None = None,
    ) -> tuple[onnx.NodeProto, Tensors]:
        """Makes a matmul by a method. A weight is rounded, with its `_factor`, once per method."""
        wanted = (key, x, name, bias, y)
        if wanted not in self._made:
            factor = self._factor(weight_name)
            if smooth_by is not None:
                factor = factor * smooth_by
            self._made[wanted] = METHODS[key](x, name, weight, bias, y, factor)
        return self._made[wanted]

    def error(self, methods: Mapping[str, str], runs: int | None = None) -> float:
        """Relative error of the outputs with these methods, over the first ``runs`` inputs."""
        runs = len(self.feeds) if runs is None else runs
        packed = any(key != FP32 for key in methods.values())
        return _mean_error(self._run(self.quantized(methods), runs, packed), self._wanted[:runs])

    @functools.cached_property
    def _wanted(self) -> Sequence[Sequence[Array]]:
        return self._known or self._run(self.model, len(self.feeds), packed=False)

    @functools.cached_property
    def _peaks(self) -> dict[str, Vector]:
        """Weight name -> largest magnitude of each input channel of the weight's matmuls."""
        model, names = peaks_graph(self.model)
        session = self._open(model)
        peaks: dict[str, Vector] = {}
        for feeds in self._calibration():
            for name, seen in zip(names, session.run(None, feeds), strict=True):
                peaks[name] = np.maximum(peaks.get(name, np.float32(0)), seen)
        return peaks

    def _factor(self, name: str) -> Matrix:
        """Computes `inverse_factor` of a weight's Hessian; the last factor is kept."""
        # All factors would take gigabytes. Weights with the same inputs follow one another.
        inputs = self._hessians.inputs(name)
        if self._last is None or self._last[0] != inputs:
            self._last = None
            self._last = inputs, inverse_factor(self._hessians.sum(name))
        return self._last[1]

    @functools.cached_property
    def _hessians(self) -> Hessians:
        names = [output.name for output in self.model.graph.output]
        hessians = Hessians(self.model)
        session = self._open(hessians.graph)
        for feeds in self._calibration():
            outputs = session.run(None, feeds)
            self._keep(dict(zip(names, outputs, strict=False)))
            hessians.add(outputs[len(names) :])
            del outputs
            return_freed_memory()
        return hessians

    def _run(self, model: onnx.ModelProto, runs: int, packed: bool) -> list[list[Array]]:
        session = self._open(model, packed)
        return [session.run(self.outputs, feeds) for feeds in self.feeds[:runs]]

    def _open(self, model: onnx.ModelProto, packed: bool = False) -> ort.InferenceSession:
        options = lean_options(packed)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._folder)
        )
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def _mean_error(got: Sequence[Sequence[Array]], want: Sequence[Sequence[Array]]) -> float:
    """Root mean square of the outputs' relative errors. A relative error is over all runs."""
    squares = []
    for outputs, wanted in zip(zip(*got, strict=True), zip(*want, strict=True), strict=True):
        missed = sum(float(np.sum((a - b) ** 2)) for a, b in zip(outputs, wanted, strict=True))
        squares.append(missed / sum(float(np.sum(b**2)) for b in wanted))
    return float(np.sqrt(np.mean(squares)))


@dataclass(frozen=True)
class Choice:
    """Choice of a method for every matmul of a graph."""

    methods: dict[str, str]
    """Weight name -> name of the method."""
    error: float
    """Relative error of the graph's outputs."""


def choose(
    graph: Measured,
    levels: Mapping[str, Sequence[str]],
    limit: float,
    progress: Callable[[str], None],
) -> Choice:
    """Chooses methods by sensitivity: the matmuls with the largest errors keep more bits.

    At first every matmul has its fastest method. The squares of the errors of single matmuls nearly
    add up to the square of the graph's error. So each matmul is measured alone, and from the sum
    follows the number of matmuls that get a more exact method before the graph is measured again.
    Because the squares add up only nearly, at the end each of these matmuls gets its fastest method
    back if the error of the graph stays within the limit.

    Args:
        graph: The float32 graph.
        levels: Weight name -> methods to try, fastest first, `FP32` last.
        limit: Largest relative error of the graph's outputs.
        progress: Called with a line of text before matmuls are measured alone.
    """
    chosen = dict.fromkeys(levels, 0)

    def methods() -> dict[str, str]:
        return {name: levels[name][level] for name, level in chosen.items()}

    def square(name: str) -> float:
        method = levels[name][chosen[name]]
        return 0.0 if method == FP32 else graph.error({name: method}, runs=1) ** 2

    def left() -> list[str]:
        return [name for name, method in methods().items() if method != FP32]

    error = graph.error(methods())
    if error <= limit:
        return Choice(methods(), error)
    progress(f"the error is {error:.2%}: measuring {len(levels)} matmuls one by one")
    alone = {name: square(name) for name in levels}
    least_first = sorted(alone, key=alone.__getitem__)
    while error > limit and left():
        expected = error
        while left() and expected > limit:
            worst = max(left(), key=alone.__getitem__)
            chosen[worst] += 1
            before, alone[worst] = alone[worst], square(worst)
            expected = max(expected**2 + alone[worst] - before, 0.0) ** 0.5
        error = graph.error(methods())
    fastest = {name: levels[name][0] for name in least_first if chosen[name]}
    return _put_back(graph, Choice(methods(), error), fastest, limit)


def choose_together(
    graph: Measured,
    levels: Mapping[str, Sequence[str]],
    limit: float,
    progress: Callable[[str], None],
) -> Choice:
    """Chooses methods for all matmuls together: a graph beyond the limit does without some methods.

    The graph is measured once after each of the `STEPS`. To measure the matmuls of a large graph
    one by one, as `choose` does, takes an hour.

    Args:
        graph: The float32 graph.
        levels: As for `choose`.
        limit: Largest relative error of the graph's outputs.
        progress: Called with a line of text before the graph gets more bits.
    """
    left = dict(levels)
    tried = {way for ways in levels.values() for way in ways}
    for step in (*(step for step in STEPS if not tried.isdisjoint(step[0])), None):
        methods = {name: ways[0] for name, ways in left.items()}
        error = graph.error(methods)
        if error <= limit or step is None:
            break
        progress(f"the error is {error:.2%}: more bits for all matmuls together")
        dropped, share = step
        weights = [name for name, ways in left.items() if not set(ways).isdisjoint(dropped)]
        for name in weights[: math.ceil(share * len(weights))]:
            left[name] = [way for way in left[name] if way not in dropped]
    return Choice(methods, error)


def _put_back(graph: Measured, choice: Choice, fastest: Mapping[str, str], limit: float) -> Choice:
    """Gives one matmul after the other its method in ``fastest`` if the error allows this."""
    for name, method in fastest.items():
        methods = {**choice.methods, name: method}
        error = graph.error(methods)
        if error <= limit:
            choice = Choice(methods, error)
    return choice
