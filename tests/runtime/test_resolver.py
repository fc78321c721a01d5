"""Where models are found: folders, the demo, and a hub on 127.0.0.1."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from florence_onnx import model_cache, resolver
from florence_onnx.assets.report import REPORT
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.engine import contract
from florence_onnx.errors import (
    CheckpointError,
    ExportError,
    ModelFileError,
    ModelNotFoundError,
    PrecisionError,
)
from florence_onnx.hub import Access
from florence_onnx.model_cache import make_model
from florence_onnx.resolver import hub_model, resolve
from florence_onnx.skeletons.filling import GEOMETRY, SKELETONS
from tests.helpers.hub import COMMIT, Hub, limit_waits, serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import TINY

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


@pytest.mark.usefixtures("no_network")
def test_a_file_is_not_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").touch()
    monkeypatch.chdir(tmp_path.parent)
    for source in (tmp_path / "model.onnx", f"{tmp_path.name}/model.onnx"):
        with pytest.raises(ModelNotFoundError, match="is a file, not a model folder"):
            resolve(source)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("source", [None, 3, b"demo", ["demo"]])
def test_what_is_no_name_of_a_model(source: object) -> None:
    with pytest.raises(ModelNotFoundError, match=r"a folder or a hub id .*, not by "):
        resolve(source)  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_network")
def test_a_name_that_the_system_refuses() -> None:
    with pytest.raises(ModelNotFoundError, match="no folder that can be opened"):
        resolve("/" + "x" * 5000)


@pytest.mark.skipif(os.name != "posix", reason="needs names of any bytes")
def test_a_name_that_onnx_runtime_does_not_take(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    folder.mkdir()
    with pytest.raises(ModelNotFoundError, match="is not UTF-8, as ONNX Runtime needs it; rename"):
        resolve(folder)


@pytest.mark.usefixtures("no_network")
def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves it to programs in --model=~/models/base."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve("~/models") == tmp_path / "models"


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
    assert resolve(NAME, access=Access(COMMIT)) == resolve(NAME)
    with pytest.raises(ModelNotFoundError, match=f"'{NAME}' has no revision 'v9'"):
        resolve(NAME, access=Access("v9"))


@pytest.mark.usefixtures("hub")
def test_an_unknown_repository() -> None:
    with pytest.raises(
        ModelNotFoundError, match="'someone/else' does not exist on the hub"
    ) as error:
        resolve("someone/else")
    # The name may be meant as a path.
    assert str(error.value).startswith("there is no folder 'someone/else', and hub model ")


GATED = {"X-Error-Code": "GatedRepo"}
NO_SUCH_LOGIN = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize("refused", ["/api/models/", "/resolve/", GRAPHS[1]])
@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, GATED, "hub model '{0}' is gated: accept its terms on the hub or ask for access"),
        (403, GATED, "hub model '{0}' is gated: accept its terms on the hub or ask for access"),
        (401, {"X-Error-Code": "RepoNotFound"}, "does not exist on the hub, or is private: log in"),
        (401, NO_SUCH_LOGIN, "the hub refuses '{0}' (401): the login is missing, wrong or expired"),
        (401, {}, "the hub refuses '{0}' (401): the login is missing, wrong or expired"),
        (403, {}, "the hub refuses '{0}' (403): the login may not read it; ask its owner for"),
    ],
)
def test_a_hub_that_wants_a_login(
    hub: Hub, refused: str, status: int, headers: dict[str, str], message: str
) -> None:
    hub.refusal, hub.refused = (status, headers), refused
    with pytest.raises(ModelNotFoundError) as error:
        resolve(NAME)
    said = str(error.value)
    assert message.format(NAME) in said
    assert "log in with `hf auth login`, or set HF_TOKEN" in said
    assert "\n" not in said and "http" not in said


def test_a_repository_that_the_hub_has_disabled(hub: Hub) -> None:
    hub.refusal = (403, {"X-Error-Message": "Access to this resource is disabled."})
    with pytest.raises(ModelNotFoundError, match=f"'{NAME}' is disabled on the hub"):
        resolve(NAME)


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ModelNotFoundError, match="the hub cannot be reached") as error:
        resolve(NAME)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("silent", ["/api/models/", "HEAD /", "GET /someone/", "body"])
def test_a_hub_that_falls_silent(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, silent: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every wait for it ends, whichever request it leaves without an answer."""
    limit_waits(monkeypatch, 0.05)
    hub.silent = silent
    with pytest.raises(ModelNotFoundError) as error:
        resolve(NAME)
    assert str(error.value) == (
        f"there is no folder '{NAME}', and hub model '{NAME}' is not in the cache; the hub did not "
        "answer in time (HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set how many seconds to "
        "wait)"
    )
    assert capfd.readouterr().out == ""


def test_hf_xet_is_not_waited_for(hub: Hub) -> None:
    """Its requests have no limit."""
    pytest.importorskip("hf_xet")
    hub.silent = "xet"
    resolve(NAME)
    assert hub.fetched == NEEDED
    assert not constants.HF_HUB_DISABLE_XET


