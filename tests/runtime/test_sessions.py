"""Opening model folders: what is read from them, and what is wrong with others."""

import gc
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import Florence2, FlorenceError
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.checks import check_widths
from florence_onnx.engine.gather import gather_graph
from florence_onnx.engine.options import default_threads
from florence_onnx.engine.present import check_precision, present_precisions
from florence_onnx.engine.sessions import open_graphs
from florence_onnx.errors import (
    GraphContractError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    PrecisionError,
    SessionOptionsError,
)
from florence_onnx.opening import open_folder
from florence_onnx.skeletons.smoke_check import smoke_check
from tests.helpers.hub import use_empty_cache, use_hub
from tests.helpers.tiny import TINY, config_entry, copy_tiny, picture

FILES = [contract.graph_file(name, "fp32") for name in contract.GRAPHS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path)


def assert_one_line(error: Exception) -> None:
    assert isinstance(error, FlorenceError)
    assert "\n" not in str(error)


# What is read


def test_geometry_is_read_from_the_graphs() -> None:
    opened = open_graphs(TINY, "fp32")
    assert opened.geometry == {
        "hidden_size": 32,
        "decoder_layers": 2,
        "decoder_heads": 2,
        "head_dim": 16,
        "vocabulary": 1424,
    }
    assert present_precisions(TINY) == ["fp32"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for(threads: int) -> None:
    opened = open_graphs(TINY, "fp32", threads=threads)
    for session in opened.sessions.values():
        assert session.get_session_options().intra_op_num_threads == threads
    default = open_graphs(TINY, "fp32").sessions[contract.DECODER].get_session_options()
    assert default.intra_op_num_threads == default_threads()


def test_only_the_decoder_packs_its_weights_and_plans_its_memory() -> None:
    opened = open_graphs(TINY, "fp32", threads=1)
    entry = "session.disable_prepacking"
    for session in [opened.sessions[name] for name in contract.GRAPHS[:3]]:
        options = session.get_session_options()
        assert options.get_session_config_entry(entry) == "1"
        assert (options.enable_mem_reuse, options.enable_mem_pattern) == (False, False)
    assert opened.sessions[contract.DECODER].get_session_options().enable_mem_reuse


def test_a_smoke_check_copies_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ort.InferenceSession] = []

    def note(*arguments: Any) -> Any:
        assets, graphs = open_folder(*arguments)
        opened.extend(graphs.sessions.values())
        return assets, graphs

    monkeypatch.setattr("florence_onnx.skeletons.smoke_check.open_folder", note)
    smoke_check(TINY)
    assert len(opened) == len(contract.GRAPHS)
    for session in opened:
        options = session.get_session_options()
        assert options.get_session_config_entry("session.disable_prepacking") == "1"
        level = options.graph_optimization_level
        assert level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def test_only_the_decoder_keeps_its_threads_spinning() -> None:
    opened = open_graphs(TINY, "fp32", threads=1)
    entry = "session.force_spinning_stop"
    for session in [opened.sessions[name] for name in contract.GRAPHS[:3]]:
        assert session.get_session_options().get_session_config_entry(entry) == "1"
    with pytest.raises(RuntimeError, match=entry):
        opened.sessions[contract.DECODER].get_session_options().get_session_config_entry(entry)


def test_sessions_share_one_arena() -> None:
    opened = open_graphs(TINY, "fp32", threads=1)
    for session in opened.sessions.values():
        entry = session.get_session_options().get_session_config_entry("session.use_env_allocators")
        assert entry == "1"
    assert opened.sessions.keys() == set(contract.GRAPHS)


def test_session_options_serve_every_session_as_they_are() -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    opened = Florence2.load(TINY, session_options=options).graphs
    assert opened.sessions.keys() == set(contract.GRAPHS)
    for session in opened.sessions.values():
        got = session.get_session_options()
        assert (got.intra_op_num_threads, got.log_severity_level) == (1, 3)
        assert got.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_session_options_and_threads() -> None:
    with pytest.raises(SessionOptionsError, match="threads or session_options, not both") as error:
        Florence2.load(TINY, threads=1, session_options=ort.SessionOptions())
    assert_one_line(error.value)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("given", [{"intra_op_num_threads": 1}, ort.SessionOptions])
def test_what_is_not_session_options(given: Any) -> None:
    with pytest.raises(SessionOptionsError, match=r"must be an onnxruntime\.SessionOptions"):
        Florence2.load(TINY, session_options=given)


FAST = "mlas.enable_gemm_fastmath_arm64_bfloat16"


