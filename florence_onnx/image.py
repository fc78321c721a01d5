"""From a picture to ``pixel_values``, equal to those of transformers' CLIPImageProcessor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import ImageError, ModelFileError
from florence_onnx.imagefile import from_pillow, is_pillow_image, read_bytes, read_file
from florence_onnx.resize import resize_bicubic, resize_planes

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["ImageInput", "Preprocessor", "resize_bicubic", "to_rgb"]

ImageInput: TypeAlias = Union[
    npt.NDArray[np.uint8], "PIL.Image.Image", str, "os.PathLike[str]", bytes
]

_BICUBIC = 3

# A pass over a longer side would need weights of several hundred megabytes.
_LONGEST_SIDE = 1 << 20


def to_rgb(image: ImageInput) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a picture in RGB.

    Args:
        image: one of

            - a uint8 array, [H, W], [H, W, 1], [H, W, 3] in RGB order (not OpenCV's BGR), or
              [H, W, 4], whose alpha is dropped as Pillow's ``convert("RGB")`` drops it;
            - a Pillow image of any mode;
            - the path of a picture file, or its bytes. These are turned upright as their EXIF
              orientation says; arrays and Pillow images never are.

    Returns:
        uint8, [H, W, 3]: a view of the given array where possible, and not to be written to.

    Raises:
        ImageError: if it is not such a picture, empty, damaged, or too large.
        MissingDependencyError: if a file or bytes are given and Pillow is not installed.
    """
    if isinstance(image, np.ndarray):
        return _three_channels(image)
    if isinstance(image, (str, os.PathLike)):
        return _three_channels(read_file(image))
    if isinstance(image, bytes):
        return _three_channels(read_bytes(image))
    if is_pillow_image(image):
        return _three_channels(from_pillow(image))
    raise ImageError(
        f"cannot read a picture from {type(image).__module__}.{type(image).__qualname__}: give a "
        "uint8 numpy array [H, W, 3], a Pillow image, a path, or the bytes of a picture file"
    )


def _three_channels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype != np.uint8:
        hint = "convert it to uint8"
        if np.issubdtype(array.dtype, np.floating):
            hint += " (values in 0..1: (array * 255).round().astype('uint8'))"
        raise ImageError(
            f"the picture has dtype {array.dtype}, but only uint8 with values in 0..255 is read: "
            + hint
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 4:
            hint = "; pass the pictures of a batch one by one"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise ImageError(
            f"the picture has shape {list(array.shape)}, but only [H, W], [H, W, 1], [H, W, 3] "
            f"and [H, W, 4] are read{hint}"
        )
    height, width = array.shape[:2]
    if array.size == 0:
        raise ImageError(f"the picture is empty: it has shape {list(array.shape)}")
    if max(height, width) > _LONGEST_SIDE:
        raise ImageError(
            f"the picture is {width}x{height} pixels; sides up to {_LONGEST_SIDE} are read"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.broadcast_to(array, (height, width, 3))
    return array[:, :, :3]


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
