"""Sessions of a model's graphs, opened and checked against the contract."""

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.checks import (
    check_caches,
    check_dynamic,
    check_graph,
    check_output,
    check_widths,
    decoder_layers,
)
from florence_onnx.engine.decoder import Decoder
from florence_onnx.engine.external_data import check_external_data
from florence_onnx.engine.geometry import (
    MODEL_SIZES,
    check_sizes,
    declared_sizes,
    returned_sizes,
)
from florence_onnx.engine.halves import run
from florence_onnx.engine.hub_contract import ENCODERS, SUFFIXES
from florence_onnx.engine.layouts import (
    MERGED,
    SLOTS,
    SPLIT,
    Layout,
    graph_files,
    precisions_of,
)
from florence_onnx.engine.miscounted import miscounted
from florence_onnx.engine.options import check_options, default_options
from florence_onnx.engine.precision import Precision, by_graph, check_runtime, one_of
from florence_onnx.engine.present import check_precision
from florence_onnx.engine.providers import (
    CPU,
    CUDA,
    Provider,
    Providers,
    check_obtained,
    first_line,
    provider_name,
    providers_by_graph,
    require_onnxruntime,
)
from florence_onnx.errors import GraphContractError, ModelFileError
from florence_onnx.files import refuse_lfs_pointer
from florence_onnx.staging import finish_replacement
from florence_onnx.terminal import say

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[np.generic]

_LACKING = (
    re.compile(r"find an implementation for (\w+)\("),
    re.compile(r"No Op registered for (\w+)"),
    re.compile(r"Fatal error: ([\w.:]+)\(-?[0-9]+\) is not a registered"),
)
"""Words in ONNX Runtime's errors about a missing operator."""


