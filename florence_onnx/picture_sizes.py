"""Sizes of pictures that a model can take."""

import math
import operator
from dataclasses import dataclass

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.errors import InputError
from florence_onnx.images.preprocessor import LONGEST_SIDE

Size = tuple[int, int]
"""Height and width in pixels."""
ImageSize = int | tuple[int, int]
"""Size that a caller names: (width, height) in pixels, or one number for both."""

_MOST_PLACES = 1 << 20
"""Tokens of the largest grid in the vision encoder; the released models have 36,864."""


@dataclass(frozen=True)
class PictureSizes:
    """Sizes of pictures that a model's configuration and graph admit."""

    config: ModelConfig
    fixed: tuple[int | None, int | None] = (None, None)
    """Height and width of the only pictures that the graph takes; None for any."""

    def problem(self, size: Size) -> str | None:
        """Reason why the vision encoder cannot take pictures of a size; None if it can."""
        height, width = size
        if any(want not in (None, one) for want, one in zip(self.fixed, size, strict=True)):
            return f"the graph takes pictures of {self._fixed_text()} pixels only"
        rows, columns = self.config.vision.grid(height, width)
        places = self.config.vision.max_position_embeddings
        positions = self.config.text.max_position_embeddings
        picture = f"a picture of {width}x{height} pixels becomes {columns}x{rows} image tokens"
        most = min(math.prod(size), _MOST_PLACES)
        if max(map(math.prod, self.config.vision.grids(*size))) > most:
            return f"{picture} by way of a grid of more than {most} places"
        if not 0 < min(rows, columns) <= max(rows, columns) <= places:
            return f"{picture}, but the position tables have {places} rows"
        if rows * columns + 1 >= positions:
            return f"{picture}, which leaves no room for a prompt in {positions}"
        return None

    def tokens(self, size: Size) -> int:
        """Counts the tokens of a picture: one for each place of the grid, and the mean token."""
        return math.prod(self.config.vision.grid(*size)) + 1

    def read(self, option: ImageSize) -> Size:
        """Reads the size that a caller names.

        Raises:
            InputError: The value is no size, or no size that the model can take.
        """
        try:
            sides = (option, option) if not isinstance(option, tuple | list) else option
            if any(isinstance(side, bool) for side in sides):
                raise TypeError
            width, height = (operator.index(side) for side in sides)
        except (TypeError, ValueError):
            width = height = 0
        if not (1 <= width <= LONGEST_SIDE and 1 <= height <= LONGEST_SIDE):
            raise InputError(
                f"image_size= must be (width, height) in whole pixels, or one number for both, "
                f"got {option!r:.80}; {self._takes()}"
            )
        problem = self.problem((height, width))
        if problem is not None:
            raise InputError(f"image_size={option!r}: {problem}; {self._takes()}")
        return height, width

    def _takes(self) -> str:
        """Makes a sentence on the sizes that the model can take."""
        if None not in self.fixed:
            return f"this model takes {self._fixed_text()} only"
        sides = [side for side in range(1, LONGEST_SIDE + 1) if self.problem((side, side)) is None]
        if not sides:
            return f"this model takes {self._fixed_text()} only"
        return f"this model takes squares from {sides[0]} to {sides[-1]} pixels a side"

    def _fixed_text(self) -> str:
        height, width = ("any" if side is None else side for side in self.fixed)
        return f"{width}x{height}"
