"""Schemas of the bodies of requests and answers, for checks and documentation."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

TYPED: dict[str, Any] = {
    "strict": True,
    "allow_inf_nan": False,
    "use_attribute_docstrings": True,
}
"""Settings for pydantic: a number in quotes is an error. Unknown fields are ignored."""
_STRICT = {**TYPED, "extra": "forbid"}
"""Settings for pydantic: a misspelt field is an error too."""


@dataclass(frozen=True)
class AskedTask:
    """Task with its input."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    task: str | None = None
    """Name of the task, such as ``od`` or ``<OD>``."""
    text: str | None = None
    """Text, for the tasks that take text."""
    region: list[float] | str | None = None
    """Region, for the tasks that take one: x1, y1, x2, y2 in pixels, or four location tokens."""
    prompt: str | None = None
    """Prompt of a fine-tune, instead of a task."""
    answer: str | None = None
    """Kind of the answer to a prompt, such as ``boxes``."""


@dataclass(frozen=True)
class Question(AskedTask):
    """Question without a picture: one task, or several in ``tasks``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str | None = None
    """Name of a model from /v1/models; the first model by default."""
    tasks: list[AskedTask] | None = None
    """Tasks in one pass of the vision encoder, instead of one task."""
    tiles: str | list[int] | None = None
    """Tiles of a large picture, for tasks that list things: ``auto``, or columns and rows."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the search, such as ``num_beams`` and ``max_new_tokens``."""
    min_score: float | None = None
    """Detections that score below are left out, 0 to 1."""


@dataclass(frozen=True)
class PictureQuestion(Question):
    """Question as JSON, with the picture."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    image: str = field(kw_only=True)
    """Picture file in base64, or as a data URI. No path and no URL is read."""


@dataclass(frozen=True)
class Scores:
    """Scores of a detection, 0 to 1."""

    location: float
    label: float | None
    score: float


@dataclass(frozen=True)
class Located:
    """Thing that an answer locates, in pixels. Fields that a task does not give are left out."""

    label: str
    box: list[float]
    reversed: bool = False
    quad: list[float] = field(default_factory=list)
    polygons: list[list[float]] = field(default_factory=list)
    scores: Scores | None = None


@dataclass(frozen=True)
class Record:
    """Answer, in the form of ``florence-onnx run --json``."""

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
    tiles: list[list[int]] = field(default_factory=list)
    alternatives: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """Answers to ``tasks``, in the same order."""

    answers: list[Record]


@dataclass(frozen=True)
class ErrorWords:
    """Error, with a code and a message."""

    code: str
    message: str


@dataclass(frozen=True)
class ErrorBody:
    """Body of every error."""

    error: ErrorWords
