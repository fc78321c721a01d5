"""The files beside the graphs, from every kind of checkpoint folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer, Florence2ForConditionalGeneration

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine.contract import ASSETS
from florence_onnx.errors import CheckpointError
from florence_onnx.generation.settings import OPTIONS
from florence_onnx.tasks import Task
from tests.helpers.checkpoints import GEOMETRY, save_native, save_original
from tests.helpers.plain_checkpoints import POLICY
from tests.helpers.random_models import make_model

EARLY_STOPPING = "generation_config.json: early_stopping was False, is True as in text_config"
WRONG_IDS = [
    "bos_token_id was 2, is 0 (<s>)",
    "eos_token_id was 1, is 2 (</s>)",
    "pad_token_id was 0, is 1 (<pad>)",
]
REAL = {
    "microsoft-base": [],
    "microsoft-large": [EARLY_STOPPING],
    "microsoft-large-ft": [EARLY_STOPPING],
    "onnx-community-base": [],
    "finetune-saved-by-transformers": [
        *(f"config.json: {sentence}" for sentence in WRONG_IDS),
        *(f"generation_config.json: {sentence}" for sentence in WRONG_IDS),
    ],
}
"""Folders of real configs, and what has to be repaired in them."""


@pytest.fixture(scope="module")
def model() -> Florence2ForConditionalGeneration:
    return make_model(GEOMETRY, seed=1)


@pytest.fixture
def native(model: Florence2ForConditionalGeneration, tmp_path: Path) -> Path:
    return save_native(model, tmp_path / "native")


@pytest.fixture
def original(model: Florence2ForConditionalGeneration, tmp_path: Path) -> Path:
    return save_original(model, tmp_path / "original")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write(folder: Path) -> tuple[Path, list[str]]:
    """Writes the assets of the checkpoint in ``folder``, whose weights do not matter here."""
    raw = read(folder / "config.json")
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    checkpoint = Checkpoint(folder, ModelConfig.from_dict(raw), raw, {}, "native")
    return out, write_assets(checkpoint.folder, checkpoint.config, checkpoint.raw_config, out)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(read(path) | values))


def real_folder(shared: Path, tmp_path: Path, config: str, tokenizer: str) -> Path:
    """A checkpoint folder put together from the real files."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for source in (shared / tokenizer, shared / "configs" / config):
        for path in source.glob("*.json"):
            shutil.copy(path, folder)
    return folder


# --- real folders


@pytest.mark.parametrize("tokenizer", ["tokenizer/microsoft", "tokenizer/onnx-community"])
@pytest.mark.parametrize("config", REAL)
def test_real_folders(shared: Path, tmp_path: Path, config: str, tokenizer: str) -> None:
    out, repairs = write(real_folder(shared, tmp_path, config, tokenizer))
    assert repairs == REAL[config]
    assert sorted(path.name for path in out.iterdir()) == sorted(ASSETS)
    generation = read(out / "generation_config.json")
    assert generation.items() >= POLICY.items()
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    assert generation.items() >= ids.items()
    written = read(out / "config.json")
    for section in (written, written["text_config"]):
        for name in ids:
            assert section.get(name, ids[name]) == ids[name]
    assets = Assets.read(out)
    assert assets.preprocessor.size == (768, 768)
    prompts = read(shared / "tokenizer/prompt_ids.json")["ids"]
    for prompt, expected in prompts.items():
        assert assets.tokenizer.encode(prompt) == expected


def test_a_native_folder(shared: Path, tmp_path: Path) -> None:
    folder = real_folder(shared, tmp_path, "native/base", "configs/native/processor")
    out, repairs = write(folder)
    assert repairs == [
        "generation_config.json: the checkpoint does not say how it generates; "
        "the settings of the released models are written"
    ]
    assert read(out / "generation_config.json").items() >= POLICY.items()
    image_token = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json")).token_to_id("<image>")
    assert image_token == 51289
    saved = read(folder / "processor_config.json")["image_processor"]
    written = read(out / "preprocessor_config.json")
    for name in ("size", "image_mean", "image_std", "rescale_factor", "resample"):
        assert written[name] == saved[name]


def test_task_tables_are_the_hubs(shared: Path, tmp_path: Path) -> None:
    out, _ = write(real_folder(shared, tmp_path, "microsoft-base", "tokenizer/microsoft"))
    ours = read(out / "preprocessor_config.json")
    hubs = read(shared / "configs/onnx-community-base/preprocessor_config.json")
    tables = [name for name in hubs if name.startswith("task")]
    assert len(tables) == 3
    assert {name: ours[name] for name in tables} == {name: hubs[name] for name in tables}


