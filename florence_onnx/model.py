"""A Florence-2 model: pictures and tasks in, answers out."""

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.assets.reading import Assets
from florence_onnx.engine.decoder import DecoderSteps
from florence_onnx.engine.inputs import encoder_inputs
from florence_onnx.engine.providers import Providers
from florence_onnx.engine.sessions import Graphs, open_graphs
from florence_onnx.errors import (
    GenerationError,
    InputError,
    ModelFileError,
    ModelWarning,
    TaskError,
)
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.search import Hypothesis, search
from florence_onnx.images.pixels import ImageInput, to_rgb
from florence_onnx.parsing import parse_answer
from florence_onnx.prompts import build_prompt
from florence_onnx.requests import EncodedImage
from florence_onnx.resolver import locate
from florence_onnx.results import Result
from florence_onnx.tasks import Task, resolve_task

if TYPE_CHECKING:
    import onnxruntime as ort

Region = str | Sequence[float]
"""x1, y1, x2, y2 in pixels of the picture, or four location tokens."""
Request = tuple[ImageInput | EncodedImage, Task | str, str | Region | None]
"""A picture or scene, a task, and the text or region that the task takes (else None)."""


@dataclass(frozen=True)
class _Picture:
    """A picture ready for the vision encoder."""

    pixel_values: npt.NDArray[np.float32]
    size: tuple[int, int]


@dataclass(frozen=True)
class _Question:
    """A request that has been checked."""

    picture: _Picture | EncodedImage
    task: Task | str
    input_ids: list[int]


