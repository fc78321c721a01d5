"""The pictures of an annotation file, with what was found in them."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from florence_onnx.annotate.journal import read_lines
from florence_onnx.annotate.sources import Item, find_items, frames_of, is_shard, place_of
from florence_onnx.annotate.video import frame_time, is_video
from florence_onnx.errors import InputError
from florence_onnx.files import open_regular
from florence_onnx.images.bitmap import SUFFIX

UNNAMED = "object"
"""The label of what a task has found without naming it."""


@dataclass(frozen=True)
class Found:
    """A thing in a picture."""

    label: str
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels."""
    outlines: tuple[tuple[float, ...], ...]
    """The polygons, or the quadrilateral: x, y, x, y, ... in pixels; empty where there is only a
    box."""
    score: float | None

    @property
    def polygons(self) -> list[list[float]]:
        """The outlines that have an area: of three points at least."""
        whole = (points[: len(points) // 2 * 2] for points in self.outlines)
        return [list(points) for points in whole if len(points) >= 6]

    @property
    def has_area(self) -> bool:
        """Whether the box is one: a model may give two equal corners."""
        return self.box[2] > self.box[0] and self.box[3] > self.box[1]


@dataclass(frozen=True)
class Answer:
    """The answer to a question about a picture."""

    task: str
    input: str | None
    text: str
    found: tuple[Found, ...]
    names: bool
    """Whether the task is one that locates."""


@dataclass
class Labelled:
    """A picture and the answers about it, the newest for every question."""

    path: str
    source: str
    content: str
    """SHA-256 of its file."""
    size: tuple[int, int]
    """(width, height)."""
    answers: dict[tuple[str, str | None], Answer] = field(default_factory=dict)
    name: str = ""
    """What it is called: its path, with the source before it where pictures of several sources
    have that path."""

    def __post_init__(self) -> None:
        self.name = self.name or self.path

    @property
    def found(self) -> Iterator[Found]:
        """What all answers locate, if it has an area."""
        for answer in self.answers.values():
            yield from (one for one in answer.found if one.has_area)

    @property
    def suffix(self) -> str:
        """That of its file, or of a file that is made of a frame of a video."""
        return SUFFIX if self.is_frame else PurePosixPath(self.path).suffix

    @property
    def is_frame(self) -> bool:
        """Whether it is a frame of a video."""
        return is_video(self.source) and frame_time(self.path) is not None

    def is_held_out(self, share: float) -> bool:
        """Whether the picture is among a share (0 to 1) that is chosen by content."""
        return int(self.content[:8], 16) < share * (1 << 32)


@dataclass(frozen=True)
class Labels:
    """All pictures of a file."""

    pictures: Sequence[Labelled]
    classes: Sequence[str] = ()
    """Labels that stand before the others, whether they occur or not."""

    @cached_property
    def names(self) -> list[str]:
        """The labels of `classes`, then others that occur, in alphabetical order."""
        found = {one.label for picture in self.pictures for one in picture.found}
        return [*self.classes, *sorted(found.difference(self.classes))]

    @property
    def numbers(self) -> dict[str, int]:
        """The place of each label, from 0."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def stems(self) -> dict[str, str]:
        """A relative path without suffix for every picture, of which no two are alike.

        Pictures keep their folders; of those that differ in their suffix only, or in letters' case,
        all but the first get a number.
        """
        stems: dict[str, str] = {}
        taken: set[str] = set()
        for picture in self.pictures:
            path = PurePosixPath(picture.name + SUFFIX * picture.is_frame)
            parts = ["__" if part == ".." else part.replace(":", "_") for part in path.parts]
            inside = PurePosixPath(*parts[path.is_absolute() :]).with_suffix("").as_posix()
            stem, number = inside, 1
            while stem.lower() in taken:
                number += 1
                stem = f"{inside}_{number}"
            taken.add(stem.lower())
            stems[picture.name] = stem
        return stems


def read_labels(
    path: Path,
    tasks: Collection[str] | None = None,
    min_score: float | None = None,
    classes: Sequence[str] = (),
) -> Labels:
    """The pictures of an annotation file in the order of their names, frames in that of time.

    Args:
        path: What ``florence-onnx annotate`` has written.
        tasks: The tasks whose answers are taken; all by default.
        min_score: What scores less is left out.
        classes: Labels that stand before the others.

    Raises:
        InputError: A line is none of an annotation, or no line is of these tasks.
        OSError: The file cannot be read.
    """
    pictures: dict[str, Labelled] = {}
    there = set()
    for number, line in read_lines(path):
        try:
            there.add(line["task"])
            if tasks is not None and line["task"] not in tasks:
                continue
            place = os.path.abspath(place_of(line["source"], line["path"]))  # noqa: PTH100
            picture = pictures.get(place)
            if picture is None or picture.content != line["hash"]:
                width, height = map(int, line["size"])
                int(line["hash"], 16)
                picture = Labelled(line["path"], line["source"], line["hash"], (width, height))
                pictures[place] = picture  # The file has changed: older answers are void.
            answer = _answer(line, min_score)
            picture.answers[answer.task, answer.input] = answer
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} line {number} is no annotation: {error!r}") from error
    if not pictures:
        listed = f"; there are {', '.join(sorted(there))}" if there else ""
        raise InputError(f"{path} has no lines of {', '.join(tasks or ['any task'])}{listed}")
    paths = Counter(picture.path for picture in pictures.values())
    for picture in pictures.values():
        if paths[picture.path] > 1:
            picture.name = place_of(picture.source, picture.path).replace(os.sep, "/")
    return Labels(sorted(pictures.values(), key=_order), classes)


def read_classes(path: Path) -> list[str]:
    """The labels of a text file, a line each.

    Raises:
        InputError: The file cannot be read, or is no text.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return [*dict.fromkeys(filter(None, map(str.strip, lines)))]


def _order(picture: Labelled) -> tuple[str, Fraction]:
    time = frame_time(picture.path) if picture.is_frame else None
    return (picture.name, Fraction(0)) if time is None else (picture.name.rpartition("#")[0], time)


def _answer(line: dict[str, Any], min_score: float | None) -> Answer:
    record = line["record"]
    found = tuple(
        one
        for one in map(read_found, record["detections"])
        if min_score is None or one.score is None or one.score >= min_score
    )
    locates = not isinstance(record["answer"][record["task"]], str)
    return Answer(line["task"], line["input"], line["text"], found, locates)


def read_found(one: dict[str, Any]) -> Found:
    """A thing of ``Result.record``."""
    quads = [one["quad"]] if "quad" in one else []
    outlines = tuple(tuple(map(float, points)) for points in one.get("polygons", quads))
    x1, y1, x2, y2 = map(float, one["box"])
    score = one["scores"]["score"] if one.get("scores") else None
    return Found(one["label"] or UNNAMED, (x1, y1, x2, y2), outlines, score)


def picture_files(labels: Labels) -> dict[str, Item]:
    """Where the pictures are, by name; some may be there no longer.

    Raises:
        InputError: A shard or video cannot be read.
        MissingDependencyError: There are frames of a video, and PyAV is not installed.
    """
    inside: dict[str, Item] = {}
    for source in {picture.source for picture in labels.pictures if is_shard(picture.source)}:
        inside |= {item.path: item for item in find_items([source])}
    for source in {picture.source for picture in labels.pictures if picture.is_frame}:
        named = [picture.path for picture in labels.pictures if picture.source == source]
        times = sorted(time for time in map(frame_time, named) if time is not None)
        inside |= {item.path: item for item in frames_of(source, times)}
    items = {}
    for picture in labels.pictures:
        file = place_of(picture.source, picture.path)
        items[picture.name] = inside.get(file) or Item(picture.path, picture.source, file)
    return items


def read_file(picture: Labelled, items: Mapping[str, Item]) -> bytes:
    """The file of a picture, as it was annotated.

    Args:
        picture: The picture.
        items: What `picture_files` has given.

    Raises:
        InputError: The file is missing or has changed.
    """
    try:
        data = items[picture.name].read()
    except OSError as error:
        raise InputError(f"{picture.name} is not where it was: {error}") from error
    if hashlib.sha256(data).hexdigest() != picture.content:
        raise InputError(f"{picture.name} has changed; annotate it again")
    return data
