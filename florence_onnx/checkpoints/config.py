"""The configuration of a checkpoint, read from either format of config.json.

Checkpoints in Microsoft's format (``text_config`` of type florence2_language, ``dim_embed``) and
in transformers' own (``text_config`` of type bart, ``embed_dim``) describe the same model under
different names and with different defaults for what they leave out. The fields here carry
transformers' names.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from florence_onnx.errors import CheckpointError

ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "silu")
"""Names of the activation functions that can be exported, as transformers calls them."""


@dataclass(frozen=True)
class VisionConfig:
    """Geometry of DaViT and of the projector; one entry per stage where there are several."""

    depths: tuple[int, ...]
    """Pairs of a spatial and a channel block."""
    embed_dim: tuple[int, ...]
    """Channels."""
    num_heads: tuple[int, ...]
    """Heads of the window attention."""
    num_groups: tuple[int, ...]
    """Groups of the channel attention."""
    patch_size: tuple[int, ...]
    """Kernel size of the convolution that begins the stage."""
    patch_stride: tuple[int, ...]
    """Its stride."""
    patch_padding: tuple[int, ...]
    """Its padding."""
    patch_prenorm: tuple[bool, ...]
    """Whether the stage normalises before that convolution rather than after it."""
    window_size: int
    """Side of an attention window, in positions of the feature grid."""
    mlp_ratio: float
    """Hidden channels of the feed-forward blocks per channel."""
    qkv_bias: bool
    """Whether queries, keys and values have biases."""
    activation_function: str
    """One of ``ACTIVATIONS``."""
    projection_dim: int
    """Width of the image features."""
    max_position_embeddings: int
    """Most rows, and columns, of the last stage's grid."""
    max_temporal_embeddings: int
    """Rows of the temporal embedding."""


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
    """One of ``ACTIVATIONS``."""
    scale_embedding: bool
    """Whether token embeddings are multiplied by the square root of ``d_model``."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything the graphs depend on."""

    vision: VisionConfig
    """The vision tower and the projector."""
    text: TextConfig
    """The language model."""
    tie_word_embeddings: bool
    """Whether the output head is the token embedding when a checkpoint holds only one of them."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Reads the content of a config.json.

        Raises:
            CheckpointError: It describes another model, or one that cannot be exported.
        """
        if config.get("model_type") != "florence2":
            raise _unsupported("model_type", config.get("model_type"), "'florence2'")
        fields = _Fields(config, "")
        text, vision = fields.section("text_config"), fields.section("vision_config")
        native = is_native(config)
        result = cls(
            vision=_vision(vision, native),
            text=_text(text, native),
            tie_word_embeddings=(fields if native else text).boolean("tie_word_embeddings", True),
        )
        _check_fit(result)
        return result


