"""Engine: the code that runs graphs, and the only importer of onnxruntime."""

import os

# Official builds of ONNX Runtime keep an id of the machine and send events to Microsoft, unless
# this is set before they are imported. A value that the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
