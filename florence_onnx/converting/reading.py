"""Pictures of an annotation file, with the answers about them."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath

from florence_onnx.annotate.journal import read_lines
from florence_onnx.annotate.sources import Item, find_items, frames_of, is_shard, place_of
from florence_onnx.annotate.video import frame_time, is_video
from florence_onnx.converting.lines import Answer, Found, read_line
from florence_onnx.errors import InputError
from florence_onnx.files import open_regular
from florence_onnx.images.bitmap import SUFFIX


@dataclass
class Labelled:
    """Picture with its answers, the newest answer to every question."""

    path: str
    source: str
    content: str
    """SHA-256 of the picture's file."""
    size: tuple[int, int]
    """Size of the picture in pixels, (width, height)."""
    answers: dict[tuple[str, str | None], Answer] = field(default_factory=dict)
    name: str = ""
    """Name of the picture: the path, behind the source where pictures of several sources have the
    path."""

    def __post_init__(self) -> None:
        self.name = self.name or self.path

    @property
    def found(self) -> Iterator[Found]:
        """Things with an area in all answers."""
        for answer in self.answers.values():
            yield from (one for one in answer.found if one.has_area)

    @property
    def suffix(self) -> str:
        """Suffix of the picture's file, or of a file for a frame of a video."""
        return SUFFIX if self.is_frame else PurePosixPath(self.path).suffix

    @property
    def is_frame(self) -> bool:
        """Tells whether the picture is a frame of a video."""
        return is_video(self.source) and frame_time(self.path) is not None

    def is_held_out(self, share: float) -> bool:
        """Tells whether the picture is in a share (0 to 1) that is chosen by content."""
        return int(self.content[:8], 16) < share * (1 << 32)


def _plain_stem(picture: Labelled) -> str:
    """Makes the relative path of a picture without its suffix, inside the folder of the output."""
    path = PurePosixPath(picture.name + SUFFIX * picture.is_frame)
    parts = ["__" if part == ".." else part.replace(":", "_") for part in path.parts]
    return PurePosixPath(*parts[path.is_absolute() :]).with_suffix("").as_posix()


@dataclass(frozen=True)
class Labels:
    """Pictures of an annotation file."""

    pictures: Sequence[Labelled]
    classes: Sequence[str] = ()
    """Labels with the first numbers, whether they occur or not."""

    @cached_property
    def names(self) -> list[str]:
        """Labels of `classes`, then further labels in alphabetical order."""
        found = {one.label for picture in self.pictures for one in picture.found}
        return [*self.classes, *sorted(found.difference(self.classes))]

    @property
    def numbers(self) -> dict[str, int]:
        """Label -> number, from 0."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def stems(self) -> dict[str, str]:
        """Makes a different relative path without suffix for every picture.

        Pictures keep their folders. Of pictures whose names differ in the suffix or in case only,
        all but the first get a number, with which no other picture has the name.
        """
        plain = {picture.name: _plain_stem(picture) for picture in self.pictures}
        names = {stem.lower() for stem in plain.values()}
        stems: dict[str, str] = {}
        taken: set[str] = set()
        for name, inside in plain.items():
            stem, number = inside, 1
            while stem.lower() in taken or (number > 1 and stem.lower() in names):
                number += 1
                stem = f"{inside}_{number}"
            taken.add(stem.lower())
            stems[name] = stem
        return stems


def read_labels(
    path: Path,
    tasks: Collection[str] | None = None,
    min_score: float | None = None,
    classes: Sequence[str] = (),
) -> Labels:
    """Reads the pictures of an annotation file, in the order of names, frames in order of time.

    Args:
        path: File of ``florence-onnx annotate``.
        tasks: Tasks whose answers are taken; all by default.
        min_score: Score below which things are left out.
        classes: Labels with the first numbers.

    Raises:
        InputError: A line is not of an annotation, or no line is of these tasks.
        OSError: The file cannot be read.
    """
    pictures: dict[str, Labelled] = {}
    there = set()
    for number, line in read_lines(path):
        one = read_line(line, f"{path} line {number}")
        answer = _above(one.answer, min_score)
        there.add(answer.task)
        if tasks is not None and answer.task not in tasks:
            continue
        place = os.path.abspath(place_of(one.source, one.path))  # noqa: PTH100
        picture = pictures.get(place)
        if picture is None or picture.content != one.content:
            picture = Labelled(one.path, one.source, one.content, one.size)
            pictures[place] = picture  # The file has changed: older answers do not count.
        picture.answers[answer.task, answer.input] = answer
    if not pictures:
        listed = f"; there are {', '.join(sorted(there))}" if there else ""
        raise InputError(f"{path} has no lines of {', '.join(tasks or ['any task'])}{listed}")
    paths = Counter(picture.path for picture in pictures.values())
    for picture in pictures.values():
        if paths[picture.path] > 1:
            picture.name = place_of(picture.source, picture.path).replace(os.sep, "/")
    return Labels(sorted(pictures.values(), key=_order), classes)


def read_classes(path: Path) -> list[str]:
    """Reads the labels of a text file, a line each.

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


def _above(answer: Answer, min_score: float | None) -> Answer:
    """Drops things with a lower score from an answer."""
    if min_score is None:
        return answer
    kept = (one for one in answer.found if one.score is None or one.score >= min_score)
    return replace(answer, found=tuple(kept))


def picture_files(labels: Labels) -> dict[str, Item]:
    """Finds the places of pictures, by name. Some files may no longer exist.

    Raises:
        InputError: A shard or video cannot be read.
        MissingDependencyError: A picture is a frame of a video, and PyAV is not installed.
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
    """Reads the file of a picture, and checks that the file has not changed.

    Args:
        picture: The picture.
        items: Result of `picture_files`.

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
