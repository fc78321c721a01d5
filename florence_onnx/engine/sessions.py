"""The four graphs of a model, opened and checked against the contract."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.checks import (
    check_caches,
    check_output,
    check_tensors,
    check_widths,
    declared_sizes,
    running,
)
from florence_onnx.engine.external_data import check_external_data
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

    precision: str
    """A key of `contract.PRECISIONS`."""
    vision_encoder: "ort.InferenceSession"
    """pixel_values -> image_features."""
    embed_tokens: "ort.InferenceSession"
    """input_ids -> inputs_embeds."""
    encoder: "ort.InferenceSession"
    """inputs_embeds -> cross-attention keys and values."""
    decoder: "ort.InferenceSession"
    """One step of the search."""
    layers: int
    """Decoder layers, read from the decoder's inputs."""

    def providers(self) -> dict[str, list[str]]:
        """The providers ONNX Runtime gave each graph, most used first."""
        sessions = (self.vision_encoder, self.embed_tokens, self.encoder, self.decoder)
        return {
            name: list(session.get_providers())
            for name, session in zip(contract.GRAPHS, sessions, strict=True)
        }

    def file(self, graph: str) -> str:
        """The path of a graph inside its model folder, for messages."""
        return contract.graph_file(graph, self.precision)

    def geometry(self) -> dict[str, int]:
        """Sizes read from the decoder's tensors."""
        sizes = declared_sizes(Path(self.file(contract.DECODER)), self.decoder)
        return {**sizes, "decoder_layers": self.layers}

    def image_features(self, pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        file, width = self.file(contract.VISION_ENCODER), self.geometry()["hidden_size"]
        with running(file):
            (output,) = self.vision_encoder.run(["image_features"], {"pixel_values": pixel_values})
        return check_output(file, "image_features", output, (len(pixel_values), None, width))

    def embed(self, input_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D].

        Raises:
            GraphRunError: The graph fails, or returns another shape, or NaN.
        """
        file, width = self.file(contract.EMBED_TOKENS), self.geometry()["hidden_size"]
        with running(file):
            (output,) = self.embed_tokens.run(["inputs_embeds"], {"input_ids": input_ids})
        return check_output(file, "inputs_embeds", output, (*input_ids.shape, width))


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

    options = {
        name: session_options or default_options(name, precision, threads)
        for name in contract.GRAPHS
    }

    paths = {name: folder / contract.graph_file(name, precision) for name in contract.GRAPHS}

    def open_graph(name: str) -> "ort.InferenceSession":
        return _open(paths[name], name, chosen[name], options[name])

    with ThreadPoolExecutor(len(contract.GRAPHS)) as pool:
        sessions = dict(zip(contract.GRAPHS, pool.map(open_graph, contract.GRAPHS), strict=True))
    check_widths(sessions)
    encoder, decoder = sessions[contract.ENCODER], sessions[contract.DECODER]
    layers = check_caches(paths, encoder, decoder)
    declared_sizes(paths[contract.DECODER], decoder)
    return Graphs(
        precision=precision,
        vision_encoder=sessions[contract.VISION_ENCODER],
        embed_tokens=sessions[contract.EMBED_TOKENS],
        encoder=encoder,
        decoder=decoder,
        layers=layers,
    )


def present_precisions(folder: Path) -> list[str]:
    """The precisions for which the folder holds every graph."""
    return [
        precision
        for precision in contract.PRECISIONS
        if all(
            (folder / contract.graph_file(name, precision)).is_file() for name in contract.GRAPHS
        )
    ]


def check_precision(folder: Path, precision: str) -> None:
    """Raises when ``precision`` is unknown, or the folder has other precisions only."""
    present = present_precisions(folder)
    if precision in present:
        return
    if precision in contract.PRECISIONS and not present:
        return  # The first missing file is the better message.
    listed = ", ".join(present) or "none complete"
    if precision in contract.PRECISIONS:
        paths = [folder / contract.graph_file(name, precision) for name in contract.GRAPHS]
        missing = [path for path in paths if not path.is_file()]
        if len(missing) < len(paths):
            raise PrecisionError(
                f"{missing[0]} is missing, without which precision {precision!r} cannot be opened; "
                f"present: {listed}"
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
    check_tensors(path, graph, session)
    return session
