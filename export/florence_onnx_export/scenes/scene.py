"""Contents of a scene: sampled from a seed, and arranged without drawing."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from florence_onnx_export.scenes.fonts import font
from florence_onnx_export.scenes.shapes import BACKGROUNDS, COLOURS, OUTLINES, WORDS

Split = Literal["train", "held-out"]
Box = tuple[float, float, float, float]

SPLIT_KEYS: dict[Split, int] = {"train": 0, "held-out": 1}
"""Split -> first word of the random generator's seed, so that no training scene is held out."""

MAX_SHAPES = 6
MAX_WORDS = 2
SMALL = (0.15, 0.20)
LARGE = (0.27, 0.36)
"""Sides of small and large shapes, as fractions of the square root of the picture's area."""
CAPITAL_HEIGHT = (0.085, 0.13)
"""Height of a word's letters, as a fraction of the square root of the picture's area."""
MIN_ORDER_GAP = 0.02
"""Least distance of two left edges (fraction of the width), so that their order is clear."""
MIN_LINE_GAP = 0.18
"""Least distance of two words' centres (fraction of the height), so that their order is clear."""
MIN_VISIBLE = 0.6
"""Least visible part of a shape: later shapes may cover the rest."""


@dataclass(frozen=True)
class Shape:
    """Filled upright shape, in pixels of the scene."""

    colour: str
    """Key of `COLOURS`."""
    kind: str
    """Key of `OUTLINES`."""
    large: bool
    """Tells whether the size of the shape was drawn from `LARGE` rather than `SMALL`."""
    striped: bool
    """Tells whether dark stripes cross the shape."""
    box: Box
    """Box: x1, y1, x2, y2 of the whole shape, hidden parts included."""

    @property
    def label(self) -> str:
        """Colour and kind of the shape: "red circle"."""
        return f"{self.colour} {self.kind}"

    @property
    def description(self) -> str:
        """Whole description of the shape: "small striped red circle"."""
        size = "large" if self.large else "small"
        return f"{size} striped {self.label}" if self.striped else f"{size} {self.label}"

    @property
    def outline(self) -> tuple[tuple[float, float], ...]:
        """Corners in pixels, clockwise from the top."""
        x1, y1, x2, y2 = self.box
        return tuple((x1 + x * (x2 - x1), y1 + y * (y2 - y1)) for x, y in OUTLINES[self.kind])


