"""The arena of the process keeps no memory of closed graphs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from florence_onnx import Florence2
from florence_onnx.engine.arena import shrink_arena
from tests.helpers.tiny import TINY

CLOSE = """
import ctypes, gc, json
import numpy as np
import onnxruntime as ort
from florence_onnx.engine.arena import shrink_arena, use_arena
from florence_onnx.engine.gather import gather_graph

def megabytes():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000

shrink_arena()  # Without an arena, nothing is done.
options = ort.SessionOptions()
use_arena(options)
session = ort.InferenceSession(gather_graph(1, 1), options, providers=["CPUExecutionProvider"])
for size in (100, 20_000_000):  # The arena keeps the first of its regions: the second has 80 MB.
    session.run(None, {"indices": np.zeros(size, np.int64), "data_0": np.ones(1, np.float32)})
del session
kept = megabytes()
shrink_arena()
print(json.dumps([kept, megabytes()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_the_memory_of_closed_graphs_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", CLOSE], capture_output=True, text=True, check=True)
    kept, left = json.loads(run.stdout)
    assert left < kept - 70


def test_open_models_answer_as_before() -> None:
    model = Florence2.load(TINY)
    image = np.zeros((32, 32, 3), np.uint8)
    before = model(image, "od", max_new_tokens=8).token_ids
    shrink_arena()
    assert model(image, "od", max_new_tokens=8).token_ids == before
