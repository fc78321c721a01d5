"""What exports and quantising leave as it was: files of others always, their own until the end."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from florence_onnx import Florence2, exporting
from florence_onnx.assets.ownership import digests, replaced_files
from florence_onnx.assets.report import REPORT
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.errors import ExportError, ModelFileError, OutputExistsError
from florence_onnx.resolver import DEMO
from florence_onnx_export.exporter import export
from florence_onnx_export.quantization import quantize as quantizing
from florence_onnx_export.quantization.quantize import quantize
from tests.helpers.kills import MOVES, contents, killed_at_every_step, make_files, posix
from tests.helpers.tiny import TINY, aged, change_json, picture

ENDS = [".onnx", ".onnx_data", "_quantized.onnx", "_quantized.onnx_data"]
FOREIGN = {".git/HEAD": b"ref", "novel.txt": b"chapter 1", "onnx/notes.txt": b"mine"}


def make_set(folder: Path, precision: str, name: str, least: int) -> Path:
    """A model whose graphs say in which set they belong, with their weights in other files.

    Args:
        folder: Where to write it.
        precision: The precision that its files say they are of.
        name: What the graphs say.
        least: Bytes from which a weight lies outside, so that no graph can be read with the
            weights of a set that has another bound.
    """
    (folder / "onnx").mkdir()
    for graph in contract.GRAPHS:
        path = folder / contract.graph_file(graph, precision)
        model = onnx.load(TINY / contract.graph_file(graph, "fp32"))
        model.doc_string = name
        data = path.name + contract.DATA_SUFFIX
        onnx.save_model(
            model, path, save_as_external_data=True, location=data, size_threshold=least
        )
    for asset in contract.ASSETS if precision == "fp32" else ():
        shutil.copy(TINY / asset, folder / asset)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What stands for the results of an old and a new export, and of quantising twice."""
    return {
        f"{name} {precision}": make_set(tmp_path_factory.mktemp(name), precision, name, least)
        for name, least in (("old", 500), ("new", 2000))
        for precision in ("fp32", "q8")
    }


def fake_export(folder: Path, out: Path, source: str | Path, *rest: object) -> dict[str, Any]:
    """Stands for the work of an export, whose source is one of the sets."""
    onnx_folder = shutil.copytree(Path(source) / "onnx", folder / "onnx")
    assets = [shutil.copy(Path(source) / asset, folder) for asset in contract.ASSETS]
    files = [*map(Path, assets), *Path(onnx_folder).iterdir()]
    return {"versions": {}, "files": digests(folder, files)}


class FakeReference:
    """Stands for what float32 graphs make of the requests."""

    def __init__(self, folder: Path, own: object, fast: bool) -> None:
        self.folder = folder


def fake_precision(made: Path) -> Callable[..., dict[str, Any]]:
    """Stands for the work of quantising, which gives one of the sets."""

    def make(reference: object, precision: str, folder: Path, *rest: object) -> dict[str, Any]:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return {"set": str(made), "files": digests(folder, (folder / "onnx").iterdir())}

    return make


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch, sets: dict[str, Path]) -> None:
    monkeypatch.setattr(exporting, "_export_into", fake_export)
    monkeypatch.setattr(quantizing, "Reference", FakeReference)
    monkeypatch.setattr(quantizing, "make_precision", fake_precision(sets["old q8"]))


@pytest.fixture
def new(sets: dict[str, Path]) -> Path:
    """The checkpoint of the new export."""
    return sets["new fp32"]


@pytest.fixture
def out(tmp_path: Path, sets: dict[str, Path]) -> Path:
    """The folder of the old export."""
    export(sets["old fp32"], tmp_path / "out")
    return tmp_path / "out"


def exported(folder: Path, source: Path) -> dict[str, bytes]:
    """The files of the export of ``source`` to ``folder``."""
    return {**contents(source), REPORT: (folder / REPORT).read_bytes()}


# Other people's files


def test_force_leaves_other_files_where_they_are(out: Path, new: Path) -> None:
    make_files(out, FOREIGN)
    inodes = {name: (out / name).stat().st_ino for name in FOREIGN}
    export(new, out, force=True)
    assert contents(out) == exported(out, new) | FOREIGN
    assert {name: (out / name).stat().st_ino for name in FOREIGN} == inodes


