"""Output folder of an annotation, with the answers of earlier runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_onnx.annotate.journal import Journal, digest, is_object, read_lines, repair
from florence_onnx.annotate.questions import Question
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.staging import work_folder

ANNOTATIONS, ERRORS = "annotations.jsonl", "errors.jsonl"
PREVIOUS = "annotations.previous.jsonl"
"""Name of the file to which ``"replace"`` moves earlier annotations."""
MODES = ("fill", "replace", "append")
SCHEMA = 1
"""Version of the fields of a line, which grows when a field is removed or means something else."""
_KEY: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "hash": (str,),
    "task": (str,),
    "input": (str, type(None)),
}
"""Field that distinguishes questions about a picture -> types of the field."""
_IDENTITY: dict[str, tuple[type, ...]] = {"model": (str,), "options": (dict,)}
"""Fields with which a line is unique in a file."""


@dataclass
class Output:
    """Output of answers. Without journals, answers are dropped."""

    model: str
    """Digest of the model's files."""
    settings: Mapping[str, Any]
    """Settings of the answers; see `Plan.settings`."""
    file: Path | None = None
    """File of the answers, those of earlier runs among them."""
    annotations: Journal | None = None
    errors: Journal | None = None
    notes: list[str] = field(default_factory=list)
    """Sentences about repairs."""
    _known: set[bytes] = field(default_factory=set)

    def knows(self, path: str, content: str, question: Question) -> bool:
        """Tells whether a question about a picture is answered, or claimed."""
        return self._key(path, content, question) in self._known

    def claim(self, path: str, content: str, question: Question) -> None:
        """Notes that a question is being asked."""
        self._known.add(self._key(path, content, question))

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Appends answers: all or none.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        if self.annotations is not None:
            self.annotations.append(lines)

    def fail(self, line: Mapping[str, Any]) -> None:
        """Appends an error.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        if self.errors is not None:
            self.errors.append([line])

    def read(self, path: Path, mode: str) -> None:
        """Reads the answers of a file.

        Raises:
            InputError: A line is not of an annotation, or of another model or other options where
                the mode is not ``"append"``.
        """
        wanted = digest([self.model, self.settings])
        for number, line in read_lines(path):
            for name, kind in (_KEY | _IDENTITY).items():
                if name not in line or not isinstance(line[name], kind):
                    raise InputError(
                        f"{path} line {number} is no annotation: {name} is missing or wrong; "
                        "choose another folder"
                    )
            if mode != "append" and digest([line[name] for name in _IDENTITY]) != wanted:
                is_model = line["model"] != self.model
                there, here = (
                    (line["model"], self.model) if is_model else (line["options"], self.settings)
                )
                raise InputError(
                    f"{path} line {number} has {'another model' if is_model else 'other options'} "
                    f"than this run: {there!r:.200}, not {here!r:.200}; choose another folder, "
                    "--mode append to add to the file, or --mode replace"
                )
            self._known.add(digest([line[name] for name in (*_KEY, *_IDENTITY)]))

    def _key(self, path: str, content: str, question: Question) -> bytes:
        return digest([path, content, question.name, question.text, self.model, self.settings])


def _refuse_foreign(path: Path, fields: Sequence[str]) -> None:
    """Raises InputError for a file to be changed or moved that this package did not write.

    A first line without an end may be from a killed process.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        line = file.readline()
    if not line:
        return
    is_torn = not line.endswith(b"\n") and not is_object(line)
    if is_torn and not line.startswith(b"{"):
        raise InputError(f"{path} line 1 is of another program; move the file")
    if not is_torn:
        number, record = next(read_lines(path))
        if not all(name in record for name in fields):
            raise InputError(f"{path} line {number} is of another program; move the file")


@contextmanager
def open_output(
    folder: Path, mode: str, model: str, settings: Mapping[str, Any]
) -> Iterator[Output]:
    """Yields the output in a folder, which no other process writes to meanwhile.

    Args:
        folder: The folder, which is made if it is missing.
        mode: One of `MODES`. ``"fill"`` continues a file, ``"append"`` also a file of another model
            or other options, ``"replace"`` begins a new file and keeps the old file as `PREVIOUS`.
        model: Digest of the model's files.
        settings: Settings of the answers; see `Plan.settings`.

    Raises:
        FolderBusyError: Another process writes to the folder.
        InputError: The file in the folder cannot be continued.
        OSError: The folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is no folder; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ANNOTATIONS
    with ExitStack() as stack:
        stack.enter_context(work_folder(folder))
        output = Output(model, settings, path)
        _refuse_foreign(folder / ERRORS, ("path", "error"))
        _refuse_foreign(path, (*_KEY, *_IDENTITY))
        if mode == "replace":
            _refuse_foreign(folder / PREVIOUS, (*_KEY, *_IDENTITY))
            if path.exists():
                path.replace(folder / PREVIOUS)
        elif path.exists():
            note = repair(path)
            output.notes += [note] if note else []
            output.read(path, mode)
        (folder / ERRORS).unlink(missing_ok=True)
        output.annotations = stack.enter_context(closing(Journal(path)))
        output.errors = stack.enter_context(closing(Journal(folder / ERRORS)))
        yield output
