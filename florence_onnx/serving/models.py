"""Models of the service, opened at the first request and closed when idle."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

from florence_onnx.model import Florence2
from florence_onnx.serving.memory import give_back
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.refusals import RefusalError

OPENING = "opening"
"""Name of threads that open models."""
Open = Callable[[str], Florence2]


@dataclass(eq=False)
class _Served:
    """Model that the service may open."""

    name: str
    source: str
    model: Florence2 | None = None
    opening: "asyncio.Task[None] | None" = None
    waiting: "list[asyncio.Future[None]]" = field(default_factory=list)
    users: int = 0
    used: float = 0.0


class Models:
    """Models by name. All methods must run in the thread of the event loop."""

    def __init__(
        self,
        sources: Mapping[str, str],
        open_model: Open,
        metrics: Metrics,
        max_open: int | None = None,
        idle: float = 0.0,
    ) -> None:
        """Stores the arguments. No model is opened yet.

        Args:
            sources: Name -> source of the model; the first model is the default.
            open_model: Opens and warms up a model; called in a thread.
            metrics: Metrics of the number of open models.
            max_open: Limit of the models in memory at the same time; None for all.
            idle: Seconds without a request after which a model is closed; 0 for never.
        """
        self._served = {name: _Served(name, source) for name, source in sources.items()}
        self._open_model, self._metrics = open_model, metrics
        self._max_open, self._idle = max_open or len(sources), idle
        self._queue: list[_Served] = []
        self.is_ready = False

    @property
    def names(self) -> list[str]:
        """Names of the models, the default first."""
        return list(self._served)

    def is_open(self, name: str) -> bool:
        """Tells whether a model is in memory."""
        return self._served[name].model is not None

    async def open_first(self) -> None:
        """Opens as many models as may be open, in order.

        Raises:
            FlorenceError: A model cannot be opened.
        """
        for name in self.names[: self._max_open]:
            async with self.use(name):
                pass
        self.is_ready = True

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Florence2]:
        """Yields a model, which stays open during the block.

        Where requests wait until another model may be opened, later ones wait behind them, those
        for open models too: a model that is always in use would never make room.

        Raises:
            RefusalError: There is no model of this name.
            FlorenceError: The model cannot be opened.
        """
        served = self._served.get(self.names[0] if name is None else name)
        if served is None:
            raise RefusalError(
                404,
                "model_not_found",
                f"there is no model {name!r:.80}; there are the models {', '.join(self.names)}",
            )
        await self._turn(served)
        try:
            yield await self._opened(served)
        finally:
            served.users -= 1
            served.used = time.monotonic()
            self._release()

    async def close_idle(self) -> None:
        """Closes models that have been idle for long enough, without end."""
        while self._idle:
            await asyncio.sleep(self._idle / 4)
            before = time.monotonic() - self._idle
            for served in self._served.values():
                if served.model is not None and not served.users and served.used <= before:
                    await self._close(served)

    async def _turn(self, served: _Served) -> None:
        """Waits until the model is open or may be opened, and counts one more user of it."""
        turn = asyncio.get_running_loop().create_future()
        served.waiting.append(turn)
        if served not in self._queue:
            self._queue.append(served)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # Both happened at once.
                served.users -= 1
            elif turn in served.waiting:
                served.waiting.remove(turn)
                if not served.waiting:
                    self._queue.remove(served)
            self._release()
            raise

    def _let_in(self) -> None:
        """Gives all who wait for the first model of the queue their turn, as long as it has room.

        They are its users before it is open, or it could be closed as soon as it is.
        """
        while self._queue and self._has_room(self._queue[0]):
            served = self._queue.pop(0)
            turns = [turn for turn in served.waiting if not turn.cancelled()]
            served.waiting.clear()
            served.users += len(turns)
            for turn in turns:
                turn.set_result(None)

    def _has_room(self, served: _Served) -> bool:
        """Tells whether a model is open or may be; closes the one not used for the longest time."""
        taken = [one for one in self._served.values() if one.model or one.opening or one.users]
        if served in taken or len(taken) < self._max_open:
            return True
        closable = [one for one in taken if one.model and not one.users]
        if closable:
            min(closable, key=lambda one: one.used).model = None
        return bool(closable)

    async def _opened(self, served: _Served) -> Florence2:
        while served.model is None:
            if served.opening is None:
                served.opening = asyncio.create_task(self._open(served))
                served.opening.add_done_callback(_look)
            await asyncio.shield(served.opening)
        return served.model

    async def _open(self, served: _Served) -> None:
        try:
            await asyncio.to_thread(give_back)  # What a model held that has just been closed.
            served.model = await _in_own_thread(lambda: self._open_model(served.source))
            served.used = time.monotonic()
        finally:
            served.opening = None
            self._release()

    async def _close(self, served: _Served) -> None:
        served.model = None
        await asyncio.to_thread(give_back)
        self._release()

    def _release(self) -> None:
        self._let_in()
        self._metrics.models_open.set(sum(one.model is not None for one in self._served.values()))


async def _in_own_thread(opened: Callable[[], Florence2]) -> Florence2:
    """Opens a model in a thread that the end of the process does not wait for.

    A download may take minutes, and a service that is stopped meanwhile has nothing to answer.
    """
    found: Future[Florence2] = Future()
    found.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found.set_result(opened())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=run, name=OPENING, daemon=True).start()
    return await asyncio.wrap_future(found)


def _look(task: "asyncio.Task[None]") -> None:
    """Reads the error of a task, because asyncio warns about errors that nobody reads."""
    with suppress(asyncio.CancelledError):
        task.exception()
