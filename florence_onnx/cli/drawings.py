"""Drawings of ``run --draw``: files of each picture with its answer."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from florence_onnx.drawing import draw
from florence_onnx.drawing.files import check_ending, is_drawing, save_drawing
from florence_onnx.drawing.fonts import named_face
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.packages import require_packages
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task


def plan_drawings(
    images: Sequence[str], kind: AnswerKind, target: Path | None, font: Path | None
) -> dict[str, Path]:
    """Chooses the file to write for every picture; no file without a target.

    Raises:
        InputError: The answer is text, the target's ending names no picture format, two pictures
            have the same file, a file is one of the pictures, or the font cannot be read or has
            nothing to write.
        OutputExistsError: The file exists and is no drawing.
        MissingDependencyError: Pillow is not installed.
    """
    if target is None:
        if font is not None:
            raise InputError("--font needs --draw")
        return {}
    _check_kind(kind)
    if font is not None:
        require_packages(("PIL",), "drawing", "cli")
        named_face(font)
    if len(images) == 1 and not target.is_dir():
        check_ending(target)
        files = {images[0]: target}
    else:
        files = {image: target / f"{Path(image).stem}.png" for image in dict.fromkeys(images)}
    _check_collisions(files)
    for file in files.values():
        _check_free(file)
    return files


def write_drawing(image: str, result: Result, file: Path, font: Path | None) -> None:
    """Draws an answer; the file appears whole or not at all.

    Raises:
        InputError: The file cannot be written.
        OutputExistsError: The file exists and is no drawing.
    """
    drawn = draw(image, result, font)
    _check_free(file)
    try:
        save_drawing(drawn, file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {file}: {reason}") from error


def _check_free(file: Path) -> None:
    """Refuses a file that exists and is no drawing."""
    if os.path.lexists(file) and not file.is_dir() and not is_drawing(file):
        raise OutputExistsError(
            f"{file} exists and is not marked as a drawing of florence-onnx: name another file or "
            "folder"
        )


def _check_kind(kind: AnswerKind) -> None:
    if kind is AnswerKind.TEXT:
        drawable = [task for task in Task if task.answer_kind is not AnswerKind.TEXT]
        names = ", ".join(task.name.lower() for task in drawable)
        raise InputError(
            f"--draw needs a task that answers with places: {names}; or a --prompt with --answer"
        )


def _check_collisions(files: Mapping[str, Path]) -> None:
    asked = {_identity(Path(image)): image for image in files}
    asked.pop(None, None)
    taken: dict[str, str] = {}
    for image, file in files.items():
        # For some file systems, names are equal that differ in case or in the encoding of accents.
        name = unicodedata.normalize("NFC", str(file)).casefold()
        if name in taken:
            raise InputError(f"{taken[name]} and {image} would both be drawn to {file}")
        drawn_over = asked.get(_identity(file))
        if drawn_over is not None:
            raise InputError(
                f"{image} would be drawn over {drawn_over}; name another file or folder"
            )
        taken[name] = image


def _identity(file: Path) -> tuple[int, int] | None:
    """Makes a key that is equal for all names of one file; None for a missing file."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
