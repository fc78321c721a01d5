"""Writing of pixels as a BMP file: without loss, without a library, at very little cost."""

import struct

import numpy as np
import numpy.typing as npt

SUFFIX = ".bmp"


def write_bitmap(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Makes the bytes of a BMP file of 24 bits.

    Args:
        pixels: uint8 [H,W,3], RGB.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, (width * 3 + 3) // 4 * 4), np.uint8)
    rows[:, : width * 3] = pixels[:, :, ::-1].reshape(height, width * 3)
    file = struct.pack("<2sIII", b"BM", 54 + rows.size, 0, 54)
    # A negative height: rows from the top.
    picture = struct.pack("<IiiHHIIIIII", 40, width, -height, 1, 24, 0, rows.size, 0, 0, 0, 0)
    return file + picture + rows.tobytes()