def test_force_takes_out_what_the_older_export_wrote(out: Path, new: Path) -> None:
    quantize(out, ["q8"])
    (out / "onnx" / "stale_q4.onnx").touch()
    export(new, out, force=True)
    assert contents(out) == exported(out, new) | {"onnx/stale_q4.onnx": b""}


@pytest.mark.parametrize("files", [FOREIGN, {"onnx/model.onnx": b"1"}, {REPORT: b"{}", "a": b"1"}])
def test_a_folder_that_no_export_wrote_is_refused(
    tmp_path: Path, files: dict[str, bytes], new: Path
) -> None:
    folder = make_files(tmp_path / "folder", files)
    with pytest.raises(OutputExistsError, match="is not a model folder with the export_report"):
        export(new, folder, force=True)
    assert contents(folder) == files


def test_a_model_that_was_put_together_by_hand_is_refused(out: Path, new: Path) -> None:
    (out / REPORT).unlink()
    quantize(out, ["q8"])  # This makes a report, which does not list the other files.
    make_files(out, FOREIGN)
    before = contents(out)
    with pytest.raises(OutputExistsError, match="is not a model folder with the export_report"):
        export(new, out, force=True)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["generation_config.json", "onnx/encoder_model.onnx"])
def test_a_file_that_was_changed_is_refused_before_any_work(
    out: Path, name: str, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_export_into", lambda *rest: pytest.fail("it was exported"))
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    before = contents(out)
    with pytest.raises(OutputExistsError, match=f"{name} is in the way: move it"):
        export(new, out, force=True)
    assert contents(out) == before


def test_files_that_are_gone_are_no_obstacle(out: Path, new: Path) -> None:
    (out / "config.json").unlink()
    shutil.rmtree(out / "onnx")
    export(new, out, force=True)
    assert contents(out) == exported(out, new)


def test_a_folder_that_becomes_another_during_the_export(
    out: Path, monkeypatch: pytest.MonkeyPatch, new: Path
) -> None:
    def swap(folder: Path, *rest: object) -> dict[str, Any]:
        for path in (path for path in out.iterdir() if path not in folder.parents):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        make_files(out, FOREIGN)
        return fake_export(folder, out, new)

    monkeypatch.setattr(exporting, "_export_into", swap)
    with pytest.raises(OutputExistsError, match="is not a model folder with the export_report"):
        export(new, out, force=True)
    assert contents(out) == FOREIGN


@pytest.mark.parametrize(
    "name", ["../novel.txt", "onnx/../../novel.txt", "{absolute}", "link/novel.txt"]
)
def test_a_report_cannot_name_files_elsewhere(
    tmp_path: Path, out: Path, name: str, new: Path
) -> None:
    novel = tmp_path / "novel.txt"
    novel.write_bytes(b"chapter 1")
    (out / "link").symlink_to(tmp_path)
    listed = {name.format(absolute=novel): hashlib.sha256(b"chapter 1").hexdigest()}
    change_json(out / REPORT, lambda report: report["files"].update(listed))
    try:
        export(new, out, force=True)
    except OutputExistsError as error:
        assert "link is a link" in str(error)
    assert novel.read_bytes() == b"chapter 1"


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": [1]},
        {"files": {"config.json": None, "": "x", "onnx": "", "a\0b": "x"}},
        {"precisions": {"q8": {"files": 1}, "q4": None}},
    ],
)
def test_a_report_that_was_damaged(out: Path, change: dict[str, Any], new: Path) -> None:
    change_json(out / REPORT, lambda report: report.update({"files": {}, **change}))
    before = contents(out)
    with pytest.raises(OutputExistsError, match="in the way"):
        export(new, out, force=True)
    assert contents(out) == before
    change_json(out / REPORT, lambda report: report.update(precisions=[]))
    with pytest.raises(ModelFileError, match="precisions is not a JSON object"):
        export(new, out, force=True)


# Exports from before files were listed


def test_an_export_without_a_list_of_files_is_known_by_its_names(out: Path, new: Path) -> None:
    change_json(out / REPORT, lambda report: report.pop("files"))
    quantize(out, ["q8"])
    make_files(out, FOREIGN)
    export(new, out, force=True)
    assert contents(out) == exported(out, new) | FOREIGN


def test_a_model_without_a_report_is_somebodys(out: Path, new: Path) -> None:
    """As one that was downloaded: its files have the same names."""
    (out / REPORT).unlink()
    before = contents(out)
    with pytest.raises(OutputExistsError, match="is not a model folder with the export_report"):
        export(new, out, force=True)
    assert contents(out) == before


