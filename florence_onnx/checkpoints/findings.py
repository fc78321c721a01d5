"""Contradictions between the weights that were read and the other files of a checkpoint."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.contents import Contents
from florence_onnx.checkpoints.native import native_weights, tie
from florence_onnx.checkpoints.tensors import StoredTensor, equal
from florence_onnx.checkpoints.weights import present_weights, stored_weights
from florence_onnx.errors import CheckpointError

NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Name of a type of weights in safetensors -> name in config.json."""


def stored_type(weights: Mapping[str, StoredTensor]) -> str:
    """Type of most values, by the name in config.json."""
    sizes: Counter[str] = Counter()
    for tensor in weights.values():
        sizes[tensor.dtype] += math.prod(tensor.shape)
    return NAMES[sizes.most_common(1)[0][0]]


def told_type(raw_config: Mapping[str, Any], weights: Mapping[str, StoredTensor]) -> list[str]:
    """Sentence for the user where config.json names another type than the type of the weights."""
    if not weights:
        return []  # Missing weights are the better message.
    stored = stored_type(weights)
    for field in ("dtype", "torch_dtype"):
        told = raw_config.get(field)
        if isinstance(told, str) and told.removeprefix("torch.") not in ("auto", stored):
            return [
                f"config.json: {field} is {told:.40}, but the weights are {stored}, which was read"
            ]
    return []


def unread_weights(
    folder: Path, raw_config: dict[str, Any], weights: Mapping[str, StoredTensor]
) -> list[str]:
    """Compares the other weights in a folder with the weights that were read.

    Args:
        folder: The checkpoint's folder.
        raw_config: The content of the checkpoint's config.json.
        weights: The weights that were read, under native names.

    Returns:
        A sentence for every other set of weights that differs or cannot be read.
    """
    read, *_ = present_weights(folder) or [""]
    sentences = []
    for name in Contents.of_folder(folder).other_weights([read]):
        try:
            found, _, _ = native_weights(stored_weights(folder, name), raw_config)
            tie(found, ModelConfig.from_dict(raw_config))
        except CheckpointError as error:
            sentences.append(f"{read} was read, and not {name}, which could not be: {error}")
            continue
        different = _first_difference(weights, found)
        if different is not None:
            sentences.append(
                f"{read} was read, and not {name}, which is another model: {different} differs"
            )
    return sentences


def _first_difference(a: Mapping[str, StoredTensor], b: Mapping[str, StoredTensor]) -> str | None:
    for name in sorted({*a, *b}):
        if name not in a or name not in b or not equal(a[name], b[name]):
            return name
    return None
