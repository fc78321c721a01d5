"""Questions of one kind wait for a batch that is full, in tokens."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")

LARGEST = 64
"""Most questions of a batch whose size is found."""
_USUAL_PROMPT = 64
"""Tokens of text that a batch has room for at each of its questions. A longer text leaves room for
fewer questions, as the encoder takes all of them padded to the longest."""
_TRIES = 2
"""Batches of a size before it is compared: other work on the machine may slow one down."""
_GAIN = 0.95
"""A larger size is better if a token takes less than this part of the time."""


class Batches(Generic[Waiting]):
    """The questions that wait, in their order, and how many of them are answered together.

    Questions of one kind have answers of about one length, so that no short answer waits in a batch
    for a long one.
    """

    def __init__(self, size: int | None, image_tokens: int) -> None:
        """Begins without questions.

        Args:
            size: Most questions of a batch; None to find the size whose tokens take the least time.
            image_tokens: Tokens of a picture.
        """
        self.size = size or 1
        self._is_found = size is not None
        self._room = image_tokens + _USUAL_PROMPT
        self._waiting: deque[tuple[int, Waiting]] = deque()
        self._tries: list[float] = []
        self._best = math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, question: Waiting, tokens: int) -> None:
        """Takes a question in, with its tokens, those of the picture included."""
        self._waiting.append((tokens, question))

    @property
    def is_full(self) -> bool:
        """Whether no further question would fit into the next batch."""
        fitting = self._fitting()
        return fitting == self.size or fitting < len(self._waiting)

    def take(self) -> list[Waiting]:
        """The questions of the next batch: one at least, if any is waiting."""
        return [self._waiting.popleft()[1] for _ in range(self._fitting())]

    def learn(self, seconds: float, tokens: Sequence[int]) -> None:
        """Takes in what a batch took, and chooses the size of the next one.

        The size doubles as long as a token takes less time, and goes back by one step then.

        Args:
            seconds: Time of the batch.
            tokens: Generated tokens of each of its answers.
        """
        if self._is_found or len(tokens) < self.size:
            return
        self._tries.append(seconds / max(1, sum(tokens)))
        if len(self._tries) < _TRIES:
            return
        fastest = min(self._tries)
        self._tries.clear()
        if fastest >= _GAIN * self._best:
            self.size //= 2
            self._is_found = True
        elif self.size == LARGEST:
            self._is_found = True
        else:
            self._best = fastest
            self.size *= 2

    def _fitting(self) -> int:
        longest = 0
        for count, (tokens, _) in enumerate(self._waiting):
            longest = max(longest, tokens)
            if count == self.size or (count and (count + 1) * longest > self.size * self._room):
                return count
        return len(self._waiting)
