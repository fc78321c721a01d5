"""What 8 bits cost the demo model, and its tokens beside those of transformers."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import accuracy
from benchmarks.harness.common import DEMO
from florence_onnx.engine import contract
from florence_onnx.resolver import DEMO as SHIPPED
from florence_onnx_export import exporter
from florence_onnx_export.demo import make_demo
from florence_onnx_export.quantization.methods import SMOOTH
from florence_onnx_export.quantization.mixed import Measured
from florence_onnx_export.quantization.reference import Reference
from tests.helpers.exports import copied_graphs


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every run of the script finds the export and its 8-bit graphs, which are made here."""
    work = tmp_path_factory.mktemp("accuracy")
    measure(work, 1, "ours:fp32", "ours:q8", tasks=["CAPTION"])
    return work


def exported(work: Path) -> Path:
    """The model folder that the script has made."""
    (folder,) = (work / "demo").glob("export-*")
    return folder


def measure(work: Path, scenes: int, *sides: str, tasks: Sequence[str] = ()) -> dict[str, Any]:
    """What the script publishes about sides."""
    out = work / "accuracy.json"
    options = ["--work", str(work), "--out", str(out), "--scenes", str(scenes), "--beams", "3"]
    options += ["--threads", "1"]
    accuracy.main([*options, "--sides", *sides, *(["--tasks", *tasks] if tasks else [])])
    published: dict[str, Any] = json.loads(out.read_text())
    return published


def column(record: dict[str, Any], side: str) -> dict[str, float]:
    """Measure -> percent."""
    values = record["values"].items()
    return {title: sides[f"{side}, 3 beams"]["median"] for title, sides in values}


def test_tokens_are_those_of_transformers(work: Path) -> None:
    record = measure(work, 8, "ours:fp32", "transformers:fp32")
    assert record["notes"][-1] == (
        "transformers fp32, 3 beams: 120 of 120 answers (100.00%) have the same tokens as those of "
        "ours fp32. In 0 of the other 0 the search had a tie: two scores within 0.0001."
    )
    assert column(record, "transformers fp32") == column(record, "ours fp32")


def test_eight_bits_keep_the_accuracy(work: Path) -> None:
    """On forty scenes an answer is 2.5 points: three may fall otherwise, and on average none.

    What 8 bits cost each measure on hundreds of scenes is in benchmarks/README.md; long captions
    lose most.
    """
    record = measure(work, 40, "ours:fp32", "ours:q8")
    full, eight = column(record, "ours fp32"), column(record, "ours q8")
    assert np.mean([eight[title] - full[title] for title in full]) == pytest.approx(0, abs=1)
    for title, value in full.items():
        assert eight[title] == pytest.approx(value, abs=7.6), title


def test_smoothing_serves_a_trained_model(work: Path) -> None:
    folder = exported(work)
    reference = Reference(folder, 3)
    for graph, seen, unseen in ((contract.VISION_ENCODER, 0.9, 0.9), (contract.ENCODER, 0.7, 0.85)):
        held_out = reference.measured(graph)
        path = folder / contract.graph_file(graph, "fp32")
        own = Measured(path, held_out.feeds, held_out.outputs, partial(iter, held_out.feeds))
        for measured, gain in ((own, seen), (held_out, unseen)):
            plain, smooth = (
                measured.error(dict.fromkeys(measured.matmuls, method))
                for method in ("dynamic8", SMOOTH)
            )
            assert smooth < gain * plain


def test_only_the_tasks_asked_for(work: Path) -> None:
    record = measure(work, 2, "ours:fp32", tasks=["OD", "CAPTION"])
    assert list(record["values"]) == ["OD mAP@0.5", "OD mAP@[.5:.95]", "OD F1@0.5", "CAPTION exact"]
    assert record["notes"] == ["2 held-out scenes, every one asked OD, CAPTION."]


def test_the_shipped_model_is_that_of_the_checkpoint(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "trace", copied_graphs(exported(work)))
    make_demo(DEMO, tmp_path / "demo")
    for name in contract.ASSETS:
        assert (tmp_path / "demo" / name).read_text() == (SHIPPED / name).read_text()
    for graph in contract.GRAPHS:
        made, shipped = (
            onnx.load(folder / contract.graph_file(graph, "fp32")).graph
            for folder in (tmp_path / "demo", SHIPPED)
        )
        assert [node.op_type for node in made.node] == [node.op_type for node in shipped.node]
        for a, b in zip(made.initializer, shipped.initializer, strict=True):
            np.testing.assert_array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))


def test_the_shipped_model_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 10e6
