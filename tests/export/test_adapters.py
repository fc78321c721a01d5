"""LoRA adapters, merged into the base model that they name."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import check_values, read_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx.skeletons import filling
from florence_onnx_export.weights import torch_weights
from tests.helpers.checkpoints import GEOMETRY, save_native, save_original
from tests.helpers.exports import Exported
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.plain_checkpoints import original_name
from tests.helpers.random_models import make_model

RANK, ALPHA = 4, 12
CONFIG = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": ALPHA,
    # As of the notebook that most adapters come from; most of it matches no module.
    "target_modules": ["q_proj", "o_proj", "linear", "Conv2d", "fc2"],
    "use_rslora": True,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "init_lora_weights": "gaussian",
    "fan_in_fan_out": False,
    "revision": None,
}
QUERY = "model.language_model.decoder.layers.0.self_attn.q_proj"
FC2 = "model.vision_tower.blocks.1.0.channel_block.ffn.fc2"
CONV = "model.vision_tower.convs.1.conv"
HEAD = "lm_head"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_native(make_model(GEOMETRY, seed=1), tmp_path_factory.mktemp("base") / "native")


@pytest.fixture(scope="module")
def weights(base: Path) -> dict[str, Tensor]:
    return torch_weights(read_checkpoint(base))


def factors(weights: dict[str, Tensor], *modules: str, seed: int = 2) -> dict[str, Tensor]:
    """Random factors of modules, by native names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in modules:
        rows, *columns = weights[f"{module}.weight"].shape
        ones = [1] * (len(columns) - 1)
        a = torch.randn([RANK, *columns], generator=generator)
        b = torch.randn([rows, RANK, *ones], generator=generator)
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = a, b
    return tensors


def changed(
    weights: dict[str, Tensor], tensors: dict[str, Tensor], module: str, scale: float
) -> Tensor:
    """The weight of a module as peft merges it, in float64."""
    a, b = (tensors[f"{module}.lora_{side}.weight"].double() for side in "AB")
    weight = weights[f"{module}.weight"]
    change = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
    return weight.double() + scale * change.reshape(weight.shape)


def save_adapter(
    folder: Path,
    tensors: dict[str, Tensor],
    *,
    rename: Callable[[str], str] = lambda name: name,
    safetensors: bool = True,
    **settings: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **settings}))
    named = {f"base_model.model.{rename(name)}": tensor for name, tensor in tensors.items()}
    if safetensors:
        save_file(named, folder / "adapter_model.safetensors")
    else:
        torch.save(named, folder / "adapter_model.bin")
    return folder


def microsofts(name: str) -> str:
    """An adapter's name of a tensor of a model in Microsoft's format."""
    module, factor, rest = name.partition(".lora_")
    return original_name(f"{module}.weight").removesuffix(".weight") + factor + rest


@pytest.mark.parametrize("by_root", [True, False])
@pytest.mark.parametrize("safetensors", [True, False])
def test_factors_are_scaled_and_added(
    base: Path, weights: dict[str, Tensor], tmp_path: Path, by_root: bool, safetensors: bool
) -> None:
    tensors = factors(weights, QUERY, FC2, CONV)
    settings: dict[str, Any] = {"use_rslora": by_root, "base_model_name_or_path": str(base)}
    folder = save_adapter(tmp_path / "a", tensors, safetensors=safetensors, **settings)
    checkpoint = read_checkpoint(folder)
    check_values(checkpoint)
    found = torch_weights(checkpoint)
    scale = ALPHA / (math.sqrt(RANK) if by_root else RANK)
    for module in (QUERY, FC2, CONV):
        expected = changed(weights, tensors, module, scale)
        torch.testing.assert_close(
            found.pop(f"{module}.weight").double(), expected, rtol=1e-6, atol=1e-5
        )
    assert found
    assert all(torch.equal(found[name], weights[name]) for name in found)


