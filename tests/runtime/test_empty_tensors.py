"""No operator of a graph is ever given or gives a tensor without values.

Kernels are seldom tested with these: that of attention divides by zero in ONNX Runtime 1.22 to
1.28, which ends the process.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from florence_onnx import Florence2, Request
from florence_onnx.engine import contract
from florence_onnx.resolver import DEMO
from tests.helpers.kernels import empty_tensors, profiled
from tests.helpers.tiny import TINY, picture


@pytest.mark.parametrize("folder", [TINY, DEMO], ids=["tiny", "demo"])
def test_in_pictures_of_any_size(folder: Path, tmp_path: Path) -> None:
    """One window or three, sizes that windows fill or not; the demo's positions end at 128."""
    path = folder / contract.graph_file(contract.VISION_ENCODER, "fp32")
    session = profiled(path, tmp_path / "profile")
    for batch, *size in [
        (1, 1, 1),
        (3, 8, 8),
        (1, 33, 17),
        (1, 32, 64),
        (1, 97, 65),
        (2, 128, 128),
    ]:
        pixels = np.zeros((batch, 3, *size), np.float32)
        (features,) = session.run(None, {"pixel_values": pixels})
        assert np.isfinite(features).all()
    assert empty_tensors(session) == []


def test_in_a_batch_that_shrinks(tmp_path: Path) -> None:
    model = Florence2.load(DEMO, threads=1)
    sessions = {
        name: profiled(DEMO / contract.graph_file(name, "fp32"), tmp_path / name)
        for name in contract.GRAPHS
    }
    model = Florence2(model.assets, replace(model.graphs, sessions=sessions))
    requests = [Request(picture(7), task) for task in ("caption", "od", "ocr")]
    results = model.run(requests, num_beams=3, max_new_tokens=16)
    assert len({len(result.token_ids) for result in results}) > 1
    assert [empty_tensors(session) for session in sessions.values()] == [[]] * 4
