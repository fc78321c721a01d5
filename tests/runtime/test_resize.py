"""The resize against Pillow's, bit for bit."""

import numpy as np
import numpy.typing as npt
import PIL
import pytest
from PIL import Image

from florence_onnx.errors import ImageError
from florence_onnx.images.resize import resize_bicubic

Pixels = npt.NDArray[np.uint8]

CASES = 260
LONGEST = 5000
# Random sides are drawn evenly over magnitudes, and their product kept below this, so that
# every ratio occurs and the suite stays quick; the full-size pictures are in EXTREMES.
MOST_PIXELS = 1_500_000

EXTREMES = [
    ((3000, 4000, 3), (768, 768)),
    ((5000, 2400, 3), (768, 768)),
    ((1, 1, 3), (5000, 1)),
    ((1, 1), (1, 5000)),
    ((5000, 1, 3), (1, 1)),
    ((1, 5000), (1, 1)),
    ((5000, 1, 3), (1, 5000)),
    ((1, 5000, 3), (5000, 1)),
    ((5000, 2, 3), (4999, 3)),
    ((2, 5000, 3), (3, 4999)),
    ((5000, 5, 3), (5, 5000)),
    ((7, 3, 3), (2000, 2000)),
    ((4999, 997), (997, 4999)),
    ((300, 2000), (5000, 2000)),
    ((300, 200, 3), (300, 77)),
    ((300, 200, 3), (77, 200)),
    ((300, 200, 3), (300, 200)),
]


def resize_with_pillow(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resizes with the installed Pillow in the order of passes of Pillow 13."""
    height, width = size
    image = Image.fromarray(pixels)
    passes = [(width, height)]
    if int(PIL.__version__.split(".")[0]) < 13:
        by_height, by_width = image.height - height, image.width - width
        height_first = by_height > 0 and by_height > 2 * by_width
        passes.insert(0, (image.width, height) if height_first else (width, image.height))
    for step in passes:
        image = image.resize(step, Image.Resampling.BICUBIC)
    return np.asarray(image)


def random_pixels(rng: np.random.Generator, shape: tuple[int, ...]) -> Pixels:
    """Returns noise, black and white noise (which over- and undershoots most), or a gradient."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, shape, np.uint8)
    if kind == 1:
        return rng.choice(np.array([0, 255], np.uint8), shape)
    ramp: Pixels = (np.indices(shape).sum(axis=0) * rng.integers(1, 5)).astype(np.uint8)
    return ramp


def random_case(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, int]]:
    while True:
        sides = np.exp(rng.uniform(0, np.log(LONGEST + 1), 4)).astype(int)
        old_height, old_width, height, width = map(int, sides)
        between = max(old_height * width, height * old_width)
        if max(old_height * old_width, height * width, between) <= MOST_PIXELS:
            channels = (3,) if rng.random() < 0.5 else ()
            return (old_height, old_width, *channels), (height, width)


def test_random_sizes_equal_pillow() -> None:
    rng = np.random.default_rng(7)
    kinds = set()
    for _ in range(CASES):
        shape, size = random_case(rng)
        pixels = random_pixels(rng, shape)
        resized = resize_bicubic(pixels, size)
        np.testing.assert_array_equal(resized, resize_with_pillow(pixels, size), f"{shape} {size}")
        kinds.add((len(shape), size[0] > shape[0], size[1] > shape[1]))
    assert len(kinds) == 8, "every direction on each axis, in grey and in colour"


@pytest.mark.parametrize(("shape", "size"), EXTREMES)
def test_extreme_sizes_equal_pillow(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    pixels = random_pixels(np.random.default_rng(sum(shape)), shape)
    resized = resize_bicubic(pixels, size)
    np.testing.assert_array_equal(resized, resize_with_pillow(pixels, size))
    assert resized.flags.c_contiguous
    assert not np.shares_memory(resized, pixels)


@pytest.mark.parametrize("size", [(60, 900), (400, 30), (31, 47)])
def test_any_strides(size: tuple[int, int]) -> None:
    whole = np.random.default_rng(1).integers(0, 256, (2 * 97, 3 * 61, 4), np.uint8)
    whole.flags.writeable = False
    for view in (whole[::2, ::-3, :3], whole.transpose(1, 0, 2)[..., 2::-1], whole[..., 1]):
        np.testing.assert_array_equal(resize_bicubic(view, size), resize_bicubic(view.copy(), size))


def test_other_channel_counts_are_independent_planes() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (50, 40, 5), np.uint8)
    resized = resize_bicubic(pixels, (23, 61))
    planes = [resize_bicubic(pixels[..., i], (23, 61)) for i in range(5)]
    np.testing.assert_array_equal(resized, np.stack(planes, axis=-1))


@pytest.mark.parametrize(
    ("shape", "dtype", "size", "words"),
    [
        ((4, 4), np.float32, (2, 2), "float32"),
        ((4,), np.uint8, (2, 2), r"\[4\]"),
        ((0, 4, 3), np.uint8, (2, 2), r"\[0, 4, 3\]"),
        ((4, 4, 3), np.uint8, (0, 2), "2x0 pixels: width"),
        ((4, 4, 3), np.uint8, (2, -1), "-1x2 pixels"),
    ],
)
def test_errors(shape: tuple[int, ...], dtype: type, size: tuple[int, int], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        resize_bicubic(np.zeros(shape, dtype), size)
