"""What convert writes, read by the packages that it is for."""

import base64
import csv
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Task
from florence_onnx.converting.reading import read_labels
from florence_onnx.converting.supervision import detections
from florence_onnx.converting.table import COLUMNS
from tests.helpers.annotations import CAT, POLYGON, SIZE, answer, answers, convert
from tests.helpers.kills import posix

Lines = list[dict[str, Any]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return answers(tmp_path / "photos")


# Parquet


def test_parquet_is_the_table_of_csv(tmp_path: Path, lines: Lines) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(convert(tmp_path, lines, "parquet"))
    with convert(tmp_path, lines, "csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == [*COLUMNS]
    found = table.to_pylist()
    for row, one in zip(rows, found, strict=True):
        for name in ("path", "hash", "task", "input", "text", "label"):
            assert row[name] == (one[name] or "")
        for name in ("width", "height", "score", "x1", "y1", "x2", "y2"):
            assert row[name] == ("" if one[name] is None else str(one[name]))
        assert (row["outlines"] == "") == (one["outlines"] is None)
    assert found[3]["outlines"][0] == pytest.approx([0.1, 0.05, 100.1, 0.05, 100.1, 50.05])


def test_a_table_without_things_has_its_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = [answer(tmp_path / "photos", "a.png", Task.CAPTION, "A cat")]
    schema = parquet.read_table(convert(tmp_path, lines, "parquet")).schema
    assert str(schema.field("score").type) == "double"
    assert str(schema.field("outlines").type).startswith("list<")


@posix
@pytest.mark.parametrize("to", ["csv", "parquet", "supervision"])
def test_tables_with_names_that_are_no_text(tmp_path: Path, to: str) -> None:
    for package in {"parquet": ["pyarrow"], "supervision": ["supervision"]}.get(to, []):
        pytest.importorskip(package)
    lines = [answer(tmp_path / "photos", "a.png", Task.OD, CAT, path=os.fsdecode(b"\xff.png"))]
    out = convert(tmp_path, lines, to)
    assert rb"\udcff.png" in out.read_bytes()


# supervision


def test_detections(tmp_path: Path, lines: Lines) -> None:
    supervision = pytest.importorskip("supervision")
    convert(tmp_path, lines, "coco")
    labels = read_labels(tmp_path / "annotations.jsonl")
    numbers = {name: number for number, name in enumerate(labels.names)}
    cat, polygon, quad, nothing = (detections(one, numbers) for one in labels.pictures)
    assert cat.xyxy.tolist() == [pytest.approx([20.1, 20.05, 99.9, 79.95])]
    assert (cat.class_id.tolist(), cat.data["class_name"].tolist()) == ([1], ["cat"])
    assert cat.confidence.tolist() == [0.25]
    assert cat.mask is None
    assert polygon.mask.shape == (1, *SIZE[::-1])
    assert polygon.mask.sum() == pytest.approx(2500, rel=0.06)
    assert quad.mask.sum() == pytest.approx(5000, rel=0.06)
    assert len(nothing) == 0
    merged = supervision.Detections.merge([cat, cat])
    assert len(merged.with_nms(0.5)) == 1


def test_the_table_of_supervision(tmp_path: Path, lines: Lines) -> None:
    pytest.importorskip("supervision")
    with convert(tmp_path, lines, "supervision").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["class_id"], row["class_name"]) for row in rows] == [
        *(("a/1.png", "1", "cat"), ("b/1.jpg", "2", "object"), ("b/1.png", "0", "SALE"))
    ]
    assert [float(rows[0][side]) for side in ("x_min", "y_min", "x_max", "y_max")] == (
        pytest.approx([20.1, 20.05, 99.9, 79.95], abs=1e-4)
    )
    assert float(rows[0]["confidence"]) == 0.25


def test_supervision_reads_coco_yolo_and_voc(tmp_path: Path, lines: Lines) -> None:
    supervision = pytest.importorskip("supervision")
    lines = [line for line in lines if line["path"] in ("a/1.png", "c.png")]
    lines.append(answer(tmp_path / "photos", "c.png", Task.OD, "dog<loc_0><loc_0><loc_9><loc_99>"))
    coco, yolo = convert(tmp_path, lines, "coco"), convert(tmp_path, lines, "yolo")
    photos = str(tmp_path / "photos")
    by_coco = supervision.DetectionDataset.from_coco(photos, str(coco))
    assert by_coco.classes == ["cat", "dog"]
    assert sorted(Path(path).name for path in by_coco.image_paths) == ["1.png", "c.png"]
    by_yolo = supervision.DetectionDataset.from_yolo(
        *(str(yolo / "images/train"), str(yolo / "labels/train"), str(yolo / "data.yaml"))
    )
    assert by_yolo.classes == ["cat", "dog"]
    (found,) = by_yolo.annotations.values()  # It reads one folder, none inside.
    assert found.xyxy[0].tolist() == pytest.approx([0.1, 0.05, 1.9, 9.95], abs=0.01)
    voc = convert(tmp_path, lines, "voc")
    by_voc = supervision.DetectionDataset.from_pascal_voc(photos, str(voc))
    assert by_voc.classes == ["dog"]


