"""Tracing of a PyTorch module to an ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from florence_onnx_export.graphs.files import save_graph
from florence_onnx_export.graphs.specs import Axes, GraphSpec
from florence_onnx_export.modules.translations import TABLE

OPSET = 18
"""Newest operator set that every ONNX Runtime since 1.14 runs."""


_SMALL = 1 << 17
"""Number of values up to which the tracer reads a weight's values: the tracer merges equal weights
and drops a bias of zeros."""


def trace(spec: GraphSpec, path: Path) -> None:
    """Traces ``spec`` and writes the graph to ``path``; see `traced_model`."""
    save_graph(traced_model(spec), path)


def traced_model(spec: GraphSpec) -> onnx.ModelProto:
    """Traces ``spec``; the nodes of the graph do not depend on the values of weights."""
    program = traced_program(spec)
    program.apply_weights({name: p.data for name, p in spec.module.named_parameters()})
    model = program.model_proto
    model.producer_name, model.producer_version = "florence-onnx", ""
    _strip_traces(model.graph)
    for value, axes in zip(
        [*model.graph.input, *model.graph.output],
        [*spec.inputs.values(), *spec.outputs.values()],
        strict=True,
    ):
        _name_axes(value, axes)
    return model


def traced_program(spec: GraphSpec) -> torch.onnx.ONNXProgram:
    """Traces ``spec`` with placeholders for the weights."""
    dynamic = [_dynamic(axes) for axes in spec.inputs.values()]
    module = spec.module.eval()
    with _quiet(), _placeholders(module):
        program = torch.onnx.export(
            module,
            spec.arguments(spec.example(spec.sizes[0])),
            dynamic_shapes=spec.arguments(dynamic),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            opset_version=OPSET,
            custom_translation_table=TABLE,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {spec.name}")
    return program


@contextmanager
def _placeholders(module: torch.nn.Module) -> Iterator[None]:
    """Gives every weight different values inside the block, and restores the weights afterwards."""
    generator = torch.Generator().manual_seed(0)
    own = {name: parameter.data for name, parameter in module.named_parameters()}
    for parameter in module.parameters():
        shape = parameter.shape
        small = parameter.numel() <= _SMALL
        parameter.data = torch.rand(shape, generator=generator) + 1 if small else torch.empty(shape)
    try:
        yield
    finally:
        for name, parameter in module.named_parameters():
            parameter.data = own[name]


def _dynamic(axes: Axes) -> dict[int, object]:
    return {i: Dim.DYNAMIC for i, axis in enumerate(axes) if isinstance(axis, str)}


def _strip_traces(graph: onnx.GraphProto) -> None:
    """Removes the tracer's notes on source files, which differ between machines."""
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    graph.ClearField("value_info")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch of an If
                _strip_traces(attribute.g)


def _name_axes(value: onnx.ValueInfoProto, axes: Axes) -> None:
    for dim, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
        if isinstance(axis, str):
            dim.dim_param = axis


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides messages of the tracer about packages and shapes, which are no concern of the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
