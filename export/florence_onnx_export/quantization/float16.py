"""Graphs that compute in float16, with float32 inputs and outputs."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FLOAT: int = TensorProto.FLOAT
_HALF: int = TensorProto.FLOAT16

_EXACT = {"LogSoftmax", "TopK", "ScatterND"}
"""Operators that stay in float32. LogSoftmax and TopK decide between candidates that are close.
ScatterND writes into the cache, which is the same float32 buffer at every step."""

_NO_FLOAT = {"Shape", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And"}
"""Operators whose results are not floating-point."""

_LARGEST = float(np.finfo(np.float16).max)


def to_half(model: onnx.ModelProto) -> None:
    """Turns a float32 model into a float16 model, except for operators that need float32.

    ``onnxruntime.transformers.float16`` cannot do this: between two operators that stay in float32
    there, values still pass through float16, in which sums over a picture overflow.
    """
    graph = model.graph
    exact = _token_sums(graph) | _logits(graph)
    exact |= {n.name for n in graph.node if n.op_type in _EXACT}
    _Halving(graph, exact).run()


def _token_sums(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes from x^T x, which sums over all tokens of a picture, to the softmax."""
    makers = {output: node for node in graph.node for output in node.output}
    names: set[str] = set()
    for softmax in (node for node in graph.node if node.op_type == "Softmax"):
        before = _before(softmax, makers)
        if any(_is_gram(node, makers) for node in before):
            names |= {node.name for node in before}
    return names


def _logits(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that make the logits of candidates, and of the nodes that read these.

    Numbers above 16 are 1/64 apart in float16, and the logits of two locations often less. A graph
    without LogSoftmax, for transformers.js, has no such nodes: a head in float32 has more bytes
    than WebGPU allows a buffer without being asked (128 MiB).
    """
    scored = {node.input[0] for node in graph.node if node.op_type == "LogSoftmax"}
    return {node.name for node in graph.node if scored & {*node.output, *node.input}}


def _before(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes on which a node depends, back to the layer normalisation, and the node itself."""
    found: dict[str, onnx.NodeProto] = {}
    queue = [node]
    while queue:
        current = queue.pop()
        if current.name not in found and current.op_type not in ("LayerNormalization", "Shape"):
            found[current.name] = current
            queue += [makers[name] for name in current.input if name in makers]
    return list(found.values())


def _is_gram(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    if node.op_type != "MatMul" or node.input[0] not in makers:
        return False
    transpose = makers[node.input[0]]
    return transpose.op_type == "Transpose" and transpose.input[0] == node.input[1]


class _Halving:
    """Conversion of one graph, node by node."""

    def __init__(self, graph: onnx.GraphProto, exact: set[str]) -> None:
        self._graph = graph
        self._exact = exact
        self._nodes: list[onnx.NodeProto] = []
        inputs = [v.name for v in graph.input if v.type.tensor_type.elem_type == _FLOAT]
        self._forms = {name: {_FLOAT: name} for name in inputs}
        """Floating-point value -> type -> name of the value in this type."""
        for tensor in graph.initializer:
            if tensor.data_type == _FLOAT:
                values = np.clip(numpy_helper.to_array(tensor), -_LARGEST, _LARGEST)
                half = numpy_helper.from_array(values.astype(np.float16), tensor.name)
                tensor.CopyFrom(half)
                self._forms[tensor.name] = {_HALF: tensor.name}

    def run(self) -> None:
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            kind = _FLOAT if node.name in self._exact else _HALF
            floating = self._gives_float(node)
            self._take_inputs(node, kind)
            self._nodes.append(node)
            for index, name in enumerate(node.output if floating else []):
                if node.op_type == "TopK" and index == 1:
                    continue  # the ids of the candidates
                self._forms[name] = {kind: name}
                if name in outputs and kind == _HALF:
                    node.output[index] = f"{name}_half"
                    self._forms[name] = {kind: f"{name}_half"}
                    self._nodes.append(_cast(f"{name}_half", name, _FLOAT))
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)

    def _gives_float(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _NO_FLOAT:
            return False
        if node.op_type == "Cast":
            return node.attribute[0].i == _FLOAT
        if node.op_type == "If":
            branch = node.attribute[0].g.node
            return any(name in self._forms for inner in branch for name in inner.input)
        return node.input[1 if node.op_type == "Where" else 0] in self._forms

    def _take_inputs(self, node: onnx.NodeProto, kind: int) -> None:
        """Makes a node and its branches read and compute this type."""
        for index, name in enumerate(node.input):
            if name in self._forms:
                node.input[index] = self._as(name, kind)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == _FLOAT:
                attribute.i = kind
            if attribute.HasField("g"):
                self._convert_branch(attribute.g, kind)

    def _convert_branch(self, branch: onnx.GraphProto, kind: int) -> None:
        for node in branch.node:
            self._take_inputs(node, kind)
        del branch.value_info[:]
        for value in branch.output:
            if value.type.tensor_type.elem_type == _FLOAT:
                value.type.tensor_type.elem_type = kind

    def _as(self, name: str, kind: int) -> str:
        """Name of a value in this type. A value of another type is cast."""
        forms = self._forms[name]
        if kind not in forms:
            (source,) = forms.values()
            forms[kind] = f"{name}_half" if kind == _HALF else f"{name}_float"
            self._nodes.append(_cast(source, forms[kind], kind))
        return forms[kind]


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=kind)
