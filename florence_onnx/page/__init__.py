"""Page in the browser to try a model: ``florence-onnx demo``."""
