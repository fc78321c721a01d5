"""Checkpoints that become models without torch, from folders and from the hub."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from florence_onnx import DiskSpaceError, Florence2, FlorenceError, exporting, model_cache
from florence_onnx.assets.report import REPORT
from florence_onnx.checkpoints.checkpoint import Checkpoint, read_config
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.errors import (
    CheckpointError,
    FolderBusyError,
    ModelNotFoundError,
    OutputExistsError,
    PrecisionError,
)
from florence_onnx.hub import ANYHOW, Access
from florence_onnx.resolver import DEMO
from florence_onnx.skeletons import filling
from florence_onnx.terminal import size_text
from tests.helpers import without_torch
from tests.helpers.checkpoints import native_weights, save_native, save_original, save_weights
from tests.helpers.exports import Exported
from tests.helpers.hub import COMMIT, Hub, limit_waits, serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import change_json, picture, run_python

NAME = "org/model"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_skeletons(skeletons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SKELETONS", skeletons)


@pytest.fixture
def hub(native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serves the checkpoint; caches are empty."""
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in native.checkpoint.iterdir()}
    with serve_hub(NAME, files) as server:
        use_hub(monkeypatch, server.url)
        yield server


def ask(model: Florence2) -> tuple[int, ...]:
    return model(picture(3, 64, 64), "od", max_new_tokens=20).token_ids


def test_export_answers_as_the_traced_graphs_do(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(native.checkpoint), str(out)]) == 0
    printed = capsys.readouterr()
    assert "filling the graphs of the geometry square, without torch" in printed.err
    assert "from PyTorch" not in printed.out
    assert ask(Florence2.load(out)) == ask(Florence2.load(native.folder))
    report = json.loads((out / REPORT).read_text())
    assert report["skeleton"] == "square"
    assert set(report["versions"]) == {"python", "florence-onnx", "numpy"}
    assert report["parameters"] == native.report["parameters"]


def test_a_checkpoint_that_returns_several_answers(native: Exported, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(native.checkpoint, tmp_path / "checkpoint"))
    settings = {"num_beams": 3, "num_return_sequences": 3}
    change_json(checkpoint / "generation_config.json", lambda content: content.update(settings))
    out = tmp_path / "out"
    assert main(["export", str(checkpoint), str(out)]) == 0
    assert Florence2.load(out).policy.num_return_sequences == 3


def test_everything_without_torch(native: Exported, skeletons: Path, tmp_path: Path) -> None:
    arguments = (str(skeletons), str(native.checkpoint), str(tmp_path / "out"))
    result = run_python("-m", without_torch.__name__, *arguments)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 16


