"""Checks of the files of weights beside a graph, before ONNX Runtime reads the weights.

A graph may name any file as the file of weights. ONNX Runtime before 1.24 reads such a file in any
folder, so a model from a stranger could read secret files of the machine.
"""

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from florence_onnx.errors import ModelFileError
from florence_onnx.files import open_regular, refuse_lfs_pointer
from florence_onnx.protobuf import Bytes, ProtobufError, fields

MESSAGES: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        **{5: "TensorProto", 10: "TensorProto", 6: "GraphProto", 11: "GraphProto"},
        **{22: "SparseTensorProto", 23: "SparseTensorProto"},
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
"""Message of ONNX -> fields of the message that can hold a tensor, and the messages in these
fields."""

_EXTERNAL_DATA, _KEY, _VALUE = 13, 1, 2
_LOCATION = "location"
_SMALL = 1 << 16
"""Bytes of a message up to which a search for a word comes before parsing. Parsing takes ten times
as long, and most messages of a graph are nodes without any weights."""
_DEEPEST = 100  # protobuf's own limit
_MOST_FIELDS = 1 << 21  # The released models' largest graph has 60,000.


def check_external_data(graph: Path) -> None:
    """Checks that the weights of a graph are in the graph's file, or whole in files beside.

    The graph must name the files of weights without a folder. Links are followed, also a link that
    is the graph's file, because the hub's cache is made of links. Weights are beside the graph if
    they are in the folder of the link or in the folder of its target.

    Args:
        graph: The graph's file.

    Raises:
        ModelFileError: A file of weights is elsewhere, missing or too short, or the graph's file
            is damaged.
    """
    sizes: dict[str, int] = {}
    try:
        for entries in external_data(mapped(graph)):
            location = entries.get(_LOCATION, "")
            if location not in sizes:
                sizes[location] = _size(graph, location)
            end = _whole(entries, "offset") + _whole(entries, "length")
            if end > sizes[location]:
                raise ModelFileError(
                    f"{graph} is not a graph ONNX Runtime can run: its weights go up to byte {end} "
                    f"of {graph.with_name(location)}, which is {sizes[location]} bytes long; fetch "
                    "that file again"
                )
    except (OSError, ProtobufError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{graph} is not a graph ONNX Runtime can run: {error}; fetch or export the file again"
        ) from error


def mapped(path: Path) -> Bytes:
    """Maps the bytes of a file, so that only bytes in use are read."""
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return b""  # which cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def external_data(model: Bytes) -> Iterator[dict[str, str]]:
    """Finds the tensors of the whole model that lie in other files.

    Args:
        model: A ModelProto.

    Returns:
        For each such tensor the location and, where the model gives both, offset and length.

    Raises:
        ProtobufError: The bytes are not a model, or have more fields or levels than any has.
    """
    yield from _Walk().through(model, "ModelProto")


class _Walk:
    """Walk through the messages of a model that takes a bounded number of steps."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def through(self, message: Bytes, kind: str, depth: int = 0) -> Iterator[dict[str, str]]:
        """Finds the external data of a message of this kind."""
        if depth > _DEEPEST:
            raise ProtobufError(f"it is nested deeper than {_DEEPEST} levels")
        if len(message) < _SMALL and _LOCATION.encode() not in bytes(message):
            return
        entries: list[tuple[str, str]] = []
        for number, value in self._fields(message):
            if kind != "TensorProto":
                if number in MESSAGES[kind]:
                    yield from self.through(value, MESSAGES[kind][number], depth + 1)
            elif number == _EXTERNAL_DATA:
                entries.append(self._entry(value))
        if len(dict(entries)) < len(entries):
            raise ProtobufError("it says twice where a tensor lies")
        if entries:
            yield dict(entries)

    def _entry(self, message: Bytes) -> tuple[str, str]:
        found = dict(self._fields(message))
        try:
            key, value = (bytes(found.get(number, b"")).decode() for number in (_KEY, _VALUE))
        except UnicodeDecodeError:
            raise ProtobufError("it says where a tensor lies in what is no text") from None
        return key, value

    def _fields(self, message: Bytes) -> Iterator[tuple[int, Bytes]]:
        for field in fields(message):
            self._left -= 1
            if self._left < 0:
                raise ProtobufError(f"it has more than {_MOST_FIELDS} fields")
            if not isinstance(field.value, int):
                yield field.number, field.value


def _size(graph: Path, location: str) -> int:
    """Finds the size of the file that ``graph`` calls ``location``, which has to be beside."""
    pure = {PurePosixPath(location).name, PureWindowsPath(location).name}
    if pure != {location} or location in ("", ".", "..") or "\0" in location:
        raise ModelFileError(
            f"{graph} is not opened, because it reads weights from {location!r:.200}, which is not "
            "the name of a file in the graph's own folder"
        )
    path = graph.with_name(location)
    refuse_lfs_pointer(path, ModelFileError)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise OSError(f"its weights cannot be read: {error}") from error
    real = path.resolve()
    if real.parent not in (graph.parent.resolve(), graph.resolve().parent):
        raise ModelFileError(
            f"{graph} is not opened, because it reads weights from {location!r}, a link to {real}, "
            "which is in another folder than the graph; put the file itself there"
        )
    return size


def _whole(entries: Mapping[str, str], key: str) -> int:
    digits = entries.get(key, "0")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise ProtobufError(f"the {key} of weights is {digits!r:.80}, which is no number of bytes")
    return int(digits)
