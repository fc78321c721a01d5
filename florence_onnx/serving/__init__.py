"""An HTTP service around models: ``florence-onnx serve``."""
