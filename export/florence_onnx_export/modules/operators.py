"""Operators that the tracer keeps whole, implemented in PyTorch.

Tests compare these implementations with transformers. `translations` has the ONNX form of each
operator. An operator that is kept whole can become an ONNX operator that PyTorch does not have, and
the tracer does not see the shape arithmetic inside.
"""

import torch
from torch import Tensor

PARTS = 8
"""Number of parts in which large activations are computed. The results of one part fit a cache, and
all parts use the same memory one after the other."""


@torch.library.custom_op("florence::to_windows", mutates_args=())
def to_windows(x: Tensor, size: int) -> Tensor:
    """Cuts [B,H,W,C] into [windows,size*size,C]; zeros fill the last windows of the grid."""
    batch, height, width, channels = x.shape
    x = torch.nn.functional.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    # One transpose of blocks of size*C contiguous values makes the windows.
    x = x.reshape(batch * rows, size, columns, size * channels).transpose(1, 2)
    return x.reshape(batch * rows * columns, size * size, channels).clone()


@to_windows.register_fake
def _(x: Tensor, size: int) -> Tensor:
    batch, height, width, channels = x.shape
    count = batch * ((height + size - 1) // size) * ((width + size - 1) // size)
    return x.new_empty((count, size * size, channels))


@torch.library.custom_op("florence::from_windows", mutates_args=())
def from_windows(windows: Tensor, grid: Tensor, size: int) -> Tensor:
    """Joins [windows,size*size,C] to [B,H,W,C]: the inverse of `to_windows` for this grid."""
    batch, height, width, channels = grid.shape
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(batch * rows, columns, size, size * channels).transpose(1, 2)
    x = x.reshape(batch, rows * size, columns * size, channels)
    return x[:, :height, :width].clone()


@from_windows.register_fake
def _(windows: Tensor, grid: Tensor, size: int) -> Tensor:
    return torch.empty_like(grid)


@torch.library.custom_op("florence::self_attention", mutates_args=())
def self_attention(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Multi-head self-attention up to the output projection.

    Args:
        x: [N,T,C].
        weight: Queries, keys and values side by side, [C,3C].
        bias: [3C].
        heads: Number of heads.
    """
    batch, tokens, channels = x.shape
    joint = torch.matmul(x, weight) + bias
    joint = joint.reshape(batch, tokens, 3, heads, channels // heads)
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    scale = (channels // heads) ** -0.5
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).reshape(batch, tokens, channels)


@self_attention.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("florence::split", mutates_args=())
def split(x: Tensor) -> list[Tensor]:
    """Cuts the first axis into `PARTS` parts; a part without rows gets the last row again.

    No operator gets an empty tensor, because attention divides by the number of windows in ONNX
    Runtime 1.22 to 1.28.
    """
    return [x[start:stop].clone() for start, stop in part_bounds(len(x))]


@split.register_fake
def _(x: Tensor) -> list[Tensor]:
    return [x.new_empty((stop - start, *x.shape[1:])) for start, stop in part_bounds(x.shape[0])]


def part_bounds(rows: int) -> list[tuple[int, int]]:
    """Returns the starts and the stops of the parts."""
    # sym_max and sym_min, because the tracer does not know how many rows there are.
    edges = [torch.sym_max(rows, PARTS) * i // PARTS for i in range(PARTS + 1)]
    starts = [torch.sym_min(edge, rows - 1) for edge in edges[:-1]]
    stops = [torch.sym_min(edge, rows) for edge in edges[1:]]
    return list(zip(starts, stops, strict=True))


@torch.library.custom_op("florence::join", mutates_args=())
def join(parts: list[Tensor], whole: Tensor) -> Tensor:
    """Joins parts: the inverse of `split`. ``whole`` has the shape of the result."""
    return torch.cat(parts)[: len(whole)].clone()


@join.register_fake
def _(parts: list[Tensor], whole: Tensor) -> Tensor:
    return torch.empty_like(whole)


@torch.library.custom_op("florence::gelu", mutates_args=())
def gelu(x: Tensor) -> Tensor:
    """GELU by the error function."""
    return torch.nn.functional.gelu(x)


@gelu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("florence::scatter", mutates_args=())
def scatter(cache: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Writes ``updates`` [...,D] into ``cache`` at ``indices`` [...,n] of the first n axes."""
    result = cache.clone()
    result[indices.unbind(-1)] = updates
    return result


@scatter.register_fake
def _(cache: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    return torch.empty_like(cache)
