"""The four graphs of a model, opened and checked against the contract."""

from collections.abc import Mapping
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
    check_graph,
    check_output,
    check_widths,
    declared_sizes,
    decoder_layers,
    running,
)
from florence_onnx.engine.decoder import Decoder
from florence_onnx.engine.external_data import check_external_data
from florence_onnx.engine.layouts import SLOTS, Layout, graph_files
from florence_onnx.engine.options import check_options, default_options
from florence_onnx.engine.precision import check_runtime
from florence_onnx.engine.providers import (
    CPU,
    Provider,
    Providers,
    check_obtained,
    first_line,
    provider_name,
    providers_by_graph,
    require_onnxruntime,
)
from florence_onnx.errors import ModelFileError, PrecisionError
from florence_onnx.files import refuse_lfs_pointer
from florence_onnx.staging import finish_replacement

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Graphs:
    """The sessions of one model at one precision."""

    layout: Layout
    """What the graphs are and how the decoder is driven."""
    precision: str
    """A key of `contract.PRECISIONS`."""
    files: Mapping[str, str]
    """Graph -> its path inside the model folder, for messages."""
    sessions: Mapping[str, "ort.InferenceSession"]
    """Graph -> its session."""
    geometry: Mapping[str, int]
    """Sizes read from the decoder's tensors, by the names that configurations have for them."""
    folder: Path
    """The model folder."""

    def providers(self) -> dict[str, list[str]]:
        """The providers ONNX Runtime gave each graph, most used first."""
        return {name: list(session.get_providers()) for name, session in self.sessions.items()}

    @cached_property
    def decoder(self) -> Decoder:
        """What encodes requests and runs the steps of a search."""
        return self.layout.decoder(self)

    def image_features(self, pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        shape = (len(pixel_values), None)
        return self._run(contract.VISION_ENCODER, "pixel_values", pixel_values, shape)

    def embed(self, input_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        return self._run(contract.EMBED_TOKENS, "input_ids", input_ids, input_ids.shape)

    def _run(
        self, graph: str, name: str, value: Array, shape: tuple[int | None, ...]
    ) -> npt.NDArray[np.float32]:
        """The output of a graph with one input; ``shape`` is that of all axes but the last."""
        file, (returned,) = self.files[graph], self.layout.graphs[graph].outputs
        with running(file):
            (output,) = self.sessions[graph].run([returned], {name: value})
        return check_output(file, returned, output, (*shape, self.geometry["hidden_size"]))


def open_graphs(
    folder: Path,
    precision: str,
    providers: Providers | None = None,
    threads: int | None = None,
    session_options: "ort.SessionOptions | None" = None,
) -> Graphs:
    """Opens and checks the graphs of a model folder.

    Args:
        folder: The model folder, with the ``onnx`` folder inside.
        precision: A key of `contract.PRECISIONS`.
        providers: ONNX Runtime providers, for all graphs or per graph, as `providers_by_graph`
            takes them; None for CUDA where it works, else the CPU.
        threads: Threads inside an operator; None for `default_threads`.
        session_options: Options for all four sessions instead of this package's.

    Raises:
        PrecisionError: The folder holds no graphs of this precision, or ONNX Runtime is too old
            for them.
        ModelFileError: A graph's file is missing, truncated or foreign.
        GraphContractError: A graph has other inputs or outputs.
        ProviderError: A provider was asked for and not obtained.
        SessionOptionsError: ``session_options`` are none, or ``threads`` are given too.
    """
    require_onnxruntime()
    check_options(session_options, threads)
    finish_replacement(folder)
    check_precision(folder, precision)
    check_runtime(precision)
    chosen = providers_by_graph(providers)

    layout = SLOTS
    options = {
        name: session_options or default_options(name, precision, threads) for name in layout.graphs
    }
    files = layout.files(graph_files(folder), precision)
    paths = {name: folder / file for name, file in files.items()}

    def open_graph(name: str) -> "ort.InferenceSession":
        return _open(paths[name], name, chosen[name], options[name])

    with ThreadPoolExecutor(len(paths)) as pool:
        sessions = dict(zip(paths, pool.map(open_graph, paths), strict=True))
    return Graphs(layout, precision, files, sessions, _check(layout, paths, sessions), folder)


def _check(
    layout: Layout, paths: Mapping[str, Path], sessions: Mapping[str, "ort.InferenceSession"]
) -> dict[str, int]:
    """Checks that graphs are those of a layout and of one model; returns its geometry."""
    layers = decoder_layers(sessions.values())
    for name, session in sessions.items():
        check_graph(paths[name], layout.graphs[name], layers, session)
    check_widths(sessions)
    signatures = {name: signature.of(layers) for name, signature in layout.graphs.items()}
    check_caches(paths, signatures, sessions)
    *_, last = sessions
    sizes = declared_sizes(paths[last], layout.graphs[last], sessions[last])
    return {**sizes, "decoder_layers": layers}


def present_precisions(folder: Path) -> list[str]:
    """The precisions for which the folder holds every graph."""
    return SLOTS.precisions(graph_files(folder))


def check_precision(folder: Path, precision: str) -> None:
    """Raises when ``precision`` is unknown, or the folder has other precisions only."""
    names = graph_files(folder)
    present = SLOTS.precisions(names)
    if precision in present:
        return
    if precision in contract.PRECISIONS and not present:
        return  # The first missing file is the better message.
    listed = ", ".join(present) or "none complete"
    if precision in contract.PRECISIONS:
        files = SLOTS.files(names, precision).values()
        missing = [file for file in files if file not in names]
        if len(missing) < len(files):
            raise PrecisionError(
                f"{folder / missing[0]} is missing, without which precision {precision!r} cannot "
                f"be opened; present: {listed}"
            )
    raise PrecisionError(f"no graphs of precision {precision!r} in {folder}; present: {listed}")


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
        # Its fallback to the CPU would print on stdout; check_obtained is stricter anyway.
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        others = [name for name in map(provider_name, providers) if name != CPU]
        place = f" with {', '.join(others)}" if others else ""
        raise ModelFileError(
            f"{path} is not a graph ONNX Runtime can run{place}: {first_line(error)} (onnxruntime "
            f"{ort.__version__} is installed)"
        ) from error
    check_obtained(graph, providers, session.get_providers())
    return session
