"""Tensors of a checkpoint's files, whose values are read only when a caller needs them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import CheckpointError

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types of weights: name in safetensors -> type of numpy with which the values are read."""

SIZES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
"""Types of all stored tensors: name in safetensors -> bytes of a value."""

_BLOCK = 1 << 22
"""Number of values that are compared or checked at a time."""


@dataclass(frozen=True)
class StoredTensor:
    """Place of a tensor in a file."""

    path: Path
    """File."""
    dtype: str
    """Type of the values, by safetensors' names."""
    shape: tuple[int, ...]
    """Shape of the tensor."""
    strides: tuple[int, ...]
    """Steps in values from one index to the next, per axis."""
    offset: int
    """Place of the first value, in bytes from the start of the file."""

    @classmethod
    def dense(cls, path: Path, dtype: str, shape: tuple[int, ...], offset: int) -> "StoredTensor":
        """Makes a tensor whose values lie in the order of the axes, without gaps."""
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return cls(path, dtype, shape, strides, offset)

    @property
    def transposed(self) -> "StoredTensor":
        """Tensor with its axes in reverse order."""
        return replace(self, shape=self.shape[::-1], strides=self.strides[::-1])

    @property
    def is_dense(self) -> bool:
        """Tells whether the values lie in the order of the axes, without gaps."""
        return self == self.dense(self.path, self.dtype, self.shape, self.offset)

    @property
    def _span(self) -> int:
        """Number of stored values from the tensor's first to its last, gaps included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))

    def read(self) -> npt.NDArray[np.float32]:
        """Reads the values as float32.

        Raises:
            CheckpointError: The file ends before the tensor does, or cannot be read.
        """
        values = _to_float32(self._read(0, self._span), self.dtype)
        if self.is_dense:
            return values.reshape(self.shape)
        steps = [4 * stride for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values, self.shape, steps, writeable=False)

    def blocks(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yields the values, gaps included, in the stored type and in blocks of limited size."""
        count = self._span
        for start in range(0, count, _BLOCK):
            yield self._read(start, min(_BLOCK, count - start))

    def _read(self, start: int, count: int) -> npt.NDArray[np.generic]:
        kind = np.dtype(FLOATS[self.dtype])
        try:
            values = np.fromfile(self.path, kind, count, offset=self.offset + start * kind.itemsize)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}") from error
        if len(values) < count:
            raise CheckpointError(f"{self.path} is truncated; fetch or copy the file again")
        return values


def _to_float32(values: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # Bfloat16 is the upper half of a float32.
        wide = values.astype(np.uint32)
        wide <<= 16  # In place: a released embedding takes 210 MB.
        return wide.view(np.float32)
    with np.errstate(over="ignore"):  # As in torch, too large a value becomes infinite.
        return values.astype(np.float32, copy=False)


def equal(a: StoredTensor, b: StoredTensor) -> bool:
    """Tells whether two tensors hold the same values. Equal places in one file are not read."""
    if a == b:
        return True
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype and a.is_dense and b.is_dense:
        return all(map(np.array_equal, a.blocks(), b.blocks()))
    return np.array_equal(a.read(), b.read())


def is_finite(tensor: StoredTensor) -> bool:
    """Tells whether every value is a finite float32."""
    if tensor.dtype == "F64":
        limit = float(np.finfo(np.float32).max)
        return all(bool((np.abs(block) <= limit).all()) for block in tensor.blocks())
    return all(bool(np.isfinite(_to_float32(b, tensor.dtype)).all()) for b in tensor.blocks())
