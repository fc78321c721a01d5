"""Folder of a training run, with the folder of the model in transformers' own format."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from florence_onnx.assets.ownership import check_apart, digests, listed_names, written_files
from florence_onnx.assets.writing import RELEASED_PREPROCESSING, write_assets
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.files import read_json, write_whole
from florence_onnx.staging import check_places, finish_replacement, staged_folder, work_folder

MODEL = "model"
"""Name of the model's folder inside the folder of the run."""

REPORT = "training_report.json"
"""Name of the file that lists the files of a trained model."""


@contextmanager
def run_folder(out: Path, checkpoint: str | None = None) -> Iterator[Path]:
    """Checks and makes the folder of a run; yields a folder inside for unfinished files.

    Args:
        out: Folder of the run. No other process can use the folder at the same time.
        checkpoint: The checkpoint to fine-tune.

    Raises:
        OutputExistsError: The model cannot be written to the folder.
        ExportError: Another process uses the folder.
    """
    model = out / MODEL
    if model.exists():
        trained_files(model)
        if checkpoint is not None:
            check_apart(model, checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    with work_folder(out) as unfinished:
        yield unfinished


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder, whose files are moved to ``folder`` when the block succeeds.

    The files of an earlier training are replaced. Other files stay.

    Raises:
        OutputExistsError: No training has written what is in ``folder``.
    """
    with staged_folder(folder, trained_files) as staging:
        yield staging
        files = [path for path in staging.rglob("*") if path.is_file()]
        _write(staging / REPORT, {"files": digests(staging, files)})


def trained_files(folder: Path) -> set[str]:
    """Returns the files that a training wrote, as relative paths; none for an empty folder.

    Raises:
        OutputExistsError: A training did not write the files in ``folder``, or a file was changed.
    """
    finish_replacement(folder)
    if (folder / REPORT).exists():
        listed = read_json(folder / REPORT, InputError).get("files")
        ours = written_files(listed, folder) | {REPORT}
        check_places(folder, listed_names(listed), ours)
        return ours
    if not folder.is_dir() or any(folder.iterdir()):
        raise OutputExistsError(
            f"{folder} is no model that a training wrote; move it, or choose another output folder"
        )
    return set()


def save_folder(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    image_size: int,
    image_tokens: int,
    folder: Path,
) -> None:
    """Writes weights in float16, configuration, tokenizer, preprocessing and policy."""
    network.generation_config = generation_policy()
    network.half().save_pretrained(folder)
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    _write(folder / "preprocessor_config.json", _preprocessor(image_size, image_tokens))


def save_tuned(
    network: Florence2ForConditionalGeneration, checkpoint: Checkpoint, folder: Path
) -> None:
    """Writes new weights, and the other files as in the checkpoint that was fine-tuned."""
    network.save_pretrained(folder)
    write_assets(checkpoint.folder, checkpoint.config, checkpoint.raw_config, folder)
    network.config.save_pretrained(folder)


def generation_policy() -> GenerationConfig:
    """Makes Florence-2's policy without the ban on repeated trigrams, which forbids right boxes."""
    return GenerationConfig(
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
        num_beams=3,
        early_stopping=True,
        max_new_tokens=256,
    )


_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "extra_special_tokens": {"image_token": "<image>"},
    "clean_up_tokenization_spaces": False,
    "model_max_length": 1024,
}


def _preprocessor(image_size: int, image_tokens: int) -> dict[str, object]:
    return RELEASED_PREPROCESSING | {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Florence2Processor",
        "size": {"height": image_size, "width": image_size},
        "do_center_crop": False,
        "image_seq_length": image_tokens,
    }


def _write(path: Path, content: dict[str, object]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")