class Florence2:
    """A Florence-2 model opened on ONNX Runtime.

    ::

        model = Florence2.load("folder-or-hub-id")
        result = model("photo.jpg", Task.OD)
        result.boxes, result.labels
    """

    def __init__(self, assets: Assets, graphs: Graphs) -> None:
        """Use `Florence2.load`."""
        self.assets = assets
        self.graphs = graphs

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        precision: str = "fp32",
        providers: Providers | None = None,
        threads: int | None = None,
        session_options: "ort.SessionOptions | None" = None,
    ) -> "Florence2":
        """Opens a model.

        Args:
            source: A model folder, a hub id, or ``"demo"``.
            precision: Which of the model's graphs to open: ``"fp32"``, ``"fp16"``, ``"q8"``,
                ``"q4"``, or ``"auto"`` for q8 on a processor with 8-bit dot products, fp16 on
                CUDA, and fp32 elsewhere or where the model lacks these.
            providers: ONNX Runtime providers by name, or (name, options) pairs; or a mapping from
                graph name (``vision_encoder``, ``embed_tokens``, ``encoder_model``,
                ``decoder_with_past_model``, or ``"*"`` for the others) to such a list. None, and
                graphs left out, for CUDA where it is installed and loads, else the CPU.
            threads: Threads inside an operator, on the CPU; None for one per physical core that
                the process's affinity and container allow.
            session_options: ONNX Runtime's own options, used as they are by the sessions of all
                four graphs; instead of ``threads``.

        Raises:
            ModelError: The model, one of its files or a provider cannot be had.

        Warns:
            ModelWarning: A generation setting of the checkpoint changes answers elsewhere and is
                not supported here. ``model.assets.notes`` keeps these sentences.
        """
        folder, precision = locate(source, precision, providers)
        with ThreadPoolExecutor(1) as pool:
            opened = pool.submit(
                open_graphs, folder, precision, providers, threads, session_options
            )
            assets = Assets.read(folder)
            graphs = opened.result()
        rows, known = assets.policy.vocab_size, graphs.geometry()["vocabulary"]
        if rows > known:
            raise ModelFileError(
                f"{folder / 'config.json'} is of another model: text_config.vocab_size is {rows}, "
                f"and the graphs know {known} tokens"
            )
        for note in assets.notes:
            warnings.warn(note, ModelWarning, stacklevel=2)
        return cls(assets, graphs)

    @property
    def precision(self) -> str:
        """The precision of the graphs that were opened; never ``"auto"``."""
        return self.graphs.precision

    @property
    def providers(self) -> dict[str, list[str]]:
        """The providers ONNX Runtime really gave each graph, most used first."""
        return self.graphs.providers()

    @property
    def policy(self) -> GenerationPolicy:
        """The checkpoint's generation policy, which the options of a call override."""
        return self.assets.policy

    def encode(self, image: ImageInput) -> EncodedImage:
        """Runs the vision encoder, for several tasks on one picture.

        Args:
            image: uint8 array [H,W,3], [H,W,4] or [H,W]; a Pillow image; a path or the bytes of
                an image file (these need Pillow, and honour EXIF orientation).

        Raises:
            ImageError: The image is not a picture the model can read.
        """
        return self._encode(self._prepare(image))

    def __call__(
        self,
        image: ImageInput | EncodedImage,
        task: Task | str,
        text: str | None = None,
        *,
        region: Region | None = None,
        **generation: Any,
    ) -> Result:
        """Answers one task on one picture.

        Args:
            image: As `encode` takes it, or a scene that `encode` returned.
            task: A task or its name; any other text is a fine-tune's prompt, passed through.
            text: For the tasks that take text.
            region: For the tasks that take a region: x1, y1, x2, y2 in pixels, or its four
                location tokens.
            **generation: Overrides of the checkpoint's `policy`, under transformers' names.

        Returns:
            The task's result; with num_return_sequences, the best one, the others in its
            ``alternatives``.

        Raises:
            InputError: The picture, the task, its input or a generation option is wrong.
        """
        if text is not None and region is not None:
            raise TaskError("give text or region, not both")
        given = text if region is None else region
        return self.run([(image, task, given)], **generation)[0]

    def run(
        self, requests: Iterable[Request], *, batch_size: int = 8, **generation: Any
    ) -> list[Result]:
        """Answers a batch of requests: mixed tasks, pictures of mixed sizes.

        Pictures that occur more than once are encoded once. Everything that can be checked
        without running the model is checked before the first picture is encoded, for which all
        are decoded and resized: 7 MB each at 768x768, so pass a long list in parts.

        Args:
            requests: (image or scene, task, text or region or None) each.
            batch_size: Requests that are decoded together.
            **generation: Overrides of the checkpoint's `policy`, under transformers' names.

        Returns:
            One result per request, in order.

        Raises:
            InputError: A picture, a task, its input or a generation option is wrong.
        """
        if batch_size < 1:
            raise GenerationError(f"batch_size is {batch_size}; it must be at least 1")
        policy = self.policy.replace(**generation)
        questions = self._check(list(requests))
        scenes: dict[int, EncodedImage] = {}
        results: list[Result] = []
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            for question in batch:
                key = id(question.picture)
                if key not in scenes:
                    scenes[key] = self._encode(question.picture)
            results += self._answer(batch, [scenes[id(q.picture)] for q in batch], policy)
        return results

    def _check(self, requests: list[Request]) -> list[_Question]:
        """Prepares each picture once and builds every prompt."""
        pictures: dict[object, _Picture | EncodedImage] = {}
        questions = []
        for request in requests:
            if not isinstance(request, Sequence) or len(request) != 3:
                raise InputError(
                    "a request is (image or scene, task, text or region or None), "
                    f"not {type(request).__name__}: {request!r:.80}"
                )
            image, asked, given = request
            # A path is the same picture whenever it is given; pixels are when they are one object.
            key = image if isinstance(image, str | os.PathLike) else id(image)
            if key not in pictures:
                pictures[key] = self._prepare(image)
            picture = pictures[key]
            task = resolve_task(asked)
            prompt = _prompt(task, given, picture.size)
            input_ids = self.assets.encode_prompt(prompt)
            questions.append(_Question(picture, task, input_ids))
        return questions

    def _prepare(self, image: ImageInput | EncodedImage) -> _Picture | EncodedImage:
        if isinstance(image, EncodedImage):
            return image
        rgb = to_rgb(image)
        size = (rgb.shape[1], rgb.shape[0])
        return _Picture(self.assets.preprocessor(rgb), size)

    def _encode(self, picture: _Picture | EncodedImage) -> EncodedImage:
        if isinstance(picture, EncodedImage):
            return picture
        features = self.graphs.image_features(picture.pixel_values[None])
        return EncodedImage(features[0], picture.size)

    def _answer(
        self, questions: list[_Question], scenes: list[EncodedImage], policy: GenerationPolicy
    ) -> list[Result]:
        """Encodes the prompts behind their pictures, searches, and reads the answers."""
        input_ids = [question.input_ids for question in questions]
        mask, embeds = encoder_inputs(self.graphs, scenes, input_ids, policy.pad_token_id)
        if mask.shape[1] > self.assets.max_positions:
            raise TaskError(
                f"picture and prompt are {mask.shape[1]} tokens long; the model has "
                f"{self.assets.max_positions} positions, so shorten the text"
            )
        steps = DecoderSteps(self.graphs, mask, embeds)
        image = self.assets.image_token_id
        read = [
            [*([] if image is None else [image] * len(scene.image_features)), *ids]
            for scene, ids in zip(scenes, input_ids, strict=True)
        ]
        found = search(steps, len(questions), policy, read)
        return [
            self._result(question, hypotheses)
            for question, hypotheses in zip(questions, found, strict=True)
        ]

    def _result(self, question: _Question, hypotheses: Sequence[Hypothesis]) -> Result:
        best, *others = [
            parse_answer(
                self.assets.tokenizer.decode(hypothesis.token_ids),
                question.task,
                question.picture.size,
                token_ids=hypothesis.token_ids,
                score=hypothesis.score,
            )
            for hypothesis in hypotheses
        ]
        return replace(best, alternatives=tuple(others)) if others else best


def _prompt(task: Task | str, given: str | Region | None, size: tuple[int, int]) -> str:
    if given is None or isinstance(given, str):
        return build_prompt(task, text=given)
    return build_prompt(task, region=given, image_size=size)
