"""Checkpoints in both formats, as they are saved in the wild, and what is wrong with others."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import Checkpoint, check_values, read_checkpoint
from florence_onnx.errors import CheckpointError, ModelNotFoundError
from florence_onnx_export.weights import torch_weights
from tests.helpers.checkpoints import (
    GEOMETRY,
    native_weights,
    original_weights,
    save_native,
    save_original,
    save_weights,
)
from tests.helpers.hub import Hub, serve_hub, use_empty_cache, use_hub
from tests.helpers.random_models import make_model

HEAD, EMBEDDING = key_maps.HEAD, key_maps.EMBEDDING


@pytest.fixture(scope="module")
def model() -> Florence2ForConditionalGeneration:
    return make_model(GEOMETRY, seed=1)


@pytest.fixture(scope="module")
def expected(model: Florence2ForConditionalGeneration) -> dict[str, Tensor]:
    """What every way of saving ``model`` has to be read as."""
    weights = native_weights(model)
    return weights | {HEAD: weights[EMBEDDING]}


@pytest.fixture
def native(model: Florence2ForConditionalGeneration, tmp_path: Path) -> Path:
    return save_native(model, tmp_path / "native")


@pytest.fixture
def original(model: Florence2ForConditionalGeneration, tmp_path: Path) -> Path:
    return save_original(model, tmp_path / "original")


def assert_weights(checkpoint: Checkpoint, expected: dict[str, Tensor]) -> None:
    assert checkpoint.weights.keys() == expected.keys()
    for name, tensor in torch_weights(checkpoint).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("save", [save_native, save_original])
@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_way_of_saving_is_read_as_the_same_weights(
    model: Florence2ForConditionalGeneration,
    expected: dict[str, Tensor],
    tmp_path: Path,
    save: Callable[..., Path],
    safetensors: bool,
    shards: int,
) -> None:
    folder = save(model, tmp_path, safetensors=safetensors, shards=shards)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.format == ("native" if save is save_native else "original")
    assert_weights(checkpoint, expected)
    assert checkpoint.weights[HEAD] == checkpoint.weights[EMBEDDING]


@pytest.mark.parametrize("save", [save_native, save_original])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(
    model: Florence2ForConditionalGeneration,
    expected: dict[str, Tensor],
    tmp_path: Path,
    save: Callable[..., Path],
    dtype: torch.dtype,
) -> None:
    checkpoint = read_checkpoint(save(model, tmp_path, dtype=dtype))
    assert_weights(checkpoint, {name: t.to(dtype).float() for name, t in expected.items()})


@pytest.mark.parametrize("max_shard_size", ["1GB", "200KB"])
def test_what_transformers_saves(
    model: Florence2ForConditionalGeneration,
    expected: dict[str, Tensor],
    tmp_path: Path,
    max_shard_size: str,
) -> None:
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "200KB")
    assert_weights(read_checkpoint(str(tmp_path)), expected)


def test_transformers_loads_what_was_read_from_the_original_format(
    model: Florence2ForConditionalGeneration, original: Path
) -> None:
    """The conversion rules end in transformers' own model: strictly, and with its output."""
    checkpoint = read_checkpoint(original)
    config = Florence2Config(**model.config.to_dict())
    loaded = Florence2ForConditionalGeneration(config).eval()
    weights = torch_weights(checkpoint)
    copies = dict.fromkeys(key_maps.EMBEDDING_COPIES, weights[EMBEDDING])
    loaded.load_state_dict(weights | copies, strict=True)
    pixels = torch.rand((1, 3, *GEOMETRY.image_size), generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[GEOMETRY.image_token_id] * GEOMETRY.image_tokens + [0, 5, 6, 2]])
    with torch.inference_mode():
        a, b = (m(input_ids=ids, pixel_values=pixels).logits for m in (model, loaded))
    assert torch.equal(a, b)


# --- tied and untied heads


@pytest.mark.parametrize("kept", [EMBEDDING, HEAD, *key_maps.EMBEDDING_COPIES])
def test_one_name_of_a_tied_embedding_is_enough(
    native: Path, expected: dict[str, Tensor], kept: str
) -> None:
    stored = {name: t for name, t in expected.items() if name not in (EMBEDDING, HEAD)}
    save_weights(stored | {kept: expected[EMBEDDING]}, native)
    assert_weights(read_checkpoint(native), expected)


def test_an_untied_head_stays_one(native: Path, expected: dict[str, Tensor]) -> None:
    weights = expected | {HEAD: expected[HEAD] + 1}
    save_weights(weights, native)
    for tied in (True, False):
        change_json(native / "config.json", partial(dict.update, tie_word_embeddings=tied))
        assert_weights(read_checkpoint(native), weights)


def test_an_untied_head_may_not_be_missing(native: Path) -> None:
    change_json(native / "config.json", lambda c: c.update(tie_word_embeddings=False))
    with pytest.raises(CheckpointError, match=r"no weights called lm_head\.weight$"):
        read_checkpoint(native)


