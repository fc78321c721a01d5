"""The committed tiny model is what its generator makes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from florence_onnx.engine import contract
from tests.fixtures.make_tiny import TINY, make_tiny


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fixture") / "tiny"
    make_tiny(out)
    return out


@pytest.mark.parametrize("name", contract.ASSETS)
def test_asset_files_are_equal(fresh: Path, name: str) -> None:
    assert (fresh / name).read_text() == (TINY / name).read_text()


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_graphs_have_the_same_nodes_and_weights(fresh: Path, graph: str) -> None:
    ours, committed = (
        onnx.load(folder / contract.graph_file(graph, "fp32")).graph for folder in (fresh, TINY)
    )
    assert [node.op_type for node in ours.node] == [node.op_type for node in committed.node]
    for a, b in zip(ours.initializer, committed.initializer, strict=True):
        x, y = numpy_helper.to_array(a), numpy_helper.to_array(b)
        # The generator's one product of matrices is rounded as the machine's BLAS does.
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * np.abs(y).max(), err_msg=a.name)
