"""Requests that come together are answered together, each as if it were alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from florence_onnx import Florence2, Request, answering, encoding
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.serving import batching
from florence_onnx.serving.batching import Engine, Job, SharedPicture
from florence_onnx.serving.metrics import Metrics
from tests.helpers.service import until
from tests.helpers.tiny import TINY, picture

pytest.importorskip("prometheus_client")


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY)


class Stopped:
    """An engine that starts when it is told to; then it answers what has been submitted."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        self.engine = Engine(self.metrics, **settings)

    def run(self, jobs: list[Job]) -> None:
        self.engine.submit(jobs)
        self.engine.close()

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"florence_onnx_{name}", labels) or 0.0


def job(model: Florence2, seed: int, policy: GenerationPolicy, task: str = "od") -> Job:
    prepared = model.prepare(Request(picture(seed), task))
    return Job(model, prepared, SharedPicture(prepared.picture), policy)


@pytest.fixture
def policy(model: Florence2) -> GenerationPolicy:
    return model.policy.replace(max_new_tokens=12)


def test_jobs_are_searched_together(model: Florence2, policy: GenerationPolicy) -> None:
    stopped = Stopped()
    tasks = ("od", "caption", "ocr")
    jobs = [job(model, seed, policy, task) for seed, task in enumerate(tasks)]
    stopped.run(jobs)
    alone = [model(picture(seed), task, max_new_tokens=12) for seed, task in enumerate(tasks)]
    assert [one.answer.result().token_ids for one in jobs] == [one.token_ids for one in alone]
    assert stopped.value("batch_rows_count") == 1
    assert stopped.value("batch_rows_sum") == 3 * policy.num_beams
    assert stopped.value("batch_pictures_sum") == 3
    assert stopped.value("stage_seconds_count", stage="vision") == 3
    assert stopped.value("stage_seconds_count", stage="search") == 1
    assert stopped.value("tokens_total") == sum(len(one.token_ids) for one in alone)


def test_a_picture_of_several_tasks_is_encoded_once(
    model: Florence2, policy: GenerationPolicy
) -> None:
    stopped = Stopped()
    first = job(model, 0, policy)
    second = Job(model, first.prepared, first.picture, policy)
    stopped.run([first, second])
    assert first.answer.result() == second.answer.result()
    assert stopped.value("batch_pictures_sum") == 1
    assert stopped.value("stage_seconds_count", stage="vision") == 1


def test_other_options_and_what_does_not_fit_make_other_batches(
    model: Florence2, policy: GenerationPolicy
) -> None:
    stopped = Stopped(most_rows=2 * policy.num_beams)
    other = policy.replace(num_beams=1)
    jobs = [job(model, seed, one) for seed, one in enumerate((policy, other, policy, policy))]
    stopped.run(jobs)
    for seed, one in enumerate(jobs):
        options: dict[str, Any] = {"max_new_tokens": 12, "num_beams": one.policy.num_beams}
        alone = model(picture(seed), "od", **options)
        assert one.answer.result().token_ids == alone.token_ids
    # The first and the third, the second with one beam, the fourth.
    assert stopped.value("batch_rows_count") == 3
    assert stopped.value("batch_rows_sum") == 3 * policy.num_beams + 1


def test_a_cancelled_job_is_not_answered(model: Florence2, policy: GenerationPolicy) -> None:
    stopped = Stopped()
    jobs = [job(model, seed, policy) for seed in range(3)]
    jobs[1].answer.cancel()
    stopped.run(jobs)
    assert stopped.value("batch_pictures_sum") == 2
    assert jobs[2].answer.result().token_ids


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], object]], None]]:
    """Tells of every step of the search how many rows it has."""
    from florence_onnx.engine import slot_decoder

    original = slot_decoder.SlotSteps.__call__

    def watch(tell: Callable[[int], object]) -> None:
        def step(self: Any, token_ids: Any, rows: Any, requests: Any) -> Any:
            tell(len(requests))
            return original(self, token_ids, rows, requests)

        monkeypatch.setattr(slot_decoder.SlotSteps, "__call__", step)

    yield watch


