"""Which precision is opened where the caller leaves the choice."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import Florence2
from florence_onnx.choosing import locate
from florence_onnx.cli.program import main
from florence_onnx.engine import contract, processor
from florence_onnx.engine.precision import NEEDS, check_runtime, suitable_precisions
from florence_onnx.engine.providers import CPU, CUDA
from florence_onnx.errors import (
    ModelError,
    ModelFileError,
    ModelWarning,
    PrecisionError,
    ProviderError,
)
from tests.helpers.apart import move_weight
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import TINY, config_entry, copy_tiny

VNNI = pytest.mark.parametrize("dot_products", [True], indirect=True)


@pytest.fixture
def dot_products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Pretends that the processor has 8-bit dot products, or not."""
    has: bool = request.param
    monkeypatch.setattr("florence_onnx.engine.precision.has_int8_dot_products", lambda: has)
    return has


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that CUDA starts."""
    monkeypatch.setattr(
        "florence_onnx.engine.providers.choose_providers", lambda requested: [CUDA, CPU]
    )


def holding(folder: Path, *precisions: str) -> Path:
    """A model folder with graphs of these precisions, which are the fp32 ones by other names."""
    folder = copy_tiny(folder)
    for graph in contract.GRAPHS:
        file = folder / contract.graph_file(graph, "fp32")
        for precision in set(precisions) - {"fp32"}:
            shutil.copy(file, folder / contract.graph_file(graph, precision))
        if "fp32" not in precisions:
            file.unlink()
    return folder


def place(folder: Path, precision: str) -> tuple[Path, str]:
    """What `locate` is to open, without opening it."""
    return folder, precision


def providers(**given: Any) -> dict[str, Any]:
    return {**{name: [CPU] for name in contract.GRAPHS}, **given}


@pytest.mark.parametrize(
    ("asked", "dot_products", "suitable"),
    [
        (providers(), True, ("q8", "fp32")),
        (providers(vision_encoder=[(CPU, {})]), True, ("q8", "fp32")),
        (providers(), False, ("fp32",)),
        ({name: [CUDA, CPU] for name in contract.GRAPHS}, True, ("fp16", "fp32")),
        ({name: [CUDA, CPU] for name in contract.GRAPHS}, False, ("fp16", "fp32")),
        (providers(vision_encoder=[CUDA]), True, ("fp32",)),
        (providers(vision_encoder=["OpenVINOExecutionProvider", CPU]), True, ("fp32",)),
    ],
    indirect=["dot_products"],
)
def test_what_suits(asked: Any, dot_products: bool, suitable: tuple[str, ...]) -> None:
    assert suitable_precisions(asked) == suitable


@pytest.mark.parametrize(
    ("present", "dot_products", "chosen"),
    [
        (["fp32", "fp16", "q8", "q4"], True, "q8"),
        (["q8"], True, "q8"),
        (["fp32", "fp16", "q4"], True, "fp32"),
        (["fp32", "fp16", "q8", "q4"], False, "fp32"),
    ],
    indirect=["dot_products"],
)
def test_the_first_that_is_there(
    tmp_path: Path, present: list[str], dot_products: bool, chosen: str
) -> None:
    folder = holding(tmp_path, *present)
    assert locate(folder, "auto", [CPU], place) == (folder, chosen)


HASWELL = "fpu sse4_2 fma movbe avx f16c bmi1 avx2 bmi2"
SKYLAKE = f"{HASWELL} avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.skipif(sys.platform == "darwin", reason="does not read files")
@pytest.mark.parametrize(
    ("flags", "chosen", "exact"),
    [
        (HASWELL, "fp32", True),
        (SKYLAKE, "fp32", True),
        (f"{HASWELL} avx_vnni", "q8", False),
        (f"{SKYLAKE} avx512_vnni", "q8", False),
    ],
)
def test_auto_by_the_features_that_linux_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, chosen: str, exact: bool
) -> None:
    """Without VNNI sums of q8 saturate; where q8 is asked for, they must not."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    folder = holding(tmp_path, "fp32", "q8")
    assert Florence2.load(folder, precision="auto", providers=[CPU], threads=1).precision == chosen
    asked = Florence2.load(folder, precision="q8", providers=[CPU], threads=1)
    sessions = asked.graphs.sessions.values()
    entries = {config_entry(session, "session.x64quantprecision") for session in sessions}
    assert entries == {"1" if exact else None}


