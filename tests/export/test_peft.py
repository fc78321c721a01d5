"""Adapters that peft has made: merged as peft merges them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.errors import CheckpointError
from florence_onnx_export.weights import torch_weights
from tests.helpers.checkpoints import (
    GEOMETRY,
    native_weights,
    original_weights,
    save_native,
    save_original,
)
from tests.helpers.random_models import make_model

peft = pytest.importorskip("peft")

# What peft says of its own choices.
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:peft")

NOTEBOOK = ["q_proj", "o_proj", "k_proj", "v_proj", "linear", "Conv2d", "fc2"]
"""Targets of the notebook that most published adapters come from, its head aside."""
SETTINGS: dict[str, dict[str, Any]] = {
    "notebook": {"target_modules": NOTEBOOK, "use_rslora": True, "init_lora_weights": "gaussian"},
    "plain": {"target_modules": NOTEBOOK, "lora_alpha": 32},
    "head": {"target_modules": [*NOTEBOOK, "lm_head"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "fc1"],
        "rank_pattern": {"layers.1.fc1": 5},
        "alpha_pattern": {"layers.1.fc1": 3, "self_attn.q_proj": 40},
    },
    "modules to save": {"target_modules": ["out_proj"], "modules_to_save": ["lm_head", "fc1"]},
    "biases": {"target_modules": ["v_proj"], "bias": "all"},
    "biases of factors' modules": {"target_modules": ["v_proj"], "bias": "lora_only"},
    "convolutions": {"target_modules": r".*convs\.[12]\.(conv|proj)|.*\.fc2"},
}


class Tree(nn.Module):
    """Modules of Microsoft's names, which peft changes and nothing runs."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            *path, leaf = name.split(".")
            place: nn.Module = self
            for depth, part in enumerate(path):
                if part not in dict(place.named_children()):
                    name_here = ".".join(path[: depth + 1])
                    bias = f"{name_here}.bias" in weights
                    whole = weights.get(f"{name_here}.weight")
                    place.add_module(part, _module(path[: depth + 1], whole, bias))
                place = place.get_submodule(part)
            setattr(place, leaf, nn.Parameter(tensor.clone()))


def _module(path: list[str], weight: Tensor | None, bias: bool) -> nn.Module:
    is_table = path[-1] in ("shared", "embed_tokens", "embed_positions") or "pos_embed" in path[0]
    if weight is None or weight.ndim not in (2, 4) or is_table:
        return nn.Module()
    if weight.ndim == 2:
        return nn.Linear(weight.shape[1], weight.shape[0], bias)
    rows, columns, height, width = weight.shape
    return nn.Conv2d(columns, rows, (height, width), bias=bias)


def trained(model: nn.Module, folder: Path, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Saves a random adapter of a model; returns the state dict that peft merges it into."""
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, **settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3, generator=generator)
    adapted.save_pretrained(str(folder))
    merged: dict[str, Tensor] = adapted.merge_and_unload().state_dict()
    return {name: tensor.clone() for name, tensor in merged.items()}


def assert_merged(folder: Path, base: Path, expected: dict[str, Tensor]) -> None:
    found = torch_weights(read_checkpoint(folder, base=str(base)))
    assert found.keys() <= expected.keys() | {key_maps.HEAD}
    changed = 0
    plain = torch_weights(read_checkpoint(base))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)
        changed += not torch.equal(tensor, plain[name])
    assert changed > 1


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_adapters_of_transformers_model(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = make_model(GEOMETRY, seed=1)
    base = save_native(model, tmp_path / "base")
    # Tied, peft would merge the head's change into the embedding too, which has none in training.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
    model.config.tie_word_embeddings = False
    expected = trained(model, tmp_path / "adapter", settings)
    assert_merged(tmp_path / "adapter", base, expected)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_adapters_of_microsofts_model(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = make_model(GEOMETRY, seed=1)
    base = save_original(model, tmp_path / "base")
    weights = original_weights(model)
    merged = trained(Tree(weights), tmp_path / "adapter", settings)
    whole = tmp_path / "whole"
    save_original(model, whole, more={n: t for n, t in merged.items() if n in weights})
    assert_merged(tmp_path / "adapter", base, torch_weights(read_checkpoint(whole)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora is set; adapters with DoRA cannot be merged"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base"),
        ({"lora_bias": True}, "lora_bias is set"),
    ],
)
def test_what_peft_knows_beyond_lora(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    model = make_model(GEOMETRY, seed=1)
    base = save_native(model, tmp_path / "base")
    trained(model, tmp_path / "adapter", {"target_modules": ["q_proj"], **settings})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "adapter", base=str(base))


@pytest.mark.parametrize("make", ["LoHaConfig", "IA3Config"])
def test_other_adapters_of_peft(tmp_path: Path, make: str) -> None:
    model = make_model(GEOMETRY, seed=1)
    base = save_native(model, tmp_path / "base")
    more: dict[str, Any] = {"feedforward_modules": []} if make == "IA3Config" else {}
    build: Callable[..., Any] = getattr(peft, make)
    config = build(target_modules=["q_proj"], **more)
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match="cannot be merged, only LORA"):
        read_checkpoint(tmp_path / "adapter", base=str(base))


def test_an_unmerged_model_is_told(tmp_path: Path) -> None:
    """Its state dict, saved as it is."""
    model = make_model(GEOMETRY, seed=1)
    base = save_native(model, tmp_path / "base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    weights = {name: t for name, t in adapted.state_dict().items() if "embed_tokens" not in name}
    for path in base.glob("model*"):
        path.unlink()
    torch.save(weights, base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="save it again after peft's merge_and_unload"):
        read_checkpoint(base)
    kept = {name: t for name, t in weights.items() if "lora_" not in name}
    torch.save(kept, base / "pytorch_model.bin")
    assert torch.equal(
        torch_weights(read_checkpoint(base))[key_maps.EMBEDDING],
        native_weights(make_model(GEOMETRY, seed=1))[key_maps.EMBEDDING],
    )


def test_every_setting_of_peft_is_known(tmp_path: Path) -> None:
    """With its defaults, an adapter is plain LoRA."""
    model = make_model(GEOMETRY, seed=1)
    base = save_native(model, tmp_path / "base")
    trained(model, tmp_path / "adapter", {"target_modules": ["q_proj"]})
    assert read_checkpoint(tmp_path / "adapter", base=str(base)).adapter is not None
