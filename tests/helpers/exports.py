"""Checkpoints with random weights, exported."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Florence2ForConditionalGeneration

from florence_onnx.engine import contract
from florence_onnx_export.exporter import export
from florence_onnx_export.graphs.specs import GraphSpec
from tests.helpers.random_models import SMALL, Geometry, make_model
from tests.helpers.tokenizers import VOCABULARY

# The head has five times the tokens that the geometries are made for, so </s> needs a higher bias
# for answers to end at different lengths.
SQUARE = dataclasses.replace(
    next(geometry for geometry in SMALL if geometry.name == "square"),
    vocab_size=VOCABULARY + 1,
    image_token_id=VOCABULARY,
    eos_bias=6.0,
)
SEED = 3
"""Of the weights of ``SQUARE`` that the tests share."""
# Another grid, and a table of positions with no place to spare for it.
WIDE = dataclasses.replace(
    next(geometry for geometry in SMALL if geometry.name == "wide-picture"),
    vocab_size=VOCABULARY + 1,
    image_token_id=VOCABULARY,
    eos_bias=5.0,
    patch_stride=(4, 2, 2, 1),
    image_positions=8,
)


@dataclass(frozen=True)
class Exported:
    """A checkpoint with random weights and what the exporter made of it."""

    model: Florence2ForConditionalGeneration
    """The reference with the same weights."""
    geometry: Geometry
    """Its sizes."""
    checkpoint: Path
    """What was exported."""
    folder: Path
    """The model folder."""
    report: dict[str, Any]
    """What `export` returned."""
    progress: list[str]
    """What it said meanwhile."""


def copied_graphs(folder: Path) -> Callable[[GraphSpec, Path], None]:
    """Stands in for `trace`, where the model in ``folder`` was traced from the same weights."""

    def copy_graph(spec: GraphSpec, path: Path) -> None:
        shutil.copy(folder / contract.graph_file(spec.name, "fp32"), path)

    return copy_graph


def export_random(
    geometry: Geometry, seed: int, save: Callable[..., Path], folder: Path
) -> Exported:
    """Saves random weights below ``folder`` with ``save`` and exports them."""
    model = make_model(geometry, seed)
    checkpoint = save(model, folder / "checkpoint", image_size=geometry.image_size)
    progress: list[str] = []
    report = export(checkpoint, folder / "model", progress=progress.append)
    return Exported(model, geometry, checkpoint, folder / "model", report, progress)
