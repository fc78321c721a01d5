"""Answers in the fields of a FiftyOne dataset. The types are from fiftyone."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from florence_onnx.constraining import check_min_score, check_rules
from florence_onnx.model import Florence2
from florence_onnx.preparing import check_question
from florence_onnx.requests import Failure, Request
from florence_onnx.results import Detection, Result
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import TilesOption, kind_in_tiles

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from florence_onnx.generation.options import GenerationOptions


def apply(
    dataset: Any,
    model: Florence2,
    task: Task | str,
    field: str,
    *,
    text: str | None = None,
    tiles: TilesOption | None = None,
    batch_size: int = 8,
    **options: "Unpack[GenerationOptions]",
) -> dict[str, str]:
    """Answers a task on the picture of every sample, and saves the answers in a field.

    Samples are saved as their answers come; after an end of any kind,
    ``apply(dataset.exists(field, False), ...)`` goes on.

    Args:
        dataset: A dataset or view of pictures.
        model: An opened model.
        task: A task that takes no region, or the prompt of a fine-tune.
        field: Name of the field for the answers: ``Detections`` for boxes, ``Polylines`` for
            polygons and quadrilaterals, ``Classification`` with the text as label for text.
        text: Text, for a task that takes text.
        tiles: Tiles, as in `Request`.
        batch_size: Pictures that are answered together.
        **options: Options, as in `Florence2.stream`.

    Returns:
        The reason for each sample that has no answer, by the sample's id.

    Raises:
        InputError: The task, the input of the task or an option is wrong.
    """
    asked, kind = check_question(Request(b"", task, text, tiles=tiles))
    policy = model.policy.replace(**options)
    check_rules(asked, kind, policy)
    check_min_score([(asked, kind if tiles is None else kind_in_tiles(asked, kind))], policy)
    waiting: deque[Any] = deque()

    def requests() -> Iterator[Request]:
        for sample in dataset.iter_samples(progress=True):
            waiting.append(sample)
            yield Request(sample.filepath, task, text, tiles=tiles)

    failures: dict[str, str] = {}
    answers = model.stream(requests(), batch_size=batch_size, on_error="return", **options)
    with dataset.save_context() as saving:
        for answer in answers:
            sample = waiting.popleft()
            if isinstance(answer, Failure):
                failures[sample.id] = str(answer.error)
            else:
                sample[field] = to_label(answer)
                saving.save(sample)
    return failures


def to_label(result: Result) -> Any:
    """Makes a label of FiftyOne from an answer, with coordinates as parts of the sides."""
    import fiftyone

    kind = result.answer_kind
    if kind is AnswerKind.TEXT:
        return fiftyone.Classification(label=result.text, confidence=result.confidence)
    width, height = result.image_size
    if kind in (AnswerKind.POLYGONS, AnswerKind.QUADRILATERALS):
        lines = []
        for found in result.detections:
            points = [[*zip(one[::2], one[1::2], strict=False)] for one in found.outlines]
            parts = [[(x / width, y / height) for x, y in outline] for outline in points]
            lines.append(fiftyone.Polyline(points=parts, closed=True, filled=True, **_named(found)))
        return fiftyone.Polylines(polylines=lines)
    boxes = []
    for found in result.detections:
        x1, y1, x2, y2 = found.box
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        boxes.append(fiftyone.Detection(bounding_box=box, **_named(found)))
    return fiftyone.Detections(detections=boxes)


def _named(found: Detection) -> dict[str, Any]:
    score = None if found.scores is None else found.scores.score
    return {"label": found.label or "object", "confidence": score}
