"""Graphs on providers of their own: how they are named, and where tensors go between them."""

import json
from dataclasses import replace
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.providers import (
    CPU,
    CUDA,
    HOST,
    Device,
    Provider,
    device_of,
    providers_by_graph,
)
from florence_onnx.errors import ProviderError
from tests.helpers.tiny import TINY, mixed_requests, varied_end

AZURE = "AzureExecutionProvider"
"""In most builds for the CPU, and leaves every operator to it."""
needs_azure = pytest.mark.skipif(
    AZURE not in ort.get_available_providers(), reason="this build has no second provider"
)
ANY: list[Provider] = [(CPU, {})]


def test_a_list_is_for_all_graphs() -> None:
    assert providers_by_graph([CPU]) == {name: [CPU] for name in contract.GRAPHS}


def test_a_mapping_names_graphs_and_the_others() -> None:
    chosen = providers_by_graph({contract.VISION_ENCODER: ANY, "*": [CPU]})
    assert chosen == {**{name: [CPU] for name in contract.GRAPHS}, contract.VISION_ENCODER: ANY}


def test_graphs_left_out_are_chosen_as_without_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def choose(requested: Any) -> list[Any]:
        asked.append(requested)
        return list(requested or ["default"])

    monkeypatch.setattr("florence_onnx.engine.providers.choose_providers", choose)
    chosen = providers_by_graph({contract.DECODER: ANY})
    assert chosen == {**{name: ["default"] for name in contract.GRAPHS}, contract.DECODER: ANY}
    asked.clear()
    providers_by_graph(dict.fromkeys(contract.GRAPHS, ANY))
    assert None not in asked, "nothing is left out, so no GPU need be started"


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (
            {"vision": [CPU], "*": [CPU]},
            r"providers names no graph of a model: 'vision'; use vision_encoder, embed_tokens, "
            r"encoder_model, decoder_with_past_slots, \*$",
        ),
        ({0: [CPU]}, "no graph of a model: 0; use vision_encoder"),
        ({"*": []}, "providers is empty"),
        ({"vision_encoder": ["NoProvider"]}, "provider 'NoProvider' is not in this build"),
    ],
)
def test_bad_mappings(requested: Any, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Florence2.load(TINY, providers=requested)


@needs_azure
def test_the_model_tells_what_each_graph_got() -> None:
    model = Florence2.load(TINY, providers={"encoder_model": [AZURE], "*": [CPU]})
    assert model.providers == {
        name: [AZURE, CPU] if name == "encoder_model" else [CPU] for name in contract.GRAPHS
    }


@needs_azure
def test_providers_of_graphs_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--provider", f"vision_encoder={AZURE}", "--provider", f"vision_encoder={CPU}"]
    assert main(["info", str(TINY), "--json", *options, "--provider", CPU]) == 0
    got = json.loads(capsys.readouterr().out)["providers"]
    assert got == {**{name: [CPU] for name in contract.GRAPHS}, "vision_encoder": [AZURE, CPU]}


@pytest.mark.parametrize("option", ["vision=CPUExecutionProvider", "vision_encoder=", "=CPU"])
def test_bad_providers_on_the_command_line(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(TINY), "--provider", option]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("florence-onnx: error: provider")
    assert err.count("\n") == 1


# Devices: pretended, because a test cannot count on a GPU


def session(providers: list[str], options: dict[str, dict[str, str]]) -> Any:
    class Session:
        def get_providers(self) -> list[str]:
            return providers

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return options

    return Session()


def test_the_device_of_a_session() -> None:
    openvino = "OpenVINOExecutionProvider"
    assert device_of(session([CPU], {CPU: {}})) == HOST
    assert device_of(session([CUDA, CPU], {CUDA: {"device_id": "1"}, CPU: {}})) == ("cuda", 1)
    assert device_of(session([openvino, CPU], {openvino: {"device_id": "GPU.0"}})) == HOST
    assert device_of(session([openvino, CPU], {CPU: {}})) == HOST


GPU, OTHER_GPU = Device("cuda", 0), Device("cuda", 1)


@pytest.mark.parametrize(
    ("encoder", "decoder", "between"),
    [
        (HOST, HOST, HOST),
        (HOST, GPU, HOST),
        (GPU, HOST, HOST),
        (GPU, GPU, GPU),
        (GPU, OTHER_GPU, HOST),
    ],
)
def test_tensors_between_devices_go_through_the_host(
    encoder: Device, decoder: Device, between: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another device's graph would read is left on the host, caches with the decoder."""
    model = Florence2.load(TINY, providers=[CPU], threads=1)
    requests = mixed_requests()[:4]
    ends = varied_end(model, requests, num_beams=3, max_new_tokens=70)
    expected = [result.token_ids for result in model.run(requests, **ends)]
    bound: dict[str, set[Any]] = {}
    created: set[Any] = set()
    bind, create = ort.IOBinding.bind_output, ort.OrtValue.ortvalue_from_numpy

    def noted(binding: Any, name: str, *device: Any) -> None:
        bound.setdefault(name, set()).add(device)
        bind(binding, name, "cpu")

    def on_host(array: Any, *device: Any) -> Any:
        created.add(device)
        return create(array)

    def pretended(opened: Any) -> Device:
        return decoder if opened is model.graphs.sessions[contract.DECODER] else encoder

    monkeypatch.setattr("florence_onnx.engine.slot_decoder.device_of", pretended)
    monkeypatch.setattr(ort.IOBinding, "bind_output", noted)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", on_host)
    afresh = Florence2(model.assets, replace(model.graphs))  # The devices are asked for once.
    assert [result.token_ids for result in afresh.run(requests, **ends)] == expected
    assert created == bound["logits"] == bound["out_0"] == {decoder}
    assert bound["topk_ids"] == {("cpu",)}
    assert bound["inputs_embeds"] == bound["present.0.encoder.key"] == {between}
    assert len({len(ids) for ids in expected}) > 1, "no request has left the batch"
