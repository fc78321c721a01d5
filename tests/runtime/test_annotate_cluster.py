"""`florence-onnx annotate --ray` on a cluster of this machine; needs Ray."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx.annotate import cluster
from florence_onnx.annotate.output import ANNOTATIONS, ERRORS
from florence_onnx.annotate.ray import Annotator
from florence_onnx.cli.program import main
from tests.helpers.tiny import TINY, change_json, copy_tiny, picture, run_python

ray = pytest.importorskip("ray")
# Ray's own, at its start.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}Warning")
    for kind in ("Deprecation", "Future", "Resource")
]

PICTURES = 40
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def two_processors() -> Iterator[None]:
    """A cluster that the command uses, as this process is connected to it."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(PICTURES):
        Image.fromarray(picture(seed)).save(folder / f"{seed:02}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def annotate(source: Path, out: Path, *arguments: str, model: Path = TINY) -> int:
    command = ["annotate", str(source), "--task", "od", "caption", "--model", str(model)]
    command += ["--max-new-tokens", "8", "--threads", "1", "--json", "--out", str(out)]
    return main([*command, *arguments])


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lines, Lines]:
    """Annotations and errors of one process."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert annotate(photos, out) == 2
    return found(out)


def found(out: Path) -> tuple[Lines, Lines]:
    annotations, errors = (
        [json.loads(line) for line in (out / name).read_bytes().splitlines()]
        for name in (ANNOTATIONS, ERRORS)
    )
    for line in annotations:
        del line["seconds"]
    annotations.sort(key=lambda line: (line["path"], line["task"]))
    return annotations, errors


class Mortal(Annotator):
    """Of all actors, the first that has answered two batches is killed before it gives them."""

    marker: Path
    calls = 0

    def __call__(self, batch: Any) -> dict[str, Any]:
        assert self._tries is not None, "a picture that kills actors would be tried without end"
        answered = super().__call__(batch)
        self.calls += 1
        if self.calls == 2:
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return answered
            os.kill(os.getpid(), signal.SIGKILL)
        return answered


def test_an_actor_that_is_killed_loses_nothing(
    photos: Path,
    tmp_path: Path,
    expected: tuple[Lines, Lines],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, marker = tmp_path / "out", tmp_path / "killed"
    monkeypatch.setattr(Mortal, "marker", marker, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "Annotator", Mortal)
        assert annotate(photos, out, "--ray", "local", "--actors", "2") == 2
    assert marker.exists(), "no actor was killed"
    captured = capsys.readouterr()
    assert "actors: 2, threads of each: 1" in captured.err
    summary = json.loads(captured.out)
    counts = {name: summary[name] for name in ("pictures", "answers", "errors", "skipped")}
    whole = {"pictures": PICTURES + 1, "answers": 2 * PICTURES, "errors": 1, "skipped": 0}
    assert counts == whole
    assert found(out) == expected


def test_it_goes_on_where_one_process_has_stopped_and_back(
    photos: Path, tmp_path: Path, expected: tuple[Lines, Lines]
) -> None:
    out = tmp_path / "out"
    assert annotate(photos, out, "--limit", "5") == 0
    assert annotate(photos, out, "--ray", "local", "--limit", "7") == 0
    assert len({line["path"] for line in found(out)[0]}) == 12
    assert len(found(out)[0]) == 24
    assert annotate(photos, out, "--ray", "local") == 2
    assert found(out) == expected
    assert annotate(photos, out) == 2
    assert found(out) == expected


def test_one_file_under_two_names_and_one_name_twice(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "few", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes((photos / "00.png").read_bytes())
    names = tmp_path / "list.txt"
    names.write_text(f"{folder}/a.png\n" * 3 + f"{folder}/b.png\n")
    assert annotate(names, out, "--ray", "local") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["pictures"], summary["answers"], summary["skipped"]) == (4, 4, 2)
    paths = [line["path"] for line in found(out)[0]]
    assert paths == [f"{folder}/a.png"] * 2 + [f"{folder}/b.png"] * 2


def test_what_is_wrong_is_told_in_a_line_before_anything_is_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = copy_tiny(tmp_path)
    change_json(broken / "config.json", lambda content: content.clear())
    out = tmp_path / "out"
    for arguments, model, message in (
        (["--actors", "3"], TINY, "room for 2 actors of 1 processors; give smaller --actors"),
        (["--gpus-per-actor", "0.5"], TINY, "room for 0 actors of 1 processors and 0.5 GPU"),
        (["--threads", "9"], TINY, "room for 0 actors of 9 processors"),
        (["--beams", "0"], TINY, "num_beams"),
        (["--provider", "NoSuchProvider"], TINY, "NoSuchProvider"),
        ([], broken, "config.json has no text_config"),
        ([], tmp_path / "lost", "not an existing folder"),
    ):
        assert annotate(photos, out, "--ray", "local", *arguments, model=model) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        assert message in captured.err
        assert not out.exists()


def test_another_model_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", copy_tiny(tmp_path)
    change_json(other / "generation_config.json", lambda content: content.update(num_beams=2))
    assert annotate(photos, out, "--limit", "1", model=other) == 0
    capsys.readouterr()
    assert annotate(photos, out, "--ray", "local") == 2
    assert "line 1 has another model" in capsys.readouterr().err
    assert annotate(photos, out, "--ray", "local", "--mode", "append") == 2
    assert len(found(out)[0]) == 2 * PICTURES + 2


def test_an_interrupt_keeps_what_has_arrived(
    photos: Path,
    tmp_path: Path,
    expected: tuple[Lines, Lines],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    write = cluster.Crew.write

    def interrupted(self: Any, *arguments: Any) -> None:
        write(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(cluster.Crew, "write", interrupted)
        assert annotate(photos, out, "--ray", "local") == 130
    summary = json.loads(capsys.readouterr().out)
    assert summary["interrupted"]
    assert 0 < summary["answers"] == len(found(out)[0]) < 2 * PICTURES
    assert annotate(photos, out, "--ray", "local") == 2
    assert found(out) == expected


def test_a_cluster_of_its_own(photos: Path, tmp_path: Path) -> None:
    """Which ends with the command, whose words are on stdout and stderr alone."""
    out = tmp_path / "out"
    command = ["-m", "florence_onnx", "annotate", str(photos / "00.png"), "--task", "od"]
    command += ["--model", str(TINY), "--ray", "local", "--actors", "1", "--threads", "1"]
    result = run_python(*command, "--out", str(out), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["answers"] == 1
    assert result.stderr.startswith("precision: fp32\nactors: 1, threads of each: 1\n")


def test_the_snippet_of_the_page(photos: Path, tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "scaling.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for folder, here in (("/mnt/photos", photos), ("/mnt/answers", tmp_path / "answers")):
        assert f'"{folder}"' in snippet
        snippet = snippet.replace(folder, str(here))
    exec(compile(snippet, "scaling.md", "exec"), {})  # noqa: S102
    rows = ray.data.read_parquet(str(tmp_path / "answers")).take_all()
    assert len(rows) == PICTURES + 1
    assert {row["path"] for row in rows} == {str(file) for file in photos.iterdir()}
    assert sum(len(json.loads(row["annotations"])) for row in rows) == 2 * PICTURES
    assert sum(len(json.loads(row["errors"])) for row in rows) == 1
