"""Florence-2 for ``optimum-cli export onnx``: the graphs of the hub's layout."""
