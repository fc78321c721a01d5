"""From a picture to ``pixel_values``, equal to those of transformers' CLIPImageProcessor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import ModelFileError
from florence_onnx.images.resize import resize_planes

_BICUBIC = 3


@dataclass(frozen=True)
class Preprocessor:
    """What a model wants done to a picture before it sees it."""

    size: tuple[int, int]
    """(height, width) in pixels; the aspect ratio is not kept."""
    mean: tuple[float, float, float]
    """Per channel, subtracted after rescaling."""
    std: tuple[float, float, float]
    """Per channel, divided by after that."""
    rescale_factor: float = 1 / 255
    """The factor from 0..255 to the range that mean and std are meant for."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
        """Reads the content of ``preprocessor_config.json``.

        Raises:
            ModelFileError: if a field is missing, malformed, or asks for something else than a
                bicubic resize to a fixed size.
        """
        size = _size(config, "size")
        if config.get("do_resize", True) is not True:
            raise _unusable("do_resize", config["do_resize"], "true")
        if config.get("resample", _BICUBIC) != _BICUBIC:
            raise _unusable("resample", config["resample"], f"{_BICUBIC} (bicubic)")
        if config.get("do_center_crop") and _size(config, "crop_size") != size:
            raise _unusable("crop_size", config["crop_size"], f"the same as size, {config['size']}")
        mean, std, factor = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0
        if config.get("do_normalize", True):
            mean, std = _triple(config, "image_mean"), _triple(config, "image_std")
            if 0.0 in std:
                raise _unusable("image_std", config["image_std"], "without zeros")
        if config.get("do_rescale", True):
            factor = config.get("rescale_factor", cls.rescale_factor)
            if not _is_number(factor):
                raise _unusable("rescale_factor", factor, "a number")
        return cls(size, mean, std, float(factor))

    def __call__(
        self, rgb: npt.NDArray[np.uint8], size: tuple[int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        """Resizes, rescales and normalises one picture.

        Equal to transformers' CLIPImageProcessor on its Pillow backend, bit for bit.

        Args:
            rgb: uint8, [H, W, 3], as :func:`to_rgb` returns it.
            size: (height, width) in pixels, where it is not to be the model's own.

        Returns:
            float32, [3, height, width], C-contiguous.
        """
        planes = resize_planes(rgb, size or self.size)
        values = np.empty(planes.shape, np.float32)
        for plane, table, target in zip(planes, self._tables(), values, strict=True):
            # "clip" never clips here: it is the mode in which take() writes to its output directly.
            np.take(table, plane, out=target, mode="clip")
        return values

    def _tables(self) -> npt.NDArray[np.float32]:
        """Returns the value of every byte, [3, 256], in transformers' order of roundings."""
        rescaled = (np.arange(256) * self.rescale_factor).astype(np.float32)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return (rescaled - mean) / std


def _size(config: Mapping[str, Any], field: str) -> tuple[int, int]:
    value = config.get(field)
    if isinstance(value, Mapping):
        height, width = value.get("height"), value.get("width")
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
            return height, width
    raise _unusable(field, value, 'like {"height": 768, "width": 768}')


def _triple(config: Mapping[str, Any], field: str) -> tuple[float, float, float]:
    value = config.get(field)
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value)):
        red, green, blue = map(float, value)
        return red, green, blue
    raise _unusable(field, value, "a list of three numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _unusable(field: str, value: object, expected: str) -> ModelFileError:
    return ModelFileError(
        f"preprocessor_config.json: {field} is {json.dumps(value)}, but must be {expected}"
    )
