"""The kinds of model folders: which graphs there are, in which files, and what drives a decoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.engine import contract
from florence_onnx.engine.contract import Signature
from florence_onnx.engine.decoder import Decoder
from florence_onnx.engine.slot_decoder import SlotDecoder

if TYPE_CHECKING:
    from florence_onnx.engine.sessions import Graphs


@dataclass(frozen=True)
class Layout:
    """One kind of model folder, known by the names of its files."""

    graphs: Mapping[str, Signature]
    """The graphs and their tensors."""
    suffixes: Mapping[str, str]
    """Precision -> what the names of its graphs end in."""
    decoder: "Callable[[Graphs], Decoder]"
    """Makes the decoder of opened graphs, be it one of them or several."""

    def file(self, graph: str, precision: str) -> str:
        """Path of a graph's file inside a model folder, with forward slashes."""
        return contract.graph_file(graph, precision, self.suffixes)

    def files(self, precision: str) -> dict[str, str]:
        """The files of all graphs, by graph."""
        return {graph: self.file(graph, precision) for graph in self.graphs}

    def parts(self, folder: Path, graph: str, precision: str) -> list[Path]:
        """The files of a graph in a folder: its own, and that of its weights if it has one."""
        path = folder / self.file(graph, precision)
        data = path.with_name(path.name + contract.DATA_SUFFIX)
        return [path, data] if data.exists() else [path]


SLOTS = Layout(contract.SIGNATURES, contract.PRECISIONS, SlotDecoder)
"""What the exporter writes: a decoder whose cache is a set of slots."""
