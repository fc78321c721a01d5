"""Ways to compute a product, and which of them each precision tries."""

import functools
from collections.abc import Sequence

from florence_onnx import graphs
from florence_onnx_export.products import Method
from florence_onnx_export.quantize_blocks import block_product
from florence_onnx_export.quantize_dynamic import dynamic_product

FP32 = "fp32"

METHODS: dict[str, Method] = {
    "dynamic8": dynamic_product,
    "blocks8": functools.partial(block_product, bits=8),
    "blocks4": functools.partial(block_product, bits=4),
}
"""By the names of the report; what stays as it is has the name `FP32`."""

STORED = "stored8"
"""The name of weights that are only stored in 8 bits."""

_BYTES = ("dynamic8", "blocks8", FP32)

_PINNED = {
    # Reads the sum of all blocks, which no normalisation has brought to one scale: quantised with
    # one scale it alone has a larger error than all other products of the vision encoder together.
    "projector.projection.weight": ("blocks8", FP32),
    # It decides between tokens that are nearly a tie: with one scale, or in 4 bits, it alone
    # changes more answers than all other products of the decoder.
    "head.weight": ("blocks8", FP32),
}


def levels(
    precision: str, graph: str, products: Sequence[str], stored: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Weight name -> methods to try, fastest first.

    Four bits are for the decoder, which reads all its weights for a few rows. For the hundreds of
    rows of the other graphs they are slower than 8 bits, and no faster than float32.

    Args:
        precision: ``q8`` or ``q4``.
        graph: Graph name.
        products: Weights of its products.
        stored: Other weights worth storing in 8 bits.
    """
    usual = ("blocks4", *_BYTES) if (precision, graph) == ("q4", graphs.DECODER) else _BYTES
    return {
        **{name: _PINNED.get(name, usual) for name in products},
        **dict.fromkeys(stored, (STORED, FP32)),
    }
