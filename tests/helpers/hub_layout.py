"""Model folders in the hub's layout, traced from transformers' own modules.

onnx-community's exports for transformers.js are traced the same way and merged by optimum.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from transformers import Florence2ForConditionalGeneration
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

OPSET = 17
SWITCH = "use_cache_branch"


class _Vision(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model.get_image_features(pixel_values).pooler_output


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.model.language_model.encoder

    def forward(self, attention_mask: Tensor, inputs_embeds: Tensor) -> Any:
        return self.encoder(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask
        ).last_hidden_state


class _Decoder(nn.Module):
    """The decoder, at its first step or, with a past, at a later one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.model.language_model.decoder, model.lm_head

    def forward(self, mask: Tensor, states: Tensor, embeds: Tensor, *past: Tensor) -> Any:
        own: Any = DynamicCache()
        cross: Any = DynamicCache()
        for i in range(0, len(past), 4):
            own.layers.append(_layer(*past[i : i + 2]))
            cross.layers.append(_layer(*past[i + 2 : i + 4]))
        cache = EncoderDecoderCache(own, cross)
        output = self.decoder(
            inputs_embeds=embeds,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        found = [self.head(output.last_hidden_state)]
        for ours, theirs in zip(own.layers, cross.layers, strict=True):
            found += [ours.keys, ours.values] if past else [
                ours.keys, ours.values, theirs.keys, theirs.values
            ]  # fmt: skip
        return tuple(found)


def _layer(keys: Tensor, values: Tensor) -> Any:
    layer: Any = DynamicLayer()
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    layer.dtype, layer.device = keys.dtype, keys.device
    return layer


def write_hub_layout(
    model: Florence2ForConditionalGeneration,
    folder: Path,
    size: tuple[int, int],
    suffix: str = "",
) -> None:
    """Writes all six graphs.

    Args:
        model: In float32; with the suffix ``_fp16``, the graphs' tensors are float16.
        folder: Where to write.
        size: Height and width of a picture.
        suffix: Of the graphs' names.
    """
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    kind = torch.float16 if suffix == "_fp16" else torch.float32
    made: Any = copy.deepcopy(model).eval()
    made.to(kind)
    made.set_attn_implementation("eager")
    text = made.config.text_config
    heads, width = text.decoder_attention_heads, text.d_model

    def file(name: str) -> Path:
        return folder / "onnx" / f"{name}{suffix}.onnx"

    def floats(*shape: int) -> Tensor:
        return torch.randn(*shape).to(kind)

    def caches(kind: str, sides: Sequence[str]) -> list[str]:
        return [
            f"{kind}.{i}.{side}.{part}"
            for i in range(text.decoder_layers)
            for side in sides
            for part in ("key", "value")
        ]

    mask, embeds = torch.ones((2, 9), dtype=torch.int64), floats(2, 9, width)
    _trace(
        _Vision(made),
        file("vision_encoder"),
        {"pixel_values": floats(2, 3, *size)},
        ["image_features"],
    )
    embedding = made.get_input_embeddings()
    _trace(embedding, file("embed_tokens"), {"input_ids": mask}, ["inputs_embeds"])
    inputs = {"attention_mask": mask, "inputs_embeds": embeds}
    _trace(_Encoder(made), file("encoder_model"), inputs, ["last_hidden_state"])
    both = ("decoder", "encoder")
    inputs = {"encoder_attention_mask": mask, "encoder_hidden_states": embeds}
    first = {**inputs, "inputs_embeds": embeds[:, :3]}
    _trace(_Decoder(made), file("decoder_model"), first, ["logits", *caches("present", both)])
    past = {
        name: floats(2, heads, 5 if ".decoder." in name else 9, width // heads)
        for name in caches("past_key_values", both)
    }
    later = {**inputs, "inputs_embeds": embeds[:, :1], **past}
    returned = ["logits", *caches("present", ("decoder",))]
    _trace(_Decoder(made), file("decoder_with_past_model"), later, returned)
    merge(file("decoder_model"), file("decoder_with_past_model"), file("decoder_model_merged"))


_AXES = {
    "pixel_values": ("batch", None, None, None),
    "image_features": ("batch", None, None),
    "input_ids": ("batch", "tokens"),
    "attention_mask": ("batch", "sequence"),
    "encoder_attention_mask": ("batch", "sequence"),
    "encoder_hidden_states": ("batch", "sequence", None),
    "last_hidden_state": ("batch", "sequence", None),
    "inputs_embeds": ("batch", "tokens", None),
    "logits": ("batch", "tokens", None),
}


def _axes(name: str) -> dict[int, str]:
    side = "sequence" if ".encoder." in name else "past"
    axes = _AXES.get(name, ("batch", None, side, None))
    return {axis: size for axis, size in enumerate(axes) if size}


def _trace(module: nn.Module, path: Path, inputs: dict[str, Tensor], outputs: list[str]) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # Of the tracer, about values it takes for constants.
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: _axes(name) for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=False,  # So that both decoders name a weight alike.
        )


def merge(first: Path, later: Path, merged: Path) -> None:
    """Puts both decoders into one graph, whose switch chooses; weights are stored once."""
    without, cached = onnx.load(first), onnx.load(later)
    weights = {w.name: w for w in (*without.graph.initializer, *cached.graph.initializer)}
    inputs = {value.name: value for value in (*without.graph.input, *cached.graph.input)}
    for value in cached.graph.input:
        if value.name.startswith("past_key_values"):
            inputs[value.name] = value
    outer = {*weights, *inputs}
    outputs = [value.name for value in without.graph.output]
    branches = {
        "else_branch": _branch(without.graph, "first", outputs, outer),
        "then_branch": _branch(cached.graph, "cached", outputs, outer),
    }
    switch = helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [1])
    graph = helper.make_graph(
        [helper.make_node("If", [SWITCH], outputs, **branches)],
        "merged",
        [*inputs.values(), switch],
        list(without.graph.output),
        list(weights.values()),
    )
    model = helper.make_model(graph, opset_imports=without.opset_import, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, merged)


def _branch(graph: Any, prefix: str, outputs: list[str], outer: set[str]) -> Any:
    """A graph with values of its own names, and with all outputs: what it lacks, it passes on."""

    def named(name: str) -> str:
        return name if not name or name in outer else f"{prefix}.{name}"

    nodes = []
    for node in graph.node:
        renamed = copy.deepcopy(node)
        renamed.name = f"{prefix}.{node.name}"
        renamed.input[:] = map(named, node.input)
        renamed.output[:] = map(named, node.output)
        nodes.append(renamed)
    own = {value.name: value for value in graph.output}
    found = []
    for name in outputs:
        if name not in own:
            past = name.replace("present", "past_key_values")
            nodes.append(helper.make_node("Identity", [past], [named(name)]))
        kind = graph.output[0].type.tensor_type.elem_type
        found.append(helper.make_tensor_value_info(named(name), kind, None))
    return helper.make_graph(nodes, prefix, [], found)
