"""COCO's JSON: boxes, and polygons as segmentations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florence_onnx.converting.lines import Found
from florence_onnx.converting.reading import Labels
from florence_onnx.files import write_whole


def write_coco(labels: Labels, path: Path) -> None:
    """Writes the annotations of all pictures."""
    write_whole(path, json.dumps(coco(labels, labels.names)))


def coco(labels: Labels, names: Sequence[str]) -> dict[str, Any]:
    """Makes the annotations of all pictures.

    Images, categories and annotations are numbered from 1. An annotation has its score as
    ``score``, so that the annotations can also be results for COCOeval.

    Args:
        labels: The pictures.
        names: Categories in the order of the numbers: all labels, and any further names.
    """
    categories = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, picture in enumerate(labels.pictures, 1):
        width, height = picture.size
        images.append({"id": image, "file_name": picture.name, "width": width, "height": height})
        for found in picture.found:
            place = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": categories[found.label],
            }
            annotations.append(place | _annotation(found))
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def _annotation(found: Found) -> dict[str, Any]:
    x1, y1, x2, y2 = found.box
    polygons = found.polygons
    area = sum(map(_area, polygons)) if polygons else (x2 - x1) * (y2 - y1)
    score = {} if found.score is None else {"score": found.score}
    return {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": area,
        "iscrowd": 0,
        "segmentation": polygons,
        **score,
    }


def _area(points: list[float]) -> float:
    """Computes an area by the shoelace formula."""
    xs, ys = points[::2], points[1::2]
    following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    pairs = zip(xs, ys, following, strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, (next_x, next_y) in pairs)) / 2
