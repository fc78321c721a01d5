"""Weight files that are sharded, old, missing, truncated, foreign or malicious."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from florence_onnx.checkpoints.weights import stored_weights
from florence_onnx.errors import CheckpointError
from florence_onnx.files import read_json
from tests.helpers.checkpoints import save_weights

WEIGHTS = {
    f"layer.{i}": torch.rand((20, 30), generator=torch.Generator().manual_seed(i)) for i in range(7)
}


def load_weights(folder: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(t.read().copy()) for name, t in stored_weights(folder).items()}


def assert_equal(loaded: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_kind_of_file(tmp_path: Path, safetensors: bool, shards: int) -> None:
    save_weights(WEIGHTS, tmp_path, safetensors, shards)
    assert_equal(load_weights(tmp_path), WEIGHTS)


def test_the_older_file_format_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    assert_equal(load_weights(tmp_path), WEIGHTS)


def test_safetensors_are_read_where_there_is_a_choice(tmp_path: Path) -> None:
    save_weights({"a": torch.ones(1)}, tmp_path, safetensors=True)
    save_weights({"b": torch.ones(1)}, tmp_path, safetensors=False)
    assert load_weights(tmp_path).keys() == {"a"}


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no weights; looked for model\.safetensors, "):
        load_weights(tmp_path)


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("kept", [0, 6, 100, 2000, -1])
def test_truncated_weights(tmp_path: Path, safetensors: bool, kept: int) -> None:
    save_weights(WEIGHTS, tmp_path, safetensors)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{path.name} is truncated or not") as error:
        load_weights(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"version https://git-lfs", b"\x80\x02e", b"\x80"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_something_else_in_place_of_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is truncated or not"):
        load_weights(tmp_path)


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_an_lfs_pointer_is_called_that(tmp_path: Path, safetensors: bool, shards: int) -> None:
    save_weights(WEIGHTS, tmp_path, safetensors, shards)
    path = max(path for path in tmp_path.iterdir() if path.suffix != ".json")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match=f"{path.name} is a Git LFS pointer, not the file"):
        load_weights(tmp_path)


@pytest.mark.parametrize("kind", ["link to nothing", "folder"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin.index.json"])
def test_what_is_no_file_of_weights(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "blob")
    with pytest.raises(CheckpointError, match=f"{name} is a link to nothing, or no regular file"):
        load_weights(tmp_path)


class Malicious:
    """What a pickle can do to whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, partial(pickle.dump, protocol=2)])
def test_no_code_in_a_file_is_run(tmp_path: Path, write: Callable[..., None]) -> None:
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        write({"x": Malicious(tmp_path / "owned")}, file)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is truncated or not"):
        load_weights(tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [[1], {"epoch": 3, "model": WEIGHTS}, {0: torch.ones(1)}])
def test_more_or_less_than_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not a state dict"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a\\..\\x", "C:x", "..", ""]
)
def test_an_index_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_weights(WEIGHTS, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "x.safetensors")
    index = {"weight_map": {"layer.0": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json names .*, which is outside the folder"):
        load_weights(folder)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "\u00e9" * 200, "a\nb", "\x1b[31m"])
def test_an_index_that_names_what_no_file_is_called(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"layer.0": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json names .*, which no file is called"):
        load_weights(tmp_path)


def test_an_index_of_a_missing_shard(tmp_path: Path) -> None:
    save_weights(WEIGHTS, tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors does not exist"):
        load_weights(tmp_path)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_without_a_map(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        load_weights(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0", b"\xff\xfe"])
def test_json_that_is_no_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read as JSON|holds list)"):
        read_json(tmp_path / "config.json", CheckpointError)
