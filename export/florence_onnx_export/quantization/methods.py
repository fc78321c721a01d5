"""Methods to compute a matmul, and the methods that each precision tries."""

import functools
from collections.abc import Sequence

from florence_onnx.engine import contract
from florence_onnx_export.quantization.blockwise import block_matmul
from florence_onnx_export.quantization.int8 import dynamic_matmul
from florence_onnx_export.quantization.matmuls import Method

FP32 = "fp32"

SMOOTH = "smooth8"
"""Name of the method with one scale for all inputs, after SmoothQuant on the inputs."""

METHODS: dict[str, Method] = {
    "dynamic8": dynamic_matmul,
    SMOOTH: dynamic_matmul,
    "blocks8": functools.partial(block_matmul, bits=8),
    "blocks4": functools.partial(block_matmul, bits=4),
}
"""Methods by their names in the report. A matmul that is not changed has the name `FP32`."""

STORED = "stored8"
"""Name of the method of weights that are stored in 8 bits and used in float32."""

STORED16 = "stored16"
"""Name of the method of weights that are stored in 16 bits and used in float32."""

CHANNELS = "channels8"
"""Name of the method of channel attentions in 8 bits, whose weights are stored in 8 bits too."""

_BLOCKS: tuple[str, ...] = ("blocks8", FP32)
_BYTES = ("dynamic8", SMOOTH, *_BLOCKS)

_COARSE = ("dynamic8", SMOOTH, "blocks4")
_FINE = ("blocks8", STORED16)

STEPS: tuple[tuple[tuple[str, ...], float], ...] = (
    ((CHANNELS, STORED), 1),
    (_COARSE, 1 / 2),
    (_COARSE, 1),
    (_FINE, 1 / 2),
    (_FINE, 1),
)
"""Steps to a smaller error where there is no time to measure matmuls one by one: methods that are
not used any more, and for which share of the graph's weights, from the input on. Errors near the
input count most, because the layers that follow amplify the change."""

_PINNED = {
    # This matmul reads the sum of all blocks without a normalisation. With one scale for all
    # inputs, its error is larger than that of all other matmuls of the vision encoder together,
    # and in blocks twice that of any other. It has 1/400 of the multiplications.
    "projector.projection.weight": (FP32,),
}

_NOT_IN_FOUR_BITS = ("head.weight", ".v_proj.weight", ".out_proj.weight")
"""Ends of names of weights of the decoder that never have 4 bits. The head decides between tokens
that are nearly a tie: a head in 4 bits changes more answers than all other matmuls in 4 bits. The
value and output projections are a fifth of a layer, but in 4 bits cause a third of the error in the
demo model's polygons."""


def levels(
    precision: str,
    graph: str,
    matmuls: Sequence[str],
    stored: Sequence[str],
    channels: Sequence[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Weight name -> methods to try, fastest first.

    The decoder has few rows per run. For few rows, scales per block are nearly as fast as one scale
    for all, and with scales per block an answer does not depend on the other answers in the batch.
    The other graphs have hundreds of rows, for which 4 bits are no faster than float32.

    Args:
        precision: ``q8`` or ``q4``.
        graph: Name of the graph.
        matmuls: Weights of the graph's matmuls.
        stored: Other weights to store in 8 bits.
        channels: Weights of the values of channel attentions to compute in 8 bits.
    """
    usual = _BLOCKS if graph == contract.DECODER else _BYTES
    methods = {name: _PINNED.get(name, usual) for name in matmuls}
    if (precision, graph) == ("q4", contract.DECODER):
        for name in matmuls:
            if not name.endswith(_NOT_IN_FOUR_BITS):
                methods[name] = ("blocks4", *_BLOCKS)
    methods |= dict.fromkeys(stored, (STORED, STORED16, FP32))
    return methods | {name: (CHANNELS, *methods.get(name, (FP32,))) for name in channels}
