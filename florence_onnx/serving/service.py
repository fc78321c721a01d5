"""Core of the service: answers to tasks about a picture, for all routes."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from florence_onnx.constraining import check_min_score, check_rules
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.model import Florence2
from florence_onnx.preparing import check_question, prepare, read_picture
from florence_onnx.requests import Request, TiledPicture
from florence_onnx.results import Result
from florence_onnx.serving.asking import Asked
from florence_onnx.serving.batching import Engine, Job, SharedPicture
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.models import Models
from florence_onnx.tiling import kind_in_tiles

if TYPE_CHECKING:
    from fastapi import FastAPI

T = TypeVar("T")

_THREADS = 2
"""Number of threads that decode and resize. More threads would slow the engine down."""


class Service:
    """Service with models, an engine, and threads that read pictures."""

    def __init__(self, models: Models, limits: Limits, metrics: Metrics) -> None:
        """Starts the threads.

        Args:
            models: The models.
            limits: Limits of every request.
            metrics: Metrics of batches and stages.
        """
        self.models, self.limits, self.metrics = models, limits, metrics
        self._engine = Engine(metrics)
        self._readers = ThreadPoolExecutor(_THREADS, "reader")

    async def answer(self, asked: Asked) -> list[Result]:
        """Answers tasks about one picture, for which the vision encoder runs once.

        Cancelling the call removes the tasks from the queue and the engine.

        Raises:
            RefusalError: There are too many tasks, or there is no model of this name.
            InputError: The picture, a task or an option is wrong.
            ModelError: The model cannot be opened, or one of its graphs fails.
        """
        self.limits.check_tasks(len(asked.tasks))
        async with self.models.use(asked.model) as model:
            jobs = await asyncio.get_running_loop().run_in_executor(
                self._readers, self._read, model, asked
            )
            self._engine.submit(jobs)
            try:
                return await asyncio.gather(*(asyncio.wrap_future(job.answer) for job in jobs))
            finally:
                for job in jobs:
                    job.answer.cancel()
                del model, jobs

    def close(self) -> None:
        """Ends the threads after their work."""
        self._readers.shutdown()
        self._engine.close()

    def _read(self, model: Florence2, asked: Asked) -> list[Job]:
        """Checks the tasks, then reads the picture."""
        policy = asked.policy(model.policy, self.limits)
        requests = asked.requests()
        _check(requests, policy)
        picture = read_picture(model.assets, asked.image, asked.tiles)
        if isinstance(picture, TiledPicture):
            self.limits.check_tiles(len(picture.frames) - 1)
        shared = SharedPicture(picture)
        prepared = [prepare(model.assets, request, picture) for request in requests]
        return [Job(model, one, shared, policy) for one in prepared]


def service_of(app: "FastAPI") -> Service:
    """Returns the service of an application that has started."""
    service: Service = app.state.service
    return service


def _check(requests: Sequence[Request], policy: GenerationPolicy) -> None:
    """Makes the checks that need no decoded picture."""
    kinds = []
    for request in requests:
        asked, kind = check_question(request)
        check_rules(asked, kind, policy)
        kinds.append((asked, kind if request.tiles is None else kind_in_tiles(asked, kind)))
    check_min_score(kinds, policy)
