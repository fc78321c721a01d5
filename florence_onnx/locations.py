"""Location bins and pixels: Florence-2 names places by ``<loc_0>`` to ``<loc_999>`` on each axis.

Coordinates are flat sequences x, y, x, y, ...: a box has four, a quad box eight, an outline any
even number. Image sizes are (width, height) in pixels.
"""

import math
import operator
from collections.abc import Sequence

import numpy as np

from florence_onnx.errors import ImageError

BINS = 1000
"""Bins per axis, whatever the picture's size."""


def to_bins(points: Sequence[float], image_size: tuple[int, int]) -> tuple[int, ...]:
    """Turns pixels into bins, clamped to the picture.

    Args:
        points: x, y, ... in pixels.
        image_size: (width, height) in pixels.

    Returns:
        ``floor(x / (size / 1000))`` within 0..999, as transformers
        Florence2PostProcessor.quantize.
    """
    return tuple(
        min(max(math.floor(point / (image_size[axis % 2] / BINS)), 0), BINS - 1)
        for axis, point in enumerate(points)
    )


def to_pixels(bins: Sequence[int], image_size: tuple[int, int]) -> tuple[float, ...]:
    """Turns bins into the pixel positions of the bins' centres.

    Args:
        bins: x, y, ... as bins. Bins beyond 999 are not clamped, as in the reference.
        image_size: (width, height) in pixels.

    Returns:
        ``(bin + 0.5) * size / 1000`` in double precision. Microsoft's processor computes this in
        float32; transformers truncates the result to an integer (see ``to_integers``).
    """
    return tuple((bin_ + 0.5) * image_size[axis % 2] / BINS for axis, bin_ in enumerate(bins))


def to_integers(points: Sequence[float], image_size: tuple[int, int]) -> list[int]:
    """Computes the whole pixels that transformers gives for the centres of bins.

    Args:
        points: x, y, ... in pixels, as ``to_pixels`` gives them.
        image_size: (width, height) in pixels.

    Returns:
        The integers of transformers Florence2PostProcessor.dequantize.
    """
    pixels_per_bin = np.resize(np.array(image_size, np.float64) / BINS, len(points))
    bins = np.rint(np.array(points, np.float64) / pixels_per_bin - 0.5)
    # The reference multiplies in float32. A result that should be a whole number may be just below
    # this number, and truncation then gives one less.
    centres = (bins + 0.5).astype(np.float32) * pixels_per_bin.astype(np.float32)
    return [int(centre) for centre in centres]


def to_text(bins: Sequence[int]) -> str:
    """Writes bins as location tokens, ``<loc_52><loc_332>``."""
    return "".join(f"<loc_{bin_}>" for bin_ in bins)


def check_image_size(image_size: tuple[int, int], name: str = "image_size") -> tuple[int, int]:
    """Checks a size and returns two plain integers.

    Args:
        image_size: (width, height) in pixels.
        name: Name of the size in the message.

    Raises:
        ImageError: The size is not (width, height) in whole pixels above zero.
    """
    try:
        width, height = (operator.index(side) for side in image_size)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise ImageError(
            f"{name} must be (width, height) in whole pixels above zero, got {image_size!r}"
        )
    return width, height