@dataclass(frozen=True)
class Word:
    """Printed word, in pixels of the scene."""

    text: str
    """Word of `WORDS`."""
    font_size: int
    """Size of Pillow's built-in font."""
    angle: float
    """Angle in degrees, counter-clockwise; 0 for most words."""
    centre: tuple[float, float]
    """Centre of the word's extent."""
    extent: tuple[int, int]
    """Width and height of the word before it is turned, as the font measures words."""

    @property
    def quad(self) -> tuple[tuple[float, float], ...]:
        """Corners of the word's extent, clockwise from the corner before the first letter's top."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        half_w, half_h = self.extent[0] / 2, self.extent[1] / 2
        corners = ((-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h))
        cx, cy = self.centre
        return tuple((cx + x * cos + y * sin, cy - x * sin + y * cos) for x, y in corners)

    @property
    def box(self) -> Box:
        """Upright box around the quadrilateral."""
        xs, ys = [x for x, _ in self.quad], [y for _, y in self.quad]
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Scene:
    """Content of a picture."""

    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    background: str
    """Name of `BACKGROUNDS`."""
    dark: bool
    """Tells whether the background is dark, with light words."""
    shapes: tuple[Shape, ...]
    """Shapes, one to six, from left to right by their left edges."""
    depth: tuple[int, ...]
    """Indices into `shapes` in the order of drawing. A later shape covers the earlier shapes."""
    words: tuple[Word, ...]
    """Words, one or two, from top to bottom."""
    seed: tuple[int, int]
    """Seed of tints, noise and stripes, which are chosen at drawing."""


def sample_scene(seed: int, split: Split = "train") -> Scene:
    """Samples the scene of a seed. The same seed always gives the same scene."""
    key = (SPLIT_KEYS[split], seed)
    rng = np.random.default_rng(key)
    while True:
        scene = _try_scene(rng, key)
        if scene is not None:
            return scene


def _try_scene(rng: np.random.Generator, key: tuple[int, int]) -> Scene | None:
    """Makes one attempt; returns None where the random things do not fit together."""
    side = rng.uniform(180, 320)
    stretch = math.sqrt(math.exp(rng.uniform(-0.47, 0.47)))
    width, height = round(side * stretch), round(side / stretch)
    count = int(rng.integers(1, MAX_SHAPES + 1))
    words = _place_words(rng, width, height, int(rng.integers(1, MAX_WORDS + 1)))
    drawn = _place_shapes(rng, width, height, count, words) if words is not None else None
    if words is None or drawn is None or not _all_visible(drawn, width, height):
        return None
    order = sorted(range(count), key=lambda i: drawn[i].box[0])
    shapes = tuple(drawn[i] for i in order)
    labels = [shape.label for shape in shapes]
    if all(labels.count(label) > 1 for label in labels):
        return None
    return Scene(
        width=width,
        height=height,
        background=str(rng.choice(BACKGROUNDS)),
        dark=bool(rng.integers(2)),
        shapes=shapes,
        depth=tuple(order.index(i) for i in range(count)),
        words=tuple(sorted(words, key=lambda word: word.centre[1])),
        seed=key,
    )


def _place_words(
    rng: np.random.Generator, width: int, height: int, count: int
) -> list[Word] | None:
    words: list[Word] = []
    for _ in range(20 * count):
        word = _sample_word(rng, width, height)
        x1, y1, x2, y2 = word.box
        inside = min(x1, y1) >= 1 and x2 <= width - 1 and y2 <= height - 1
        clear = all(
            abs(word.centre[1] - other.centre[1]) >= MIN_LINE_GAP * height
            and word.text != other.text
            and not _boxes_touch(word.box, other.box, margin=3)
            for other in words
        )
        if inside and clear:
            words.append(word)
        if len(words) == count:
            return words
    return None


def _sample_word(rng: np.random.Generator, width: int, height: int) -> Word:
    text = str(rng.choice(WORDS))
    capital = rng.uniform(*CAPITAL_HEIGHT) * math.sqrt(width * height)
    font_size = round(capital / 0.72)
    left, top, right, bottom = font(font_size).getbbox(text)
    angle = 0.0
    if rng.random() < 0.4:
        angle = float(rng.uniform(10, 30) * rng.choice((-1, 1)))
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    return Word(text, font_size, angle, centre, (round(right - left), round(bottom - top)))


def _place_shapes(
    rng: np.random.Generator, width: int, height: int, count: int, words: list[Word]
) -> list[Shape] | None:
    unit = math.sqrt(width * height)
    shapes: list[Shape] = []
    for _ in range(25 * count):
        shape = sample_shape(rng, width, height, 0.5 if count < 4 else 0.3, unit)
        clear_of_words = not any(_boxes_touch(shape.box, word.box, margin=2) for word in words)
        clear_of_shapes = all(
            abs(shape.box[0] - other.box[0]) >= MIN_ORDER_GAP * width
            and _overlap(shape.box, other.box) <= (0.35 if shape.colour != other.colour else 0.0)
            for other in shapes
        )
        if clear_of_words and clear_of_shapes:
            shapes.append(shape)
        if len(shapes) == count:
            return shapes
    return None


def sample_shape(
    rng: np.random.Generator, width: int, height: int, large_share: float, unit: float
) -> Shape:
    """Samples a shape anywhere in a picture.

    Args:
        rng: Random generator.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        large_share: Share of large shapes.
        unit: Length in pixels of which the sides in `LARGE` and `SMALL` are shares.
    """
    large = bool(rng.random() < large_share)
    side = rng.uniform(*(LARGE if large else SMALL)) * unit
    x1, y1 = float(rng.uniform(0, width - side)), float(rng.uniform(0, height - side))
    return Shape(
        colour=str(rng.choice(list(COLOURS))),
        kind=str(rng.choice(list(OUTLINES))),
        large=large,
        striped=bool(rng.random() < 0.3),
        box=(x1, y1, x1 + float(side), y1 + float(side)),
    )


def _boxes_touch(a: Box, b: Box, margin: float) -> bool:
    return (
        a[0] < b[2] + margin
        and b[0] < a[2] + margin
        and a[1] < b[3] + margin
        and b[1] < a[3] + margin
    )


def _overlap(a: Box, b: Box) -> float:
    """Intersection of two boxes over the area of the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) ** 2, (b[2] - b[0]) ** 2)


def _all_visible(shapes: list[Shape], width: int, height: int) -> bool:
    """Tells whether `MIN_VISIBLE` of every shape's area is visible, by a picture of ids."""
    ids = Image.new("L", (width, height))
    draw = ImageDraw.Draw(ids)
    areas = []
    for index, shape in enumerate(shapes):
        draw.polygon(shape.outline, fill=index + 1)
        areas.append(_area(shape.outline))
    visible = ids.histogram()[1 : len(shapes) + 1]
    return all(seen >= MIN_VISIBLE * area for seen, area in zip(visible, areas, strict=True))


def _area(corners: tuple[tuple[float, float], ...]) -> float:
    following = corners[1:] + corners[:1]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, following, strict=True))) / 2
