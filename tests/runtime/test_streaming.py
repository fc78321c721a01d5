"""Streams: order, bounds, shared pictures, failures in place, threads."""

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import (
    EncodedImage,
    Failure,
    Florence2,
    GenerationOptions,
    ImageError,
    InputError,
    RegionError,
    Request,
    Result,
    Task,
    TaskError,
    answering,
    encoding,
    preparing,
    streaming,
)
from florence_onnx.engine.contract import VISION_ENCODER
from florence_onnx.preparing import read_picture
from florence_onnx.requests import Picture, Prepared
from tests.helpers.tiny import TINY, counted, mixed_requests, picture

SHORT: GenerationOptions = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that have been decoded, in order, with the thread that did it."""
    images: list[Any] = []
    read = preparing.read_picture

    def noted(assets: Any, image: Any, *options: Any) -> Any:
        images.append((image, threading.get_ident()))
        return read(assets, image, *options)

    monkeypatch.setattr(streaming, "read_picture", noted)
    return images


def same(found: Sequence[Result | Failure], expected: Sequence[Result]) -> bool:
    """Equal but for the last bits of scores, which depend on who shares the batch."""
    assert len(found) == len(expected)
    return all(
        isinstance(ours, Result)
        and (ours.task, ours.token_ids, ours.detections)
        == (theirs.task, theirs.token_ids, theirs.detections)
        and ours.score == pytest.approx(theirs.score, abs=1e-5)
        for ours, theirs in zip(found, expected, strict=True)
    )


# Order and bounds


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_answers_come_in_order(model: Florence2, batch_size: int) -> None:
    requests = mixed_requests()
    expected = [model.answer(model.prepare(request), **SHORT) for request in requests]
    assert same(list(model.stream(requests, batch_size=batch_size, **SHORT)), expected)
    assert same(model.run(iter(requests), batch_size=batch_size, **SHORT), expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_source_without_an_end_is_taken_two_batches_ahead(
    model: Florence2, batch_size: int
) -> None:
    taken = 0
    alive: weakref.WeakSet[Request] = weakref.WeakSet()

    def source() -> Iterator[Request]:
        nonlocal taken
        for seed in count():
            taken += 1
            request = Request(picture(seed % 5), "od")
            alive.add(request)
            yield request

    answers = model.stream(source(), batch_size=batch_size, **SHORT)
    assert taken == 0, "nothing is done before the first answer is asked for"
    for answered, _ in enumerate(islice(answers, 25)):
        # The batch whose answers are being handed out, and the next.
        assert taken <= answered // batch_size * batch_size + 2 * batch_size
        assert len(alive) <= 3 * batch_size
    answers.close()


def test_no_more_pictures_are_kept_than_the_window_has(
    model: Florence2, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    read, encode = read_picture, encoding.encode_pictures

    def noted_read(*arguments: Any) -> Any:
        alive.add(found := read(*arguments))
        return found

    def noted_encode(*arguments: Any) -> Any:
        alive.update(found := encode(*arguments))
        return found

    monkeypatch.setattr(streaming, "read_picture", noted_read)
    monkeypatch.setattr(streaming, "encode_pictures", noted_encode)
    most: dict[type, int] = {Picture: 0, EncodedImage: 0}
    requests = (Request(picture(seed), "od") for seed in range(40))
    for _ in model.stream(requests, batch_size=2, **SHORT):
        for kind in most:
            most[kind] = max(most[kind], sum(isinstance(one, kind) for one in list(alive)))
    assert 2 <= most[Picture] <= 6
    assert 1 <= most[EncodedImage] <= 4


# Shared pictures


def test_a_picture_is_encoded_once_for_all_requests_of_the_window(
    model: Florence2, tmp_path: Path, decoded: list[Any]
) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(picture(1)).save(path)
    model = counted(model)
    images: list[Any] = [
        path,
        str(path),
        picture(2),
        Image.fromarray(picture(3)),
        path.read_bytes(),
    ]
    tasks = ("od", "ocr", "caption", "detailed_caption", "region_proposal")
    requests = [Request(image, task) for image in images for task in tasks]
    results = model.run(requests, batch_size=2, **SHORT)
    # The path is one picture in both of its forms.
    assert model.graphs.sessions[VISION_ENCODER].calls == len(decoded) == 4
    expected = [model.answer(model.prepare(request), **SHORT) for request in requests]
    assert same(results, expected)


def test_a_picture_that_has_left_the_window_is_decoded_again(
    model: Florence2, decoded: list[Any]
) -> None:
    image = picture(1)
    others = [Request(picture(seed), "od") for seed in range(2, 8)]
    model.run([Request(image, "od"), *others, Request(image, "ocr")], batch_size=2, **SHORT)
    assert len(decoded) == 8


def test_an_encoded_picture_is_used_as_it_is(model: Florence2) -> None:
    encoded = model.encode(picture(1))
    model = counted(model)
    model.run([Request(encoded, task) for task in ("od", "ocr")], batch_size=1, **SHORT)
    assert model.graphs.sessions[VISION_ENCODER].calls == 0


# Failures


def bad_requests(folder: Path) -> list[tuple[Any, type[Exception]]]:
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return [
        (Request(broken, "od"), ImageError),
        (Request(folder / "missing.png", "od"), ImageError),
        (Request(None, "od"), ImageError),  # type: ignore[arg-type]
        (Request(picture(1)[:0], "od"), ImageError),
        (Request(picture(1), "captoin"), TaskError),
        (Request(picture(1), "od", "a car"), TaskError),
        (Request(picture(1), prompt="?" * 200), TaskError),
        (Request(picture(1), "region_to_ocr", region=(0, 0, 99, 99)), RegionError),
        (("photo.jpg", "od", None), InputError),
        (None, InputError),
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_failure_stands_in_the_place_of_a_bad_request(
    model: Florence2, tmp_path: Path, batch_size: int
) -> None:
    fine = Request(picture(1), "od")
    bad = bad_requests(tmp_path)
    requests = [one for request, _ in bad for one in (request, fine)]
    answers = list(model.stream(requests, batch_size=batch_size, on_error="return", **SHORT))
    assert same(answers[1::2], [model(picture(1), "od", **SHORT)] * len(bad))
    for answer, (request, error) in zip(answers[0::2], bad, strict=True):
        assert isinstance(answer, Failure)
        assert answer.request is request
        assert type(answer.error) is error


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_an_error_is_raised_after_the_answers_before_it(
    model: Florence2, tmp_path: Path, batch_size: int
) -> None:
    requests = [Request(picture(seed), "od") for seed in range(6)]
    for bad, error in bad_requests(tmp_path):
        answers = model.stream([*requests, bad, *requests], batch_size=batch_size, **SHORT)
        assert len(list(islice(answers, 6))) == 6
        with pytest.raises(error):
            next(answers)
        with pytest.raises(error):
            model.run([*requests, bad], batch_size=batch_size, **SHORT)


class EngineError(RuntimeError):
    """Like those of ONNX Runtime: of no class that anybody knows."""


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was asked in each batch; ``<bad>`` makes the engine fail."""
    batches: list[list[str]] = []
    answer = answering.answer_batch

    def failing(assets: Any, graphs: Any, batch: Sequence[Prepared], policy: Any) -> Any:
        batches.append([prepared.asked for prepared in batch])
        if "<bad>" in batches[-1]:
            raise EngineError("Non-zero status code returned")
        return answer(assets, graphs, batch, policy)

    monkeypatch.setattr(streaming, "answer_batch", failing)
    return batches


