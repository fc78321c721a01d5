"""Pictures with their answers drawn on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from florence_onnx import parse_answer
from florence_onnx.cli import drawings
from florence_onnx.cli.program import main
from florence_onnx.drawing import draw
from florence_onnx.errors import InputError
from tests.helpers.tiny import TINY, picture

SIZE = (200, 100)
GREY = np.full((100, 200, 3), 128, np.uint8)
BOX = "<loc_100><loc_200><loc_600><loc_800>"  # 20, 20 to 120, 80
QUAD = "<loc_100><loc_200><loc_600><loc_200><loc_600><loc_800><loc_100><loc_800>"
MODEL = ("--model", str(TINY), "--threads", "1", "--max-new-tokens", "12")


def drawn(text: str, task: str) -> npt.NDArray[np.uint8]:
    return np.asarray(draw(GREY, parse_answer(text, task, SIZE)))


def changed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (pixels != 128).any(axis=-1)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("<REGION_PROPOSAL>", BOX),
        ("<OCR_WITH_REGION>", f"STOP{QUAD}"),
        ("<OPEN_VOCABULARY_DETECTION>", f"cat{BOX}"),
    ],
)
def test_an_outline_lies_on_its_place_and_nowhere_else(task: str, text: str) -> None:
    marked = changed(drawn(text, task))
    marked[:18] = False  # where a label stands
    rows, columns = np.nonzero(marked)
    assert (columns.min(), rows.min()) == pytest.approx((20, 20), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((120, 80), abs=2)
    assert not marked[30:70, 30:110].any()


def test_a_polygon_is_filled() -> None:
    pixels = drawn(BOX[:28] + "<loc_600><loc_800>", "<REFERRING_EXPRESSION_SEGMENTATION>")
    polygon = drawn(QUAD, "<REFERRING_EXPRESSION_SEGMENTATION>")
    assert changed(polygon)[30:70, 30:110].all()
    assert changed(pixels).sum() < changed(polygon).sum()


@pytest.mark.parametrize(
    "text",
    [
        "<loc_200><loc_200><loc_600><loc_800>",
        "<loc_200><loc_200><loc_600><loc_800><loc_600>",
        "<poly><loc_200><loc_200><loc_600><loc_800></poly>",
    ],
)
def test_an_outline_of_two_points_is_a_line(text: str) -> None:
    marked = changed(drawn(text, "<REFERRING_EXPRESSION_SEGMENTATION>"))
    rows, columns = np.nonzero(marked)
    assert (columns.min(), rows.min()) == pytest.approx((40, 20), abs=2)
    assert (columns.max(), rows.max()) == pytest.approx((120, 80), abs=2)
    assert marked[50, 80] or marked[50, 79] or marked[50, 81]
    assert not marked[70, 50] and not marked[30, 110]


@pytest.mark.parametrize("task", ["<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_PROPOSAL>"])
def test_a_single_place_is_a_dot(task: str) -> None:
    marked = changed(drawn("<loc_500><loc_500>" * (3 if task.startswith("<REF") else 2), task))
    rows, columns = np.nonzero(marked)
    assert marked[50, 100]
    assert (columns.min(), rows.min()) == pytest.approx((100, 50), abs=3)
    assert (columns.max(), rows.max()) == pytest.approx((100, 50), abs=3)


def test_labels_are_written_each_in_its_own_colour() -> None:
    plain = drawn(f"cat{BOX}", "<OD>")
    assert changed(plain)[:18].any(), "the label stands above the box"
    other = drawn(f"cat{BOX}dog<loc_700><loc_200><loc_900><loc_800>", "<OD>")
    same = drawn(f"cat{BOX}cat<loc_700><loc_200><loc_900><loc_800>", "<OD>")
    edge = (50, 140)
    assert tuple(same[edge]) == tuple(plain[50, 20])
    assert tuple(other[edge]) != tuple(plain[50, 20])


def test_the_picture_itself_is_not_changed() -> None:
    before = GREY.copy()
    drawn(f"cat{BOX}", "<OD>")
    assert (before == GREY).all()


def test_text_and_another_picture_are_refused() -> None:
    with pytest.raises(InputError, match="answer to <CAPTION> is text"):
        draw(GREY, parse_answer("a car", "<CAPTION>", SIZE))
    with pytest.raises(InputError, match=r"must be a florence_onnx.Result, not dict"):
        draw(GREY, {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="picture of 300x100 pixels, this one has 200x100"):
        draw(GREY, parse_answer(BOX, "<REGION_PROPOSAL>", (300, 100)))


# The command line


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("one.png", "two.png")]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed, 40, 60)).save(path)
    return [str(path) for path in paths]


def test_one_picture_is_drawn_to_a_file(photos: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "drawn.jpg"
    assert main(["run", photos[0], "--task", "od", "--draw", str(out), *MODEL]) == 0
    with Image.open(out) as drawing:
        assert drawing.size == (60, 40)
    assert [path.name for path in out.parent.iterdir()] == ["drawn.jpg"]


@pytest.mark.parametrize("answer", ["boxes", "polygons", "quadrilaterals"])
def test_the_answer_to_a_prompt_is_drawn(
    photos: list[str], tmp_path: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "florence_onnx.tokenizer.Tokenizer.decode", lambda self, ids: f"defect{QUAD}"
    )
    out = tmp_path / "drawn.png"
    command = ["run", photos[0], "--prompt", "detect", "--answer", answer, "--draw", str(out)]
    assert main([*command, *MODEL]) == 0
    before, after = np.asarray(Image.open(photos[0])), np.asarray(Image.open(out))
    assert (before != after).any(axis=-1).sum() > 60


def test_several_pictures_are_drawn_to_a_folder(photos: list[str], tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    assert main(["run", *photos, "--task", "od", "--draw", str(out), *MODEL]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "two.png"]


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("caption", "a.png", "--draw needs a task that answers with places: ocr_with_region, od,"),
        ("<DocVQA>When?", "a.png", "--draw needs a task that answers with places"),
        ("<DocVQA>When?", "a.png", "or a --prompt with --answer"),
        ("od", "a.xyz", "ends in no picture format; use .png or .jpg, or name a folder"),
        ("od", "a", "ends in no picture format"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_work(
    photos: list[str], task: str, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", photos[0], "--task", task, "--draw", target, "--model", "no-such"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_two_pictures_of_one_name(photos: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    images = [photos[0], photos[0].replace("one.png", "../one.jpg")]
    assert main(["run", *images, "--task", "od", "--draw", "out", "--model", "no-such"]) == 2
    assert "would both be drawn to out/one.png" in capsys.readouterr().err


def test_a_picture_is_never_drawn_over_one_that_was_asked_about(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(photos[1])
    before = [Path(photo).read_bytes() for photo in photos]
    for images, target, message in (
        (photos[:1], photos[0], "would be drawn over"),
        ([str(link)], photos[1], "would be drawn over"),
        (photos, str(tmp_path), "would be drawn over"),
        ([str(tmp_path / "none" / "two.jpg"), photos[1]], str(tmp_path), "would be drawn over"),
    ):
        assert main(["run", *images, "--task", "od", "--draw", target, *MODEL]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
    assert [Path(photo).read_bytes() for photo in photos] == before


def states(folder: Path) -> dict[str, tuple[int, ...]]:
    """What changes when files are written or replaced, but not when they are read."""
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (at.st_ino, at.st_mode, at.st_size, at.st_mtime_ns) for name, at in found.items()}


def test_a_file_that_is_no_drawing_is_never_replaced(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "holidays"
    folder.mkdir()
    for name in ("one.png", "two.png", "empty.png"):
        Image.fromarray(picture(7)).save(folder / name)
    (folder / "empty.png").write_bytes(b"")
    (folder / "nowhere.png").symlink_to(tmp_path / "gone")
    before = states(folder)
    for images, target in (
        *((photos[:1], folder / name) for name in before),
        (photos, folder),
        (photos[:1], folder),
    ):
        command = ["run", *images, "--task", "od", "--draw", str(target), "--model", "no-such"]
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "exists and is not marked as a drawing of florence-onnx: name another" in err
    assert states(folder) == before


def test_a_file_that_appears_meanwhile_is_not_replaced(
    photos: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "drawn.png"

    def draw_late(*arguments: Any) -> Any:
        out.write_bytes(b"mine")
        return draw(*arguments)

    monkeypatch.setattr(drawings, "draw", draw_late)
    assert main(["run", photos[0], "--task", "od", "--draw", str(out), *MODEL]) == 2
    assert "exists and is not marked as a drawing" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "tif"])
def test_a_drawing_is_drawn_again(photos: list[str], tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"drawn.{ending}"
    for photo in photos:
        assert main(["run", photo, "--task", "od", "--draw", str(out), *MODEL]) == 0
        with Image.open(out) as drawing:
            assert drawing.size == (60, 40)
            assert drawing.getexif()[0x0131] == "drawn by florence-onnx"
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png", out.name}


def test_a_drawing_through_a_link(photos: list[str], tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "drawn.png", tmp_path / "link.png"
    assert main(["run", photos[0], "--task", "od", "--draw", str(real), *MODEL]) == 0
    link.symlink_to(real)
    before = real.stat().st_ino
    assert main(["run", photos[1], "--task", "od", "--draw", str(link), *MODEL]) == 0
    assert link.is_symlink()
    assert real.stat().st_ino != before


def test_names_that_some_file_systems_take_for_equal(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first, second in (("a", "A"), ("\u00e9", "e\u0301")):
        images = [str(tmp_path / f"{name}.png") for name in (first, second)]
        command = ["run", *images, "--task", "od", "--draw", "out", "--model", "no-such"]
        assert main(command) == 2
        assert "would both be drawn to" in capsys.readouterr().err


def test_a_full_disk_keeps_the_drawing_that_was_there(
    photos: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        Path(arguments[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    out = tmp_path / "drawn.png"
    command = ["run", photos[0], "--task", "od", "--draw", str(out), *MODEL]
    assert main(command) == 0
    before = out.read_bytes()
    monkeypatch.setattr(Image.Image, "save", fail)
    assert main(command) == 2
    assert f"cannot write {out}: No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"one.png", "two.png", "drawn.png"}


def test_an_answer_is_printed_before_its_drawing_fails(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "drawn.png"
    assert main(["run", photos[0], "--task", "od", "--json", "--draw", str(out), *MODEL]) == 2
    printed, err = capsys.readouterr()
    assert json.loads(printed)["image"] == photos[0]
    assert "cannot write" in err


def test_a_drawing_that_fails_does_not_stop_the_others(
    photos: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn"
    (out / "one.png").mkdir(parents=True)
    assert main(["run", *photos, "--task", "od", "--json", "--draw", str(out), *MODEL]) == 2
    printed, err = capsys.readouterr()
    assert [json.loads(line)["image"] for line in printed.splitlines()] == photos
    assert (out / "two.png").is_file()
    assert f"florence-onnx: {photos[0]}: cannot write {out / 'one.png'}" in err