@pytest.mark.parametrize("tokenizer", ["tokenizer/microsoft", "configs/native/processor"])
def test_transformers_reads_the_same_tokenizer(
    shared: Path, tmp_path: Path, tokenizer: str
) -> None:
    config = "native/base" if "native" in tokenizer else "microsoft-base"
    out, _ = write(real_folder(shared, tmp_path, config, tokenizer))
    ours, theirs = Assets.read(out).tokenizer, AutoTokenizer.from_pretrained(str(out))
    published = read(shared / "published_outputs.json")["entries"]
    texts = [entry["raw_text"] for entry in published if entry["raw_text"]]
    assert len(texts) > 20
    for text in [*texts, *(task.prompt for task in Task), "a .  b , n't \u4ea4\u901a<loc_5> x"]:
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"]
        decoded = theirs.batch_decode(
            [ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        assert [ours.decode(ids)] == decoded


# --- each file


def test_settings_that_the_runtime_would_refuse(native: Path) -> None:
    change(native / "generation_config.json", num_beams=0)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: num_beams is 0"):
        write(native)


def test_wrong_ids_inside_text_config(native: Path) -> None:
    raw = read(native / "config.json")
    raw["text_config"]["pad_token_id"] = 0
    (native / "config.json").write_text(json.dumps(raw))
    out, repairs = write(native)
    assert repairs == ["config.json: text_config: pad_token_id was 0, is 1 (<pad>)"]
    assert read(out / "config.json")["text_config"]["pad_token_id"] == 1


def test_a_tokenizer_that_does_not_fit_the_weights(native: Path) -> None:
    raw = read(native / "config.json")
    raw["text_config"]["vocab_size"] = 1000
    (native / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="the token embedding has 1000 rows"):
        write(native)


@pytest.mark.parametrize("save", [save_native, save_original])
def test_what_the_config_says_survives(
    model: Florence2ForConditionalGeneration, tmp_path: Path, save: Callable[..., Path]
) -> None:
    folder = save(model, tmp_path / "checkpoint")
    out, _ = write(folder)
    before, after = read(folder / "config.json"), read(out / "config.json")
    assert ModelConfig.from_dict(after) == ModelConfig.from_dict(before)
    assert after["text_config"]["max_position_embeddings"] == GEOMETRY.max_positions
    assert "auto_map" not in after


def test_the_text_geometry_is_spelled_out(original: Path) -> None:
    raw = read(original / "config.json")
    del raw["text_config"]["max_position_embeddings"]
    (original / "config.json").write_text(json.dumps(raw))
    out, _ = write(original)
    assert read(out / "config.json")["text_config"]["max_position_embeddings"] == 1024


@pytest.mark.parametrize("save", [save_native, save_original])
def test_only_generation_config_says_how_to_generate(
    model: Florence2ForConditionalGeneration, tmp_path: Path, save: Callable[..., Path]
) -> None:
    """A reader that looks into both files must not find another answer in the other."""
    folder = save(model, tmp_path / "checkpoint")
    raw = read(folder / "config.json")
    raw |= {"num_beams": 9, "repetition_penalty": 1.7}
    raw["text_config"] |= {"repetition_penalty": 1.6, "min_length": 9, "top_k": 3}
    (folder / "config.json").write_text(json.dumps(raw))
    out, _ = write(folder)
    generation, config = read(out / "generation_config.json"), read(out / "config.json")
    for section in (config, config["text_config"]):
        assert not section.keys() & set(OPTIONS)
    penalty, least = (1.0, 0) if save is save_native else (1.6, 8)
    assert generation.get("repetition_penalty", 1.0) == penalty
    policy = Assets.read(out).policy
    assert (policy.repetition_penalty, policy.min_new_tokens) == (penalty, least)


def test_nothing_points_to_remote_code(original: Path) -> None:
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        change(original / name, auto_map={"AutoProcessor": "x.y"})
    out, _ = write(original)
    assert not [path.name for path in out.iterdir() if "auto_map" in path.read_text()]


def test_preprocessing_comes_from_the_checkpoint(original: Path) -> None:
    path = original / "preprocessor_config.json"
    change(path, size={"height": 96, "width": 128}, image_mean=[0.5, 0.4, 0.3])
    out, _ = write(original)
    preprocessor = Assets.read(out).preprocessor
    assert preprocessor.size == (96, 128)
    assert preprocessor.mean == (0.5, 0.4, 0.3)
    assert preprocessor.std == (0.229, 0.224, 0.225)
    assert preprocessor.rescale_factor == 1 / 255


def test_a_checkpoint_without_preprocessing(original: Path) -> None:
    (original / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="becomes 24x24 image tokens, which leaves no room"):
        write(original)
    text_config = read(original / "config.json")["text_config"]
    change(original / "config.json", text_config=text_config | {"max_position_embeddings": 1024})
    out, repairs = write(original)
    assert repairs[1:] == [
        "preprocessor_config.json: the checkpoint has none; "
        "the size and constants of the released models are written"
    ]
    assert Assets.read(out).preprocessor.size == (768, 768)


def test_preprocessing_that_the_runtime_would_refuse(original: Path) -> None:
    change(original / "preprocessor_config.json", resample=2)
    with pytest.raises(CheckpointError, match="resample is 2"):
        write(original)


@pytest.mark.parametrize(("size", "fits"), [(1600, True), (1601, False), (0, False)])
def test_pictures_that_the_position_tables_do_not_cover(
    original: Path, size: int, fits: bool
) -> None:
    change(original / "preprocessor_config.json", size={"height": 64, "width": size})
    if fits:
        write(original)
    else:
        with pytest.raises(CheckpointError, match=r"position tables|size"):
            write(original)


@pytest.mark.parametrize(
    "name",
    [
        *("generation_config.json", "processor_config.json", "preprocessor_config.json"),
        *("tokenizer_config.json", "tokenizer.json", "added_tokens.json"),
    ],
)
def test_a_link_to_nothing_is_no_file_left_out(native: Path, name: str) -> None:
    """As in a copy of a snapshot of the hub's cache without what its links point to."""
    (native / "processor_config.json").rename(native / "preprocessor_config.json")
    (native / name).unlink(missing_ok=True)
    (native / name).symlink_to(native / "blobs" / "0123")
    with pytest.raises(CheckpointError, match=f"{name} (is missing|does not exist)"):
        write(native)


def test_other_readers_find_a_bart_tokenizer(native: Path) -> None:
    out, _ = write(native)
    config = read(out / "tokenizer_config.json")
    assert config["tokenizer_class"] == "BartTokenizer"
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == (
        "<s>",
        "</s>",
        "<pad>",
    )
