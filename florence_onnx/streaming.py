"""Streams of requests in bounded memory. Threads decode pictures ahead of the answers."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from weakref import WeakValueDictionary

from florence_onnx.answering import answer_batch
from florence_onnx.assets.reading import Assets
from florence_onnx.encoding import encode, encode_pictures
from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import InputError
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.images.pixels import ImageInput
from florence_onnx.preparing import check_request, prepare, read_picture
from florence_onnx.requests import (
    EncodedImage,
    Failure,
    Picture,
    Prepared,
    Request,
    TiledPicture,
)
from florence_onnx.results import Result

_THREADS = 4
"""Limit of the threads that decode and resize. More threads would slow the engine down."""


class Stream:
    """Stream of answers to the requests of an iterator, in order, by batches."""

    def __init__(
        self,
        assets: Assets,
        graphs: Graphs,
        policy: GenerationPolicy,
        batch_size: int,
        on_error: str,
    ) -> None:
        """Checks and stores the parts of a model and the arguments of `Florence2.stream`.

        Raises:
            InputError: One of the arguments is wrong.
        """
        if not _is_count(batch_size):
            raise InputError(f"batch_size is {batch_size!r}; it must be a whole number, at least 1")
        if on_error not in ("raise", "return"):
            raise InputError(f'on_error is {on_error!r}; it must be "raise" or "return"')
        self._assets, self._graphs, self._policy = assets, graphs, policy
        self._batch_size = int(batch_size)
        self._stops_at_failure = on_error == "raise"

    def answers(self, source: Iterator[Request]) -> Generator[Result | Failure, None, None]:
        """Yields a result or a failure per request.

        Up to two batches are taken ahead of the answers: one for the engine, one for the threads.
        An exception of the source is raised after the answers to the requests before.
        """
        with ThreadPoolExecutor(min(_THREADS, self._batch_size)) as pool:
            window = _Window(source, 2 * self._batch_size, self._assets, pool)
            try:
                while batch := window.take(self._batch_size):
                    for answer in self._answer(batch):
                        if isinstance(answer, Failure):
                            if self._stops_at_failure:
                                raise answer.error
                            _drop_tracebacks(answer.error)
                        yield answer
            finally:
                pool.shutdown(cancel_futures=True)

    def _answer(self, batch: "Sequence[_Entry]") -> Iterator[Result | Failure]:
        ready: list[Prepared | Failure] = []
        asked: list[tuple[Request, Prepared]] = []
        checked = [self._check(entry) for entry in batch]
        with suppress(Exception):  # A request that fails is tried again alone.
            _SharedPicture.encode_together(
                self._graphs,
                [
                    entry.picture
                    for entry, found in zip(batch, checked, strict=True)
                    if isinstance(found, Prepared)
                ],
            )
        for entry, found in zip(batch, checked, strict=True):
            prepared = self._encode(entry, found)
            ready.append(prepared)
            if isinstance(prepared, Prepared):
                asked.append((entry.request, prepared))
            elif self._stops_at_failure:
                break
        results = answer_or_fail(self._assets, self._graphs, asked, self._policy)
        for prepared in ready:
            yield prepared if isinstance(prepared, Failure) else next(results)

    def _check(self, entry: "_Entry") -> Prepared | Failure:
        try:
            check_request(entry.request)
            return prepare(self._assets, entry.request, entry.picture.decoded())
        except Exception as error:
            return Failure(entry.request, error)

    def _encode(self, entry: "_Entry", found: Prepared | Failure) -> Prepared | Failure:
        if isinstance(found, Failure):
            return found
        try:
            return replace(found, picture=entry.picture.encoded(self._graphs))
        except Exception as error:
            return Failure(entry.request, error)


def answer_or_fail(
    assets: Assets,
    graphs: Graphs,
    asked: Sequence[tuple[Request, Prepared]],
    policy: GenerationPolicy,
) -> Iterator[Result | Failure]:
    """Answers a batch. If this fails, answers one by one, so that only the wrong request fails."""
    if not asked:
        return
    answers: list[Result | Failure] | None
    try:
        batch = [prepared for _, prepared in asked]
        answers = [*answer_batch(assets, graphs, batch, policy)]
    except Exception as error:
        answers = [Failure(asked[0][0], error)] if len(asked) == 1 else None
    if answers is not None:
        yield from answers
        return
    for one in asked:
        yield from answer_or_fail(assets, graphs, [one], policy)


def iterator(requests: Iterable[Request]) -> Iterator[Request]:
    """Returns the requests one by one.

    Raises:
        InputError: ``requests`` is no iterable, or is a single request or text.
    """
    try:
        if isinstance(requests, str | bytes):
            raise TypeError
        return iter(requests)
    except TypeError:
        raise InputError(
            "requests must be an iterable of florence_onnx.Request, such as a list, "
            f"not {type(requests).__name__}: {requests!r:.80}"
        ) from None


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _drop_tracebacks(error: BaseException | None) -> None:
    """Drops tracebacks, because the frames of a traceback refer to the pixels of the batch."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class _SharedPicture:
    """Picture of one or more requests, decoded in a thread and encoded at the first use."""

    def __init__(
        self, image: object, decoded: "Future[Picture | TiledPicture | EncodedImage]"
    ) -> None:
        self.image = image
        self._decoded = decoded
        self._encoded: EncodedImage | None = None

    @staticmethod
    def encode_together(graphs: Graphs, pictures: "Sequence[_SharedPicture]") -> None:
        """Encodes decoded pictures, if not encoded yet. Small pictures share a run."""
        new = {one: one.decoded() for one in dict.fromkeys(pictures) if one._encoded is None}
        plain = {one: picture for one, picture in new.items() if isinstance(picture, Picture)}
        for one, encoded in zip(plain, encode_pictures(graphs, [*plain.values()]), strict=True):
            one._encoded = encoded

    def decoded(self) -> Picture | TiledPicture | EncodedImage:
        return self._decoded.result()

    def encoded(self, graphs: Graphs) -> EncodedImage:
        if self._encoded is None:
            self._encoded = encode(graphs, self.decoded())
        return self._encoded


