"""Where models are found: folders, the demo, and a hub on 127.0.0.1."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from florence_onnx import resolver
from florence_onnx.engine import contract
from florence_onnx.errors import ModelNotFoundError, PrecisionError
from florence_onnx.resolver import resolve
from tests.helpers.hub import COMMIT, Hub, serve_hub, use_empty_cache, use_hub

NAME = "someone/Florence-2-tiny"
GRAPHS = [contract.graph_file(graph, "fp32") for graph in contract.GRAPHS]
NEEDED = {*contract.ASSETS, *GRAPHS}
OTHERS = {
    "README.md",
    "modeling_florence2.py",
    "pytorch_model.bin",
    "onnx/vision_encoder_fp16.onnx",
    "onnx/decoder_model.onnx",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {name: f"content of {name}".encode() for name in NEEDED | OTHERS}
    with serve_hub(NAME, files) as server:
        use_hub(monkeypatch, server.url)
        yield server


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", [str, Path])
def test_an_existing_folder_is_taken_as_it_is(tmp_path: Path, kind: type) -> None:
    assert resolve(kind(tmp_path)) == tmp_path


@pytest.mark.usefixtures("no_network")
def test_a_folder_goes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name") == Path("org/name")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "source",
    [
        "./models/x",
        "../x",
        "/nowhere/x",
        "org/name/",
        "a/b/c",
        "C:\\models\\x",
        "~/x",
        "florence",
        "",
        "https://127.0.0.1/org/name",
        Path("org/name"),
    ],
)
def test_what_is_no_folder_and_no_hub_id(source: str | Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match="not an existing folder; give a folder or a hub id"
    ):
        resolve(source)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelNotFoundError, match="is a file, not a model folder"):
        resolve(tmp_path / "model.onnx")


@pytest.mark.usefixtures("no_network")
def test_the_demo_is_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolver, "DEMO", tmp_path / "demo-of-the-package")
    with pytest.raises(ModelNotFoundError, match="ships no demo"):
        resolve("demo")
    (tmp_path / "demo-of-the-package").mkdir()
    assert resolve("demo") == tmp_path / "demo-of-the-package"


def test_only_the_declared_files_are_fetched(hub: Hub, cache: Path) -> None:
    folder = resolve(NAME)
    assert hub.fetched == NEEDED
    assert folder.is_relative_to(cache)
    for name in NEEDED:
        assert (folder / name).read_text() == f"content of {name}"


def test_weights_beside_a_graph_are_fetched_too(hub: Hub) -> None:
    hub.files["onnx/vision_encoder.onnx_data"] = b"weights"
    folder = resolve(NAME)
    assert (folder / "onnx/vision_encoder.onnx_data").read_bytes() == b"weights"


def test_the_cache_is_used_before_the_network(hub: Hub) -> None:
    folder = resolve(NAME)
    hub.requests.clear()
    assert resolve(NAME) == folder
    assert hub.requests == []


def test_what_the_cache_lacks_is_fetched(hub: Hub) -> None:
    folder = resolve(NAME)
    (folder / GRAPHS[0]).unlink()
    assert resolve(NAME) == folder
    assert (folder / GRAPHS[0]).is_file()


def test_a_revision(hub: Hub) -> None:
    assert resolve(NAME, revision=COMMIT) == resolve(NAME)
    with pytest.raises(ModelNotFoundError, match=f"'{NAME}' has no revision 'v9'"):
        resolve(NAME, revision="v9")


@pytest.mark.usefixtures("hub")
def test_an_unknown_repository() -> None:
    with pytest.raises(ModelNotFoundError, match="'someone/else' does not exist on the hub"):
        resolve("someone/else")


def test_a_gated_repository(hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(ModelNotFoundError, match=f"'{NAME}' is gated: accept its terms"):
        resolve(NAME)


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ModelNotFoundError, match="the hub cannot be reached") as error:
        resolve(NAME)
    assert "\n" not in str(error.value)


def test_offline_mode(hub: Hub, cache: Path) -> None:
    folder = resolve(NAME)
    hub.requests.clear()
    # A process of its own: the variable is read when the hub library is imported.
    settings = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": hub.url}
    code = "import sys; from florence_onnx.resolver import resolve; print(resolve(sys.argv[1]))"

    def run(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, name],
            cwd=Path(resolver.__file__).parents[1],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run(NAME).stdout.strip() == str(folder)
    assert "the hub cannot be reached" in run("someone/else").stderr
    assert hub.requests == []


@pytest.mark.usefixtures("no_network")
def test_an_id_that_the_hub_would_refuse(cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="'a--b/c' could not be fetched") as error:
        resolve("a--b/c")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_network")
def test_an_unknown_precision(cache: Path) -> None:
    with pytest.raises(PrecisionError, match="'fp12'; choose one of fp32"):
        resolve(NAME, precision="fp12")
