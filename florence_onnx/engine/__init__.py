"""Code that runs graphs: the only importer of onnxruntime."""