@dataclass(frozen=True)
class _Entry:
    """Request of the window."""

    request: Request
    picture: _SharedPicture


class _Window:
    """Window of the next requests of a source, whose pictures are being decoded."""

    def __init__(
        self, source: Iterator[Request], size: int, assets: Assets, pool: ThreadPoolExecutor
    ) -> None:
        self._source, self._size, self._assets, self._pool = source, size, assets, pool
        self._entries: deque[_Entry] = deque()
        # An entry disappears with the last request that holds its picture.
        self._pictures: WeakValueDictionary[object, _SharedPicture] = WeakValueDictionary()
        self._has_ended = False
        self._error: Exception | None = None

    def take(self, count: int) -> list[_Entry]:
        """Takes up to ``count`` requests; at the end none, or raises the error of the source."""
        while len(self._entries) < self._size and not self._has_ended:
            try:
                request = next(self._source)
            except StopIteration:
                self._has_ended = True
            except Exception as error:
                self._has_ended, self._error = True, error
            else:
                self._entries.append(_Entry(request, self._picture(request)))
        if not self._entries and self._error is not None:
            raise self._error
        return [self._entries.popleft() for _ in range(min(count, len(self._entries)))]

    def _picture(self, request: Request) -> _SharedPicture:
        image: ImageInput | EncodedImage = getattr(request, "image", b"")
        # An equal path is the same picture; other pictures are the same if the object is.
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else id(image)
        tiles, image_size = getattr(request, "tiles", None), getattr(request, "image_size", None)
        key = (name, repr(tiles), repr(image_size))
        shared = self._pictures.get(key)
        if shared is None:
            decoded = self._pool.submit(read_picture, self._assets, image, tiles, image_size)
            shared = self._pictures[key] = _SharedPicture(image, decoded)
        return shared
