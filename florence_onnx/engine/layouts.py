"""Layouts of model folders: the graphs, the names of files, and the decoder."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.contract import Signature
from florence_onnx.engine.decoder import Decoder
from florence_onnx.engine.past_decoder import PastDecoder
from florence_onnx.engine.precision import Precision, by_graph
from florence_onnx.engine.providers import OTHERS
from florence_onnx.engine.slot_decoder import SlotDecoder

if TYPE_CHECKING:
    from florence_onnx.engine.sessions import Graphs


_HUBS = re.compile(r"onnx/decoder_model(_\w+)?\.onnx")
"""Files that only the hub's exports for transformers.js have. The ``decoder_with_past_model`` of
the hub has other inputs than this package's decoder, which once had this name."""


@dataclass(frozen=True)
class Layout:
    """Kind of model folder, known by the names of the files.

    The name of a file is the path inside the folder, with forward slashes.
    """

    graphs: Mapping[str, Signature]
    """Graph -> tensors of the graph, the decoder last."""
    suffixes: Mapping[str, str]
    """Precision -> suffix of the names of graphs."""
    decoder: "Callable[[Graphs], Decoder]"
    """Function that makes the decoder of opened graphs. The decoder keeps only parts of the graphs,
    because the graphs keep the decoder."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Graph -> the graph's former name, which older folders have."""
    others: Collection[str] = ()
    """Graphs of another layout that is opened in place of this one; providers may name both."""

    def file(self, graph: str, precision: str) -> str:
        """Makes the name of the file to which a graph is written."""
        return contract.graph_file(graph, precision, hub_contract.SUFFIXES)

    def files(self, names: Collection[str], precision: Precision) -> dict[str, str]:
        """Finds the file of every graph among ``names``, by the present name or by the former name.

        Args:
            names: The files of a folder, the graphs at least.
            precision: A key of ``suffixes``, of all graphs or per graph.

        Returns:
            Graph -> file; for a missing graph, the file that an export would write.
        """
        chosen = by_graph(precision, self.graphs)
        found = {graph: self.file(graph, chosen[graph]) for graph in self.graphs}
        if any(map(_HUBS.fullmatch, names)):
            return found
        for graph, name in self.former.items():
            former = self.file(name, chosen[graph])
            if former in names and found[graph] not in names:
                found[graph] = former
        return found

    def precisions(self, names: Collection[str]) -> list[str]:
        """Finds the precisions for which every graph is among ``names``."""
        return [precision for precision in self.suffixes if self.is_whole(names, precision)]

    def is_whole(self, names: Collection[str], precision: Precision) -> bool:
        """Tells whether every graph is among ``names``."""
        if not self.suits(precision):
            return False
        return all(file in names for file in self.files(names, precision).values())

    def suits(self, precision: Precision) -> bool:
        """Tells whether the layout has this precision, or all of several."""
        return all(name in self.suffixes for name in by_graph(precision, self.graphs).values())

    def path(self, folder: Path, graph: str, precision: Precision) -> Path:
        """Makes the path of a graph in a folder."""
        return folder / self.files(graph_files(folder), precision)[graph]

    def parts(self, folder: Path, graph: str, precision: Precision) -> list[Path]:
        """Finds the files of a graph in a folder: the graph, and the file of weights if any."""
        path = self.path(folder, graph, precision)
        data = path.with_name(path.name + contract.DATA_SUFFIX)
        return [path, data] if data.exists() else [path]

    def known_files(self) -> set[str]:
        """Lists the names of files that graphs and their weights can have."""
        names = (*self.graphs, *self.former.values())
        graphs = {self.file(name, precision) for name in names for precision in self.suffixes}
        return graphs | {file + contract.DATA_SUFFIX for file in graphs}


_DATA = re.compile(rf"(?<=\.onnx){contract.DATA_SUFFIX}(_[0-9]+)?$")
"""Suffix of files of weights behind the name of a graph. The hub's graphs may have several."""


def graph_of(file: str) -> str:
    """Finds the graph of a file of weights; any other name stays."""
    return _DATA.sub("", file)


def graph_files(folder: Path) -> set[str]:
    """Lists the files in the folder ``onnx`` of a folder."""
    return {f"onnx/{path.name}" for path in folder.glob("onnx/*") if path.is_file()}


SLOTS = Layout(
    graphs=contract.SIGNATURES,
    suffixes=contract.PRECISIONS,
    decoder=SlotDecoder,
    former={contract.DECODER: "decoder_with_past_model"},
)
"""Layout that the exporter writes: a decoder whose cache is a set of slots."""

MERGED = Layout(
    graphs=hub_contract.MERGED,
    suffixes=hub_contract.SUFFIXES,
    decoder=PastDecoder,
    others=tuple(hub_contract.SPLIT),
)
"""Layout of the hub for transformers.js: one decoder for the first token and the later tokens."""

SPLIT = Layout(
    graphs=hub_contract.SPLIT,
    suffixes=hub_contract.SUFFIXES,
    decoder=PastDecoder,
    others=tuple(hub_contract.MERGED),
)
"""Layout of the hub with one decoder for the first token and another for the later tokens."""

WITH_PAIR = replace(MERGED, graphs={**hub_contract.MERGED, **hub_contract.SPLIT})
"""Layout that the exporter writes with the pair of decoders beside the merged decoder."""

LAYOUTS = (SLOTS, MERGED, SPLIT)
"""Layouts, the preferred one first."""


def layout_of(names: Collection[str], precision: Precision) -> Layout:
    """Finds the layout to open: the first complete layout, or else the first with a decoder.

    Args:
        names: The files of a folder, the graphs at least.
        precision: The precision of all graphs, or one per graph.
    """
    named = set() if isinstance(precision, str) else precision.keys() - {OTHERS}
    fitting = [one for one in LAYOUTS if named <= {*one.graphs, *one.others}] or list(LAYOUTS)
    for layout in fitting:
        if layout.is_whole(names, precision):
            return layout
    for layout in fitting:
        own = {graph for graph in layout.graphs if graph not in hub_contract.ENCODERS}
        if any(layout.files(names, p)[graph] in names for p in layout.suffixes for graph in own):
            return layout
    return fitting[0]


def precisions_of(names: Collection[str]) -> list[str]:
    """Finds the precisions for which ``names`` has every graph of a layout."""
    return [p for p in hub_contract.SUFFIXES if any(p in one.precisions(names) for one in LAYOUTS)]
