"""Requests to a model: a picture, perhaps encoded already, and a task or a prompt."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from florence_onnx.assets.origin import Origin
from florence_onnx.images.pixels import ImageInput
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.picture_reference import PictureReference
from florence_onnx.picture_sizes import ImageSize
from florence_onnx.prompts import Region
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import Frame, TilesOption


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Picture after the vision encoder, for any number of tasks."""

    image_features: npt.NDArray[np.float32]
    """Features [N,D], the mean token first."""
    size: tuple[int, int]
    """Size of the picture in pixels, (width, height)."""
    image_size: tuple[int, int] | None = None
    """Size after the resize, (width, height); None for the checkpoint's."""
    reference: PictureReference | None = None
    """Reference to the picture as the caller gave it."""


@dataclass(frozen=True, eq=False)
class Request:
    """Request about a picture: a task with its input, or a fine-tune's own prompt."""

    image: ImageInput | EncodedImage = field(repr=False)
    """Picture: a uint8 array [H,W,3], [H,W,4] or [H,W]; a Pillow image; a path or the bytes of an
    image file; or a result of `Florence2.encode`."""
    task: Task | str | None = None
    """Task, or the name of a task. Any other text that cannot be taken for a name, such as
    ``"<DocVQA>What is the date?"``, is the prompt of a fine-tune. None with ``prompt``."""
    text: str | None = None
    """Text for the tasks that take text: the words to look for."""
    region: Region | None = None
    """Region for the tasks that take one: x1, y1, x2, y2 in pixels of the picture, or four location
    tokens such as ``"<loc_52><loc_332><loc_932><loc_774>"``."""
    prompt: str | None = None
    """Prompt of a fine-tune, which is not changed, instead of a task."""
    answer: AnswerKind | str | None = None
    """Kind of the answer to a fine-tune's prompt: ``"text"`` (the default); ``"boxes"``,
    ``"polygons"``, ``"quadrilaterals"``, ``"proposals"``, ``"grounding"``, ``"boxes_or_polygons"``
    as in ``od``, ``referring_expression_segmentation``, ``ocr_with_region``,
    ``region_proposal``, ``caption_to_phrase_grounding``, ``open_vocabulary_detection``."""
    tiles: TilesOption | None = None
    """Tiles of a large picture, for tasks that list things: ``"auto"``, (columns, rows) or `Tiles`.
    The task is asked about every tile and the whole picture, and the answers are merged."""
    image_size: ImageSize | None = None
    """Size (width, height) to which the picture is resized, or one number for both, if the model
    was trained on such pictures; None for the checkpoint's size."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Picture ready for the vision encoder."""

    pixel_values: npt.NDArray[np.float32]
    """Pixels [3,H,W], resized and normalised."""
    size: tuple[int, int]
    """Size of the picture in pixels before the resize, (width, height)."""
    image_size: tuple[int, int] | None = None
    """Size after the resize, (width, height); None for the checkpoint's."""
    reference: PictureReference | None = None
    """Reference to the picture as the caller gave it."""


@dataclass(frozen=True, eq=False)
class TiledPicture:
    """Picture in tiles. A tile is resized when the vision encoder takes the tile."""

    rgb: npt.NDArray[np.uint8]
    """Pixels [H,W,3]."""
    frames: tuple[Frame, ...]
    """Tiles, the whole picture last."""
    per_label: bool
    """Tells whether only boxes with the same label can be duplicates."""
    preprocessor: Preprocessor
    """Function that resizes a tile."""
    image_size: tuple[int, int] | None = None
    """Size of a tile after the resize, (width, height); None for the checkpoint's."""
    reference: PictureReference | None = None
    """Reference to the picture as the caller gave it."""

    @property
    def size(self) -> tuple[int, int]:
        """Size of the picture in pixels, (width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def part(self, frame: Frame) -> Picture:
        """Prepares a tile for the vision encoder."""
        x1, y1, x2, y2 = frame
        pixels = self.preprocessor(self.rgb[y1:y2, x1:x2])
        return Picture(pixels, (x2 - x1, y2 - y1), self.image_size)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedTiles(EncodedImage):
    """Picture after the vision encoder, whole and in tiles.

    Tasks that list things are asked about the tiles too, other tasks about the whole picture only.
    """

    parts: tuple[EncodedImage, ...]
    """Tiles, the whole picture last."""
    frames: tuple[Frame, ...]
    """Places of the tiles in the picture."""
    per_label: bool
    """Tells whether only boxes with the same label can be duplicates."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Checked request, ready for the engine: the picture is resized, the prompt is tokenized."""

    picture: Picture | TiledPicture | EncodedImage
    """Picture. Requests with one object as picture share one run of the vision encoder."""
    asked: Task | str
    """Task, or the prompt in place of a task."""
    answer_kind: AnswerKind
    """Kind of the answer, which tells how the generated text is read."""
    input_ids: tuple[int, ...]
    """Token ids of the prompt."""
    text: str | None = None
    """Text that the task takes."""
    origin: Origin | None = None
    """Model that prepared the request; None for any model."""


@dataclass(frozen=True, eq=False)
class Failure:
    """Item that `Florence2.stream` yields with ``on_error="return"`` in place of a result."""

    request: Request
    """Request, as the caller gave it."""
    error: Exception
    """Reason why there is no result: an `InputError` where the request is wrong. The error has no
    traceback, because a traceback would keep pictures in memory."""
