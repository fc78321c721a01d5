"""Scores of the next tokens from one step of a decoder graph."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.checks import impossible_numbers
from florence_onnx.errors import GraphRunError
from florence_onnx.generation.ranking import best_ids, log_softmax

if TYPE_CHECKING:
    import onnxruntime as ort

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_ROUNDING = 1e-3
"""Largest log-probability of a sure token, above 0 by rounding."""


class GraphScores:
    """Scores of one step. Log-probabilities come to the host only when they are read."""

    def __init__(
        self,
        best: "tuple[ort.OrtValue, ort.OrtValue]",
        logits: "ort.OrtValue",
        impossible: Callable[[], GraphRunError],
    ) -> None:
        """Stores the outputs of a step.

        Args:
            best: topk_log_probs and topk_ids.
            logits: The logits of all tokens.
            impossible: Makes the error for impossible numbers, and may look for the source.
        """
        self._log_probs, self._ids = best
        self._logits = logits
        self._impossible = impossible

    def top(self, k: int) -> tuple[Floats, Ids]:
        """Reads the ``k`` best tokens per row: log-probabilities, descending [R,k], and ids [R,k].

        Raises:
            GraphRunError: A number is NaN or infinite, or an id is none of the model's tokens.
        """
        if k > self._ids.shape()[1]:
            return _best(self.logits(), k)
        log_probs, ids = self._log_probs.numpy()[:, :k], self._ids.numpy()[:, :k]
        # Comparisons with NaN are false. Tokens behind the first of a row may be impossible.
        if not ((log_probs <= _ROUNDING).all() and (log_probs[:, 0] > -np.inf).all()):
            raise self._impossible()
        vocabulary = self._logits.shape()[2]
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise GraphRunError(
                f"{contract.DECODER} returned topk_ids from {ids.min()} to {ids.max()}, where it "
                f"has {vocabulary} tokens. Export the checkpoint with florence-onnx export"
            )
        return log_probs, ids

    def logits(self) -> Floats:
        """Reads the logits of every row, [R,V].

        Raises:
            GraphRunError: A number is NaN or infinite.
        """
        logits = self.unchecked_logits()
        if not np.isfinite(logits.max(axis=1)).all():  # The maximum of numbers and NaN is NaN
            raise self._impossible()
        return logits

    def unchecked_logits(self) -> Floats:
        """Reads the logits of every row, unchecked, [R,V], to measure the errors of a graph."""
        logits: Floats = self._logits.numpy()[:, -1]
        return logits


class LogitScores:
    """Scores of one step of a graph that returns logits alone."""

    def __init__(self, logits: Floats, file: str) -> None:
        """Keeps the logits, float32 [R,V], and the graph's file, for messages."""
        self._logits = logits
        self._file = file

    def top(self, k: int) -> tuple[Floats, Ids]:
        """See `GraphScores.top`."""
        return _best(self.logits(), k)

    def logits(self) -> Floats:
        """See `GraphScores.logits`."""
        if not np.isfinite(self._logits.max(axis=1)).all():  # The maximum of numbers and NaN is NaN
            raise impossible_numbers(self._file, "logits")
        return self._logits

    def unchecked_logits(self) -> Floats:
        """See `GraphScores.unchecked_logits`."""
        return self._logits


def _best(logits: Floats, k: int) -> tuple[Floats, Ids]:
    ids = best_ids(logits, k)
    return np.take_along_axis(log_softmax(logits), ids, axis=1), ids