def test_only_the_culprit_of_an_engine_error_fails(
    model: Florence2, batches: list[list[str]]
) -> None:
    prompts = ["<a>", "<b>", "<bad>", "<c>", "<d>", "<e>", "<f>"]
    requests = [Request(picture(1), prompt=prompt) for prompt in prompts]
    answers = list(model.stream(requests, batch_size=5, on_error="return", **SHORT))
    assert [type(answer) for answer in answers] == [
        Failure if prompt == "<bad>" else Result for prompt in prompts
    ]
    failure = answers[2]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, EngineError)
    assert batches == [prompts[:5], *([prompt] for prompt in prompts[:5]), prompts[5:]]
    results = model.stream(requests, batch_size=5, **SHORT)
    assert len(list(islice(results, 2))) == 2
    with pytest.raises(EngineError):
        next(results)


def test_only_the_picture_that_the_vision_encoder_fails_on_fails(model: Florence2) -> None:
    class Failing:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, names: Any, feeds: Any) -> Any:
            if any(np.ptp(one[0]) == 0 for one in feeds["pixel_values"]):
                raise EngineError("Failed to allocate memory")
            return self._session.run(names, feeds)

    vision: Any = Failing(model.graphs.sessions[VISION_ENCODER])
    sessions = {**model.graphs.sessions, VISION_ENCODER: vision}
    failing = Florence2(model.assets, replace(model.graphs, sessions=sessions))
    flat = np.zeros((20, 20, 3), np.uint8)
    images = [picture(1), flat, picture(2), flat, picture(3)]
    requests = [Request(image, "od") for image in images]
    answers = list(failing.stream(requests, on_error="return", **SHORT))
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, False, True, False]
    assert same(answers[0::2], model(images[0::2], "od", **SHORT))


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_an_error_of_the_source_comes_after_the_answers(model: Florence2, on_error: Any) -> None:
    def source() -> Iterator[Request]:
        for seed in range(5):
            yield Request(picture(seed), "od")
        raise ConnectionError("the queue is gone")

    answers = model.stream(source(), batch_size=2, on_error=on_error, **SHORT)
    assert same(
        list(islice(answers, 5)), model([picture(seed) for seed in range(5)], "od", **SHORT)
    )
    with pytest.raises(ConnectionError, match="the queue is gone"):
        next(answers)
    assert list(answers) == []


