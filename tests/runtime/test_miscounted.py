"""Numbers of pictures that are avoided on CUDA."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from florence_onnx import Florence2
from florence_onnx.engine import contract, halves
from florence_onnx.engine.miscounted import miscounted
from florence_onnx.engine.providers import CPU, CUDA
from florence_onnx.engine.sessions import Graphs
from florence_onnx.protobuf import content, number, whole_numbers
from florence_onnx.protobuf import fields as fields_of
from florence_onnx.resolver import DEMO

GROUPS = {2, 4, 6}
"""Groups of the demo model's channel attention, above 1."""


def test_the_groups_of_channel_attention_are_found() -> None:
    assert miscounted(DEMO / contract.graph_file(contract.VISION_ENCODER, "fp32")) >= GROUPS


def test_numbers_of_matrices_are_found(tmp_path: Path) -> None:
    packed = content(1, bytes([3, 5, 7]))
    single = number(1, 2) + number(1, 6) + number(1, 5) + number(1, 7)
    flat = number(1, 9) + number(1, 7)
    graph = b"".join(content(5, tensor) for tensor in (packed, single, flat))
    path = tmp_path / "graph.onnx"
    path.write_bytes(number(1, 8) + content(7, graph))
    assert miscounted(path) == {3, 12}


def test_packed_numbers_are_read() -> None:
    (field,) = fields_of(content(1, bytes([0x96, 0x01, 0x02])))
    assert whole_numbers(field) == [150, 2]


def given_counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pictures that graphs will be given."""
    counts: list[int] = []

    def counted(session: Any, file: str, values: dict[str, Any], names: list[str]) -> Any:
        counts.append(len(values["pixel_values"]))
        return halves.run(session, file, values, names)

    monkeypatch.setattr("florence_onnx.engine.sessions.run", counted)
    return counts


def opened() -> Graphs:
    return Florence2.load("demo", providers=["CPUExecutionProvider"], threads=1).graphs


@pytest.mark.parametrize("before", [[], ["TensorrtExecutionProvider"]])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_a_batch_on_cuda_has_another_number_of_pictures(
    count: int, before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second provider runs what the first leaves."""
    pixels = np.random.default_rng(0).standard_normal((count, 3, 64, 64), dtype=np.float32)
    expected = opened().image_features(pixels)
    counts, graphs = given_counts(monkeypatch), opened()
    names = [*before, CUDA, CPU]
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda session: names)
    found = graphs.image_features(pixels)
    assert counts == [count + (count in GROUPS)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_batch_on_the_cpu_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = given_counts(monkeypatch)
    opened().image_features(np.zeros((2, 3, 64, 64), np.float32))
    assert counts == [2]
