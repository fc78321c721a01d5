"""Florence-2 on ONNX Runtime: captions, boxes, grounding, polygons and OCR without torch."""

from florence_onnx.cascading import CascadeResult
from florence_onnx.errors import (
    CheckpointError,
    DiskSpaceError,
    ExportError,
    FlorenceError,
    FolderBusyError,
    GenerationError,
    GraphContractError,
    GraphRunError,
    ImageError,
    InputError,
    MissingDependencyError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    ModelWarning,
    OutputExistsError,
    PrecisionError,
    ProviderError,
    RegionError,
    SessionOptionsError,
    TaskError,
    TokenizerError,
    ValidationError,
)
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.task_options import TASK_OPTIONS
from florence_onnx.model import Florence2
from florence_onnx.parsing import parse_answer
from florence_onnx.requests import EncodedImage, Failure, Prepared, Request
from florence_onnx.results import Detection, DetectionScores, Result, Token
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tiling import Tiles

__version__ = "0.1.0"

__all__ = [
    "TASK_OPTIONS",
    "AnswerKind",
    "CascadeResult",
    "CheckpointError",
    "Detection",
    "DetectionScores",
    "DiskSpaceError",
    "EncodedImage",
    "ExportError",
    "Failure",
    "Florence2",
    "FlorenceError",
    "FolderBusyError",
    "GenerationError",
    "GenerationOptions",
    "GenerationPolicy",
    "GraphContractError",
    "GraphRunError",
    "ImageError",
    "InputError",
    "MissingDependencyError",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "ModelWarning",
    "OutputExistsError",
    "PrecisionError",
    "Prepared",
    "ProviderError",
    "RegionError",
    "Request",
    "Result",
    "SessionOptionsError",
    "Task",
    "TaskError",
    "Tiles",
    "Token",
    "TokenizerError",
    "ValidationError",
    "__version__",
    "parse_answer",
]
