"""Graph of one operator that gathers from tensors in the memory of a provider.

The keys and values of a request leave the cache with the request, and a full cache has to grow. A
cache may lie in device memory. The graph is a few hundred bytes of protobuf, which are written here
because the runtime has no other use for the onnx package.
"""

from florence_onnx.protobuf import content, number, text

FLOAT, FLOAT16 = 1, 10
INT64 = 7
INT_ATTRIBUTE = 2


def gather_graph(count: int, rank: int, axis: int = 0, kind: int = FLOAT) -> bytes:
    """Makes a serialised ONNX model: ``out_i = take(data_i, indices, axis)``.

    Args:
        count: Number of tensors.
        rank: Number of axes of each.
        axis: The axis that ``indices`` select from.
        kind: The element type of the tensors, by the number that ONNX gives the type.

    Returns:
        A model with inputs ``indices`` int64 [n] and ``data_i``, and outputs ``out_i``.
    """
    graph = b""
    inputs = [_value("indices", INT64, 1)]
    attribute = text(1, "axis") + number(3, axis) + number(20, INT_ATTRIBUTE)
    outputs = []
    for i in range(count):
        names = text(1, f"data_{i}") + text(1, "indices") + text(2, f"out_{i}")
        graph += content(1, names + text(4, "Gather") + content(5, attribute))
        inputs.append(_value(f"data_{i}", kind, rank))
        outputs.append(_value(f"out_{i}", kind, rank))
    graph += text(2, "gather")
    graph += b"".join(content(11, value) for value in inputs)
    graph += b"".join(content(12, value) for value in outputs)
    opset = text(1, "") + number(2, 13)
    return number(1, 8) + content(7, graph) + content(8, opset)


def _value(name: str, element_type: int, rank: int) -> bytes:
    """Makes a ValueInfoProto with unnamed dynamic axes."""
    shape = b"".join(content(1, b"") for _ in range(rank))
    tensor = number(1, element_type) + content(2, shape)
    return text(1, name) + content(2, content(1, tensor))
