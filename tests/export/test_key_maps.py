"""Names and shapes of weights, against the published conversion and transformers' model."""

import pytest
import torch
from transformers import Florence2ForConditionalGeneration

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from tests.helpers.plain_checkpoints import original_name
from tests.helpers.random_models import BASE, SMALL, Geometry

# From the published conversion script: the names that are not just prefixed.
PAIRS = {
    "vision_tower.convs.3.proj.bias": "model.vision_tower.convs.3.conv.bias",
    "vision_tower.convs.0.norm.weight": "model.vision_tower.convs.0.norm.weight",
    "vision_tower.blocks.2.8.spatial_block.conv1.fn.dw.weight": (
        "model.vision_tower.blocks.2.8.spatial_block.conv1.weight"
    ),
    "vision_tower.blocks.2.8.spatial_block.window_attn.norm.bias": (
        "model.vision_tower.blocks.2.8.spatial_block.norm1.bias"
    ),
    "vision_tower.blocks.2.8.spatial_block.window_attn.fn.qkv.bias": (
        "model.vision_tower.blocks.2.8.spatial_block.window_attn.qkv.bias"
    ),
    "vision_tower.blocks.2.8.channel_block.channel_attn.fn.proj.weight": (
        "model.vision_tower.blocks.2.8.channel_block.channel_attn.proj.weight"
    ),
    "vision_tower.blocks.2.8.channel_block.channel_attn.norm.weight": (
        "model.vision_tower.blocks.2.8.channel_block.norm1.weight"
    ),
    "vision_tower.blocks.2.8.channel_block.conv2.fn.dw.bias": (
        "model.vision_tower.blocks.2.8.channel_block.conv2.bias"
    ),
    "vision_tower.blocks.2.8.channel_block.ffn.norm.weight": (
        "model.vision_tower.blocks.2.8.channel_block.norm2.weight"
    ),
    "vision_tower.blocks.2.8.channel_block.ffn.fn.net.fc2.weight": (
        "model.vision_tower.blocks.2.8.channel_block.ffn.fc2.weight"
    ),
    "image_projection": "model.multi_modal_projector.image_projection.weight",
    "image_proj_norm.bias": "model.multi_modal_projector.image_proj_norm.bias",
    "image_pos_embed.row_embeddings.weight": (
        "model.multi_modal_projector.image_position_embed.row_embeddings.weight"
    ),
    "visual_temporal_embed.pos_idx_to_embed": (
        "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"
    ),
    "language_model.model.decoder.layers.0.encoder_attn.k_proj.weight": (
        "model.language_model.decoder.layers.0.encoder_attn.k_proj.weight"
    ),
    "language_model.lm_head.weight": "lm_head.weight",
    "language_model.final_logits_bias": "final_logits_bias",
}


def test_names_are_those_of_the_published_conversion() -> None:
    assert {name: key_maps.native_name(name) for name in PAIRS} == PAIRS
    assert key_maps.native_name("vision_tower.head.weight") is None


def test_the_test_helper_writes_the_published_names() -> None:
    for original, native in PAIRS.items():
        if native != "final_logits_bias":
            assert original_name(native) == original


@pytest.mark.parametrize("geometry", [*SMALL, BASE], ids=lambda geometry: geometry.name)
def test_expected_shapes_are_those_of_transformers(geometry: Geometry) -> None:
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(geometry.config())
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    for name in key_maps.EMBEDDING_COPIES:
        assert shapes.pop(name) == shapes[key_maps.EMBEDDING]
    config = ModelConfig.from_dict(geometry.config().to_dict())
    assert key_maps.expected_shapes(config) == shapes
