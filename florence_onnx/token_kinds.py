"""Kinds of the tokens of a vocabulary in the grammar of answers."""

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from florence_onnx.locating import CLOSE, OPEN, SEPARATOR

Kinds = npt.NDArray[np.int8]


class Kind(IntEnum):
    """Kinds of tokens."""

    UNSEEN = 0
    """Token that is no part of the text: ``<s>``, ``<pad>``, ids without a token."""
    BLANK = 1
    """Blanks and other white space."""
    WORD = 2
    """Letters that a label may have."""
    LINE = 3
    """Line break, alone or among letters."""
    MARK = 4
    """Tokens with a ``<``, at which the parser would end a label."""
    LOCATION = 5
    """Location, ``<loc_N>``."""
    OPEN = 6
    """Start of outlines, ``<poly>``."""
    SEPARATOR = 7
    """Separator of outlines, ``<sep>``."""
    CLOSE = 8
    """End of outlines, ``</poly>``."""
    END = 9
    """End of the answer."""


_OUTLINES = {OPEN: Kind.OPEN, SEPARATOR: Kind.SEPARATOR, CLOSE: Kind.CLOSE}
_UNSEEN = ("", "<s>", "</s>", "<pad>")


def kinds_of(texts: Mapping[int, str], locations: npt.NDArray[np.int64]) -> Kinds:
    """Finds the kind of every token, int8 [highest id + 1]; ends are set elsewhere.

    Args:
        texts: Text of each token.
        locations: The ids of location tokens.
    """
    kinds = np.zeros(max(texts) + 1, dtype=np.int8)
    for token, text in texts.items():
        kinds[token] = _kind(text)
    kinds[locations] = Kind.LOCATION
    return kinds


def _kind(text: str) -> Kind:
    if text in _UNSEEN:
        return Kind.UNSEEN
    if "\n" in text:
        return Kind.LINE
    if "<" in text:
        return _OUTLINES.get(text, Kind.MARK)
    return Kind.WORD if text.strip() else Kind.BLANK
