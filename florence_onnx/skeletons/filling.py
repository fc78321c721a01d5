"""Filling of the graphs of a released geometry with a checkpoint's weights, without torch.

A skeleton has the graphs of a geometry as the exporter traces graphs, with the names of weights but
no values, and the recipe of each weight. Vocabulary and number of positions are the checkpoint's.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from florence_onnx import protobuf
from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.checkpoints.tensors import StoredTensor
from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.layouts import SLOTS, Layout
from florence_onnx.errors import MissingDependencyError
from florence_onnx.files import read_json
from florence_onnx.skeletons.recipes import Recipe, carry_out

SKELETONS = Path(__file__).parent
GEOMETRY, RECIPES = "geometry.json", "recipes.json"
"""Files of a skeleton beside the graphs: the geometry, in the form of config.json, and recipes."""
GRAPH = ".onnx.xz"
"""End of the name of a skeleton's graph. The zip of a wheel would compress half as well."""
BIAS = "_with_bias"
"""End of the names of decoders for checkpoints with a bias on the logits."""
HUB = "transformers.js"
"""Folder in a skeleton with the graphs that only this layout has."""

Array = npt.NDArray[np.float32]

_BLOCK = 1 << 22
"""Number of values written at a time, so that a transposed table is never whole in memory."""

# Fields of onnx.ModelProto, GraphProto, ValueInfoProto and TensorProto.
_GRAPH = 7
_INITIALIZER, _OUTPUT = 5, 12
_VALUE_NAME, _VALUE_SHAPE, _DIM, _DIM_VALUE = 1, (2, 1, 2), 1, 1
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_FLOAT, _EXTERNAL = 1, 1


def skeletons(layout: Layout = SLOTS) -> list[Path]:
    """Lists the folders of skeletons with the graphs of a layout."""
    folders = sorted(path.parent for path in SKELETONS.glob(f"*/{GEOMETRY}"))
    return [folder for folder in folders if layout is SLOTS or (folder / HUB).is_dir()]


def find_skeleton(config: ModelConfig, layout: Layout = SLOTS) -> Path | None:
    """Finds the folder of the skeleton for a geometry and a layout; None without a skeleton."""
    for folder in skeletons(layout):
        geometry = ModelConfig.from_dict(read_json(folder / GEOMETRY))
        text = replace(
            geometry.text,
            vocab_size=config.text.vocab_size,
            max_position_embeddings=config.text.max_position_embeddings,
        )
        tied = config.tie_word_embeddings
        if replace(geometry, text=text, tie_word_embeddings=tied) == config:
            return folder
    return None


def fill(
    skeleton: Path,
    checkpoint: Checkpoint,
    out: Path,
    advance: Callable[[int], object] = lambda count: None,
    layout: Layout = SLOTS,
) -> None:
    """Writes the float32 graphs of a checkpoint, tensor by tensor.

    Args:
        skeleton: Result of `find_skeleton` for the checkpoint's geometry.
        checkpoint: The checkpoint.
        out: An existing folder, in which a folder ``onnx`` is made.
        advance: Called with the number of bytes of every weight that is written.
        layout: Layout of the graphs.

    Raises:
        CheckpointError: A file of weights is truncated.
        MissingDependencyError: This Python was built without lzma.
    """
    recipes = read_json(skeleton / RECIPES)
    if layout is not SLOTS:
        of_decoders = read_json(skeleton / HUB / RECIPES)[hub_contract.FIRST_DECODER]
        recipes |= {graph: of_decoders for graph in layout.graphs if graph not in recipes}
    biased = key_maps.LOGITS_BIAS in checkpoint.weights
    for graph in layout.graphs:
        content = _unpacked(_stub(skeleton, graph, layout, biased))
        path = out / contract.graph_file(graph, "fp32")
        path.parent.mkdir(exist_ok=True)
        data = path.with_name(path.name + contract.DATA_SUFFIX)
        with data.open("wb") as file:
            filler = _Filler(recipes[graph], checkpoint.weights, file, data.name, advance)
            path.write_bytes(filler.fill(content))
            beside = file.tell()
        if not beside:
            data.unlink()


def _unpacked(path: Path) -> bytes:
    try:
        import lzma
    except ImportError as error:
        raise MissingDependencyError(
            "this Python was built without lzma, which unpacks the graphs that come with the "
            "package; use another build of Python, or florence-onnx export --with torch"
        ) from error
    return lzma.decompress(path.read_bytes())


def _stub(skeleton: Path, graph: str, layout: Layout, biased: bool) -> Path:
    """Finds the file of a graph without weights."""
    folders = [skeleton] if layout is SLOTS else [skeleton / HUB, skeleton]
    names = [graph + BIAS, graph] if biased else [graph]
    paths = [folder / f"{name}{GRAPH}" for folder in folders for name in names]
    return next(path for path in paths if path.exists())


class _Filler:
    """Filler of one graph."""

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        weights: Mapping[str, StoredTensor],
        data: BinaryIO,
        location: str,
        advance: Callable[[int], object],
    ) -> None:
        self._recipes = recipes
        self._weights = weights
        self._data = data
        self._location = location
        self._advance = advance

    def fill(self, model: bytes) -> bytes:
        """Makes the model with weights, and writes the weights that are beside the graph's file."""
        model = protobuf.change(model, (_GRAPH, _INITIALIZER), self._initializer)
        return protobuf.change(model, (_GRAPH, _OUTPUT), self._output)

    def _initializer(self, stub: bytes) -> bytes:
        """Makes the TensorProto of a weight from its name. Constants are not changed."""
        name, beside = "", False
        for field in protobuf.fields(stub):
            if field.number == _NAME and isinstance(field.value, bytes):
                name = field.value.decode()
            elif field.number == _DATA_LOCATION:
                beside = field.value == _EXTERNAL
        if name not in self._recipes:
            return stub
        values = carry_out(self._recipes[name], lambda source: self._weights[source].read())
        head = b"".join(protobuf.number(_DIMS, size) for size in values.shape)
        head += protobuf.number(_DATA_TYPE, _FLOAT) + protobuf.text(_NAME, name)
        self._advance(values.nbytes)
        if not beside:
            return head + protobuf.content(_RAW_DATA, np.ascontiguousarray(values).tobytes())
        offset = self._data.tell()
        _write(self._data, values)
        place = {"location": self._location, "offset": offset, "length": values.nbytes}
        for key, value in place.items():
            entry = protobuf.text(1, key) + protobuf.text(2, str(value))
            head += protobuf.content(_EXTERNAL_DATA, entry)
        return head + protobuf.number(_DATA_LOCATION, _EXTERNAL)

    def _output(self, value: bytes) -> bytes:
        """Makes a ValueInfoProto; the last axis of ``logits`` is the vocabulary."""
        name = next(field.value for field in protobuf.fields(value) if field.number == _VALUE_NAME)
        if name != b"logits":
            return value
        rows = self._weights[key_maps.HEAD].shape[0]

        def resize(shape: bytes) -> bytes:
            *others, _ = [field.raw for field in protobuf.fields(shape)]
            return b"".join(others) + protobuf.content(_DIM, protobuf.number(_DIM_VALUE, rows))

        return protobuf.change(value, _VALUE_SHAPE, resize)


def _write(file: BinaryIO, values: Array) -> None:
    rows = max(1, _BLOCK * len(values) // values.size)
    for start in range(0, len(values), rows):
        file.write(np.ascontiguousarray(values[start : start + rows]).data)
