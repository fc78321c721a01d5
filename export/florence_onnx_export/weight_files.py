"""The files of a checkpoint's weights: safetensors or pytorch_model.bin, whole or sharded."""

import zipfile
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import torch
from safetensors.torch import load_file

from florence_onnx.checkpoints.contents import WEIGHT_FILES
from florence_onnx.errors import CheckpointError
from florence_onnx.files import read_json


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
    shards = read_json(folder / found, CheckpointError).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{folder / found} has no weight_map of weight names to file names")
    for name in sorted(set(shards.values())):
        # Windows rules know every separator and drive there is.
        if PureWindowsPath(name).name != name or name == "..":
            raise CheckpointError(f"{folder / found} names {name!r}, which is outside the folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} does not exist, but {found} names it")
        yield folder / name


def _load_file(path: Path) -> dict[str, torch.Tensor]:
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