def test_a_link_to_nothing_is_somebodys(tmp_path: Path, new: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "unmounted")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="out is a link to nothing: remove it"):
            export(new, tmp_path / "out", force=force)
    assert not (tmp_path / "unmounted").exists()


def test_an_empty_folder_is_nobodys(tmp_path: Path, new: Path) -> None:
    (tmp_path / "empty").mkdir()
    export(new, tmp_path / "empty", force=True)
    assert contents(tmp_path / "empty") == exported(tmp_path / "empty", new)


# Exports whose decoder has its former name


@pytest.mark.parametrize("known", ["listed", "by name"])
def test_an_export_of_before_is_replaced(out: Path, new: Path, known: str) -> None:
    quantize(out, ["q8"])
    before = contents(aged(out))
    assert {name for name in before if "decoder" in name} == {
        f"onnx/decoder_with_past_model{end}" for end in ENDS
    }
    assert main(["verify", str(out)]) == 0
    if known == "by name":
        change_json(out / REPORT, lambda report: report.pop("files"))
    export(new, out, force=True)
    assert contents(out) == exported(out, new)


def test_graphs_of_before_are_replaced_by_quantising_again(
    out: Path, sets: dict[str, Path]
) -> None:
    quantize(out, ["q8"])
    aged(out)
    with pytest.raises(OutputExistsError, match=r"exists; pass --force"):
        quantize(out, ["q8"])
    quantize(out, ["q8"], force=True)
    decoders = {name for name in contents(out) if "decoder" in name}
    assert decoders == {
        *(f"onnx/decoder_with_past_model{end}" for end in ENDS[:2]),
        *(f"onnx/decoder_with_past_slots{end}" for end in ENDS[2:]),
    }
    assert main(["verify", str(out)]) == 0


# Where the output is


def test_the_output_is_the_current_folder(
    out: Path, monkeypatch: pytest.MonkeyPatch, new: Path
) -> None:
    monkeypatch.chdir(out)
    make_files(out, FOREIGN)
    export(new, Path(), force=True)
    assert contents(Path()) == exported(out, new) | FOREIGN


def test_the_output_holds_the_checkpoint(tmp_path: Path, out: Path) -> None:
    make_files(out / "checkpoint", {"config.json": b"{}"})
    (tmp_path / "link").symlink_to(out / "checkpoint")
    before = contents(out)
    for source in (out, out / "checkpoint", tmp_path / "link", out / "checkpoint" / ".." / "."):
        with pytest.raises(OutputExistsError, match="holds the checkpoint itself"):
            export(source, out, force=True)
    assert contents(out) == before


def test_the_checkpoint_holds_the_output(tmp_path: Path, new: Path) -> None:
    checkpoint = make_files(tmp_path / "checkpoint", contents(new))
    before = contents(checkpoint)
    (checkpoint / "model").mkdir()
    export(new, checkpoint / "model", force=True)
    export(checkpoint, checkpoint / "other model", force=True)
    assert before.items() <= contents(checkpoint).items()
    with pytest.raises(OutputExistsError, match="is not a model folder with the export_report"):
        export(checkpoint, checkpoint / "onnx", force=True)


def test_names_beside_the_output_do_not_stop_an_export(
    tmp_path: Path, out: Path, new: Path
) -> None:
    theirs = make_files(tmp_path, {".out.partial-99999999999999999999/x": b"mine"})
    export(new, out, force=True)
    assert contents(theirs)[".out.partial-99999999999999999999/x"] == b"mine"


