"""Model Florence-2: pictures and tasks in, answers out."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

from florence_onnx import preparing
from florence_onnx.cascading import Cascade, CascadeResult
from florence_onnx.choosing import locate
from florence_onnx.constraining import check_min_score, check_rules
from florence_onnx.encoding import encode
from florence_onnx.engine.options import check_fast_math
from florence_onnx.engine.precision import Precision
from florence_onnx.engine.providers import Providers
from florence_onnx.errors import ModelWarning
from florence_onnx.hub import Access
from florence_onnx.images.pixels import ImageInput
from florence_onnx.opening import open_folder
from florence_onnx.picture_sizes import ImageSize
from florence_onnx.prompts import Region
from florence_onnx.requests import EncodedImage, EncodedTiles, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import TilesOption, check_tiles, kind_in_tiles
from florence_onnx.verbs import Verbs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from florence_onnx.engine.options import SessionOptions
    from florence_onnx.generation.options import GenerationOptions


class Florence2(Verbs):
    """Model Florence-2, opened on ONNX Runtime.

        model = Florence2.load("folder-or-hub-id")
        result = model("photo.jpg", Task.OD)
        result.detections

    Any number of threads may use one model at the same time, each as if it were alone.
    """

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        precision: Precision = "fp32",
        providers: Providers | None = None,
        threads: int | None = None,
        session_options: "SessionOptions | None" = None,
        fast_math: bool = False,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        image_size: ImageSize | None = None,
    ) -> "Florence2":
        """Opens a model.

        Args:
            source: A model folder, a hub id, or ``"demo"``.
            precision: The graphs to open: ``"fp32"``, ``"fp16"``, ``"q8"``, ``"q4"``; in the layout
                of transformers.js also ``"int8"``, ``"uint8"``, ``"q4f16"``, ``"bnb4"``; or a name
                per graph, ``{"vision_encoder": "fp16", "*": "q4"}``, fp32 for graphs left out; or
                ``"auto"``: q8 on a processor with 8-bit dot products, fp16 on CUDA, fp32 elsewhere
                or where q8 and fp16 are missing or cannot be opened.
            providers: ONNX Runtime providers by name, or (name, options) pairs; or a mapping from
                graph name, or ``"*"`` for other graphs, to such a list. None, and graphs left out,
                for CUDA where CUDA is installed and loads, else the CPU.
            threads: Threads inside an operator, on the CPU; None for one per physical core that
                the process's affinity and container allow.
            session_options: ONNX Runtime's options for all four graphs; instead of ``threads`` and
                ``fast_math``.
            fast_math: Whether float32 matmuls are computed in bfloat16, less exactly, on an Arm
                processor with Linux that can. Refused elsewhere; not measured by us.
            revision: Branch, tag or commit of a hub id; the main branch by default.
            cache_dir: Folder for fetched files and made models, instead of the usual caches.
            local_files_only: Whether only the cache is used, and the hub never asked.
            image_size: (width, height) to which pictures are resized, or one number for both, for
                a model that was trained so; None for the checkpoint's.

        Raises:
            ModelError: The model, one of its files or a provider cannot be had.
            ExportError: No model can be made of a checkpoint of the hub.
            InputError: The model cannot take pictures of the size.

        Warns:
            ModelWarning: A generation setting of the checkpoint is not supported here, as
                ``model.assets.notes`` says too; or ``"auto"`` has passed over a precision.
        """
        check_fast_math(fast_math)  # Before a model is fetched.

        def opened(folder: Path, name: Precision) -> "Florence2":
            assets, graphs = open_folder(
                folder, name, providers, threads, session_options, fast_math
            )
            return cls(assets.at_size(image_size), graphs)

        access = Access(revision, None if cache_dir is None else Path(cache_dir), local_files_only)
        model = locate(source, precision, providers, opened, access)
        for note in model.assets.notes:
            warnings.warn(note, ModelWarning, stacklevel=2)
        return model

    @property
    def precision(self) -> str:
        """Precision of the opened graphs, never ``"auto"``; of several precisions ``"fp16+q4"``."""
        return self.graphs.precision

    @property
    def providers(self) -> dict[str, list[str]]:
        """Providers that each graph really runs on, most used first."""
        return self.graphs.providers()

    def encode(
        self,
        image: ImageInput,
        *,
        tiles: TilesOption | None = None,
        image_size: ImageSize | None = None,
    ) -> EncodedImage:
        """Runs the vision encoder, for several tasks on one picture.

        Args:
            image: uint8 array [H,W,3], [H,W,4] or [H,W]; a Pillow image; a path or the bytes of
                an image file (these need Pillow, and honour EXIF orientation).
            tiles: Tiles for large pictures, as in `Request`, for tasks that list things.
            image_size: (width, height) to which the picture is resized, or one number for both.

        Raises:
            ImageError: The image is not a picture the model can read.
            InputError: The model cannot take the size, or ``tiles`` is wrong.
        """
        return encode(self.graphs, preparing.read_picture(self.assets, image, tiles, image_size))

    @overload
    def __call__(  # type: ignore[overload-overlap]  # The first takes text and bytes.
        self,
        image: ImageInput | EncodedImage,
        task: Task | str | None = None,
        text: str | None = None,
        *,
        region: Region | None = None,
        prompt: str | None = None,
        answer: AnswerKind | str | None = None,
        tiles: TilesOption | None = None,
        image_size: ImageSize | None = None,
        **options: "Unpack[GenerationOptions]",
    ) -> Result: ...

    @overload
    def __call__(
        self,
        image: Sequence[ImageInput | EncodedImage],
        task: Task | str | None = None,
        text: str | None = None,
        *,
        region: Region | None = None,
        prompt: str | None = None,
        answer: AnswerKind | str | None = None,
        tiles: TilesOption | None = None,
        image_size: ImageSize | None = None,
        **options: "Unpack[GenerationOptions]",
    ) -> list[Result]: ...

    def __call__(
        self,
        image: object,
        task: Task | str | None = None,
        text: str | None = None,
        *,
        region: Region | None = None,
        prompt: str | None = None,
        answer: AnswerKind | str | None = None,
        tiles: TilesOption | None = None,
        image_size: ImageSize | None = None,
        **options: "Unpack[GenerationOptions]",
    ) -> Result | list[Result]:
        """Answers one task on a picture, or on every picture of a list.

        Args:
            image: A picture, as in `encode`, or a result of `encode`; or a list of these.
            task: A task or the name of a task; see `Request`, which has the same fields.
            text: Text, for the tasks that take text.
            region: Region, for the tasks that take one: x1, y1, x2, y2 in pixels, or the region's
                four location tokens.
            prompt: A fine-tune's own prompt, instead of a task.
            answer: Kind of the answer to a prompt, such as ``"boxes"``.
            tiles: Tiles for large pictures: ``"auto"`` or (columns, rows).
            image_size: (width, height) to which pictures are resized, or one number for both.
            **options: Overrides of the checkpoint's `policy`, under transformers' names.

        Returns:
            The result, or a list of results in the order of the pictures. With num_return_sequences
            the best result, which has the other results as ``alternatives``.

        Raises:
            InputError: The picture, the task, the input of the task or an option is wrong.
        """
        policy = self.policy.replace(**options)  # Else run() would take a batch_size.
        given = (task, text, region, prompt, answer, tiles, image_size)
        request = Request(cast(ImageInput, image), *given)
        # once, before pictures are read, and for an empty list too
        asked, kind = preparing.check_question(request)
        check_rules(asked, kind, policy)
        has_tiles = tiles is not None or isinstance(image, EncodedTiles)
        check_min_score([(asked, kind_in_tiles(asked, kind) if has_tiles else kind)], policy)
        if preparing.are_several(image):
            return self.run([Request(one, *given) for one in image], **options)
        return self.answer(self.prepare(request), **options)

    def cascade(
        self,
        image: ImageInput | EncodedImage,
        name: str,
        text: str | None = None,
        *,
        tiles: TilesOption | None = None,
        image_size: ImageSize | None = None,
        batch_size: int = 8,
        **options: "Unpack[GenerationOptions]",
    ) -> CascadeResult:
        """Asks a second task about the answer to the first, on one run of the vision encoder.

        Args:
            image: A picture, as `__call__` takes one.
            name: ``"caption+grounding"``, of any length of caption; or a task that locates things
                and one that takes a region, as in ``"od+region_to_category"``.
            text: Text, for a first task that takes text.
            tiles: Tiles, for a first task that takes tiles; see `Request`.
            image_size: See `Request`.
            batch_size: Number of requests of the second task that are answered together.
            **options: Options, as `__call__` takes options, for both tasks; ``labels``, ``recall``
                and ``min_score`` for the tasks for which these options have a meaning.

        Raises:
            InputError: The picture, a task, the input of a task or an option is wrong.
        """
        cascade = Cascade.parse(name)
        if tiles is not None:
            check_tiles(cascade.first, cascade.first.answer_kind)
        of_first, of_then = cascade.options(options)
        picture = preparing.read_picture(self.assets, image, tiles, image_size)
        seen = encode(self.graphs, picture)
        first = self(seen, cascade.first, text, **of_first)
        asked = cascade.follow_up(seen, first)
        then = tuple(self.run(asked, batch_size=batch_size, **of_then))
        return CascadeResult(name=cascade.name, first=first, then=then)
