"""The runtime looks for external data wherever ONNX has tensors."""

import onnx
from google.protobuf.descriptor import Descriptor

from florence_onnx.engine.external_data import MESSAGES


def messages(kind: Descriptor, found: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    """Name of a message and of all it can hold -> its fields, and the messages these hold."""
    if kind.name not in found:
        held = {field.number: field.message_type for field in kind.fields if field.message_type}
        found[kind.name] = {number: inner.name for number, inner in held.items()}
        for inner in held.values():
            messages(inner, found)
    return found


def test_every_field_that_leads_to_a_tensor_is_known() -> None:
    held = messages(onnx.ModelProto.DESCRIPTOR, {})
    leading = {"TensorProto"}
    while more := {kind for kind in held if leading & set(held[kind].values())} - leading:
        leading |= more
    assert {
        kind: {number: inner for number, inner in held[kind].items() if inner in leading}
        for kind in leading - {"TensorProto"}
    } == MESSAGES
