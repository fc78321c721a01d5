"""Time of a run, after which no case is begun, and a little later the case in progress ends."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TimeOver(BaseException):
    """Signals in the middle of a case that the time is over."""


class Budget:
    """Budget of seconds."""

    def __init__(self, total: float) -> None:
        """Starts the budget now."""
        self._end = time.monotonic() + total

    def left(self) -> float:
        """Seconds that are left, below zero when the time is over."""
        return self._end - time.monotonic()

    @contextmanager
    def enforced(self, grace: float) -> Iterator[None]:
        """Ends the block ``grace`` seconds after the budget, in the main thread of a Unix process.

        Raises:
            TimeOver: The block has lasted so long.
        """

        def end(*ignored: object) -> None:
            raise TimeOver

        before = signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, max(self.left() + grace, 0.001))  # 0 would be never.
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
