"""A region of the picture, given as a pixel box or as location tokens, in the model's words."""

import math
import re
from collections.abc import Iterable

from florence_onnx.errors import RegionError
from florence_onnx.locations import BINS, check_image_size, to_bins, to_text

_FORMS = (
    "a region is four numbers x1, y1, x2, y2 in pixels, or four location tokens such as "
    "'<loc_52><loc_332><loc_932><loc_774>'"
)


def region_to_text(region: str | Iterable[float], image_size: tuple[int, int] | None = None) -> str:
    """The region as four location tokens.

    Args:
        region: a box (x1, y1, x2, y2) in pixels of the picture, or its four location tokens.
        image_size: (width, height) in pixels; only a pixel box needs it.

    Raises:
        RegionError: if the region is malformed, reversed or outside the picture.
    """
    if isinstance(region, str):
        return to_text(_token_bins(region))
    box = _pixel_box(region)
    if image_size is None:
        raise RegionError("a region in pixels needs image_size=(width, height)")
    width, height = check_image_size(image_size)
    x1, y1, x2, y2 = box
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        raise RegionError(f"the region {box} is outside the picture of {width} x {height} pixels")
    return to_text(to_bins(box, (width, height)))


def _token_bins(region: str) -> tuple[int, int, int, int]:
    found = re.fullmatch(r"<loc_([0-9]+)>" * 4, region.strip())
    if found is None:
        raise RegionError(f"{region!r} is not a region: {_FORMS}")
    # Long runs of digits are out of range, and int() refuses them beyond some length.
    if any(len(digits.lstrip("0")) > len(str(BINS - 1)) for digits in found.groups()):
        raise RegionError(f"{region!r} has a location beyond <loc_{BINS - 1}>")
    x1, y1, x2, y2 = (int(digits) for digits in found.groups())
    if x2 < x1 or y2 < y1:
        raise RegionError(f"the region {region!r} is reversed: it must have x1 <= x2 and y1 <= y2")
    return x1, y1, x2, y2


def _pixel_box(region: Iterable[float]) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(value) for value in region)
    except (TypeError, ValueError):
        raise RegionError(f"{region!r} is not a region: {_FORMS}") from None
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        raise RegionError(f"the region {region!r} holds a value that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise RegionError(f"the region {region!r} is reversed or empty: x1 < x2 and y1 < y2 needed")
    return x1, y1, x2, y2
