"""The sizes that graphs are traced, compared and validated at, within what a checkpoint allows."""

import math
from dataclasses import dataclass

from florence_onnx_export.config import VisionConfig


@dataclass(frozen=True)
class Sizes:
    """One choice for every dynamic axis."""

    batch: int
    """Pictures."""
    beams: int
    """Decoder rows per picture."""
    height: int
    """Picture height in pixels."""
    width: int
    """Picture width in pixels."""
    sequence: int
    """Encoder length in tokens."""
    tokens: int
    """Tokens to embed."""
    slots: int
    """Capacity of the decoder's cache, in tokens."""


def example_sizes(vision: VisionConfig) -> tuple[Sizes, Sizes]:
    """Sizes to trace at, and others to validate at as well.

    Those for tracing differ from each other, so that no two axes are taken for one; the others
    are those of the smallest step of a search.
    """
    height, width = picture_size(vision, 5, 7)
    traced = Sizes(2, 3, height, width, sequence=24, tokens=5, slots=9)
    height, width = picture_size(vision, 3, 6)
    return traced, Sizes(1, 1, height, width, sequence=40, tokens=1, slots=1)


def picture_size(vision: VisionConfig, rows: int, columns: int) -> tuple[int, int]:
    """Height and width in pixels of a picture of rows x columns image tokens.

    Fewer tokens where the table of positions is smaller, but never as many rows as columns.
    """
    pixels = math.prod(vision.patch_stride)
    places = vision.max_position_embeddings
    return min(rows, places - 1) * pixels, min(columns, places) * pixels
