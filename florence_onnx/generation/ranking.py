"""Log-probabilities and the best tokens, in numpy."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def log_softmax(logits: Floats) -> Floats:
    """Computes the log-probabilities of every row's tokens, float32 [R,V]."""
    peak = logits.max(axis=1, keepdims=True)
    norm: Floats = peak + np.log(np.exp(logits - peak).sum(axis=1, keepdims=True))
    return logits - norm


def best_ids(values: Floats, k: int) -> Ids:
    """Finds the tokens with the ``k`` highest values of every row.

    Args:
        values: float32 [R,V].
        k: Number of tokens; all tokens of a smaller vocabulary.

    Returns:
        int64 [R,k], descending by value; where values are equal, the lower id comes first.
    """
    if k == 1:
        first: Ids = values.argmax(axis=1)[:, None]
        return first
    k = min(k, values.shape[1])
    # In the order of the ids, which a stable sort keeps among equal values.
    best = np.sort(np.argpartition(values, -k, axis=1)[:, -k:], axis=1)
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
