"""Answers of an annotation in the formats of other tools."""

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from florence_onnx import Task
from florence_onnx.cli.program import main
from florence_onnx.converting.reading import Labelled, Labels
from tests.helpers.annotations import CAT, SIZE, answer, answers
from tests.helpers.tiny import TINY, picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def lines(photos: Path) -> list[dict[str, Any]]:
    return answers(photos)


Convert = Callable[..., Path]


@pytest.fixture
def convert(tmp_path: Path, lines: list[dict[str, Any]]) -> Convert:
    """Converts the lines to a new file or folder."""

    def converted(to: str, *arguments: object, status: int = 0) -> Path:
        annotations, out = tmp_path / "annotations.jsonl", tmp_path / f"out-{to}"
        annotations.write_text("".join(json.dumps(line) + "\n" for line in lines))
        command = ["convert", annotations, "--to", to, "--out", out, *arguments]
        assert main([*map(str, command)]) == status
        return out

    return converted


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_coco(convert: Convert) -> None:
    content = json.loads(convert("coco").read_text())
    assert [(one["id"], one["file_name"]) for one in content["images"]] == [
        *((1, "a/1.png"), (2, "b/1.jpg"), (3, "b/1.png"), (4, "c.png"))
    ]
    assert content["categories"] == [
        *({"id": 1, "name": "SALE"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "object"})
    ]
    cat, polygon, quad = content["annotations"]
    assert (cat["id"], cat["image_id"], cat["category_id"], cat["iscrowd"]) == (1, 1, 2, 0)
    assert cat["bbox"] == pytest.approx([20.1, 20.05, 79.8, 59.9])
    assert cat["area"] == pytest.approx(79.8 * 59.9)
    assert (cat["segmentation"], cat["score"]) == ([], 0.25)
    assert polygon["segmentation"] == [pytest.approx([0.1, 0.05, 100.1, 0.05, 100.1, 50.05])]
    assert polygon["area"] == pytest.approx(100 * 50 / 2)
    assert len(quad["segmentation"][0]) == 8
    assert quad["area"] == pytest.approx(100 * 50)


