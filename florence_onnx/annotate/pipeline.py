"""Pipeline of an annotation: preparing in threads, encoding once, answering in batches."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from florence_onnx.annotate.batching import Batches
from florence_onnx.annotate.output import SCHEMA, Output
from florence_onnx.annotate.questions import Plan, Question
from florence_onnx.annotate.reading import Reading, read_ahead
from florence_onnx.annotate.sources import Item
from florence_onnx.cascading import Cascade
from florence_onnx.encoding import encode
from florence_onnx.errors import FlorenceError, MissingDependencyError, TaskError
from florence_onnx.model import Florence2
from florence_onnx.preparing import read_picture
from florence_onnx.requests import EncodedImage, Failure, Prepared, Request
from florence_onnx.results import Result
from florence_onnx.streaming import answer_or_fail
from florence_onnx.tasks import AnswerKind


@dataclass
class Summary:
    """Summary of a run."""

    pictures: int = 0
    """Number of pictures that are done: answered, failed or skipped."""
    skipped: int = 0
    """Number of pictures with all answers before the run."""
    answers: int = 0
    """Number of lines that were written."""
    errors: int = 0
    """Number of pictures and questions without an answer."""
    interrupted: bool = False
    """Tells whether the run was stopped."""
    batch_sizes: dict[str, int] = field(default_factory=dict)
    """Question -> limit of the questions of a batch."""


@dataclass
class _Asked:
    """Picture with unanswered questions."""

    item: Item
    content: str
    """SHA-256 of the picture's file."""
    encoded: EncodedImage
    open_questions: int
    """Number of answers to come."""


@dataclass
class _Begun:
    """Cascade whose first task is answered."""

    first: Result
    left: int
    """Number of answers to the second task that are to come."""
    then: list[Result] = field(default_factory=list)
    is_lost: bool = False
    """Tells whether an answer failed. Several failures count as one failure of the question."""


@dataclass(frozen=True)
class _Asking:
    """Request that waits for a batch."""

    about: _Asked
    question: Question
    request: Request
    prepared: Prepared
    begun: _Begun | None
    """Cascade of which the request is the second task; None for a first task."""


