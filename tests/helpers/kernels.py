"""What ONNX Runtime's operators are given and give, those in branches of a graph included."""

import json
from pathlib import Path

import onnxruntime as ort


def profiled(graph: Path, prefix: Path) -> ort.InferenceSession:
    """A session on the CPU that notes the shapes of its tensors in a file of its own."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def empty_tensors(session: ort.InferenceSession) -> list[str]:
    """The operators that a `profiled` session gave or got a tensor without values; ends it."""
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    assert kernels, "nothing was run"
    return sorted({event["name"] for event in kernels if _has_empty(event["args"])})


def _has_empty(arguments: dict[str, list[dict[str, list[int]]]]) -> bool:
    tensors = [*arguments["input_type_shape"], *arguments["output_type_shape"]]
    return any(0 in shape for tensor in tensors for shape in tensor.values())
