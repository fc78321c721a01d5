"""Tiles of a large picture: what a caller may ask for, and where they are."""

import math
import operator
from dataclasses import dataclass
from typing import Literal

from florence_onnx.errors import InputError
from florence_onnx.tasks import AnswerKind, Task

Frame = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels of the picture; x2 and y2 are outside."""

AUTO = "auto"
OVERLAP = 0.2
"""The part of a tile's side that it shares with the next tile."""
_SHRUNK = 2
"""``"auto"`` makes tiles so small that the model's size is at most so many times smaller."""
_MOST_AUTO, _MOST = 16, 32
"""Tiles of a row or column, chosen by ``"auto"`` and by a caller."""
_KINDS = (AnswerKind.BOXES, AnswerKind.PROPOSALS, AnswerKind.QUADRILATERALS)
"""Answers that list all there is, so that a tile without a thing does not name it."""


@dataclass(frozen=True)
class Tiles:
    """How a large picture is cut, and which boxes are duplicates.

    Raises:
        InputError: The grid or ``per_label`` is none.
    """

    grid: Literal["auto"] | tuple[int, int] = "auto"
    """(columns, rows), 1 to 32 each; ``"auto"`` for tiles of up to twice the sides of the pictures
    that the model takes, 16 in a row or column at most."""
    per_label: bool = True
    """Whether boxes are duplicates only if they have one label."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        if not isinstance(self.per_label, bool):
            raise InputError(f"per_label is {self.per_label!r}; it must be True or False")
        if isinstance(self.grid, str) and self.grid == AUTO:
            return
        try:
            if isinstance(self.grid, str):
                raise TypeError
            columns, rows = (operator.index(count) for count in self.grid)
        except (TypeError, ValueError):
            columns = rows = 0
        if not (1 <= columns <= _MOST and 1 <= rows <= _MOST):
            raise InputError(
                f'tiles= must be "auto" or (columns, rows), each from 1 to {_MOST}, '
                f"got {self.grid!r:.80}"
            )
        object.__setattr__(self, "grid", (columns, rows))

    def frames(self, size: tuple[int, int], seen: tuple[int, int]) -> tuple[Frame, ...]:
        """The tiles of a picture row by row, then the whole picture; this alone if it is small.

        Args:
            size: (width, height) of the picture in pixels.
            seen: (width, height) that the model makes of every tile.
        """
        columns, rows = map(_count, size, seen) if isinstance(self.grid, str) else self.grid
        # A tile has a pixel of its own, in pictures of few pixels too.
        columns, rows = min(columns, size[0]), min(rows, size[1])
        whole = (0, 0, *size)
        if columns * rows == 1:
            return (whole,)
        xs, ys = _spans(size[0], columns), _spans(size[1], rows)
        return (*((x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs), whole)


TilesOption = Literal["auto"] | tuple[int, int] | Tiles
"""``"auto"``, (columns, rows), or `Tiles` for all there is to say."""


def tiles_of(option: TilesOption) -> Tiles:
    """What a caller asks for.

    Raises:
        InputError: It is no grid.
    """
    return option if isinstance(option, Tiles) else Tiles(option)


def check_tiles(asked: Task | str, kind: AnswerKind) -> None:
    """Refuses tiles for a task that does not list all there is.

    Raises:
        InputError: A tile without what is asked about would be answered all the same.
    """
    if not takes_tiles(asked, kind):
        names = ", ".join(t.name.lower() for t in Task if takes_tiles(t, t.answer_kind))
        raise InputError(
            f"tiles= is for tasks that list what there is ({names}), and prompts answered with "
            f"{', '.join(kind.name.lower() for kind in _KINDS)}; not for {asked}"
        )


def takes_tiles(asked: Task | str, kind: AnswerKind) -> bool:
    """Tells whether a task lists all there is in a picture."""
    return asked is Task.OCR or kind in _KINDS


def _count(length: int, seen: int) -> int:
    """The fewest tiles in a row that are not longer than `_SHRUNK` times ``seen``."""
    steps = (length / (_SHRUNK * seen) - OVERLAP) / (1 - OVERLAP)
    return min(max(math.ceil(steps), 1), _MOST_AUTO)


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """Starts and ends of tiles of one length, in whole pixels, over all of a side."""
    tile = length / (1 + (count - 1) * (1 - OVERLAP))
    starts = [number * tile * (1 - OVERLAP) for number in range(count)]
    return [(math.floor(start), min(math.ceil(start + tile), length)) for start in starts]
