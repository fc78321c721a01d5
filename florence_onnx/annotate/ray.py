"""Annotation of a Ray dataset: each actor opens a model and answers batches of rows."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.annotate.output import Output
from florence_onnx.annotate.pipeline import Annotation
from florence_onnx.annotate.questions import Plan, Question, plan_questions
from florence_onnx.annotate.sources import Item
from florence_onnx.annotate.tries import TOGETHER
from florence_onnx.assets.identity import model_digest
from florence_onnx.errors import FlorenceError, InputError, ModelFileError
from florence_onnx.images.bitmap import write_bitmap
from florence_onnx.images.pixels import to_rgb
from florence_onnx.model import Florence2

ITEM = "item"
"""Column of rows that the command makes; see `row_of`."""
_PICTURES = (ITEM, "bytes", "image")
"""Columns that hold pictures. The first column counts; answered rows lack these columns."""


class Annotator:
    """Annotator for ``ray.data.Dataset.map_batches``: a model in an actor, with its questions.

    ::

        pictures = ray.data.read_binary_files("photos", include_paths=True)
        answered = pictures.map_batches(
            Annotator,
            fn_constructor_kwargs={"model": "org/name", "tasks": ["od", "caption"]},
            batch_size=32,
            num_cpus=4,
            compute=ray.data.ActorPoolStrategy(size=8),
        )

    A row is a picture: ``bytes`` of a file, or ``image``, a uint8 array for `Florence2.encode`, or
    else ``path``, a file that every node can read. A row comes out with the same columns, but
    without ``bytes`` and ``image``, and with two more texts, each a JSON array: ``annotations``,
    the lines that ``florence-onnx annotate`` would write about the picture, and ``errors``. For a
    row without ``path``, the path in the lines is the SHA-256 of the picture.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        tasks: Sequence[str] | Plan,
        *,
        digest: str | None = None,
        tries: Any = None,
        **opening: Any,
    ) -> None:
        """Opens the model; Ray calls this in the actor.

        Args:
            model: A model folder, a hub id, or ``"demo"``.
            tasks: Names of tasks and of cascades, ``["od", "caption+grounding"]``; or a `Plan`,
                which has room for texts, prompts and options, and whose limit does not count.
            digest: Required digest of the model's files; None for any.
            tries: Actor of `Tries`, which ends the tries of rows of the column `ITEM`; None to try
                without end.
            **opening: Arguments of `Florence2.load`. ``threads`` is by default the number of
                processors that Ray has given to the actor (``num_cpus``).

        Raises:
            InputError: A task, the input of a task or an option is wrong.
            ModelError: The model cannot be opened, or has another digest than ``digest``.
        """
        if isinstance(tasks, str):
            raise InputError(f"tasks is {tasks!r}; give a list of tasks, such as ['od']")
        plan = tasks if isinstance(tasks, Plan) else Plan(plan_questions(tasks, None, None, None))
        opened = Florence2.load(model, **{"threads": _processors(), **opening})
        opened.assets.at_size(plan.image_size)
        self.precision = opened.precision
        """Precision of the opened graphs."""
        self.digest = model_digest(opened.graphs.folder, [*opened.graphs.files.values()])
        """Digest of the model's files."""
        if digest not in (None, self.digest):
            raise ModelFileError(
                f"{opened.graphs.folder} has another model ({self.digest}) than the other nodes "
                f"have ({digest}); give all nodes the same files, or a hub id and --revision"
            )
        output = Output(self.digest, plan.settings())
        self._annotation = Annotation(opened, replace(plan, limit=None), output)
        self._tries = tries

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Answers all questions about the pictures of a batch.

        Args:
            batch: Columns by name, in Ray's format ``"numpy"``, which is the default.

        Returns:
            The columns, as described for the class.

        Raises:
            InputError: No column holds pictures.
            MissingDependencyError: Pictures cannot be decoded.
        """
        annotation = self._annotation
        rows = _Rows(annotation.output.model, annotation.output.settings)
        annotation.output = rows
        items = rows.take(batch, annotation.plan.questions)
        if self._tries is None:
            annotation.run(items)
        else:
            self._try(items, batch[ITEM])
        kept = {name: column for name, column in batch.items() if name not in _PICTURES}
        return kept | {
            "annotations": _column([row.annotations for row in rows.rows]),
            "errors": _column([row.errors for row in rows.rows]),
        }

    def _try(self, items: Sequence[Item], names: Sequence[str]) -> None:
        """Asks about pictures. If the actor was killed at it before, asks one by one.

        A picture at which the actor was then killed again becomes an error.
        """
        import ray

        def begin(name: str) -> int:
            earlier: int = ray.get(self._tries.begin.remote(name))
            return earlier

        whole = "\n".join(names)
        error = FlorenceError(
            f"the actor has ended {TOGETHER + 1} times while it was asked about this picture"
        )
        if begin(whole) < TOGETHER:
            self._annotation.run(items)
        else:
            for item, name in zip(items, names, strict=True):
                if begin(name):
                    self._annotation.run([replace(item, error=error)])
                else:
                    self._annotation.run([item])
                    ray.get(self._tries.end.remote(name))
        ray.get(self._tries.end.remote(whole))


def row_of(item: Item, answered: Mapping[str, Sequence[int]]) -> str:
    """Writes a picture in a file as the text of a row of the column `ITEM`.

    The text is ASCII, because Arrow takes Unicode only, and names of files need not be Unicode.

    Args:
        item: The picture. The file has an absolute path, because an actor may run elsewhere.
        answered: SHA-256 of a file at the picture's path -> the numbers of the questions that are
            answered about that file.
    """
    file = os.path.abspath(item.file)  # noqa: PTH100  # Path.resolve follows links.
    error = None if item.error is None else str(item.error)
    return json.dumps([item.path, item.source, file, item.span, error, answered])


@dataclass
class _Row:
    path: str
    source: str
    annotations: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[Mapping[str, Any]] = field(default_factory=list)

    def line(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a line with the names of the picture in place of its number."""
        return {**line, "path": self.path or line["hash"] or "", "source": self.source}