def is_native(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is in transformers' own format rather than Microsoft's."""
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    return text.get("model_type") == "bart" or "embed_dim" in vision


def _vision(fields: "_Fields", native: bool) -> VisionConfig:
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
        depths=fields.integers("depths", (1, 1, 9, 1)),
        embed_dim=fields.integers(names[0], widths[0]),
        num_heads=fields.integers("num_heads", widths[1]),
        num_groups=fields.integers("num_groups", widths[1]),
        patch_size=fields.integers("patch_size", (7, 3, 3, 3)),
        patch_stride=fields.integers("patch_stride", (4, 2, 2, 2)),
        patch_padding=fields.paddings("patch_padding", (3, 1, 1, 1)),
        patch_prenorm=fields.booleans("patch_prenorm", (False, True, True, True)),
        window_size=fields.integer("window_size", 12),
        mlp_ratio=fields.number("mlp_ratio", 4.0),
        qkv_bias=fields.boolean("qkv_bias", True),
        activation_function=fields.choice("activation_function", ACTIVATIONS),
        projection_dim=fields.integer("projection_dim", 1024),
        max_position_embeddings=positions.integer(names[1], 50),
        max_temporal_embeddings=frames.integer(names[2], 100),
    )


def _text(fields: "_Fields", native: bool) -> TextConfig:
    fields.expect("model_type", "florence2_language", "bart")
    for name in ("normalize_before", "add_final_layer_norm", "add_bias_logits"):
        fields.expect(name, False)
    return TextConfig(
        vocab_size=fields.integer("vocab_size", 50265 if native else 51289),
        d_model=fields.integer("d_model", 1024),
        encoder_layers=fields.integer("encoder_layers", 12),
        decoder_layers=fields.integer("decoder_layers", 12),
        encoder_attention_heads=fields.integer("encoder_attention_heads", 16),
        decoder_attention_heads=fields.integer("decoder_attention_heads", 16),
        encoder_ffn_dim=fields.integer("encoder_ffn_dim", 4096),
        decoder_ffn_dim=fields.integer("decoder_ffn_dim", 4096),
        max_position_embeddings=fields.integer("max_position_embeddings", 1024),
        activation_function=fields.choice("activation_function", ACTIVATIONS),
        scale_embedding=fields.boolean("scale_embedding", False),
    )


def _check_fit(config: ModelConfig) -> None:
    """Checks the sizes that have to agree with one another."""
    vision, text = config.vision, config.text
    stages = len(vision.depths)
    lists = ("embed_dim", "num_heads", "num_groups", "patch_size", "patch_stride", "patch_padding")
    for name in (*lists, "patch_prenorm"):
        if len(getattr(vision, name)) != stages:
            raise _unsupported(
                f"vision_config.{name}", getattr(vision, name), f"{stages} values, as in depths"
            )
    for name in ("num_heads", "num_groups"):
        parts = getattr(vision, name)
        if any(width % part for width, part in zip(vision.embed_dim, parts, strict=True)):
            raise _unsupported(f"vision_config.{name}", parts, f"divisors of {vision.embed_dim}")
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        heads = getattr(text, name)
        if text.d_model % heads:
            raise _unsupported(f"text_config.{name}", heads, f"divisors of {text.d_model}")
    if vision.projection_dim != text.d_model:
        raise _unsupported(
            "vision_config.projection_dim", vision.projection_dim, f"the text's {text.d_model}"
        )
    for name, places, least in (
        ("vision_config", vision.max_position_embeddings, 3),  # to tell rows from columns
        ("text_config", text.max_position_embeddings, 64),  # a small picture and its prompt
    ):
        if places < least:
            raise _unsupported(f"{name}.max_position_embeddings", places, f"{least} or more")


class _Fields:
    """Typed access to a section of config.json; null counts as absent, as in transformers."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self._values = values
        self._path = path

    def _get(self, name: str, default: object) -> Any:
        value = self._values.get(name)
        return default if value is None else value

    def section(self, name: str) -> "_Fields":
        value = self._get(name, {})
        if not isinstance(value, Mapping):
            raise _unsupported(self._path + name, value, "an object")
        return _Fields(value, f"{self._path}{name}.")

    def expect(self, name: str, *supported: object) -> None:
        """Refuses a value other than ``supported``; the first is what an absent field means."""
        value = self._get(name, supported[0])
        if value not in supported:
            raise _unsupported(
                self._path + name, value, " or ".join(repr(choice) for choice in supported)
            )

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of ``choices``; the first when absent."""
        self.expect(name, *choices)
        return str(self._get(name, choices[0]))

    def boolean(self, name: str, default: bool) -> bool:
        return bool(self._value(name, default, _is_boolean, "true or false"))

    def booleans(self, name: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        return tuple(self._value(name, default, _list_of(_is_boolean), "a list of true or false"))

    def integer(self, name: str, default: int) -> int:
        return int(self._value(name, default, _is_size, "a whole number > 0"))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._value(name, default, _list_of(_is_size), "a list of whole numbers > 0"))

    def paddings(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._value(name, default, _list_of(_is_count), "a list of whole numbers"))

    def number(self, name: str, default: float) -> float:
        return float(self._value(name, default, _is_ratio, "a number > 0"))

    def _value(
        self, name: str, default: object, valid: Callable[[Any], bool], supported: str
    ) -> Any:
        value = self._get(name, default)
        if not valid(value):
            raise _unsupported(self._path + name, value, supported)
        return value


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_ratio(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _list_of(valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list | tuple) and all(map(valid, values))


def _unsupported(name: str, value: object, supported: str) -> CheckpointError:
    return CheckpointError(f"config.json: {name} is {value!r}; supported: {supported}")
