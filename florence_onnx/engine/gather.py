"""A one-operator graph that gathers from tensors where the provider keeps them.

When a request leaves the batch its keys and values have to go too, and when the cache is full it
has to grow; both may lie in device memory. The graph is a few hundred bytes of protobuf, written
out here because the runtime has no other use for the onnx package.
"""

FLOAT = 1
INT64 = 7
INT_ATTRIBUTE = 2


def gather_graph(count: int, rank: int, axis: int = 0, element_type: int = FLOAT) -> bytes:
    """A serialised ONNX model: ``out_i = take(data_i, indices, axis)`` for ``count`` tensors.

    Args:
        count: Number of tensors.
        rank: Number of axes of each.
        axis: The axis that ``indices`` select from.
        element_type: ONNX element type of each.

    Returns:
        A model with inputs ``indices`` int64 [n] and ``data_i``, and outputs ``out_i``.
    """
    graph = b""
    inputs = [_value("indices", INT64, 1)]
    attribute = _text(1, "axis") + _number(3, axis) + _number(20, INT_ATTRIBUTE)
    outputs = []
    for i in range(count):
        names = _text(1, f"data_{i}") + _text(1, "indices") + _text(2, f"out_{i}")
        graph += _bytes(1, names + _text(4, "Gather") + _bytes(5, attribute))
        inputs.append(_value(f"data_{i}", element_type, rank))
        outputs.append(_value(f"out_{i}", element_type, rank))
    graph += _text(2, "gather")
    graph += b"".join(_bytes(11, value) for value in inputs)
    graph += b"".join(_bytes(12, value) for value in outputs)
    opset = _text(1, "") + _number(2, 13)
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, opset)


def _value(name: str, element_type: int, rank: int) -> bytes:
    """A ValueInfoProto with unnamed dynamic axes."""
    shape = b"".join(_bytes(1, b"") for _ in range(rank))
    tensor = _number(1, element_type) + _bytes(2, shape)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
