"""Recipes, as data, for every weight of the graphs from the tensors of a checkpoint.

The modules are built from recorders in place of tensors. A recorder is a tensor without values that
notes every operation. So the modules stay the only source, and no weights and little memory are
needed. `florence_onnx.skeletons.recipes` defines the steps of a recipe and carries out a recipe.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.skeletons.recipes import Recipe
from florence_onnx_export.graphs.specs import GraphSpec, build_specs

BuildSpecs = Callable[[ModelConfig, dict[str, Tensor]], list[GraphSpec]]
"""Function that makes the specs of the graphs for a geometry and weights."""

_ASKED = ("__get__", "size", "dim", "is_floating_point", "numel", "stride", "any", "__len__")
_UNCHANGED = ("clone", "contiguous", "detach", "requires_grad_")


class _Recorder(Tensor):
    """Tensor on the meta device with the recipe of the values."""

    recipe: list[Any]
    centre_of: "_Recorder | None" = None
    """Kernel whose centre this tensor is a view of, as in ``kernel[:, :, y, x] += 1``."""

    @classmethod
    def of(cls, tensor: Tensor, recipe: list[Any]) -> "_Recorder":
        recorder = tensor.as_subclass(cls)
        recorder.recipe = recipe
        return recorder

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs ``func`` on the shapes and notes the steps of ``func`` for the values."""
        name = getattr(func, "__name__", str(func))
        with torch._C.DisableTorchFunctionSubclass():
            if name in _ASKED:
                return func(*args, **(kwargs or {}))
            if name == "__setitem__":
                _add_identity(*args)
                return None
            first, *others = args
            plain = [x.as_subclass(Tensor) if isinstance(x, _Recorder) else x for x in others]
            result = func(first.as_subclass(Tensor), *plain, **(kwargs or {}))
            if name == "chunk":
                return _parts(first, result)
            recorder = cls.of(result, first.recipe + _steps(name, first, others, result))
            if name == "__getitem__" and isinstance(others[0], tuple):
                recorder.centre_of = first
            if name in ("add_", "__iadd__"):
                recorder.centre_of = first.centre_of
            return recorder


def _steps(name: str, x: _Recorder, others: list[Any], result: Tensor) -> list[Any]:
    """Steps of a recipe for a call of a function."""
    axes = list(range(x.dim()))
    if name in _UNCHANGED or (name == "__getitem__" and isinstance(others[0], tuple)):
        return []
    if name == "t":
        return [["permute", axes[::-1]]]
    if name == "transpose":
        a, b = others
        axes[a], axes[b] = b, a
        return [["permute", axes]]
    if name == "flatten":
        return [["reshape", [-1]]]
    if name == "reshape":
        return [["reshape", list(result.shape)]]
    if name in ("mul", "__mul__"):
        return [] if others[0] == 1.0 else [["scale", others[0]]]
    if name in ("add", "__add__"):
        return [["add", others[0].recipe]]
    if name in ("add_", "__iadd__"):
        return [["plus", others[0]]]
    if name == "__getitem__" and isinstance(others[0], int):
        return [["row", others[0]]]
    if name == "__getitem__" and isinstance(others[0], slice):
        return [["rows", [others[0].start or 0, others[0].stop]]]
    raise NotImplementedError(f"recipes have no step for {name}, which a module uses on a weight")


def _parts(whole: _Recorder, parts: tuple[Tensor, ...]) -> tuple[_Recorder, ...]:
    stops = [sum(len(part) for part in parts[: i + 1]) for i in range(len(parts))]
    return tuple(
        _Recorder.of(part, [*whole.recipe, ["rows", [stop - len(part), stop]]])
        for part, stop in zip(parts, stops, strict=True)
    )


def _add_identity(kernel: _Recorder, index: Any, value: _Recorder) -> None:
    """Notes ``kernel[:, :, middle, middle] += 1``, the only assignment that recipes have."""
    middle = kernel.shape[2] // 2
    centre = (slice(None), slice(None), middle, middle)
    if value.centre_of is not kernel or index != centre or value.recipe[-1] != ["plus", 1]:
        raise NotImplementedError("recipes have no step for this assignment to a weight")
    kernel.recipe = [*kernel.recipe, ["identity"]]


def derive_recipes(
    config: ModelConfig, logits_bias: bool, build: BuildSpecs = build_specs
) -> dict[str, dict[str, Recipe]]:
    """Derives the recipe of every weight of every graph.

    Args:
        config: Geometry of the checkpoint.
        logits_bias: Whether the checkpoint has a bias on the logits.
        build: Makes the specs of the graphs.

    Returns:
        Graph name -> name of an initializer -> recipe of the initializer.
    """
    shapes = key_maps.expected_shapes(config)
    if logits_bias:
        shapes[key_maps.LOGITS_BIAS] = (1, config.text.vocab_size)
    weights: dict[str, Tensor] = {
        name: _Recorder.of(torch.empty(shape, device="meta"), [name])
        for name, shape in shapes.items()
    }
    return {
        spec.name: {
            name: parameter.recipe
            for name, parameter in spec.module.named_parameters()
            if isinstance(parameter, _Recorder)
        }
        for spec in build(config, weights)
    }
