"""Pictures are read, hashed, decoded and resized in threads, encoded once, and asked in batches."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from florence_onnx.annotate.output import SCHEMA, Output
from florence_onnx.annotate.questions import Plan, Question
from florence_onnx.annotate.sources import Item
from florence_onnx.answering import encode
from florence_onnx.errors import FlorenceError, MissingDependencyError
from florence_onnx.model import Florence2
from florence_onnx.preparing import read_picture
from florence_onnx.requests import EncodedImage, Failure, Picture, Request
from florence_onnx.results import Result

_THREADS = 4
_AHEAD = 8
"""Pictures that are read ahead; of each, up to 7 MB of pixels at 768x768."""


@dataclass
class Summary:
    """What a run has done."""

    pictures: int = 0
    """Pictures that are through: answered, failed or skipped."""
    skipped: int = 0
    """Of these, pictures whose answers were all there."""
    answers: int = 0
    """Lines that were written."""
    errors: int = 0
    """Pictures and questions without an answer."""
    interrupted: bool = False
    """Tells whether the run was told to stop."""


@dataclass
class _Asked:
    """A picture that is being asked about."""

    item: Item
    content: str
    """SHA-256 of its file."""
    encoded: EncodedImage
    open_questions: int
    """How many answers are to come."""


@dataclass(frozen=True)
class _Asking:
    """A request that the engine has, or will have next."""

    about: _Asked
    question: Question
    caption: str | None = None
    """The answer to the first of two tasks; None before there is one."""

    def request(self) -> Request:
        if self.caption is None:
            return self.question.request(self.about.encoded)
        return Request(self.about.encoded, self.question.then, self.caption)


@dataclass
class Annotation:
    """One run over pictures."""

    model: Florence2
    plan: Plan
    output: Output
    summary: Summary = field(default_factory=Summary)
    stopped: Callable[[], bool] = lambda: False
    """Asked after every batch whether the run is to stop."""
    watch: Callable[[Summary], object] = lambda summary: None
    """Told of the state after every batch and skipped picture."""

    def __post_init__(self) -> None:
        self._asking: deque[_Asking] = deque()  # in the order of the answers
        self._second: deque[_Asking] = deque()
        self._asked = 0

    def run(self, items: Sequence[Item]) -> Summary:
        """Asks about all pictures that are not answered yet.

        A picture or question that fails is written to the errors and counted. What is done is in
        the output after every batch, so nothing that ends the run loses more than a batch.

        Raises:
            MissingDependencyError: Pictures cannot be decoded.
            OSError: The output cannot be written.
        """
        with closing(_read_ahead(items, self._read)) as readings:
            while True:
                self._answer(self._requests(readings))
                if not self._second:
                    return self.summary

    def _answer(self, requests: Iterator[Request]) -> None:
        """Answers requests and writes the lines of a batch at once."""
        size, options = self.plan.batch_size, self.plan.options
        answers = self.model.stream(requests, batch_size=size, on_error="return", **options)
        with closing(answers):
            began = time.perf_counter()
            while batch := [answer for _, answer in zip(range(size), answers, strict=False)]:
                seconds = (time.perf_counter() - began) / len(batch)
                self._write(batch, round(seconds, 4))
                self.watch(self.summary)
                self.summary.interrupted |= self.stopped()
                if self.summary.interrupted:
                    # What has been asked for half is asked to its end.
                    self._second.extend(one for one in self._asking if one.caption is not None)
                    self._asking.clear()
                    return
                began = time.perf_counter()

    def _write(self, batch: Sequence[Result | Failure], seconds: float) -> None:
        lines = []
        for answer in batch:
            asking = self._asking.popleft()
            if isinstance(answer, Failure):
                self._fail(asking.about.item, answer.error, asking.about.content, asking.question)
            elif asking.question.then is not None and asking.caption is None:
                self._second.append(_Asking(asking.about, asking.question, answer.text))
                continue
            else:
                lines.append(self._line(asking, self.plan.relabelled(answer), seconds))
            asking.about.open_questions -= 1
            self.summary.pictures += asking.about.open_questions == 0
        self.output.add(lines)
        self.summary.answers += len(lines)

    def _requests(self, readings: "Iterator[tuple[Item, Future[_Reading]]]") -> Iterator[Request]:
        """The next questions: second ones first, as their pictures are in memory."""
        while True:
            while self._second:
                yield self._ask(self._second.popleft())
            if self.stopped():
                self.summary.interrupted = True
            if self.summary.interrupted or self._asked == self.plan.limit:
                return
            item, future = next(readings, (None, None))
            if item is None or future is None:
                return
            for asking in self._open(item, future):
                yield self._ask(asking)

    def _ask(self, asking: _Asking) -> Request:
        self._asking.append(asking)
        return asking.request()

    def _open(self, item: Item, future: "Future[_Reading]") -> list[_Asking]:
        """What is to be asked about a picture; nothing if it fails or all is answered."""
        content = None
        try:
            content, picture = future.result()
            # Again, as the same file may have been claimed since it was read.
            questions = self._unanswered(item, content)
            if picture is None or not questions:
                self.summary.pictures += 1
                self.summary.skipped += 1
                self.watch(self.summary)
                return []
            encoded = encode(self.model.graphs, picture)
        except MissingDependencyError:
            raise
        except Exception as error:
            self.summary.pictures += 1
            self._fail(item, error, content)
            return []
        self._asked += 1
        for question in questions:
            self.output.claim(item.path, content, question)
        asked = _Asked(item, content, encoded, len(questions))
        return [_Asking(asked, question) for question in questions]

    def _read(self, item: Item) -> "_Reading":
        """Runs in a thread."""
        data = item.read()
        content = hashlib.sha256(data).hexdigest()
        if not self._unanswered(item, content):
            return content, None
        return content, read_picture(self.model.assets, data)

    def _unanswered(self, item: Item, content: str) -> list[Question]:
        return [
            question
            for question in self.plan.questions
            if not self.output.knows(item.path, content, question)
        ]

    def _line(self, asking: _Asking, result: Result, seconds: float) -> dict[str, Any]:
        """The line of an answer, as the README describes it."""
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
        if asking.caption is not None:
            line["caption"] = asking.caption
        return line | {
            "text": result.text,
            "record": result.record(),
            "model": self.output.model,
            "options": self.output.settings,
            "seconds": seconds,
        }

    def _fail(
        self, item: Item, error: Exception, content: str | None, question: Question | None = None
    ) -> None:
        self.summary.errors += 1
        name = "" if isinstance(error, FlorenceError) else f"{type(error).__name__}: "
        line: Mapping[str, Any] = {
            "schema": SCHEMA,
            "path": item.path,
            "source": item.source,
            "hash": content,
            "task": None if question is None else question.name,
            "error": f"{name}{error}",
        }
        self.output.fail(line)


_Reading = tuple[str, Picture | EncodedImage | None]
"""The SHA-256 of a picture's file, and the picture where there is something to ask about it."""


def _read_ahead(
    items: Sequence[Item], read: Callable[[Item], _Reading]
) -> "Generator[tuple[Item, Future[_Reading]], None, None]":
    """The pictures in their order, the next ones being read."""
    futures: deque[tuple[Item, Future[_Reading]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for item in items:
                futures.append((item, pool.submit(read, item)))
                if len(futures) > _AHEAD:
                    yield futures.popleft()
            while futures:
                yield futures.popleft()
        finally:
            pool.shutdown(cancel_futures=True)
