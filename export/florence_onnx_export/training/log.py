"""Log of a training run."""

import json
from contextlib import suppress
from pathlib import Path

from florence_onnx.errors import InputError
from florence_onnx.files import write_whole
from florence_onnx.terminal import show


class Log:
    """Log in a file of JSON lines, and the same lines on stdout."""

    def __init__(self, path: Path, unfinished: Path) -> None:
        """Reads the lines of an earlier run.

        Raises:
            InputError: The file is no log of a training.
        """
        self._path = path
        self._unfinished = unfinished
        try:
            self._text = path.read_text(encoding="utf-8") if path.exists() else ""
            if not all("step" in json.loads(line) for line in self._text.splitlines()):
                raise ValueError
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path} is no log of a training: move it, or choose another output folder"
            ) from error

    def add(self, **values: float) -> None:
        """Writes a line. The file is whole at any time."""
        rounded = {name: float(f"{value:.4g}") for name, value in values.items()}
        line = json.dumps({**rounded, "step": int(values["step"])})
        self._text += line + "\n"
        write_whole(self._path, self._text, self._unfinished)
        with suppress(OSError):  # A training goes on when nobody reads the output any more.
            show(line)
