"""Weights beside a graph: used where they belong, refused elsewhere without asking ONNX Runtime."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from florence_onnx import Florence2
from florence_onnx.engine import contract
from florence_onnx.engine.external_data import MESSAGES, check_external_data, external_data
from florence_onnx.engine.sessions import open_graphs
from florence_onnx.errors import ModelFileError
from florence_onnx.protobuf import ProtobufError, content, number, text
from tests.helpers.apart import move_weight, stored_apart
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.strange_files import KINDS, strange_file
from tests.helpers.tiny import TINY, copy_tiny, picture

GRAPH = contract.graph_file(contract.ENCODER, "fp32")
DATA = "encoder_model.onnx_data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path)


def refusal(folder: Path) -> str:
    """What is said of the graph: one line that begins with it."""
    with pytest.raises(ModelFileError) as error:
        check_external_data(folder / GRAPH)
    message = str(error.value)
    assert message.startswith(f"{folder / GRAPH} is not ")
    assert "\n" not in message
    return message


def assert_opens(folder: str | Path) -> None:
    """The model gives the answers of the one whose weights are in its graphs."""
    request = (picture(1), "od")
    moved, plain = (
        Florence2.load(place, threads=1)(*request, max_new_tokens=4) for place in (folder, TINY)
    )
    assert moved == plain


# Where weights may lie


def test_beside_the_graph(folder: Path) -> None:
    (folder / "onnx" / DATA).write_bytes(move_weight(folder / GRAPH, location=DATA))
    assert_opens(folder)


def test_an_lfs_pointer_in_their_place(folder: Path) -> None:
    move_weight(folder / GRAPH, location="weights.bin")
    pointer = folder / "onnx" / "weights.bin"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
    with pytest.raises(ModelFileError, match=r"weights\.bin is a Git LFS pointer, not the file"):
        check_external_data(folder / GRAPH)


def test_from_some_byte_on(folder: Path) -> None:
    values = move_weight(folder / GRAPH, location=DATA, offset=4096)
    (folder / "onnx" / DATA).write_bytes(bytes(4096) + values)
    assert_opens(folder)


def test_in_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose files are links to others, named by their hash."""
    folder = copy_tiny(tmp_path)
    (folder / "onnx" / DATA).write_bytes(move_weight(folder / GRAPH, location=DATA))
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub("someone/apart", files) as hub:
        use_hub(monkeypatch, hub.url)
        assert_opens("someone/apart")
    assert any(path.is_symlink() for path in (tmp_path / "cache").rglob(DATA))


@pytest.mark.parametrize("what", ["the folder", "every file of it", "a file in it"])
def test_behind_links_that_lead_to_one_folder(folder: Path, tmp_path: Path, what: str) -> None:
    (folder / "onnx" / DATA).write_bytes(move_weight(folder / GRAPH, location=DATA))
    other = tmp_path / "other"
    if what == "the folder":
        other.symlink_to(folder)
    elif what == "every file of it":
        shutil.copytree(folder, other, copy_function=lambda file, link: Path(link).symlink_to(file))
    else:
        shutil.copytree(folder, other)
        (other / "onnx" / DATA).rename(other / "onnx" / "other_data")
        (other / "onnx" / DATA).symlink_to("other_data")
    assert_opens(other)


# Where they may not


