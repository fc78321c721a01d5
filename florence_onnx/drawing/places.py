"""Places for the plates of labels: inside the picture, apart, and near the boxes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rectangle = tuple[int, int, int, int]
"""Rectangle: x1, y1, x2, y2 in pixels."""
Size = tuple[int, int]
"""Size: (width, height) in pixels."""


def place_plates(
    sizes: Sequence[Size], boxes: Sequence[Rectangle], picture: Size
) -> list[Rectangle | None]:
    """Finds places for plates; the plates of the smallest boxes come first.

    Args:
        sizes: Size of every plate.
        boxes: Box of every plate.
        picture: Size of the picture.

    Returns:
        A place for every plate, none over another; None where the picture has no room left.
    """
    order = sorted(range(len(boxes)), key=lambda number: _area(boxes[number]))
    places: list[Rectangle | None] = [None] * len(boxes)
    taken: list[Rectangle] = []
    for number in order:
        place = _place(sizes[number], boxes[number], picture, taken)
        places[number] = place
        if place is not None:
            taken.append(place)
    return places


def gap(one: Rectangle, other: Rectangle) -> int:
    """Distance of two rectangles in pixels, along the axis of the larger distance, at least 0."""
    return max(one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3], 0)


def _place(
    size: Size, box: Rectangle, picture: Size, taken: Sequence[Rectangle]
) -> Rectangle | None:
    width, height = size
    room_x, room_y = picture[0] - width, picture[1] - height
    if room_x < 0 or room_y < 0:
        return None
    x1, y1, x2, y2 = box
    above, below, right = y1 - height, y2, x2 - width
    for x, y in ((x1, above), (right, above), (x1, below), (right, below), (x1, y1)):
        x, y = min(max(x, 0), room_x), min(max(y, 0), room_y)
        if all(_apart((x, y, x + width, y + height), other) for other in taken):
            return x, y, x + width, y + height
    step = max(1, height // 3)
    columns, rows = _steps(room_x, step), _steps(room_y, step)
    far = abs(columns[None] - x1) + abs(rows[:, None] + height - y1)
    for left, top, right, bottom in taken:
        in_columns = (columns > left - width) & (columns < right)
        in_rows = (rows > top - height) & (rows < bottom)
        far[np.ix_(in_rows, in_columns)] = _NO_ROOM
    row, column = np.unravel_index(int(far.argmin()), far.shape)
    if far[row, column] == _NO_ROOM:
        return None
    x, y = int(columns[column]), int(rows[row])
    return x, y, x + width, y + height


_NO_ROOM = np.iinfo(np.int64).max


def _steps(last: int, step: int) -> npt.NDArray[np.int64]:
    """Lists 0, step, 2 step, ... and the last value."""
    return np.unique(np.append(np.arange(0, last, step, dtype=np.int64), last))


def _apart(one: Rectangle, other: Rectangle) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def _area(box: Rectangle) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
