"""Batches of questions of one kind, limited by tokens."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")

LARGEST = 64
"""Limit of the questions of a batch where the size is found by measurement."""
_USUAL_PROMPT = 64
"""Tokens of text per question for which a batch has room. With a longer text, a batch has fewer
questions, because the encoder pads all questions to the longest."""
_TRIES = 2
"""Number of batches of a size before the comparison: other work may slow a single batch down."""
_GAIN = 0.95
"""Part of the time of a token that a larger size must stay below."""


class Batches(Generic[Waiting]):
    """Questions that wait, in order, and the number of questions that are answered together.

    Questions of one kind have answers of about one length, so that no short answer waits in a batch
    for a long one.
    """

    def __init__(self, size: int | None, image_tokens: int) -> None:
        """Begins with no questions.

        Args:
            size: Limit of the questions of a batch; None to find the size with the fastest tokens.
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
        """Adds a question with its number of tokens, the picture's tokens included."""
        self._waiting.append((tokens, question))

    @property
    def is_full(self) -> bool:
        """Tells whether the next batch has no room for a further question."""
        fitting = self._fitting()
        return fitting == self.size or fitting < len(self._waiting)

    def take(self) -> list[Waiting]:
        """Removes and returns the questions of the next batch: at least one, if any is waiting."""
        return [self._waiting.popleft()[1] for _ in range(self._fitting())]

    def learn(self, seconds: float, tokens: Sequence[int]) -> None:
        """Records the time of a batch, and chooses the size of the next batch.

        The size doubles as long as tokens become faster, and then goes back by one step.

        Args:
            seconds: Time of the batch.
            tokens: Generated tokens of each answer of the batch.
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