def test_onnx_runtime_is_not_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = ort.InferenceSession, []

    def noted(path: str, *arguments: Any, **options: Any) -> ort.InferenceSession:
        asked.append(Path(path))
        return session(path, *arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", noted)
    (folder / "secret").write_bytes(move_weight(folder / GRAPH, location="../secret"))
    with pytest.raises(ModelFileError, match=r"encoder_model\.onnx is not opened.*'\.\./secret'"):
        open_graphs(folder, "fp32", ["CPUExecutionProvider"])
    assert folder / GRAPH not in asked
    assert asked


@pytest.mark.parametrize(
    "location",
    [
        "../../secret",
        "../secret",
        "{folder}/secret",
        "{folder}/onnx/encoder_model.onnx",
        "onnx/../../secret",
        "./encoder_model.onnx",
        "sub/secret",
        "..\\..\\secret",
        "C:\\secret",
        "C:secret",
        "\\\\server\\secret",
        ".",
        "..",
        "",
        "/",
        "//",
        "encoder_model.onnx/",
        "encoder_model.onnx\0",
        "*/_ORT_MEM_ADDR_/*",
        "../" * 300 + "etc/passwd",
    ],
)
def test_another_folder(folder: Path, location: str) -> None:
    location = location.format(folder=folder)
    values = move_weight(folder / GRAPH, location=location)
    for place in (folder.parent / "secret", folder / "secret"):
        place.write_bytes(values)
    message = refusal(folder)
    assert f"not opened, because it reads weights from {location!r:.200}" in message


@pytest.mark.parametrize("target", ["../../secret", "{tmp}/secret", "../secret", "../config.json"])
def test_a_link_out_of_the_folder(folder: Path, tmp_path: Path, target: str) -> None:
    values = move_weight(folder / GRAPH, location=DATA)
    for place in (tmp_path / "secret", folder / "secret", folder / "config.json"):
        place.write_bytes(values)
    target = target.format(tmp=tmp_path)
    (folder / "onnx" / DATA).symlink_to(target)
    message = refusal(folder)
    real = (folder / "onnx" / target).resolve()
    assert f"{DATA!r}, a link to {real}, which is in another folder than the graph" in message


def test_a_link_by_way_of_another(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(move_weight(folder / GRAPH, location=DATA))
    (folder / "onnx" / "step").symlink_to("../../secret")
    (folder / "onnx" / DATA).symlink_to("step")
    assert f"a link to {(tmp_path / 'secret').resolve()}" in refusal(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file(folder: Path, tmp_path: Path, kind: str) -> None:
    move_weight(folder / GRAPH, location=DATA)
    with strange_file(kind, tmp_path) as thing:
        (folder / "onnx" / DATA).symlink_to(thing)
        assert DATA in refusal(folder)


@pytest.mark.parametrize("instead", ["nothing", "a folder", "a link to itself"])
def test_weights_that_are_not_there(folder: Path, instead: str) -> None:
    move_weight(folder / GRAPH, location=DATA)
    data = folder / "onnx" / DATA
    if instead == "a folder":
        data.mkdir()
    elif instead == "a link to itself":
        data.symlink_to(DATA)
    message = refusal(folder)
    assert "its weights cannot be read: [Errno" in message
    assert str(data) in message


@pytest.mark.parametrize("lacking", [1, 4096])
def test_weights_that_are_cut_off(folder: Path, lacking: int) -> None:
    values = move_weight(folder / GRAPH, location=DATA)
    (folder / "onnx" / DATA).write_bytes(values[:-lacking])
    size = len(values)
    place = folder / "onnx" / DATA
    wanted = f"go up to byte {size} of {place}, which is {size - lacking} bytes long; fetch that"
    assert wanted in refusal(folder)


@pytest.mark.parametrize("entries", [{"offset": 1}, {"length": 1 << 62}, {"offset": 10**19 - 1}])
def test_weights_beyond_the_end(folder: Path, entries: dict[str, int]) -> None:
    values = move_weight(folder / GRAPH, location=DATA, **entries)
    (folder / "onnx" / DATA).write_bytes(values)
    assert f"which is {len(values)} bytes long" in refusal(folder)


@pytest.mark.parametrize("key", ["offset", "length"])
@pytest.mark.parametrize("value", ["-1", "1e3", "", " 1", "+1", "1_0", "\u0661", "9" * 5000])
def test_no_number_of_bytes(folder: Path, key: str, value: str) -> None:
    values = move_weight(folder / GRAPH, location=DATA, **{key: value})
    (folder / "onnx" / DATA).write_bytes(values)
    assert f"the {key} of weights is {value!r:.80}" in refusal(folder)


# Where a graph can say so


def paths(kind: str, target: str, again: int) -> Iterator[tuple[int, ...]]:
    """The fields that lead from one kind of message to another, some of them ``again`` times."""
    if kind == target:
        yield ()
    for field, inner in MESSAGES.get(kind, {}).items():
        if inner not in ("NodeProto", "GraphProto") or again:
            for rest in paths(inner, target, again - (inner in ("NodeProto", "GraphProto"))):
                yield (field, *rest)


@pytest.mark.parametrize("large", [False, True])
def test_every_place_of_a_tensor_is_looked_at(large: bool) -> None:
    initializer, constant, branch = (7, 5), (7, 1, 5, 5), (7, 1, 5, 6, 5)
    everywhere = set(paths("ModelProto", "TensorProto", 4))
    assert {initializer, constant, branch} <= everywhere
    values = content(9, bytes(1 << 17)) if large else b""
    for path in everywhere:
        message = text(8, "name") + values + stored_apart(location="../secret", offset=8)
        for field in reversed(path):
            message = number(field + 90, 1) + content(field, message) + content(field, b"")
        assert list(external_data(message)) == [{"location": "../secret", "offset": "8"}], path


def test_a_tensor_in_two_parts() -> None:
    """Protocol buffers put together what a message says in several places."""
    first, second = stored_apart(offset=4), stored_apart(location="../secret")
    message = content(7, content(1, content(5, content(5, first) + content(5, second))))
    assert {"location": "../secret"} in list(external_data(message))


def test_a_place_that_is_given_twice(folder: Path) -> None:
    tensor = stored_apart(location="encoder_model.onnx") + stored_apart(location="../secret")
    (folder / GRAPH).write_bytes(content(7, content(5, tensor)))
    assert "says twice where a tensor lies" in refusal(folder)


def test_the_last_of_two_values_counts() -> None:
    entry = text(1, "offset") + text(2, "w") + text(1, "location") + text(2, "../secret")
    message = content(7, content(5, content(13, entry)))
    assert list(external_data(message)) == [{"location": "../secret"}]


# What is no graph


def test_numbers_of_fields_that_other_readers_cut_to_32_bits() -> None:
    inner = content(5, stored_apart(location="../secret"))
    tag = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x80, 0x10])  # 7, and a bit beyond
    with pytest.raises(ProtobufError, match="more than 29 bits"):
        list(external_data(tag + content(7, inner)[1:]))


def test_numbers_that_take_more_bytes_than_they_need() -> None:
    inner = content(5, stored_apart(location="../secret"))
    tag = bytes([7 << 3 | 2 | 0x80, 0x80, 0x80, 0x00])
    assert list(external_data(tag + content(7, inner)[1:])) == [{"location": "../secret"}]


@pytest.mark.parametrize("levels", [40, 5000])
def test_nesting_without_end(folder: Path, levels: int) -> None:
    message = content(5, stored_apart(location=DATA))
    for _ in range(levels):  # a node with a branch
        message = content(1, content(5, content(6, message)))
    (folder / GRAPH).write_bytes(content(7, message))
    assert "nested deeper than 100 levels" in refusal(folder)


def test_fields_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florence_onnx.engine.external_data._MOST_FIELDS", 1000)
    tensors = content(5, stored_apart(location=DATA)) * 400
    (folder / GRAPH).write_bytes(content(7, tensors))
    (folder / "onnx" / DATA).write_bytes(b"")
    assert "more than 1000 fields" in refusal(folder)


def test_a_place_that_is_no_text(folder: Path) -> None:
    entry = content(13, text(1, "location") + content(2, b"\xff"))
    (folder / GRAPH).write_bytes(content(7, content(5, entry)))
    assert "in what is no text" in refusal(folder)


def test_damaged_graphs_are_read_or_refused(folder: Path) -> None:
    """Whatever bytes are changed or missing, there is an end and no other error."""
    move_weight(folder / GRAPH, location=DATA)
    whole = (folder / GRAPH).read_bytes()
    start = whole.index(b"location") - 200
    source = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 8)):
            damaged[start + source.randrange(300)] = source.randrange(256)
        if source.random() < 0.2:
            del damaged[source.randrange(len(damaged)) :]
        try:
            for entries in external_data(bytes(damaged)):
                assert all(isinstance(value, str) for value in entries.values())
            outcomes["read"] += 1
        except ProtobufError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_graphs_without_external_data_open_as_before() -> None:
    for graph in contract.GRAPHS:
        data = np.memmap(TINY / contract.graph_file(graph, "fp32"), mode="r")
        assert list(external_data(memoryview(data.data))) == []
