"""Which providers are chosen, and what is said where one cannot be had."""

import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import Florence2
from florence_onnx.engine import contract
from florence_onnx.engine.providers import (
    CPU,
    CUDA,
    check_obtained,
    choose_providers,
    cuda_failure,
    first_line,
    provider_name,
    require_onnxruntime,
    start_failure,
)
from florence_onnx.errors import MissingDependencyError, ModelError, ProviderError
from tests.helpers.tiny import TINY

cpu_build = pytest.mark.skipif(
    CUDA in ort.get_available_providers(), reason="this build of ONNX Runtime has CUDA"
)


@pytest.fixture
def claims_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that lists CUDA, as onnxruntime-gpu does on machines without a GPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])


@cpu_build
def test_none_is_the_cpu_on_a_cpu_build() -> None:
    assert choose_providers(None) == [CPU]


@cpu_build
@pytest.mark.parametrize("requested", [CUDA, [CUDA], [CUDA, CPU], [(CUDA, {"device_id": 0})]])
def test_cuda_on_a_cpu_build_is_an_error_that_says_why(requested: Any) -> None:
    with pytest.raises(ProviderError) as error:
        Florence2.load(TINY, providers=requested)
    message = str(error.value)
    assert f"provider {CUDA!r} is not in this build of ONNX Runtime" in message
    assert "uninstall the onnxruntime package" in message
    assert "pip install 'florence-onnx[gpu]'" in message
    assert all(name in message for name in ort.get_available_providers())
    assert isinstance(error.value, ModelError)
    assert isinstance(error.value, RuntimeError)


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" in ort.get_available_providers(), reason="a build with OpenVINO"
)
def test_openvino_names_its_extra() -> None:
    with pytest.raises(ProviderError, match=r"pip install 'florence-onnx\[openvino\]'$"):
        choose_providers(["OpenVINOExecutionProvider"])


def test_an_unknown_provider_lists_those_there_are() -> None:
    with pytest.raises(
        ProviderError, match=r"'CudaProvider' is not in this build.*which has .*CPUExe"
    ):
        Florence2.load(TINY, providers=["CudaProvider"])


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ([], "providers is empty; choose from .*CPUExecutionProvider, or None"),
        ([7], "a provider is a name or a pair of a name and a dict of options, not 7"),
        ([(CPU,)], r"a provider is .*, not \('CPUExecutionProvider',\)"),
        ([(CPU, "fast")], "a provider is .*, not "),
        ([(1, {})], "a provider is .*, not "),
    ],
)
def test_malformed_providers(requested: Any, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Florence2.load(TINY, providers=requested)


def test_names_and_options_are_handed_on() -> None:
    assert choose_providers(CPU) == [CPU]
    assert choose_providers([(CPU, {})]) == [(CPU, {})]
    assert provider_name(CPU) == provider_name((CPU, {"any": "thing"})) == CPU


@cpu_build
@pytest.mark.usefixtures("claims_cuda")
def test_cuda_that_does_not_start() -> None:
    """None falls back without a word; asked for, the reason is given."""
    assert start_failure(CUDA)
    assert choose_providers(None) == [CPU]
    with pytest.raises(ProviderError, match=rf"{CUDA} cannot start: .*not in available provider"):
        choose_providers([CUDA, CPU])


@pytest.mark.usefixtures("claims_cuda")
@pytest.mark.skipif(sys.platform != "linux", reason="names a Linux library")
def test_cuda_whose_library_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capi = tmp_path / "capi"
    capi.mkdir()
    for name in ("cuda", "shared"):
        (capi / f"libonnxruntime_providers_{name}.so").write_text("not a library, not even close")
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))
    # Older versions have no such function.
    say = lambda: print("Failed to load libcublas.so")  # noqa: E731
    monkeypatch.setattr(ort, "preload_dlls", say, raising=False)
    reason = cuda_failure()
    assert reason is not None
    assert "libonnxruntime_providers_shared.so" in reason
    assert choose_providers(None) == [CPU]
    with pytest.raises(ProviderError) as error:
        choose_providers([CUDA])
    assert str(error.value) == f"{CUDA} cannot start: {reason}"
    assert capsys.readouterr().out == "", "stdout is for results"


@pytest.mark.usefixtures("claims_cuda")
def test_cuda_that_starts_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Session:
        def __init__(self, graph: bytes, options: Any, **arguments: Any) -> None:
            asked.update(arguments)

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr("florence_onnx.engine.providers.cuda_failure", lambda: None)
    exact = {"use_tf32": "0"}
    assert choose_providers(None) == [(CUDA, exact), CPU]
    assert choose_providers([CUDA]) == [(CUDA, exact)]
    assert choose_providers([(CUDA, {"device_id": 1})]) == [(CUDA, {"device_id": 1} | exact)]
    rounded = (CUDA, {"use_tf32": "1"})
    assert choose_providers([rounded]) == [rounded]
    assert asked == {"providers": [rounded], "enable_fallback": 0}


@pytest.mark.usefixtures("claims_cuda")
def test_cuda_that_is_dropped_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            pass

        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr("florence_onnx.engine.providers.cuda_failure", lambda: None)
    assert choose_providers(None) == [CPU]
    with pytest.raises(ProviderError, match=rf"{CUDA} cannot start: its log on stderr says why"):
        choose_providers([CUDA])


def test_what_was_obtained_is_compared_with_what_was_asked() -> None:
    check_obtained("encoder_model", [CPU], [CPU])
    check_obtained("encoder_model", [(CUDA, {}), CPU], [CUDA, CPU])
    message = rf"encoder_model: .* did not start {CUDA} and fell back to {CPU}; its log on stderr"
    with pytest.raises(ProviderError, match=message):
        check_obtained("encoder_model", [(CUDA, {}), CPU], [CPU])


def test_a_graph_that_loses_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """It started with the tiny graph, and then dropped a graph of the model."""
    monkeypatch.setattr("florence_onnx.engine.providers.start_failure", lambda provider: None)
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda session: ["Other"])
    with pytest.raises(ProviderError, match=rf"did not start {CPU} and fell back to Other"):
        Florence2.load(TINY)


def test_the_model_tells_what_each_graph_got() -> None:
    model = Florence2.load(TINY, providers=[CPU])
    assert model.providers == {name: [CPU] for name in contract.GRAPHS}
    if "AzureExecutionProvider" in ort.get_available_providers():
        model = Florence2.load(TINY, providers=["AzureExecutionProvider"])
        assert set(model.providers["vision_encoder"]) == {"AzureExecutionProvider", CPU}


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    require_onnxruntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"run pip install 'florence-onnx\[cpu\]'"):
        Florence2.load(TINY)


def test_the_first_line_of_an_error() -> None:
    assert first_line(RuntimeError("no graph\n at file.cc")) == "no graph"
    assert first_line(KeyError()) == "KeyError"
