"""Encoding of pictures by the vision encoder, several pictures of one size in a run."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import GraphRunError, ImageError
from florence_onnx.requests import EncodedImage, EncodedTiles, Picture, TiledPicture

_AT_ONCE = 768 * 768
"""Pixels in a run of the vision encoder: one picture of the released size, or 144 of 64x64."""
_TILES_AT_ONCE = 4 * _AT_ONCE
"""Pixels in a run of the vision encoder for the tiles of a picture."""


def encode(graphs: Graphs, picture: Picture | TiledPicture | EncodedImage) -> EncodedImage:
    """Encodes a picture, or all tiles of a picture in tiles, unless it is encoded already."""
    if isinstance(picture, EncodedImage):
        return picture
    if isinstance(picture, Picture):
        return encode_pictures(graphs, [picture])[0]
    parts: list[EncodedImage] = []
    count = _per_run(picture.preprocessor.size, _TILES_AT_ONCE)
    for start in range(0, len(picture.frames), count):
        tiles = [picture.part(frame) for frame in picture.frames[start : start + count]]
        parts += encode_pictures(graphs, tiles, _TILES_AT_ONCE)
    return EncodedTiles(
        parts[-1].image_features,
        picture.size,
        picture.image_size,
        picture.reference,
        parts=tuple(parts),
        frames=picture.frames,
        per_label=picture.per_label,
    )


def encode_pictures(
    graphs: Graphs, pictures: Sequence[Picture], pixels: int = _AT_ONCE
) -> list[EncodedImage]:
    """Encodes pictures of any sizes; runs have pictures of one size, with limited pixels."""
    encoded: dict[int, EncodedImage] = {}
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_shape.setdefault(picture.pixel_values.shape, []).append(index)
    for (_, *size), indices in by_shape.items():
        count = _per_run(size, pixels)
        for start in range(0, len(indices), count):
            run = indices[start : start + count]
            features = _features(graphs, [pictures[index] for index in run])
            for index, rows in zip(run, features, strict=True):
                picture = pictures[index]
                encoded[index] = EncodedImage(
                    rows, picture.size, picture.image_size, picture.reference
                )
    return [encoded[index] for index in range(len(pictures))]


def _features(graphs: Graphs, pictures: Sequence[Picture]) -> npt.NDArray[np.float32]:
    """Computes the image features of pictures of one size, [B,N,D].

    Raises:
        GraphRunError: The graph fails.
        ImageError: The graph fails on a size for which it was not made.
    """
    first, *others = [picture.pixel_values[None] for picture in pictures]
    pixel_values = np.concatenate([first, *others]) if others else first  # One is not copied.
    try:
        return graphs.image_features(pixel_values)
    except GraphRunError as error:
        if pictures[0].image_size is None:
            raise
        width, height = pictures[0].image_size
        raise ImageError(
            f"this vision encoder cannot take pictures of {width}x{height} pixels (image_size=), "
            f"whatever it declares; leave image_size out: {error}"
        ) from error


def _per_run(size: Sequence[int], pixels: int) -> int:
    return max(1, pixels // math.prod(size))
