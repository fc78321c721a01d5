"""Drawing of a scene with Pillow."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from florence_onnx_export.scenes.fonts import font
from florence_onnx_export.scenes.scene import Scene, Shape, Word
from florence_onnx_export.scenes.shapes import COLOURS

Colour = tuple[int, int, int]


def draw(scene: Scene) -> Image.Image:
    """Draws the RGB picture of a scene, ``scene.width`` x ``scene.height`` pixels."""
    rng = np.random.default_rng((*scene.seed, 1))
    picture = Image.fromarray(_background(scene, rng))
    for index in scene.depth:
        _draw_shape(picture, scene.shapes[index], rng)
    for word in scene.words:
        _draw_word(picture, word, _word_colour(scene.dark, rng))
    return picture


def _background(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Makes uint8 [height, width, 3]: greys with a faint tint, at least 90 from the words' grey."""
    shape = (scene.height, scene.width)
    level = rng.uniform(25, 60) if scene.dark else rng.uniform(200, 235)
    strength = rng.uniform(14, 22)
    ys, xs = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    if scene.background == "gradient":
        along = (along - along.min()) / (along.max() - along.min())
        grey = level + (along - 0.5) * 2.4 * strength
    elif scene.background == "striped":
        period = rng.uniform(0.08, 0.14) * math.sqrt(scene.width * scene.height)
        grey = level + np.where(along % period < period / 2, strength, -strength)
    elif scene.background == "speckled":
        size = max(1, round(math.sqrt(scene.width * scene.height) / 80))
        coarse = rng.normal(0, 1.3 * strength, (shape[0] // size + 1, shape[1] // size + 1))
        grey = level + np.kron(coarse, np.ones((size, size)))[: shape[0], : shape[1]]
    else:
        grey = np.full(shape, level)
    tinted = grey[..., None] + rng.uniform(-12, 12, 3)
    return np.clip(tinted, 0, 255).astype(np.uint8)


def _draw_shape(picture: Image.Image, shape: Shape, rng: np.random.Generator) -> None:
    base = np.array(COLOURS[shape.colour]) + rng.uniform(-14, 14, 3)
    fill, dark = _colour(base), _colour(base * 0.45)
    x1, y1, x2, y2 = shape.box
    left, top = math.floor(x1), math.floor(y1)
    size = (math.ceil(x2) - left + 1, math.ceil(y2) - top + 1)
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    if shape.kind == "circle":
        draw.ellipse((x1 - left, y1 - top, x2 - left, y2 - top), fill=255)
    else:
        draw.polygon([(x - left, y - top) for x, y in shape.outline], fill=255)
    paint = Image.new("RGB", size, fill)
    if shape.striped:
        _draw_stripes(paint, (y1 - top, y2 - top), dark)
    picture.paste(paint, (left, top), mask)


def _draw_stripes(paint: Image.Image, rows: tuple[float, float], colour: Colour) -> None:
    """Draws three horizontal stripes on a shape."""
    draw = ImageDraw.Draw(paint)
    step = (rows[1] - rows[0]) / 7
    for band in (1, 3, 5):
        start = rows[0] + band * step
        draw.rectangle((0, start, paint.width, start + step), fill=colour)


def _draw_word(picture: Image.Image, word: Word, colour: Colour) -> None:
    face = font(word.font_size)
    left, top, _, _ = face.getbbox(word.text)
    mask = Image.new("L", word.extent)
    ImageDraw.Draw(mask).text((-left, -top), word.text, fill=255, font=face)
    if word.angle:
        mask = mask.rotate(word.angle, Image.Resampling.BICUBIC, expand=True)
    corner = (round(word.centre[0] - mask.width / 2), round(word.centre[1] - mask.height / 2))
    picture.paste(colour, corner, mask)


def _word_colour(dark: bool, rng: np.random.Generator) -> Colour:
    """Chooses near white on dark backgrounds, near black on light backgrounds."""
    return _colour(rng.uniform(235, 255, 3) if dark else rng.uniform(0, 25, 3))


def _colour(values: NDArray[np.float64]) -> Colour:
    red, green, blue = (int(value) for value in np.clip(values, 0, 255))
    return red, green, blue
