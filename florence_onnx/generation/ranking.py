"""Log-probabilities and the best tokens, in numpy."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_DEPTH = 64
"""Number of tokens in a part of the vocabulary, of which one peak is compared."""


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
    size = values.shape[1]
    k = min(k, size)
    depth = min(_DEPTH, size // k)
    parts = size // depth
    peaks = values[:, : depth * parts].reshape(-1, depth, parts).max(axis=1)
    # The peaks of k parts are as high as the k-th highest peak, so the k best tokens are too.
    bounds = np.partition(peaks, parts - k, axis=1)[:, parts - k]
    best = np.empty((len(values), k), dtype=np.int64)
    for row, bound, found in zip(values, bounds, best, strict=True):
        (candidates,) = np.nonzero(~(row < bound))  # A NaN stays.
        found[:] = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
    return best
