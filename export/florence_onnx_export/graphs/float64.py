"""PyTorch in float64, which shows what is wrong apart from what float32 rounds away."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Sets the type of what modules make themselves, as masks."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Has a module compute in float64, and gives it its own weights back afterwards."""
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
    """A tensor of floating-point numbers as float64, any other as it is."""
    return tensor.double() if tensor.is_floating_point() else tensor
