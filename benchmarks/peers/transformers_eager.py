"""Peer with transformers' own model and processor on PyTorch.

A variant is the type of the weights, with transformers' usual attention (PyTorch's
scaled_dot_product_attention), or, with ``-eager`` behind the type, with attention in single
operators.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)

from benchmarks.harness.common import Picture, Setup
from benchmarks.peers import Answer
from florence_onnx.locating import UNGROUNDED_WORDS
from florence_onnx.tasks import AnswerKind

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
VARIANTS = (*DTYPES, *(f"{dtype}-eager" for dtype in DTYPES))


@dataclass(frozen=True)
class Transformers:
    """Florence-2 of transformers, used as documented there."""

    name: str
    """Name of the library and type of the weights."""
    model: Any
    """Model, a ``Florence2ForConditionalGeneration``."""
    processor: Any
    """Processor of the model, a ``Florence2Processor``."""

    def inputs(self, pictures: Sequence[Picture], task: str) -> Any:
        """Inputs of ``generate``, on the model's device and in the model's type."""
        images = [Image.fromarray(picture) for picture in pictures]
        batch = self.processor(text=[task] * len(images), images=images, return_tensors="pt")
        return batch.to(self.model.device, self.model.dtype)

    def parse(self, token_ids: Sequence[int], task: str, picture: Picture) -> dict[str, Any]:
        """Reads the answer from the tokens."""
        size = (picture.shape[1], picture.shape[0])
        (text,) = self.processor.batch_decode([token_ids], skip_special_tokens=False)
        parsed: dict[str, Any] = self.processor.post_process_generation(
            text=text, task=task, image_size=size
        )
        return parsed

    def answer(
        self, pictures: Sequence[Picture], task: str, tokens: int, beams: int
    ) -> list[Answer]:
        """See `Peer`."""
        with torch.inference_mode():
            found = self.model.generate(
                **self.inputs(pictures, task),
                num_beams=beams,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
            )
        rows = found.tolist()
        return [
            Answer(tuple(row), self.parse(row, task, picture))
            for row, picture in zip(rows, pictures, strict=True)
        ]


def open_peer(variant: str, setup: Setup) -> Transformers:
    """Opens the checkpoint."""
    torch.set_num_threads(setup.threads)
    dtype, _, attention = variant.partition("-")
    model: Any = Florence2ForConditionalGeneration.from_pretrained(
        setup.checkpoint, dtype=DTYPES[dtype], attn_implementation=attention or None
    )
    model.eval().to(setup.device)
    return Transformers(f"transformers {variant}", model, open_processor(setup.checkpoint))


def open_processor(checkpoint: Path) -> Any:
    """Makes the processor of a checkpoint from the tokenizer and the image processor."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    images: Any = CLIPImageProcessorPil.from_pretrained(checkpoint)
    stride = 1
    for factor in config["vision_config"]["patch_stride"]:
        stride *= factor
    height, width = images.size["height"], images.size["width"]
    images.image_seq_length = (height // stride) * (width // stride) + 1
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer = tokenizer_class(
        tokenizer_file=str(checkpoint / "tokenizer.json"),
        extra_special_tokens={"image_token": "<image>"},
        **special,
    )
    parsing: dict[str, dict[str, Any]] = {kind.value: {} for kind in AnswerKind}
    parsing[AnswerKind.GROUNDING.value]["banned_grounding_tokens"] = sorted(UNGROUNDED_WORDS)
    return Florence2Processor(images, tokenizer, post_processor_config=parsing)
