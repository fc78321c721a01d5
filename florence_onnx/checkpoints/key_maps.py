"""Names and shapes of a checkpoint's weights.

Native names are those of transformers' ``Florence2ForConditionalGeneration.state_dict()``;
original names are those of Microsoft's checkpoints. The exporter uses native names throughout.
"""

import re
from collections.abc import Iterator

from florence_onnx.checkpoints.config import ModelConfig, TextConfig, VisionConfig

HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.shared.weight"
EMBEDDING_COPIES = (
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
)
"""Other names of the token embedding. Some libraries write these names too."""
LOGITS_BIAS = "final_logits_bias"
"""Bias on the logits in original checkpoints; zero in the released checkpoints."""
IMAGE_PROJECTION = "model.multi_modal_projector.image_projection.weight"

_Shapes = Iterator[tuple[str, tuple[int, ...]]]

_PROJECTOR = "model.multi_modal_projector."
_BLOCK = r"vision_tower\.(blocks\.\d+\.\d+\.(?:spatial|channel)_block)\."
_ORIGINAL_TO_NATIVE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"vision_tower\.convs\.(\d+)\.proj\.", r"model.vision_tower.convs.\1.conv."),
        (r"vision_tower\.convs\.(\d+)\.norm\.", r"model.vision_tower.convs.\1.norm."),
        (_BLOCK + r"(conv[12])\.fn\.dw\.", r"model.vision_tower.\1.\2."),
        (_BLOCK + r"(?:window|channel)_attn\.norm\.", r"model.vision_tower.\1.norm1."),
        (_BLOCK + r"(window|channel)_attn\.fn\.", r"model.vision_tower.\1.\2_attn."),
        (_BLOCK + r"ffn\.norm\.", r"model.vision_tower.\1.norm2."),
        (_BLOCK + r"ffn\.fn\.net\.", r"model.vision_tower.\1.ffn."),
        (r"image_projection$", IMAGE_PROJECTION),
        (r"image_proj_norm\.", _PROJECTOR + "image_proj_norm."),
        (r"image_pos_embed\.", _PROJECTOR + "image_position_embed."),
        (r"visual_temporal_embed\.", _PROJECTOR + "visual_temporal_embed."),
        (r"language_model\.model\.", "model.language_model."),
        (r"language_model\.(lm_head\.|final_logits_bias$)", r"\1"),
    )
]


def native_name(original: str) -> str | None:
    """Native name of a weight of an original checkpoint; None for an unknown weight."""
    for pattern, replacement in _ORIGINAL_TO_NATIVE:
        match = pattern.match(original)
        if match:
            return match.expand(replacement) + original[match.end() :]
    return None


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Native name -> shape of every weight of a model. The token embedding has one name here."""
    shapes = dict(_vision_tower(config.vision))
    shapes |= _projector(config.vision)
    shapes |= _language_model(config.text)
    shapes[HEAD] = (config.text.vocab_size, config.text.d_model)
    return shapes


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> _Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> _Shapes:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _vision_tower(config: VisionConfig) -> _Shapes:
    inputs = 3
    for stage, channels in enumerate(config.embed_dim):
        conv, size = f"model.vision_tower.convs.{stage}", config.patch_size[stage]
        yield f"{conv}.conv.weight", (channels, inputs, size, size)
        yield f"{conv}.conv.bias", (channels,)
        yield from _norm(f"{conv}.norm", inputs if config.patch_prenorm[stage] else channels)
        for index in range(config.depths[stage]):
            block = f"model.vision_tower.blocks.{stage}.{index}"
            yield from _block(f"{block}.spatial_block", "window_attn", channels, config)
            yield from _block(f"{block}.channel_block", "channel_attn", channels, config)
        inputs = channels


def _block(name: str, attention: str, channels: int, config: VisionConfig) -> _Shapes:
    hidden = int(channels * config.mlp_ratio)
    for index in (1, 2):
        yield f"{name}.conv{index}.weight", (channels, 1, 3, 3)
        yield f"{name}.conv{index}.bias", (channels,)
        yield from _norm(f"{name}.norm{index}", channels)
    yield from _linear(f"{name}.{attention}.qkv", channels, 3 * channels, config.qkv_bias)
    yield from _linear(f"{name}.{attention}.proj", channels, channels)
    yield from _linear(f"{name}.ffn.fc1", channels, hidden)
    yield from _linear(f"{name}.ffn.fc2", hidden, channels)


def _projector(config: VisionConfig) -> _Shapes:
    channels, positions = config.embed_dim[-1], config.max_position_embeddings
    yield IMAGE_PROJECTION, (config.projection_dim, channels)
    yield from _norm(_PROJECTOR + "image_proj_norm", config.projection_dim)
    embed = _PROJECTOR + "image_position_embed"
    yield f"{embed}.row_embeddings.weight", (positions, channels // 2)
    yield f"{embed}.column_embeddings.weight", (positions, channels - channels // 2)
    temporal = _PROJECTOR + "visual_temporal_embed.pos_idx_to_embed"
    yield temporal, (config.max_temporal_embeddings, channels)


def _language_model(config: TextConfig) -> _Shapes:
    width = config.d_model
    yield EMBEDDING, (config.vocab_size, width)
    sides = (
        ("encoder", config.encoder_layers, config.encoder_ffn_dim, ("self_attn",)),
        ("decoder", config.decoder_layers, config.decoder_ffn_dim, ("self_attn", "encoder_attn")),
    )
    for side, layers, hidden, attentions in sides:
        name = f"model.language_model.{side}"
        # The first two rows of BART's position tables belong to no position.
        yield f"{name}.embed_positions.weight", (config.max_position_embeddings + 2, width)
        yield from _norm(f"{name}.layernorm_embedding", width)
        for index in range(layers):
            layer = f"{name}.layers.{index}"
            for attention in attentions:
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield from _linear(f"{layer}.{attention}.{projection}", width, width)
                yield from _norm(f"{layer}.{attention}_layer_norm", width)
            yield from _linear(f"{layer}.fc1", width, hidden)
            yield from _linear(f"{layer}.fc2", hidden, width)
            yield from _norm(f"{layer}.final_layer_norm", width)