# LabelMe


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Exception ignored in")  # Its own.
def test_labelme_opens_what_is_written(tmp_path: Path, lines: Lines) -> None:
    label_file = pytest.importorskip("labelme._label_file")
    out = convert(tmp_path, lines, "labelme")
    found = {}
    for path in sorted(out.rglob("*.json")):
        opened = label_file.LabelFile(str(path))
        size = Image.open(io.BytesIO(opened.image_data)).size
        assert size == SIZE
        found[path.relative_to(out).as_posix()] = [
            (shape["label"], shape["shape_type"], len(shape["points"])) for shape in opened.shapes
        ]
        shapes = [
            {name: shape[name] for name in shape if name != "other_data"} for shape in opened.shapes
        ]
        saved = str(tmp_path / "saved.json")
        opened.save(saved, shapes, opened.image_path, SIZE[1], SIZE[0], opened.image_data)
        assert label_file.LabelFile(saved).shapes == opened.shapes
    assert found == {
        "a/1.json": [("cat", "rectangle", 2)],
        "b/1.json": [("object", "polygon", 3)],
        "b/1_2.json": [("SALE", "polygon", 4)],
        "c.json": [],
    }


@pytest.mark.parametrize("orientation", [1, 6])
def test_labelme_holds_pictures_of_shards_upright(tmp_path: Path, orientation: int) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    stored = SIZE if orientation == 1 else SIZE[::-1]
    Image.new("RGB", stored, (200, 30, 30)).save(file, "JPEG", exif=exif)
    shard, data = tmp_path / "s.tar", file.getvalue()
    with tarfile.open(shard, "w") as tar:
        member = tarfile.TarInfo("x/1.jpg")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    place = {"path": f"{shard}/x/1.jpg", "source": str(shard)}
    line = answer(tmp_path / "photos", "1.jpg", Task.OD, CAT)
    line |= {**place, "hash": hashlib.sha256(data).hexdigest()}
    out = convert(tmp_path, [line], "labelme")
    (path,) = out.rglob("*.json")
    held = base64.b64decode(json_of(path)["imageData"])
    assert (held == data) == (orientation == 1)
    picture = Image.open(io.BytesIO(held))
    assert picture.size == SIZE
    assert np.asarray(picture)[50, 50].tolist() == pytest.approx([200, 30, 30], abs=5)
    label_file = pytest.importorskip("labelme._label_file")
    assert label_file.LabelFile(str(path)).shapes[0]["label"] == "cat"


def json_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# Pascal VOC


def test_pascal_voc_reads_what_is_written(tmp_path: Path, lines: Lines) -> None:
    pascal = pytest.importorskip("pascal")
    lines.append(answer(tmp_path / "photos", "c.png", Task.OD, CAT + CAT.replace("cat", "dog")))
    out = convert(tmp_path, lines, "voc")
    for name, labels in (("a/1.xml", ["cat"]), ("c.xml", ["cat", "dog"]), ("b/1.xml", ["object"])):
        read = pascal.annotation_from_xml(out / name)
        assert (int(read.size.width), int(read.size.height)) == SIZE
        assert [one.name for one in read] == labels
    box = next(iter(pascal.annotation_from_xml(out / "a/1.xml"))).bndbox
    assert [int(getattr(box, side)) for side in ("xmin", "ymin", "xmax", "ymax")] == [
        *(21, 21, 100, 80)
    ]


# Outlines that are none


def test_outlines_of_fewer_than_three_points_are_boxes(tmp_path: Path) -> None:
    line = answer(tmp_path / "photos", "a.png", Task.REFERRING_EXPRESSION_SEGMENTATION, POLYGON)
    for points in ([1.0, 2.0], [1.0, 2.0, 9.0, 8.0], [1.0, 2.0, 9.0, 8.0, 5.0], []):
        line["record"]["detections"][0] |= {"polygons": [points], "box": [1.0, 2.0, 9.0, 8.0]}
        folder = tmp_path / str(len(points))
        folder.mkdir()
        coco = json_of(convert(folder, [line], "coco"))
        assert coco["annotations"][0]["segmentation"] == []
        assert coco["annotations"][0]["area"] == 48
        (shape,) = json_of(convert(folder, [line], "labelme") / "a.json")["shapes"]
        assert shape["shape_type"] == "rectangle"
        text = (convert(folder, [line], "yolo") / "labels/train/a.txt").read_text()
        assert len(text.split()) == 5
