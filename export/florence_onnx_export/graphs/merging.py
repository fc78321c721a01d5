"""Merging of two decoders, for the first step and for later steps, into one graph with a switch.

transformers.js reads such a graph. Weights that both decoders have are stored once.
"""

from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from florence_onnx.engine.hub_contract import (
    FIRST_DECODER,
    LATER_DECODER,
    MERGED_DECODER,
    SWITCH,
)
from florence_onnx.engine.layouts import MERGED, SPLIT
from florence_onnx_export.graphs.files import load_graph, save_graph


def merge(first: onnx.ModelProto, later: onnx.ModelProto) -> onnx.ModelProto:
    """Makes a decoder that runs ``later`` where the switch is on, and ``first`` where it is off.

    The merged graph has the outputs of ``first``. The outputs that ``later`` lacks, the keys and
    values of the cross-attention, have no elements where the switch is on: a caller keeps the keys
    and values of the first step.
    """
    weights = _shared(first.graph, later.graph)
    inputs = {value.name: value for value in (*first.graph.input, *later.graph.input)}
    outputs = [value.name for value in first.graph.output]
    graph = helper.make_graph(
        [
            helper.make_node(
                "If",
                [SWITCH],
                outputs,
                name="first_or_later",
                then_branch=_branch(later.graph, "later", first.graph, weights),
                else_branch=_branch(first.graph, "first", first.graph, weights),
            )
        ],
        "decoder",
        [*inputs.values(), helper.make_tensor_value_info(SWITCH, TensorProto.BOOL, [1])],
        [_with_past_length(value, later.graph) for value in first.graph.output],
        list(weights.values()),
    )
    domains = {opset.domain: opset for opset in (*first.opset_import, *later.opset_import)}
    merged = helper.make_model(
        graph,
        opset_imports=list(domains.values()),
        ir_version=first.ir_version,
        producer_name=first.producer_name,
        functions=list({f.name: f for f in (*first.functions, *later.functions)}.values()),
    )
    merged.producer_version = ""
    return merged


def merge_decoders(folder: Path, precision: str, keep: bool) -> None:
    """Writes the merged decoder of a model folder.

    Args:
        folder: A folder with the two decoders.
        precision: Precision of the decoders.
        keep: Whether the files of the two decoders stay.
    """
    first, later = (SPLIT.path(folder, name, precision) for name in (FIRST_DECODER, LATER_DECODER))
    merged = merge(load_graph(first), load_graph(later))
    save_graph(merged, folder / MERGED.file(MERGED_DECODER, precision))
    if not keep:
        for graph in (FIRST_DECODER, LATER_DECODER):
            for path in SPLIT.parts(folder, graph, precision):
                path.unlink()


def _shared(first: onnx.GraphProto, later: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Weights to store outside both branches: all but different weights of one name."""
    made = {name for graph in (first, later) for node in graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in (*later.initializer, *first.initializer)}
    other = {tensor.name: tensor for tensor in later.initializer}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in made and other.get(name, tensor) == tensor
    }


def _branch(
    graph: onnx.GraphProto, name: str, whole: onnx.GraphProto, outer: Collection[str]
) -> onnx.GraphProto:
    """Makes a branch, which reads inputs and weights from outside and has ``whole``'s outputs."""
    own = {value.name for value in graph.output}
    nodes, outputs = list(graph.node), []
    for value in whole.output:
        kind = value.type.tensor_type.elem_type
        outputs.append(helper.make_tensor_value_info(value.name, kind, None))
        if value.name not in own:
            sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            nothing = helper.make_tensor(f"no_{value.name}", kind, sizes, [])
            nodes.append(helper.make_node("Constant", [], [value.name], value=nothing))
    kept = [tensor for tensor in graph.initializer if tensor.name not in outer]
    return helper.make_graph(nodes, name, [], outputs, kept)


def _with_past_length(value: onnx.ValueInfoProto, later: onnx.GraphProto) -> onnx.ValueInfoProto:
    """Takes the later steps' declaration of an output, with the past in the length."""
    return next((other for other in later.output if other.name == value.name), value)
