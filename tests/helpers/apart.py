"""Graphs whose weights lie in other files, made without the onnx package."""

from pathlib import Path

from florence_onnx.protobuf import Field, content, fields, number, text

GRAPH, INITIALIZER = 7, 5
NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 8, 9, 13, 14


def stored_apart(**entries: object) -> bytes:
    """The fields of a tensor whose values lie in a file: location, offset, length."""
    pairs = [text(1, key) + text(2, str(value)) for key, value in entries.items()]
    return b"".join(content(EXTERNAL_DATA, pair) for pair in pairs) + number(DATA_LOCATION, 1)


def move_weight(graph: Path, **entries: object) -> bytes:
    """Has the largest weight of a graph's file lie elsewhere, and returns its bytes.

    Args:
        graph: The file, rewritten.
        entries: What the graph says of the place; a missing length is that of the weight.
    """
    model = {field.number: field for field in fields(graph.read_bytes())}
    parts = list(fields(_bytes(model[GRAPH])))
    largest = max((part for part in parts if part.number == INITIALIZER), key=lambda p: len(p.raw))
    tensor = list(fields(_bytes(largest)))
    (values,) = (_bytes(field) for field in tensor if field.number == RAW_DATA)
    kept = b"".join(field.raw for field in tensor if field.number != RAW_DATA)
    moved = content(INITIALIZER, kept + stored_apart(**{"length": len(values), **entries}))
    inner = b"".join(moved if part is largest else part.raw for part in parts)
    others = b"".join(field.raw for field in model.values() if field.number != GRAPH)
    graph.write_bytes(others + content(GRAPH, inner))
    return values


def _bytes(field: Field) -> bytes:
    assert isinstance(field.value, bytes)
    return field.value
