"""Matmuls in 4 or 8 bits, whose weights and activations are quantised in small blocks."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from florence_onnx_export.quantization.gptq import round_weight
from florence_onnx_export.quantization.matmuls import MICROSOFT, Matrix, Tensors

BLOCK = 32
"""Number of values along the input axis that share a scale."""


SHRINKS = {8: (1.0,), 4: tuple(np.linspace(0.7, 1.1, 9))}
"""Bits -> scales to try, relative to the scale at which no value is clipped. A search gains nothing
in 8 bits."""


def block_matmul(
    x: str,
    name: str,
    weight: Matrix,
    bias: str,
    y: str,
    factor: Matrix | None = None,
    *,
    bits: int,
) -> tuple[onnx.NodeProto, Tensors]:
    """MatMulNBits in 8-bit integers, with a scale for every row and block of both factors.

    This method is more exact than one scale per call: as fast for a few rows, and no faster than
    float32 for many rows. See `matmuls.Method`; ``bits`` is 4 or 8.
    """
    values, scales = quantize_blocks(weight, bits, factor)
    packed = values if bits == 8 else np.bitwise_or(values[..., ::2], values[..., 1::2] << 4)
    added: Tensors = {f"{name}.int{bits}": packed, f"{name}.scale": scales}
    node = helper.make_node(
        "MatMulNBits",
        [x, *added, "", "", bias],
        [y],
        name=f"{y}_quantized",
        domain=MICROSOFT,
        K=weight.shape[0],
        N=weight.shape[1],
        bits=bits,
        block_size=BLOCK,
        accuracy_level=4,
    )
    return node, added


def quantize_blocks(
    weight: Matrix, bits: int, factor: Matrix | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Quantises a weight [in, out] in blocks along its inputs.

    Args:
        weight: float32 [in, out].
        bits: 4 or 8.
        factor: Argument of `gptq.round_weight`. The scales do not depend on this factor.

    Returns:
        Values plus half the range of values, uint8 [out, blocks, BLOCK], and scales, float32
        [out, blocks]. Zeros fill the last block.
    """
    inputs, outputs = weight.shape
    count = -(-inputs // BLOCK)
    blocks = np.pad(weight, ((0, count * BLOCK - inputs), (0, 0))).T.reshape(outputs, count, BLOCK)
    values = np.empty(blocks.shape, dtype=np.uint8)
    scales = np.empty((outputs, count), dtype=np.float32)
    for start in range(0, outputs, 1024):  # a part should fit a cache
        part = slice(start, start + 1024)
        values[part], scales[part] = _quantize(blocks[part], bits)
    if factor is not None:
        half = 2 ** (bits - 1)
        steps = np.repeat(np.where(scales == 0, 1, scales), BLOCK, axis=1)[:, :inputs].T
        rounded = round_weight(weight, steps, (-half, half - 1), factor) + half
        values.reshape(outputs, -1)[:, :inputs] = rounded.T
    return values, scales


def _quantize(
    blocks: npt.NDArray[np.float32], bits: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Quantises each block at the best of a few scales, each improved by least squares."""
    limit = 2 ** (bits - 1)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    # There is one more negative integer: the largest magnitude goes to the negative side.
    widest = np.where(peak == 0, 1, peak / -limit)
    best, best_scale = np.zeros_like(blocks), widest
    least = np.full(widest.shape, np.inf)
    for shrink in SHRINKS[bits]:
        values = np.clip(np.rint(blocks / (widest * shrink)), -limit, limit - 1)
        square = (values * values).sum(-1, keepdims=True)
        scale = (values * blocks).sum(-1, keepdims=True) / np.maximum(square, 1)
        error = ((values * scale - blocks) ** 2).sum(-1, keepdims=True)
        better = error < least
        least = np.where(better, error, least)
        best = np.where(better, values, best)
        best_scale = np.where(better, scale, best_scale)
    return (best + limit).astype(np.uint8), best_scale[..., 0].astype(np.float32)
