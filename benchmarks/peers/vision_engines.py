"""Vision encoders on OpenVINO: our graph in two ways, and the traced graph in 8 bits.

Our graph runs by OpenVINO's own package and by ONNX Runtime's provider.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.common import BenchmarkError, Setup
from florence_onnx.engine.contract import VISION_ENCODER, graph_file

PROVIDER = "OpenVINOExecutionProvider"
PRECISIONS = ("f32", "bf16")

Pixels = npt.NDArray[np.float32]
Vision = Callable[[Pixels], Any]


def openvino_visions(setup: Setup) -> dict[str, Vision]:
    """Opens the fp32 graph on OpenVINO; name of the side -> pixel_values to image_features.

    Raises:
        ImportError: The package is not installed.
        BenchmarkError: OpenVINO cannot read the graph.
    """
    from benchmarks.peers.openvino import compile_graph

    path = setup.exported / graph_file(VISION_ENCODER, "fp32")
    sides: dict[str, Vision] = {}
    for precision in PRECISIONS:
        try:
            graph = compile_graph(path, precision, setup.threads)
        except RuntimeError as error:
            raise BenchmarkError(f"OpenVINO cannot read {path.name}: {error}") from error
        sides[f"openvino {precision} on our graph"] = partial(_run_openvino, graph)
    return sides


def int8_visions(setup: Setup) -> dict[str, Vision]:
    """Opens the traced graph in 8 bits on OpenVINO; name of the side -> as `openvino_visions`.

    Raises:
        ImportError: OpenVINO or NNCF is not installed.
    """
    from benchmarks.peers.openvino import compile_graph
    from benchmarks.peers.openvino_int8 import VARIANTS, quantized

    path = quantized(setup) / "vision.xml"
    return {
        f"openvino int8 {rest}": partial(_run_openvino, compile_graph(path, rest, setup.threads))
        for rest in VARIANTS
    }


def provider_visions(setup: Setup) -> dict[str, Vision]:
    """Opens the fp32 graph with ONNX Runtime's OpenVINO provider, where this build has one.

    Raises:
        ImportError: This build of ONNX Runtime has no such provider.
        BenchmarkError: ONNX Runtime used another provider.
    """
    import onnxruntime as ort

    if PROVIDER not in ort.get_available_providers():
        raise ImportError(f"this build of ONNX Runtime has no {PROVIDER}")
    path = setup.exported / graph_file(VISION_ENCODER, "fp32")
    sides: dict[str, Vision] = {}
    for precision in PRECISIONS:
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": setup.threads}
        options = {"device_type": "CPU", "load_config": json.dumps({"CPU": settings})}
        session = ort.InferenceSession(str(path), providers=[(PROVIDER, options)])
        if session.get_providers()[0] != PROVIDER:
            raise BenchmarkError(f"{PROVIDER} fell back to {session.get_providers()[0]}")
        sides[f"ours fp32 through the OpenVINO provider {precision}"] = partial(
            _run_session, session
        )
    return sides


def _run_openvino(graph: Any, pixels: Pixels) -> Any:
    return graph([pixels])[0]


def _run_session(session: Any, pixels: Pixels) -> Any:
    return session.run(None, {"pixel_values": pixels})[0]
