"""Reading order of words: lines of words, order within lines, and lines that continue."""

import math
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import cast

from florence_onnx.results import Detection, Quad

_SAME_LINE = 0.5
"""Least common part of the height of two pieces of one line, relative to the lower piece."""


def in_lines(words: Iterable[Detection]) -> list[list[Detection]]:
    """Sorts words into lines from top to bottom, and each line from left to right.

    Args:
        words: Detections with quadrilaterals.
    """
    lines: list[list[Detection]] = []
    for word in sorted(words, key=_middle):
        line = next(
            (line for line in reversed(lines) if _share(line[-1], word) >= _SAME_LINE), None
        )
        if line is None:
            lines.append([word])
        else:
            line.append(word)
    return [sorted(line, key=lambda word: word.box[0]) for line in lines]


def same_line(left: Detection, right: Detection) -> bool:
    """Tells whether the second piece continues the line of the first piece."""
    reaches = left.box[0] < right.box[0] <= left.box[2] < right.box[2]
    return reaches and _share(left, right) >= _SAME_LINE


def continued(left: Detection, right: Detection) -> str:
    """Joins two overlapping pieces of a line, with the common text once.

    Args:
        left: Beginning of the line.
        right: End of the line.
    """
    a, b = left.label, right.label
    common = left.box[2] - right.box[0]
    # One letter more, because letters have different widths.
    tail = _letters(len(a), common, left.box[2] - left.box[0]) + 1
    head = _letters(len(b), common, right.box[2] - right.box[0]) + 1
    end = a[max(len(a) - tail, 0) :]
    match = SequenceMatcher(None, end, b[:head], autojunk=False).find_longest_match()
    if match.size == 0:
        return a[: len(a) - (tail - 1) // 2] + b[(head - 1) - (tail - 1) // 2 :]
    return a[: len(a) - len(end) + match.a] + b[match.b :]


def _letters(count: int, part: float, whole: float) -> int:
    """Estimates the number of letters in a part of a text, from the widths."""
    return min(math.ceil(count * part / whole), count) if whole > 0 else count


def _middle(word: Detection) -> float:
    return (word.box[1] + word.box[3]) / 2


def _height(word: Detection) -> float:
    """Height of the letters, which is less than the height of the box of a slanted word."""
    x1, y1, _, _, _, _, x4, y4 = cast(Quad, word.quad)
    return math.hypot(x4 - x1, y4 - y1)


def _share(a: Detection, b: Detection) -> float:
    """Common part of the heights of two words, relative to the lower word."""
    heights = _height(a), _height(b)
    common = sum(heights) / 2 - abs(_middle(a) - _middle(b))
    return min(common, *heights) / min(heights) if min(heights) > 0 else 0.0