def test_names_of_microsofts_format(weights: dict[str, Tensor], tmp_path: Path) -> None:
    base = save_original(make_model(GEOMETRY, seed=1), tmp_path / "base")
    tensors = factors(weights, QUERY, FC2, HEAD)
    native = save_adapter(tmp_path / "native", tensors, base_model_name_or_path=str(base))
    original = save_adapter(
        tmp_path / "original", tensors, rename=microsofts, base_model_name_or_path=str(base)
    )
    found = torch_weights(read_checkpoint(original))
    expected = torch_weights(read_checkpoint(native))
    assert not torch.equal(found[f"{FC2}.weight"], weights[f"{FC2}.weight"])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_trained_head_is_no_longer_the_embedding(
    base: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = factors(weights, HEAD)
    checkpoint = read_checkpoint(save_adapter(tmp_path / "a", tensors), base=str(base))
    found, head = torch_weights(checkpoint), weights[key_maps.HEAD]
    assert checkpoint.parameters == read_checkpoint(base).parameters + head.numel()
    expected = changed(weights, tensors, HEAD, ALPHA / math.sqrt(RANK))
    torch.testing.assert_close(found[key_maps.HEAD].double(), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(found[key_maps.EMBEDDING], weights[key_maps.EMBEDDING])


@pytest.mark.parametrize("wrapper", ["", ".modules_to_save.default", ".base_layer"])
def test_whole_weights_replace(
    base: Path, weights: dict[str, Tensor], tmp_path: Path, wrapper: str
) -> None:
    bias = torch.randn(weights[f"{QUERY}.bias"].shape)
    folder = save_adapter(tmp_path / "a", {f"{QUERY}{wrapper}.bias": bias})
    found = torch_weights(read_checkpoint(folder, base=str(base)))
    assert torch.equal(found[f"{QUERY}.bias"], bias)


def test_a_trained_embedding_stays_tied(
    base: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    table = weights[key_maps.EMBEDDING] + 1
    folder = save_adapter(tmp_path / "a", {key_maps.EMBEDDING: table})
    found = torch_weights(read_checkpoint(folder, base=str(base)))
    assert torch.equal(found[key_maps.EMBEDDING], table)
    assert torch.equal(found[key_maps.HEAD], table)


def test_ranks_and_alphas_of_single_modules(
    base: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = factors(weights, QUERY, FC2)
    pattern = {"decoder.layers.0.self_attn.q_proj": 30}
    folder = save_adapter(tmp_path / "a", tensors, alpha_pattern=pattern, r=99, use_rslora=False)
    found = torch_weights(read_checkpoint(folder, base=str(base)))
    for module, alpha in ((QUERY, 30), (FC2, ALPHA)):
        expected = changed(weights, tensors, module, alpha / RANK)
        torch.testing.assert_close(
            found[f"{module}.weight"].double(), expected, rtol=1e-6, atol=1e-5
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "adapters of type 'LOHA' cannot be merged, only LORA"),
        ({"use_dora": True}, "use_dora is set; adapters with DoRA cannot be merged"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices is set"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changes the base model too"),
        ({"lora_alpha": None}, "lora_alpha is None, not a number"),
        ({"alpha_pattern": {".*q_proj": 3}}, "alpha_pattern has regular expressions"),
        ({"use_new_kind": True}, "'use_new_kind' is set, which is not known here"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is set"),
        ({"alpha_pattern": {"q_proj": "3"}}, "alpha_pattern is not a map of modules to numbers"),
    ],
)
def test_settings_that_are_not_understood(
    base: Path, weights: dict[str, Tensor], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    folder = save_adapter(tmp_path / "a", factors(weights, QUERY), **settings)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(folder, base=str(base))
    assert message in str(error.value)
    assert "adapter_config.json" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {f"{QUERY}s.lora_A.weight": t, f"{QUERY}s.lora_B.weight": t}, "q_projs.lora_A"),
        (lambda t: {"detector.weight": t}, "'base_model.model.detector.weight' belongs to no"),
        (lambda t: {f"{QUERY}.lora_magnitude_vector.weight": t}, "lora_magnitude_vector.weight'"),
        (lambda t: {f"{QUERY}.lora_B.bias": t}, "q_proj.lora_B.bias' belongs to no weight"),
        (lambda t: {f"{QUERY}.lora_A.weight": t}, "q_proj has lora_A alone"),
        (
            lambda t: {f"{QUERY}.lora_A.weight": t[:, 1:], f"{QUERY}.lora_B.weight": t},
            "[4, 31] and",
        ),
        (lambda t: {f"{QUERY}.lora_A.weight": t[0], f"{QUERY}.lora_B.weight": t[0]}, "do not fit"),
        (
            lambda t: {f"{QUERY}.weight": t},
            "q_proj.weight is [4, 32] instead of [32, 32] in adapter_model",
        ),
    ],
)
def test_tensors_that_belong_to_no_weight(
    base: Path, tmp_path: Path, change: Callable[[Tensor], dict[str, Tensor]], message: str
) -> None:
    tensors = {name: t.clone() for name, t in change(torch.ones(RANK, 32)).items()}
    folder = save_adapter(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(folder, base=str(base))
    assert message in str(error.value)


def test_changes_that_are_not_finite(
    base: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = factors(weights, QUERY)
    tensors[f"{QUERY}.lora_A.weight"][0, 0] = float("inf")
    folder = save_adapter(tmp_path / "a", tensors)
    checkpoint = read_checkpoint(folder, base=str(base))
    with pytest.raises(CheckpointError) as error:
        check_values(checkpoint)
    blamed = folder / "adapter_model.safetensors"
    assert str(error.value).startswith(f"{blamed}: weight {QUERY}.weight is NaN or infinite")


def test_which_base_model(base: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    tensors = factors(weights, QUERY)
    folder = save_adapter(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError, match="names no base model; name it with --base"):
        read_checkpoint(folder)
    with pytest.raises(CheckpointError, match="is no adapter"):
        read_checkpoint(base, base=str(base))
    (folder / "base").symlink_to(base)
    assert read_checkpoint(folder).folder == folder / "base"


def test_an_adapter_beside_weights_is_told(tmp_path: Path) -> None:
    folder = save_native(make_model(GEOMETRY, seed=1), tmp_path / "both")
    save_adapter(folder, {})
    (note,) = read_checkpoint(folder).notes
    assert "an adapter lies beside the weights" in note


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serves the base model."""
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    with serve_hub("org/base", files) as server:
        use_hub(monkeypatch, server.url)
        yield


@pytest.mark.usefixtures("hub")
def test_a_revision_that_is_gone(weights: dict[str, Tensor], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"base_model_name_or_path": "org/base", "revision": "refs/pr/6"}
    folder = save_adapter(tmp_path / "a", factors(weights, QUERY), **settings)
    notes = read_checkpoint(folder).notes
    assert "org/base has no revision refs/pr/6 any more" in notes[1]
    gone = save_adapter(tmp_path / "b", {}, base_model_name_or_path="org/other")
    with pytest.raises(ModelNotFoundError, match="org/other"):
        read_checkpoint(gone)


def test_an_adapter_of_the_hub(
    base: Path, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_adapter(
        tmp_path / "a", factors(weights, QUERY), base_model_name_or_path=str(base)
    )
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with serve_hub("org/adapter", {**files, "README.md": b""}) as server:
        use_hub(monkeypatch, server.url)
        found = torch_weights(read_checkpoint("org/adapter"))
    again = torch_weights(read_checkpoint("org/adapter"))
    expected = torch_weights(read_checkpoint(folder))
    for merged in (found, again):
        assert torch.equal(merged[f"{QUERY}.weight"], expected[f"{QUERY}.weight"])


def test_the_command(
    native: Exported,
    skeletons: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(filling, "SKELETONS", skeletons)
    weights = torch_weights(read_checkpoint(native.checkpoint))
    folder = save_adapter(tmp_path / "a", factors(weights, QUERY, HEAD))
    out = tmp_path / "out"
    assert main(["export", str(folder), str(out), "--base", str(native.checkpoint)]) == 0
    note = f"the adapter in {folder} was merged into {native.checkpoint}"
    assert f"note: {note}\n" in capsys.readouterr().err
    assert note in json.loads((out / "export_report.json").read_text())["repairs"]
    assert main(["export", str(folder), str(out), "--force"]) == 2
    assert "--base" in capsys.readouterr().err
