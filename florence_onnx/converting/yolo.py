"""Data set for YOLO: pictures, a text of boxes or outlines for each, data.yaml, classes.txt."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from florence_onnx.converting.reading import Labelled, Labels, picture_files, read_file
from florence_onnx.staging import staged_folder


def write_yolo(labels: Labels, folder: Path, share: float) -> None:
    """Copies the pictures to ``images`` and writes ``labels``, each in ``train`` and ``val``.

    Things with polygons or quadrilaterals become lines of outlines, other things lines of boxes, in
    parts of the width and height.

    Args:
        labels: The pictures.
        folder: The folder to make.
        share: Part of the pictures for validation, 0 to 1. With 0, ``val`` is ``train`` in
            data.yaml, because YOLO needs a folder for validation.

    Raises:
        InputError: A picture is missing or has changed.
        OutputExistsError: The folder exists.
        OSError: The folder cannot be written.
    """
    numbers = labels.numbers
    files = picture_files(labels)
    with staged_folder(folder) as staging:
        for picture in labels.pictures:
            part = "val" if picture.is_held_out(share) else "train"
            stem = f"{part}/{labels.stems[picture.name]}"
            _write(staging / f"images/{stem}{picture.suffix}", read_file(picture, files))
            lines = "".join(line + "\n" for line in yolo_lines(picture, numbers))
            _write(staging / f"labels/{stem}.txt", lines.encode())
        held_out = "val" if (staging / "images/val").exists() else "train"
        trained = "train" if (staging / "images/train").exists() else "val"
        # JSON is also YAML, with any characters in labels.
        names = "".join(f"  {number}: {json.dumps(name)}\n" for name, number in numbers.items())
        content = f"train: images/{trained}\nval: images/{held_out}\nnames:\n{names or '  {}'}"
        _write(staging / "data.yaml", content.encode())
        lines = "".join(f"{' '.join(name.split())}\n" for name in numbers)
        _write(staging / "classes.txt", lines.encode())


def yolo_lines(picture: Labelled, numbers: Mapping[str, int]) -> Iterator[str]:
    """Makes the lines of a picture: number of the class, then the box or an outline, 0 to 1.

    Args:
        picture: The picture.
        numbers: Label -> number of the class, for all labels of the picture.
    """
    width, height = picture.size
    for found in picture.found:
        x1, y1, x2, y2 = found.box
        middle = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        for points in found.polygons or [middle]:
            parts = (value / (height if i % 2 else width) for i, value in enumerate(points))
            values = " ".join(f"{min(max(part, 0), 1):.6f}" for part in parts)
            yield f"{numbers[found.label]} {values}"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
