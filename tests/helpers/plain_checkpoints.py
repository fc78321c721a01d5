"""Checkpoint folders in both formats with random weights, written without torch."""

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from tests.helpers.tokenizers import VOCABULARY, make_tokenizer

Array = npt.NDArray[Any]
Json = dict[str, Any]

POLICY: Json = {
    "num_beams": 3,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
}
"""Generation as released."""

IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}

TEXT: Json = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 128,
}
VISION: Json = {
    "depths": [1, 1],
    "num_heads": [1, 2],
    "num_groups": [1, 2],
    "patch_size": [7, 3],
    "patch_stride": [4, 4],
    "patch_padding": [3, 1],
    "patch_prenorm": [False, True],
    "window_size": 2,
    "projection_dim": 16,
}
ORIGINAL: Json = {
    "model_type": "florence2",
    "vocab_size": VOCABULARY,
    **IDS,
    "torch_dtype": "float32",
    "text_config": {
        **TEXT,
        **IDS,
        **POLICY,
        "model_type": "florence2_language",
        "decoder_start_token_id": 2,
    },
    "vision_config": {
        **VISION,
        "model_type": "davit",
        "dim_embed": [8, 16],
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 8},
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": 3},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    },
}
"""config.json in Microsoft's format."""
NATIVE: Json = {
    "model_type": "florence2",
    "dtype": "float32",
    "image_token_id": VOCABULARY,
    "text_config": {**TEXT, **IDS, "model_type": "bart", "vocab_size": VOCABULARY + 1},
    "vision_config": {
        **VISION,
        "model_type": "florence_vision",
        "embed_dim": [8, 16],
        "max_position_embeddings": 8,
        "max_temporal_embeddings": 3,
    },
}
"""config.json in transformers' format."""
PREPROCESSING: Json = {"size": {"height": 64, "width": 64}, "resample": 3, "do_resize": True}


def original_name(native: str) -> str:
    """Microsoft's name of a weight of transformers' model."""
    if native == "lm_head.weight":
        return "language_model.lm_head.weight"
    name = native.removeprefix("model.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("multi_modal_projector."):
        name = name.removeprefix("multi_modal_projector.")
        name = name.replace("image_position_embed", "image_pos_embed")
        return "image_projection" if name == "image_projection.weight" else name
    if name.startswith("vision_tower.convs."):
        return name.replace(".conv.", ".proj.")
    attention = "window_attn" if ".spatial_block." in name else "channel_attn"
    for ours, theirs in (
        (".conv1.", ".conv1.fn.dw."),
        (".conv2.", ".conv2.fn.dw."),
        (".norm1.", f".{attention}.norm."),
        (".norm2.", ".ffn.norm."),
        (".qkv.", ".fn.qkv."),
        (".proj.", ".fn.proj."),
        (".fc1.", ".fn.net.fc1."),
        (".fc2.", ".fn.net.fc2."),
    ):
        name = name.replace(ours, theirs)
    return name


def native_arrays(config: Json, seed: int = 0) -> dict[str, Array]:
    """Random weights of a tied model by transformers' names."""
    draw = np.random.default_rng(seed)
    shapes = key_maps.expected_shapes(ModelConfig.from_dict(config))
    del shapes[key_maps.HEAD]
    return {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def original_arrays(config: Json = ORIGINAL, seed: int = 0) -> dict[str, Array]:
    """The same by Microsoft's names, the tied head under its own too."""
    native = native_arrays(config, seed)
    native[key_maps.HEAD] = native[key_maps.EMBEDDING]
    arrays = {original_name(name): array for name, array in native.items()}
    return {**arrays, "image_projection": arrays["image_projection"].T}


def save_plain(
    folder: Path,
    weights: Mapping[str, Array] | None = None,
    *,
    config: Json = ORIGINAL,
    generation: Json | None = None,
    tokenizer: bool = True,
) -> Path:
    """Writes a checkpoint as Microsoft released its own, and returns ``folder``.

    Args:
        folder: Created if it is not there.
        weights: By the names they get; random ones of Microsoft's format by default.
        config: The content of config.json.
        generation: The content of generation_config.json; None for no such file.
        tokenizer: Whether tokenizer and preprocessing are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / "config.json", config)
    save_arrays(folder / "model.safetensors", weights or original_arrays(config))
    if generation is not None:
        save_json(folder / "generation_config.json", generation)
    if tokenizer:
        save_json(folder / "preprocessor_config.json", PREPROCESSING)
        make_tokenizer(folder, extra_tokens=False)
    return folder


def save_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


_TYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint8": "U8", "int8": "I8"}
_TYPES |= {"uint32": "U32", "int64": "I64"}


def save_arrays(
    path: Path, arrays: Mapping[str, Array], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file."""
    header: Json = {} if metadata is None else {"__metadata__": metadata}
    parts, at = [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        place = [at, at + len(data)]
        entry = {"dtype": _TYPES[str(array.dtype)], "shape": array.shape, "data_offsets": place}
        header[name] = entry
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def save_torch(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes a pytorch_model.bin of float32 or float16 values, as torch.save does."""
    kinds = {"float32": b"FloatStorage", "float16": b"HalfStorage"}
    program = b"\x80\x02}("
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, array) in enumerate(arrays.items()):
            values = np.ascontiguousarray(array)
            steps = [math.prod(values.shape[axis + 1 :]) for axis in range(values.ndim)]
            storage = b"(" + _string("storage") + b"ctorch\n" + kinds[str(values.dtype)] + b"\n"
            storage += _string(str(key)) + _string("cpu") + _number(values.size) + b"tQ"
            sizes = b"(" + b"".join(map(_number, values.shape)) + b"t"
            strides = b"(" + b"".join(map(_number, steps)) + b"t"
            hooks = b"\x89ccollections\nOrderedDict\n)R"
            program += _string(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
            program += storage + _number(0) + sizes + strides + hooks + b"tR"
            archive.writestr(f"archive/data/{key}", values.tobytes())
        archive.writestr("archive/data.pkl", program + b"u.")


def _string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)
