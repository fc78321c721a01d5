"""Checkpoints that say how to generate, in every file: the tokens of transformers' generate."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.generation.search import search
from tests.helpers.checkpoints import GEOMETRY, save_native, save_original
from tests.helpers.plain_checkpoints import IDS, POLICY
from tests.helpers.random_models import make_model
from tests.helpers.torch_steps import TorchSteps

Json = dict[str, Any]
START = {"decoder_start_token_id": 2}
FULL = {**IDS, **POLICY, **START}
PROMPT = [0, 10, 20, 30, 40, 2]


@pytest.fixture(scope="module")
def model() -> Florence2ForConditionalGeneration:
    return make_model(GEOMETRY, 0)


@pytest.fixture(scope="module")
def native(
    model: Florence2ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_native(model, tmp_path_factory.mktemp("native") / "checkpoint")


@pytest.fixture(scope="module")
def original(
    model: Florence2ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return save_original(model, tmp_path_factory.mktemp("original") / "checkpoint")


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[GEOMETRY.image_token_id] * GEOMETRY.image_tokens + PROMPT])
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def change(folder: Path, out: Path, config: Json, text: Json, generation: Json | None) -> Path:
    """A checkpoint like the one in ``folder``, which says other things about generation."""
    out.mkdir()
    for path in folder.iterdir():
        if path.name not in ("config.json", "generation_config.json"):
            (out / path.name).symlink_to(path)
    content = json.loads((folder / "config.json").read_text())
    content |= config
    content["text_config"] |= text
    content["text_config"] = {
        name: value for name, value in content["text_config"].items() if value != "absent"
    }
    (out / "config.json").write_text(json.dumps(content))
    if generation is not None:
        (out / "generation_config.json").write_text(json.dumps(generation))
    return out


def exported(checkpoint: Path) -> tuple[Assets, list[str]]:
    """What the exported folder says, and the repairs."""
    raw = json.loads((checkpoint / "config.json").read_text())
    folder = checkpoint.parent / "exported"
    folder.mkdir()
    repairs = write_assets(checkpoint, ModelConfig.from_dict(raw), raw, folder)
    return Assets.read(folder), repairs


@torch.no_grad()
def ours(
    checkpoint: Path, model: Florence2ForConditionalGeneration
) -> tuple[tuple[int, ...], list[str]]:
    """The tokens of the search with the policy of the exported folder, and the repairs."""
    assets, repairs = exported(checkpoint)
    image = [] if assets.image_token_id is None else [assets.image_token_id]
    read = [*image * GEOMETRY.image_tokens, *PROMPT]
    found = search(TorchSteps(model, inputs()), 1, assets.policy, [read])
    return found[0][0].token_ids, repairs


def theirs(model: Florence2ForConditionalGeneration, **options: Any) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(model.generate(**inputs(), **options)[0].tolist())


GENERATION: dict[str, Json] = {
    "as released": {"max_length": 30},
    "length": {"max_length": 20},
    "two lengths": {"max_length": 20, "max_new_tokens": 33},
    "least length": {"max_length": 40, "min_length": 36},
    "least length beyond the most": {"max_length": 12, "min_length": 36},
    "least new tokens": {"max_new_tokens": 40, "min_new_tokens": 37, "min_length": 2},
    "start": {"max_length": 20, "decoder_start_token_id": 0},
    "start in a list": {"max_length": 20, "decoder_start_token_id": [0]},
    "ends": {"max_length": 60, "eos_token_id": [2, 1357], "min_new_tokens": 7},
    "one end in a list": {"max_length": 20, "eos_token_id": [2]},
    "forced end in a list": {"max_length": 9, "forced_eos_token_id": [2]},
    "forced start off": {"max_length": 20, "forced_bos_token_id": None},
    "another forced start": {"max_length": 20, "forced_bos_token_id": 77},
    "repetition": {"max_length": 30, "repetition_penalty": 1.7, "no_repeat_ngram_size": 0},
    "greedy repetition": {"max_length": 30, "repetition_penalty": 1.7, "num_beams": 1},
    "favoured repetition": {"max_length": 30, "repetition_penalty": 0.6},
    "prompt": {"max_length": 30, "encoder_repetition_penalty": 2.5},
    "greedy prompt": {"max_length": 30, "encoder_repetition_penalty": 2.5, "num_beams": 1},
    "prompt's tokens": {"max_length": 30, "encoder_no_repeat_ngram_size": 1},
    "bad words": {"max_length": 30, "bad_words_ids": [[645], [699, 1357], [204, 499], [2]]},
    "suppressed": {"max_length": 30, "suppress_tokens": [645, 1357, 366]},
    "suppressed at first": {"max_length": 30, "begin_suppress_tokens": [972, 645]},
    "bias": {"max_length": 30, "sequence_bias": [[[1403, 888], -8.0], [[366], 3.0]]},
    "decay": {"max_length": 60, "exponential_decay_length_penalty": [3, 1.02]},
    "normal": {"max_length": 30, "renormalize_logits": True, "repetition_penalty": 1.3},
    "length penalty": {"max_length": 60, "length_penalty": -2.0, "early_stopping": "never"},
    "no numbers": {"max_length": 30, "remove_invalid_values": True},
    "no sampling": {"max_length": 30, "do_sample": False, "temperature": 0.3, "top_k": 3},
}
"""Beside the released settings."""


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning")
@pytest.mark.parametrize("settings", GENERATION.values(), ids=GENERATION)
def test_a_native_checkpoint(
    native: Path, tmp_path: Path, model: Florence2ForConditionalGeneration, settings: Json
) -> None:
    # What the language model's section says does not count beside the file.
    text = {"num_beams": 2, "repetition_penalty": 1.9, "max_length": 11, **START}
    checkpoint = change(native, tmp_path / "checkpoint", {}, text, FULL | settings)
    reference = Florence2ForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(reference)
    assert repairs == []


def test_the_settings_matter(model: Florence2ForConditionalGeneration) -> None:
    """Most of them change the answer, so that equal tokens prove something."""
    released = theirs(model, **FULL, max_length=60)
    same = [
        name
        for name, settings in GENERATION.items()
        if name != "least length beyond the most"
        and released[: len(tokens := theirs(model, **FULL | settings))] == tokens
    ]
    assert len(same) < len(GENERATION) / 2, same


WITHOUT_FILE: dict[str, tuple[Json, Json]] = {
    "config": ({**POLICY, "num_beams": 4, "max_length": 25, "repetition_penalty": 1.5}, {}),
    "text_config": ({}, {**POLICY, "num_beams": 4, "max_length": 25, "repetition_penalty": 1.5}),
    "config first": ({**POLICY, "max_length": 25}, {"num_beams": 2, "max_length": 8}),
    "start": ({**POLICY, "max_length": 25}, {"decoder_start_token_id": 5}),
    "old forced start": (
        {**IDS, "max_length": 25, "force_bos_token_to_be_generated": True},
        {},
    ),
    "no start": ({**POLICY, "max_length": 25}, {"decoder_start_token_id": "absent"}),
}
"""config.json, and text_config in it."""


@pytest.mark.parametrize(("config", "text"), WITHOUT_FILE.values(), ids=WITHOUT_FILE)
def test_a_native_checkpoint_without_generation_config(
    native: Path,
    tmp_path: Path,
    model: Florence2ForConditionalGeneration,
    config: Json,
    text: Json,
) -> None:
    checkpoint = change(native, tmp_path / "checkpoint", config, text, None)
    reference = Florence2ForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(reference)
    assert repairs == []


def test_a_native_checkpoint_without_start(
    native: Path, tmp_path: Path, model: Florence2ForConditionalGeneration
) -> None:
    """Transformers starts from ``<s>`` then, whatever text_config says."""
    generation = {**IDS, **POLICY, "max_length": 25}
    text = {"decoder_start_token_id": 5}
    checkpoint = change(native, tmp_path / "checkpoint", {}, text, generation)
    reference = Florence2ForConditionalGeneration.from_pretrained(checkpoint).eval()
    tokens, _ = ours(checkpoint, model)
    assert tokens == theirs(reference)
    assert tokens[0] == 0


NO_PROMPT = ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning")
@pytest.mark.parametrize("settings", GENERATION.values(), ids=GENERATION)
def test_an_original_checkpoint(
    original: Path, tmp_path: Path, model: Florence2ForConditionalGeneration, settings: Json
) -> None:
    """Its language model generates, with the settings of text_config and no ids of the prompt."""
    text = FULL | settings
    checkpoint = change(original, tmp_path / "checkpoint", {"num_beams": 2}, text, {"num_beams": 7})
    options = {name: value for name, value in text.items() if name not in NO_PROMPT}
    reference = GenerationConfig.from_model_config(options)
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(model, generation_config=reference)
    beams = text["num_beams"]
    assert repairs == [
        *(
            f"generation_config.json: {name} {text[name]} in text_config is left out: "
            "it has no effect in Microsoft's code"
            for name in NO_PROMPT
            if name in text
        ),
        f"generation_config.json: num_beams was 7, is {beams} as in text_config",
    ]


def test_what_original_text_configs_leave_out(
    original: Path, tmp_path: Path, model: Florence2ForConditionalGeneration
) -> None:
    """Microsoft's code starts from and ends with ``</s>`` then."""
    text = {"decoder_start_token_id": "absent", "forced_eos_token_id": "absent", "max_length": 9}
    checkpoint = change(original, tmp_path / "checkpoint", {}, text, None)
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(model, **FULL, max_length=9)
    assert repairs == []


