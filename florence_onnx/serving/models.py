"""Models of the service, opened at the first request and closed when idle."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from florence_onnx.model import Florence2
from florence_onnx.serving.memory import give_back
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.refusals import RefusalError

Open = Callable[[str], Florence2]


@dataclass(eq=False)
class _Served:
    """Model that the service may open."""

    name: str
    source: str
    model: Florence2 | None = None
    opening: "asyncio.Task[None] | None" = None
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
        self._released = asyncio.Event()
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
        for served in list(self._served.values())[: self._max_open]:
            await self._opened(served)
        self.is_ready = True

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Florence2]:
        """Yields a model, which stays open during the block.

        Raises:
            RefusalError: There is no model of this name.
            FlorenceError: The model cannot be opened.
        """
        served = self._served.get(self.names[0] if name is None else name)
        if served is None:
            raise RefusalError(
                404, "model_not_found", f"there are the models {', '.join(self.names)}"
            )
        served.users += 1  # Before opening, so that no other request closes the model.
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

    async def _opened(self, served: _Served) -> Florence2:
        while served.model is None:
            if served.opening is None and not await self._has_room():
                continue  # Other requests may have come first meanwhile.
            if served.opening is None:
                served.opening = asyncio.create_task(self._open(served))
                served.opening.add_done_callback(_look)
            await asyncio.shield(served.opening)
        return served.model

    async def _has_room(self) -> bool:
        """Tells whether one more model may be open; else waits until the number may have changed.

        The model that was not used for the longest time is closed.
        """
        taken = [one for one in self._served.values() if one.model or one.opening]
        if len(taken) < self._max_open:
            return True
        closable = [one for one in taken if one.model and not one.users]
        if closable:
            await self._close(min(closable, key=lambda one: one.used))
        else:
            self._released.clear()
            await self._released.wait()
        return False

    async def _open(self, served: _Served) -> None:
        try:
            served.model = await asyncio.to_thread(self._open_model, served.source)
            served.used = time.monotonic()
        finally:
            served.opening = None
            self._release()

    async def _close(self, served: _Served) -> None:
        served.model = None
        await asyncio.to_thread(give_back)
        self._release()

    def _release(self) -> None:
        self._metrics.models_open.set(sum(one.model is not None for one in self._served.values()))
        self._released.set()


def _look(task: "asyncio.Task[None]") -> None:
    """Reads the error of a task, because asyncio warns about errors that nobody reads."""
    with suppress(asyncio.CancelledError):
        task.exception()
