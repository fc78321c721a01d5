"""The exported graphs: their contract, sizes they were not traced at, and what validation sees."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.engine import contract
from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.specs import GraphSpec, Sizes, build_specs, picture_size
from florence_onnx_export.graphs.tracing import OPSET
from florence_onnx_export.graphs.validation import TOLERANCE, validate
from florence_onnx_export.weights import torch_weights
from tests.helpers.exports import Exported
from tests.helpers.kernels import empty_tensors, profiled

Array = npt.NDArray[Any]

LARGEST_DIFFERENCE = 1e-5
"""Of an output, relative to its largest value: ten float32 roundings per layer, not a mistake."""


@pytest.fixture(scope="module")
def specs(native: Exported) -> dict[str, GraphSpec]:
    """What the graphs of the native checkpoint were traced from, built anew."""
    checkpoint = read_checkpoint(native.checkpoint)
    return {spec.name: spec for spec in build_specs(checkpoint.config, torch_weights(checkpoint))}


def path_of(exported: Exported, graph: str) -> Path:
    return exported.folder / contract.graph_file(graph, "fp32")


def signature(exported: Exported, graph: str) -> dict[str, tuple[str, list[Any]]]:
    session = ort.InferenceSession(path_of(exported, graph), providers=["CPUExecutionProvider"])
    values = (*session.get_inputs(), *session.get_outputs())
    return {value.name: (value.type, value.shape) for value in values}


# The contract


def test_names_types_and_axes(native: Exported) -> None:
    """Of a model with a hidden size of 32, 2 decoder layers, 2 heads and 1425 tokens."""
    floats, ids = "tensor(float)", "tensor(int64)"
    assert signature(native, contract.VISION_ENCODER) == {
        "pixel_values": (floats, ["batch", 3, "height", "width"]),
        "image_features": (floats, ["batch", "image_tokens", 32]),
    }
    assert signature(native, contract.EMBED_TOKENS) == {
        "input_ids": (ids, ["batch", "tokens"]),
        "inputs_embeds": (floats, ["batch", "tokens", 32]),
    }
    cross = (floats, ["batch", 2, "sequence", 16])
    assert signature(native, contract.ENCODER) == {
        "attention_mask": (ids, ["batch", "sequence"]),
        "inputs_embeds": (floats, ["batch", "sequence", 32]),
        "last_hidden_state": (floats, ["batch", "sequence", 32]),
        "present.0.encoder.key": cross,
        "present.0.encoder.value": cross,
        "present.1.encoder.key": cross,
        "present.1.encoder.value": cross,
    }
    own = (floats, ["batch", 2, "slots", 16])
    assert signature(native, contract.DECODER) == {
        "encoder_attention_mask": (ids, ["batch", "sequence"]),
        "inputs_embeds": (floats, ["rows", 1, 32]),
        "position_ids": (ids, [1]),
        "cache_slots": (ids, ["batch", "beams"]),
        "cache_mask": ("tensor(bool)", ["batch", "beams", "slots"]),
        **{f"past_key_values.{i}.decoder.{kind}": own for i in (0, 1) for kind in ("key", "value")},
        **{
            f"past_key_values.{i}.encoder.{kind}": cross
            for i in (0, 1)
            for kind in ("key", "value")
        },
        "logits": (floats, ["rows", 1, 1425]),
        "topk_log_probs": (floats, ["rows", 64]),
        "topk_ids": (ids, ["rows", 64]),
        **{f"present.{name}": own for name in two_layers("decoder")},
    }


def two_layers(side: str) -> list[str]:
    return [f"{i}.{side}.{kind}" for i in (0, 1) for kind in ("key", "value")]


def test_the_names_of_the_hubs_exports_are_kept(original: Exported) -> None:
    """Those that other readers of Florence-2 on ONNX know; three decoder layers here."""
    names = {name for graph in contract.GRAPHS for name in signature(original, graph)}
    shared = {
        *("pixel_values", "image_features", "input_ids", "inputs_embeds", "attention_mask"),
        *("last_hidden_state", "encoder_attention_mask", "logits"),
    }
    for i in range(3):
        for kind in ("key", "value"):
            shared |= {f"past_key_values.{i}.decoder.{kind}", f"past_key_values.{i}.encoder.{kind}"}
            shared |= {f"present.{i}.decoder.{kind}", f"present.{i}.encoder.{kind}"}
    assert shared <= names
    assert not any(".3." in name for name in names)


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_the_files_are_sound_and_say_nothing_of_this_machine(native: Exported, graph: str) -> None:
    path = path_of(native, graph)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == OPSET
    assert not model.functions
    content = path.read_bytes()
    traces = [b"/root", b"/work", b"/home", b"/usr", b"site-packages", b".py", b'File "', b"line "]
    traces += [str(Path(__file__).parents[2]).encode(), str(native.checkpoint).encode()]
    assert [trace for trace in traces if trace in content] == []


def test_weights_are_stored_once(native: Exported) -> None:
    """A graph holds about its parameters, four bytes each, and little else."""
    for graph in contract.GRAPHS:
        model = onnx.load(path_of(native, graph))
        weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        large = [array for array in weights if array.size > 1000]
        assert all(array.dtype == np.float32 for array in large)
        assert len({array.tobytes() for array in large}) == len(large)


def test_no_result_is_larger_than_the_first_stage_itself(native: Exported, tmp_path: Path) -> None:
    """Its hidden layers, four times as wide, exist in parts only."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    path = path_of(native, contract.VISION_ENCODER)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"pixel_values": np.zeros((1, 3, 256, 256), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    sizes = {
        event["name"]: int(event["args"]["output_size"])
        for event in events
        if event["name"].endswith("_kernel_time")
    }
    vision = read_checkpoint(native.checkpoint).config.vision
    first = 4 * (256 // vision.patch_stride[0]) ** 2 * vision.embed_dim[0]
    assert max(sizes.values()) == first


# Sizes


@pytest.mark.parametrize(
    ("places", "rows", "columns"), [(50, 5, 7), (7, 5, 7), (6, 5, 6), (5, 4, 5), (3, 2, 3)]
)
def test_example_pictures_fit_the_table_of_positions(
    native: Exported, places: int, rows: int, columns: int
) -> None:
    vision = read_checkpoint(native.checkpoint).config.vision
    vision = replace(vision, max_position_embeddings=places, patch_stride=(4, 3, 2, 1))
    assert picture_size(vision, 5, 7) == (24 * rows, 24 * columns)


SIZES = {
    "smallest": Sizes(batch=1, beams=1, height=32, width=32, sequence=1, tokens=1, slots=1),
    "a batch": Sizes(batch=3, beams=3, height=64, width=64, sequence=11, tokens=7, slots=12),
    "wide": Sizes(batch=1, beams=5, height=64, width=288, sequence=160, tokens=90, slots=40),
    "tall": Sizes(batch=2, beams=1, height=352, width=32, sequence=30, tokens=2, slots=3),
    "nothing divides": Sizes(batch=2, beams=2, height=70, width=133, sequence=5, tokens=3, slots=7),
    "the longest row": Sizes(
        batch=1, beams=4, height=32, width=1600, sequence=8, tokens=1, slots=4
    ),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_any_size_equals_pytorch(
    native: Exported, specs: dict[str, GraphSpec], graph: str, sizes: Sizes
) -> None:
    spec = specs[graph]
    session = ort.InferenceSession(path_of(native, graph), providers=["CPUExecutionProvider"])
    example = spec.example(sizes)
    with torch.inference_mode():
        expected = spec.module(*spec.arguments(example))
    tensors = (expected,) if isinstance(expected, torch.Tensor) else expected
    feeds = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    found = dict(zip(spec.outputs, session.run(list(spec.outputs), feeds), strict=True))
    for name, tensor in zip(spec.outputs, tensors, strict=True):
        want = tensor.numpy()
        assert (found[name].shape, found[name].dtype) == (want.shape, want.dtype)
        if name != "topk_ids":
            difference = np.abs(found[name] - want).max()
            assert difference <= LARGEST_DIFFERENCE * np.abs(want).max(), name
    if "topk_ids" in found:
        log_probs = torch.log_softmax(torch.from_numpy(found["logits"][:, 0]), dim=-1).numpy()
        ids = found["topk_ids"]
        best = -np.sort(-log_probs, axis=1)[:, : ids.shape[1]]
        np.testing.assert_allclose(found["topk_log_probs"], best, atol=4e-6)
        np.testing.assert_allclose(np.take_along_axis(log_probs, ids, axis=1), best, atol=4e-6)
        assert all(len(set(row)) == len(row) for row in ids)


@pytest.mark.parametrize("kind", ["native", "original"])
@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_no_operator_gets_an_empty_tensor(
    graph: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Windows and tokens of a small picture are fewer than the parts that it is worked on in."""
    exported: Exported = request.getfixturevalue(kind)
    checkpoint = read_checkpoint(exported.checkpoint)
    specs = build_specs(checkpoint.config, torch_weights(checkpoint))
    (spec,) = (spec for spec in specs if spec.name == graph)
    session = profiled(path_of(exported, graph), tmp_path / "profile")
    one = Sizes(batch=1, beams=1, height=1, width=1, sequence=1, tokens=1, slots=1)
    two = Sizes(batch=1, beams=3, height=24, width=40, sequence=5, tokens=2, slots=4)
    for sizes in (one, two, *spec.sizes):
        example = spec.example(sizes)
        feeds = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
        session.run(None, feeds)
    assert empty_tensors(session) == []


def test_past_and_present_may_be_one_buffer(native: Exported, specs: dict[str, GraphSpec]) -> None:
    """A step then writes its keys and values in place."""
    spec = specs[contract.DECODER]
    session = ort.InferenceSession(path_of(native, spec.name), providers=["CPUExecutionProvider"])
    example = spec.example(SIZES["a batch"])
    feeds = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    expected = dict(zip(spec.outputs, session.run(list(spec.outputs), feeds), strict=True))
    binding = session.io_binding()
    # Kept, because a binding does not keep the arrays alive that its values lie in.
    values = {
        name: ort.OrtValue.ortvalue_from_numpy(a.copy(), "cpu", 0) for name, a in feeds.items()
    }
    shared = {}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
        if name.startswith("past_key_values.") and ".decoder." in name:
            shared[name.replace("past_key_values", "present")] = value
    for name in spec.outputs:
        if name in shared:
            binding.bind_ortvalue_output(name, shared[name])
        else:
            binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    for name, value in zip(spec.outputs, binding.get_outputs(), strict=True):
        np.testing.assert_array_equal(value.numpy(), expected[name], name)
    assert len(shared) == 4
    for name, value in shared.items():
        np.testing.assert_array_equal(value.numpy(), expected[name], name)


# Validation


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_what_was_exported_is_valid(
    native: Exported, specs: dict[str, GraphSpec], graph: str
) -> None:
    spec = specs[graph]
    checks = validate(spec, path_of(native, graph), "fp32")
    assert [check.output for check in checks] == [*spec.outputs] * len(spec.sizes)
    assert all(check.graph == graph for check in checks)
    assert max(check.max_rel_diff for check in checks) < LARGEST_DIFFERENCE
    assert len({check.shape for check in checks if check.output == checks[0].output}) == 2


def changed(exported: Exported, graph: str, out: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(path_of(exported, graph))
    change(model.graph)
    path = out / "changed.onnx"
    onnx.save_model(model, path)
    return path


def alter_weight(number: int, amount: float) -> Callable[[Any], None]:
    """Adds ``amount`` to one value of the ``number``-th weight, counted in order of size."""

    def change(graph: Any) -> None:
        weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        weights.sort(key=lambda tensor: (-int(np.prod(tensor.dims)), tensor.name))
        array = numpy_helper.to_array(weights[number]).copy()
        array.flat[array.size // 2] += amount
        weights[number].CopyFrom(numpy_helper.from_array(array, weights[number].name))

    return change


@pytest.mark.parametrize("amount", [0.5, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("graph", "number"),
    [
        (contract.VISION_ENCODER, 0),
        (contract.VISION_ENCODER, 20),
        (contract.ENCODER, 1),
        (contract.ENCODER, 5),
        (contract.DECODER, 0),
        (contract.DECODER, 4),
    ],
)
def test_an_altered_weight_is_noticed(
    native: Exported,
    specs: dict[str, GraphSpec],
    tmp_path: Path,
    graph: str,
    number: int,
    amount: float,
) -> None:
    path = changed(native, graph, tmp_path, alter_weight(number, amount))
    message = (
        rf"^{graph}: output '.*' at shape \(.*\) differs from PyTorch by .*; 0.0001 is allowed"
    )
    with pytest.raises(ValidationError, match=message):
        validate(specs[graph], path, "fp32")


def rename(graph: Any, name: str, other: str) -> None:
    """Renames a tensor wherever it occurs."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [other if found == name else found for found in names]
    for value in (*graph.input, *graph.output):
        value.name = other if value.name == name else value.name


@pytest.mark.parametrize(
    ("graph", "kind", "name"),
    [
        (contract.VISION_ENCODER, "output", "image_features"),
        (contract.EMBED_TOKENS, "input", "input_ids"),
        (contract.ENCODER, "output", "present.1.encoder.key"),
        (contract.DECODER, "input", "cache_slots"),
        (contract.DECODER, "output", "topk_ids"),
    ],
)
def test_another_name_is_noticed(
    native: Exported, specs: dict[str, GraphSpec], tmp_path: Path, graph: str, kind: str, name: str
) -> None:
    path = changed(native, graph, tmp_path, lambda content: rename(content, name, "renamed"))
    expected = rf"^{graph}: {kind} \('renamed', .* where the contract has \('{re.escape(name)}', "
    with pytest.raises(ValidationError, match=expected):
        validate(specs[graph], path, "fp32")


def test_outputs_that_have_changed_places_are_noticed(
    native: Exported, specs: dict[str, GraphSpec], tmp_path: Path
) -> None:
    def swap(graph: Any) -> None:
        rename(graph, "present.0.encoder.key", "held")
        rename(graph, "present.0.encoder.value", "present.0.encoder.key")
        rename(graph, "held", "present.0.encoder.value")
        outputs = {value.name: value for value in graph.output}
        ordered = [outputs[name] for name in specs[contract.ENCODER].outputs]
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in ordered]
        del graph.output[:]
        graph.output.extend(copies)

    path = changed(native, contract.ENCODER, tmp_path, swap)
    with pytest.raises(ValidationError, match=r"output 'present\.0\.encoder\.(key|value)'"):
        validate(specs[contract.ENCODER], path, "fp32")


@pytest.mark.parametrize("axis", ["B", 1])
def test_another_axis_is_noticed(
    native: Exported, specs: dict[str, GraphSpec], tmp_path: Path, axis: str | int
) -> None:
    def change(graph: Any) -> None:
        dim = graph.output[0].type.tensor_type.shape.dim[0]
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis

    path = changed(native, contract.VISION_ENCODER, tmp_path, change)
    with pytest.raises(ValidationError, match=r"output \('image_features', .* where the contract"):
        validate(specs[contract.VISION_ENCODER], path, "fp32")


def test_an_output_too_few_is_noticed(
    native: Exported, specs: dict[str, GraphSpec], tmp_path: Path
) -> None:
    path = changed(native, contract.ENCODER, tmp_path, lambda graph: graph.output.pop())
    with pytest.raises(ValidationError, match=r"output None where the contract has \('present\.1"):
        validate(specs[contract.ENCODER], path, "fp32")


class _Wrong(torch.nn.Module):
    """Gives PyTorch's answer in another form."""

    def __init__(self, module: torch.nn.Module, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module, self.change = module, change

    def forward(self, *inputs: Any) -> Any:
        return self.change(self.module(*inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * float("nan"), "differs from PyTorch by inf"),
        (lambda x: x[:, 1:], r"is float32\[2, 5, 32\] where PyTorch gives float32\[2, 4, 32\]"),
        (lambda x: x.double(), r"is float32\[2, 5, 32\] where PyTorch gives float64"),
        (
            lambda x: x * (1 + 2 * TOLERANCE["fp32"]),
            "differs from PyTorch by 0.0002 of its largest",
        ),
    ],
    ids=["NaN", "shape", "dtype", "scale"],
)
def test_pytorch_with_another_answer(
    native: Exported, specs: dict[str, GraphSpec], change: Callable[[Any], Any], message: str
) -> None:
    spec = specs[contract.EMBED_TOKENS]
    other = replace(spec, module=_Wrong(spec.module, change))
    with pytest.raises(ValidationError, match=message):
        validate(other, path_of(native, spec.name), "fp32")
