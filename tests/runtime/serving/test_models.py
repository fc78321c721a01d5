"""Models come and go as requests and limits have it."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from florence_onnx import Florence2, ModelNotFoundError
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.models import Models
from florence_onnx.serving.refusals import RefusalError
from tests.helpers.service import asking, client, until
from tests.helpers.tiny import TINY

pytest.importorskip("prometheus_client")

ABC = {name: name for name in "abc"}


class Opener:
    """Opens models, and tells which it has opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.models: list[weakref.ref[Florence2]] = []

    def __call__(self, source: str) -> Florence2:
        if source == "missing":
            raise ModelNotFoundError("no such model")
        self.opened.append(source)
        model = Florence2.load(TINY)
        self.models.append(weakref.ref(model))
        return model

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(one() is not None for one in self.models)


@pytest.fixture
def opener() -> Iterator[Opener]:
    yield Opener()


def test_the_model_that_was_not_used_for_the_longest_time_makes_room(opener: Opener) -> None:
    async def run() -> None:
        models = Models(ABC, opener, Metrics(), max_open=2)
        await models.open_first()
        assert opener.opened == ["a", "b"]
        async with models.use("b"), models.use("a"):
            pass
        async with models.use("c"):
            pass
        assert [models.is_open(name) for name in "abc"] == [False, True, True]

    asyncio.run(run())
    assert opener.opened == ["a", "b", "c"]


def test_a_model_in_use_stays_open_and_others_wait(opener: Opener) -> None:
    async def run() -> None:
        models = Models(ABC, opener, Metrics(), max_open=1)

        async def use(name: str) -> None:
            async with models.use(name) as model:
                assert models.is_open(name)
                assert model is not None

        async with models.use("a"):
            others = [asyncio.create_task(use(name)) for name in ("b", "c", "a", "b")]
            await asyncio.sleep(0)
            assert models.is_open("a")
        await asyncio.gather(*others)
        assert sum(models.is_open(name) for name in "abc") == 1

    asyncio.run(run())
    assert set(opener.opened) == {"a", "b", "c"}


async def _use(models: Models, order: list[str], name: str) -> None:
    async with models.use(name):
        order.append(name)


def test_a_busy_model_makes_room_for_those_who_wait(opener: Opener) -> None:
    async def run() -> None:
        models = Models(ABC, opener, Metrics(), max_open=1)
        order: list[str] = []
        use = partial(_use, models, order)
        async with models.use("a"):
            others = [asyncio.create_task(use(name)) for name in ("b", "a", "c", "b", "a")]
            for _ in range(5):
                await asyncio.sleep(0)
            assert order == [], "the other requests for a come after the first for b"
        await asyncio.gather(*others)
        assert order == ["b", "b", "a", "a", "c"]

    asyncio.run(run())
    assert opener.opened == ["a", "b", "a", "c"]


def test_who_gives_up_waiting_is_in_nobody_s_way(opener: Opener) -> None:
    async def run() -> None:
        models = Models(ABC, opener, Metrics(), max_open=1)
        order: list[str] = []
        use = partial(_use, models, order)
        async with models.use("a"):
            lost, found = (asyncio.create_task(use(name)) for name in ("b", "a"))
            await asyncio.sleep(0)
            lost.cancel()
            await found
            assert order == ["a"]
        await use("c")
        late = asyncio.create_task(use("c"))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait([late])
        await use("b")
        assert [models.is_open(name) for name in "abc"] == [False, True, False]

    asyncio.run(run())
    assert opener.opened == ["a", "c", "b"]


def test_many_requests_open_a_model_once(opener: Opener) -> None:
    async def run() -> None:
        models = Models(ABC, opener, Metrics())

        async def use() -> None:
            async with models.use("b"):
                pass

        await asyncio.gather(*(use() for _ in range(5)))

    asyncio.run(run())
    assert opener.opened == ["b"]


def test_a_model_that_cannot_be_opened_is_tried_again(opener: Opener) -> None:
    async def run() -> None:
        models = Models({"a": "missing"}, opener, Metrics())
        for _ in range(2):
            with pytest.raises(ModelNotFoundError):
                async with models.use(None):
                    pass
        with pytest.raises(RefusalError, match="there are the models a"):
            async with models.use("b"):
                pass

    asyncio.run(run())


def test_an_idle_model_leaves_the_memory_and_comes_back(opener: Opener) -> None:
    with client(sources={"a": "a"}, open_model=opener, idle=0.05) as service:

        def is_open() -> Any:
            return service.get("/v1/models").json()["data"][0]["open"]

        until(lambda: not is_open())
        until(lambda: opener.alive == 0)
        until(lambda: "florence_onnx_models_open 0.0" in service.get("/metrics").text)
        assert service.post("/v1/answer", json=asking()).status_code == 200
        assert opener.opened == ["a", "a"]
        assert service.get("/readyz").status_code == 200
        until(lambda: opener.alive == 0)


def test_a_stop_does_not_wait_for_a_model_that_is_being_opened(opener: Opener) -> None:
    """The opening may be a download that takes minutes."""
    begun, goes_on = threading.Event(), threading.Event()

    def held(source: str) -> Florence2:
        begun.set()
        assert goes_on.wait(60)
        return opener(source)

    async def run() -> None:
        models = Models(ABC, held, Metrics())
        opening = asyncio.create_task(models.open_first())
        await asyncio.to_thread(begun.wait)
        opening.cancel()

    asyncio.run(run())
    assert opener.opened == []
    goes_on.set()
    until(lambda: opener.opened == ["a"])
