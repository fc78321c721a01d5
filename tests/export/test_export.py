"""The exporter as a whole: what it writes and says, and what is left when it fails."""

import copy
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from florence_onnx import Florence2, exporting
from florence_onnx.assets.report import REPORT
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.errors import (
    CheckpointError,
    ExportError,
    ModelNotFoundError,
    OutputExistsError,
    PrecisionError,
    ValidationError,
)
from florence_onnx_export import exporter
from florence_onnx_export.exporter import export
from florence_onnx_export.graphs import tracing
from florence_onnx_export.graphs.reference import compare_with_transformers, transformers_model
from florence_onnx_export.graphs.specs import GraphSpec, build_specs
from florence_onnx_export.weights import torch_weights
from tests.helpers.checkpoints import save_native, save_original
from tests.helpers.exports import Exported, copied_graphs
from tests.helpers.kills import modes, usual_mode
from tests.helpers.tiny import picture


@pytest.fixture
def no_tracing(native: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes graphs from the export that the tests share, which saves most of a minute."""
    monkeypatch.setattr(exporter, "trace", copied_graphs(native.folder))


@pytest.fixture
def checkpoint(native: Exported, tmp_path: Path) -> Path:
    """A copy that a test may damage; the export's folder is beside it."""
    return Path(shutil.copytree(native.checkpoint, tmp_path / "checkpoint"))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# What is written


@pytest.mark.parametrize("name", ["native", "original"])
def test_the_folder_holds_what_the_runtime_reads(request: pytest.FixtureRequest, name: str) -> None:
    exported: Exported = request.getfixturevalue(name)
    graph_files = {contract.graph_file(graph, "fp32") for graph in contract.GRAPHS}
    assert files(exported.folder) == {*contract.ASSETS, *graph_files, REPORT}
    assert files(exported.folder.parent) == {
        *(f"checkpoint/{file}" for file in files(exported.checkpoint)),
        *(f"model/{file}" for file in files(exported.folder)),
    }, "nothing is left beside it"


def test_files_take_the_umask(native: Exported, tmp_path: Path) -> None:
    assert modes(native.folder) == {usual_mode(tmp_path)}


def test_the_report_lists_the_files(native: Exported) -> None:
    listed = native.report["files"]
    assert listed.keys() == files(native.folder) - {REPORT}
    for name, digest in listed.items():
        assert hashlib.sha256((native.folder / name).read_bytes()).hexdigest() == digest


def test_the_report(native: Exported, original: Exported) -> None:
    for exported in (native, original):
        report = exported.report
        assert json.loads((exported.folder / REPORT).read_text()) == json.loads(json.dumps(report))
        assert report["checkpoint"] == str(exported.checkpoint)
        assert report["versions"]["torch"] == torch.__version__
        assert report["versions"]["onnxruntime"] == onnxruntime.__version__
        assert set(report["versions"]) == {
            *("python", "florence-onnx", "torch", "transformers", "onnx", "onnxscript"),
            "onnxruntime",
        }
        onnx_folder = exported.folder / "onnx"
        assert report["bytes"] == {p.name: p.stat().st_size for p in onnx_folder.iterdir()}
        assert report["opset"] == tracing.OPSET
        assert report["tolerance"] == {"fp32": 1e-4}
        steps = ["read", "compare", *(f"{graph} fp32" for graph in contract.GRAPHS)]
        assert list(report["seconds"]) == steps
        assert all(seconds >= 0 for seconds in report["seconds"].values())
        stored = {t.data_ptr(): t.numel() for t in exported.model.state_dict().values()}
        assert report["parameters"] == sum(stored.values())
    assert (native.report["format"], original.report["format"]) == ("native", "original")


def test_the_report_tells_how_far_every_output_is_from_pytorch(native: Exported) -> None:
    modules = native.report["modules_against_transformers"]
    assert set(modules) == set(contract.GRAPHS)
    assert max(modules.values()) < 1e-5
    checks = native.report["graphs_against_pytorch"]
    for graph in contract.GRAPHS:
        session = onnxruntime.InferenceSession(
            native.folder / contract.graph_file(graph, "fp32"), providers=["CPUExecutionProvider"]
        )
        outputs = [value.name for value in session.get_outputs()]
        assert [check["output"] for check in checks if check["graph"] == graph] == outputs * 2
    for check in checks:
        assert check.keys() == {
            "graph",
            "output",
            "shape",
            "max_abs_diff",
            "max_rel_diff",
            "pytorch_rel_diff",
        }
        assert check["max_rel_diff"] < 1e-5


def test_progress_is_told_before_every_long_step(native: Exported) -> None:
    assert [line for line in native.progress if not line.startswith("note: ")] == [
        f"reading {native.checkpoint}",
        "comparing the export modules with transformers",
        *(f"tracing and validating {graph}.onnx" for graph in contract.GRAPHS),
    ]
    assert len(native.progress) == 6 + len(native.report["repairs"])


def test_both_formats_of_the_same_weights_are_the_same_graphs(
    native: Exported, tmp_path: Path
) -> None:
    """The same modules with the same weights, bit for bit; tracing is blind to the format."""
    original = read_checkpoint(save_original(native.model, tmp_path / "original"))
    ours = read_checkpoint(native.checkpoint)
    assert (ours.format, original.format) == ("native", "original")
    assert ours.config == original.config
    for a, b in zip(
        build_specs(ours.config, torch_weights(ours)),
        build_specs(original.config, torch_weights(original)),
        strict=True,
    ):
        assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
        states = a.module.state_dict(), b.module.state_dict()
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            assert torch.equal(tensor, states[1][name]), name


@pytest.mark.usefixtures("no_tracing")
def test_both_formats_of_the_same_weights_answer_equally(native: Exported, tmp_path: Path) -> None:
    """The graphs of one are valid for the other, and so are the asset files."""
    checkpoint = save_original(native.model, tmp_path / "original")
    report = export(checkpoint, tmp_path / "model")
    assert report["format"] == "original"
    ours, theirs = Florence2.load(native.folder), Florence2.load(tmp_path / "model")
    assert ours.policy == theirs.policy
    for task in ("od", "caption"):
        assert ours(picture(1), task, max_new_tokens=30) == theirs(
            picture(1), task, max_new_tokens=30
        )


@pytest.mark.usefixtures("no_tracing")
def test_graphs_of_slightly_other_weights_are_not_valid(native: Exported, tmp_path: Path) -> None:
    """The weights rounded to fp16, as checkpoints store them; the graphs hold them unrounded."""
    checkpoint = save_native(native.model, tmp_path / "half", dtype=torch.float16)
    with pytest.raises(ValidationError, match=r"^vision_encoder: output 'image_features'"):
        export(checkpoint, tmp_path / "model")


@pytest.mark.usefixtures("no_tracing")
def test_repairs_are_told_and_reported(native: Exported, checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "generation_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}))
    progress: list[str] = []
    report = export(checkpoint, tmp_path / "model", progress=progress.append)
    wrong = set(report["repairs"]) - set(native.report["repairs"])
    assert len(wrong) == 3
    assert all(f"note: {repair}" in progress for repair in wrong)
    assert Florence2.load(tmp_path / "model").policy == Florence2.load(native.folder).policy


def test_a_bias_on_the_logits(native: Exported, tmp_path: Path) -> None:
    """Which Microsoft's format has room for, and transformers' model has not."""
    folder = save_original(native.model, tmp_path / "original")
    path = folder / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    bias = weights["language_model.final_logits_bias"]
    bias[0] = torch.linspace(-2, 2, bias.shape[1])
    torch.save(weights, path)
    checkpoint = read_checkpoint(folder)
    weights = torch_weights(checkpoint, torch.float64)
    specs = build_specs(checkpoint.config, weights)
    reference = transformers_model(checkpoint.config, weights)
    compare_with_transformers(specs, reference, 64, 64)
    assert torch.equal(reference.lm_head.bias, bias[0].double())
    ours = read_checkpoint(native.checkpoint)
    without = transformers_model(ours.config, torch_weights(ours, torch.float64))
    with pytest.raises(ValidationError, match=r"^decoder_with_past_slots differs"):
        compare_with_transformers(specs, without, 64, 64)


# What exists already


def test_an_existing_folder_is_refused_before_any_work(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "read_checkpoint", lambda *source: pytest.fail("it was read"))
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError, match=r"out exists; choose another folder or pass --fo"):
        export(native.checkpoint, tmp_path / "out")
    assert files(tmp_path) == set()


@pytest.mark.usefixtures("no_tracing")
def test_force_replaces_an_older_export(native: Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(native.folder, out)
    inode = out.stat().st_ino
    export(native.checkpoint, out, force=True)
    assert files(out) == files(native.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.stat().st_ino == inode, "the folder may be a mount, or where a shell is"
    (tmp_path / "empty").mkdir()
    export(native.checkpoint, tmp_path / "empty", force=True)
    assert files(tmp_path / "empty") == files(native.folder)


def test_force_replaces_nothing_but_exports(checkpoint: Path, tmp_path: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "holiday.jpg").touch()
    (tmp_path / "file").touch()
    before = files(tmp_path)
    for out in (precious, tmp_path / "file", Path("/")):
        with pytest.raises(OutputExistsError, match="is not a model folder with the export_repo"):
            export("someone/Florence-2", out, force=True)
    (checkpoint / "onnx").mkdir()
    for out in (checkpoint, checkpoint / "..", tmp_path):
        with pytest.raises(OutputExistsError, match=r"holds the checkpoint itself"):
            export(checkpoint, out, force=True)
    assert files(tmp_path) == before


# What fails


def test_a_failing_export_leaves_nothing(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tracing: None
) -> None:
    def fail(spec: GraphSpec, path: Path, precision: str) -> Any:
        assert path.is_file()
        if spec.name == contract.ENCODER:
            raise ValidationError("encoder_model: output 'x' differs")
        return []

    monkeypatch.setattr(exporter, "validate", fail)
    with pytest.raises(ValidationError, match=r"output 'x' differs"):
        export(native.checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_keeps_the_folder_it_was_to_replace(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: GraphSpec, path: Path) -> None:
        raise KeyboardInterrupt

    out = Path(shutil.copytree(native.folder, tmp_path / "out"))
    before = {file: (out / file).read_bytes() for file in files(out)}
    monkeypatch.setattr(exporter, "trace", fail)
    with pytest.raises(KeyboardInterrupt):
        export(native.checkpoint, out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {file: (out / file).read_bytes() for file in files(out)} == before


def test_a_full_disk(native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(native.folder / contract.graph_file(contract.VISION_ENCODER, "fp32"))

    def save_half(proto: Any, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", path)

    traced = SimpleNamespace(model_proto=model, apply_weights=lambda weights: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: traced)
    monkeypatch.setattr(onnx, "save_model", save_half)
    with pytest.raises(ExportError, match=r"exporting to .*out failed: .*No space left on device"):
        export(native.checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "config.json"
    content = json.loads(path.read_text())
    content["vision_config"]["embed_dim"][1] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"weights that do not fit config\.json"):
        export(checkpoint, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}


def test_weights_with_nan_are_not_exported(native: Exported, tmp_path: Path) -> None:
    model = copy.deepcopy(native.model)
    with torch.no_grad():
        model.model.language_model.encoder.layers[0].fc1.weight[0, 0] = float("nan")
    checkpoint = save_native(model, tmp_path / "checkpoint")
    message = (
        r"model\.safetensors: weight model\.language_model\.encoder\.layers\.0\.fc1\.weight is NaN"
    )
    with pytest.raises(CheckpointError, match=message):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_precision_lists_those_there_are(native: Exported, tmp_path: Path) -> None:
    with pytest.raises(PrecisionError, match=r"unknown precision 'int3'; choose from fp32"):
        export(native.checkpoint, tmp_path / "out", precisions=["fp32", "int3"])
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'\./nowhere' is not an existing folder"):
        export("./nowhere", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# The command


@pytest.mark.usefixtures("no_tracing")
def test_the_command(native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(native.checkpoint), str(out)]) == 0
    stdout, stderr = capsys.readouterr()
    size = sum(path.stat().st_size for path in (out / "onnx").iterdir()) / 1e6
    assert stdout.startswith(f"{out}: {size:.0f} MB, at most ")
    assert re.search(r"at most \d\.\de-0[67] from PyTorch \(relative\)\n$", stdout), stdout
    lines = stderr.splitlines()
    why = "tracing the graphs with torch, because its geometry is no released one"
    assert [line.partition("] ")[2] for line in lines] == [why, *native.progress]
    assert all(line.startswith("[") for line in lines)
    assert main(["export", str(native.checkpoint), str(out)]) == 2
    assert capsys.readouterr() == (
        "",
        f"florence-onnx: error: {out} exists; choose another folder or pass --force\n",
    )
    assert main(["export", str(native.checkpoint), str(out), "--force"]) == 0
    assert Florence2.load(out)(picture(1), "od", max_new_tokens=5).task == "<OD>"


def test_the_commands_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for checkpoint in (tmp_path / "empty", tmp_path / "nowhere"):
        assert main(["export", str(checkpoint), str(tmp_path / "out")]) == 2
        stdout, stderr = capsys.readouterr()
        assert stdout == ""
        assert stderr.splitlines()[-1].startswith("florence-onnx: error: ")
        assert "Traceback" not in stderr
    assert {path.name for path in tmp_path.iterdir()} == {"empty"}


def test_the_exporter_alone_sends_no_events_either() -> None:
    """Its modules import ONNX Runtime before the runtime's."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    program = "import os, florence_onnx_export; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=kept, capture_output=True, check=True).stdout.split() == [
        b"1"
    ]