@VNNI
def test_the_model_tells_its_precision(tmp_path: Path, dot_products: bool) -> None:
    folder = holding(tmp_path, "fp32", "q8")
    assert Florence2.load(folder, precision="auto", providers=[CPU], threads=1).precision == "q8"
    assert Florence2.load(folder, threads=1).precision == "fp32"


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize(
    ("present", "chosen"), [(["fp32", "fp16", "q8"], "fp16"), (["fp32", "q8"], "fp32")]
)
def test_on_a_gpu(tmp_path: Path, present: list[str], chosen: str) -> None:
    assert locate(holding(tmp_path, *present), "auto", None, place)[1] == chosen


@pytest.mark.parametrize(
    ("present", "dot_products", "message"),
    [
        (["fp16", "q8"], False, r"processor \(fp32\); present: fp16, q8$"),
        (["fp16", "q4"], True, r"processor \(q8, fp32\); present: fp16, q4$"),
        ([], True, "present: none complete"),
    ],
    indirect=["dot_products"],
)
def test_nothing_suitable_lists_what_is_there(
    tmp_path: Path, present: list[str], dot_products: bool, message: str
) -> None:
    folder = holding(tmp_path, *present)
    with pytest.raises(PrecisionError, match=message) as error:
        Florence2.load(folder, precision="auto", providers=[CPU])
    assert str(folder) in str(error.value)


def test_providers_are_checked_first() -> None:
    with pytest.raises(ProviderError, match="'NoProvider' is not in this build"):
        Florence2.load(TINY, precision="auto", providers=["NoProvider"])


@VNNI
@pytest.mark.parametrize("present", [["fp32"], ["fp32", "q8"]])
def test_a_model_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: list[str], dot_products: bool
) -> None:
    """Only what is opened is fetched."""
    folder = holding(tmp_path, *present)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub("someone/Florence-2-tiny", files) as hub:
        use_hub(monkeypatch, hub.url)
        _, precision = locate("someone/Florence-2-tiny", "auto", [CPU], place)
    assert precision == present[-1]
    opened = {contract.graph_file(graph, precision) for graph in contract.GRAPHS}
    assert {name for name in hub.fetched if name.startswith("onnx/")} == opened


def damaged(folder: Path) -> None:
    path = folder / contract.graph_file(contract.DECODER, "q8")
    path.write_bytes(path.read_bytes()[:-1000])


def incomplete(folder: Path) -> None:
    (folder / contract.graph_file(contract.DECODER, "q8")).unlink()


def exchanged(folder: Path) -> None:
    encoder = folder / contract.graph_file(contract.ENCODER, "q8")
    shutil.copy(encoder, folder / contract.graph_file(contract.DECODER, "q8"))


def reaching_out(folder: Path) -> None:
    move_weight(folder / contract.graph_file(contract.DECODER, "q8"), location="../../secret")


FAULTS: dict[Callable[[Path], None], str] = {
    damaged: r"decoder_with_past_slots_quantized\.onnx is not a graph ONNX Runtime can run: ",
    incomplete: r"decoder_with_past_slots_quantized\.onnx is missing, without which precision 'q8'",
    exchanged: r"decoder_with_past_slots_quantized\.onnx has no input encoder_attention_mask",
    reaching_out: r"decoder_with_past_slots_quantized\.onnx is not opened, because it reads",
}


@VNNI
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_opened_is_passed_over_in_so_many_words(
    tmp_path: Path, fault: Callable[[Path], None], dot_products: bool
) -> None:
    folder = holding(tmp_path, "fp32", "q8")
    fault(folder)
    wanted = rf"^taking fp32 instead of q8: .*{FAULTS[fault]}"
    with pytest.warns(ModelWarning, match=wanted) as warned:
        model = Florence2.load(folder, precision="auto", providers=[CPU], threads=1)
    assert model.precision == "fp32"
    assert [Path(warning.filename) for warning in warned] == [Path(__file__)]
    with pytest.raises(ModelError, match=FAULTS[fault]):
        Florence2.load(folder, precision="q8", providers=[CPU])