def test_the_old_name_of_a_forced_start(
    original: Path, tmp_path: Path, model: Florence2ForConditionalGeneration
) -> None:
    text = {"forced_bos_token_id": "absent", "force_bos_token_to_be_generated": True}
    checkpoint = change(original, tmp_path / "checkpoint", {}, text | {"max_length": 20}, None)
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(model, **FULL, max_length=20)
    assert repairs == []


def test_what_overrules_generation_config(
    original: Path, tmp_path: Path, model: Florence2ForConditionalGeneration
) -> None:
    generation = {
        "max_new_tokens": 9,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "decoder_start_token_id": 0,
        "length_penalty": None,
        "do_sample": True,
        "use_cache": False,
    }
    checkpoint = change(original, tmp_path / "checkpoint", {}, {"max_length": 30}, generation)
    tokens, repairs = ours(checkpoint, model)
    assert tokens == theirs(model, **FULL, max_length=30)
    assert sorted(repairs) == [
        "generation_config.json: decoder_start_token_id was 0, is 2 as in text_config",
        "generation_config.json: do_sample was True, is False as in text_config",
        "generation_config.json: max_new_tokens was 9, is None as in text_config",
        "generation_config.json: repetition_penalty was 1.3, is 1.0 as in text_config",
    ]


UNSUPPORTED: Json = {
    "do_sample": True,
    "num_beam_groups": 3,
    "diversity_penalty": 0.5,
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "constraints": [1],
    "force_words_ids": [[5]],
    "forced_decoder_ids": [[1, 5]],
    "guidance_scale": 1.5,
    "token_healing": True,
    "watermarking_config": {"bias": 2.5},
    "stop_strings": ["."],
    "max_time": 1.5,
}


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize("form", ["native", "original"])
def test_what_is_not_supported_is_reported(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, name: str
) -> None:
    """At export, and at load."""
    setting = {name: UNSUPPORTED[name]}
    text, file = ({}, FULL | setting) if form == "native" else (setting, None)
    saved = request.getfixturevalue(form)
    assets, repairs = exported(change(saved, tmp_path / "checkpoint", {}, text, file))
    assert len(repairs) == 1
    value = UNSUPPORTED[name]
    begin = f"generation_config.json: {name} is {value!r}, which is not supported: "
    assert repairs[0].startswith(begin)
    assert list(assets.notes) == repairs


@pytest.mark.parametrize(
    ("setting", "value", "kept"),
    [
        *(("max_length", 4000, 321), ("max_new_tokens", 5000, 320)),
        *(("min_length", 322, 321), ("min_new_tokens", 10**30, 320)),
    ],
)
def test_a_limit_beyond_the_positions(
    native: Path, tmp_path: Path, setting: str, value: int, kept: int
) -> None:
    """Transformers fails where it gets there."""
    checkpoint = change(native, tmp_path / "checkpoint", {}, {}, FULL | {setting: value})
    assets, repairs = exported(checkpoint)
    assert repairs == [
        f"generation_config.json: {setting} was {value}, is {kept}, "
        "as far as the positions of the decoder reach"
    ]
    assert assets.policy.max_new_tokens == 320
