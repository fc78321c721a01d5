"""What a model is asked: a picture, perhaps encoded already, and a task."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture that has been through the vision encoder; any number of tasks can follow."""

    image_features: npt.NDArray[np.float32]
    """[N,D], the mean token first."""
    size: tuple[int, int]
    """(width, height) of the picture in pixels."""