@dataclass(frozen=True)
class Graphs:
    """Graphs of one model: the sessions, with layout, precisions and sizes."""

    layout: Layout
    """Layout of the graphs, which tells how the decoder is driven."""
    precisions: Mapping[str, str]
    """Graph -> precision."""
    files: Mapping[str, str]
    """Graph -> path inside the model folder, for messages."""
    sessions: Mapping[str, "ort.InferenceSession"]
    """Graph -> session."""
    geometry: Mapping[str, int]
    """Sizes from the decoder's tensors, by the names in configurations."""
    folder: Path
    """Model folder."""

    def providers(self) -> dict[str, list[str]]:
        """Providers that each graph runs on, most used first."""
        return {name: list(session.get_providers()) for name, session in self.sessions.items()}

    @property
    def precision(self) -> str:
        """Precision of all graphs, or several precisions, such as ``"fp16+q4"``."""
        return one_of(self.precisions)

    @cached_property
    def decoder(self) -> Decoder:
        """Decoder, which encodes requests and runs the steps of a search."""
        return self.layout.decoder(self)

    def image_features(self, pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        count, (fixed, *_) = len(pixel_values), self._picture_axes
        size = fixed or max(count, 1)
        while not fixed and size in self._avoided_counts:
            size += 1
        parts = []
        for start in range(0, count, size):
            part = pixel_values[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            shape = (size, None)
            parts.append(self._run(contract.VISION_ENCODER, "pixel_values", filled, shape))
        return np.concatenate(parts)[:count]

    @property
    def picture_size(self) -> tuple[int | None, int | None]:
        """Height and width of the only pictures that the vision encoder takes; None for any."""
        _, _, height, width = self._picture_axes
        return height, width

    @cached_property
    def _avoided_counts(self) -> frozenset[int]:
        """Numbers of pictures that CUDA computes wrong, also behind another provider."""
        if CUDA not in self.sessions[contract.VISION_ENCODER].get_providers():
            return frozenset()
        return miscounted(self.folder / self.files[contract.VISION_ENCODER])

    @property
    def _picture_axes(self) -> list[int | None]:
        """Height and width of pixel_values in the vision encoder; None where any will do."""
        (pixels,) = self.sessions[contract.VISION_ENCODER].get_inputs()
        return [size if isinstance(size, int) else None for size in pixels.shape]

    def embed(self, input_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        return self._run(contract.EMBED_TOKENS, "input_ids", input_ids, input_ids.shape)

    def _run(
        self, graph: str, name: str, value: Array, shape: tuple[int | None, ...]
    ) -> npt.NDArray[np.float32]:
        """Runs a graph with one input and one output; ``shape`` lacks the last axis."""
        file, (returned,) = self.files[graph], self.layout.graphs[graph].outputs
        (output,) = run(self.sessions[graph], file, {name: value}, [returned])
        return check_output(file, returned, output, (*shape, self.geometry["hidden_size"]))


def open_graphs(
    folder: Path,
    precision: Precision,
    providers: Providers | None = None,
    threads: int | None = None,
    session_options: "ort.SessionOptions | None" = None,
    fast_math: bool = False,
) -> Graphs:
    """Opens and checks the graphs of a model folder.

    Args:
        folder: The model folder, with the ``onnx`` folder inside.
        precision: A key of the layout's suffixes, or such a key per graph.
        providers: ONNX Runtime providers for all graphs or per graph, see `providers_by_graph`;
            None for CUDA where CUDA works, else the CPU.
        threads: Threads inside an operator; None for `default_threads`.
        session_options: Options for all sessions instead of this package's.
        fast_math: Whether float32 matmuls on an Arm CPU are computed in bfloat16.

    Raises:
        PrecisionError: The folder holds no graphs of this precision, or these need a newer ONNX
            Runtime.
        ModelFileError: A graph's file is missing, truncated or foreign.
        GraphContractError: A graph has other inputs or outputs.
        ProviderError: A provider was asked for and not obtained.
        SessionOptionsError: ``session_options`` are of another type, or ``threads`` or
            ``fast_math`` are given too, or the processor has no use for ``fast_math``.
    """
    require_onnxruntime()
    check_options(session_options, threads, fast_math)
    finish_replacement(folder)
    layout = check_precision(folder, precision)

    def options(graph: str, precision: str) -> "ort.SessionOptions":
        return session_options or default_options(graph, precision, threads, fast_math)

    def opened(layout: Layout) -> Graphs:
        return _open_layout(layout, folder, precision, providers, options)

    if layout is not MERGED or not SPLIT.is_whole(graph_files(folder), precision):
        return opened(layout)
    try:
        return opened(MERGED)
    except (ModelFileError, GraphContractError) as error:
        graphs = opened(SPLIT)
        first, later = (graphs.files[name] for name in list(SPLIT.graphs)[-2:])
        say(f"note: opened {first} and {later} instead of one decoder: {error}")
        return graphs


def _open_layout(
    layout: Layout,
    folder: Path,
    precision: Precision,
    providers: Providers | None,
    options_of: "Callable[[str, str], ort.SessionOptions]",
) -> Graphs:
    """Opens the graphs of a layout with the options of each graph and its precision."""
    precisions = by_graph(precision, layout.graphs)
    for name in set(precisions.values()):
        check_runtime(name)
    chosen = providers_by_graph(providers, layout.graphs, layout.others)
    options = {name: options_of(name, precisions[name]) for name in layout.graphs}
    files = layout.files(graph_files(folder), precision)
    paths = {name: folder / file for name, file in files.items()}

    def open_graph(name: str) -> "ort.InferenceSession":
        return _open(paths[name], name, chosen[name], options[name])

    with ThreadPoolExecutor(len(paths)) as pool:
        sessions = dict(zip(paths, pool.map(open_graph, paths), strict=True))
    return Graphs(layout, precisions, files, sessions, _check(layout, paths, sessions), folder)


def _check(
    layout: Layout, paths: Mapping[str, Path], sessions: Mapping[str, "ort.InferenceSession"]
) -> dict[str, int]:
    """Checks that graphs belong to a layout and to one model; returns the geometry."""
    layers = decoder_layers(sessions.values())
    for name, session in sessions.items():
        check_graph(paths[name], layout.graphs[name], layers, session)
        if layout is not SLOTS and name != contract.VISION_ENCODER:
            check_dynamic(paths[name], layout.graphs[name], session)
    check_widths(sessions, named=layout is not SLOTS)
    signatures = {name: signature.of(layers) for name, signature in layout.graphs.items()}
    check_caches(paths, signatures, sessions, named=layout is not SLOTS)
    sizes = declared_sizes(layout.graphs, sessions)
    for name in (contract.EMBED_TOKENS, next(n for n in sessions if n not in ENCODERS)):
        if layout is not SLOTS and any(size not in sizes for size in MODEL_SIZES):
            found = returned_sizes(signatures[name], sessions[name], str(paths[name]), sizes)
            sizes = {**found, **sizes}
    *_, last = paths.values()
    check_sizes(sizes, last)
    return {**sizes, "decoder_layers": layers}


def _open(
    path: Path, graph: str, providers: list[Provider], options: "ort.SessionOptions"
) -> "ort.InferenceSession":
    import onnxruntime as ort

    if not path.is_file():
        raise ModelFileError(f"{path} is missing; export the model again or choose another folder")
    for part in (path, path.with_name(path.name + contract.DATA_SUFFIX)):
        refuse_lfs_pointer(part, ModelFileError)
    check_external_data(path)
    try:
        # The fallback of ONNX Runtime to the CPU prints on stdout, and check_obtained is stricter.
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        named = [name for name in map(provider_name, providers) if name != CPU]
        place = f" with {', '.join(named)}" if named else ""
        lacking = next((m for m in (p.search(str(error)) for p in _LACKING) if m), None)
        if lacking:
            others = [
                name
                for name in precisions_of(graph_files(path.parents[1]))
                if path.name != Path(contract.graph_file(graph, name, SUFFIXES)).name
            ]
            instead = f", or open another precision: {', '.join(others)}" if others else ""
            raise ModelFileError(
                f"{path} needs the operator {lacking[1]}, which onnxruntime {ort.__version__}"
                f"{place} lacks; install a newer one (pip install -U 'florence-onnx[cpu]'){instead}"
            ) from error
        again = "; fetch or export the file again" if "protobuf" in str(error).lower() else ""
        raise ModelFileError(
            f"{path} is not a graph ONNX Runtime can run{place}: {first_line(error)} (onnxruntime "
            f"{ort.__version__} is installed){again}"
        ) from error
    check_obtained(graph, providers, session.get_providers())
    return session
