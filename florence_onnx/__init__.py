"""Florence-2 on ONNX Runtime: captions, boxes, grounding, polygons and OCR without torch."""

from florence_onnx.errors import FlorenceError
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.model import Florence2
from florence_onnx.parsing import parse_answer
from florence_onnx.requests import EncodedImage
from florence_onnx.results import (
    BoxesOrPolygonsResult,
    BoxesResult,
    PolygonsResult,
    QuadBoxesResult,
    Result,
    TextResult,
)
from florence_onnx.tasks import Task

__all__ = [
    "BoxesOrPolygonsResult",
    "BoxesResult",
    "EncodedImage",
    "Florence2",
    "FlorenceError",
    "GenerationPolicy",
    "PolygonsResult",
    "QuadBoxesResult",
    "Result",
    "Task",
    "TextResult",
    "parse_answer",
]
