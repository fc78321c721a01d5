"""Writing of the files beside the graphs, from the files of a checkpoint."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from florence_onnx.assets.generation_files import generation_config, repair_ids
from florence_onnx.assets.reading import Assets
from florence_onnx.assets.tokenizer_files import write_tokenizer
from florence_onnx.checkpoints.config import ModelConfig, TextConfig
from florence_onnx.checkpoints.finding import AssetSource, has_tokenizer
from florence_onnx.errors import CheckpointError, ModelError
from florence_onnx.files import read_json, write_whole
from florence_onnx.generation.settings import OPTIONS, notes, shorten
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
"""Preprocessing of the released models, for settings that a checkpoint lacks."""

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
    folder: Path,
    config: ModelConfig,
    raw_config: Mapping[str, Any],
    out: Path,
    lender: AssetSource | None = None,
) -> list[str]:
    """Writes config.json, generation_config.json, preprocessor_config.json and the tokenizer.

    Args:
        folder: Folder of the checkpoint.
        config: Geometry of the checkpoint.
        raw_config: Content of the checkpoint's config.json.
        out: An existing folder.
        lender: Model whose tokenizer and preprocessing are taken where the checkpoint has none.

    Returns:
        A sentence for every repair, and for everything that was left out.

    Raises:
        CheckpointError: The checkpoint's files are missing, malformed, or do not fit its weights.
    """
    tokens, pixels, settings, taken = _places(folder, lender)
    rows = config.text.vocab_size
    tokenizer, repairs = write_tokenizer(tokens, out / "tokenizer.json", rows)
    written, more = _config(raw_config, config.text, tokenizer)
    repairs = [*taken, *repairs, *more]
    saved = _optional_json(settings / "generation_config.json")
    generation, more = generation_config(raw_config, saved, tokenizer)
    generation, cut = shorten(generation, config.text.max_position_embeddings)
    repairs += [*more, *cut, *notes(generation)]
    preprocessing, more = _preprocessor_config(pixels)
    repairs += more
    contents = {
        "config.json": written,
        "generation_config.json": generation,
        "preprocessor_config.json": preprocessing,
        "tokenizer_config.json": _tokenizer_config(tokens),
    }
    for name, content in contents.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_whole(out / name, text)
    try:
        Assets.read(out)  # A file that the runtime would refuse is refused here.
    except ModelError as error:
        raise CheckpointError(str(error)) from error
    return repairs


def _places(folder: Path, lender: AssetSource | None) -> tuple[Path, Path, Path, list[str]]:
    """Finds the folders of tokenizer, preprocessing and generation settings; notes foreign ones."""
    if lender is None:
        return folder, folder, folder, []
    taken = []
    tokens = pixels = folder
    if not has_tokenizer(folder):
        tokens = lender.folder
        taken.append(f"tokenizer.json was taken from {lender.source}")
    if _saved_preprocessing(folder) is None:
        pixels = lender.folder
        taken.append(f"preprocessor_config.json was taken from {lender.source}")
    # Settings without an own file are in config.json, so they come with config.json.
    told = os.path.lexists(folder / "config.json")
    return tokens, pixels, folder if told else lender.folder, taken


def _config(
    raw_config: Mapping[str, Any], geometry: TextConfig, tokenizer: Tokenizer
) -> tuple[dict[str, Any], list[str]]:
    """Makes config.json with the right ids and the text model's whole geometry, and no remote code.

    The file has no settings for generation. These are in generation_config.json, and some readers
    would otherwise read the settings of config.json.
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
    """Reads the preprocessing, which newer transformers save in processor_config.json."""
    processor = _optional_json(folder / "processor_config.json") or {}
    inside = processor.get("image_processor")
    if inside is None:
        return _optional_json(folder / "preprocessor_config.json")
    if not isinstance(inside, dict):
        raise CheckpointError(f"{folder / 'processor_config.json'}: image_processor is no object")
    return inside


def _task_tables() -> dict[str, dict[str, str]]:
    """Makes the tables of tasks that other readers of the hub's ONNX exports need."""
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
    # Other readers do not know the class names of newer transformers.
    return _TOKENIZER_CONFIG | config | {"tokenizer_class": "BartTokenizer"}


def _optional_json(path: Path) -> dict[str, Any] | None:
    # A link to nothing is no file that was left out.
    return read_json(path, CheckpointError) if os.path.lexists(path) else None