@VNNI
@pytest.mark.parametrize("fault", FAULTS)
def test_where_nothing_else_is_there_the_fault_is_told(
    tmp_path: Path, fault: Callable[[Path], None], dot_products: bool
) -> None:
    folder = holding(tmp_path, "q8", "q4")
    fault(folder)
    with pytest.raises(ModelError, match=FAULTS[fault]):
        Florence2.load(folder, precision="auto", providers=[CPU])


@VNNI
def test_a_fault_of_another_file_is_of_no_precision(tmp_path: Path, dot_products: bool) -> None:
    folder = holding(tmp_path, "fp32", "q8")
    (folder / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"config\.json is missing"):
        Florence2.load(folder, precision="auto", providers=[CPU])


@pytest.mark.parametrize("version", ["1.21.1", "1.20.0", "1.9.0", "1.21.0.dev20250101"])
@pytest.mark.parametrize("precision", ["q8", "q4"])
def test_an_onnx_runtime_without_8_bit_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, version: str
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    message = (
        rf"^precision {precision} needs onnxruntime >= 1\.22, and {version} is installed; "
        r"run pip install -U .*, or use precision fp32$"
    )
    with pytest.raises(PrecisionError, match=message):
        Florence2.load(holding(tmp_path, "fp32", precision), precision=precision)


@pytest.mark.parametrize("version", ["1.22.0", "1.32.0", "2.0.0", "1.24.0.dev1", "unknown"])
def test_an_onnx_runtime_with_8_bit_blocks(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    for precision in contract.PRECISIONS:
        check_runtime(precision)


@pytest.mark.parametrize(
    ("version", "machine", "dot_products", "warned"),
    [
        ("1.29.0", "x86_64", False, True),
        ("1.22.0", "AMD64", False, True),
        ("1.30.0", "x86_64", False, False),
        ("1.29.0", "x86_64", True, False),
        ("1.29.0", "aarch64", False, False),
    ],
    indirect=["dot_products"],
)
def test_an_onnx_runtime_whose_sums_saturate(
    version: str,
    machine: str,
    dot_products: bool,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    monkeypatch.setattr("platform.machine", lambda: machine)
    for precision in contract.PRECISIONS:
        check_runtime(precision)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" may be wrong")[0] for line in lines] == (
        ["note: precision q8", "note: precision q4"] if warned else []
    )


@VNNI
def test_auto_on_an_old_onnx_runtime(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dot_products: bool,
) -> None:
    """One line on stderr, and an answer."""
    monkeypatch.setattr(ort, "__version__", "1.21.1")
    folder = str(holding(tmp_path, "fp32", "q8"))
    for command in (["info", folder], ["bench", folder, "--tokens", "3", "--repeats", "1"]):
        options = ["--precision", "auto", "--provider", CPU, "--threads", "1", "--json"]
        assert main([*command, *options]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["precision"] == "fp32"
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        assert len(notes) == 1
        assert notes[0].startswith(
            "note: taking fp32 instead of q8: precision q8 needs onnxruntime"
        )


def test_what_is_required_has_the_operators_of_every_precision() -> None:
    lines = metadata.requires("florence-onnx") or []
    builds = [line for line in lines if line.startswith("onnxruntime")]
    assert len(builds) == 3
    for line in builds:
        floor = re.search(r">=([0-9]+)\.([0-9]+)", line)
        assert floor, line
        assert (int(floor[1]), int(floor[2])) >= max(NEEDS.values())


@VNNI
def test_the_command_line_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dot_products: bool
) -> None:
    folder = str(holding(tmp_path, "fp32", "q8"))
    options = ["--precision", "auto", "--provider", CPU, "--threads", "1", "--json"]
    bench = ["bench", folder, "--tokens", "3", "--repeats", "1", "--warmup", "0"]
    assert main([*bench, *options]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["precision"] == "q8"
    assert err.splitlines()[0] == "precision: q8"
    assert main(["info", folder, *options]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "q8"
