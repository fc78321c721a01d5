"""Which precision is opened where the caller leaves the choice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.precision import suitable_precisions
from florence_onnx.engine.providers import CPU, CUDA
from florence_onnx.errors import PrecisionError, ProviderError
from florence_onnx.resolver import locate
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import TINY, copy_tiny

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
    assert locate(folder, "auto", [CPU]) == (folder, chosen)


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
    assert locate(holding(tmp_path, *present), "auto", None)[1] == chosen


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
        _, precision = locate("someone/Florence-2-tiny", "auto", [CPU])
    assert precision == present[-1]
    opened = {contract.graph_file(graph, precision) for graph in contract.GRAPHS}
    assert {name for name in hub.fetched if name.startswith("onnx/")} == opened


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
