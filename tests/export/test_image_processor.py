"""Pixel values against transformers' own image processor on its Pillow backend."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from florence_onnx.images.pixels import to_rgb
from florence_onnx.images.preprocessor import Preprocessor

# What the released checkpoints say, without the fields that neither side reads.
CONFIG: dict[str, Any] = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "do_center_crop": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": {"height": 768, "width": 768},
    "crop_size": {"height": 768, "width": 768},
}

# Pillow before 13 resizes tall pictures in another order of passes.
SHAPES = [(480, 640), (1600, 1200), (33, 1500), (768, 768)]
if int(PIL.__version__.split(".")[0]) >= 13:
    SHAPES.append((1500, 300))


def reference(config: dict[str, Any], image: Image.Image) -> Any:
    return CLIPImageProcessorPil(**config)(image, return_tensors="np")["pixel_values"][0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": {"height": 480, "width": 672}, "rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"do_rescale": False},
    ],
)
def test_random_pictures(shape: tuple[int, int], change: dict[str, Any]) -> None:
    pixels = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), np.uint8)
    config = CONFIG | change
    expected = reference(config, Image.fromarray(pixels))
    values = Preprocessor.from_config(config)(to_rgb(pixels))
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


def test_real_configs_and_photos(shared: Path) -> None:
    photos = [path for path in sorted((shared / "photos").iterdir()) if path.is_file()]
    configs = sorted((shared / "configs").glob("*/preprocessor_config.json"))
    assert len(photos) >= 7
    assert len(configs) >= 5
    for config_path in configs:
        config = json.loads(config_path.read_text())
        preprocessor = Preprocessor.from_config(config)
        for photo in photos if config_path is configs[0] else photos[:1]:
            with Image.open(photo) as image:
                expected = reference(config, image.convert("RGB"))
            np.testing.assert_array_equal(preprocessor(to_rgb(photo)), expected, str(photo))
