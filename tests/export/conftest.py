"""What the tests of the exporter share: exports, as tracing takes half a minute, and one thread."""

import json
from pathlib import Path

import pytest
import torch

from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.skeletons.filling import GEOMETRY
from florence_onnx_export.graphs import files as graph_files
from florence_onnx_export.skeletons import write_skeleton
from tests.helpers.checkpoints import save_native, save_original
from tests.helpers.exports import SEED, SQUARE, WIDE, Exported, export_random


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """PyTorch's threads cost small models many times what they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint in transformers' format; not to be changed."""
    return export_random(SQUARE, SEED, save_native, tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint in Microsoft's format, of another geometry; not to be changed."""
    return export_random(WIDE, 5, save_original, tmp_path_factory.mktemp("original"))


BESIDE = 1 << 12
"""Bytes from which a graph's weights lie beside it in the fixtures here, as in released models."""


@pytest.fixture(scope="session")
def skeletons(native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of skeletons with one, of the geometry of `native`."""
    folder = tmp_path_factory.mktemp("skeletons")
    out, scratch = folder / "square", folder / "scratch"
    out.mkdir()
    scratch.mkdir()
    content = (native.checkpoint / "config.json").read_text()
    (out / GEOMETRY).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_files, "LARGE", BESIDE)
        write_skeleton(ModelConfig.from_dict(json.loads(content)), out, scratch)
    return folder
