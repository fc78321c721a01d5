"""Wire format of protocol buffers, the format of ONNX graphs: reading and writing.

A message is a row of fields. A field has a number and a value: a whole number, or bytes that are
text, packed numbers or another message. The runtime does not need the onnx package, which is large.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types. ONNX has no groups, so two types are missing here."""


Bytes = bytes | memoryview
"""Bytes of a message. A view is read without a copy."""


class ProtobufError(ValueError):
    """Signals bytes that are not a message."""


class Field(NamedTuple):
    """Field of a message."""

    number: int
    """Number of the field."""
    value: int | Bytes
    """Value: a whole number for wire type `VARINT`, else bytes."""
    raw: Bytes
    """Bytes of the whole field in the message."""


def fields(message: Bytes) -> Iterator[Field]:
    """Reads the fields of a message, in order.

    Raises:
        ProtobufError: The bytes are not a message.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        if tag >> 32:  # Other readers drop these bits, and would find another field.
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


def whole_numbers(field: Field) -> list[int]:
    """Reads the whole numbers of a field, one or a packed row of several.

    Raises:
        ProtobufError: The bytes are not such a row.
    """
    if isinstance(field.value, int):
        return [field.value]
    found, at = [], 0
    while at < len(field.value):
        value, at = _read_varint(field.value, at)
        found.append(value)
    return found


def number(field: int, value: int) -> bytes:
    """Writes a field with a whole number of at least 0."""
    return _varint(field << 3 | VARINT) + _varint(value)


def text(field: int, value: str) -> bytes:
    """Writes a field with text."""
    return content(field, value.encode())


def content(field: int, value: bytes) -> bytes:
    """Writes a field with bytes or a message."""
    return _varint(field << 3 | BYTES) + _varint(len(value)) + value


def change(message: bytes, path: tuple[int, ...], edit: Callable[[bytes], bytes]) -> bytes:
    """Replaces the bytes of every field of a message at ``path``, which has a number per level."""
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
