"""Files of torch.save read without torch and without the pickle module."""

import io
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from florence_onnx.checkpoints import torch_file
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.checkpoints.torch_pickle import RefusedPickleError, View, load_pickle
from florence_onnx.errors import CheckpointError
from tests.helpers.checkpoints import GEOMETRY, original_weights, save_original
from tests.helpers.random_models import make_model


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.read() for name, tensor in torch_file.stored_tensors(path).items()}


def save(content: object, path: Path, older: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    return path


def pickle_of(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)


def various() -> dict[str, Tensor]:
    """Tensors that lie in their storages in every way that a state dict's may."""
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "dense": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "columns": base[:, 2:4],
        "every other": base[::2, ::3],
        "shared": base,
        "parameter": nn.Parameter(base * 2),
        "half": base.half(),
        "bfloat16": base.bfloat16() / 7,
        "double": base.double() / 3,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "kernel": torch.rand(2, 3, 5, 5).permute(1, 0, 3, 2),
    }


@pytest.mark.parametrize("older", [False, True])
def test_what_torch_reads(tmp_path: Path, older: bool) -> None:
    weights = OrderedDict(various())
    found = read(save(weights, tmp_path / "pytorch_model.bin", older))
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], tensor.detach().float().numpy()), name


@pytest.mark.parametrize("older", [False, True])
def test_a_module_with_a_long_state_dict(tmp_path: Path, older: bool) -> None:
    """More than 256 remembered values, and the versions that modules note of themselves."""
    module = nn.Sequential(*(nn.Linear(3, 3) for _ in range(300)))
    found = read(save(module.state_dict(), tmp_path / "pytorch_model.bin", older))
    for name, tensor in module.state_dict().items():
        assert np.array_equal(found[name], tensor.numpy()), name


@pytest.mark.parametrize("older", [False, True])
def test_integers_are_no_weights(tmp_path: Path, older: bool) -> None:
    """A head may hold some, which is left out; a part of a Florence-2 may not."""
    model = make_model(GEOMETRY, seed=1)
    counts = {"head.num_batches_tracked": torch.arange(3)}
    weights = original_weights(model)
    folder = save_original(model, tmp_path / "a")
    save({**weights, **counts}, folder / "pytorch_model.bin", older)
    (note,) = read_checkpoint(folder).notes
    assert note.startswith("head (1 tensor) are no part of a Florence-2")
    name = "language_model.model.decoder.layers.0.fc1.weight"
    weights[name] = weights[name].to(torch.int64)
    save(weights, folder / "pytorch_model.bin", older)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.* I64; quantised .* such as "):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"a": torch.device("cpu")}, {"a": print}])
def test_objects_are_refused_by_name(tmp_path: Path, content: object) -> None:
    path = save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it asks for [\w.]+, which no tensor needs"):
        torch_file.stored_tensors(path)


def global_name(module: str, name: str) -> bytes:
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (pickle.dumps({}, protocol=4), "protocol"),
        (global_name("os", "system") + b"X\x02\x00\x00\x00ls\x85R.", "os.system"),
        (b"\x80\x02cos\nsystem", "damaged"),
        (b"\x80\x02" + b"c" + b"a" * 300 + b"\n\n.", "damaged"),
        (b"\x80\x02}X\x01\x00\x00\x00ai\n.", "instruction"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", None),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02\x86.", "damaged"),
        (b"\x80\x02h\x00.", "damaged"),
        (b"\x80\x02NQ.", "damaged"),
        (b"\x80\x02X\xff\xff\xff\xffab.", "truncated"),
        (b"\x80\x02NNb.", "an object other"),
        (b"\x80\x02N)R.", "calls something else"),
        (b"", "truncated"),
        (b"\x80\x02" + b"}" * 2_000_000 + b".", "too many values"),
    ],
)
def test_programs_that_make_no_tensors(program: bytes, reason: str | None) -> None:
    if reason is None:
        assert load_pickle(program) == (None, len(program))
        return
    with pytest.raises(RefusedPickleError, match=reason):
        load_pickle(program)


def test_a_pickle_that_is_too_large(tmp_path: Path) -> None:
    path = save({"a": torch.ones(1), "b" * 11_000_000: torch.ones(1)}, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="its pickle is too large"):
        torch_file.stored_tensors(path)


def test_tensors_stay_inside_their_storages() -> None:
    good = pickle_of({"a": torch.arange(6.0).reshape(2, 3)})
    content, _ = load_pickle(good)
    assert isinstance(content["a"], View)
    outside = 0
    for at in range(len(good)):
        for byte in (0, 1, 2, 7, 100, 255):
            changed = good[:at] + bytes([byte]) + good[at + 1 :]
            try:
                found, _ = load_pickle(changed)
            except RefusedPickleError:
                outside += 1
                continue
            views = found.values() if isinstance(found, dict) else ()
            for view in (view for view in views if isinstance(view, View)):
                last = view.offset + sum(
                    (size - 1) * step for size, step in zip(view.shape, view.strides, strict=True)
                )
                assert 0 in view.shape or last < view.storage.count
    assert outside > 100


def test_damaged_programs_are_read_or_refused() -> None:
    good = pickle_of(OrderedDict(various()))
    source = random.Random(0)
    refused = 0
    for _ in range(5000):
        changed = bytearray(good)
        for _ in range(source.randint(1, 4)):
            at, kind = source.randrange(len(changed)), source.random()
            if kind < 0.6:
                changed[at] = source.randrange(256)
            elif kind < 0.8:
                del changed[at : at + source.randint(1, 8)]
            else:
                changed[at:at] = bytes(source.choices(good, k=source.randint(1, 8)))
        try:
            load_pickle(bytes(changed))
        except RefusedPickleError:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("older", [False, True])
def test_damaged_files_are_read_or_refused(tmp_path: Path, older: bool) -> None:
    path = save(OrderedDict(various()), tmp_path / "pytorch_model.bin", older)
    good = path.read_bytes()
    source = random.Random(1)
    refused = 0
    for _ in range(400):
        changed = bytearray(good)
        for _ in range(source.randint(1, 3)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        path.write_bytes(changed[: source.choice([len(changed), source.randrange(len(changed))])])
        try:
            read(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100