def test_failures_keep_no_pixels(model: Florence2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that could not be decoded, and not the other pictures of the batch."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    read = read_picture

    def failing(assets: Any, image: Any, *options: Any) -> Any:
        alive.add(found := read(assets, image, *options))
        pixels = np.zeros((1000, 1000, 3), np.uint8)
        references.append(weakref.ref(pixels))
        if image is bad:
            try:
                raise OSError("truncated")
            except OSError as error:
                raise ImageError("cannot decode it") from error
        return found

    references: list[weakref.ref[Any]] = []
    bad = picture(9)
    requests = [Request(bad if i % 2 else picture(i), "od") for i in range(6)]
    monkeypatch.setattr(streaming, "read_picture", failing)
    answers = model.stream(requests, on_error="return", batch_size=3, **SHORT)
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    gc.collect()
    assert len(failures) == 3
    assert len(alive) == 0
    assert [reference() for reference in references] == [None] * len(references) != []
    assert isinstance(failures[0].error.__cause__, OSError)


def test_an_error_that_is_raised_tells_where(model: Florence2) -> None:
    with pytest.raises(ImageError) as error:
        model.run([Request("nowhere.png", "od")])
    assert "to_rgb" in [entry.name for entry in error.traceback]


# Threads


def test_pictures_are_decoded_in_threads_while_the_engine_works(
    model: Florence2, monkeypatch: pytest.MonkeyPatch, decoded: list[Any]
) -> None:
    images = [picture(seed) for seed in range(6)]
    ahead = threading.Event()
    read, answer = read_picture, answering.answer_batch
    waited: list[bool] = []

    def noted(assets: Any, image: Any, *options: Any) -> Any:
        found = read(assets, image, *options)
        if image is images[3]:
            ahead.set()
        return found

    def waiting(*arguments: Any) -> Any:
        waited.append(ahead.wait(timeout=60))
        return answer(*arguments)

    monkeypatch.setattr(streaming, "read_picture", noted)
    monkeypatch.setattr(streaming, "answer_batch", waiting)
    model.run([Request(image, "od") for image in images], batch_size=2, **SHORT)
    assert waited == [True] * 3, "the second batch was not decoded while the first was answered"
    assert threading.get_ident() not in {thread for _, thread in decoded}


def test_closing_a_stream_ends_its_threads(model: Florence2, decoded: list[Any]) -> None:
    before = set(threading.enumerate())
    requests = (Request(picture(seed), "od") for seed in count())
    answers = model.stream(requests, batch_size=4, **SHORT)
    next(answers)
    assert set(threading.enumerate()) > before
    answers.close()
    assert set(threading.enumerate()) == before
    assert len(decoded) <= 8
    assert list(answers) == []
    for answers in (model.stream(requests), model.stream([Request(picture(1), "od")], **SHORT)):
        next(answers, None)
        del answers
        gc.collect()
    assert set(threading.enumerate()) == before


def test_a_closed_stream_decodes_nothing_more(
    model: Florence2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread has one picture in hand, which waits until what is queued has been dropped."""
    images = [picture(seed) for seed in range(16)]
    begun: list[int] = []
    dropped = threading.Event()
    read, shut_down = preparing.read_picture, ThreadPoolExecutor.shutdown

    def waiting(assets: Any, image: Any, *options: Any) -> Any:
        place = next(i for i, one in enumerate(images) if one is image)
        begun.append(place)
        if place >= 8:
            assert dropped.wait(timeout=60)
        return read(assets, image, *options)

    def noted(pool: ThreadPoolExecutor, *, cancel_futures: bool = False, **options: Any) -> None:
        shut_down(pool, wait=False, cancel_futures=cancel_futures)
        dropped.set()
        shut_down(pool, wait=True)

    monkeypatch.setattr(streaming, "read_picture", waiting)
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", noted)
    answers = model.stream((Request(image, "od") for image in images), **SHORT)
    next(answers)
    answers.close()
    assert max(begun) < 8 + 4


def test_threads_share_a_model(model: Florence2) -> None:
    """Eight threads with mixed tasks, beams and sizes get what one thread gets."""
    jobs: list[tuple[list[Request], GenerationOptions]] = [
        (mixed_requests()[start : start + size], {"num_beams": beams, "max_new_tokens": tokens})
        for start, size, beams, tokens in (
            (0, 1, 1, 9),
            (1, 3, 3, 12),
            (4, 5, 2, 70),
            (9, 2, 5, 10),
            (11, 4, 3, 9),
            (3, 8, 1, 20),
            (13, 3, 4, 12),
            (0, 16, 3, 8),
        )
    ]

    def ask(job: tuple[list[Request], GenerationOptions]) -> list[Result]:
        requests, options = job
        return model.run(requests, batch_size=3, **options)

    expected = [ask(job) for job in jobs]
    ready = threading.Barrier(len(jobs))

    def ask_at_once(job: tuple[list[Request], GenerationOptions]) -> list[list[Result]]:
        ready.wait(timeout=60)
        return [ask(job) for _ in range(3)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(ask_at_once, jobs))
    assert found == [[results] * 3 for results in expected]


def test_threads_share_an_encoded_picture_and_prepared_requests(model: Florence2) -> None:
    encoded = model.encode(picture(1, 50, 70))
    prepared = [model.prepare(Request(encoded, task)) for task in ("od", "ocr", "caption")]
    prepared.append(model.prepare(Request(picture(2), Task.OCR_WITH_REGION)))
    expected = model.answer(prepared, **SHORT)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: model.answer(prepared, **SHORT), range(16)))
    assert found == [expected] * 16