def pretend(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    name = "florence_onnx.engine.options.has_bfloat16_matmuls"
    monkeypatch.setattr(name, lambda: bfloat16)


def test_fast_math(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, bfloat16=True)
    given: tuple[dict[str, Any], ...] = ({"fast_math": True}, {"fast_math": False}, {})
    for options in given:
        opened = Florence2.load(TINY, threads=1, **options).graphs
        entries = {config_entry(session, FAST) for session in opened.sessions.values()}
        assert entries == {"1" if options.get("fast_math") else None}
    with pytest.raises(SessionOptionsError, match="fast_math or session_options, not") as error:
        Florence2.load(TINY, fast_math=True, session_options=ort.SessionOptions())
    assert_one_line(error.value)


@pytest.mark.parametrize("source", [TINY, "someone/Florence-2-tiny"])
def test_fast_math_on_another_processor(
    source: str | Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is refused before a model is looked for."""
    use_empty_cache(monkeypatch, tmp_path)
    pretend(monkeypatch, bfloat16=False)
    with pytest.raises(SessionOptionsError, match=r"^fast_math is for Arm processors") as error:
        Florence2.load(source, fast_math=True)
    assert_one_line(error.value)


@pytest.mark.parametrize("fast_math", ["yes", 1, None])
def test_fast_math_is_yes_or_no(fast_math: Any) -> None:
    with pytest.raises(SessionOptionsError, match="must be True or False"):
        Florence2.load(TINY, fast_math=fast_math)


@pytest.mark.parametrize("command", [["info"], ["bench", "--tokens", "3", "--repeats", "1"]])
def test_fast_math_of_commands(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*command, str(TINY), "--threads", "1", "--fast-math"]
    pretend(monkeypatch, bfloat16=False)
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("florence-onnx: error: fast_math is for Arm")
    pretend(monkeypatch, bfloat16=True)
    assert main(command) == 0


def test_the_number_of_threads_changes_no_answer() -> None:
    request = (picture(1), "od")
    one, two = (
        Florence2.load(TINY, threads=threads)(*request, max_new_tokens=12) for threads in (1, 2)
    )
    assert one.token_ids == two.token_ids


def test_a_model_ends_with_its_last_use() -> None:
    """Its memory is free at once, not when Python next looks for cycles."""
    model = Florence2.load(TINY, threads=1)
    model(picture(1), "od", max_new_tokens=2)
    sessions = [weakref.ref(session) for session in model.graphs.sessions.values()]
    gc.disable()
    try:
        del model
        assert [session() for session in sessions] == [None] * 4
    finally:
        gc.enable()


def test_a_folder_given_as_text_and_as_path() -> None:
    assert Florence2.load(str(TINY)).policy == Florence2.load(TINY).policy


# What is wrong


@pytest.mark.parametrize("name", FILES)
def test_a_missing_graph(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=rf"{Path(name).name} is missing; export the model"):
        Florence2.load(folder)
    (folder / name).mkdir()
    with pytest.raises(ModelFileError, match=rf"{Path(name).name} is missing"):
        Florence2.load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"This is a text file, whatever its name says.\n" * 30,
    ],
    ids=["empty", "start", "half", "all but the last byte", "text"],
)
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_foreign_graph(
    folder: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ModelFileError, match=rf"{path.name} is not a graph ONNX Runtime can run: "
    ) as e:
        Florence2.load(folder)
    assert_one_line(e.value)
    assert isinstance(e.value, OSError)
    assert capfd.readouterr().out == "", "stdout is for results"


@pytest.mark.parametrize("suffix", ["", "_data"])
@pytest.mark.parametrize("name", FILES)
def test_an_lfs_pointer_is_called_that(folder: Path, name: str, suffix: str) -> None:
    (folder / (name + suffix)).write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 367000\n"
    )
    message = f"{Path(name).name}{suffix} is a Git LFS pointer, not the file itself; run `git lfs"
    with pytest.raises(ModelFileError, match=message):
        Florence2.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_graph_with_other_names(folder: Path, name: str) -> None:
    (folder / name).write_bytes(gather_graph(count=2, rank=3))
    with pytest.raises(GraphContractError) as error:
        Florence2.load(folder)
    assert f"{name} has no input " in str(error.value).replace("\\", "/")
    assert "it has indices, data_0, data_1" in str(error.value)
    assert isinstance(error.value, ValueError)


def test_graphs_that_have_changed_places(folder: Path) -> None:
    encoder, decoder = (folder / contract.graph_file(g, "fp32") for g in contract.GRAPHS[2:])
    shutil.copy(encoder, decoder)
    with pytest.raises(
        GraphContractError, match=r"has no input encoder_attention_mask, position_ids, cache_"
    ):
        Florence2.load(folder)


def renamed(path: Path, name: str, other: str) -> None:
    """Renames a tensor to a name of the same length, which leaves the file well-formed."""
    assert len(name) == len(other)
    data = path.read_bytes()
    assert name.encode() in data
    path.write_bytes(data.replace(name.encode(), other.encode()))


@pytest.mark.parametrize(
    ("graph", "kind", "name"),
    [
        (contract.VISION_ENCODER, "input", "pixel_values"),
        (contract.VISION_ENCODER, "output", "image_features"),
        (contract.EMBED_TOKENS, "input", "input_ids"),
        (contract.EMBED_TOKENS, "output", "inputs_embeds"),
        (contract.ENCODER, "input", "inputs_embeds"),
        (contract.ENCODER, "output", "last_hidden_state"),
        (contract.ENCODER, "output", "present.1.encoder.value"),
        (contract.DECODER, "input", "cache_slots"),
        (contract.DECODER, "input", "cache_mask"),
        (contract.DECODER, "input", "past_key_values.0.decoder.key"),
        (contract.DECODER, "input", "past_key_values.1.encoder.value"),
        (contract.DECODER, "output", "topk_log_probs"),
        (contract.DECODER, "output", "logits"),
    ],
)
def test_one_tensor_with_another_name(folder: Path, graph: str, kind: str, name: str) -> None:
    renamed(folder / contract.graph_file(graph, "fp32"), name, name[:-1] + "X")
    with pytest.raises(GraphContractError, match=rf"{graph}.* has no {kind} .*{name}"):
        Florence2.load(folder)


def test_the_cache_the_decoder_does_not_return(folder: Path) -> None:
    """Found while loading rather than at the first step of the first request."""
    path = folder / contract.graph_file(contract.DECODER, "fp32")
    renamed(path, "present.1.decoder.value", "present.1.decoder.valuX")
    with pytest.raises(GraphContractError, match=r"has no output .*present\.1\.decoder\.value"):
        Florence2.load(folder)


def test_graphs_of_different_models() -> None:
    def session(name: str, width: int) -> SimpleNamespace:
        tensor = SimpleNamespace(name=name, shape=["batch", "tokens", width])
        scalar = SimpleNamespace(name="other", shape=[])
        return SimpleNamespace(get_inputs=lambda: [tensor, scalar], get_outputs=lambda: [])

    same = {"encoder_model": session("inputs_embeds", 768)}
    check_widths(same | {"vision_encoder": session("image_features", 768)})
    message = (
        "different models; hidden sizes: inputs_embeds of encoder_model 768, image_features of"
    )
    with pytest.raises(GraphContractError, match=message):
        check_widths(same | {"vision_encoder": session("image_features", 1024)})


def test_an_unknown_precision_lists_those_present(folder: Path) -> None:
    for precision in ("fp61", "", "FP32"):
        with pytest.raises(
            PrecisionError, match=rf"no graphs of precision '{precision}' .*: fp32$"
        ):
            Florence2.load(folder, precision=precision)
    (folder / FILES[0]).unlink()
    with pytest.raises(PrecisionError, match=r"present: none complete"):
        Florence2.load(folder, precision="fp61")
    check_precision(TINY, "fp32")


def test_a_folder_without_graphs(tmp_path: Path) -> None:
    for name in contract.ASSETS:
        shutil.copy(TINY / name, tmp_path)
    with pytest.raises(ModelFileError, match=r"vision_encoder\.onnx is missing"):
        Florence2.load(tmp_path)


@pytest.mark.parametrize("source", ["nowhere/at/all", "./nowhere", Path("nowhere")])
def test_a_folder_that_is_not_there(source: str | Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is not an existing folder; give a folder") as e:
        Florence2.load(source)
    assert isinstance(e.value, FileNotFoundError)


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_empty_cache(monkeypatch, tmp_path)
    use_hub(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(
        ModelNotFoundError, match=r"'someone/Florence-2-tiny'.* cannot be reached"
    ) as e:
        Florence2.load("someone/Florence-2-tiny")
    assert_one_line(e.value)
    assert isinstance(e.value, ModelError)


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_no_events_are_sent(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    """Official builds write an id of the machine and events below the home before they send."""
    left_out = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    program = (
        "import os\nfrom florence_onnx import Florence2\n"
        f"Florence2.load({str(TINY)!r}, threads=1)\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "HOME": str(tmp_path), **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [expected]
    if not given:
        assert list(tmp_path.rglob("*")) == []
