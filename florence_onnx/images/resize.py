"""Resize of 8-bit pictures in numpy, equal to Pillow's bicubic resize bit for bit.

Pillow resizes in two passes and rounds to 8 bits after each pass. Since version 13, Pillow begins
with the height where the height shrinks by more than twice as many pixels as the width. Earlier
versions begin with the width, which in that case changes some last bits. A pass is a matmul with a
banded matrix of fixed-point weights (22 fractional bits), summed in integers. Here the weights are
float64. Every partial sum is a multiple of 2**-22 below 2**11, which float64 holds exactly. So the
order of summation does not matter, and a float64 matmul equals the sum of integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import ImageError

_FIXED_POINT = 1 << 22
_SUPPORT = 2.0

# Outputs per matmul. Fewer outputs make the matmul slow, more outputs add zeros.
_BLOCK = 16

# float64 values that are converted at a time (4 MiB): little memory, and few matmuls.
_STRIP = 1 << 19


class _Block(NamedTuple):
    """Block of the weights of some neighbouring outputs."""

    inputs: slice
    outputs: slice
    weights: npt.NDArray[np.float64]
    """Weights [inputs, outputs]."""


def resize_bicubic(array: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resizes a picture as Pillow's ``Image.resize(..., BICUBIC)`` does, to the last bit.

    Args:
        array: uint8, [H, W] or [H, W, C]. Channels are resized independently (Pillow would
            first multiply an alpha channel in).
        size: (height, width) of the result in pixels.

    Returns:
        uint8, [height, width] or [height, width, C]: a new C-contiguous array.

    Raises:
        ImageError: if the array is not uint8, not of 2 or 3 dimensions, or empty, or if the
            size is not positive.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(
            f"cannot resize an array of shape {list(array.shape)} and dtype {array.dtype}: "
            "give a non-empty uint8 array of shape [H, W] or [H, W, C]"
        )
    if array.ndim == 2:
        return resize_planes(array[:, :, None], size).squeeze(0).copy()
    return resize_planes(array, size).transpose(1, 2, 0).copy()


def resize_planes(array: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resizes as :func:`resize_bicubic` does, from [H, W, C] to [C, height, width].

    The result is a view of the input where the input already has the size.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ImageError(f"cannot resize to {width}x{height} pixels: width and height must be >= 1")
    old_height, old_width = array.shape[:2]
    passes = [(2, width), (1, height)]
    if old_height - height > max(0, 2 * (old_width - width)):
        passes.reverse()
    planes = array.transpose(2, 0, 1)
    for axis, length in passes:
        if planes.shape[axis] != length:
            planes = _resample(planes, axis, length)
    return planes


def _resample(planes: npt.NDArray[np.uint8], axis: int, length: int) -> npt.NDArray[np.uint8]:
    """Resizes one of the two last axes of [C, H, W]: one of Pillow's passes."""
    shape = list(planes.shape)
    shape[axis] = length
    result = np.empty(shape, np.uint8)
    source, target = planes.swapaxes(axis, 2), result.swapaxes(axis, 2)

    channels, lines, old_length = source.shape
    blocks = list(_blocks(old_length, length))
    step = min(lines, max(1, _STRIP // (channels * max(old_length, length))))
    # Neighbours in memory stay neighbours in the buffers, because otherwise conversion is slow.
    along_lines = abs(source.strides[2]) <= abs(source.strides[1])
    order: Literal["C", "F"] = "C" if along_lines else "F"
    inputs = np.empty((channels * step, old_length), order=order)
    outputs = np.empty((channels * step, length), order=order)
    for start in range(0, lines, step):
        strip = source[:, start : start + step]
        before = inputs[: channels * strip.shape[1]]
        after = outputs[: len(before)]
        np.copyto(before.reshape(strip.shape), strip)
        for block in blocks:
            np.matmul(before[:, block.inputs], block.weights, out=after[:, block.outputs])
        after += 0.5
        np.clip(after, 0.0, 255.0, out=after)
        target[:, start : start + step] = after.reshape(channels, -1, length)
    return result


def _blocks(length: int, new_length: int) -> Iterator[_Block]:
    """Cuts the banded matrix of a pass into small dense ones."""
    firsts, lasts, weights = _weights(length, new_length)
    for start in range(0, new_length, _BLOCK):
        outputs = slice(start, min(start + _BLOCK, new_length))
        first, last = int(firsts[outputs][0]), int(lasts[outputs][-1])
        rows = firsts[outputs, None] - first + np.arange(weights.shape[1])
        dense = np.zeros((int(rows.max()) + 1, rows.shape[0]))
        dense[rows, np.arange(rows.shape[0])[:, None]] = weights[outputs]
        yield _Block(slice(first, last), outputs, dense[: last - first])


def _weights(
    length: int, new_length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Returns each output's first input, the end of the inputs, and weights [new_length, taps].

    The order of every operation is Pillow's: another rounding could show in the last bit.
    """
    scale = length / new_length
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    centers = (np.arange(new_length) + 0.5) * scale
    firsts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    lasts = np.minimum((centers + support + 0.5).astype(np.int64), length)

    taps = np.arange(int((lasts - firsts).max()))
    positions = firsts[:, None] + taps
    weights = _bicubic((positions - centers[:, None] + 0.5) * (1.0 / stretch))
    weights[positions >= lasts[:, None]] = 0.0
    # accumulate() adds one value after the other; sum() would add in pairs and round differently.
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    fixed = np.trunc(weights * _FIXED_POINT + np.copysign(0.5, weights))
    return firsts, lasts, fixed / _FIXED_POINT


def _bicubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
