"""Descriptions of the graphs of the hub's layout for optimum."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from optimum.exporters.onnx import OnnxSeq2SeqConfigWithPast
from optimum.exporters.onnx.base import ConfigBehavior
from optimum.utils import (
    DummyInputGenerator,
    DummySeq2SeqPastKeyValuesGenerator,
    NormalizedSeq2SeqConfig,
)
from torch import Tensor, nn

from florence_onnx_export.graphs.reference import image_features


class Part(nn.Module):
    """Part of transformers' model, which optimum exports as a graph."""

    def __init__(self, model: Any, run: Callable[..., dict[str, Any]]) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.forward = partial(run, model)  # Its signature is that of the graph.


def see(model: Any, pixel_values: Tensor) -> dict[str, Any]:
    """Image features [B,N,D] of pixel values [B,3,H,W]."""
    return {"image_features": image_features(model, pixel_values)}


def embed(model: Any, input_ids: Tensor) -> dict[str, Any]:
    """Embeddings [B,T,D] of ids [B,T]."""
    return {"inputs_embeds": model.get_input_embeddings()(input_ids)}


def encode(model: Any, attention_mask: Tensor, inputs_embeds: Tensor) -> dict[str, Any]:
    """States [B,S,D] of the text encoder from embeddings [B,S,D]."""
    encoder = model.model.language_model.encoder
    hidden = encoder(attention_mask=attention_mask, inputs_embeds=inputs_embeds)
    return {"last_hidden_state": hidden.last_hidden_state}


def decode(
    model: Any,
    encoder_attention_mask: Tensor,
    encoder_hidden_states: Tensor,
    inputs_embeds: Tensor,
    past_key_values: Any = None,
) -> dict[str, Any]:
    """Logits [B,T,V] and cache from embeddings [B,T,D], at the first step or a later one."""
    found = model.model.language_model.decoder(
        inputs_embeds=inputs_embeds,
        encoder_attention_mask=encoder_attention_mask,
        encoder_hidden_states=encoder_hidden_states,
        past_key_values=past_key_values,
        use_cache=True,
    )
    logits = model.lm_head(found.last_hidden_state)
    return {"logits": logits, "past_key_values": found.past_key_values}


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


class Inputs(DummyInputGenerator):
    """Makes the inputs with which a graph is traced and validated."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def supports_input(self, input_name: str) -> bool:
        """Tells whether there is such an input."""
        return input_name in self.tensors

    def generate(self, input_name: str, framework: str = "pt", **types: str) -> Any:
        """Returns an input."""
        tensor = self.tensors[input_name]
        return tensor.numpy() if framework == "np" else tensor


class GraphConfig(OnnxSeq2SeqConfigWithPast):
    """Description of one graph, in ``PARTS``, for pictures of a size (height, width)."""

    NORMALIZED_CONFIG_CLASS = NormalizedSeq2SeqConfig.with_args(
        decoder_num_layers="text_config.decoder_layers",
        encoder_num_attention_heads="text_config.decoder_attention_heads",
        decoder_num_attention_heads="text_config.decoder_attention_heads",
        hidden_size="text_config.d_model",
        allow_new=True,
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

    def _create_dummy_input_generator_classes(self, **shapes: Any) -> list[Any]:
        """Inputs of different lengths, so that no axis is taken for another."""
        batch, length = shapes["batch_size"], shapes["sequence_length"]
        read, width = length + 5, self._config.text_config.d_model
        later = self.use_past_in_inputs and self.use_cache_branch is not False
        steps = read if self.part is encode else 1 if later else length
        mask = torch.arange(read).lt(read - 1).long().repeat(batch, 1)
        tensors = {
            "pixel_values": torch.randn(batch, 3, *self.size),
            "input_ids": torch.randint(100, (batch, length)),
            "attention_mask": mask,
            "encoder_attention_mask": mask,
            "encoder_hidden_states": torch.randn(batch, read, width),
            "inputs_embeds": torch.randn(batch, steps, width),
        }
        past = DummySeq2SeqPastKeyValuesGenerator(
            self.task, self._normalized_config, encoder_sequence_length=read, **shapes
        )
        return [Inputs(tensors), past]

    def generate_dummy_inputs_for_validation(self, inputs: Any, names: list[str]) -> Any:
        """Inputs of the graph from those of the part; optimum wants input_ids of a decoder."""
        inputs = {"input_ids": inputs.get("inputs_embeds"), **inputs}
        inputs = super().generate_dummy_inputs_for_validation(inputs, names)
        taken = {name.split(".")[0] for name in names}
        return {name: value for name, value in inputs.items() if name in taken}