@pytest.mark.filterwarnings("default:__array__ implementation:DeprecationWarning")
def test_coco_loads_and_scores(convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth = coco.COCO(str(convert("coco")))
    assert truth.annToMask(truth.loadAnns(2)[0]).sum() == pytest.approx(2500, rel=0.05)
    found = truth.loadRes(json.loads(json.dumps(truth.dataset["annotations"])))
    scored = cocoeval.COCOeval(truth, found, "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    capsys.readouterr()
    assert scored.stats[0] == pytest.approx(1)


def test_yolo(convert: Convert, photos: Path) -> None:
    out = convert("yolo")
    assert files(out) == [
        *("classes.txt", "data.yaml"),
        *("images/train/a/1.png", "images/train/b/1.jpg", "images/train/b/1_2.png"),
        "images/train/c.png",
        *("labels/train/a/1.txt", "labels/train/b/1.txt", "labels/train/b/1_2.txt"),
        "labels/train/c.txt",
    ]
    assert (out / "images/train/b/1_2.png").read_bytes() == (photos / "b/1.png").read_bytes()
    assert (out / "labels/train/a/1.txt").read_text() == "1 0.300000 0.500000 0.399000 0.599000\n"
    polygon = (out / "labels/train/b/1.txt").read_text().split()
    assert polygon == ["2", "0.000500", "0.000500", "0.500500", "0.000500", "0.500500", "0.500500"]
    assert (out / "labels/train/c.txt").read_text() == ""
    assert (out / "classes.txt").read_text() == "SALE\ncat\nobject\n"
    assert (out / "data.yaml").read_text() == (
        'train: images/train\nval: images/train\nnames:\n  0: "SALE"\n  1: "cat"\n  2: "object"\n'
    )


def test_classes_keep_their_numbers(
    convert: Convert, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    """As new labels are found, and as others are no longer."""
    classes = tmp_path / "classes.txt"
    classes.write_text("zebra\ncat\n\ncat\n")
    out = convert("yolo", "--classes", classes)
    assert (out / "classes.txt").read_text() == "zebra\ncat\nSALE\nobject\n"
    assert (out / "labels/train/a/1.txt").read_text().startswith("1 ")
    assert '  0: "zebra"\n  1: "cat"\n  2: "SALE"\n' in (out / "data.yaml").read_text()
    content = json.loads(convert("coco", "--classes", out / "classes.txt").read_text())
    assert [one["name"] for one in content["categories"]] == ["zebra", "cat", "SALE", "object"]
    assert content["annotations"][0]["category_id"] == 2


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_classes_that_cannot_be_read(
    convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    classes = tmp_path / "classes.txt"
    if content is not None:
        classes.write_bytes(content)
    assert not convert("coco", "--classes", classes, status=2).exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "classes.txt cannot be read" in err


def test_a_part_of_yolo_for_validation(convert: Convert, lines: list[dict[str, Any]]) -> None:
    contents = {line["path"]: int(line["hash"][:8], 16) for line in lines}
    low, high = sorted(("a/1.png", "c.png"), key=contents.__getitem__)
    parts = {low: "val", high: "train"}
    share = (contents[low] + contents[high]) / 2 / (1 << 32)
    out = convert("yolo", "--split", share)
    for name in ("a/1.png", "c.png"):
        assert (out / "images" / parts[name] / name).is_file()
        assert (out / "labels" / parts[name] / name).with_suffix(".txt").is_file()
    assert "train: images/train\nval: images/val\n" in (out / "data.yaml").read_text()


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_yolo_wants_the_pictures_as_they_were(
    convert: Convert, photos: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    convert("coco")
    if change == "missing":
        (photos / "c.png").unlink()
    else:
        (photos / "c.png").write_bytes(b"x")
    capsys.readouterr()
    out = convert("yolo", status=2)
    assert "c.png" in capsys.readouterr().err
    assert not out.exists()


def test_voc(convert: Convert, lines: list[dict[str, Any]], photos: Path) -> None:
    lines.append(answer(photos, "d.png", Task.OD, "<&\x01é>" + CAT))
    out = convert("voc")
    assert files(out) == ["a/1.xml", "b/1.xml", "b/1_2.xml", "c.xml", "d.xml"]
    root = ElementTree.parse(out / "a/1.xml").getroot()  # noqa: S314
    assert [root.findtext(name) for name in ("folder", "filename", "path")] == [
        *("a", "1.png", "a/1.png")
    ]
    assert [root.findtext(f"size/{name}") for name in ("width", "height", "depth")] == [
        *("200", "100", "3")
    ]
    (thing,) = root.findall("object")
    assert thing.findtext("name") == "cat"
    sides = [thing.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    assert sides == ["21", "21", "100", "80"]
    name = ElementTree.parse(out / "d.xml").getroot().findtext("object/name")  # noqa: S314
    assert name == lines[-1]["record"]["detections"][0]["label"].replace("\x01", "")


def test_labelme(convert: Convert, photos: Path) -> None:
    out = convert("labelme")
    assert files(out) == ["a/1.json", "b/1.json", "b/1_2.json", "c.json"]
    for name, file in (("a/1", "a/1.png"), ("b/1", "b/1.jpg"), ("b/1_2", "b/1.png")):
        content = json.loads((out / f"{name}.json").read_text())
        assert ((out / name).parent / content["imagePath"]).resolve() == photos / file
        assert (content["imageWidth"], content["imageHeight"]) == SIZE
        (shape,) = content["shapes"]
        assert all(len(point) == 2 for point in shape["points"])
        kinds = {"a/1": ("rectangle", 2), "b/1": ("polygon", 3), "b/1_2": ("polygon", 4)}
        assert (shape["shape_type"], len(shape["points"])) == kinds[name]


def test_csv(convert: Convert) -> None:
    with convert("csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["task"], row["label"], row["text"]) for row in rows] == [
        ("a/1.png", "od", "cat", ""),
        ("a/1.png", "od", "dot", ""),
        ("a/1.png", "caption", "", "A cat, red"),
        ("b/1.jpg", "referring_expression_segmentation", "object", ""),
        ("b/1.png", "ocr_with_region", "SALE", ""),
    ]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2")] == pytest.approx(
        [20.1, 20.05, 99.9, 79.95]
    )
    assert (rows[0]["width"], rows[0]["height"], rows[0]["score"]) == ("200", "100", "0.25")
    assert len(json.loads(rows[3]["outlines"])[0]) == 6


def test_a_number_is_no_name_of_another_picture() -> None:
    """Text beside pictures would else be another picture's."""
    names = ["a.jpg", "a.png", "a_2.png", "A_3.png"]
    labels = Labels([Labelled(name, source="", content="", size=(9, 9)) for name in names])
    stems = ["a", "a_4", "a_2", "A_3"]
    assert labels.stems == dict(zip(names, stems, strict=True))


def test_text_beside_pictures(convert: Convert) -> None:
    out = convert("sidecar")
    assert files(out) == ["a/1.txt", "b/1.txt", "b/1_2.txt", "c.txt"]
    assert (out / "a/1.txt").read_text() == "cat, dot, A cat, red\n"


def test_words_of_the_text_beside_pictures(
    convert: Convert, lines: list[dict[str, Any]], photos: Path
) -> None:
    text = "".join(f"{name}<loc_1><loc_1><loc_9><loc_9>" for name in ("big car", "Dog", "dog", "x"))
    lines.append(answer(photos, "e.png", Task.OD, text))
    style = ("--banned", "X", "--first", "mine", "dog", "--tag-style", "underscores")
    out = convert("sidecar", *style, "--prefix", "<", "--suffix", ">", "--separator", "; ")
    assert (out / "e.txt").read_text() == "<mine; dog; big_car>\n"


@pytest.mark.parametrize("style", ["blanks", "underscores"])
@pytest.mark.parametrize("word", ["Big car", "big_car"])
@pytest.mark.parametrize("option", ["--banned", "--first"])
def test_a_word_is_known_in_either_style(
    convert: Convert, lines: list[dict[str, Any]], photos: Path, style: str, word: str, option: str
) -> None:
    text = "".join(f"{name}<loc_1><loc_1><loc_9><loc_9>" for name in ("big car", "red dog"))
    lines.append(answer(photos, "e.png", Task.OD, text))
    dog = "red_dog" if style == "underscores" else "red dog"
    out = convert("sidecar", "--tag-style", style, option, word)
    expected = dog if option == "--banned" else f"{word}, {dog}"
    assert (out / "e.txt").read_text() == expected + "\n"


def test_tasks_and_scores_that_are_taken(
    convert: Convert, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    lines[1]["record"]["detections"][0]["scores"]["score"] = 0.9
    out = convert("csv", "--task", "od", "--min-score", "0.5")
    with out.open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["cat"]


def test_paths_that_lead_out(
    convert: Convert, lines: list[dict[str, Any]], photos: Path, tmp_path: Path
) -> None:
    names = ("../up.png", str(photos / "a/1.png"), "C:/x.png", "A/1.PNG")
    lines += [{**lines[1], "path": name} for name in names]
    out = convert("sidecar")
    inside = photos.relative_to("/") if photos.is_absolute() else photos
    assert {"__/up.txt", "C_/x.txt", f"{inside.as_posix()}/a/1.txt"} <= set(files(out))
    assert len({name.lower() for name in files(out)}) == 8
    assert not (tmp_path / "up.txt").exists()


@pytest.mark.parametrize("to", ["coco", "yolo", "voc", "labelme", "csv", "sidecar", "parquet"])
def test_what_annotate_writes_is_converted(tmp_path: Path, to: str) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")
    photo = tmp_path / "photos" / "1.png"
    photo.parent.mkdir()
    Image.fromarray(picture(3)).save(photo)
    annotations = tmp_path / "labelled" / "annotations.jsonl"
    command = ["annotate", str(photo.parent), "--task", "od", "caption", "ocr_with_region"]
    model = ["--model", str(TINY), "--threads", "1", "--max-new-tokens", "12"]
    assert main([*command, *model, "--out", str(annotations.parent)]) == 0
    out = tmp_path / "out"
    assert main(["convert", str(annotations), "--to", to, "--out", str(out)]) == 0
    assert out.exists()
    before = out.read_bytes() if out.is_file() else files(out)
    assert main(["convert", str(annotations), "--to", to, "--out", str(out)]) == 2
    assert before == (out.read_bytes() if out.is_file() else files(out))


def test_a_folder_is_no_file_of_lines_and_a_link_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("gone")
    for out, message in (("new", "annotations.jsonl"), ("link", "exists; choose another name")):
        assert main(["convert", str(tmp_path), "--to", "csv", "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("to", ["coco", "csv", "yolo", "voc", "labelme", "sidecar"])
def test_a_disk_that_is_full_is_told_of_the_file_to_write(
    convert: Convert,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
) -> None:
    """And nothing of unfinished files, whose names the user does not know."""

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def unwritable(self: Path, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error", str(self))

    for write, reason in ((full, "No space left on device"), (unwritable, "Input/output error")):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", write)
            out = convert(to, status=2)
        assert not out.exists()
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"{reason}: '{out}" in err
        assert ".partial" not in err
        assert ".florence-onnx" not in err


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), "does not exist"),
        ("", (), "no lines of any task"),
        ("[1]\n", (), "line 1"),
        ('{"task": "od"}\n', (), "line 1 is no annotation"),
    ],
)
def test_files_that_are_no_annotations(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    path = tmp_path / "annotations.jsonl"
    if content is not None:
        path.write_text(content)
    out = tmp_path / "out"
    assert main(["convert", str(path), "--to", "csv", "--out", str(out), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not out.exists()


def test_tasks_that_are_there_are_named(
    convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    convert("csv", "--task", "ocr", status=2)
    assert "no lines of ocr; there are caption, ocr_with_region, od, ref" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["coco", "yolo", "voc", "labelme", "supervision"])
def test_text_has_no_place_in_formats_of_things(
    convert: Convert, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    assert not convert(to, "--task", "caption", "ocr", status=2).exists()
    err = capsys.readouterr().err
    assert f"--to {to} needs answers that locate things; csv, parquet, sidecar also take" in err


@pytest.mark.parametrize(
    ("to", "arguments", "message"),
    [
        ("coco", ("--split", "0.2"), "--split is for --to yolo, not coco"),
        ("csv", ("--classes", "x"), "--classes is for --to coco and yolo and supervision, not csv"),
        *(
            ("yolo", (option, "underscores"), f"{option} is for --to sidecar, not yolo")
            for option in ("--prefix", "--suffix", "--separator", "--banned", "--first")
        ),
        ("yolo", ("--tag-style", "blanks"), "--tag-style is for --to sidecar, not yolo"),
        ("csv", ("--min-score", "0.5", "--task", "caption"), "--min-score is about things"),
        ("csv", ("--min-score", "nan"), "min_score is nan"),
        ("csv", ("--min-score", "2"), "min_score is 2.0"),
    ],
)
def test_options_without_an_effect(
    convert: Convert,
    capsys: pytest.CaptureFixture[str],
    to: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert not convert(to, *arguments, status=2).exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
