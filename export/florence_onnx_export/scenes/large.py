"""Scenes of thousands of pixels, with things as large as in small scenes."""

import numpy as np

from florence_onnx_export.scenes.fonts import font
from florence_onnx_export.scenes.scene import (
    CAPITAL_HEIGHT,
    Box,
    Scene,
    Shape,
    Word,
    sample_shape,
)
from florence_onnx_export.scenes.shapes import BACKGROUNDS, WORDS

SIDE = 250
"""Side in pixels of the small scene for which the sizes of things are made."""
SHAPES, WORDS_BESIDE, WORDS_ALONE = 2.0, 1.0, 1.5
"""Number of things in an area of `SIDE` squared."""
_TRIES = 25
_SPLIT = 2
"""First word of the random generator's seed, which no small scene has."""


def sample_large_scene(seed: int, width: int, height: int, with_shapes: bool = True) -> Scene:
    """Samples a large scene, or a page of words alone. The same seed gives the same scene.

    No two things overlap, and words are level.
    """
    key = (_SPLIT, seed)
    rng = np.random.default_rng(key)
    area = width * height / SIDE**2
    taken: list[Box] = []
    words: list[Word] = []
    shapes: list[Shape] = []
    count = round(area * (WORDS_BESIDE if with_shapes else WORDS_ALONE))
    for _ in range(_TRIES * count):
        word = _sample_word(rng, width, height)
        if len(words) < count and _is_free(word.box, taken, 0.12 * SIDE, width, height):
            words.append(word)
            taken.append(word.box)
    count = round(area * SHAPES) if with_shapes else 0
    for _ in range(_TRIES * count):
        shape = sample_shape(rng, width, height, 0.3, SIDE)
        if len(shapes) < count and _is_free(shape.box, taken, 3, width, height):
            shapes.append(shape)
            taken.append(shape.box)
    return Scene(
        width=width,
        height=height,
        background=str(rng.choice(BACKGROUNDS)),
        dark=bool(rng.integers(2)),
        shapes=tuple(shapes),
        depth=tuple(range(len(shapes))),
        words=tuple(words),
        seed=key,
    )


def _sample_word(rng: np.random.Generator, width: int, height: int) -> Word:
    text, size = str(rng.choice(WORDS)), round(rng.uniform(*CAPITAL_HEIGHT) * SIDE / 0.72)
    left, top, right, bottom = font(size).getbbox(text)
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    return Word(text, size, 0.0, centre, (round(right - left), round(bottom - top)))


def _is_free(box: Box, taken: list[Box], margin: float, width: int, height: int) -> bool:
    """Tells whether a box is inside the picture and at a distance from other boxes."""
    x1, y1, x2, y2 = box
    is_inside = x1 >= 1 and y1 >= 1 and x2 <= width - 1 and y2 <= height - 1
    return is_inside and all(
        x1 >= other[2] + margin
        or other[0] >= x2 + margin
        or y1 >= other[3] + margin
        or other[1] >= y2 + margin
        for other in taken
    )
