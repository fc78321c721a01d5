"""Where ``run --draw`` writes each picture with its answer."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from florence_onnx.drawing import draw, needs_pillow
from florence_onnx.errors import InputError
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task


def plan_drawings(images: Sequence[str], kind: AnswerKind, target: Path | None) -> dict[str, Path]:
    """The file to write for every picture; none without a target.

    Raises:
        InputError: The answer is text, the target's ending names no picture format, two
            pictures would be drawn to the same file, or one would be drawn over one of them.
        MissingDependencyError: Pillow is not installed.
    """
    if target is None:
        return {}
    _check_kind(kind)
    if len(images) == 1 and not target.is_dir():
        _check_ending(target)
        files = {images[0]: target}
    else:
        files = {image: target / f"{Path(image).stem}.png" for image in dict.fromkeys(images)}
    _check_collisions(files)
    return files


def write_drawing(image: str, result: Result, file: Path) -> None:
    """Draws an answer; the file appears whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    drawn = draw(image, result)
    partial = file.with_name(f".{file.stem}.partial{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(partial)
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"cannot write {file}: {error.strerror or error}") from error


def _check_kind(kind: AnswerKind) -> None:
    if kind is AnswerKind.TEXT:
        drawable = [task for task in Task if task.answer_kind is not AnswerKind.TEXT]
        names = ", ".join(task.name.lower() for task in drawable)
        raise InputError(
            f"--draw needs a task that answers with places: {names}; or a --prompt with --answer"
        )


def _check_collisions(files: Mapping[str, Path]) -> None:
    asked = {Path(image).resolve(): image for image in files}
    taken: dict[Path, str] = {}
    for image, file in files.items():
        if file in taken:
            raise InputError(f"{taken[file]} and {image} would both be drawn to {file}")
        if file.resolve() in asked:
            raise InputError(
                f"{image} would be drawn over {asked[file.resolve()]}; name another file or folder"
            )
        taken[file] = image


def _check_ending(file: Path) -> None:
    with needs_pillow():
        from PIL import Image
    formats = Image.registered_extensions()
    if formats.get(file.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{file} ends in no picture format; use .png or .jpg, or name a folder")
