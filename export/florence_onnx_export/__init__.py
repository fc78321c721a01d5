"""Exporter of Florence-2 checkpoints to the ONNX graphs that `florence_onnx` runs."""

import florence_onnx.engine  # noqa: F401  # Before onnxruntime, to turn its telemetry off.