def test_the_second_export_to_a_folder_is_told(
    tmp_path: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"

    def export_again(folder: Path, out: Path, source: str | Path, *rest: object) -> dict[str, Any]:
        with pytest.raises(ExportError, match="another process is writing to"):
            export(new, target)
        return fake_export(folder, out, source)

    monkeypatch.setattr(exporting, "_export_into", export_again)
    export(new, target)
    assert contents(target) == exported(target, new)


# Quantising


def test_quantising_leaves_other_files_where_they_are(out: Path, new: Path) -> None:
    make_files(out, FOREIGN | {"onnx/novel_quantized.onnx": b"mine"})
    before = contents(out)
    quantize(out, ["q8"])
    quantize(out, ["q8"], force=True)
    changed = {name for name, content in contents(out).items() if before.get(name) != content}
    assert all("_quantized.onnx" in name or name == REPORT for name in changed)
    assert "onnx/novel_quantized.onnx" not in changed


def test_graphs_that_appear_meanwhile_are_not_replaced(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = out / contract.graph_file(contract.ENCODER, "q8")
    before = contents(out).keys()

    make = quantizing.make_precision

    def appear(*arguments: Any) -> dict[str, Any]:
        path.write_bytes(b"mine")
        return make(*arguments)

    monkeypatch.setattr(quantizing, "make_precision", appear)
    with pytest.raises(OutputExistsError, match=r"quantized\.onnx exists; pass --force"):
        quantize(out, ["q8"])
    assert path.read_bytes() == b"mine"
    assert contents(out).keys() == {*before, path.relative_to(out).as_posix()}


def test_the_installed_demo_is_not_quantised_but_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(DEMO)
    for name in ("demo", str(DEMO)):
        assert main(["quantize", name, "--precision", "q8"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(f"quantise a copy: cp -r {DEMO} my-demo")
    assert contents(DEMO) == before


# Kills

PROGRAM = """
from pathlib import Path
from florence_onnx_export.quantization import quantize as quantizing
from tests.export import test_kept_files as fakes

made = Path({made!r})
quantizing.Reference = fakes.FakeReference
quantizing.make_precision = fakes.fake_precision(made)

def change(folder):
    {change}
"""
EXPORT = """
    from florence_onnx import exporting
    from florence_onnx_export import exporter
    exporting._export_into = fakes.fake_export
    exporter.export(made, folder / "out", force=True)
"""
QUANTIZE = 'quantizing.quantize(folder / "out", ["q8"], force=True)'


def states_after_kills(
    tmp_path: Path, out: Path, change: str, made: Path, precision: str, finish: Callable[[], object]
) -> list[dict[str, bytes]]:
    """The different contents of copies of ``out`` after kills, each of which has to open.

    Args:
        tmp_path: Where ``out`` lies.
        out: The folder that is changed.
        change: Python that changes a copy.
        made: The set that it puts there.
        precision: What is opened.
        finish: Makes the change in ``out``, where the next copy then lies, without a kill.
    """
    before, work = tmp_path / "before", tmp_path / "work"
    before.mkdir()
    work.mkdir()
    out.rename(before / "out")
    program = PROGRAM.format(made=str(made), change=change)
    found: list[dict[str, bytes]] = []
    for folder in killed_at_every_step(program, before, work, MOVES):
        (folder / "out").rename(out)
        model = Florence2.load(out, precision=precision, threads=1)
        seen = contents(out)
        state = {name: seen[name] for name in seen if not name.startswith(".florence-onnx")}
        if state not in found:
            assert model(picture(0), "od", max_new_tokens=3).task == "<OD>"
            found.append(state)
        finish()
        assert contents(out).keys() == found[-1].keys(), "nothing is left over"
        shutil.rmtree(out)
    return found


@posix
def test_a_kill_at_any_step_of_an_export_leaves_one_whole_model(
    tmp_path: Path, out: Path, new: Path
) -> None:
    make_files(out, FOREIGN)
    old = contents(out)

    def finish() -> None:
        replaced_files(
            out, new, [*SLOTS.files((), "fp32").values()], force=True
        )  # as the command does, before any work
        export(new, out, force=True)

    first, second = states_after_kills(tmp_path, out, EXPORT, new, "fp32", finish)
    assert first == old
    assert second == contents(new) | FOREIGN | {REPORT: second[REPORT]}


@posix
def test_a_kill_at_any_step_of_quantising_leaves_one_whole_precision(
    tmp_path: Path, out: Path, sets: dict[str, Path], new: Path
) -> None:
    quantize(out, ["q8"])
    make_files(out, FOREIGN)
    old, made = contents(out), sets["new q8"]

    def finish() -> None:
        quantize(out, ["q8"], force=True)

    first, second = states_after_kills(tmp_path, out, QUANTIZE, made, "q8", finish)
    assert first == old
    assert second == old | contents(made) | {REPORT: second[REPORT]}
    assert json.loads(second[REPORT])["precisions"]["q8"]["set"] == str(made)


def test_a_full_disk(out: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int) -> None:
        raise OSError(28, "No space left on device")

    before = contents(out)
    monkeypatch.setattr(os, "fsync", fail)
    for change in (lambda: export(new, out, force=True), lambda: quantize(out, ["q8"])):
        with pytest.raises(ExportError, match="No space left on device"):
            change()
        assert contents(out) == before
