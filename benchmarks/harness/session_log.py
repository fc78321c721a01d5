"""Log of the runs of a model's graphs, which divides a step into engine and host."""

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from florence_onnx import Florence2
from florence_onnx.engine.contract import DECODER


@dataclass(frozen=True)
class Step:
    """Step of the search."""

    seconds: float
    """Seconds from one start of the decoder to the next start."""
    engine: float
    """Seconds of the step in ONNX Runtime."""

    @property
    def host_share(self) -> float:
        """Share of the step that numpy and Python take."""
        return 1 - self.engine / self.seconds


class SessionLog:
    """Proxy for the sessions of a model that notes the times of runs."""

    def __init__(self, model: Florence2) -> None:
        """Watches a model.

        Args:
            model: Model, which is not changed; ``self.model`` is the watched copy.
        """
        self._runs: list[tuple[str, float, float]] = []
        sessions: dict[str, Any] = {
            name: _Watched(name, session, self._runs)
            for name, session in model.graphs.sessions.items()
        }
        self.model = Florence2(model.assets, replace(model.graphs, sessions=sessions))

    def take_steps(self) -> list[Step]:
        """Returns the steps since the last call, but not the last step, whose end is unknown."""
        starts = [start for graph, start, _ in self._runs if graph == DECODER]
        steps = [
            Step(
                after - before,
                sum(end - start for _, start, end in self._runs if before <= start < after),
            )
            for before, after in pairwise(starts)
        ]
        self._runs.clear()
        return steps


class _Watched:
    """Session whose runs are noted."""

    def __init__(self, name: str, session: Any, runs: list[tuple[str, float, float]]) -> None:
        self._name, self._session, self._runs = name, session, runs

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._session, name)
        if not name.startswith("run"):
            return value

        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = value(*arguments, **options)
            self._runs.append((self._name, start, time.perf_counter()))
            return result

        return run