def test_a_job_that_is_cancelled_leaves_its_batch(
    model: Florence2,
    policy: GenerationPolicy,
    steps: Callable[[Callable[[int], object]], None],
) -> None:
    policy = policy.replace(min_new_tokens=12)
    jobs = [job(model, seed, policy) for seed in range(3)]
    sizes: list[int] = []

    def tell(size: int) -> None:
        sizes.append(size)
        if len(sizes) == 4:
            jobs[0].answer.cancel()

    steps(tell)
    Stopped().run(jobs)
    assert sizes[:4] == [3] * 4
    assert set(sizes[4:]) == {2}
    alone = model(picture(2), "od", max_new_tokens=12, min_new_tokens=12)
    assert jobs[2].answer.result().token_ids == alone.token_ids


def test_a_search_that_nobody_waits_for_ends(
    model: Florence2,
    policy: GenerationPolicy,
    steps: Callable[[Callable[[int], object]], None],
) -> None:
    one = job(model, 0, policy.replace(min_new_tokens=12))
    sizes: list[int] = []

    def tell(size: int) -> None:
        sizes.append(size)
        one.answer.cancel()

    steps(tell)
    Stopped().run([one])
    assert sizes == [1]


def test_only_the_culprit_fails(
    model: Florence2, policy: GenerationPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(model, seed, policy) for seed in range(3)]
    original = answering.answer_batch

    def answer(assets: Any, graphs: Any, batch: Any, *others: Any) -> Any:
        if any(prepared.input_ids is jobs[1].prepared.input_ids for prepared in batch):
            raise RuntimeError("odd")
        return original(assets, graphs, batch, *others)

    monkeypatch.setattr(batching, "answer_batch", answer)
    Stopped().run(jobs)
    assert str(jobs[1].answer.exception()) == "odd"
    assert jobs[0].answer.result().token_ids
    assert jobs[2].answer.result().token_ids


def test_what_comes_in_while_pictures_are_encoded_joins(
    model: Florence2, policy: GenerationPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Stopped(wait=0.0)
    jobs = [job(model, seed, policy) for seed in range(2)]
    original = encoding.encode

    def encode(*given: Any) -> Any:
        if not jobs[1].picture.is_encoded and given[1] is jobs[0].prepared.picture:
            stopped.engine.submit([jobs[1]])
        return original(*given)

    monkeypatch.setattr(batching, "encode", encode)
    stopped.engine.submit([jobs[0]])
    until(jobs[1].answer.done)
    stopped.engine.close()
    assert stopped.value("batch_rows_count") == 1
    assert stopped.value("batch_pictures_sum") == 2


def tiled(model: Florence2, seed: int, policy: GenerationPolicy) -> Job:
    prepared = model.prepare(Request(picture(seed), "od", tiles=(3, 3)))
    return Job(model, prepared, SharedPicture(prepared.picture), policy)


def test_tiles_are_a_batch_of_their_own(model: Florence2, policy: GenerationPolicy) -> None:
    stopped = Stopped()
    jobs = [job(model, 0, policy), tiled(model, 1, policy), job(model, 2, policy)]
    stopped.run(jobs)
    assert stopped.value("batch_rows_count") == 2
    expected = model(picture(1), "od", tiles=(3, 3), max_new_tokens=12)
    assert jobs[1].answer.result().record() == expected.record()
    assert len({one.answer.result().generated for one in jobs}) == 3


def test_tiles_that_nobody_waits_for_leave_the_search(
    model: Florence2, policy: GenerationPolicy
) -> None:
    prepared = tiled(model, 1, policy).prepared

    def steps(is_wanted: bool) -> int:
        stages: list[str] = []
        answering.answer_batch(
            model.assets, model.graphs, [prepared], policy, stages.append, lambda _: is_wanted
        )
        return stages.count("step")

    assert 0 < steps(is_wanted=False) < steps(is_wanted=True)
