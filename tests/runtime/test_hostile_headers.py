"""Headers of safetensors files that strangers wrote: read or refused, quickly and in one line."""

import json
import struct
from pathlib import Path

import pytest

from florence_onnx.checkpoints.safetensors_file import stored_tensors
from florence_onnx.errors import CheckpointError

NAN = float("nan")
FINE: dict[str, object] = {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}


ENTRIES: list[object] = [
    *(None, 3, "F32", [], {}, FINE | {"dtype": ["F32"]}, FINE | {"dtype": "F4"}),
    *(FINE | {"shape": shape} for shape in (1, None, "1", [True], [-1], [1.0], [NAN])),
    *(FINE | {"shape": shape} for shape in ([2], [1] * 100_000, [10**39], ["1"])),
    *(FINE | {"data_offsets": at} for at in (4, [4], [4, 8, 9], [8, 4], [-4, 0])),
    *(FINE | {"data_offsets": at} for at in ([64, 68], [4, 10**39], [4.0, 8.0])),
]
"""What a header may say of a tensor, none of it right."""


def written(folder: Path, header: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    return path


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 200_000),
        b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 400),
        b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % (b"9" * 5000),
        b'{"a":1}' + b" " * 10_000_000,
        *(json.dumps({"a" * 1000: entry}).encode() for entry in ENTRIES),
    ],
    ids=lambda header: str(header[:20]),
)
def test_headers_that_are_refused(tmp_path: Path, header: bytes) -> None:
    path = written(tmp_path, header)
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as error:
        stored_tensors(path)
    assert len(str(error.value)) < 800 + len(str(tmp_path))
    assert str(error.value).isprintable()


def test_a_header_that_is_read(tmp_path: Path) -> None:
    other = {"dtype": "F32", "shape": [], "data_offsets": [8, 12]}
    header = {"__metadata__": {"format": "pt"}, "a": FINE, "b": other}
    tensors = stored_tensors(written(tmp_path, json.dumps(header).encode() + b" " * 7))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"a": (1,), "b": ()}


@pytest.mark.parametrize("place", [[0, 8], [4, 12], [8, 16]])
def test_tensors_that_share_bytes(tmp_path: Path, place: list[int]) -> None:
    first = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    other = {"dtype": "F16", "shape": [4], "data_offsets": place}
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}
    path = written(tmp_path, json.dumps({"b": other, "c": empty, "a": first}).encode())
    with pytest.raises(CheckpointError, match=r"model\.safetensors .*: [ab] and [ab] share bytes"):
        stored_tensors(path)
