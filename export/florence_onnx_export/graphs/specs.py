"""Inputs of the tracer for each graph: module, example inputs, tensor names, named dynamic axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from florence_onnx.checkpoints.config import ModelConfig, VisionConfig
from florence_onnx.engine import contract
from florence_onnx_export.modules.layers import Weights
from florence_onnx_export.modules.text import Embedding, TextDecoder, TextEncoder
from florence_onnx_export.modules.vision import VisionEncoder

T = TypeVar("T")

Axes = tuple[str | int, ...]
"""Tensor's axes in order: a name for a dynamic axis, a number for a fixed one."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the axes in `contract.DYNAMIC` that do not follow from other axes."""

    batch: int
    """Pictures."""
    beams: int
    """Decoder rows per picture."""
    height: int
    """Picture height in pixels."""
    width: int
    """Picture width in pixels."""
    sequence: int
    """Encoder length in tokens."""
    tokens: int
    """Tokens to embed."""
    slots: int
    """Capacity of the decoder's cache, in tokens."""


def example_sizes(vision: VisionConfig) -> tuple[Sizes, Sizes]:
    """Sizes for tracing and validation, and further sizes for validation only.

    The sizes for tracing differ from each other, so that the tracer takes no two axes for one. The
    further sizes are those of the smallest step of a search.
    """
    height, width = picture_size(vision, 5, 7)
    traced = Sizes(2, 3, height, width, sequence=24, tokens=5, slots=9)
    height, width = picture_size(vision, 3, 6)
    return traced, Sizes(1, 1, height, width, sequence=40, tokens=1, slots=1)


def picture_size(vision: VisionConfig, rows: int, columns: int) -> tuple[int, int]:
    """Height and width in pixels of a picture of rows x columns image tokens.

    Where the table of positions is smaller, the picture has fewer rows or columns. The numbers of
    rows and columns always differ.
    """
    pixels = math.prod(vision.patch_stride)
    places = vision.max_position_embeddings
    return min(rows, places - 1) * pixels, min(columns, places) * pixels


@dataclass(frozen=True)
class GraphSpec:
    """Data to trace and validate one graph."""

    name: str
    """Name of the graph in the contract."""
    module: nn.Module
    """PyTorch module, whose forward takes the inputs in order."""
    inputs: dict[str, Axes]
    """Input tensors in order."""
    outputs: dict[str, Axes]
    """Output tensors in order."""
    sizes: tuple[Sizes, ...]
    """Sizes for tracing and validation, then further sizes for validation only."""

    def example(self, sizes: Sizes) -> tuple[Tensor, ...]:
        """Makes random inputs of these sizes from a fixed seed, in input order."""
        generator = torch.Generator().manual_seed(0)
        return tuple(
            _example_tensor(name, axes, sizes, generator) for name, axes in self.inputs.items()
        )

    def arguments(self, values: Sequence[T]) -> tuple[T | list[T], ...]:
        """Groups values, one per input, into the arguments of the module: each cache is a list."""
        by_name = dict(zip(self.inputs, values, strict=True))
        grouped: list[T | list[T]] = [v for name, v in by_name.items() if "past" not in name]
        for side in (".decoder.", ".encoder."):
            cache = [v for name, v in by_name.items() if side in name]
            if cache:
                grouped.append(cache)
        return tuple(grouped)


def _example_tensor(name: str, axes: Axes, sizes: Sizes, generator: torch.Generator) -> Tensor:
    dims = {**asdict(sizes), "rows": sizes.batch * sizes.beams, "past": sizes.slots}
    dims["batch_size"] = dims["rows"]
    shape = [dims[axis] if isinstance(axis, str) else axis for axis in axes]
    if name.endswith("attention_mask"):
        mask = torch.ones(shape, dtype=torch.int64)
        mask[-1, -(sizes.sequence // 4) :] = 0
        return mask
    if name == "position_ids":
        return torch.tensor([sizes.slots - sizes.beams])
    if name == "cache_slots":
        return torch.stack(
            [torch.randperm(sizes.slots, generator=generator)[: shape[1]]] * shape[0]
        )
    if name == "cache_mask":
        return torch.rand(shape, generator=generator) < 0.5
    if name == "input_ids":
        return torch.randint(0, 100, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def build_specs(config: ModelConfig, weights: dict[str, Tensor]) -> list[GraphSpec]:
    """Makes the specs of the four graphs of a checkpoint.

    Args:
        config: The checkpoint's configuration.
        weights: float32 tensors under transformers' key names.
    """
    model = Weights(weights).at("model")
    text = model.at("language_model")
    head = weights["lm_head.weight"]
    decoder = TextDecoder(text, head, head_bias(weights), config.text, contract.TOPK)
    modules = {
        contract.VISION_ENCODER: VisionEncoder(model, config.vision),
        contract.EMBED_TOKENS: Embedding(text["shared.weight"], config.text),
        contract.ENCODER: TextEncoder(text, config.text),
        contract.DECODER: decoder,
    }
    fixed = {**fixed_sizes(config, head), "candidates": decoder.topk}
    sizes = example_sizes(config.vision)
    specs = []
    for name, signature in contract.SIGNATURES.items():
        inputs, outputs = signature.of(config.text.decoder_layers)
        axes = axes_of(inputs, fixed), axes_of(outputs, fixed)
        specs.append(GraphSpec(name, modules[name], *axes, sizes))
    return specs


def fixed_sizes(config: ModelConfig, head: Tensor) -> dict[str | int, int]:
    """Sizes that the graphs of a model declare, by the names in `contract.FIXED`."""
    heads = config.text.decoder_attention_heads
    return {
        "hidden_size": config.text.d_model,
        "decoder_heads": heads,
        "head_dim": config.text.d_model // heads,
        "vocabulary": head.shape[0],
    }


def axes_of(
    tensors: Mapping[str, contract.Tensor], fixed: Mapping[str | int, str | int]
) -> dict[str, Axes]:
    """Axes of tensors, with the sizes or names that are given for them."""
    return {
        name: tuple(fixed.get(axis, axis) for axis in tensor.axes)
        for name, tensor in tensors.items()
    }


def head_bias(weights: Mapping[str, Tensor]) -> Tensor | None:
    """Bias of a checkpoint on the logits [V]; None where the checkpoint has no bias."""
    bias = weights.get("final_logits_bias")
    return None if bias is None else bias.flatten()
