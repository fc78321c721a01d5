"""config.json in both formats: what is read, what is taken for granted, what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Florence2Config

from florence_onnx.checkpoints.config import ModelConfig, TextConfig, VisionConfig
from florence_onnx.errors import CheckpointError

BASE = ModelConfig(
    vision=VisionConfig(
        depths=(1, 1, 9, 1),
        embed_dim=(128, 256, 512, 1024),
        num_heads=(4, 8, 16, 32),
        num_groups=(4, 8, 16, 32),
        patch_size=(7, 3, 3, 3),
        patch_stride=(4, 2, 2, 2),
        patch_padding=(3, 1, 1, 1),
        patch_prenorm=(False, True, True, True),
        window_size=12,
        mlp_ratio=4.0,
        qkv_bias=True,
        activation_function="gelu",
        projection_dim=768,
        max_position_embeddings=50,
        max_temporal_embeddings=100,
    ),
    text=TextConfig(
        vocab_size=51289,
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        max_position_embeddings=1024,
        activation_function="gelu",
        scale_embedding=False,
    ),
    tie_word_embeddings=True,
)

NATIVE: dict[str, Any] = {
    "model_type": "florence2",
    "text_config": {"model_type": "bart", "d_model": 1024},
    "vision_config": {"model_type": "florence_vision"},
}
ORIGINAL: dict[str, Any] = {
    "model_type": "florence2",
    "text_config": {"model_type": "florence2_language", "d_model": 768, "encoder_layers": 6},
    "vision_config": {
        "model_type": "davit",
        "projection_dim": 768,
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 7},
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 9},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    },
}


def read(path: Path) -> ModelConfig:
    return ModelConfig.from_dict(json.loads(path.read_text()))


def with_field(config: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """``config`` with the field at the dotted ``name`` set."""
    changed = copy.deepcopy(config)
    *sections, field = name.split(".")
    section = changed
    for part in sections:
        section = section[part]
    section[field] = value
    return changed


@pytest.mark.parametrize(
    "folder", ["microsoft-base", "onnx-community-base", "finetune-saved-by-transformers"]
)
def test_the_real_configs_of_base(shared: Path, folder: str) -> None:
    assert read(shared / "configs" / folder / "config.json") == BASE


@pytest.mark.parametrize("name", ["base", "large"])
def test_both_formats_of_one_model_differ_in_the_padded_vocabulary_alone(
    shared: Path, name: str
) -> None:
    native = json.loads((shared / f"configs/native/{name}/config.json").read_text())
    assert native["text_config"]["vocab_size"] == 51328
    original = "microsoft-base" if name == "base" else "microsoft-large-ft"
    native["text_config"]["vocab_size"] = 51289
    assert ModelConfig.from_dict(native) == read(shared / f"configs/{original}/config.json")


def test_the_configs_of_large_through_time(shared: Path) -> None:
    first, *later = sorted((shared / "configs/microsoft-large/history").glob("*.json"))
    assert read(first).text.max_position_embeddings == 1024
    for path in [*later, shared / "configs/microsoft-large/config.json"]:
        config = read(path)
        assert config.text.d_model == config.vision.projection_dim == 1024
        assert config.vision.embed_dim == (256, 512, 1024, 2048)


def test_absent_fields_mean_what_transformers_takes_them_for() -> None:
    reference = Florence2Config(**copy.deepcopy(NATIVE))
    config = ModelConfig.from_dict(NATIVE)
    for ours, theirs in ((config.text, reference.text_config), (config.vision, None)):
        theirs = theirs or reference.vision_config
        for name, value in vars(ours).items():
            expected = getattr(theirs, name)
            assert value == (tuple(expected) if isinstance(expected, list) else expected), name


def test_absent_fields_mean_what_microsoft_took_them_for() -> None:
    config = ModelConfig.from_dict(with_field(ORIGINAL, "text_config.encoder_layers", None))
    assert config.text.vocab_size == 51289
    assert (config.text.encoder_layers, config.text.decoder_ffn_dim) == (12, 4096)
    assert config.vision.embed_dim == (256, 512, 1024, 2048)
    assert config.vision.num_heads == config.vision.num_groups == (8, 16, 32, 64)
    assert config.vision.max_position_embeddings == 7
    assert config.vision.max_temporal_embeddings == 9


def test_fields_of_the_original_format_left_in_a_native_one_are_ignored() -> None:
    config = with_field(NATIVE, "vision_config.dim_embed", [64, 64, 64, 64])
    config["vision_config"]["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": 3}
    assert ModelConfig.from_dict(config) == ModelConfig.from_dict(NATIVE)


def test_who_decides_about_tied_embeddings() -> None:
    for config, name in ((NATIVE, ""), (ORIGINAL, "text_config.")):
        assert ModelConfig.from_dict(config).tie_word_embeddings
        untied = with_field(config, f"{name}tie_word_embeddings", False)
        assert not ModelConfig.from_dict(untied).tie_word_embeddings


@pytest.mark.parametrize("activation", ["gelu_new", "quick_gelu", "relu", "silu"])
def test_activations(activation: str) -> None:
    config = with_field(NATIVE, "text_config.activation_function", activation)
    config = with_field(config, "vision_config.activation_function", activation)
    read = ModelConfig.from_dict(config)
    assert (read.text.activation_function, read.vision.activation_function) == (activation,) * 2


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        (NATIVE, "model_type", "bart"),
        (NATIVE, "text_config", "bart"),
        (NATIVE, "text_config.model_type", "t5"),
        (NATIVE, "text_config.activation_function", "tanh"),
        (NATIVE, "text_config.normalize_before", True),
        (NATIVE, "text_config.add_final_layer_norm", True),
        (NATIVE, "text_config.encoder_layers", "12"),
        (NATIVE, "text_config.vocab_size", 0),
        (NATIVE, "text_config.vocab_size", 5.0),
        (NATIVE, "text_config.scale_embedding", 1),
        (NATIVE, "text_config.encoder_attention_heads", 13),
        (NATIVE, "text_config.decoder_attention_heads", 13),
        (NATIVE, "vision_config.model_type", "swin"),
        (NATIVE, "vision_config.in_channels", 1),
        (NATIVE, "vision_config.mlp_ratio", -1.0),
        (NATIVE, "vision_config.embed_dim", [128, 256]),
        (NATIVE, "vision_config.embed_dim", 128),
        (NATIVE, "vision_config.num_heads", [4, 8, 16, 31]),
        (NATIVE, "vision_config.num_groups", [3, 8, 16, 32]),
        (NATIVE, "vision_config.patch_padding", [-1, 1, 1, 1]),
        (NATIVE, "vision_config.patch_padding", [3, 1, 1, 2]),
        (NATIVE, "vision_config.patch_padding", [32, 32, 32, 32]),
        (NATIVE, "vision_config.patch_prenorm", [0, 1, 1, 1]),
        (NATIVE, "vision_config.projection_dim", 512),
        (NATIVE, "vision_config.max_position_embeddings", 2),
        (NATIVE, "text_config.max_position_embeddings", 63),
        (ORIGINAL, "vision_config.image_pos_embed.type", "sine"),
        (ORIGINAL, "vision_config.visual_temporal_embedding.type", "learned"),
        (ORIGINAL, "vision_config.image_feature_source", ["last_frame"]),
    ],
)
def test_what_cannot_be_exported_is_named(config: dict[str, Any], name: str, value: object) -> None:
    ModelConfig.from_dict(config)
    with pytest.raises(CheckpointError) as error:
        ModelConfig.from_dict(with_field(config, name, value))
    shown = json.dumps(value)
    assert str(error.value).startswith(f"config.json: {name} is {shown}, but must be ")


def test_a_config_without_model_type() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: model_type is null"):
        ModelConfig.from_dict({"architectures": ["x"]})
