"""Times ``pixel_values`` of a 12-megapixel picture, ours against Pillow's resize, on one thread.

Both sides start from a decoded picture in the form they like best, take turns, and must give the
same values. Prints JSON: ``python benchmarks/preprocess.py``.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

os.environ.update(
    dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
)

# Only now, because numpy's BLAS reads the number of threads when it is loaded.
import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from florence_onnx.image import Preprocessor

Values = npt.NDArray[np.float32]

HEIGHT, WIDTH = 3000, 4000
REPEATS = 15
PREPROCESSOR = Preprocessor(size=(768, 768), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def with_pillow(image: Image.Image) -> Values:
    """Pillow's resize and the plain formula, in float32 throughout, which is its fastest."""
    height, width = PREPROCESSOR.size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    mean, std = np.array([PREPROCESSOR.mean, PREPROCESSOR.std], np.float32)
    rescaled = pixels.astype(np.float32) * np.float32(PREPROCESSOR.rescale_factor)
    values: Values = (rescaled - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def seconds(run: Callable[[], Values]) -> float:
    """Returns how long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    image = Image.fromarray(pixels)
    # Two roundings in another order: 1 ulp of a value up to 1, divided by std.
    np.testing.assert_allclose(PREPROCESSOR(pixels), with_pillow(image), rtol=1e-6, atol=1e-6)
    ours, pillow = [], []
    for _ in range(REPEATS):
        ours.append(seconds(lambda: PREPROCESSOR(pixels)))
        pillow.append(seconds(lambda: with_pillow(image)))
    report = {
        "picture": f"{WIDTH}x{HEIGHT} -> 768x768",
        "ours_ms": round(statistics.median(ours) * 1e3, 1),
        "pillow_ms": round(statistics.median(pillow) * 1e3, 1),
        "ratio": round(statistics.median(ours) / statistics.median(pillow), 2),
        "repeats": REPEATS,
        "threads": 1,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
