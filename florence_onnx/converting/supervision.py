"""Answers for supervision: ``Detections`` per picture, and the table of ``CSVSink``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from florence_onnx.converting.reading import Labelled, Labels
from florence_onnx.converting.table import printable_name
from florence_onnx.files import whole_file
from florence_onnx.packages import require_packages


def detections(picture: Labelled, numbers: Mapping[str, int]) -> Any:
    """Makes ``supervision.Detections`` of the things in a picture.

    Args:
        picture: The picture.
        numbers: Label -> number of the class, for all labels of the picture.

    Returns:
        ``supervision.Detections``: ``xyxy`` float32 [N,4] in pixels, ``class_id`` int64 [N],
        ``data["class_name"]``; ``confidence`` float32 [N] where all have scores; ``mask`` bool
        [N,H,W] where all have outlines.

    Raises:
        MissingDependencyError: supervision is not installed.
    """
    require_packages(("supervision",), "supervision.Detections", "supervision")
    import supervision

    found = list(picture.found)
    if not found:
        nothing = supervision.Detections.empty()
        nothing.data["class_name"] = np.array([], np.str_)
        return nothing
    scores = [one.score for one in found if one.score is not None]
    return supervision.Detections(
        xyxy=np.array([one.box for one in found], np.float32),
        class_id=np.array([numbers[one.label] for one in found], np.int64),
        confidence=np.array(scores, np.float32) if len(scores) == len(found) else None,
        mask=_masks(picture) if all(one.polygons for one in found) else None,
        data={"class_name": np.array([one.label for one in found])},
    )


def write_supervision(labels: Labels, path: Path) -> None:
    """Writes the table, with the picture of each row as ``image``.

    Raises:
        MissingDependencyError: supervision is not installed.
        OSError: The file cannot be written.
    """
    require_packages(("supervision",), "--to supervision", "supervision")
    import supervision

    numbers = labels.numbers
    with whole_file(path) as partial, supervision.CSVSink(str(partial)) as sink:
        for picture in labels.pictures:
            sink.append(detections(picture, numbers), {"image": printable_name(picture.name)})


def _masks(picture: Labelled) -> Any:
    """Makes masks, bool [N,H,W]: the union of the polygons of each thing."""
    import supervision

    masks = np.zeros((len(list(picture.found)), *picture.size[::-1]), bool)
    for mask, one in zip(masks, picture.found, strict=True):
        for points in one.polygons:
            corners = np.array(points, np.int32).reshape(-1, 2)
            mask |= supervision.polygon_to_mask(corners, picture.size).astype(bool)
    return masks
