"""Times ``pixel_values`` of a 12-megapixel picture, ours against Pillow's resize, on one thread.

    python -m benchmarks.preprocess

Both sides start from a decoded picture in the best form for the side, and must give equal values.
"""

import os
import sys
from collections.abc import Sequence

os.environ.update(
    dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
)

# After the setting, because numpy's BLAS reads the number of threads when it is loaded.
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.harness.common import make_parser, make_picture, publish
from benchmarks.harness.measuring import alternate, seconds, summarise
from florence_onnx.assets.writing import RELEASED_PREPROCESSING
from florence_onnx.images.preprocessor import Preprocessor

Values = npt.NDArray[np.float32]

HEIGHT, WIDTH = 3000, 4000
PREPROCESSOR = Preprocessor.from_config(RELEASED_PREPROCESSING)


def with_pillow(image: Image.Image) -> Values:
    """Resizes with Pillow and normalises in float32, which is the fastest type."""
    height, width = PREPROCESSOR.size
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    mean, std = np.array([PREPROCESSOR.mean, PREPROCESSOR.std], np.float32)
    rescaled = pixels.astype(np.float32) * np.float32(PREPROCESSOR.rescale_factor)
    values: Values = (rescaled - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=15, precisions=False)
    parser.set_defaults(threads=1)
    arguments = parser.parse_args(argv)
    if arguments.threads != 1:
        parser.error("both sides are compared on one thread")
    pixels = make_picture(WIDTH, HEIGHT)
    image = Image.fromarray(pixels)
    # Another order of two roundings: 1 ulp of a value up to 1, divided by std.
    np.testing.assert_allclose(PREPROCESSOR(pixels), with_pillow(image), rtol=1e-6, atol=1e-6)
    sides = {
        "ours": lambda: seconds(lambda: PREPROCESSOR(pixels)),
        "Pillow": lambda: seconds(lambda: with_pillow(image)),
    }
    case = f"{WIDTH}x{HEIGHT} to 768x768"
    content = summarise({case: alternate(sides, arguments.repeats)})
    publish("preprocess", arguments, argv, content)


if __name__ == "__main__":
    main(sys.argv[1:])
