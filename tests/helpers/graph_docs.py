"""docs/graphs.md, made of the graph contract: ``python -m tests.helpers.graph_docs`` writes it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from florence_onnx.engine import contract
from florence_onnx.engine.contract import Tensor

PAGE = Path(__file__).parents[2] / "docs" / "graphs.md"

_HEAD = """# Graphs of a model folder

Made of `florence_onnx/engine/contract.py` by `python -m tests.helpers.graph_docs`.

`florence-onnx export` writes these graphs, `onnx/GRAPH.onnx` for fp32 and `onnx/GRAPH_SUFFIX.onnx`
for the other precisions. Inputs and outputs have the same names, axes and types at every precision.
A graph is known by its name in `providers=` and in error messages.
"""

_DECODER = """
The decoder's cache is a set of slots that the beams of a picture share. A step writes the key and
value of each row into the slot that `cache_slots` names, and the row sees the slots that
`cache_mask` allows, its own new one included. Reordering beams is a matter of the mask: nothing in
the cache moves, and a past that beams have in common is stored and read once. With past and
present bound to one buffer, the step writes in place. The keys and values of the cross-attention
come from the encoder, once per picture.

`topk_ids` are the most probable next tokens of each row, and `topk_log_probs` their
log-probabilities (log-softmax over the vocabulary), in descending order.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_precisions(), *_graphs(), _DECODER, *_axes()])


def _precisions() -> Iterator[str]:
    yield from ("| precision | suffix |", "|---|---|")
    for name, suffix in contract.PRECISIONS.items():
        yield f"| {name} | {f'`{suffix}`' if suffix else 'none'} |"
    yield ""


def _graphs() -> Iterator[str]:
    yield "`{i}` counts decoder layers."
    for graph, (inputs, outputs) in contract.SIGNATURES.items():
        yield from ("", f"## {graph}", "", "| | tensor | type | axes |", "|---|---|---|---|")
        yield from _tensors("input", inputs)
        yield from _tensors("output", outputs)


def _tensors(kind: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in tensors.items():
        element = tensor.type.removeprefix("tensor(").removesuffix(")")
        yield f"| {kind} | `{name}` | {element} | {', '.join(map(str, tensor.axes))} |"


def _axes() -> Iterator[str]:
    yield from ("## Axes", "", "| axis | size | counts |", "|---|---|---|")
    for size, axes in (("may change", contract.DYNAMIC), ("of the model", contract.FIXED)):
        for name, meaning in axes.items():
            yield f"| {name} | {size} | {meaning} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