def test_different_embeddings_of_encoder_and_decoder(
    native: Path, expected: dict[str, Tensor]
) -> None:
    save_weights(expected | {key_maps.EMBEDDING_COPIES[1]: expected[EMBEDDING] + 1}, native)
    with pytest.raises(CheckpointError, match="different token embeddings"):
        read_checkpoint(native)


def test_a_logits_bias_is_kept_unless_it_is_zero(
    model: Florence2ForConditionalGeneration, original: Path
) -> None:
    assert key_maps.LOGITS_BIAS not in read_checkpoint(original).weights
    bias = torch.zeros((1, GEOMETRY.vocab_size))
    bias[0, 7] = -3
    weights = original_weights(model) | {"language_model.final_logits_bias": bias}
    save_weights(weights, original, safetensors=False)
    assert torch.equal(torch_weights(read_checkpoint(original))[key_maps.LOGITS_BIAS], bias)


# --- weights that do not fit


def test_unknown_weights(native: Path, expected: dict[str, Tensor]) -> None:
    extra = {f"model.adapter.{i}": torch.ones(1) for i in range(5)}
    save_weights(expected | extra, native)
    message = r"unknown weights model\.adapter\.0, model\.adapter\.1, model\.adapter\.2 and 2 more$"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(native)


def test_unknown_weights_in_the_original_format(
    model: Florence2ForConditionalGeneration, original: Path
) -> None:
    weights = original_weights(model) | {"vision_tower.neck.weight": torch.ones(1)}
    save_weights(weights, original, safetensors=False)
    with pytest.raises(CheckpointError, match=r"unknown weights vision_tower\.neck\.weight$"):
        read_checkpoint(original)


def test_missing_weights(native: Path, expected: dict[str, Tensor]) -> None:
    gone = "model.vision_tower.convs.0.conv.weight"
    save_weights({name: t for name, t in expected.items() if name != gone}, native)
    with pytest.raises(CheckpointError, match=f"no weights called {gone}$"):
        read_checkpoint(native)


def test_wrong_shapes(native: Path) -> None:
    def narrower(config: dict[str, Any]) -> None:
        config["text_config"]["max_position_embeddings"] = 100

    change_json(native / "config.json", narrower)
    message = r"do not fit config\.json: .*embed_positions\.weight is \[322, 32\] instead of \[102,"
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(native)


def test_quantised_weights(native: Path, expected: dict[str, Tensor]) -> None:
    save_weights(expected, native, dtype=torch.int8)
    with pytest.raises(CheckpointError, match=r"stored as I8; quantised"):
        read_checkpoint(native)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_values_that_are_no_numbers(
    native: Path, expected: dict[str, Tensor], value: float, safetensors: bool, dtype: torch.dtype
) -> None:
    """Blamed on the checkpoint, with the file and the weight."""
    check_values(read_checkpoint(native))
    name = "model.language_model.decoder.layers.1.fc2.bias"
    damaged = expected[name].clone()
    damaged[-1] = value
    for path in native.glob("model*"):
        path.unlink()
    save_weights(expected | {name: damaged}, native, safetensors, shards=3, dtype=dtype)
    with pytest.raises(CheckpointError) as error:
        check_values(read_checkpoint(native))
    (path,) = {t.path for n, t in read_checkpoint(native).weights.items() if n == name}
    assert str(error.value) == (
        f"{path}: weight {name} is NaN or infinite in places; the checkpoint is damaged, or its "
        "training has diverged"
    )


# --- folders and the hub


def test_a_folder_without_config(native: Path) -> None:
    (native / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        read_checkpoint(native)
    (native / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="adapters of type None"):
        read_checkpoint(native)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="not an existing folder"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    with serve_hub("org/fine-tune", {"modeling_florence2.py": b"raise SystemExit"}) as server:
        use_hub(monkeypatch, server.url)
        yield server


def publish(hub: Hub, folder: Path) -> None:
    hub.files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("safetensors", [True, False])
def test_a_checkpoint_of_the_hub(
    model: Florence2ForConditionalGeneration,
    expected: dict[str, Tensor],
    hub: Hub,
    tmp_path: Path,
    safetensors: bool,
    shards: int,
) -> None:
    publish(hub, save_original(model, tmp_path / "a", safetensors=safetensors, shards=shards))
    checkpoint = read_checkpoint("org/fine-tune")
    assert_weights(checkpoint, expected)
    assert hub.fetched == hub.files.keys() - {"modeling_florence2.py"}
    assert not list(checkpoint.folder.glob("*.py"))


def test_one_format_of_weights_is_fetched_from_the_hub(
    model: Florence2ForConditionalGeneration,
    expected: dict[str, Tensor],
    hub: Hub,
    tmp_path: Path,
) -> None:
    for safetensors in (True, False):
        publish(hub, save_original(model, tmp_path / "a", safetensors=safetensors))
    assert_weights(read_checkpoint("org/fine-tune"), expected)
    assert "pytorch_model.bin" not in hub.fetched
