"""Font of printed words: the font inside Pillow."""

from functools import cache

from PIL import ImageFont


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Reads Pillow's built-in outline font at a size in pixels, once per size."""
    return ImageFont.load_default(size)
