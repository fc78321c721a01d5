"""Exporter of Florence-2 checkpoints to the ONNX graphs that `florence_onnx` runs."""
