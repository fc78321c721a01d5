"""Ways to compute a matmul, and which of them each precision tries."""

import functools
from collections.abc import Sequence

from florence_onnx.engine import contract
from florence_onnx_export.quantization.blockwise import block_matmul
from florence_onnx_export.quantization.int8 import dynamic_matmul
from florence_onnx_export.quantization.matmuls import Method

FP32 = "fp32"

SMOOTH = "smooth8"
"""The name of matmuls whose inputs are smoothed before one scale serves them all."""

METHODS: dict[str, Method] = {
    "dynamic8": dynamic_matmul,
    SMOOTH: dynamic_matmul,
    "blocks8": functools.partial(block_matmul, bits=8),
    "blocks4": functools.partial(block_matmul, bits=4),
}
"""Methods by the names of the report; a matmul that is not changed has the name `FP32`."""

STORED = "stored8"
"""The name of weights that are only stored in 8 bits."""

_BLOCKS: tuple[str, ...] = ("blocks8", FP32)
_BYTES = ("dynamic8", SMOOTH, *_BLOCKS)

_PINNED = {
    # Reads the sum of all blocks, which no normalisation has brought to one scale: quantised with
    # one scale it alone has a larger error than all other matmuls of the vision encoder together.
    "projector.projection.weight": _BLOCKS,
}

_NOT_IN_FOUR_BITS = ("head.weight", ".v_proj.weight", ".out_proj.weight")
"""Ends of the names of weights of the decoder. The head decides between tokens that are nearly a
tie: in 4 bits it alone changes more answers than all other matmuls. The others make what
attention adds: a fifth of a layer, and a third of what the demo model's polygons lose in 4 bits."""


def levels(
    precision: str, graph: str, matmuls: Sequence[str], stored: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Weight name -> methods to try, fastest first.

    The decoder reads all its weights for a few rows, for which blocks are nearly as fast as one
    scale for all, and an answer does not depend on what else is in its batch. The other graphs
    have hundreds of rows, for which 4 bits are no faster than float32.

    Args:
        precision: ``q8`` or ``q4``.
        graph: Graph name.
        matmuls: Weights of its matmuls.
        stored: Other weights worth storing in 8 bits.
    """
    usual = _BLOCKS if graph == contract.DECODER else _BYTES
    methods = {name: _PINNED.get(name, usual) for name in matmuls}
    if (precision, graph) == ("q4", contract.DECODER):
        for name in matmuls:
            if not name.endswith(_NOT_IN_FOUR_BITS):
                methods[name] = ("blocks4", *_BLOCKS)
    return {**methods, **dict.fromkeys(stored, (STORED, FP32))}
