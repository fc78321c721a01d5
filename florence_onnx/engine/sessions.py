"""The four graphs of a model, opened and checked against the contract."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.options import check_options, default_options
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
from florence_onnx.errors import (
    GraphContractError,
    ModelFileError,
    PrecisionError,
)
from florence_onnx.files import refuse_lfs_pointer

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[np.generic]

EXPECTED = {
    contract.VISION_ENCODER: (("pixel_values",), ("image_features",)),
    contract.EMBED_TOKENS: (("input_ids",), ("inputs_embeds",)),
    contract.ENCODER: (("attention_mask", "inputs_embeds"), ("last_hidden_state",)),
    contract.DECODER: (
        ("encoder_attention_mask", "inputs_embeds", "position_ids", "cache_slots", "cache_mask"),
        ("logits", "topk_log_probs", "topk_ids"),
    ),
}
"""Inputs and outputs each graph must have, besides the cache tensors."""


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

    def geometry(self) -> dict[str, int]:
        """Sizes read from the decoder's tensors."""
        inputs = {value.name: value.shape for value in self.decoder.get_inputs()}
        outputs = {value.name: value.shape for value in self.decoder.get_outputs()}
        _, heads, _, head_dim = inputs["past_key_values.0.decoder.key"]
        return {
            "hidden_size": inputs["inputs_embeds"][2],
            "decoder_layers": self.layers,
            "decoder_heads": heads,
            "head_dim": head_dim,
            "vocabulary": outputs["logits"][2],
        }

    def image_features(self, pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps pixel_values [B,3,H,W] to image_features [B,N,D]."""
        (features,) = self.vision_encoder.run(["image_features"], {"pixel_values": pixel_values})
        return np.asarray(features)

    def embed(self, input_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Maps input_ids [B,T] to inputs_embeds [B,T,D]."""
        (embeds,) = self.embed_tokens.run(["inputs_embeds"], {"input_ids": input_ids})
        return np.asarray(embeds)


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
        PrecisionError: The folder holds no graphs of this precision.
        ModelFileError: A graph's file is missing, truncated or foreign.
        GraphContractError: A graph has other inputs or outputs.
        ProviderError: A provider was asked for and not obtained.
        SessionOptionsError: ``session_options`` are none, or ``threads`` are given too.
    """
    require_onnxruntime()
    check_options(session_options, threads)
    check_precision(folder, precision)
    chosen = providers_by_graph(providers)

    options = {
        name: session_options or default_options(name, precision, threads)
        for name in contract.GRAPHS
    }

    def open_graph(name: str) -> "ort.InferenceSession":
        path = folder / contract.graph_file(name, precision)
        return _open(path, name, chosen[name], options[name])

    with ThreadPoolExecutor(len(contract.GRAPHS)) as pool:
        sessions = dict(zip(contract.GRAPHS, pool.map(open_graph, contract.GRAPHS), strict=True))
    check_widths(sessions)
    encoder, decoder = sessions[contract.ENCODER], sessions[contract.DECODER]
    return Graphs(
        precision=precision,
        vision_encoder=sessions[contract.VISION_ENCODER],
        embed_tokens=sessions[contract.EMBED_TOKENS],
        encoder=encoder,
        decoder=decoder,
        layers=_check_caches(encoder, decoder),
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
    raise PrecisionError(f"no graphs of precision {precision!r} in {folder}; present: {listed}")


def _open(
    path: Path, graph: str, providers: list[Provider], options: "ort.SessionOptions"
) -> "ort.InferenceSession":
    import onnxruntime as ort

    if not path.is_file():
        raise ModelFileError(f"{path} is missing; export the model again or choose another folder")
    for part in (path, path.with_name(path.name + contract.DATA_SUFFIX)):
        refuse_lfs_pointer(part, ModelFileError)
    try:
        # Its fallback to the CPU would print on stdout; check_obtained is stricter anyway.
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        others = [name for name in map(provider_name, providers) if name != CPU]
        place = f" with {', '.join(others)}" if others else ""
        raise ModelFileError(
            f"{path} is not a graph ONNX Runtime can run{place}: {first_line(error)}"
        ) from error
    check_obtained(graph, providers, session.get_providers())
    inputs, outputs = EXPECTED[graph]
    _check_names(path, "input", inputs, [value.name for value in session.get_inputs()])
    _check_names(path, "output", outputs, [value.name for value in session.get_outputs()])
    return session


def _check_names(path: Path, kind: str, expected: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise GraphContractError(
            f"{path} has no {kind} {', '.join(missing)}; it has {', '.join(found)}. "
            "Export the checkpoint with florence-onnx export"
        )


def _check_caches(encoder: "ort.InferenceSession", decoder: "ort.InferenceSession") -> int:
    """Checks that both graphs agree on the cache; returns the number of decoder layers."""
    past = [value.name for value in decoder.get_inputs() if value.name.startswith("past_key")]
    layers = len(past) // 4

    def check(graph: str, kind: str, prefix: str, side: str, found: list[str]) -> None:
        # A decoder without any cache lacks at least the first layer's.
        wanted = list(contract.cache_names(prefix, side, max(layers, 1)))
        _check_names(Path(graph), kind, wanted, found)

    for side in ("decoder", "encoder"):
        check(contract.DECODER, "input", "past_key_values", side, past)
    present = [value.name for value in decoder.get_outputs()]
    check(contract.DECODER, "output", "present", "decoder", present)
    present = [value.name for value in encoder.get_outputs()]
    check(contract.ENCODER, "output", "present", "encoder", present)
    return layers


def check_widths(sessions: "dict[str, ort.InferenceSession]") -> None:
    """Checks that the graphs are of one model: they hand each other tensors of its hidden size."""
    widths = {
        f"{value.name} of {graph}": (value.shape or [None])[-1]
        for graph, session in sessions.items()
        for value in (*session.get_inputs(), *session.get_outputs())
        if value.name in ("image_features", "inputs_embeds", "last_hidden_state")
    }
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise GraphContractError(f"the graphs are of different models; hidden sizes: {listed}")
