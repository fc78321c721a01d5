"""What a checkpoint's folder says or holds that its weights contradict."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.native import native_weights, tie
from florence_onnx.checkpoints.tensors import StoredTensor, equal
from florence_onnx.checkpoints.weights import present_weights, stored_weights
from florence_onnx.errors import CheckpointError

NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of weights by safetensors' names, and by those of config.json."""


def stored_type(weights: Mapping[str, StoredTensor]) -> str:
    """The type that most values have, as config.json would call it."""
    sizes: Counter[str] = Counter()
    for tensor in weights.values():
        sizes[tensor.dtype] += math.prod(tensor.shape)
    return NAMES[sizes.most_common(1)[0][0]]


def told_type(raw_config: Mapping[str, Any], weights: Mapping[str, StoredTensor]) -> list[str]:
    """A sentence where config.json says another type than the weights have."""
    stored = stored_type(weights)
    for field in ("dtype", "torch_dtype"):
        told = raw_config.get(field)
        if told in NAMES.values() and told != stored:
            return [f"config.json: {field} is {told}, but the weights are {stored}, which was read"]
    return []


def unread_weights(
    folder: Path, raw_config: dict[str, Any], weights: Mapping[str, StoredTensor]
) -> list[str]:
    """A sentence for every other set of weights in a folder that is not the one that was read.

    Args:
        folder: The checkpoint's folder.
        raw_config: The content of its config.json.
        weights: What was read, under native names.
    """
    read, *others = present_weights(folder) or [""]
    sentences = []
    for name in others:
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