@dataclass
class Annotation:
    """Annotation of pictures in one run."""

    model: Florence2
    plan: Plan
    output: Output
    summary: Summary = field(default_factory=Summary)
    stopped: Callable[[], bool] = lambda: False
    """Function called before every picture and batch; true to stop the run."""
    watch: Callable[[Summary], object] = lambda summary: None
    """Function called with the state after every batch and skipped picture."""

    def __post_init__(self) -> None:
        self._policy = self.model.policy.replace(**self.plan.options)
        size, tokens = self.plan.batch_size, self.model.assets.image_tokens
        second = [question.name for question in self.plan.questions if question.cascade]
        # The length of an answer depends most on the task.
        self._batches: dict[tuple[str, bool], Batches[_Asking]] = {
            **{(question.name, False): Batches(size, tokens) for question in self.plan.questions},
            **{(name, True): Batches(size, tokens) for name in second},
        }
        self._asked = 0

    def run(self, items: Iterable[Item]) -> Summary:
        """Asks about all pictures that are not answered yet.

        A picture or question that fails is written to the errors and counted. The output has the
        answers after every batch, so an end of the run loses at most the pictures with unanswered
        questions: a batch of every question.

        Raises:
            MissingDependencyError: Pictures cannot be decoded.
            OSError: The output cannot be written.
        """
        with closing(read_ahead(items, self._read)) as readings:
            while batches := self._next(readings):
                self._answer(batches)
        return self.summary

    def _next(self, readings: "Iterator[tuple[Item, Future[Reading]]]") -> Batches[_Asking] | None:
        """Yields the questions to answer next: those of full batches, and at the end the rest."""
        while not any(batches.is_full for batches in self._batches.values()):
            self.summary.interrupted |= self.stopped()
            if self.summary.interrupted or self._asked == self.plan.limit:
                break
            item, future = next(readings, (None, None))
            if item is None or future is None:
                break
            self._open(item, future)
        waiting = [batches for batches in self._batches.values() if batches]
        return max(waiting, key=lambda batches: batches.is_full, default=None)

    def _answer(self, batches: Batches[_Asking]) -> None:
        """Answers the questions of a batch and writes the lines of the answers together."""
        batch = batches.take()
        asked = [(asking.request, asking.prepared) for asking in batch]
        began = time.perf_counter()
        answers = [*answer_or_fail(self.model.assets, self.model.graphs, asked, self._policy)]
        seconds = time.perf_counter() - began
        self._write(batch, answers, round(seconds / len(batch), 4))
        batches.learn(seconds, [len(one.token_ids) for one in answers if isinstance(one, Result)])
        self.summary.batch_sizes = {
            name: found.size for (name, is_second), found in self._batches.items() if not is_second
        }
        self.watch(self.summary)

    def _write(
        self, batch: Sequence[_Asking], answers: Sequence[Result | Failure], seconds: float
    ) -> None:
        lines = []
        for asking, answer in zip(batch, answers, strict=True):
            begun, cascade = asking.begun, asking.question.cascade
            if begun is not None:
                self._go_on(asking, begun, answer)
            elif cascade is not None and isinstance(answer, Result):
                begun = self._begin(asking, cascade, self.plan.relabelled(answer))
            if begun is not None and begun.left:
                continue
            if begun is not None:
                lines += [] if begun.is_lost else [self._cascade_line(asking, begun, seconds)]
            elif isinstance(answer, Failure):
                self._fail(asking.about.item, answer.error, asking.about.content, asking.question)
            else:
                lines.append(self._line(asking, self.plan.relabelled(answer), seconds))
            asking.about.open_questions -= 1
            self.summary.pictures += asking.about.open_questions == 0
        self.output.add(lines)
        self.summary.answers += len(lines)

    def _begin(self, asking: _Asking, cascade: Cascade, first: Result) -> _Begun:
        """Queues the requests of a cascade's second task, from the answer to the first."""
        about, question = asking.about, asking.question
        requests = cascade.follow_up(about.encoded, first)
        begun = _Begun(first, len(requests))
        if cascade.hands_on_text and not requests:
            error = TaskError(f"the answer to {cascade.first} is empty: there is nothing to ask")
            begun.is_lost = True
            self._fail(about.item, error, about.content, question)
        for request in requests:
            if not self._ask(about, question, request, begun):
                begun.left -= 1
        return begun

    def _go_on(self, asking: _Asking, begun: _Begun, answer: Result | Failure) -> None:
        begun.left -= 1
        if isinstance(answer, Result):
            begun.then.append(answer)
        elif not begun.is_lost:
            begun.is_lost = True
            self._fail(asking.about.item, answer.error, asking.about.content, asking.question)

    def _ask(
        self, about: _Asked, question: Question, request: Request, begun: _Begun | None = None
    ) -> bool:
        """Queues a request; tells whether the request is valid."""
        try:
            prepared = self.model.prepare(request)
        except Exception as error:
            if begun is None or not begun.is_lost:
                self._fail(about.item, error, about.content, question)
            if begun is not None:
                begun.is_lost = True
            return False
        tokens = self.model.assets.image_tokens + len(prepared.input_ids)
        batches = self._batches[question.name, begun is not None]
        batches.add(_Asking(about, question, request, prepared, begun), tokens)
        return True

    def _open(self, item: Item, future: "Future[Reading]") -> None:
        """Queues the questions about a picture; none if the picture fails or has all answers."""
        content = None
        try:
            content, picture = future.result()
            # Again, because the file may have been claimed after it was read.
            questions = self._unanswered(item, content)
            if picture is None or not questions:
                self.summary.pictures += 1
                self.summary.skipped += 1
                self.watch(self.summary)
                return
            if isinstance(picture, Exception):
                raise picture
            encoded = encode(self.model.graphs, picture)
        except MissingDependencyError:
            raise
        except Exception as error:
            self.summary.pictures += 1
            self._fail(item, error, content)
            return
        self._asked += 1
        about = _Asked(item, content, encoded, len(questions))
        for question in questions:
            self.output.claim(item.path, content, question)
            if not self._ask(about, question, question.request(encoded)):
                about.open_questions -= 1
        self.summary.pictures += about.open_questions == 0

    def _read(self, item: Item) -> "Reading":
        """Reads and prepares a picture, in a thread."""
        data = item.read()
        content = hashlib.sha256(data).hexdigest()
        if not self._unanswered(item, content):
            return content, None
        plan = self.plan
        name = f"'{item.path}'" if item.path else None
        try:
            picture = read_picture(self.model.assets, data, plan.tiles, plan.image_size, name)
        except Exception as error:
            return content, error
        return content, picture

    def _unanswered(self, item: Item, content: str) -> list[Question]:
        return [
            question
            for question in self.plan.questions
            if not self.output.knows(item.path, content, question)
        ]

    def _line(self, asking: _Asking, result: Result, seconds: float) -> dict[str, Any]:
        """Makes the line of an answer, as the documentation describes lines."""
        about, question = asking.about, asking.question
        line: dict[str, Any] = {
            "schema": SCHEMA,
            "path": about.item.path,
            "source": about.item.source,
            "hash": about.content,
            "size": list(result.image_size),
            "task": question.name,
            "input": question.text,
        }
        return line | {
            "text": result.text,
            "record": result.record(),
            "model": self.output.model,
            "options": self.output.settings,
            "seconds": seconds,
        }

    def _cascade_line(self, asking: _Asking, begun: _Begun, seconds: float) -> dict[str, Any]:
        """Makes the line of a cascade: a text with its things, or things with their answers."""
        if begun.first.answer_kind is AnswerKind.TEXT:
            line = self._line(asking, self.plan.relabelled(begun.then[0]), seconds)
            return line | {"caption": begun.first.text}
        line = self._line(asking, begun.first, seconds)
        return line | {"regions": [one.record() for one in begun.then]}

    def _fail(
        self, item: Item, error: Exception, content: str | None, question: Question | None = None
    ) -> None:
        self.summary.errors += 1
        is_told = isinstance(error, FlorenceError | OSError)
        name = "" if is_told else f"{type(error).__name__}: "
        line: Mapping[str, Any] = {
            "schema": SCHEMA,
            "path": item.path,
            "source": item.source,
            "hash": content,
            "task": None if question is None else question.name,
            "error": f"{name}{error}",
        }
        self.output.fail(line)
