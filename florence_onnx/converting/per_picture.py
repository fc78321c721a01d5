"""Formats of one file per picture: Pascal VOC, LabelMe, and text beside pictures for trainers."""

import base64
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from florence_onnx.converting.lines import Found
from florence_onnx.converting.reading import Labelled, Labels, picture_files, read_file
from florence_onnx.images.bitmap import write_bitmap
from florence_onnx.images.pixels import is_turned, to_rgb
from florence_onnx.staging import staged_folder

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_files(
    labels: Labels, folder: Path, suffix: str, content: Callable[[Labelled], str]
) -> None:
    """Writes a file for every picture, in the folders that the pictures have.

    Raises:
        OutputExistsError: The folder exists.
        OSError: The folder cannot be written.
    """
    with staged_folder(folder) as staging:
        for picture in labels.pictures:
            path = staging / (labels.stems[picture.name] + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(picture).encode())


def write_voc(labels: Labels, folder: Path) -> None:
    """Writes Pascal VOC's XML: whole pixels counted from 1, the last one included.

    Raises as `write_files`.
    """
    write_files(labels, folder, ".xml", _voc)


def _voc(picture: Labelled) -> str:
    width, height = picture.size
    root = ElementTree.Element("annotation")
    path = PurePosixPath(picture.name)
    _add(root, folder=path.parent.name, filename=path.name, path=picture.name)
    _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=0)
    for found in picture.found:
        thing = ElementTree.SubElement(root, "object")
        _add(thing, name=found.label, pose="Unspecified", truncated=0, difficult=0)
        x1, y1, x2, y2 = found.box
        box = ElementTree.SubElement(thing, "bndbox")
        _add(box, xmin=min(math.floor(x1) + 1, width), ymin=min(math.floor(y1) + 1, height))
        _add(box, xmax=max(math.ceil(x2), 1), ymax=max(math.ceil(y2), 1))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = _NO_XML.sub("", str(text))


def write_labelme(labels: Labels, folder: Path) -> None:
    """Writes LabelMe's JSON, with the name of the picture's file, or with the picture itself.

    Raises:
        InputError: A picture that has no own file is missing or has changed.
        OutputExistsError: The folder exists.
        OSError: The folder cannot be written.
    """
    files = picture_files(labels)

    def labelme(picture: Labelled) -> str:
        place = (folder / labels.stems[picture.name]).parent
        item, image = files[picture.name], b""
        name = os.path.relpath(item.file, place)
        if item.span is not None or item.load is not None:
            name = (folder / labels.stems[picture.name]).name + picture.suffix
            data = read_file(picture, files)
            # LabelMe turns pictures from files, but not pictures inside the JSON.
            image = write_bitmap(to_rgb(data)) if is_turned(data) else data
        return json.dumps(labelme_content(picture, name, image), indent=2) + "\n"

    write_files(labels, folder, ".json", labelme)


def labelme_content(picture: Labelled, name: str, image: bytes) -> dict[str, Any]:
    """Makes LabelMe's JSON of a picture.

    Args:
        picture: The picture.
        name: Path of the picture file, relative to the folder of the JSON file.
        image: Bytes of the picture file; empty where LabelMe reads the file.
    """
    width, height = picture.size
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [shape for found in picture.found for shape in _shapes(found)],
        "imagePath": name,
        "imageData": base64.b64encode(image).decode("ascii") or None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shapes(found: Found) -> list[dict[str, Any]]:
    x1, y1, x2, y2 = found.box
    kind = "polygon" if found.polygons else "rectangle"
    return [
        {
            "label": found.label,
            "points": [list(point) for point in zip(points[::2], points[1::2], strict=True)],
            "group_id": None,
            "shape_type": kind,
            "flags": {},
        }
        for points in found.polygons or [[x1, y1, x2, y2]]
    ]


@dataclass(frozen=True)
class Words:
    """Rules for the text beside a picture, from the answers about the picture."""

    prefix: str = ""
    suffix: str = ""
    separator: str = ", "
    """Text between answers, and between labels."""
    banned: Sequence[str] = ()
    """Texts that are left out, in upper or lower case, with blanks or underscores."""
    first: Sequence[str] = ()
    """Texts that come first, in this order, found or not."""
    underscores: bool = False
    """Tells whether the blanks of labels become underscores."""

    def text(self, picture: Labelled) -> str:
        """Joins texts and labels of the answers, each once."""
        parts = [*self.first]
        for answer in picture.answers.values():
            labels = [found.label for found in answer.found]
            styled = [one.replace(" ", "_") if self.underscores else one for one in labels]
            parts += styled if answer.names else [answer.text]
        out = set(map(_key, self.banned))
        once: dict[str, str] = {}
        for part in parts:
            if _key(part) not in out:
                once.setdefault(_key(part), part)
        return self.prefix + self.separator.join(once.values()) + self.suffix


def _key(text: str) -> str:
    """Makes a key that is equal for ``Red car`` and ``red_car``."""
    return text.lower().replace("_", " ")


def write_sidecars(labels: Labels, folder: Path, words: Words) -> None:
    """Writes a text file for every picture, as trainers of picture models read them.

    Raises as `write_files`.
    """
    write_files(labels, folder, ".txt", lambda picture: words.text(picture) + "\n")
