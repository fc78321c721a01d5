"""The files beside the graphs: everything about a checkpoint that the runtime reads."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from florence_onnx.assets.generation_files import generation_config, repair_ids, shorten
from florence_onnx.assets.reading import Assets
from florence_onnx.assets.tokenizer_files import write_tokenizer
from florence_onnx.checkpoints.config import ModelConfig, TextConfig
from florence_onnx.errors import CheckpointError, ModelError
from florence_onnx.files import read_json, write_whole
from florence_onnx.generation.settings import OPTIONS, notes
from florence_onnx.tasks import InputKind, Task
from florence_onnx.tokenizer import Tokenizer

RELEASED_PREPROCESSING: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 768, "width": 768},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""Preprocessing of the released models; a checkpoint's own settings go before these."""

_TOKENIZER_CONFIG: dict[str, Any] = {
    "model_max_length": 1024,
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def write_assets(
    folder: Path, config: ModelConfig, raw_config: Mapping[str, Any], out: Path
) -> list[str]:
    """Writes config.json, generation_config.json, preprocessor_config.json and the tokenizer.

    Args:
        folder: The checkpoint that is exported.
        config: The geometry of the checkpoint.
        raw_config: The content of the checkpoint's config.json.
        out: An existing folder.

    Returns:
        The repairs made: a sentence for everything that was wrong or left out.

    Raises:
        CheckpointError: The checkpoint's files are missing, malformed, or do not fit its weights.
    """
    tokenizer = write_tokenizer(folder, out / "tokenizer.json", config.text.vocab_size)
    written, repairs = _config(raw_config, config.text, tokenizer)
    saved = _optional_json(folder / "generation_config.json")
    generation, more = generation_config(raw_config, saved, tokenizer)
    repairs += more + shorten(generation, config.text.max_position_embeddings) + notes(generation)
    preprocessing, more = _preprocessor_config(folder)
    repairs += more
    contents = {
        "config.json": written,
        "generation_config.json": generation,
        "preprocessor_config.json": preprocessing,
        "tokenizer_config.json": _tokenizer_config(folder),
    }
    for name, content in contents.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(out / name, text)
    try:
        Assets.read(out)  # What the runtime would refuse is of no use to anybody.
    except ModelError as error:
        raise CheckpointError(str(error)) from error
    return repairs


def _config(
    raw_config: Mapping[str, Any], geometry: TextConfig, tokenizer: Tokenizer
) -> tuple[dict[str, Any], list[str]]:
    """config.json with right ids, the text model's geometry spelled out, and no remote code.

    Nor does it say how to generate: generation_config.json does, and readers would take what is
    said in both from either.
    """
    left_out = ("auto_map", *OPTIONS)
    config = {name: value for name, value in raw_config.items() if name not in left_out}
    text = {**(config.get("text_config") or {}), **asdict(geometry)}
    text = {name: value for name, value in text.items() if name not in left_out}
    repairs = repair_ids(config, "config.json", tokenizer)
    repairs += repair_ids(text, "config.json: text_config", tokenizer)
    config["text_config"] = text
    return config, repairs


def _preprocessor_config(folder: Path) -> tuple[dict[str, Any], list[str]]:
    repairs = []
    saved = _saved_preprocessing(folder)
    if saved is None:
        repairs.append(
            "preprocessor_config.json: the checkpoint has none; "
            "the size and constants of the released models are written"
        )
    config = RELEASED_PREPROCESSING | {
        name: value for name, value in (saved or {}).items() if value is not None
    }
    config.pop("auto_map", None)
    config["image_processor_type"] = "CLIPImageProcessor"
    config["processor_class"] = "Florence2Processor"
    return config | _task_tables(), repairs


def _saved_preprocessing(folder: Path) -> dict[str, Any] | None:
    """Newer transformers save it inside processor_config.json."""
    processor = _optional_json(folder / "processor_config.json") or {}
    inside = processor.get("image_processor")
    if inside is None:
        return _optional_json(folder / "preprocessor_config.json")
    if not isinstance(inside, dict):
        raise CheckpointError(f"{folder / 'processor_config.json'}: image_processor is no object")
    return inside


def _task_tables() -> dict[str, dict[str, str]]:
    """Tables by which other readers of the hub's ONNX exports know tasks."""
    return {
        "tasks_answer_post_processing_type": {t.value: t.answer_kind.value for t in Task},
        "task_prompts_without_inputs": {
            t.value: t.prompt for t in Task if t.input_kind is InputKind.NONE
        },
        "task_prompts_with_input": {
            t.value: t.prompt for t in Task if t.input_kind is not InputKind.NONE
        },
    }


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    saved = _optional_json(folder / "tokenizer_config.json") or {}
    config = {name: value for name, value in saved.items() if name != "auto_map"}
    # The class names of newer transformers are unknown to other readers.
    return _TOKENIZER_CONFIG | config | {"tokenizer_class": "BartTokenizer"}


def _optional_json(path: Path) -> dict[str, Any] | None:
    # A link to nothing is no file that was left out.
    return read_json(path, CheckpointError) if os.path.lexists(path) else None
