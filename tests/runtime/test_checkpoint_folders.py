"""A checkpoint where a model is wanted, the reverse, and what training leaves: told by name."""

import json
from pathlib import Path

import pytest

from florence_onnx import Florence2
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx.hub import Access
from florence_onnx.resolver import resolve
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.plain_checkpoints import original_arrays, save_arrays, save_plain
from tests.helpers.tiny import TINY, run_python

WEIGHTS = ["model.safetensors"]
SHARDS = ["model.safetensors.index.json", "model-00001-of-00002.safetensors"]
TORCH = ["pytorch_model.bin"]
ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
STEPS = [f"checkpoint-{step}/{name}" for step in (500, 1000) for name in ("config.json", *WEIGHTS)]


def holding(folder: Path, *names: str) -> Path:
    """A folder with files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        *((["config.json", *w], "{0} is a checkpoint, not") for w in (WEIGHTS, SHARDS, TORCH)),
        (["config.json", *WEIGHTS], "florence-onnx export {0} OUT and open OUT"),
        (["config.json", *WEIGHTS, *STEPS], "{0} is a checkpoint, not a model folder"),
        (ADAPTER, "{0} is an adapter, not a model folder; merge it into its base model"),
        ([*ADAPTER, "config.json"], "{0} is an adapter"),
        (STEPS, "{0} is no model folder, but holds checkpoints: checkpoint-500, checkpoint-1000; "),
        (STEPS, "florence-onnx export {0}/checkpoint-1000 OUT"),
        (["config.json", "vision_encoder.onnx"], "give the folder with config.json"),
    ],
)
def test_what_is_opened_instead_of_a_model(
    tmp_path: Path,
    names: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: True)
    folder = holding(tmp_path / "folder", *names)
    for opening in (resolve, Florence2.load):
        with pytest.raises(ModelNotFoundError) as error:
            opening(folder)
        assert message.format(folder) in str(error.value)
    photo = holding(tmp_path, "photo.jpg") / "photo.jpg"
    run = ["run", str(photo), "--task", "od", "--model", str(folder)]
    quantize = ["quantize", str(folder), "--precision", "q8"]
    others = [[command, str(folder)] for command in ("info", "bench", "tune")]
    for command in (run, quantize, *others):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message.format(folder) in err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "onnx/vision_encoder.onnx"], "{0} is a model of ONNX graphs, not a check"),
        (["config.json", "onnx/vision_encoder_q4.onnx"], "TASK --model {0}"),
        (ADAPTER, "{0} holds an adapter only; merge it with florence-onnx export {0} OUT"),
        ([*ADAPTER, *WEIGHTS], "{0} holds an adapter only"),
        (STEPS, "export one of them, as in florence-onnx export {0}/checkpoint-1000 OUT"),
        ([f"model/{name}" for name in TORCH], "florence-onnx export {0}/model OUT"),
        ([f"checkpoint-7/{name}" for name in ADAPTER], "florence-onnx export {0}/checkpoint-7 OUT"),
        (WEIGHTS, "{0} holds weights, but config.json does not exist there"),
        (["config.json"], "{0} holds no weights; looked for model.safetensors"),
        (["step_9.safetensors"], "florence-onnx export {0}/step_9.safetensors OUT"),
        ([], "{0} holds no weights"),
    ],
)
def test_what_is_exported_instead_of_a_checkpoint(
    tmp_path: Path, names: list[str], message: str
) -> None:
    folder = holding(tmp_path, *names)
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(folder)
    assert message.format(folder) in str(error.value)


@pytest.mark.parametrize("weights", [WEIGHTS, SHARDS, TORCH])
def test_a_checkpoint_is_one_with_anything_beside(tmp_path: Path, weights: list[str]) -> None:
    beside = [*STEPS, *ADAPTER, "onnx/vision_encoder.onnx"]
    folder = holding(tmp_path, "config.json", *weights, *beside)
    assert find_checkpoint(folder) == folder
    assert resolve(folder) == folder


def test_many_checkpoints_are_counted(tmp_path: Path) -> None:
    folder = holding(tmp_path, *(f"checkpoint-{step}/config.json" for step in range(9, 16)))
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(folder)
    listed = "checkpoint-11, checkpoint-12, checkpoint-13, checkpoint-14, checkpoint-15 and 2 more"
    assert f"holds checkpoints: {listed}; export" in str(error.value)


def test_a_command_to_copy_is_quoted(tmp_path: Path) -> None:
    folder = holding(tmp_path / "my models; rm", "config.json", *WEIGHTS)
    with pytest.raises(ModelNotFoundError, match=f"florence-onnx export '{folder}' OUT"):
        resolve(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "onnx/vision_encoder.onnx"], "org/tiny is a model of ONNX graphs"),
        (["config.json", "README.md"], "org/tiny holds no weights"),
        (["config.json", *ADAPTER], "org/tiny holds an adapter only"),
        (STEPS, "as in florence-onnx export org/tiny:checkpoint-1000 OUT"),
        (["config.json", "a.safetensors"], "as in florence-onnx export org/tiny:a.safetensors OUT"),
    ],
)
def test_repositories_without_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub("org/tiny", dict.fromkeys(names, b"{}")) as hub:
        use_hub(monkeypatch, hub.url)
        with pytest.raises(CheckpointError) as error:
            find_checkpoint("org/tiny")
    assert message in str(error.value)
    assert hub.fetched == set()


@pytest.mark.parametrize("gone", [*WEIGHTS, SHARDS[1]])
def test_a_part_of_a_checkpoint_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    index = json.dumps({"weight_map": {"a": SHARDS[1]}}).encode()
    weights = dict.fromkeys(WEIGHTS, b"w")
    if gone == SHARDS[1]:
        weights = {SHARDS[0]: index, SHARDS[1]: b"w"}
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub("org/tiny", {"config.json": b"{}", **weights, "evil/x.bin": b""}) as hub:
        use_hub(monkeypatch, hub.url)
        folder = find_checkpoint("org/tiny")
        assert hub.fetched == {"config.json", *weights}
        hub.requests.clear()
        assert find_checkpoint("org/tiny") == folder
        assert hub.requests == []
    (folder / gone).unlink()
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(ModelNotFoundError, match=r"in the cache, but without .*cannot be reached"):
        find_checkpoint("org/tiny")


def index_of(files: dict[str, str]) -> bytes:
    return json.dumps({"weight_map": files}).encode()


def test_an_index_tells_the_names_of_the_files_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "cache")
    shards = {"weights_a.safetensors": b"a", "weights_b.safetensors": b"b"}
    index = index_of(dict(zip("ab", shards, strict=True)))
    with serve_hub("org/tiny", {"config.json": b"{}", SHARDS[0]: index, **shards}) as hub:
        use_hub(monkeypatch, hub.url)
        folder = find_checkpoint("org/tiny")
        assert {name: (folder / name).read_bytes() for name in shards} == shards
        hub.requests.clear()
        assert find_checkpoint("org/tiny") == folder
        assert hub.requests == []
        del hub.files["weights_b.safetensors"]
        with pytest.raises(CheckpointError) as error:
            find_checkpoint("org/tiny", Access(cache_dir=tmp_path / "other"))
    assert str(error.value) == (
        "org/tiny has no file weights_b.safetensors, but the index of its weights names the file"
    )


@pytest.mark.parametrize("shard", ["model-00001-of-00001.safetensors", "weights.safetensors"])
def test_an_index_of_one_file(tmp_path: Path, shard: str) -> None:
    folder = save_plain(tmp_path)
    (folder / WEIGHTS[0]).rename(folder / shard)
    (folder / SHARDS[0]).write_bytes(index_of(dict.fromkeys(original_arrays(), shard)))
    assert (
        read_checkpoint(folder).weights.keys() == read_checkpoint(save_plain(folder)).weights.keys()
    )


@pytest.mark.parametrize("kind", ["one file for all", "one file only", "other weights"])
@pytest.mark.parametrize("decoder", [0, 1])
def test_an_index_that_does_not_fit_its_files(tmp_path: Path, decoder: int, kind: str) -> None:
    """A checkpoint whose decoder is not in the named files was once taken for an encoder."""
    folder = save_plain(tmp_path)
    (folder / WEIGHTS[0]).unlink()
    weights = original_arrays()
    of_decoder = {name for name in weights if ".decoder." in name}
    names = [weights.keys() - of_decoder, of_decoder][:: -1 if decoder == 0 else 1]
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard, part in zip(shards, names, strict=True):
        save_arrays(folder / shard, {name: weights[name] for name in part})
    read = shards[1 - decoder]
    told = {"one file only": names[1 - decoder], "one file for all": weights}.get(kind)
    if kind == "other weights":
        (folder / shards[decoder]).unlink()
    (folder / SHARDS[0]).write_bytes(index_of(dict.fromkeys(told or weights, read)))
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(folder)
    index = folder / SHARDS[0]
    if kind == "other weights":
        assert str(error.value).startswith(f"{index} puts the weight language_model.")
        assert f" into {read}, which does not hold the weight; " in str(error.value)
    else:
        assert str(error.value) == (
            f"{index} names no weight of {shards[decoder]}, which lies beside it; fetch or copy "
            "the checkpoint again"
        )


BANNED = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["onnx"] = None
import importlib.util
importlib.util.find_spec = lambda name, package=None: True
from florence_onnx.cli.program import main
for command in json.loads(sys.argv[1]):
    assert main(command) == 2
"""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.bin", b"\x80\x02cos\nsystem\x1b[2J\n.", "it asks for os.system"),
        ("pytorch_model.bin", b"\x80\x02c" + b"x" * 9999 + b"\ny\n.", "is truncated or not a file"),
        ("pytorch_model.bin", b"PK\x03\x04", "pytorch_model.bin is truncated or not a file"),
        ("pytorch_model.bin", b"", "pytorch_model.bin is truncated or not a file"),
        (
            "model.safetensors",
            b"\x09" + bytes(7) + b'{"\x1b[2J":1',
            "is truncated or not a safetens",
        ),
        ("model.safetensors", b"\xff" * 99, "model.safetensors is truncated or not a safetens"),
    ],
)
def test_weights_of_a_stranger(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    message: str,
) -> None:
    """A line of our own words, without torch's advice to load them all the same."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: True)
    (tmp_path / "config.json").write_text('{"model_type": "florence2"}')
    (tmp_path / name).write_bytes(content)
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err[:-1].isprintable()
    assert len(err) < 2200
    assert message in err
    assert "weights_only" not in err


def test_before_torch_is_imported(tmp_path: Path) -> None:
    """And before anything is fetched."""
    out = str(tmp_path / "out")
    there = holding(tmp_path / "there", "config.json", *WEIGHTS)
    commands = {
        (str(tmp_path / "nowhere"), out): "nowhere' is not an existing folder",
        (str(holding(tmp_path / "empty", ".gitignore")), out): "empty holds no weights",
        (str(holding(tmp_path / "trained", *STEPS)), out): "trained/checkpoint-1000 OUT",
        (
            str(holding(tmp_path / "adapter", *ADAPTER)),
            out,
        ): "adapters of type None cannot be merged, only LORA",
        (str(TINY), out): "tiny is a model of ONNX graphs",
        ("org/name", str(there)): "there exists; choose another folder or pass --force",
        (str(there), out, "--precision", "q9"): "unknown precision 'q9'; choose from fp32",
    }
    result = run_python("-c", BANNED, json.dumps([["export", *words] for words in commands]))
    assert (result.returncode, result.stdout) == (0, "")
    for line, message in zip(result.stderr.splitlines(), commands.values(), strict=True):
        assert line.startswith("florence-onnx: error: ")
        assert message in line
    assert not (tmp_path / "out").exists()


def test_a_training_before_torch_is_imported(tmp_path: Path) -> None:
    """Wrong files and arguments are told in the moment in which the command starts."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"optimisation": {"steps": 0}}')
    there = holding(tmp_path / "there", "config.json", *WEIGHTS)
    (there / "config.json").write_text('{"model_type": "bart"}')
    (tmp_path / "file").touch()
    out, lost, file = (str(tmp_path / name) for name in ("out", "lost.jsonl", "file"))
    data = ["--data", file]
    commands = {
        ("--data", file): "--from and --data go together",
        ("--from", "org/name", "--data", lost): f"{lost} cannot be read: No such file",
        ("--from", "org/name", *data, "--validation", str(there)): "there cannot be read: Is a dir",
        ("--from", str(there), *data): "config.json",
        ("--from", str(tmp_path / "nowhere"), *data): "nowhere' is not an existing folder",
        ("--from", "org/name", *data, "--config", str(recipe)): "optimisation.steps is 0",
        ("--config", lost): "lost.jsonl is missing",
        ("--steps", "1"): "needs a recipe with a 'scratch' section",
        ("--from", "org/name", *data, "--out", file): "file exists and is no folder",
    }
    given = [["train", "--out", out, *words] for words in commands]
    result = run_python("-c", BANNED, json.dumps(given))
    assert (result.returncode, result.stdout) == (0, "")
    for line, message in zip(result.stderr.splitlines(), commands.values(), strict=True):
        assert line.startswith("florence-onnx: error: ")
        assert message in line
    assert not (tmp_path / "out").exists()
