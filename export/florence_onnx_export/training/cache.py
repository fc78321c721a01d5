"""Pictures of training scenes, drawn once and kept on disk at the size the model reads."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.scene import sample_scene

_CHUNK = 1000


def cached_pictures(path: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Pictures of the training scenes 0..count-1, drawn if the file does not hold them yet.

    Args:
        path: `.npy` file to read or write, 49 kB per picture at 128 pixels.
        count: number of scenes.
        size: side of the square that pictures are squashed to, as the model's processor does.

    Returns:
        uint8 [count, size, size, 3], memory-mapped.
    """
    if not path.exists():
        partial_path = path.with_suffix(".partial")
        shape = (count, size, size, 3)
        np.lib.format.open_memmap(partial_path, "w+", np.uint8, shape).flush()
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            work = partial(_draw_chunk, partial_path, count, size)
            list(pool.map(work, range(0, count, _CHUNK)))
        partial_path.rename(path)
    pictures: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    if pictures.shape != (count, size, size, 3):
        raise ValueError(
            f"{path} holds {pictures.shape}, not {(count, size, size, 3)}: delete it to redraw"
        )
    return pictures


def squashed(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """A picture at the model's size, uint8 [size, size, 3], by the processor's own resampling."""
    rgb = picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _draw_chunk(path: Path, count: int, size: int, start: int) -> None:
    pictures = np.load(path, mmap_mode="r+")
    for seed in range(start, min(start + _CHUNK, count)):
        pictures[seed] = squashed(draw(sample_scene(seed)), size)
    pictures.flush()
