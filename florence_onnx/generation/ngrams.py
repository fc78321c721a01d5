"""Tokens that would repeat an n-gram."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def repeating_tokens(history: Ids, size: int) -> tuple[Ids, Ids]:
    """Finds the tokens that would complete an n-gram that the row already holds.

    The rule is that of transformers' NoRepeatNGramLogitsProcessor. The start token counts.

    Args:
        history: The tokens of every row so far, int64 [R,L].
        size: Tokens per n-gram, at least 1.

    Returns:
        Rows and tokens, int64 [N] each, ordered by row.
    """
    length = history.shape[1]
    if size == 1:
        rows, followers = np.nonzero(np.ones(history.shape, dtype=bool))
    else:
        # Places of the row's last token with a successor and with room for the tokens before. There
        # are few such places, so a comparison of the tokens before costs little.
        rows, followers = np.nonzero(history[:, size - 2 : -1] == history[:, -1:])
        followers += size - 1
    for back in range(2, min(size, length)):
        same = history[rows, followers - back] == history[rows, length - back]
        rows, followers = rows[same], followers[same]
    return rows, history[rows, followers]


def successors(ids: Sequence[int], size: int) -> dict[tuple[int, ...], list[int]]:
    """Finds the successors of each run of ``size - 1`` tokens in ``ids``."""
    found: dict[tuple[int, ...], list[int]] = {}
    for end in range(size - 1, len(ids)):
        found.setdefault(tuple(ids[end - size + 1 : end]), []).append(ids[end])
    return found
