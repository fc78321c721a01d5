"""The files of training runs: whole, resumable, and never in place of somebody else's."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from florence_onnx.cli.program import main
from florence_onnx.errors import ExportError, InputError, ModelFileError, OutputExistsError
from florence_onnx_export.training import loop, runs
from florence_onnx_export.training.cache import cached_pictures
from florence_onnx_export.training.folder import MODEL, REPORT, model_folder, run_folder
from florence_onnx_export.training.log import Log
from tests.helpers.kills import contents, make_files

FOREIGN = {"notes.txt": b"mine", ".git/HEAD": b"ref", "model.safetensors.old": b"old"}


def train_model(out: Path, content: bytes) -> None:
    """Stands for a run, which writes a model."""
    with run_folder(out, "org/name"), model_folder(out / MODEL) as folder:
        make_files(folder, {"config.json": b"{}", "model.safetensors": content})
        (folder / "model.safetensors").chmod(0o600)  # as safetensors does


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    train_model(tmp_path / "out", b"old")
    return tmp_path / "out"


# The model


def test_a_model_replaces_that_of_an_earlier_run_only(out: Path) -> None:
    make_files(out / MODEL, FOREIGN)
    train_model(out, b"new")
    written = contents(out / MODEL)
    assert json.loads(written.pop(REPORT))["files"].keys() == {"config.json", "model.safetensors"}
    assert written == FOREIGN | {"config.json": b"{}", "model.safetensors": b"new"}
    assert {path.name for path in out.iterdir()} == {MODEL}


def test_everybody_whom_the_umask_allows_reads_a_model(tmp_path: Path) -> None:
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            train_model(tmp_path / f"{umask:o}", b"new")
        finally:
            os.umask(before)
        folder = tmp_path / f"{umask:o}" / MODEL
        modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert modes == {0o666 & ~umask}


@pytest.mark.parametrize("kind", ["folder", "checkpoint", "file"])
def test_a_model_that_no_training_wrote_is_refused_before_the_run(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "read_checkpoint", lambda source: pytest.fail("it was read"))
    files = {"folder": FOREIGN, "checkpoint": {"config.json": b"{}"}, "file": {}}[kind]
    out = make_files(tmp_path / "out", {f"{MODEL}/{name}": files[name] for name in files})
    if kind == "file":
        make_files(out, {MODEL: b"mine"})
    before = contents(out)
    (data := tmp_path / "x.jsonl").touch()
    assert main(["train", "--from", "org/name", "--data", str(data), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is no model that a training wrote; move it, or choose another output folder" in line
    assert contents(out) == before


def test_a_model_that_was_edited_is_not_replaced(out: Path) -> None:
    (out / MODEL / "config.json").write_bytes(b'{"edited": true}')
    before = contents(out)
    with pytest.raises(OutputExistsError, match=r"config\.json is in the way"), run_folder(out):
        pytest.fail("the run began")
    assert contents(out) == before


def test_a_run_goes_on_where_the_last_one_ended_while_it_moved_its_model(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def fail(source: Path, goal: Path) -> Path:
        if goal.parent.name == MODEL and goal.name == "config.json":
            raise OSError(28, "No space left on device")
        return replace(source, goal)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(ModelFileError, match="cannot be moved to their places"):
            train_model(out, b"new")
    with run_folder(out):
        assert (out / MODEL / "model.safetensors").read_bytes() == b"new"
    train_model(out, b"newer")
    written = {path.name for path in (out / MODEL).iterdir()}
    assert written == {"config.json", "model.safetensors", REPORT}


@pytest.mark.parametrize(
    "listed", [None, [1], {"../x": "1", "/x": "1", "a\0": "1", "config.json": 1}]
)
def test_a_report_of_a_training_that_was_damaged(out: Path, listed: object) -> None:
    (out / MODEL / REPORT).write_text(json.dumps({"files": listed}))
    before = contents(out)
    with pytest.raises(OutputExistsError, match="in the way"):
        train_model(out, b"new")
    assert contents(out) == before


def test_the_model_is_not_written_over_the_checkpoint(out: Path) -> None:
    make_files(out / MODEL / "checkpoint-500", {"config.json": b"{}"})
    for checkpoint in (out / MODEL, out / MODEL / "checkpoint-500"):
        refused = pytest.raises(OutputExistsError, match="holds the checkpoint itself")
        with refused, run_folder(out, str(checkpoint)):
            pytest.fail("the run began")


def test_the_second_run_in_a_folder_is_told(out: Path) -> None:
    with run_folder(out) as unfinished:
        make_files(unfinished, {"state.pt": b"half"})
        with pytest.raises(ExportError, match="another process is writing to"), run_folder(out):
            pytest.fail("the run began")
    assert {path.name for path in out.iterdir()} == {MODEL}


# Checkpoints and logs


@pytest.mark.parametrize("kind", ["text", "pickle", "other network"])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    network, path = nn.Linear(2, 2), tmp_path / "state.pt"
    optimiser = torch.optim.AdamW(network.parameters())
    other = {"step": 1, "parts": nn.Linear(3, 3).state_dict(), "optimiser": {}}
    if kind == "text":
        path.write_bytes(b"my state")
    else:
        torch.save({"pickle": [1, 2], "other network": other}[kind], path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"state\.pt is damaged or the state of another training"):
        loop._resume(path, network, optimiser)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["my log\n", "[1]\n", '{"a": 1}\n', '{"step": 1}\n1\n', "\udcff"])
def test_a_log_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"log\.jsonl is no log of a training: move it"):
        Log(path, tmp_path)
    assert path.read_text(errors="surrogateescape") == text


def test_a_log_goes_on_and_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    Log(path, tmp_path).add(step=50, loss=1.23456)
    Log(path, tmp_path).add(step=100, loss=1)
    before = path.read_text()
    assert [json.loads(line) for line in before.splitlines()] == [
        {"step": 50, "loss": 1.235},
        {"step": 100, "loss": 1.0},
    ]

    def fail(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        Log(path, tmp_path).add(step=150, loss=1)
    assert contents(tmp_path) == {"log.jsonl": before.encode()}


# Pictures


def test_pictures_are_drawn_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pictures.npy"

    def fail(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "open_memmap", fail)
        with pytest.raises(OSError, match="No space left"):
            cached_pictures(path, 2, 8, tmp_path)
    assert contents(tmp_path) == {}
    assert cached_pictures(path, 2, 8, tmp_path).shape == (2, 8, 8, 3)
    with pytest.raises(InputError, match=r"holds \(2, 8, 8, 3\), not \(3, 8, 8, 3\)"):
        cached_pictures(path, 3, 8, tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="holds no pictures: move it"):
        cached_pictures(path, 2, 8, tmp_path)
    assert contents(tmp_path) == {"pictures.npy": b"mine"}
