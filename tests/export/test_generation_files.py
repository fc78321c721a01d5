"""generation_config.json: the settings that the reference generates with, and right ids."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from florence_onnx.assets.generation_files import generation_config, repair_ids
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.settings import OPTIONS, UNSAID, is_unsaid, notes
from florence_onnx.tokenizer import Tokenizer
from tests.helpers.plain_checkpoints import IDS, POLICY
from tests.helpers.tokenizers import make_tokenizer

NATIVE: dict[str, Any] = {
    "model_type": "florence2",
    "text_config": {"model_type": "bart", "decoder_start_token_id": 2, "forced_eos_token_id": 2},
}
ORIGINAL: dict[str, Any] = {
    "model_type": "florence2",
    "text_config": {**POLICY, **IDS, "decoder_start_token_id": 2},
}
NAMES = (*POLICY, "length_penalty")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_file(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def assert_generates_as(ours: dict[str, Any], reference: GenerationConfig) -> None:
    """Transformers keeps what is not said as None until it generates."""
    unsaid = reference._get_default_generation_params()
    for name in NAMES:
        expected = getattr(reference, name)
        assert ours[name] == (unsaid.get(name) if expected is None else expected), name


@pytest.mark.parametrize(
    "saved",
    [
        {},
        POLICY,
        {"num_beams": 5, "length_penalty": 0.5, "early_stopping": "never"},
        {"num_beams": 2, "forced_bos_token_id": None, "forced_eos_token_id": 2},
    ],
)
def test_a_native_checkpoint_generates_with_its_file_alone(
    tmp_path: Path, tokenizer: Tokenizer, saved: dict[str, Any]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(saved))
    reference = GenerationConfig.from_pretrained(tmp_path)
    config, repairs = generation_config(NATIVE, saved, tokenizer)
    assert repairs == []
    assert_generates_as(config, reference)


def test_a_native_checkpoint_without_file_generates_with_its_config(tokenizer: Tokenizer) -> None:
    config = {**NATIVE, "num_beams": 4, "text_config": {**NATIVE["text_config"], **POLICY}}
    ours, repairs = generation_config(config, None, tokenizer)
    assert repairs == []
    assert_generates_as(ours, GenerationConfig.from_model_config(config))
    assert ours["num_beams"] == 4


@pytest.mark.parametrize(
    "text", [{}, {"num_beams": 1, "no_repeat_ngram_size": 0}, {"early_stopping": False}]
)
def test_an_original_checkpoint_generates_with_the_settings_of_its_language_model(
    tokenizer: Tokenizer, text: dict[str, Any]
) -> None:
    config = {**ORIGINAL, "text_config": ORIGINAL["text_config"] | text}
    saved = {"early_stopping": False, "num_beams": 7}
    ours, repairs = generation_config(config, saved, tokenizer)
    assert_generates_as(ours, GenerationConfig.from_model_config(dict(config["text_config"])))
    beams, early = ours["num_beams"], ours["early_stopping"]
    expected = [f"generation_config.json: num_beams was 7, is {beams} as in text_config"]
    if early:
        expected.append(
            "generation_config.json: early_stopping was False, is True as in text_config"
        )
    assert repairs == expected


def test_a_checkpoint_without_a_word_gets_the_released_settings(tokenizer: Tokenizer) -> None:
    ours, repairs = generation_config(NATIVE, None, tokenizer)
    assert ours == {**POLICY, **IDS, "decoder_start_token_id": 2, "length_penalty": 1.0}
    assert len(repairs) == 1 and "does not say how it generates" in repairs[0]


OF_4_56 = (
    *("constraints", "diversity_penalty", "dola_layers", "force_words_ids", "forced_decoder_ids"),
    *("low_memory", "num_beam_groups", "penalty_alpha", "prefill_chunk_size"),
    *("return_legacy_cache",),
)
"""What transformers 4.56 had and later ones need not have."""


def test_every_setting_of_transformers_is_honoured_reported_or_without_effect() -> None:
    names = {name for name in GenerationConfig().to_dict() if not name.startswith("_")}
    names.update(OF_4_56)
    unknown = [note for note in notes(dict.fromkeys(names, "?")) if "no setting that is" in note]
    assert unknown == []
    honoured = {field.name for field in dataclasses.fields(GenerationPolicy)}
    honoured |= {"max_length", "min_length"}
    for name in UNSAID:
        told = notes({name: "?"})
        assert len(told) == (name not in honoured), name
        assert all(note.startswith(f"generation_config.json: {name} is '?', ") for note in told)


def test_defaults_are_those_of_transformers() -> None:
    """Save the length: nobody wants 20 tokens who has not said so."""
    theirs = GenerationConfig._get_default_generation_params()
    for name in OPTIONS:
        if name != "max_length" and theirs.get(name) is not None:
            assert is_unsaid(name, theirs[name]), name
    assert theirs["max_length"] == 20


@pytest.mark.parametrize("config", [NATIVE, ORIGINAL])
def test_settings_without_effect_are_kept_without_a_word(
    tokenizer: Tokenizer, config: dict[str, Any]
) -> None:
    without = {"use_cache": False, "cache_implementation": "static", "output_scores": True}
    saved = {**POLICY, **without, "temperature": 0.5, "remove_invalid_values": True}
    ours, repairs = generation_config(config, saved, tokenizer)
    assert ours.items() >= without.items()
    assert repairs == notes(ours) == []


@pytest.mark.parametrize(
    ("stored", "kept", "told"),
    [
        ([2], 2, None),
        ([2, 7], [2, 7], None),
        ([7], 2, "generation_config.json: eos_token_id was [7], is 2 (</s>)"),
    ],
)
def test_several_ends(
    tokenizer: Tokenizer, stored: list[int], kept: int | list[int], told: str | None
) -> None:
    ours, repairs = generation_config(NATIVE, {**POLICY, "eos_token_id": stored}, tokenizer)
    assert ours["eos_token_id"] == kept
    assert repairs == ([] if told is None else [told])
    text = {**ORIGINAL["text_config"], "eos_token_id": stored}
    ours, _ = generation_config({**ORIGINAL, "text_config": text}, None, tokenizer)
    assert ours["eos_token_id"] == kept


def test_wrong_ids_are_repaired(tokenizer: Tokenizer) -> None:
    saved = {**POLICY, "bos_token_id": 2, "eos_token_id": [1], "pad_token_id": 0}
    ours, repairs = generation_config(ORIGINAL, saved, tokenizer)
    assert ours.items() >= IDS.items()
    assert repairs == [
        "generation_config.json: bos_token_id was 2, is 0 (<s>)",
        "generation_config.json: eos_token_id was [1], is 2 (</s>)",
        "generation_config.json: pad_token_id was 0, is 1 (<pad>)",
    ]


def test_right_and_absent_ids_are_no_repairs(tokenizer: Tokenizer) -> None:
    section: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": None}
    assert repair_ids(section, "config.json", tokenizer) == []
    assert section == {"bos_token_id": 0, "eos_token_id": None}


def test_other_settings_are_kept_and_bookkeeping_is_not(tokenizer: Tokenizer) -> None:
    bookkeeping = {"_from_model_config": True, "transformers_version": "4.46.3"}
    saved = {**POLICY, "max_new_tokens": 100, **bookkeeping}
    ours, _ = generation_config(NATIVE, saved, tokenizer)
    assert ours["max_new_tokens"] == 100
    assert not bookkeeping.keys() & ours.keys()
