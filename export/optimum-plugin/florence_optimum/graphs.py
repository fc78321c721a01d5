"""Descriptions of the graphs of the hub's layout for optimum."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from optimum.exporters.onnx.base import ConfigBehavior, OnnxSeq2SeqConfigWithPast
from optimum.utils import DEFAULT_DUMMY_SHAPES, NormalizedSeq2SeqConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from florence_onnx_export.graphs.stages import decode, embed, encode, see


class Part(nn.Module):
    """Part of transformers' model, which optimum exports as a graph."""

    def __init__(self, model: Any, run: Callable[..., dict[str, Any]]) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.forward = partial(run, model)  # Its signature is that of the graph.


_B = {0: "batch_size"}
_S = {**_B, 1: "encoder_sequence_length"}
_T = {**_B, 1: "decoder_sequence_length"}
_TO_ENCODE = {"attention_mask": _S, "inputs_embeds": _S}
_TO_DECODE = {"encoder_attention_mask": _S, "encoder_hidden_states": _S, "inputs_embeds": _T}
WITH_PAST = "decoder_with_past_model"
PARTS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "encoder_model": (encode, _TO_ENCODE, {"last_hidden_state": _S}),
    "decoder_model": (decode, _TO_DECODE, {"logits": _T}),
    WITH_PAST: (decode, _TO_DECODE, {"logits": _T}),
    "vision_encoder": (see, {"pixel_values": _B}, {"image_features": _B}),
    "embed_tokens": (embed, {"input_ids": _T}, {"inputs_embeds": _T}),
}
"""Graph -> what it computes, inputs and outputs with dynamic axes, but for the past.

optimum takes the second and the third for the decoders."""


class GraphConfig(OnnxSeq2SeqConfigWithPast):
    """Description of one graph, in ``PARTS``, for pictures of a size (height, width)."""

    NORMALIZED_CONFIG_CLASS = NormalizedSeq2SeqConfig.with_args(
        decoder_num_layers="text_config.decoder_layers", allow_new=True
    )
    ATOL_FOR_VALIDATION = 1e-3

    def __init__(self, config: Any, name: str, size: tuple[int, int]) -> None:
        (self.part, *self.axes), self.size, past = PARTS[name], size, name == WITH_PAST
        kind = ConfigBehavior.DECODER if self.part is decode else ConfigBehavior.MONOLITH
        super().__init__(config, use_past=True, use_past_in_inputs=past, behavior=kind)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Inputs and their dynamic axes."""
        inputs = dict(self.axes[0])
        if self.use_past_in_inputs:
            self.add_past_key_values(inputs, direction="inputs")
        return inputs

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Outputs and their dynamic axes."""
        outputs = dict(self.axes[1])
        if self.part is decode:
            self.add_past_key_values(outputs, direction="outputs")
        return outputs

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        """Inputs of different lengths, so that no axis is taken for another."""
        shapes = {**DEFAULT_DUMMY_SHAPES, **shapes}
        batch, length = shapes["batch_size"], shapes["sequence_length"]
        read, width = length + 5, self._config.text_config.d_model
        later = self.use_past_in_inputs and self.use_cache_branch is not False
        steps = read if self.part is encode else 1 if later else length
        mask = torch.arange(read).lt(read - 1).long().repeat(batch, 1)
        inputs: dict[str, Any] = {
            "pixel_values": torch.randn(batch, 3, *self.size),
            "input_ids": torch.randint(100, (batch, length)),
            "attention_mask": mask,
            "encoder_attention_mask": mask,
            "encoder_hidden_states": torch.randn(batch, read, width),
            "inputs_embeds": torch.randn(batch, steps, width),
        }
        inputs = {name: tensor for name, tensor in inputs.items() if name in self.axes[0]}
        if later:
            inputs["past_key_values"] = self._past(batch, length, read)
        return tree_map(Tensor.numpy, inputs) if framework == "np" else inputs

    def _past(self, batch: int, length: int, read: int) -> list[tuple[Tensor, ...]]:
        text = self._config.text_config
        heads, sizes = text.decoder_attention_heads, (length, length, read, read)
        shapes = [(batch, heads, size, text.d_model // heads) for size in sizes]
        return [tuple(map(torch.randn, shapes)) for _ in range(text.decoder_layers)]

    def generate_dummy_inputs_for_validation(self, inputs: Any, names: list[str]) -> Any:
        """Inputs of the graph from those of the part; a merged graph takes a past it ignores."""
        if self.is_merged:
            past = self._past(len(inputs["inputs_embeds"]), 1, 1)
            switch = torch.tensor([self.use_cache_branch])
            inputs = {"past_key_values": past, **inputs, "use_cache_branch": switch}
        taken = {name.split(".")[0] for name in names}
        return {name: value for name, value in inputs.items() if name in taken}
