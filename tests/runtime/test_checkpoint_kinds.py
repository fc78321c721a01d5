"""What frameworks leave in a checkpoint: prefixes, heads, other libraries' layouts."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from florence_onnx.checkpoints.checkpoint import Checkpoint, read_checkpoint
from florence_onnx.errors import CheckpointError
from tests.helpers.plain_checkpoints import (
    NATIVE,
    ORIGINAL,
    Array,
    Json,
    native_arrays,
    original_arrays,
    save_plain,
)

HEAD = {"head.weight": np.ones((3, 2), np.float32), "head.bias": np.ones(3, np.float32)}
SAVED: dict[str, tuple[Json, dict[str, Array]]] = {
    "original": (ORIGINAL, original_arrays()),
    "native": (NATIVE, native_arrays(NATIVE)),
}


def assert_same(checkpoint: Checkpoint, folder: Path, form: str) -> None:
    """The weights are those of an ordinary checkpoint."""
    expected = read_checkpoint(save_plain(folder, SAVED[form][1], config=SAVED[form][0]))
    assert checkpoint.format == expected.format
    assert checkpoint.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert np.array_equal(checkpoint.weights[name].read(), tensor.read()), name


def inside(name: str) -> str:
    """Part of the model compiled by itself."""
    return name.replace("vision_tower.", "vision_tower._orig_mod.")


def wrapped(name: str) -> str:
    """As an unmerged model of peft names what an adapter changes."""
    return re.sub(r"(q_proj|fc2)\.", r"\1.base_layer.", name)


def saved_module(name: str) -> str:
    return name.replace("lm_head.", "lm_head.modules_to_save.default.")


@pytest.mark.parametrize("form", SAVED)
@pytest.mark.parametrize(
    ("rename", "told"),
    [
        (lambda name: f"module.{name}", ["module."]),
        (lambda name: f"_orig_mod.{name}", ["_orig_mod."]),
        (lambda name: f"base_model.model.{name}", ["base_model.model."]),
        (lambda name: f"_orig_mod.module.{name}", ["_orig_mod.", "module."]),
        (lambda name: f"_fsdp_wrapped_module.{name}", ["_fsdp_wrapped_module."]),
        (lambda name: f"model.{name}", ["model."]),
        (lambda name: f"student.net.{name}", ["student.net."]),
        (inside, ["_orig_mod."]),
        (lambda name: f"base_model.model.{wrapped(name)}", ["base_layer.", "base_model.model."]),
    ],
)
def test_prefixes(tmp_path: Path, form: str, rename: Callable[[str], str], told: list[str]) -> None:
    config, weights = SAVED[form]
    renamed = {rename(name): array for name, array in weights.items()}
    checkpoint = read_checkpoint(save_plain(tmp_path / "a", renamed, config=config))
    assert_same(checkpoint, tmp_path / "b", form)
    shown = ", ".join(told)
    assert checkpoint.notes == (f"names of weights held {shown}, which were taken off",)


def test_the_model_inside_a_native_one(tmp_path: Path) -> None:
    """As ``Florence2Model`` is saved, which has no head."""
    weights = {name.removeprefix("model."): array for name, array in SAVED["native"][1].items()}
    checkpoint = read_checkpoint(save_plain(tmp_path / "a", weights, config=NATIVE))
    assert_same(checkpoint, tmp_path / "b", "native")


def test_a_module_that_peft_has_replaced(tmp_path: Path) -> None:
    weights = {saved_module(name): array for name, array in original_arrays().items()}
    old = "language_model.lm_head.original_module.weight"
    weights[old] = weights["language_model.lm_head.modules_to_save.default.weight"] * 0
    checkpoint = read_checkpoint(save_plain(tmp_path / "a", weights))
    assert_same(checkpoint, tmp_path / "b", "original")


def test_two_models_in_one_file(tmp_path: Path) -> None:
    weights = original_arrays()
    name = "vision_tower.convs.0.proj.weight"
    folder = save_plain(tmp_path, {**weights, f"module.{name}": weights[name]})
    with pytest.raises(CheckpointError, match=f"'{name}' and 'module.{name}' are both the weight"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("prefix", "named"),
    [
        ("text_classification_", "text_classification_head (2 tensors)"),
        ("detector.", "detector (2 tensors)"),
        ("model.detector.", "model.detector (2 tensors)"),
        ("vision_tower.", "vision_tower.head (2 tensors)"),
        ("ema.", "ema (2 tensors)"),
    ],
)
@pytest.mark.parametrize("form", SAVED)
def test_heads_of_other_models(tmp_path: Path, form: str, prefix: str, named: str) -> None:
    config, weights = SAVED[form]
    extra: dict[str, Array] = {f"{prefix}{name}": array for name, array in HEAD.items()}
    checkpoint = read_checkpoint(save_plain(tmp_path / "a", weights | extra, config=config))
    assert_same(checkpoint, tmp_path / "b", form)
    assert checkpoint.notes == (
        f"{named} are no part of a Florence-2 and were left out; what they compute is not exported",
    )


def test_counters_of_heads_are_no_quantised_weights(tmp_path: Path) -> None:
    extra: dict[str, Array] = {"head.norm.num_batches_tracked": np.ones((), np.int64)}
    (note,) = read_checkpoint(save_plain(tmp_path, original_arrays() | extra)).notes
    assert note.startswith("head (1 tensor) are no part")


@pytest.mark.parametrize(
    "name",
    [
        "language_model.model.encoder.layers.0.adapter.weight",
        "language_model.model.encoder.layers.7.fc1.weight",
        "vision_tower.blocks.0.0.spatial_block.gate",
        "adapter.down.weight",
    ],
)
def test_what_would_change_the_answers_is_refused(tmp_path: Path, name: str) -> None:
    folder = save_plain(tmp_path, {**original_arrays(), name: np.ones(2, np.float32)})
    with pytest.raises(CheckpointError, match=r"unknown weights "):
        read_checkpoint(folder)


def quantised(suffixes: Mapping[str, str]) -> dict[str, Array]:
    """Weights of which some are whole numbers, with what undoes the rounding beside them."""
    weights = original_arrays()
    for name in [name for name in weights if name.endswith("fc1.weight")]:
        whole = weights.pop(name)
        for suffix, dtype in suffixes.items():
            weights[name.removesuffix("weight") + suffix] = whole.astype(dtype)
    return weights


def without_decoder() -> dict[str, Array]:
    return {n: a for n, a in original_arrays().items() if "decoder" not in n and "lm_head" not in n}


def channels_last() -> dict[str, Array]:
    return {
        name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for name, array in original_arrays().items()
    }


BITS = {"weight": "uint8", "weight.absmax": "float32", "weight.quant_map": "float32"}
REFUSED: dict[str, tuple[dict[str, Array], str]] = {
    "bitsandbytes, 4 bits": (quantised(BITS), "is quantised (bitsandbytes)"),
    "its state": (
        quantised({"weight": "uint8", "weight.quant_state.bitsandbytes__nf4": "uint8"}),
        "(bitsandbytes)",
    ),
    "bitsandbytes, 8 bits": (quantised({"weight": "int8", "SCB": "float32"}), "(bitsandbytes)"),
    "quanto": (quantised({"weight._data": "uint8", "weight._scale": "float32"}), "(quanto)"),
    "GPTQ": (quantised({"qweight": "uint32", "scales": "float16"}), "(GPTQ or AWQ)"),
    "HQQ": (quantised({"W_q": "uint8"}), "(HQQ)"),
    "whole numbers": (quantised({"weight": "int8"}), "is stored as I8; quantised"),
    "MLX": (channels_last(), "in the layout of MLX"),
    "no decoder": (without_decoder(), "has no decoder, so it generates no text"),
    "factors": (
        original_arrays() | {"language_model.x.lora_A.default.weight": np.ones((2, 2), np.float32)},
        "save it again after peft's merge_and_unload",
    ),
}


@pytest.mark.parametrize(("weights", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_by_name(tmp_path: Path, weights: dict[str, Array], message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(save_plain(tmp_path, weights))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised (bitsandbytes)"),
        ({"quantization_config": {"quant_method": "torchao"}}, "quantised (torchao)"),
        ({"quantization_config": {}}, "quantised (another library)"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "in the layout of MLX"),
    ],
)
def test_what_the_configuration_tells(tmp_path: Path, more: Json, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(save_plain(tmp_path, config={**ORIGINAL, **more}))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "width", "base"),
    [
        ("org/tuned", 16, "such as org/tuned"),
        ("runs/epoch_9/best", 768, "such as microsoft/Florence-2-base"),
        (None, 1024, "such as microsoft/Florence-2-large"),
    ],
)
def test_what_to_take_instead(tmp_path: Path, name: str, width: int, base: str) -> None:
    text = {**ORIGINAL["text_config"], "d_model": width}
    vision = {**ORIGINAL["vision_config"], "projection_dim": width}
    config = {**ORIGINAL, "_name_or_path": name, "text_config": text, "vision_config": vision}
    with pytest.raises(CheckpointError, match=f"{base}, with --precision q8 or q4"):
        read_checkpoint(save_plain(tmp_path, REFUSED["quanto"][0], config=config))
