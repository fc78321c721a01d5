"""OpenVINO in 8 bits, as its tool NNCF makes it, on graphs traced from transformers' modules.

The vision encoder has weights and activations in 8 bits (preset for transformers, calibrated on
four drawn pictures). The encoder and the decoder have weights in 8 bits. A variant is the precision
of what is not in 8 bits. See `openvino` for the rest.
"""

from pathlib import Path
from typing import Any

import nncf
import openvino as ov

from benchmarks.harness.checkpoint import kept
from benchmarks.harness.common import Setup
from benchmarks.peers.openvino import GRAPHS, OpenVino, compile_graph, traced
from florence_onnx.assets.reading import Assets
from florence_onnx_export.quantization.calibration import calibration_requests

VARIANTS = ("f32", "bf16")


def open_peer(variant: str, setup: Setup) -> OpenVino:
    """Quantises the traced graphs once, and compiles the graphs."""
    folder = quantized(setup)
    compiled = [compile_graph(folder / f"{name}.xml", variant, setup.threads) for name in GRAPHS]
    return OpenVino(f"openvino int8 {variant}", Assets.read(setup.exported), *compiled)


def quantized(setup: Setup) -> Path:
    """Folder with the traced graphs in 8 bits."""
    return kept(setup.home, "openvino-int8", [Path(__file__)], lambda folder: _make(setup, folder))


def _make(setup: Setup, folder: Path) -> None:
    source, core = traced(setup), ov.Core()
    for name in GRAPHS:
        graph = core.read_model(source / f"{name}.xml")
        made = _vision(graph, setup) if name == "vision" else nncf.compress_weights(graph)
        ov.save_model(made, folder / f"{name}.xml", compress_to_fp16=False)


def _vision(graph: Any, setup: Setup) -> Any:
    requests = calibration_requests(Assets.read(setup.exported), fast=False)
    pictures = nncf.Dataset([request.pixel_values for request in requests])
    return nncf.quantize(
        graph, pictures, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(requests)
    )
