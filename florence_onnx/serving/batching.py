"""Batching: one thread runs the engine, collects requests and answers the requests in batches.

Pictures go through the vision encoder one by one. New requests join the batch meanwhile, as long as
the batch has room. Then all rows are searched together. Requests with different options are
searched separately.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Condition, Thread

from florence_onnx.answering import answer_batch
from florence_onnx.encoding import encode
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.model import Florence2
from florence_onnx.requests import EncodedImage, Picture, Prepared, TiledPicture
from florence_onnx.results import Result
from florence_onnx.serving.metrics import Metrics


class SharedPicture:
    """Picture of one or more tasks, which the engine's thread encodes at the first use."""

    def __init__(self, picture: Picture | TiledPicture | EncodedImage) -> None:
        self._picture = picture

    @property
    def is_encoded(self) -> bool:
        """Tells whether the vision encoder has run."""
        return isinstance(self._picture, EncodedImage)

    def encoded(self, model: Florence2) -> EncodedImage:
        """Encodes the picture with the model, once."""
        self._picture = encode(model.graphs, self._picture)
        return self._picture


@dataclass(eq=False)
class Job:
    """Job: a task to be answered. Cancelling ``answer`` removes the job from queue and batch."""

    model: Florence2
    """Model that answers."""
    prepared: Prepared
    """Prepared request of the task."""
    picture: SharedPicture
    """Picture of ``prepared``. Tasks of one request share one object."""
    policy: GenerationPolicy
    """Options of the search."""
    answer: "Future[Result]" = field(default_factory=Future)
    """Answer, or the error in place of an answer."""
    arrived: float = field(default_factory=time.monotonic)
    """Time at which the job was made."""

    @property
    def is_wanted(self) -> bool:
        """Tells whether a client still waits for the answer."""
        return not self.answer.cancelled()

    def goes_with(self, other: "Job") -> bool:
        """Tells whether two jobs can be searched together. Tiles are a batch of their own."""
        is_tiled = isinstance(self.prepared.picture, TiledPicture) or isinstance(
            other.prepared.picture, TiledPicture
        )
        return not is_tiled and self.model is other.model and self.policy == other.policy


class Engine:
    """Engine: a thread with a queue of jobs."""

    def __init__(self, metrics: Metrics, wait: float = 0.005, most_rows: int = 24) -> None:
        """Starts the thread.

        Args:
            metrics: Metrics of batches and stages.
            wait: Seconds for which the first job of a batch waits for further jobs.
            most_rows: Limit of the rows of a batch, tasks times beams. A single task may have more.
        """
        self._metrics, self._wait, self._most_rows = metrics, wait, most_rows
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, jobs: Iterable[Job]) -> None:
        """Puts jobs into the queue."""
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread after the jobs in the queue are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._await_jobs():
            self._answer_next()

    def _await_jobs(self) -> bool:
        """Waits for a job, and a little for further jobs; false when the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            if not self._jobs:
                return False
            first = self._jobs[0]
            rows = self._most_rows

            def is_full() -> bool:
                beams = first.policy.num_beams
                return self._is_closed or len(self._jobs) * beams >= rows

            self._changed.wait_for(is_full, first.arrived + self._wait - time.monotonic())
            return True

    def _answer_next(self) -> None:
        """Answers one batch, and keeps no reference, so that the model can be closed."""
        batch: list[Job] = []
        while joined := self._join(batch):
            batch += joined
            for job in joined:
                self._encode(job)
        batch = [job for job in batch if not job.answer.done()]
        if batch:
            pictures = len({id(job.picture) for job in batch})
            self._metrics.batch(pictures, len(batch) * batch[0].policy.num_beams)
            self._search(batch)

    def _join(self, batch: Sequence[Job]) -> list[Job]:
        """Moves jobs that go with a batch from the queue to the batch, picture by picture."""
        joined: list[Job] = []
        with self._changed:
            waiting, self._jobs = self._jobs, deque()
            for job in waiting:
                if not job.is_wanted:
                    continue
                first = next(iter((*batch, *joined)), job)
                rows = (len(batch) + len(joined) + 1) * job.policy.num_beams
                fits = first is job or (job.goes_with(first) and rows <= self._most_rows)
                if fits and (not joined or job.picture is joined[0].picture):
                    joined.append(job)
                else:
                    self._jobs.append(job)
        now = time.monotonic()
        for job in joined:
            self._metrics.stage("queue", now - job.arrived)
        return joined

    def _encode(self, job: Job) -> None:
        if job.picture.is_encoded or not job.is_wanted:
            return
        start = time.perf_counter()
        try:
            job.picture.encoded(job.model)
        except Exception as error:
            _fail(job, error)
        else:
            self._metrics.stage("vision", time.perf_counter() - start)

    def _search(self, batch: Sequence[Job]) -> None:
        """Searches a batch; if this fails, one by one, so that only the wrong job fails."""
        try:
            results = self._results(batch)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
            else:
                for job in batch:
                    self._search([job])
            return
        for job, result in zip(batch, results, strict=True):
            self._metrics.tokens(len(result.token_ids))
            if job.answer.set_running_or_notify_cancel():
                job.answer.set_result(result)

    def _results(self, batch: Sequence[Job]) -> list[Result]:
        model, policy = batch[0].model, batch[0].policy
        asked = [replace(job.prepared, picture=job.picture.encoded(model)) for job in batch]
        last = time.perf_counter()

        def watch(stage: str) -> None:
            nonlocal last
            if stage not in ("step", "vision"):
                now = time.perf_counter()
                self._metrics.stage(stage, now - last)
                last = now

        def is_wanted(index: int) -> bool:
            return batch[index].is_wanted

        return answer_batch(model.assets, model.graphs, asked, policy, watch, is_wanted)


def _fail(job: Job, error: Exception) -> None:
    if job.answer.set_running_or_notify_cancel():
        job.answer.set_exception(error)
