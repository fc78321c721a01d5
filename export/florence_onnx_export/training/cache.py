"""Pictures of training scenes, drawn once and kept on disk at the model's picture size."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_onnx.errors import InputError
from florence_onnx.files import whole_file
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene

_CHUNK = 1000


def cached_pictures(path: Path, count: int, size: int, unfinished: Path) -> NDArray[np.uint8]:
    """Opens the pictures of the training scenes 0..count-1, which are drawn if there is no file.

    Args:
        path: ``.npy`` file to read or write, 49 kB per picture at 128 pixels.
        count: Number of scenes.
        size: Side in pixels of the square to which pictures are resized without their aspect.
        unfinished: Folder for the file while the file is written.

    Returns:
        uint8 [count, size, size, 3], memory-mapped.

    Raises:
        InputError: The file holds something else.
    """
    shape = (count, size, size, 3)
    if not path.exists():
        with whole_file(path, unfinished) as file, ProcessPoolExecutor(os.cpu_count()) as pool:
            np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
            list(pool.map(partial(_draw_chunk, file, count, size), range(0, count, _CHUNK)))
    try:
        pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except ValueError as error:
        raise InputError(f"{path} holds no pictures: move it, or choose another folder") from error
    if pictures.shape != shape:
        raise InputError(f"{path} holds {pictures.shape}, not {shape}: delete it to redraw")
    return pictures


def squashed(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Resizes a picture to uint8 [size, size, 3] with the processor's own resampling."""
    rgb = picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _draw_chunk(path: Path, count: int, size: int, start: int) -> None:
    pictures = np.load(path, mmap_mode="r+")
    for seed in range(start, min(start + _CHUNK, count)):
        pictures[seed] = squashed(draw(sample_scene(seed)), size)
    pictures.flush()
