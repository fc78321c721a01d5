"""Messages of protocol buffers, read and written."""

import random

import pytest

from florence_onnx.protobuf import ProtobufError, change, content, fields, number, text


def test_what_is_written_is_read() -> None:
    message = number(1, 300) + text(2, "name") + content(20, number(3, 1 << 63))
    found = [(field.number, field.value) for field in fields(message)]
    assert found == [(1, 300), (2, b"name"), (20, number(3, 1 << 63))]
    assert b"".join(field.raw for field in fields(message)) == message


def test_numbers_of_fixed_width() -> None:
    message = b"\x0d\x00\x00\x80\x3f" + b"\x11" + bytes(8)
    assert [field.value for field in fields(message)] == [b"\x00\x00\x80\x3f", bytes(8)]


def test_a_field_inside_a_field_is_changed() -> None:
    message = number(1, 8) + content(7, text(5, "a") + text(6, "kept") + text(5, "b"))
    changed = change(message, (7, 5), lambda value: value * 200)
    assert changed == number(1, 8) + content(
        7, text(5, "a" * 200) + text(6, "kept") + text(5, "b" * 200)
    )
    assert change(message, (7, 9), lambda value: b"") == message


@pytest.mark.parametrize(
    "message", [b"\x80", b"\x0a\x05abc", b"\x0b", b"\x08" + b"\xff" * 11, b"\x0d\x00"]
)
def test_what_is_no_message(message: bytes) -> None:
    with pytest.raises(ProtobufError):
        list(fields(message))


def test_damaged_messages_end_or_are_refused() -> None:
    whole = b"".join(text(n, "text" * n) + number(n, n**9) for n in range(1, 30))
    source = random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 3)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            assert b"".join(field.raw for field in fields(bytes(damaged))) == bytes(damaged)
        except ProtobufError:
            refused += 1
    assert refused > 100
