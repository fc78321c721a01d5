"""Vocabulary of drawn scenes: colours, shapes and their outlines, words, backgrounds."""

import math

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "orange": (250, 135, 15),
    "yellow": (245, 225, 40),
    "green": (40, 160, 55),
    "cyan": (55, 205, 225),
    "blue": (40, 65, 215),
    "purple": (135, 45, 185),
    "pink": (255, 135, 190),
}
"""Colour name -> RGB, 0..255."""


def _on_circle(angles: list[float], radii: list[float]) -> tuple[tuple[float, float], ...]:
    """Points on a circle around (0.5, 0.5). Angles are in degrees, clockwise from the top."""
    return tuple(
        (0.5 + r * math.sin(math.radians(a)), 0.5 - r * math.cos(math.radians(a)))
        for a, r in zip(angles, radii, strict=True)
    )


def _filling_unit_box(
    points: tuple[tuple[float, float], ...],
) -> tuple[tuple[float, float], ...]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return tuple(((x - min(xs)) / width, (y - min(ys)) / height) for x, y in points)


_STAR = _on_circle([36.0 * i for i in range(10)], [0.5 if i % 2 == 0 else 0.21 for i in range(10)])
_THIRD = 1 / 3

OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "circle": _on_circle([30.0 * i for i in range(12)], [0.5] * 12),
    "square": ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
    "triangle": ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
    "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    "star": _filling_unit_box(_STAR),
    "cross": (
        (_THIRD, 0.0),
        (2 * _THIRD, 0.0),
        (2 * _THIRD, _THIRD),
        (1.0, _THIRD),
        (1.0, 2 * _THIRD),
        (2 * _THIRD, 2 * _THIRD),
        (2 * _THIRD, 1.0),
        (_THIRD, 1.0),
        (_THIRD, 2 * _THIRD),
        (0.0, 2 * _THIRD),
        (0.0, _THIRD),
        (_THIRD, _THIRD),
    ),
}
"""Shape name -> corners in its box scaled to 0..1, clockwise from the top-left-most top corner.

Circles are drawn round, but answers about a circle give the twelve points here.
"""

WORDS: tuple[str, ...] = (
    *("OPEN", "STOP", "EXIT", "CAFE", "TAXI", "BANK", "SHOP", "SALE"),
    *("FREE", "NEWS", "PARK", "PUSH", "PULL", "MENU", "WIFI", "BOOK"),
    *("FOOD", "FISH", "MILK", "RICE", "CAKE", "TEA", "BUS", "CAR"),
    *("ZOO", "BAR", "GYM", "INN", "SPA", "ART", "MAP", "KEY"),
    *("HOME", "GOLD", "BLUE", "STAR", "MOON", "KING", "ROAD", "LANE"),
    *("GATE", "DOOR", "SOUP", "BEEF", "PLUM", "KIWI", "LIME", "CORN"),
    *("JAZZ", "ROCK", "FILM", "PLAY", "GAME", "TOYS", "GIFT", "HATS"),
    *("BAGS", "SHOE", "BIKE", "BOAT", "SURF", "SNOW", "RAIN", "WIND"),
)
"""Words in scenes, three or four capital letters each."""

BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "striped", "speckled")
"""Backgrounds of scenes."""
