"""Tensors of a pytorch_model.bin: a zip file of a pickle and storages, or the older format."""

import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints.tensors import SIZES, StoredTensor
from florence_onnx.checkpoints.torch_pickle import RefusedPickleError, View, load_pickle
from florence_onnx.errors import CheckpointError

_LARGEST_PICKLE = 10_000_000
"""Limit of a pickle in bytes. Pickles of the released models have a fiftieth of this limit."""
_DAMAGED = (
    zipfile.BadZipFile,
    ValueError,
    LookupError,
    NotImplementedError,
    OverflowError,
    EOFError,
    struct.error,
)
"""Errors that this module and zipfile raise for a damaged file."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""Number at the beginning of a file in the older format."""
_PROTOCOL = 1001


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Finds the place of every tensor in a file, by name. No code of the file is run.

    Raises:
        CheckpointError: The file is truncated, or holds other objects than named tensors.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size == 0:
                raise RefusedPickleError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                is_zip = data[:2] == b"PK"
                content, places = _read_zip(path, data) if is_zip else _read_old(data)
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path} is truncated or not a file of PyTorch weights: {error}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if type(content) is not dict or not all(
        type(name) is str and type(view) is View for name, view in content.items()
    ):
        raise CheckpointError(f"{path} is not a state dict: it holds more than named tensors")
    return {name: _tensor(path, name, view, places) for name, view in content.items()}


def _read_zip(path: Path, data: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Reads the object of a file, and the start and end of the bytes of each storage."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedPickleError("it is a zip file, but not one of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        members = {info.filename: info for info in archive.infolist()}
        order = members.get(f"{root}byteorder")
        if order is not None and _member(data, order)[:6] != b"little":
            raise RefusedPickleError("its values are big-endian")
        if members[pickles[0]].file_size > _LARGEST_PICKLE:
            raise RefusedPickleError("its pickle is too large")
        content, _ = load_pickle(_member(data, members[pickles[0]]))
        places = {
            name.removeprefix(f"{root}data/"): _place(data, info)
            for name, info in members.items()
            if name.startswith(f"{root}data/")
        }
    return content, places


def _member(data: mmap.mmap, info: zipfile.ZipInfo) -> bytes:
    start, end = _place(data, info)
    return data[start:end]


def _place(data: mmap.mmap, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Finds the bytes of a member of the zip file. torch.save does not compress members."""
    header = data[info.header_offset : info.header_offset + 30]
    if info.compress_type != zipfile.ZIP_STORED or header[:4] != b"PK\3\4":
        raise RefusedPickleError("it is a zip file, but not one of torch.save")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > len(data):
        raise RefusedPickleError("it ends too early")
    return start, start + info.file_size


def _read_old(data: mmap.mmap) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Reads the older format: five pickles, then the storages in the order of the last pickle."""
    head, at = data[:_LARGEST_PICKLE], 0
    magic, at = load_pickle(head, at)
    protocol, at = load_pickle(head, at)
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise RefusedPickleError("it does not begin as such files do")
    _, at = load_pickle(head, at)  # Sizes of the types on the machine that wrote the file.
    content, at = load_pickle(head, at)
    keys, at = load_pickle(head, at)
    if type(content) is not dict or type(keys) is not list:
        return content, {}
    storages = {view.storage.key: view.storage for view in content.values() if type(view) is View}
    places = {}
    for key in keys:
        storage = storages.get(key) if type(key) is str else None
        if storage is None or int.from_bytes(data[at : at + 8], "little") != storage.count:
            raise RefusedPickleError("its storages do not fit its tensors")
        start = at + 8
        at = start + storage.count * SIZES[storage.dtype]
        places[key] = (start, at)
    if at > len(data):
        raise RefusedPickleError("it ends too early")
    return content, places


def _tensor(
    path: Path, name: str, view: View, places: Mapping[str, tuple[int, int]]
) -> StoredTensor:
    storage = view.storage
    start, end = places.get(storage.key, (0, 0))
    size = SIZES[storage.dtype]
    if end - start < storage.count * size:
        raise CheckpointError(f"{path} is truncated: the values of weight {name} are not all there")
    offset = start + view.offset * size
    return StoredTensor(path, storage.dtype, view.shape, view.strides, offset)
