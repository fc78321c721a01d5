"""Service over HTTP for models: ``florence-onnx serve``."""
