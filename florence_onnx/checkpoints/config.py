"""Configuration of a checkpoint, read from either format of config.json.

Checkpoints in Microsoft's format (``text_config`` of type florence2_language, ``dim_embed``) and
in transformers' own (``text_config`` of type bart, ``embed_dim``) describe the same model with
different field names and different defaults. The fields of the classes here have transformers'
names.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from florence_onnx.errors import CheckpointError, FlorenceError
from florence_onnx.fields import Fields

ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "silu")
"""Activation functions that can be exported, by transformers' names."""


@dataclass(frozen=True)
class VisionConfig:
    """Geometry of DaViT and of the projector; a tuple has one entry per stage."""

    depths: tuple[int, ...]
    """Number of pairs of a spatial and a channel block."""
    embed_dim: tuple[int, ...]
    """Channels."""
    num_heads: tuple[int, ...]
    """Heads of the window attention."""
    num_groups: tuple[int, ...]
    """Groups of the channel attention."""
    patch_size: tuple[int, ...]
    """Kernel size of the convolution that begins the stage."""
    patch_stride: tuple[int, ...]
    """Stride of the convolution that begins the stage."""
    patch_padding: tuple[int, ...]
    """Padding of the convolution that begins the stage."""
    patch_prenorm: tuple[bool, ...]
    """Tells whether the stage normalises before its first convolution rather than after."""
    window_size: int
    """Side of an attention window, in positions of the feature grid."""
    mlp_ratio: float
    """Hidden channels of the feed-forward blocks per channel."""
    qkv_bias: bool
    """Tells whether queries, keys and values have biases."""
    activation_function: str
    """Name of ``ACTIVATIONS``."""
    projection_dim: int
    """Width of the image features."""
    max_position_embeddings: int
    """Limit of the rows, and of the columns, of the last stage's grid."""
    max_temporal_embeddings: int
    """Rows of the temporal embedding."""

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of every stage's feature grid, for a picture of a size in pixels."""
        found = []
        for size, stride, padding in zip(
            self.patch_size, self.patch_stride, self.patch_padding, strict=True
        ):
            height = (height + 2 * padding - size) // stride + 1
            width = (width + 2 * padding - size) // stride + 1
            found.append((height, width))
        return found

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of image tokens, for a picture of a size in pixels."""
        return self.grids(height, width)[-1]


@dataclass(frozen=True)
class TextConfig:
    """Geometry of the BART encoder and decoder."""

    vocab_size: int
    """Rows of the token embedding."""
    d_model: int
    """Hidden size."""
    encoder_layers: int
    """Layers of the encoder."""
    decoder_layers: int
    """Layers of the decoder."""
    encoder_attention_heads: int
    """Heads of the encoder's attention."""
    decoder_attention_heads: int
    """Heads of the decoder's attentions."""
    encoder_ffn_dim: int
    """Hidden size of the encoder's feed-forward blocks."""
    decoder_ffn_dim: int
    """Hidden size of the decoder's feed-forward blocks."""
    max_position_embeddings: int
    """Longest sequence of encoder and decoder."""
    activation_function: str
    """Name of ``ACTIVATIONS``."""
    scale_embedding: bool
    """Tells whether token embeddings are multiplied by the square root of ``d_model``."""


@dataclass(frozen=True)
class ModelConfig:
    """Configuration that the graphs depend on."""

    vision: VisionConfig
    """Vision tower and the projector."""
    text: TextConfig
    """Language model."""
    tie_word_embeddings: bool
    """Tells whether head and token embedding are one tensor if a checkpoint holds only one."""

    @classmethod
    def from_dict(
        cls,
        config: Mapping[str, Any],
        error: type[FlorenceError] = CheckpointError,
        file: str = "config.json",
    ) -> "ModelConfig":
        """Reads the content of a config.json.

        Every size has a limit, about ten times the size in the released models. Sizes that no
        weight has, such as a stride or a window, could otherwise take any amount of memory.

        Args:
            config: The content.
            error: Error to raise when the content describes another model, or a model that cannot
                be exported.
            file: Name of the file in messages.
        """
        fields = Fields(config, file, error)
        if config.get("model_type") != "florence2":
            raise fields.refused("model_type", '"florence2"')
        text, vision = fields.section("text_config"), fields.section("vision_config")
        native = is_native(config)
        result = cls(
            vision=_vision(vision, native),
            text=_text(text, native),
            tie_word_embeddings=(fields if native else text).boolean("tie_word_embeddings", True),
        )
        _check_vision(vision, result.vision, native)
        _check_text(text, result.text)
        if result.vision.projection_dim != result.text.d_model:
            raise vision.refused(
                "projection_dim",
                f"the text's d_model, {result.text.d_model}",
                result.vision.projection_dim,
            )
        return result


def is_native(config: Mapping[str, Any]) -> bool:
    """Tells whether a config.json is in transformers' own format, not in Microsoft's."""
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    return text.get("model_type") == "bart" or "embed_dim" in vision