def test_torch_can_be_asked_for(
    native: Exported,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("florence_onnx_export.exporter.trace_graphs", lambda *rest, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["export", str(native.checkpoint), str(tmp_path / "out"), "--with", "torch"])
    assert "tracing the graphs with torch, as --with torch asks" in capsys.readouterr().err


def test_verify_names_what_changed(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["export", str(native.checkpoint), str(out)])
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert "files are as they were written" in capsys.readouterr().out
    data = out / f"{contract.graph_file(contract.ENCODER, 'fp32')}_data"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    (out / "tokenizer.json").unlink()
    assert main(["verify", str(out)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["onnx/encoder_model.onnx_data: changed", "tokenizer.json: missing"]
    assert main(["verify", str(native.checkpoint)]) == 2
    capsys.readouterr()
    damaged: tuple[object, ...] = ({}, [], 3, {"config.json": None})
    for listed in damaged:
        (out / REPORT).write_text(json.dumps({"files": listed}))
        assert main(["verify", str(out)]) == 2
        assert "has no export_report.json that lists its files" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(native: Exported, tmp_path: Path, value: float) -> None:
    checkpoint = save_native(native.model, tmp_path / "checkpoint", image_size=(64, 64))
    weights = {name: tensor.clone() for name, tensor in native_weights(native.model).items()}
    name = "model.language_model.encoder.layers.1.fc2.bias"
    weights[name][3] = value
    save_weights(weights, checkpoint)
    with pytest.raises(FlorenceError, match=rf"model\.safetensors: weight {name} is NaN or infin"):
        exporting.export(checkpoint, tmp_path / "out", lambda *rest: pytest.fail("it was made"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("graph", "block"),
    [
        (contract.VISION_ENCODER, "vision_tower.blocks.3.0.channel_block.ffn"),
        (contract.ENCODER, "language_model.encoder.layers.1"),
        (contract.DECODER, "language_model.decoder.layers.1"),
    ],
)
def test_a_model_that_overflows_is_not_written(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], graph: str, block: str
) -> None:
    checkpoint = save_native(native.model, tmp_path / "checkpoint", image_size=(64, 64))
    weights = {name: tensor.clone() for name, tensor in native_weights(native.model).items()}
    for name in ("fc1", "fc2"):
        weights[f"model.{block}.{name}.weight"] *= 1e20
    save_weights(weights, checkpoint)
    assert main(["export", str(checkpoint), str(tmp_path / "out")]) == 2
    assert f"{graph}.onnx returned NaN" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_the_hub_is_made_once(
    hub: Hub, native: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(Florence2.load(NAME)) == ask(Florence2.load(native.folder))
    assert f"making ONNX graphs of {NAME}" in capsys.readouterr().err
    count = len(hub.requests)
    monkeypatch.setattr(model_cache, "export", lambda *rest: pytest.fail("it was made again"))
    Florence2.load(NAME)
    assert len(hub.requests) == count
    with pytest.raises(PrecisionError, match=r"florence-onnx pull org/model --precision q8"):
        Florence2.load(NAME, precision="q8")


def test_a_made_model_needs_its_checkpoint_no_more(hub: Hub, tmp_path: Path) -> None:
    Florence2.load(NAME)
    count = len(hub.requests)
    for path in (tmp_path / "hub").rglob("model.safetensors"):
        path.unlink()
    Florence2.load(NAME)
    assert len(hub.requests) == count


def test_two_that_start_at_once_make_it_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    find_checkpoint(NAME)
    made = []
    both = threading.Barrier(2)
    export = exporting.export

    def counted(source: str, out: Path, write: exporting.WriteGraphs, **more: Any) -> None:
        def write_and_count(*given: object) -> dict[str, object]:
            made.append(out)
            return write(*given)  # type: ignore[arg-type]

        export(source, out, write_and_count, **more)

    monkeypatch.setattr(model_cache, "export", counted)
    folders = []

    def start() -> None:
        both.wait()
        folders.append(model_cache.make_model(NAME, ANYHOW))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 2
    assert len(made) == 1


def test_a_file_in_a_made_models_place(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "hub-models" / "org--model" / f"{COMMIT}-{contract.VERSION}"
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=f"{COMMIT}-.* exists"):
        Florence2.load(NAME)
    assert folder.read_bytes() == b"mine"


def test_a_wait_is_told_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = iter([True, True, True, False])

    def wait(*given: Any, **more: Any) -> None:
        if next(busy):
            raise FolderBusyError("another process is writing")
        exporting.export(*given, **more)

    monkeypatch.setattr(model_cache, "export", wait)
    monkeypatch.setattr(model_cache, "_PAUSE", 0)
    model_cache.make_model(NAME, ANYHOW)
    printed = capsys.readouterr().err
    assert printed.count("making ONNX graphs") == printed.count("waiting for another") == 1


def test_a_kill_leaves_nothing_behind(
    hub: Hub, tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain one, while a command that needs the model makes it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def end(checkpoint: Checkpoint, folder: Path, steps: exporting.Steps) -> dict[str, Any]:
        (folder / "half").write_bytes(b"a graph")
        os.kill(os.getpid(), signal.SIGTERM)
        return {"versions": {}}

    monkeypatch.setattr(model_cache, "write_graphs", end)
    try:
        with pytest.raises(SystemExit) as ended:
            main(["run", photo, "--task", "od", "--model", NAME])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not [path for path in (tmp_path / "hub-models").rglob("*") if path.is_file()]


def test_pull_list_and_remove(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith("no models in ")
    assert main(["pull", NAME]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == tmp_path / "hub-models" / "org--model" / f"{COMMIT}-{contract.VERSION}"
    assert main(["list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"] == NAME
    assert row["precisions"] == ["fp32"]
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}  {COMMIT[:8]}  ")
    (folder / "notes.txt").write_text("mine")
    assert main(["remove", NAME]) == 0
    fetched = size_text(sum(len(hub.files[name]) for name in hub.fetched))
    assert f"note: {fetched} that were fetched for it stay in " in capsys.readouterr().err
    assert list((tmp_path / "hub").rglob("model.safetensors"))
    assert [path.name for path in folder.rglob("*")] == ["notes.txt"]
    (folder / "notes.txt").unlink()


def test_a_cache_in_no_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(model_cache.VARIABLE, "~nobody-of-this-name/models")
    assert main(["list"]) == 2
    assert "FLORENCE_ONNX_CACHE is '~nobody-of-this-name/models'" in capsys.readouterr().err


def test_removing_what_is_not_there(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelNotFoundError, match="no model of 'org/other' is in the cache"):
        model_cache.remove("org/other")
    assert main(["remove", "org/other"]) == 2


def test_a_geometry_of_its_own(
    original: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in original.checkpoint.iterdir()}
    with serve_hub(NAME, files) as server:
        use_hub(monkeypatch, server.url)
        with pytest.raises(FlorenceError, match="has a geometry of its own, not that of square"):
            Florence2.load(NAME)
    assert not list((tmp_path / "hub-models").rglob("config.json"))


@pytest.fixture
def laid_out_by_microsoft(native: Exported, tmp_path: Path) -> dict[str, bytes]:
    """A repository as those of Microsoft are, with more than is needed."""
    folder = save_original(native.model, tmp_path / "original", dtype=torch.float16)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("modeling_florence2.py", "processing_florence2.py", "LICENSE", "README.md"):
        files[name] = b"raise SystemExit"
    files |= {"vocab.json": b"{}", "merges.txt": b"", "images/car.jpg": b"picture"}
    files["tokenizer_config.json"] = b'{\n  "model_max_length": 1024\n}\n\n\n'
    files["generation_config.json"] = b'{\n    "num_beams": 3,\n    "early_stopping": false\n}'
    assert [len(files[f"{name}_config.json"]) for name in ("tokenizer", "generation")] == [33, 51]
    return files


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(picture(3, 64, 64)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_one_command_on_a_repository_of_microsoft(
    hub: Hub,
    laid_out_by_microsoft: dict[str, bytes],
    photo: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.files = laid_out_by_microsoft
    assert main(["run", photo, "--task", "od", "--model", NAME, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["size"] == [64, 64]
    assert hub.fetched == {
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "pytorch_model.bin",
    }
    assert err.startswith(f"fetching 6 files of {NAME}, ")


def test_one_command_without_a_model(
    hub: Hub, photo: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The released one in transformers' format, or what the environment names."""
    monkeypatch.delenv("FLORENCE_ONNX_MODEL", raising=False)
    hub.name = "florence-community/Florence-2-base-ft"
    hub.files |= {"pytorch_model.bin": b"the same once more", "README.md": b""}
    assert main(["run", photo, "--task", "od"]) == 0
    assert "pytorch_model.bin" not in hub.fetched
    capsys.readouterr()
    for command in ("info", "pull"):
        assert main([command]) == 0
        assert "florence-community--Florence-2-base-ft" in capsys.readouterr().out
    monkeypatch.setenv("FLORENCE_ONNX_MODEL", "demo")
    assert main(["info"]) == 0
    assert capsys.readouterr().out.startswith(f"{DEMO}\n")


def test_which_precision_is_used_and_what_the_other_would_gain(
    hub: Hub, photo: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def quantize(folder: Path, precisions: list[str], **options: object) -> None:
        for graph in contract.GRAPHS:
            for name in precisions:
                shutil.copy(
                    folder / contract.graph_file(graph, "fp32"),
                    folder / contract.graph_file(graph, name),
                )

    def precision(suits: bool, *options: str) -> str:
        monkeypatch.setattr("florence_onnx.engine.precision.has_int8_dot_products", lambda: suits)
        cpu = ("--provider", "CPUExecutionProvider")
        assert main(["run", photo, "--task", "od", "--model", NAME, *cpu, *options]) == 0
        lines = capsys.readouterr().err.splitlines()
        return next((line for line in lines if line.startswith("precision: ")), "")

    monkeypatch.setattr("florence_onnx_export.graphs.files.LARGE", 1 << 30)
    monkeypatch.setattr("florence_onnx_export.quantization.quantize.quantize", quantize)
    assert precision(suits=False) == "precision: fp32"
    assert precision(suits=True) == (
        "precision: fp32; q8 is faster on this machine and less exact, and is made by "
        f"florence-onnx pull {NAME} --precision q8"
    )
    main(["pull", NAME, "--precision", "q8"])
    monkeypatch.setattr("florence_onnx.engine.external_data.check_external_data", lambda *_: None)
    assert precision(suits=False) == "precision: fp32"
    assert precision(True, "--precision", "fp32") == ""
    assert precision(suits=True) == "precision: q8; --precision fp32 is slower and exact"


def test_pictures_that_the_weights_of_a_model_are_rounded_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[Path, bool]] = []

    def quantize(
        folder: Path, precisions: list[str], progress: object, pictures: Path, fast: bool
    ) -> None:
        given.append((pictures, fast))
        (name,) = precisions
        for graph in contract.GRAPHS:
            shutil.copy(
                folder / contract.graph_file(graph, "fp32"),
                folder / contract.graph_file(graph, name),
            )

    monkeypatch.setattr("florence_onnx_export.graphs.files.LARGE", 1 << 30)
    monkeypatch.setattr("florence_onnx_export.quantization.quantize.quantize", quantize)
    photos = ["--pictures", str(tmp_path)]
    assert main(["pull", NAME, *photos]) == 2
    assert "add --precision q8" in capsys.readouterr().err
    assert main(["pull", NAME, "--precision", "q8", "--pictures", str(tmp_path / "none")]) == 2
    assert "none is not a folder" in capsys.readouterr().err
    assert not hub.fetched
    assert main(["pull", NAME, "--precision", "q8", *photos]) == 0
    assert given == [(tmp_path, False)]
    assert "not used" not in capsys.readouterr().err
    for options in (photos, ["--fast"], [*photos, "--fast"]):
        assert main(["pull", NAME, "--precision", "q8", *options]) == 0
        err = capsys.readouterr().err
        assert f"{options[0]} is not used" in err
        assert f"--precision q8 --force {shlex.join(options)}" in err
    assert len(given) == 1


def test_a_download_that_breaks_in_the_middle(
    hub: Hub, native: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_waits(monkeypatch, 5)
    hub.breaks = 1000
    with pytest.raises(ModelNotFoundError, match="broke off; run it again, and what has come"):
        Florence2.load(NAME)
    hub.breaks = 1
    assert ask(Florence2.load(NAME)) == ask(Florence2.load(native.folder))


def test_a_branch_that_moves_while_a_model_is_made(hub: Hub, native: Exported) -> None:
    later = "fade" + "0" * 36

    def move(line: str) -> None:
        if line.endswith("model.safetensors") and hub.commit == COMMIT:
            hub.move(later, {**hub.files, "model.safetensors": b"of another model"})

    hub.event = move
    model = Florence2.load(NAME)
    assert ask(model) == ask(Florence2.load(native.folder))
    (made,) = model_cache.cached_models()
    assert made.commit == COMMIT


def test_what_cannot_become_a_model_is_not_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    weights = len(hub.files["model.safetensors"])
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(weights + 1_000_000))
    with pytest.raises(DiskSpaceError, match=r"^making ONNX graphs of the checkpoint needs 9.* MB"):
        Florence2.load(NAME)
    assert hub.fetched == {"config.json"}
    hub.files["config.json"] = hub.files["config.json"].replace(b"florence2", b"llava")
    with pytest.raises(CheckpointError, match="model_type"):
        Florence2.load(NAME, cache_dir=tmp_path / "own")
    assert "model.safetensors" not in hub.fetched


def test_space_that_an_export_needs(native: Exported) -> None:
    needed = exporting.needed_bytes(read_config(native.checkpoint))
    written = sum(path.stat().st_size for path in native.folder.rglob("*") if path.is_file())
    assert written <= needed <= 1.1 * written + 6_000_000
    shares = exporting.needed_bytes(read_config(native.checkpoint), ("fp32", "q8", "q4"))
    assert shares > needed


def test_export_checks_the_space_first(
    native: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(12_345))
    monkeypatch.setattr(exporting, "examine", lambda *_: pytest.fail("work began"))
    assert main(["export", str(native.checkpoint), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the export needs " in said and f" in {tmp_path / 'out'}, and " in said
    assert list(tmp_path.iterdir()) == []


def test_a_model_stays_when_the_hubs_cache_goes(
    hub: Hub, native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Florence2.load(NAME)
    shutil.rmtree(tmp_path / "hub")
    use_hub(monkeypatch, "http://127.0.0.1:1")
    for revision in (None, COMMIT):
        model = Florence2.load(NAME, revision=revision, local_files_only=True)
        assert ask(model) == ask(Florence2.load(native.folder))


def test_a_cache_of_ones_own(hub: Hub, tmp_path: Path) -> None:
    own = tmp_path / "own"
    Florence2.load(NAME, cache_dir=own)
    assert {path.name for path in tmp_path.iterdir()} == {"own"}
    assert main(["remove", NAME, "--cache-dir", str(own)]) == 0
    assert list(model_cache.cached_models(Access(cache_dir=own))) == []


def test_the_manifest_of_a_made_model(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pull", NAME])
    folder = Path(capsys.readouterr().out.strip())
    report = json.loads((folder / REPORT).read_text())
    assert (report["checkpoint"], report["commit"]) == (NAME, COMMIT)
    assert report["contract"] == contract.VERSION
    assert set(report["versions"]) == {"python", "florence-onnx", "numpy"}
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(report["files"]) == paths - {REPORT}
    assert main(["verify", str(folder)]) == 0
    (folder / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "notes.txt: extra"
    stranger = folder / contract.graph_file(contract.DECODER, "q8")
    stranger.write_bytes(b"")
    assert main(["verify", str(folder)]) == 2
    assert f"onnx/{stranger.name}: extra" in capsys.readouterr().out.splitlines()


def test_models_of_another_version_are_listed_and_removed(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(contract, "VERSION", 0)
        Florence2.load(NAME)
    capsys.readouterr()
    assert main(["list"]) == 0
    assert capsys.readouterr().out.endswith("(of another version of florence-onnx)\n")
    assert main(["remove", NAME]) == 0
    assert list(model_cache.cached_models()) == []


PULL = """
import sys
from pathlib import Path
from florence_onnx.cli.program import main
from florence_onnx.resolver import DEMO
from florence_onnx.skeletons import filling

filling.SKELETONS = Path(sys.argv[1])
sys.exit(main(["pull", *sys.argv[2:]]))
"""


def test_two_processes_that_pull_at_once(hub: Hub, skeletons: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    environment = {**os.environ, "HF_ENDPOINT": hub.url}
    arguments = [sys.executable, "-c", PULL, str(skeletons), NAME, "--cache-dir", str(own)]
    processes = [
        subprocess.Popen(
            arguments,
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [status for _, _, status in ends] == [0, 0], ends
    (made,) = model_cache.cached_models(Access(cache_dir=own))
    assert {out.strip() for out, _, _ in ends} == {str(made.folder)}
    assert main(["verify", str(made.folder)]) == 0
