"""Pictures in every form to RGB, and RGB to pixel values."""

import io
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

import florence_onnx.images.pixels
from florence_onnx.errors import ImageError, MissingDependencyError, ModelFileError
from florence_onnx.images.pixels import to_rgb
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.images.resize import resize_bicubic

Pixels = npt.NDArray[np.uint8]

CONFIG: dict[str, Any] = {
    "do_resize": True,
    "size": {"height": 48, "width": 64},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.fixture
def rgb() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (21, 34, 3), np.uint8)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def test_arrays(rgb: Pixels) -> None:
    grey = rgb[..., 0]
    as_pillow = np.asarray(Image.fromarray(grey).convert("RGB"))
    np.testing.assert_array_equal(to_rgb(grey), as_pillow)
    np.testing.assert_array_equal(to_rgb(grey[..., None]), as_pillow)
    rgba = np.dstack([rgb, grey])
    np.testing.assert_array_equal(to_rgb(rgba), np.asarray(Image.fromarray(rgba).convert("RGB")))
    for array in (rgb, grey, rgba):
        assert np.shares_memory(to_rgb(array), array), "nothing is copied"


def test_strided_and_read_only_arrays(rgb: Pixels) -> None:
    preprocessor = Preprocessor.from_config(CONFIG)
    rgb.flags.writeable = False
    for view in (rgb[::-1, ::2], rgb.transpose(1, 0, 2), rgb[..., ::-1], rgb[..., 1]):
        np.testing.assert_array_equal(
            preprocessor(to_rgb(view)), preprocessor(to_rgb(np.ascontiguousarray(view)))
        )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 0), np.uint8), "empty"),
        (np.zeros((5, 5, 0), np.uint8), r"shape \[5, 5, 0\], but only"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \[5, 5, 2\], but only"),
        (np.zeros((5, 5, 5), np.uint8), r"shape \[5, 5, 5\], but only"),
        (np.zeros(5, np.uint8), r"shape \[5\], but only \[H, W\]"),
        (np.zeros((3, 8, 9), np.uint8), r"channels come last: array.transpose\(1, 2, 0\)"),
        (np.zeros((1, 8, 9, 3), np.uint8), "one by one"),
        (np.zeros((5, 5, 3), np.float32), r"float32.*\(array \* 255\)"),
        (np.full((5, 5, 3), np.nan), "float64.*uint8"),
        (np.zeros((5, 5, 3), bool), "dtype bool, but only uint8"),
        (np.zeros((5, 5, 3), np.int64), "dtype int64, but only uint8"),
        (np.zeros((5, 5), np.uint16), "dtype uint16, but only uint8"),
        (np.broadcast_to(np.uint8(0), (1, 1 << 21, 3)), "2097152x1 pixels"),
    ],
)
def test_unusable_arrays(array: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        to_rgb(array)


@pytest.mark.parametrize("thing", [None, 3, [[1, 2]], bytearray(b"x"), io.BytesIO(b"x")])
def test_unsupported_types(thing: Any) -> None:
    name = re.escape(type(thing).__qualname__)
    with pytest.raises(ImageError, match=f"{name}: give a uint8 numpy array.*Pillow image.*path"):
        to_rgb(thing)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pillow_modes(rgb: Pixels, mode: str) -> None:
    image = Image.fromarray(rgb).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    np.testing.assert_array_equal(to_rgb(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [5, bytes(range(256))])
def test_palette_with_transparency_keeps_its_colours(rgb: Pixels, transparency: Any) -> None:
    image = Image.fromarray(rgb).quantize(256)
    colours = np.asarray(image.convert("RGB"))
    file = encoded(image, "PNG", transparency=transparency)
    np.testing.assert_array_equal(to_rgb(Image.open(io.BytesIO(file))), colours)
    np.testing.assert_array_equal(to_rgb(file), colours)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(file_format: str) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    if file_format == "PPM":
        file = b"P5 256 256 65535\n" + values.astype(">u2").tobytes()
    else:
        file = encoded(Image.fromarray(values), file_format)
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(to_rgb(file), np.dstack([expected] * 3))
    np.testing.assert_array_equal(to_rgb(Image.open(io.BytesIO(file))), np.dstack([expected] * 3))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_unknown_range(mode: str) -> None:
    with pytest.raises(ImageError, match=f"'{mode}'.*range of values is not known.*convert"):
        to_rgb(Image.new(mode, (4, 3)))


def test_mode_that_pillow_cannot_convert() -> None:
    with pytest.raises(ImageError, match="cannot decode the Pillow image: conversion from La"):
        to_rgb(Image.new("La", (4, 3)))


def test_empty_pillow_image() -> None:
    with pytest.raises(ImageError, match="empty"):
        to_rgb(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG"])
def test_files_equal_pillow(rgb: Pixels, tmp_path: Path, file_format: str) -> None:
    data = encoded(Image.fromarray(rgb), file_format)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        np.testing.assert_array_equal(to_rgb(source), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(rgb: Pixels, tmp_path: Path, file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(rgb), file_format, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((34, 21) if orientation > 4 else (21, 34))
    path = tmp_path / "picture"
    path.write_bytes(data)
    np.testing.assert_array_equal(to_rgb(data), expected)
    np.testing.assert_array_equal(to_rgb(path), expected)


def test_pillow_images_are_not_turned(rgb: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encoded(Image.fromarray(rgb), "PNG", exif=exif))) as image:
        np.testing.assert_array_equal(to_rgb(image), rgb)


def test_damaged_exif_does_not_cost_the_picture(rgb: Pixels) -> None:
    data = encoded(Image.fromarray(rgb), "WEBP", lossless=True, exif=b"not a TIFF header")
    np.testing.assert_array_equal(to_rgb(data), rgb)


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'.*missing\.jpg': No such file"):
        to_rgb(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=re.escape(f"'{tmp_path}'")):
        to_rgb(str(tmp_path))
    with pytest.raises(ImageError, match="null"):
        to_rgb("a\0b")
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    with pytest.raises(ImageError, match=r"'.*text\.jpg' is not a picture"):
        to_rgb(text)


def test_undecodable_bytes(rgb: Pixels) -> None:
    with pytest.raises(ImageError, match="the 0 bytes given is not a picture"):
        to_rgb(b"")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ImageError, match=r"cannot decode the 5000 bytes given:.*truncated"):
        to_rgb(jpeg[:5000])
    with pytest.raises(ImageError, match=r"cannot decode the Pillow image:.*truncated"):
        to_rgb(Image.open(io.BytesIO(jpeg[:5000])))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG"])
def test_damaged_files_give_a_picture_or_an_image_error(rgb: Pixels, file_format: str) -> None:
    rng = np.random.default_rng(11)
    data = np.frombuffer(encoded(Image.fromarray(rgb), file_format), np.uint8)
    refused = 0
    for _ in range(150):
        damaged = data[: rng.integers(1, len(data) + 1)].copy()
        damaged[rng.integers(0, len(damaged), 4)] ^= rng.integers(1, 256, 4, np.uint8)
        try:
            assert to_rgb(damaged.tobytes()).shape[2] == 3
        except ImageError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("times", [1.5, 3])
@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_decompression_bombs(
    rgb: Pixels, monkeypatch: pytest.MonkeyPatch, times: float, filters: Any
) -> None:
    data = encoded(Image.fromarray(rgb), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(21 * 34 / times))
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        with pytest.raises(ImageError, match=r"bomb|above the safe limit"):
            to_rgb(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(to_rgb(data), rgb)


def test_without_pillow(rgb: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(rgb), "PNG")
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=re.escape("pip install 'florence-onnx[cli]'")):
        to_rgb(data)
    np.testing.assert_array_equal(to_rgb(rgb), rgb)


def test_arrays_need_no_pillow() -> None:
    code = (
        "import sys, numpy, florence_onnx.images.pixels as image; "
        "image.to_rgb(numpy.zeros((4, 4), 'uint8')); assert 'PIL' not in sys.modules"
    )
    root = Path(florence_onnx.images.pixels.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def normalised(rgb: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The published formula, in float64, on Pillow's resize."""
    resized = np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BICUBIC))
    values: npt.NDArray[np.float64] = (resized / 255 - CONFIG["image_mean"]) / CONFIG["image_std"]
    return values.transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize("size", [(48, 64), (96, 32), (21, 34), (1, 1)])
def test_pixel_values(rgb: Pixels, size: tuple[int, int]) -> None:
    height, width = size
    config = CONFIG | {"size": {"height": height, "width": width}}
    values = Preprocessor.from_config(config)(rgb)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    # 1 ulp of the rescaled value (6e-8), divided by std, is 3e-7; values reach 2.6.
    np.testing.assert_allclose(values, normalised(rgb, size), rtol=1e-6, atol=5e-7)


def test_config_without_rescaling_or_normalisation(rgb: Pixels) -> None:
    resized = resize_bicubic(rgb, (48, 64)).transpose(2, 0, 1)
    plain = Preprocessor.from_config(CONFIG | {"do_rescale": False, "do_normalize": False})
    np.testing.assert_array_equal(plain(rgb), resized.astype(np.float32))
    rescaled = Preprocessor.from_config(CONFIG | {"do_normalize": False})
    np.testing.assert_array_equal(rescaled(rgb), (resized / 255).astype(np.float32))


def test_config_with_defaults() -> None:
    needed = {key: CONFIG[key] for key in ("size", "image_mean", "image_std")}
    assert Preprocessor.from_config(needed) == Preprocessor.from_config(CONFIG)
    crop = {"do_center_crop": True, "crop_size": CONFIG["size"]}
    assert Preprocessor.from_config(CONFIG | crop) == Preprocessor.from_config(CONFIG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_resize": False}, "do_resize is false, but must be true"),
        ({"resample": 2}, r"resample is 2, but must be 3 \(bicubic\)"),
        ({"size": {"shortest_edge": 768}}, 'size is {"shortest_edge": 768}, but must be like'),
        ({"size": {"height": 768, "width": 0}}, "size.width is 0, but"),
        ({"size": None}, "size is null"),
        ({"do_center_crop": True, "crop_size": {"height": 9, "width": 9}}, "crop_size is .*size"),
        ({"do_center_crop": True}, "crop_size is null"),
        ({"rescale_factor": "1/255"}, 'rescale_factor is "1/255", but must be a number'),
        ({"rescale_factor": float("nan")}, "rescale_factor is NaN"),
        ({"image_mean": [0.5]}, r"image_mean is \[0.5\], but must be a list of 3 numbers"),
        (
            {"image_std": [0.2, 0.0, 0.2]},
            r"image_std is \[0.2, 0.0, 0.2\], but .* from 1e-06",
        ),
        ({"image_std": None}, "image_std is null"),
    ],
)
def test_unusable_configs(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=f"preprocessor_config.json: {words}"):
        Preprocessor.from_config(CONFIG | change)
