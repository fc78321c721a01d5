"""ONNX forms of the operators in `operators`."""

from collections.abc import Callable, Sequence
from typing import Any

import onnxscript
import torch
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op
from onnxscript.values import Opset

from florence_onnx_export.modules import operators as _operators  # noqa: F401  registers them

functions = Opset("florence", 1)
contrib = Opset("com.microsoft", 1)

Eight = tuple[FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, FLOAT]


@onnxscript.script(functions)
def to_windows(x: FLOAT, size: int) -> FLOAT:
    """Cuts into windows. Without padding, as at the released sizes, a branch copies nothing."""
    width = op.Shape(x, start=2, end=3)
    channels = op.Shape(x, start=3, end=4)
    side = op.Reshape(op.Constant(value_int=size), op.Constant(value_ints=[1]))
    missing = op.Mod(op.Neg(op.Shape(x, start=1, end=3)), side)
    columns = op.Div(width + side - 1, side)
    blocks = op.Concat(op.Constant(value_ints=[-1]), side, columns, side * channels, axis=0)
    if op.Greater(op.ReduceMax(missing, keepdims=0), 0):
        none = op.Constant(value_ints=[0, 0, 0, 0, 0])
        padded = op.Pad(x, op.Concat(none, missing, op.Constant(value_ints=[0]), axis=0))
        windows = op.Transpose(op.Reshape(padded, blocks), perm=[0, 2, 1, 3])
    else:
        windows = op.Transpose(op.Reshape(x, blocks), perm=[0, 2, 1, 3])
    return op.Reshape(
        windows, op.Concat(op.Constant(value_ints=[-1]), side * side, channels, axis=0)
    )


@onnxscript.script(functions)
def from_windows(windows: FLOAT, grid: FLOAT, size: int) -> FLOAT:
    """Joins windows. Without cropping, as at the released sizes, a branch copies nothing."""
    shape = op.Shape(grid)
    batch = op.Shape(grid, start=0, end=1)
    extent = op.Shape(grid, start=1, end=3)
    width = op.Shape(grid, start=2, end=3)
    channels = op.Shape(grid, start=3, end=4)
    side = op.Reshape(op.Constant(value_int=size), op.Constant(value_ints=[1]))
    columns = op.Div(width + side - 1, side)
    last = op.Constant(value_ints=[-1])
    blocks = op.Concat(last, columns, side, side * channels, axis=0)
    if op.Greater(op.ReduceMax(op.Mod(op.Neg(extent), side), keepdims=0), 0):
        rows = op.Transpose(op.Reshape(windows, blocks), perm=[0, 2, 1, 3])
        whole = op.Reshape(rows, op.Concat(batch, last, columns * side, channels, axis=0))
        x = op.Slice(whole, op.Constant(value_ints=[0, 0]), extent, op.Constant(value_ints=[1, 2]))
    else:
        x = op.Transpose(op.Reshape(windows, blocks), perm=[0, 2, 1, 3])
    return op.Reshape(x, shape)


@onnxscript.script(functions)
def self_attention(x: FLOAT, weight: FLOAT, bias: FLOAT, heads: int) -> FLOAT:
    """Attention by ONNX Runtime's operator: projection and heads without a transpose between."""
    return contrib.Attention(x, weight, bias, num_heads=heads)


@onnxscript.script(functions)
def split(x: FLOAT) -> Eight:
    """Cuts by slices: with few rows, parts overlap, which a Split does not allow."""
    rows = op.Shape(x, start=0, end=1)
    parts = op.Constant(value_ints=[8])
    ones = op.Constant(value_ints=[1, 1, 1, 1, 1, 1, 1, 1])
    most = op.Max(rows, parts)
    starts = op.Min(most * op.Constant(value_ints=[0, 1, 2, 3, 4, 5, 6, 7]) / parts, rows - 1)
    stops = op.Min(most * op.Constant(value_ints=[1, 2, 3, 4, 5, 6, 7, 8]) / parts, rows)
    a0, b0, c0, d0, e0, f0, g0, h0 = op.Split(starts, ones)
    a1, b1, c1, d1, e1, f1, g1, h1 = op.Split(stops, ones)
    return (
        op.Slice(x, a0, a1),
        op.Slice(x, b0, b1),
        op.Slice(x, c0, c1),
        op.Slice(x, d0, d1),
        op.Slice(x, e0, e1),
        op.Slice(x, f0, f1),
        op.Slice(x, g0, g1),
        op.Slice(x, h0, h1),
    )


def join(parts: Sequence[FLOAT], whole: FLOAT) -> FLOAT:
    """Joins parts. Without repeated rows, a branch makes one copy only."""
    return _join(*parts, whole)


@onnxscript.script(functions)
def _join(
    a: FLOAT,
    b: FLOAT,
    c: FLOAT,
    d: FLOAT,
    e: FLOAT,
    f: FLOAT,
    g: FLOAT,
    h: FLOAT,
    whole: FLOAT,
) -> FLOAT:
    rows = op.Shape(whole, start=0, end=1)
    if op.Less(rows, op.Constant(value_ints=[8])):
        again = op.Concat(a, b, c, d, e, f, g, h, axis=0)
        x = op.Slice(again, op.Constant(value_ints=[0]), rows)
    else:
        x = op.Concat(a, b, c, d, e, f, g, h, axis=0)
    return x


@onnxscript.script(functions)
def gelu(x: FLOAT) -> FLOAT:
    """GELU by the error function, as one operator that older operator sets do not have."""
    return contrib.Gelu(x)


@onnxscript.script(functions)
def scatter(cache: FLOAT, indices: INT64, updates: FLOAT) -> FLOAT:
    """Scatter that writes in place where input and output are bound to one buffer."""
    return op.ScatterND(cache, indices, updates)


TABLE: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.florence.to_windows.default: to_windows,
    torch.ops.florence.from_windows.default: from_windows,
    torch.ops.florence.self_attention.default: self_attention,
    torch.ops.florence.split.default: split,
    torch.ops.florence.join.default: join,
    torch.ops.florence.gelu.default: gelu,
    torch.ops.florence.scatter.default: scatter,
}
"""Table of translations for the tracer."""
