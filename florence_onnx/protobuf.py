"""The wire format of protocol buffers, which ONNX graphs are stored in: read and written.

A message is a row of fields, each a number and a value: a whole number, or bytes that are text,
packed numbers or another message. The runtime does without the onnx package, which is large.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; the two others, of groups, are not in ONNX."""


Bytes = bytes | memoryview
"""Bytes of a message; of a view, nothing is copied."""


class ProtobufError(ValueError):
    """The bytes are not a message."""


class Field(NamedTuple):
    """A field of a message."""

    number: int
    """The number of the field."""
    value: int | Bytes
    """A whole number for wire type `VARINT`, else the bytes."""
    raw: Bytes
    """The whole field as it lies in the message."""


def fields(message: Bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
        ProtobufError: The bytes are not a message.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        if tag >> 32:  # Other readers drop these bits, and find another field than we would.
            raise ProtobufError(f"a field number of more than 29 bits at byte {start}")
        wire = tag & 7
        value: int | Bytes
        if wire == VARINT:
            value, at = _read_varint(message, at)
        else:
            if wire == BYTES:
                size, at = _read_varint(message, at)
            elif wire in (FIXED32, FIXED64):
                size = 4 if wire == FIXED32 else 8
            else:
                raise ProtobufError(f"wire type {wire} at byte {start}")
            value = message[at : at + size]
            if len(value) < size:
                raise ProtobufError(f"a field of {size} bytes at byte {start} is cut off")
            at += size
        yield Field(tag >> 3, value, message[start:at])


def number(field: int, value: int) -> bytes:
    """A field that is a whole number of at least 0."""
    return _varint(field << 3 | VARINT) + _varint(value)


def text(field: int, value: str) -> bytes:
    """A field that is text."""
    return content(field, value.encode())


def content(field: int, value: bytes) -> bytes:
    """A field that is bytes or a message."""
    return _varint(field << 3 | BYTES) + _varint(len(value)) + value


def change(message: bytes, path: tuple[int, ...], edit: Callable[[bytes], bytes]) -> bytes:
    """A message with the bytes of every field at ``path``, a number per level, replaced."""
    first, *rest = path

    def changed(field: Field) -> bytes:
        if field.number != first or isinstance(field.value, int):
            return bytes(field.raw)
        value = bytes(field.value)
        inner = change(value, tuple(rest), edit) if rest else edit(value)
        return content(first, inner)

    return b"".join(map(changed, fields(message)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: Bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ProtobufError("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ProtobufError("a number has more than 64 bits")
