"""Sources that are odd: links in circles, names that are no text, folders that go away."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx.annotate.sources import Item, find_items, place_of
from florence_onnx.cli.program import main
from florence_onnx.errors import InputError
from tests.helpers.kills import posix
from tests.helpers.tiny import TINY, picture


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def paths(*sources: object) -> list[str]:
    return [item.path for item in find_items([*map(str, sources)])]


def annotate(*arguments: object, status: int = 0) -> None:
    model = ("--model", TINY, "--threads", "1", "--max-new-tokens", "4", "--task", "od")
    assert main(["annotate", *map(str, (*arguments, *model))]) == status


def lines(out: Path, name: str = "annotations.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_bytes().splitlines()]


@posix
def test_links_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("photos/b.png"), 0)
    save(Path("photos/a/c.png"), 1)
    Path("photos/a/again").symlink_to("..")
    Path("photos/self").symlink_to("self")
    Path("photos/d.png").symlink_to("b.png")
    Path("photos/lost.png").symlink_to("nothing")
    named = ["photos/a/c.png", "photos/b.png", "photos/d.png", "photos/lost.png"]
    assert paths("photos/**/*.png") == named
    assert sorted(paths("photos")) == ["a/c.png", "b.png", "d.png", "lost.png"]
    Path("linked").symlink_to("photos")
    assert sorted(paths("linked")) == ["a/c.png", "b.png", "d.png", "lost.png"]
    annotate("photos", "--out", "out", status=2)
    assert [line["path"] for line in lines(Path("out"), "errors.jsonl")] == ["lost.png"]


@posix
def test_a_folder_that_cannot_be_listed_is_an_error_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.png", 0)
    save(photos / "shut/b.png", 1)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith(refused):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    refused = "shut"
    annotate(photos, "--out", tmp_path / "out", status=2)
    assert [line["path"] for line in lines(tmp_path / "out")] == ["a.png"]
    (error,) = lines(tmp_path / "out", "errors.jsonl")
    assert error["path"] == "shut"
    assert "Permission denied" in error["error"]
    refused = "photos"
    with pytest.raises(InputError, match="cannot be read"):
        find_items([str(photos)])


@posix
def test_names_of_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["new\nline.png", "quo\"te's.png", " blank .png", "\u00e9\u6f22.png", "back\\slash.png"]
    names += [os.fsdecode(b"\xff\xfe.png"), "-.png", "a.mp4#t=1.0.png", "[1].png"]
    for seed, name in enumerate(names):
        try:
            save(tmp_path / "photos" / name, seed)
        except OSError:
            pytest.skip("this file system takes no such name")
    annotate(tmp_path / "photos", "--out", tmp_path / "out")
    assert sorted(line["path"] for line in lines(tmp_path / "out")) == sorted(names)
    assert (tmp_path / "out/annotations.jsonl").read_bytes().count(b"\n") == len(names)
    annotations = tmp_path / "out/annotations.jsonl"
    for to in ("coco", "csv", "voc", "labelme", "sidecar", "yolo"):
        out = tmp_path / to
        assert main(["convert", str(annotations), "--to", to, "--out", str(out)]) == 0
    stems = sorted(os.fsencode(name)[:-4] for name in names)
    assert sorted(os.fsencode(path.stem) for path in (tmp_path / "sidecar").iterdir()) == stems


@posix
def test_a_list_on_the_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As find prints it, and with null characters where names have line breaks."""
    monkeypatch.chdir(tmp_path)
    for given, expected in (
        (b"a.png\nb.png\n", ["a.png", "b.png"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"caf\xe9.png\n", [os.fsdecode(b"caf\xe9.png")]),
    ):
        stream = io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", stream)
        save(Path("x.png"), 0).rename(expected[0])
        assert paths("-") == expected
    for stream_or_none in (io.StringIO(""), None):
        monkeypatch.setattr("sys.stdin", stream_or_none)
        with pytest.raises(InputError, match="holds no pictures") as told:
            find_items(["-"])
        assert str(told.value).startswith("the standard input holds no pictures; write the path")


def test_an_empty_list_is_told_what_it_should_hold(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"list\.txt holds no pictures; write the path of a pict"):
        find_items([str(tmp_path / "list.txt")])


def test_members_of_shards_that_lead_out_or_are_there_twice(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    contents = [save(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(2)]
    with tarfile.open(shard, "w") as file:
        for name, content in (
            *(("/abs.png", contents[0]), ("../up.png", contents[0])),
            *(("twice.png", contents[0]), ("twice.png", contents[1]), ("empty.png", b"")),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("link.png")
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    annotate(shard, "--out", tmp_path / "out", status=2)
    named = [line["path"] for line in lines(tmp_path / "out")]
    assert named == [f"{shard}/{name}" for name in ("/abs.png", "../up.png", *["twice.png"] * 2)]
    (error,) = lines(tmp_path / "out", "errors.jsonl")
    assert error["path"] == f"{shard}/empty.png"
    before = set(tmp_path.iterdir())
    annotations = tmp_path / "out/annotations.jsonl"
    out = tmp_path / "yolo"
    assert main(["convert", str(annotations), "--to", "yolo", "--out", str(out)]) == 0
    assert set(tmp_path.iterdir()) - before == {out}
    found = [path.read_bytes() for path in (out / "images").rglob("twice.png")]
    assert found == [contents[1]], "the newer of two members counts"


def damaged_header(content: bytes, at: int) -> bytes:
    return content[:at] + b"\xff" * 512 + content[at + 512 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, at: content[: at + 600],
        lambda content, at: content[: at + 100],
        damaged_header,
    ],
    ids=["cut in a picture", "cut in a header", "damaged header"],
)
def test_a_torn_shard_is_an_error_among_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes, int], bytes]
) -> None:
    """Its whole pictures and the other sources are answered; a mended shard goes on."""
    shard, out = tmp_path / "s.tar", tmp_path / "out"
    with tarfile.open(shard, "w") as file:
        for seed in range(3):
            file.add(save(tmp_path / f"{seed}.png", seed), f"{seed}.png")
    with tarfile.open(shard) as file:
        third = file.getmember("2.png").offset
    whole = shard.read_bytes()
    shard.write_bytes(damage(whole, third))
    other = save(tmp_path / "other.png", 5)
    sources = (shard, other)
    annotate(*sources, "--out", out, "--dry-run", "--json")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["pictures"] == 3
    assert "s.tar cannot be read behind 1.png" in captured.err
    annotate(*sources, "--out", out, status=2)
    answered = [f"{shard}/0.png", f"{shard}/1.png", str(other)]
    assert [line["path"] for line in lines(out)] == answered
    (error,) = lines(out, "errors.jsonl")
    assert (error["path"], error["source"], error["hash"]) == (str(shard), str(shard), None)
    assert error["error"].startswith(f"{shard} cannot be read behind 1.png: ")
    shard.write_bytes(whole)
    annotate(*sources, "--out", out)
    assert [line["path"] for line in lines(out)] == [*answered, f"{shard}/2.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("bad.tar", b"no shard"), ("empty.tar", b""), ("list.txt", b"\xe9t\xe9.png\n")],
)
def test_a_source_that_cannot_be_read_is_an_error_among_others(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    save(tmp_path / "photos/a.png", 0)
    annotate(tmp_path / name, tmp_path / "photos", "--out", tmp_path / "out", status=2)
    assert [line["path"] for line in lines(tmp_path / "out")] == ["a.png"]
    (error,) = lines(tmp_path / "out", "errors.jsonl")
    assert error["path"] == str(tmp_path / name)
    assert f"{name} cannot be read" in error["error"]
    with pytest.raises(InputError, match="cannot be read"):
        find_items([str(tmp_path / name)] * 2)


def test_a_source_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for seed in range(30):
        save(photos / f"{seed:02}.png", seed)
    read, kept = Item.read, tmp_path / "elsewhere"

    def reading(self: Item) -> bytes:
        if self.path == "12.png":
            photos.rename(kept)
        return read(self)

    monkeypatch.setattr(Item, "read", reading)
    annotate(photos, "--out", out, "--batch-size", "2", status=2)
    answered = [line["path"] for line in lines(out)]
    failed = [line["path"] for line in lines(out, "errors.jsonl")]
    assert sorted(answered + failed) == [f"{seed:02}.png" for seed in range(30)]
    assert answered
    assert failed
    monkeypatch.undo()
    kept.rename(photos)
    annotate(photos, "--out", out)
    assert [line["path"] for line in lines(out)][: len(answered)] == answered
    assert sorted(line["path"] for line in lines(out)) == [f"{seed:02}.png" for seed in range(30)]
    assert lines(out, "errors.jsonl") == []


def test_an_output_inside_the_source(tmp_path: Path) -> None:
    save(tmp_path / "photos/a.png", 0)
    for _ in range(2):
        annotate(tmp_path / "photos", "--out", tmp_path / "photos/labelled")
    assert len(lines(tmp_path / "photos/labelled")) == 1


def test_pictures_that_all_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    save(photos / "a.png", 0)
    for name in ("a.png", "b.jpg", "c.gif"):
        (photos / name).write_bytes(b"")
    annotate(photos, "--out", tmp_path / "out", "--json", status=2)
    assert json.loads(capsys.readouterr().out)["errors"] == 3
    assert lines(tmp_path / "out") == []
    assert all("not a picture" in line["error"] for line in lines(tmp_path / "out", "errors.jsonl"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is not a picture: it is empty"), (b"x" * 9, "is not a picture in a format that")],
)
def test_errors_tell_the_picture_and_its_content(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    save(tmp_path / "photos/a.png", 0)
    (tmp_path / "photos/b.png").write_bytes(content)
    annotate(tmp_path / "photos", "--out", tmp_path / "out", status=2)
    (error,) = lines(tmp_path / "out", "errors.jsonl")
    assert error["error"].startswith(f"'b.png' {reason}")
    assert error["hash"] == hashlib.sha256(content).hexdigest()


def test_a_picture_that_is_not_there_is_told_as_the_system_tells_it(tmp_path: Path) -> None:
    photo = save(tmp_path / "a.png", 0)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/lost.png\n{photo}\n")
    annotate(tmp_path / "list.txt", "--out", tmp_path / "out", status=2)
    (error,) = lines(tmp_path / "out", "errors.jsonl")
    assert "lost.png" in error["error"]
    assert error["error"].startswith("[Errno ")


def test_pictures_of_one_name_in_two_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are answered, and no conversion takes one for a newer version of the other."""
    monkeypatch.chdir(tmp_path)
    contents = [save(Path(f"{name}/1.png"), seed).read_bytes() for seed, name in enumerate("ab")]
    annotate("a", "b", "--out", "out")
    assert [(line["source"], line["path"]) for line in lines(Path("out"))] == [
        *(("a", "1.png"), ("b", "1.png"))
    ]
    for to in ("coco", "yolo", "sidecar", "labelme"):
        assert main(["convert", "out/annotations.jsonl", "--to", to, "--out", to]) == 0
    images = json.loads(Path("coco").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a/1.png", "b/1.png"]
    copied = [Path(f"yolo/images/train/{name}/1.png").read_bytes() for name in "ab"]
    assert copied == contents
    assert Path("sidecar/a/1.txt").is_file()
    assert json.loads(Path("labelme/b/1.json").read_text())["imagePath"] == "../../b/1.png"


def test_where_the_picture_of_a_line_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos [1]").mkdir()
    for source, path, place in (
        *(("photos [1]", "a.png", "photos [1]/a.png"), ("gone/", "a.png", "gone/a.png")),
        *(("-", "x/a.png", "x/a.png"), ("list.TXT", "x/a.png", "x/a.png")),
        *(("x/*.png", "x/a.png", "x/a.png"), ("x/a.png", "x/a.png", "x/a.png")),
        *(("s.tar", "s.tar/a.png", "s.tar/a.png"), ("v.mp4", "v.mp4#t=1.0", "v.mp4#t=1.0")),
    ):
        assert place_of(source, path).replace(os.sep, "/") == place


def test_one_content_under_two_names(tmp_path: Path) -> None:
    photo = save(tmp_path / "photos/a.png", 0)
    shutil.copy(photo, tmp_path / "photos/b.png")
    annotate(tmp_path / "photos", "--out", tmp_path / "out")
    first, second = lines(tmp_path / "out")
    assert (first["path"], second["path"]) == ("a.png", "b.png")
    assert first["hash"] == second["hash"]
    assert first["record"] == second["record"]