@dataclass
class _Rows(Output):
    """Output that takes the lines of a batch, each for the row of its picture.

    During a batch, the source of a picture is the number of its row, because two rows may have the
    same path.
    """

    rows: list[_Row] = field(default_factory=list)

    def claim(self, path: str, content: str, question: Question) -> None:
        """Does nothing, so that a picture in two rows is asked about in both rows."""

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keeps answers."""
        for line in lines:
            row = self.rows[int(line["source"])]
            row.annotations.append(row.line(line))

    def fail(self, line: Mapping[str, Any]) -> None:
        """Keeps an error."""
        row = self.rows[int(line["source"])]
        row.errors.append(row.line(line))

    def take(self, batch: Mapping[str, Any], questions: Sequence[Question]) -> Sequence[Item]:
        """Makes rows, and pictures that can be read."""
        column = next((name for name in (*_PICTURES, "path") if name in batch), None)
        if column is None:
            raise InputError(
                f"the dataset has the columns {', '.join(batch)}; pictures are in bytes, image or "
                "path"
            )
        if column == ITEM:
            return [self._of_file(text, questions) for text in batch[ITEM]]
        names = batch.get("path", [""] * len(batch[column]))
        return [
            self._item(str(name), column != "path", picture)
            for name, picture in zip(names, batch[column], strict=True)
        ]

    def _of_file(self, text: str, questions: Sequence[Question]) -> Item:
        path, source, file, span, error, answered = json.loads(text)
        for content, numbers in answered.items():
            for number in numbers:
                super().claim(path, content, questions[number])
        number = str(len(self.rows))
        self.rows.append(_Row(path, source))
        return Item(
            path,
            number,
            file,
            None if span is None else tuple(span),
            error=None if error is None else InputError(error),
        )

    def _item(self, path: str, is_held: bool, picture: object) -> Item:
        number = str(len(self.rows))
        self.rows.append(_Row(path, path))
        return Item(path, number, path, load=partial(_file_of, picture) if is_held else None)


def _file_of(picture: Any) -> bytes:
    """Returns the picture file of a row, or makes a file of the pixels of its array."""
    return picture if isinstance(picture, bytes) else write_bitmap(to_rgb(picture))


def _column(lines: Sequence[Sequence[Mapping[str, Any]]]) -> npt.NDArray[np.object_]:
    """Makes a column of texts, because Arrow needs one type for all rows of a column."""
    return np.array([json.dumps(of_row) for of_row in lines], dtype=object)


def _processors() -> int | None:
    """Number of processors from Ray for this process; None for a process not started by Ray."""
    ray = sys.modules.get("ray")  # Where Ray has started a process, it is imported.
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))
