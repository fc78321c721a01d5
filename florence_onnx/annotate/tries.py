"""Tries of the work of Ray actors: a picture that ends its actor is not tried without end."""

from collections import Counter

TOGETHER = 2
"""Number of tries of a batch, before its pictures are tried one by one."""


class Tries:
    """Count of tries without an end. It runs in an actor of its own, which outlives the others."""

    def __init__(self) -> None:
        """Begins with no tries."""
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Notes a try; returns the number of earlier tries without an end."""
        self._begun[name] += 1
        return self._begun[name] - 1

    def end(self, name: str) -> None:
        """Notes that all tries have come to an end."""
        del self._begun[name]
