"""Recipes of a graph's weights from a checkpoint's tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

Recipe = list[Any]
"""Recipe: the name of a tensor, then steps, a name and mostly an argument: ``["permute", axes]``,
``["reshape", shape]``, ``["rows", [start, stop]]``, ``["row", index]``, ``["scale", factor]``,
``["add", recipe]``, and ``["identity"]``, which adds 1 at the centre of a convolution's kernel."""


def carry_out(recipe: Recipe, read: Callable[[str], Array]) -> Array:
    """Carries out a recipe; returns the values of the weight.

    Args:
        recipe: Recipe of the weight.
        read: Reads a tensor of the checkpoint by name.

    Raises:
        ValueError: The recipe has an unknown step.
    """
    name, *steps = recipe
    x = read(name)
    for kind, *arguments in steps:
        x = _step(x, kind, arguments, read)
    return x


def _step(x: Array, kind: str, arguments: list[Any], read: Callable[[str], Array]) -> Array:
    if kind == "permute":
        return x.transpose(arguments[0])
    if kind == "reshape":
        return x.reshape(arguments[0])
    if kind == "rows":
        return x[slice(*arguments[0])]
    if kind == "row":
        row: Array = x[arguments[0]]
        return row
    if kind == "scale":
        return x * np.float32(arguments[0])
    if kind == "add":
        return x + carry_out(arguments[0], read)
    if kind == "identity":
        x = x.copy()
        x[:, :, x.shape[2] // 2, x.shape[3] // 2] += np.float32(1)
        return x
    raise ValueError(f"a recipe has the unknown step {kind!r}")
