"""The kinds of model folders: which graphs there are, in which files, and what drives a decoder."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.engine import contract
from florence_onnx.engine.contract import Signature
from florence_onnx.engine.decoder import Decoder
from florence_onnx.engine.slot_decoder import SlotDecoder

if TYPE_CHECKING:
    from florence_onnx.engine.sessions import Graphs


_HUBS = re.compile(r"onnx/decoder_model(_\w+)?\.onnx")
"""Files of the hub's exports for transformers.js alone. Their ``decoder_with_past_model`` has other
inputs than this package's decoder, which was once called that too."""


@dataclass(frozen=True)
class Layout:
    """One kind of model folder, known by the names of its files.

    Files are named by their paths inside the folder, with forward slashes.
    """

    graphs: Mapping[str, Signature]
    """The graphs and their tensors, the decoder last."""
    suffixes: Mapping[str, str]
    """Precision -> what the names of its graphs end in."""
    decoder: "Callable[[Graphs], Decoder]"
    """Makes the decoder of opened graphs, be it one of them or several; it keeps their parts only,
    as they keep it."""
    former: Mapping[str, str]
    """Graph -> its name in folders that were written before it got its present one."""

    def file(self, graph: str, precision: str) -> str:
        """The file that a graph is written to."""
        return contract.graph_file(graph, precision, self.suffixes)

    def files(self, names: Collection[str], precision: str) -> dict[str, str]:
        """The file of every graph among ``names``: the present one, or what it once was.

        Args:
            names: The files of a folder, those of graphs at least.
            precision: A key of ``suffixes``.

        Returns:
            Graph -> file. Of a graph that is not there, the file that it is written to.
        """
        found = {graph: self.file(graph, precision) for graph in self.graphs}
        if any(map(_HUBS.fullmatch, names)):
            return found
        for graph, name in self.former.items():
            former = self.file(name, precision)
            if former in names and found[graph] not in names:
                found[graph] = former
        return found

    def precisions(self, names: Collection[str]) -> list[str]:
        """The precisions for which every graph is among ``names``."""
        return [p for p in self.suffixes if all(f in names for f in self.files(names, p).values())]

    def path(self, folder: Path, graph: str, precision: str) -> Path:
        """Where a graph is in a folder."""
        return folder / self.files(graph_files(folder), precision)[graph]

    def parts(self, folder: Path, graph: str, precision: str) -> list[Path]:
        """The files of a graph in a folder: its own, and that of its weights if it has one."""
        path = self.path(folder, graph, precision)
        data = path.with_name(path.name + contract.DATA_SUFFIX)
        return [path, data] if data.exists() else [path]

    def known_files(self) -> set[str]:
        """Every file that graphs have been written to, and those of their weights."""
        names = (*self.graphs, *self.former.values())
        graphs = {self.file(name, precision) for name in names for precision in self.suffixes}
        return graphs | {file + contract.DATA_SUFFIX for file in graphs}


def graph_files(folder: Path) -> set[str]:
    """The files in a folder's folder ``onnx``."""
    return {f"onnx/{path.name}" for path in folder.glob("onnx/*") if path.is_file()}


SLOTS = Layout(
    graphs=contract.SIGNATURES,
    suffixes=contract.PRECISIONS,
    decoder=SlotDecoder,
    former={contract.DECODER: "decoder_with_past_model"},
)
"""What the exporter writes: a decoder whose cache is a set of slots."""
