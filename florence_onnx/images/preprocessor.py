"""Preprocessing to ``pixel_values``, equal to those of transformers' CLIPImageProcessor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import ModelFileError
from florence_onnx.fields import Fields
from florence_onnx.images.resize import resize_planes

_BICUBIC = 3

LONGEST_SIDE = 4096
"""Limit of a side in pixels; the released models take 768."""

_LARGEST_VALUE = 1e6
"""Bound of the settings, above by this number and below by its inverse, against overflow."""


@dataclass(frozen=True)
class Preprocessor:
    """Preprocessing of pictures for a model."""

    size: tuple[int, int]
    """Size as (height, width) in pixels; the aspect ratio is not kept."""
    mean: tuple[float, float, float]
    """Mean per channel, subtracted after the rescaling."""
    std: tuple[float, float, float]
    """Standard deviation per channel, by which values are divided after the subtraction."""
    rescale_factor: float = 1 / 255
    """Factor from 0..255 to the range of mean and std."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessor:
        """Reads the content of ``preprocessor_config.json``.

        Raises:
            ModelFileError: if a field is missing, malformed, or asks for something else than a
                bicubic resize to a fixed size.
        """
        fields = Fields(config, "preprocessor_config.json", ModelFileError)
        size = _size(fields, "size")
        fields.expect("do_resize", True)
        if fields.integer("resample", 0, 5, _BICUBIC) != _BICUBIC:
            raise fields.refused("resample", f"{_BICUBIC} (bicubic)")
        if fields.boolean("do_center_crop", False) and _size(fields, "crop_size") != size:
            raise fields.refused("crop_size", f"the same as size, {list(size)}")
        mean, std, factor = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0
        if fields.boolean("do_normalize", True):
            mean = _triple(fields, "image_mean", -_LARGEST_VALUE)
            std = _triple(fields, "image_std", 1 / _LARGEST_VALUE)
        if fields.boolean("do_rescale", True):
            factor = fields.number(
                "rescale_factor", 1 / _LARGEST_VALUE, _LARGEST_VALUE, cls.rescale_factor
            )
        return cls(size, mean, std, factor)

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Resizes, rescales and normalises one picture.

        The result is equal to that of transformers' CLIPImageProcessor with Pillow, bit for bit.

        Args:
            rgb: uint8, [H, W, 3], as :func:`to_rgb` returns it.

        Returns:
            float32, [3, height, width], C-contiguous.
        """
        planes = resize_planes(rgb, self.size)
        values = np.empty(planes.shape, np.float32)
        for plane, table, target in zip(planes, self._tables(), values, strict=True):
            # "clip" never clips here. Only in this mode, take() writes to the output directly.
            np.take(table, plane, out=target, mode="clip")
        return values

    def _tables(self) -> npt.NDArray[np.float32]:
        """Returns the value of every byte, [3, 256], in transformers' order of roundings."""
        rescaled = (np.arange(256) * self.rescale_factor).astype(np.float32)
        mean = np.array(self.mean, np.float32)[:, None]
        std = np.array(self.std, np.float32)[:, None]
        return (rescaled - mean) / std


def _size(fields: Fields, name: str) -> tuple[int, int]:
    value = fields.get(name)
    if not isinstance(value, Mapping) or not {"height", "width"} <= value.keys():
        raise fields.refused(name, 'like {"height": 768, "width": 768}')
    size = fields.section(name)
    return size.integer("height", 1, LONGEST_SIDE), size.integer("width", 1, LONGEST_SIDE)


def _triple(fields: Fields, name: str, least: float) -> tuple[float, float, float]:
    red, green, blue = fields.numbers(name, 3, least, _LARGEST_VALUE)
    return red, green, blue
