"""The folder of a trained model, in transformers' own format."""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx_export.training.steps import MEAN, STD


def save_folder(
    network: Florence2ForConditionalGeneration,
    tokenizer: Tokenizer,
    image_size: int,
    image_tokens: int,
    folder: Path,
) -> None:
    """Write weights (turned to float16), configuration, tokenizer, preprocessing and policy."""
    network.generation_config = generation_policy()
    network.half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    _write(folder / "preprocessor_config.json", _preprocessor(image_size, image_tokens))


def save_tuned(
    network: Florence2ForConditionalGeneration, checkpoint: Checkpoint, folder: Path
) -> None:
    """Write new weights, and everything else as the checkpoint they started from has it."""
    network.save_pretrained(folder)
    write_assets(checkpoint.folder, checkpoint.config, checkpoint.raw_config, folder)
    network.config.save_pretrained(folder)


def generation_policy() -> GenerationConfig:
    """Florence-2's, without its ban on repeated trigrams, which forbids right boxes."""
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
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Florence2Processor",
        "do_resize": True,
        "size": {"height": image_size, "width": image_size},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "image_seq_length": image_tokens,
    }


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
