"""Tiles of a large picture: options of a caller, and places of the tiles."""

import math
import operator
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal, cast

from florence_onnx.errors import InputError
from florence_onnx.tasks import AnswerKind, Task

Frame = tuple[int, int, int, int]
"""Frame: x1, y1, x2, y2 in whole pixels of the picture; x2 and y2 are outside."""

AUTO = "auto"
OVERLAP = 0.2
"""Overlap of neighbouring tiles, as a part of a tile's side."""
_SHRUNK = 2
"""Largest reduction of a tile by ``"auto"``: side of the tile over side of the model's picture."""
_MOST_AUTO, _MOST = 16, 32
"""Largest number of tiles in a row or column, by ``"auto"`` and by a caller."""
_KINDS = (AnswerKind.BOXES, AnswerKind.PROPOSALS, AnswerKind.QUADRILATERALS)
"""Kinds of answers that list all things, so that a tile without a thing does not name the thing."""


@dataclass(frozen=True)
class Tiles:
    """Tiles of a large picture: the grid, and the rule for duplicate boxes.

    Raises:
        InputError: The grid or ``per_label`` is of a wrong type or out of range.
    """

    grid: Literal["auto"] | tuple[int, int] = "auto"
    """(columns, rows), 1 to 32 each; ``"auto"`` for tiles of up to twice the sides of the pictures
    that the model takes, 16 in a row or column at most."""
    per_label: bool = True
    """Tells whether only boxes with the same label can be duplicates."""

    def __post_init__(self) -> None:
        """Checks the fields."""
        if not isinstance(self.per_label, bool):
            raise InputError(f"per_label is {self.per_label!r}; it must be True or False")
        if isinstance(self.grid, str) and self.grid == AUTO:
            return
        try:
            if isinstance(self.grid, str | bytes | Mapping | Set):
                raise TypeError
            columns, rows = map(_index, self.grid)
        except (TypeError, ValueError):
            columns = rows = 0
        if not (1 <= columns <= _MOST and 1 <= rows <= _MOST):
            raise InputError(
                f'tiles= must be "auto" or (columns, rows), each from 1 to {_MOST}, '
                f"got {self.grid!r:.80}"
            )
        object.__setattr__(self, "grid", (columns, rows))

    def frames(self, size: tuple[int, int], seen: tuple[int, int]) -> tuple[Frame, ...]:
        """Lists the tiles of a picture by rows, then the whole picture; only this if it is small.

        Args:
            size: (width, height) of the picture in pixels.
            seen: (width, height) that the model makes of every tile.
        """
        columns, rows = map(_count, size, seen) if isinstance(self.grid, str) else self.grid
        # A tile has at least one own pixel, also in pictures of few pixels.
        columns, rows = min(columns, size[0]), min(rows, size[1])
        whole = (0, 0, *size)
        if columns * rows == 1:
            return (whole,)
        xs, ys = _spans(size[0], columns), _spans(size[1], rows)
        return (*((x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs), whole)


def _index(count: object) -> int:
    """Reads a whole number, which True is not here."""
    if isinstance(count, bool):
        raise TypeError
    return operator.index(cast(int, count))


TilesOption = Literal["auto"] | tuple[int, int] | Tiles
"""Tiles as a caller gives them: ``"auto"``, (columns, rows), or `Tiles`."""


def tiles_of(option: TilesOption) -> Tiles:
    """Makes `Tiles` of a caller's value.

    Raises:
        InputError: The value is no grid.
    """
    return option if isinstance(option, Tiles) else Tiles(option)


def check_tiles(asked: Task | str, kind: AnswerKind) -> None:
    """Refuses tiles for a task that does not list all things.

    Raises:
        InputError: The task would give an answer about a tile without the thing.
    """
    if not takes_tiles(asked, kind):
        names = ", ".join(t.name.lower() for t in Task if takes_tiles(t, t.answer_kind))
        raise InputError(
            f"tiles= is for tasks that list what there is ({names}), and prompts answered with "
            f"{', '.join(kind.name.lower() for kind in _KINDS)}; not for {asked}"
        )


def takes_tiles(asked: Task | str, kind: AnswerKind) -> bool:
    """Tells whether a task lists all things in a picture."""
    return asked is Task.OCR or kind in _KINDS


def kind_in_tiles(asked: Task | str, kind: AnswerKind) -> AnswerKind:
    """Finds the kind of the answers about tiles: text is asked for with places."""
    return AnswerKind.QUADRILATERALS if asked is Task.OCR else kind


def _count(length: int, seen: int) -> int:
    """Computes the least number of tiles in a row with sides up to `_SHRUNK` times ``seen``."""
    steps = (length / (_SHRUNK * seen) - OVERLAP) / (1 - OVERLAP)
    return min(max(math.ceil(steps), 1), _MOST_AUTO)


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """Computes starts and ends of tiles of one length, in whole pixels, over a whole side."""
    tile = length / (1 + (count - 1) * (1 - OVERLAP))
    starts = [number * tile * (1 - OVERLAP) for number in range(count)]
    return [(math.floor(start), min(math.ceil(start + tile), length)) for start in starts]
