"""The font of printed words: the one that Pillow carries."""

from functools import cache

from PIL import ImageFont


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in outline font at a size in pixels, read once per size."""
    return ImageFont.load_default(size)
