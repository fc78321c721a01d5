"""Bodies of requests and answers, as the checks and the documentation of the service read them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

_STRICT: dict[str, Any] = {
    "extra": "forbid",
    "strict": True,
    "allow_inf_nan": False,
    "use_attribute_docstrings": True,
}
"""Settings for pydantic: a misspelt field is an error, and so is a number in quotes."""


@dataclass(frozen=True)
class AskedTask:
    """A task and what it takes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    task: str | None = None
    """A task, such as ``od`` or ``<OD>``."""
    text: str | None = None
    """For the tasks that take text."""
    region: list[float] | str | None = None
    """For the tasks that take a region: x1, y1, x2, y2 in pixels, or four location tokens."""
    prompt: str | None = None
    """The words of a fine-tune, instead of a task."""
    answer: str | None = None
    """How the answer to a prompt is read, such as ``boxes``."""


@dataclass(frozen=True)
class Question(AskedTask):
    """A request without its picture: one task, or several in ``tasks``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str | None = None
    """A name from /v1/models; the first of them by default."""
    tasks: list[AskedTask] | None = None
    """Several tasks in one pass of the vision encoder, instead of one task."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the search, such as ``num_beams`` and ``max_new_tokens``."""
    min_score: float | None = None
    """Detections that score below are left out, 0 to 1."""


@dataclass(frozen=True)
class PictureQuestion(Question):
    """A request as JSON."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    image: str = field(kw_only=True)
    """The picture file in base64, or as a data URI. Nothing else is read: no path and no URL."""


@dataclass(frozen=True)
class Scores:
    """How sure the model was of a detection, 0 to 1."""

    location: float
    label: float | None
    score: float


@dataclass(frozen=True)
class Located:
    """What an answer locates, in pixels. Fields that a task does not give are left out."""

    label: str
    box: list[float]
    reversed: bool = False
    quad: list[float] = field(default_factory=list)
    polygons: list[list[float]] = field(default_factory=list)
    scores: Scores | None = None


@dataclass(frozen=True)
class Record:
    """An answer, as ``florence-onnx run --json`` prints it."""

    schema: int
    size: list[int]
    task: str
    answer: dict[str, Any]
    text: str
    generated: str
    score: float | None
    confidence: float | None
    truncated: bool
    detections: list[Located]
    alternatives: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """The answers to ``tasks``, in their order."""

    answers: list[Record]


@dataclass(frozen=True)
class ErrorWords:
    """What is wrong."""

    code: str
    message: str


@dataclass(frozen=True)
class ErrorBody:
    """The body of every error."""

    error: ErrorWords
