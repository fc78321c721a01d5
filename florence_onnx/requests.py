"""Requests to a model: a picture, perhaps encoded already, and a task or a prompt."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from florence_onnx.images.pixels import ImageInput
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.picture_sizes import ImageSize
from florence_onnx.prompts import Region
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import Frame, TilesOption


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """A picture that has been through the vision encoder; any number of tasks can follow."""

    image_features: npt.NDArray[np.float32]
    """Features [N,D], the mean token first."""
    size: tuple[int, int]
    """Size of the picture in pixels, (width, height)."""
    image_size: tuple[int, int] | None = None
    """Size after the resize, (width, height); None for the checkpoint's."""


@dataclass(frozen=True, eq=False)
class Request:
    """A question about a picture: a task and what it takes, or a fine-tune's own prompt."""

    image: ImageInput | EncodedImage = field(repr=False)
    """A uint8 array [H,W,3], [H,W,4] or [H,W]; a Pillow image; a path or the bytes of an image
    file; or what `Florence2.encode` returned."""
    task: Task | str | None = None
    """A task or the name of a task. Any other text that cannot be taken for a name, such as
    ``"<DocVQA>What is the date?"``, is the prompt of a fine-tune. None with ``prompt``."""
    text: str | None = None
    """Text for the tasks that take text: the words to look for."""
    region: Region | None = None
    """Region for the tasks that take one: x1, y1, x2, y2 in pixels of the picture, or four location
    tokens such as ``"<loc_52><loc_332><loc_932><loc_774>"``."""
    prompt: str | None = None
    """The prompt of a fine-tune, passed through as it is, instead of a task."""
    answer: AnswerKind | str | None = None
    """Kind of the answer to a fine-tune's prompt: ``"text"`` (the default); ``"boxes"``,
    ``"polygons"``, ``"quadrilaterals"``, ``"proposals"``, ``"grounding"``, ``"boxes_or_polygons"``
    as those of ``od``, ``referring_expression_segmentation``, ``ocr_with_region``,
    ``region_proposal``, ``caption_to_phrase_grounding``, ``open_vocabulary_detection``."""
    tiles: TilesOption | None = None
    """For tasks that list what there is in a large picture: ``"auto"``, (columns, rows) or `Tiles`.
    The tiles and the whole picture are asked, and what they find is put together."""
    image_size: ImageSize | None = None
    """(width, height) to which pictures are resized, or one number for both, where the model was
    trained so; None for the checkpoint's."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture ready for the vision encoder."""

    pixel_values: npt.NDArray[np.float32]
    """Pixels [3,H,W], resized and normalised."""
    size: tuple[int, int]
    """Size of the picture in pixels before the resize, (width, height)."""
    image_size: tuple[int, int] | None = None
    """Size after the resize, (width, height); None for the checkpoint's."""


@dataclass(frozen=True, eq=False)
class TiledPicture:
    """A picture that is cut into tiles, which are resized when the vision encoder takes them."""

    rgb: npt.NDArray[np.uint8]
    """Pixels [H,W,3]."""
    frames: tuple[Frame, ...]
    """The tiles, the whole picture last."""
    per_label: bool
    """Whether boxes are duplicates only if they have one label."""
    preprocessor: Preprocessor
    """Resizes a tile."""
    image_size: tuple[int, int] | None = None
    """Size of a tile after the resize, (width, height); None for the checkpoint's."""

    @property
    def size(self) -> tuple[int, int]:
        """Size of the picture in pixels, (width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def part(self, frame: Frame) -> Picture:
        """A tile, ready for the vision encoder."""
        x1, y1, x2, y2 = frame
        pixels = self.preprocessor(self.rgb[y1:y2, x1:x2])
        return Picture(pixels, (x2 - x1, y2 - y1), self.image_size)


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedTiles(EncodedImage):
    """A picture that has been through the vision encoder, whole and in tiles.

    Tasks that list what there is are asked about the tiles too, others about the whole picture.
    """

    parts: tuple[EncodedImage, ...]
    """The tiles, the whole picture last."""
    frames: tuple[Frame, ...]
    """Where they are in the picture."""
    per_label: bool
    """Whether boxes are duplicates only if they have one label."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A checked request, ready for the engine: its picture is resized, its prompt tokenized."""

    picture: Picture | TiledPicture | EncodedImage
    """The picture; requests that share one object share one run of the vision encoder."""
    asked: Task | str
    """The task, or the prompt in its place."""
    answer_kind: AnswerKind
    """Kind of the answer, which tells how the generated text is read."""
    input_ids: tuple[int, ...]
    """The prompt's token ids."""
    text: str | None = None
    """The text that the task takes."""


@dataclass(frozen=True, eq=False)
class Failure:
    """The item that `Florence2.stream` yields with ``on_error="return"`` in place of a result."""

    request: Request
    """The request, as it was given."""
    error: Exception
    """Reason why there is no result: an `InputError` where the request is wrong. The error has no
    traceback, because a traceback would keep pictures in memory."""
