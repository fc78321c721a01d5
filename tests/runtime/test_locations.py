import math
from fractions import Fraction

import numpy as np
import pytest

from florence_onnx.errors import ImageError
from florence_onnx.locations import check_image_size, to_bins, to_integers, to_pixels, to_text

SIZES = [(1, 1), (7, 3000), (640, 480), (999, 1000), (1000, 1001), (1300, 876), (4032, 3024)]


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_the_exact_centres_of_bins(size: tuple[int, int]) -> None:
    bins = [value for value in range(1000) for _ in range(2)]
    exact = [(Fraction(b) + Fraction(1, 2)) * size[i % 2] / 1000 for i, b in enumerate(bins)]
    assert to_pixels(bins, size) == tuple(float(value) for value in exact)


@pytest.mark.parametrize("size", SIZES)
def test_centres_go_back_to_their_bins(size: tuple[int, int]) -> None:
    bins = tuple(value for value in range(1000) for _ in range(2))
    assert to_bins(to_pixels(bins, size), size) == bins


def test_axes_alternate_and_bins_are_clamped_to_the_picture() -> None:
    assert to_bins((0, 0, 320, 240, 640, 480, -5, 9999), (640, 480)) == (
        *(0, 0),
        *(500, 500),
        *(999, 999),
        *(0, 999),
    )


def test_bins_beyond_the_last_are_not_clamped_on_the_way_back() -> None:
    assert to_pixels((1000, 2000), (1000, 100)) == (1000.5, 200.05)


def test_integers_are_cut_off_not_rounded() -> None:
    assert to_integers((33.6, 371.76, 0.9999, 5.5), (640, 480)) == [33, 371, 0, 5]


def test_integers_truncate_the_float32_product() -> None:
    # 187.5 * 0.144 is 27 exactly; in float32 it is 26.999998.
    assert to_pixels((187,), (144, 144)) == (27.0,)
    assert math.floor(np.float32(187.5) * np.float32(0.144)) == 26
    assert to_integers((27.0,), (144, 144)) == [26]


def test_no_points() -> None:
    assert to_bins((), (2, 2)) == to_pixels((), (2, 2)) == ()
    assert to_integers((), (2, 2)) == []


def test_text() -> None:
    assert to_text((52, 0, 999)) == "<loc_52><loc_0><loc_999>"


def test_image_size_accepts_numpy_integers() -> None:
    assert check_image_size((np.int64(3), 4)) == (3, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (1, 2, 3), (1.5, 2), None, "ab", 7])
def test_bad_image_size(size: object) -> None:
    with pytest.raises(ImageError, match=r"image_size must be \(width, height\)"):
        check_image_size(size)  # type: ignore[arg-type]
