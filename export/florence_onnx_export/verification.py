"""Comparison of a model folder's answers with transformers' answers for the checkpoint."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig

from florence_onnx import Florence2, GenerationPolicy, Request, Task
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.errors import CheckpointError
from florence_onnx.files import read_json
from florence_onnx.generation.rules import AnswerRules
from florence_onnx.generation.settings import is_unsaid
from florence_onnx.images.pixels import to_rgb
from florence_onnx.requests import Prepared
from florence_onnx.tasks import InputKind
from florence_onnx_export.agreement import Answers
from florence_onnx_export.graphs.reference import transformers_model
from florence_onnx_export.graphs.stages import image_features
from florence_onnx_export.weights import torch_weights

_TEXT = "a person"
"""Text for the tasks that take text, where the model has no caption for the picture."""


def compare(
    model: Florence2,
    checkpoint: Checkpoint,
    images: Sequence[Path],
    progress: Callable[[str], None] = lambda message: None,
) -> list[Answers]:
    """Asks every task about every picture, greedy and with the model's beams, on both sides.

    Transformers' model computes in float32 from the same pixel values, with the generation settings
    of the model folder. Tasks that take text get the caption of the picture. Tasks that take a
    region get the middle of the picture.

    Args:
        model: The opened model folder.
        checkpoint: The checkpoint from which the folder was made.
        images: Files of pictures.
        progress: Called with a line of text for every picture.
    """
    reference = _Reference(checkpoint)
    decode = model.assets.tokenizer.decode
    found = []
    for image in images:
        progress(f"asking {len(Task)} tasks about {image}")
        pixels = torch.from_numpy(model.assets.preprocessor(to_rgb(image)))[None]
        for task, request in _requests(model, image):
            prepared = model.prepare(request)
            for beams in sorted({1, model.policy.num_beams}):
                policy = model.policy.replace(num_beams=beams, num_return_sequences=1)
                result = model.answer(prepared, num_beams=beams, num_return_sequences=1)
                ours, theirs = result.token_ids, reference.answer(pixels, prepared, policy)
                texts = decode(ours), decode(theirs)
                found.append(Answers(task, image.name, beams, ours, theirs, texts))
    return found


def check_geometry(folder: Path, checkpoint: Checkpoint) -> None:
    """Refuses a model folder whose geometry is not that of a checkpoint.

    Raises:
        CheckpointError: The geometries differ.
    """
    exported = ModelConfig.from_dict(read_json(folder / "config.json"))
    for name in ("vision", "text"):
        if getattr(exported, name) != getattr(checkpoint.config, name):
            raise CheckpointError(
                f"{folder} and the checkpoint have different geometries ({name}_config); name the "
                "checkpoint that the folder was made of"
            )


def versions() -> dict[str, str]:
    """Versions of the packages that compute the answers."""
    packages = (onnxruntime, torch, transformers)
    return {package.__name__: str(package.__version__) for package in packages}


def _requests(model: Florence2, image: Path) -> Iterator[tuple[Task, Request]]:
    encoded = model.encode(image)
    caption = model(encoded, Task.CAPTION, num_beams=1).text.strip() or _TEXT
    width, height = encoded.size
    middle = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    for task in Task:
        text = caption if task.input_kind is InputKind.TEXT else None
        region = middle if task.input_kind is InputKind.REGION else None
        yield task, Request(encoded, task, text, region)


class _Reference:
    """Model of transformers for a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model: Any = transformers_model(checkpoint.config, torch_weights(checkpoint))

    @torch.inference_mode()
    def answer(
        self, pixels: Tensor, prepared: Prepared, policy: GenerationPolicy
    ) -> tuple[int, ...]:
        """Answers a prompt about pixel values [1,3,H,W] with ids, from start token to end."""
        count = image_features(self._model, pixels).shape[1]
        # Microsoft's checkpoints have no image token: any id that the prompt lacks will do.
        rows = self._model.get_input_embeddings().weight.shape[0]
        image = next(i for i in range(rows - 1, -1, -1) if i not in prepared.input_ids)
        self._model.config.image_token_id = image
        ids = torch.tensor([[image] * count + list(prepared.input_ids)])
        output = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            generation_config=GenerationConfig(**_options(policy)),
        )
        row = tuple(output[0].tolist())
        end = next((i for i, token in enumerate(row[1:], 1) if token in policy.ends), len(row) - 1)
        return row[: end + 1]


def _options(policy: GenerationPolicy) -> dict[str, Any]:
    """Turns a policy into options of transformers' ``GenerationConfig``."""
    ours = {field.name for field in dataclasses.fields(AnswerRules)}
    options = {}
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        value = _lists(value) if isinstance(value, tuple) else value
        if field.name in {*ours, "max_positions", "vocab_size"} or value == []:
            continue
        if not is_unsaid(field.name, value):
            options[field.name] = value
    if policy.num_beams == 1:  # Transformers warns about these options.
        options.pop("early_stopping", None)
        options.pop("length_penalty", None)
    return options


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value
