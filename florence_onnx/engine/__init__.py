"""Engine: the code that runs graphs, and the only importer of onnxruntime."""
