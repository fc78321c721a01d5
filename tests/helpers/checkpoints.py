"""Checkpoint folders in both formats, written from a transformers model."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Florence2ForConditionalGeneration

from tests.helpers.plain_checkpoints import IDS, POLICY, original_name
from tests.helpers.random_models import SMALL, Geometry
from tests.helpers.tokenizers import VOCABULARY, make_tokenizer

GEOMETRY = replace(SMALL[0], vocab_size=VOCABULARY + 1, image_token_id=VOCABULARY)
"""A small model with a row for every token of the tokenizer written beside it."""


def save_native(
    model: Florence2ForConditionalGeneration,
    folder: Path,
    *,
    safetensors: bool = True,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    image_size: tuple[int, int] = (64, 64),
    more: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes ``model`` as transformers saves it, and returns ``folder``.

    Args:
        model: With a vocabulary of at least ``helpers.tokenizers.VOCABULARY``, if the tokenizer is
            to be used.
        folder: Created if it is not there.
        safetensors: Whether weights go to safetensors rather than a pickle.
        shards: Number of weight files.
        dtype: What weights are stored as.
        image_size: (height, width) of the pictures that the model is fed.
        more: Further weights, by the names they get in the files.
    """
    _write_native_assets(model, folder, image_size)
    save_weights({**native_weights(model), **(more or {})}, folder, safetensors, shards, dtype)
    return folder


def save_random(geometry: Geometry, folder: Path) -> Path:
    """Writes a float32 checkpoint of random weights as `save_native` does, tensor by tensor."""
    with torch.device("meta"):
        model = Florence2ForConditionalGeneration(geometry.config())
    _write_native_assets(model, folder, geometry.image_size)
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    shapes = {n: t.shape for n, t in sorted(model.state_dict().items()) if not n.endswith(tied)}
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape.numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = random.standard_normal(tuple(shape), np.float32) * np.float32(0.02)
            (values + np.float32(len(shape) == 1 and "weight" in name)).tofile(file)
    return folder


def _write_native_assets(
    model: Florence2ForConditionalGeneration, folder: Path, image_size: tuple[int, int]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "config.json", json.loads(model.config.to_json_string(use_diff=False)))
    generation = {**IDS, **POLICY, "decoder_start_token_id": 2}
    _write(folder, "generation_config.json", generation)
    _write(folder, "processor_config.json", {"image_processor": _image_processor(image_size)})
    _write(folder, "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"})
    make_tokenizer(folder)


def save_original(
    model: Florence2ForConditionalGeneration,
    folder: Path,
    *,
    safetensors: bool = False,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    image_size: tuple[int, int] = (64, 64),
    more: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes ``model`` as Microsoft released its checkpoints, and returns ``folder``.

    Takes what ``save_native`` takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "config.json", original_config(model))
    _write(folder, "generation_config.json", {"num_beams": 3, "early_stopping": False})
    _write(folder, "preprocessor_config.json", _image_processor(image_size))
    _write(folder, "tokenizer_config.json", {"model_max_length": 1024})
    make_tokenizer(folder, extra_tokens=False)
    save_weights({**original_weights(model), **(more or {})}, folder, safetensors, shards, dtype)
    return folder


def native_weights(model: Florence2ForConditionalGeneration) -> dict[str, Tensor]:
    """The state dict with tied tensors once, as safetensors files hold it."""
    weights = dict(model.state_dict())
    for name in ("encoder.embed_tokens", "decoder.embed_tokens"):
        del weights[f"model.language_model.{name}.weight"]
    if weights["lm_head.weight"] is weights["model.language_model.shared.weight"] or torch.equal(
        weights["lm_head.weight"], weights["model.language_model.shared.weight"]
    ):
        del weights["lm_head.weight"]
    return weights


def original_weights(model: Florence2ForConditionalGeneration) -> dict[str, Tensor]:
    """The state dict under Microsoft's names, tied tensors under each of theirs."""
    weights = {original_name(name): tensor for name, tensor in model.state_dict().items()}
    weights["image_projection"] = weights["image_projection"].t().contiguous()
    vocabulary = len(weights["language_model.lm_head.weight"])
    weights["language_model.final_logits_bias"] = torch.zeros((1, vocabulary))
    return weights


def original_config(model: Florence2ForConditionalGeneration) -> dict[str, Any]:
    """The config.json that Microsoft's code would need for ``model``."""
    config = model.config.to_dict()
    text, vision = config["text_config"], config["vision_config"]
    text_names = [
        "vocab_size",
        "activation_function",
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "max_position_embeddings",
        "scale_embedding",
    ]
    vision_names = [
        "patch_size",
        "patch_stride",
        "patch_padding",
        "patch_prenorm",
        "num_heads",
        "num_groups",
        "depths",
        "window_size",
        "projection_dim",
    ]
    return {
        "model_type": "florence2",
        "architectures": ["Florence2ForConditionalGeneration"],
        "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
        "projection_dim": vision["projection_dim"],
        "vocab_size": text["vocab_size"],
        "is_encoder_decoder": True,
        **IDS,
        "text_config": {
            **{name: text[name] for name in text_names},
            **IDS,
            **POLICY,
            "decoder_start_token_id": 2,
            "normalize_before": False,
            "add_final_layer_norm": False,
        },
        "vision_config": {
            "model_type": "davit",
            **{name: vision[name] for name in vision_names},
            "dim_embed": vision["embed_dim"],
            "image_pos_embed": {
                "type": "learned_abs_2d",
                "max_pos_embeddings": vision["max_position_embeddings"],
            },
            "visual_temporal_embedding": {
                "type": "COSINE",
                "max_temporal_embeddings": vision["max_temporal_embeddings"],
            },
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        },
    }


def save_weights(
    weights: dict[str, Tensor],
    folder: Path,
    safetensors: bool = True,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes weight files under transformers' names, with an index if there are several."""
    stem, suffix = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    names = sorted(weights)
    index: dict[str, str] = {}
    for shard in range(shards):
        part = {name: weights[name].to(dtype) for name in names[shard::shards]}
        several = f"-{shard + 1:05}-of-{shards:05}" if shards > 1 else ""
        file = f"{stem}{several}.{suffix}"
        index |= dict.fromkeys(part, file)
        if safetensors:
            copies = {name: tensor.clone().contiguous() for name, tensor in part.items()}
            save_file(copies, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
    if shards > 1:
        _write(folder, f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": index})


def _image_processor(image_size: tuple[int, int]) -> dict[str, Any]:
    """As released: without the rescale factor, which is the image processor's default."""
    size = {"height": image_size[0], "width": image_size[1]}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_center_crop": False,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": size,
        "crop_size": size,
    }


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