def test_a_part_of_a_model_in_the_cache(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve(NAME)
    for name in ("tokenizer.json", GRAPHS[1]):
        (folder / name).unlink()
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ModelNotFoundError) as error:
        resolve(NAME)
    assert str(error.value).startswith(
        f"hub model '{NAME}' is in the cache, but without tokenizer.json, {GRAPHS[1]}; the hub "
        "cannot be reached: "
    )
    assert "\n" not in str(error.value)


def test_a_download_that_broke_off(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come already is known without the network."""
    limit_waits(monkeypatch, 0.05)
    hub.silent = "GET /someone/Florence-2-tiny/resolve/" + COMMIT + "/onnx"
    with pytest.raises(ModelNotFoundError, match="did not answer in time"):
        resolve(NAME)
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ModelNotFoundError, match=r"in the cache, but without .*cannot be reached"):
        resolve(NAME)


def test_a_checkpoint_of_the_hub_is_read_as_one(hub: Hub) -> None:
    hub.files = dict.fromkeys(("config.json", "tokenizer.json", "pytorch_model.bin"), b"{}")
    with pytest.raises(CheckpointError, match=r"config\.json: model_type is null, but must be"):
        resolve(NAME)
    assert hub.fetched == {"config.json"}


GEOMETRY_FILES = {
    "config.json": (SKELETONS / "base" / GEOMETRY).read_bytes(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"x",
}


def test_a_cache_for_models_that_is_a_file(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = GEOMETRY_FILES
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "inside"):
        monkeypatch.setenv("FLORENCE_ONNX_CACHE", str(place))
        with pytest.raises(ExportError, match="which cannot be written; FLORENCE_ONNX_CACHE"):
            resolve(NAME)
    assert hub.fetched == {"config.json"}


def test_a_model_that_is_there_needs_no_writing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = GEOMETRY_FILES
    made = made_of_tiny(tmp_path)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    monkeypatch.setattr(model_cache, "require_space", lambda *_: pytest.fail("nothing is made"))
    assert make_model(NAME, Access(refresh=True)) == made


def made_of_tiny(tmp_path: Path) -> Path:
    """A folder in the cache of models, as if made of the repository."""
    made = tmp_path / "hub-models" / NAME.replace("/", "--") / f"{COMMIT}-{contract.VERSION}"
    return Path(shutil.copytree(TINY, made))


def test_a_made_model_that_has_lost_a_graph(hub: Hub, tmp_path: Path) -> None:
    hub.files = GEOMETRY_FILES
    made = made_of_tiny(tmp_path)
    assert resolve(NAME, access=Access(revision=COMMIT)) == made
    (made / GRAPHS[2]).unlink()
    for access in (Access(revision=COMMIT), Access(refresh=True)):
        with pytest.raises(ModelFileError) as error:
            hub_model(NAME, "fp32", access)
        assert str(error.value) == (
            f"{made} does not hold the whole model any more; remove the folder, and make it again "
            f"with florence-onnx pull {NAME}"
        )


@pytest.mark.parametrize("report", [None, "{}", "[", '{"files": {"config.json": "0"}}'])
def test_a_damaged_model_is_removed_whole(cache: Path, tmp_path: Path, report: str | None) -> None:
    """No matter which file is damaged, the report included."""
    made = made_of_tiny(tmp_path)
    if report is not None:
        (made / REPORT).write_text(report)
    (made / GRAPHS[0]).write_bytes(b"damaged")
    model_cache.remove(NAME)
    assert not made.parent.exists()


def test_a_login_with_characters_that_no_header_takes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_\u2603")
    with pytest.raises(ModelNotFoundError) as error:
        resolve(NAME)
    said = (
        "the login holds '\u2603', as no token does; log in with `hf auth login`, or set HF_TOKEN"
    )
    assert str(error.value) == said


def test_a_cache_for_models_that_cannot_be_written(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told before weights are fetched, and where they are there already."""
    geometry = (SKELETONS / "base" / GEOMETRY).read_bytes()
    hub.files = {"config.json": geometry, "tokenizer.json": b"{}", "model.safetensors": b"x"}
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and allowed(path, mode))
    message = "which cannot be written; FLORENCE_ONNX_CACHE, cache_dir or --cache-dir choose"
    for fetched in ({"config.json"}, set(hub.files)):
        with pytest.raises(ExportError, match=message):
            resolve(NAME)
        assert hub.fetched == fetched
        find_checkpoint(NAME)


def test_a_precision_that_the_hub_does_not_have(hub: Hub) -> None:
    message = "has no graphs of precision 'q8'; it has fp32$"
    with pytest.raises(PrecisionError, match=message):
        resolve(NAME, precision="q8")
    del hub.files["tokenizer.json"]
    with pytest.raises(ModelNotFoundError, match=r"has no tokenizer\.json$"):
        resolve(NAME)
    assert hub.fetched == set()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_download_in_a_service(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stream: str | None
) -> None:
    """The hub library's progress bars need a stderr."""
    closed = (tmp_path / "log").open("w")
    closed.close()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr("sys.stdout", stream and closed)
    monkeypatch.setattr("sys.stderr", stream and closed)
    assert (resolve(NAME) / GRAPHS[0]).is_file()


def test_a_cache_that_cannot_be_written(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    use_empty_cache(monkeypatch, tmp_path / "file" / "hub")
    with pytest.raises(ModelNotFoundError, match=f"'{NAME}' could not be fetched to {tmp_path}"):
        resolve(NAME)


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
