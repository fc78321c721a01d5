"""Tracing of transformers' modules to graphs of OpenVINO."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import Tensor, nn
from transformers import Florence2ForConditionalGeneration
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from benchmarks.harness.common import Setup
from benchmarks.peers.transformers_eager import open_processor


class _Vision(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model.get_image_features(pixel_values).pooler_output


class _Encoder(nn.Module):
    """Encoder, with the keys and values of the decoder's cross-attention."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text = model.model.language_model

    def forward(self, features: Tensor, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        embeds = torch.cat([features, self.text.shared(input_ids)], dim=1)
        hidden = self.text.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        cross = []
        for layer in self.text.decoder.layers:
            attention = layer.encoder_attn
            for product in (attention.k_proj, attention.v_proj):
                split = product(hidden).unflatten(-1, (attention.num_heads, attention.head_dim))
                cross.append(split.transpose(1, 2))
        return tuple(cross)


class _Decoder(nn.Module):
    """Step of the decoder, with beams reordered first."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder, self.head = model.model.language_model.decoder, model.lm_head

    def forward(
        self, input_ids: Tensor, mask: Tensor, beam_idx: Tensor, *caches: Tensor
    ) -> tuple[Tensor, ...]:
        half = len(caches) // 2
        past = _filled([tensor.index_select(0, beam_idx) for tensor in caches[:half]])
        cache = EncoderDecoderCache(past, _filled(caches[half:]))
        cache.is_updated = dict.fromkeys(range(len(self.decoder.layers)), True)
        output = self.decoder(
            input_ids=input_ids,
            # Only the length is used: keys and values are in the cache.
            encoder_hidden_states=mask[..., None].expand(-1, -1, self.head.in_features).float(),
            encoder_attention_mask=mask,
            cache=cache,
        )
        logits = self.head(output.last_hidden_state[:, -1])
        return (logits, *(t for layer in past.layers for t in (layer.keys, layer.values)))


def _filled(tensors: Sequence[Tensor]) -> Any:
    cache = DynamicCache()
    layer_class: Any = DynamicLayer
    for keys, values in zip(tensors[::2], tensors[1::2], strict=True):
        layer: Any = layer_class()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = keys.dtype, keys.device
        cache.layers.append(layer)
    return cache


def trace_graphs(setup: Setup, folder: Path) -> None:
    """Writes vision.xml, encoder.xml and decoder.xml.

    Args:
        setup: Setup with the checkpoint.
        folder: Folder to write to.
    """
    model: Any = Florence2ForConditionalGeneration.from_pretrained(setup.checkpoint)
    model.eval()
    images = open_processor(setup.checkpoint).image_processor
    text = model.config.text_config
    heads, layers, width = text.decoder_attention_heads, text.decoder_layers, text.d_model

    def caches(rows: int, length: int) -> list[Tensor]:
        return list(torch.zeros(2 * layers, rows, heads, length, width // heads).unbind())

    pictures, rows, sequence = 2, 6, 20
    ids = torch.zeros((pictures, 4), dtype=torch.int64)
    pixels = torch.randn(pictures, 3, images.size["height"], images.size["width"])
    mask = torch.ones((rows, sequence), dtype=torch.int64)
    features = torch.randn(pictures, sequence - 4, width)
    vision = _trace(_Vision(model), (pixels,))
    encoder = _trace(_Encoder(model), (features, ids, mask[:pictures]))
    step = (mask[:, :1], mask, torch.arange(rows), *caches(rows, 5), *caches(rows, sequence))
    decoder = _trace(_Decoder(model), step)
    _name_caches(decoder, 2 * layers)
    for name, graph in (("vision", vision), ("encoder", encoder), ("decoder", decoder)):
        ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def _trace(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracer, about values that become constants
        return ov.convert_model(module.eval(), example_input=example)


def _name_caches(decoder: Any, count: int) -> None:
    """Names inputs and outputs, and makes the engine keep the cache of the self-attention."""
    past = [f"past.{i}" for i in range(count)]
    present = [f"present.{i}" for i in range(count)]
    cross = [f"cross.{i}" for i in range(count)]
    inputs = ["input_ids", "attention_mask", "beam_idx", *past, *cross]
    for name, port in zip(inputs, decoder.inputs, strict=True):
        port.set_names({name})
    for name, port in zip(["logits", *present], decoder.outputs, strict=True):
        port.set_names({name})
    apply_make_stateful_transformation(decoder, dict(zip(past, present, strict=True)))