def _vision(fields: Fields, native: bool) -> VisionConfig:
    fields.expect("model_type", "davit", "florence_vision", "florence2_vision", "")
    fields.expect("in_channels", 3)
    fields.expect("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
    positions, frames = fields, fields
    names = ("embed_dim", "max_position_embeddings", "max_temporal_embeddings")
    widths: tuple[tuple[int, ...], ...] = ((128, 256, 512, 1024), (4, 8, 16, 32))
    if not native:
        positions = fields.section("image_pos_embed")
        positions.expect("type", "learned_abs_2d")
        frames = fields.section("visual_temporal_embedding")
        frames.expect("type", "COSINE")
        names = ("dim_embed", "max_pos_embeddings", "max_temporal_embeddings")
        widths = ((256, 512, 1024, 2048), (8, 16, 32, 64))
    return VisionConfig(
        depths=fields.integers("depths", 1, 100, (1, 1, 9, 1)),
        embed_dim=fields.integers(names[0], 1, 16384, widths[0]),
        num_heads=fields.integers("num_heads", 1, 1024, widths[1]),
        num_groups=fields.integers("num_groups", 1, 1024, widths[1]),
        patch_size=fields.integers("patch_size", 1, 32, (7, 3, 3, 3)),
        patch_stride=fields.integers("patch_stride", 1, 32, (4, 2, 2, 2)),
        patch_padding=fields.integers("patch_padding", 0, 32, (3, 1, 1, 1)),
        patch_prenorm=fields.booleans("patch_prenorm", (False, True, True, True)),
        window_size=fields.integer("window_size", 1, 64, 12),
        mlp_ratio=fields.number("mlp_ratio", 0.01, 100, 4.0),
        qkv_bias=fields.boolean("qkv_bias", True),
        activation_function=fields.choice("activation_function", ACTIVATIONS),
        projection_dim=fields.integer("projection_dim", 1, 16384, 1024),
        # At least 3, to tell rows from columns.
        max_position_embeddings=positions.integer(names[1], 3, 1000, 50),
        max_temporal_embeddings=frames.integer(names[2], 1, 10000, 100),
    )


def _text(fields: Fields, native: bool) -> TextConfig:
    fields.expect("model_type", "florence2_language", "bart")
    for name in ("normalize_before", "add_final_layer_norm", "add_bias_logits"):
        fields.expect(name, False)
    return TextConfig(
        vocab_size=fields.integer("vocab_size", 1, 1_000_000, 50265 if native else 51289),
        d_model=fields.integer("d_model", 1, 16384, 1024),
        encoder_layers=fields.integer("encoder_layers", 1, 100, 12),
        decoder_layers=fields.integer("decoder_layers", 1, 100, 12),
        encoder_attention_heads=fields.integer("encoder_attention_heads", 1, 1024, 16),
        decoder_attention_heads=fields.integer("decoder_attention_heads", 1, 1024, 16),
        encoder_ffn_dim=fields.integer("encoder_ffn_dim", 1, 65536, 4096),
        decoder_ffn_dim=fields.integer("decoder_ffn_dim", 1, 65536, 4096),
        # At least 64, for a small picture and its prompt.
        max_position_embeddings=fields.integer("max_position_embeddings", 64, 65536, 1024),
        activation_function=fields.choice("activation_function", ACTIVATIONS),
        scale_embedding=fields.boolean("scale_embedding", False),
    )


def _check_vision(fields: Fields, vision: VisionConfig, native: bool) -> None:
    """Checks the sizes that have to agree with each other."""
    stages = len(vision.depths)
    if not 1 <= stages <= 10:
        raise fields.refused("depths", "1 to 10 values")
    stored = {"embed_dim": "embed_dim" if native else "dim_embed"}
    for name in (
        *("embed_dim", "num_heads", "num_groups"),
        *("patch_size", "patch_stride", "patch_padding", "patch_prenorm"),
    ):
        values = getattr(vision, name)
        if len(values) != stages:
            allowed = f"{stages} values, as in depths"
            raise fields.refused(stored.get(name, name), allowed, values)
    for name in ("num_heads", "num_groups"):
        parts = getattr(vision, name)
        if any(width % part for width, part in zip(vision.embed_dim, parts, strict=True)):
            raise fields.refused(name, f"divisors of {list(vision.embed_dim)}", parts)
    sizes = vision.patch_size
    if any(2 * padding > size for padding, size in zip(vision.patch_padding, sizes, strict=True)):
        allowed = f"at most half of patch_size, {list(sizes)}"
        raise fields.refused("patch_padding", allowed, vision.patch_padding)
    if math.prod(vision.patch_stride) > 256:
        raise fields.refused("patch_stride", "whole numbers whose product is at most 256")


def _check_text(fields: Fields, text: TextConfig) -> None:
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        heads = getattr(text, name)
        if text.d_model % heads:
            raise fields.refused(name, f"a divisor of d_model, {text.d_model}", heads)
