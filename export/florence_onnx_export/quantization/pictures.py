"""Pictures of the user, in two parts: for calibration and for the measurement of errors."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from florence_onnx.annotate.sources import SUFFIXES
from florence_onnx.assets.reading import Assets
from florence_onnx.errors import ImageError, InputError
from florence_onnx.images.pixels import to_rgb
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import InputKind, Task
from florence_onnx_export.quantization.fidelity import Request

LEAST, MOST = 4, 15
"""Least and largest number of pictures. Every second picture is held back for the measurement of
errors: at most 7, as many as there are drawn pictures for this."""

_TEXT = "a person"
"""Text for the tasks that take text, for pictures of unknown content."""


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """Pictures of a folder in two parts, with prompts of every task about each picture."""

    folder: Path
    """Folder of the pictures."""
    rounded_for: list[Request]
    """Requests for which weights are rounded."""
    held_back: list[Request]
    """Requests on which errors are measured."""

    def to_dict(self) -> dict[str, object]:
        """Returns the folder and the number of pictures in each part, ready for JSON."""
        return {
            "folder": str(self.folder),
            "rounded_for": len(self.rounded_for),
            "held_back": len(self.held_back),
        }


def own_pictures(
    folder: Path, assets: Assets, progress: Callable[[str], None], fast: bool = False
) -> OwnPictures:
    """Reads pictures of a folder and the folders in it, at most `MOST`, chosen at random.

    Every call chooses the same pictures of a folder. No picture, and no copy of a picture, is in
    both parts.

    Args:
        folder: The folder.
        assets: The model's other files.
        progress: Called with a line of text for every picture that cannot be read.
        fast: Whether no more than `LEAST` pictures are read.

    Raises:
        InputError: ``folder`` is no folder, or fewer than `LEAST` different pictures in it can be
            read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with at least {LEAST} pictures")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder} cannot be read; change its permissions")
    files = sorted(path for path in folder.rglob("*") if _is_picture(path))
    requests: dict[bytes, Request] = {}
    most = LEAST if fast else MOST
    for index in np.random.default_rng(0).permutation(len(files)):
        if len(requests) == most:
            break
        try:
            pixels = to_rgb(files[index])
        except ImageError as error:
            progress(f"skipped: {error}")
        else:
            request = _request(pixels, assets)
            requests.setdefault(request.pixel_values.tobytes(), request)
    if len(requests) < LEAST:
        raise InputError(
            f"{folder} has too few pictures: of its {len(files)} picture files {len(requests)} can "
            f"be read and differ, and {LEAST} are needed"
        )
    chosen = list(requests.values())
    return OwnPictures(folder, chosen[::2], chosen[1::2])


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    return not name.startswith(".") and name.endswith(SUFFIXES) and path.is_file()


def _request(pixels: npt.NDArray[np.uint8], assets: Assets) -> Request:
    prompts = tuple(tuple(assets.tokenizer.encode(prompt)) for prompt in _prompts(pixels.shape))
    return Request(assets.preprocessor(pixels)[None], prompts)


def _prompts(shape: tuple[int, ...]) -> Iterator[str]:
    """Yields the prompts of all tasks about a picture [H,W,3]; regions are the middle."""
    height, width, _ = shape
    middle = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
    for task in Task:
        text = _TEXT if task.input_kind is InputKind.TEXT else None
        region = middle if task.input_kind is InputKind.REGION else None
        yield build_prompt(task, text, region, (width, height))
