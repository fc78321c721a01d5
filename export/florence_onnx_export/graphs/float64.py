"""PyTorch in float64, to tell errors of a graph from the rounding errors of float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Sets the type of tensors that modules create, such as masks."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Makes a module compute in float64 inside the block, and restores the weights afterwards."""
    tensors = [*module.parameters(), *module.buffers()]
    own = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = widened(tensor.data)
        with default_dtype(torch.float64):
            yield
    finally:
        for tensor, data in zip(tensors, own, strict=True):
            tensor.data = data


def widened(tensor: Tensor) -> Tensor:
    """Converts a floating-point tensor to float64; returns any other tensor unchanged."""
    return tensor.double() if tensor.is_floating_point() else tensor
