"""The files of a checkpoint's weights: safetensors or pytorch_model.bin, whole or sharded."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from florence_onnx.checkpoints.contents import WEIGHT_FILES
from florence_onnx.checkpoints.finding import shards
from florence_onnx.errors import CheckpointError
from florence_onnx.files import refuse_lfs_pointer


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint under the names they are stored with.

    Tensors are mapped from the files, so they are read when they are used.

    Raises:
        CheckpointError: There are no weights, or a file is missing, truncated or something else.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in _files(folder):
        weights |= _load_file(path)
    return weights


def _files(folder: Path) -> Iterator[Path]:
    found = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} holds no weights; looked for {', '.join(WEIGHT_FILES)}")
    if not found.endswith(".json"):
        yield folder / found
        return
    for name in shards(folder / found):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} does not exist, but {found} names it")
        yield folder / name


def _load_file(path: Path) -> dict[str, torch.Tensor]:
    refuse_lfs_pointer(path, CheckpointError)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only torch's newer format, a zip file, can be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except MemoryError:
        raise
    except Exception as error:  # on damaged files torch raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is truncated or not a file of PyTorch weights: {reason}"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path} is not a state dict: it holds more than named tensors")
    return content
