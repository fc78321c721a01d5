"""Tensors of a safetensors file. The file has a length, a header in JSON, and the values."""

import json
import math
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.tensors import SIZES, StoredTensor
from florence_onnx.errors import CheckpointError

_LONGEST_HEADER = 10_000_000
"""Limit of the header in bytes. Headers of the released models have a hundredth of this limit; a
header in JSON takes fifty times its bytes in memory."""

_LONGEST_NAME = 200  # characters of a weight's name in messages
_MOST_AXES = 8


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Finds the place of every tensor in a file, by name.

    Raises:
        CheckpointError: The file is truncated, or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items()}
        _refuse_overlaps(tensors)
        return tensors
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file: {error}") from error


def _tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> StoredTensor:
    name = name[:_LONGEST_NAME]
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"{name} has values of type {dtype!r:.40}")
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError(f"{name} has a shape or a place that is not of whole numbers")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"{name} has {len(shape)} axes")
    if end - begin != math.prod(shape) * SIZES[dtype]:
        raise ValueError(f"{name} of shape {list(shape)} has {end - begin} bytes")
    if start + end > path.stat().st_size:
        raise ValueError(f"it ends before weight {name} does")
    return StoredTensor.dense(path, dtype, shape, start + begin)


def _refuse_overlaps(tensors: dict[str, StoredTensor]) -> None:
    """Refuses tensors that share bytes, as the safetensors library does."""
    end, before = 0, ""
    filled = (item for item in tensors.items() if 0 not in item[1].shape)
    for name, tensor in sorted(filled, key=lambda item: item[1].offset):
        if tensor.offset < end:
            one, other = (long[:_LONGEST_NAME] for long in (before, name))
            raise ValueError(f"{one} and {other} share bytes")
        end = tensor.offset + math.prod(tensor.shape) * SIZES[tensor.dtype]
        before = name
