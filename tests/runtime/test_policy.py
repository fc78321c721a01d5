import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from florence_onnx.errors import GenerationError, ModelFileError
from florence_onnx.generation.checkpoint_policy import read_policy
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.tokenizer import Tokenizer

TOKENIZER = cast(Tokenizer, SimpleNamespace(bos_token_id=0, pad_token_id=1, eos_token_id=2))
RELEASED = {
    "num_beams": 3,
    "early_stopping": True,
    "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "decoder_start_token_id": 2,
}
TEXT_CONFIG = RELEASED | {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


def from_config(
    generation_config: dict[str, Any], text_config: dict[str, Any], max_positions: int = 1024
) -> GenerationPolicy:
    # The ids at the top level of many fine-tunes are wrong.
    config = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "text_config": text_config}
    return read_policy(generation_config, config, TOKENIZER, max_positions, 51289)


@pytest.fixture
def policy() -> GenerationPolicy:
    return from_config({}, TEXT_CONFIG)


def test_what_the_generation_config_leaves_out_is_in_the_text_config() -> None:
    released = from_config({}, TEXT_CONFIG)
    assert released == from_config(RELEASED, {})
    assert {name: getattr(released, name) for name in RELEASED} == RELEASED
    large = from_config({"num_beams": 5, "early_stopping": False}, TEXT_CONFIG)
    assert large == dataclasses.replace(released, num_beams=5, early_stopping=False)


def test_the_rest_is_as_in_transformers_and_up_to_the_last_position() -> None:
    policy = from_config({}, {}, max_positions=77)
    assert policy.max_new_tokens == policy.max_positions == 77
    assert policy.decoder_start_token_id == policy.eos_token_id == 2
    assert (policy.bos_token_id, policy.pad_token_id) == (0, 1)
    assert (policy.num_beams, policy.early_stopping, policy.length_penalty) == (1, False, 1.0)
    assert (policy.no_repeat_ngram_size, policy.min_new_tokens) == (0, 0)
    assert policy.forced_bos_token_id is policy.forced_eos_token_id is None


def test_null_switches_a_forced_token_off_and_else_says_nothing() -> None:
    policy = from_config({"forced_bos_token_id": None, "num_beams": None}, TEXT_CONFIG)
    assert policy.forced_bos_token_id is None
    assert policy.forced_eos_token_id == 2
    assert policy.num_beams == 3


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_ids_that_are_not_the_tokenizers_are_refused(name: str) -> None:
    with pytest.raises(ModelFileError, match=f"{name} is 9, but . in tokenizer.json; export"):
        from_config({name: 9}, TEXT_CONFIG)


def test_a_bad_value_in_a_file_names_the_file() -> None:
    with pytest.raises(ModelFileError, match=r"generation_config.json: num_beams is 'three'"):
        from_config({"num_beams": "three"}, TEXT_CONFIG)


@pytest.mark.parametrize("folder", ["microsoft-base", "microsoft-large", "microsoft-large-ft"])
def test_released_configs(shared: Path, folder: str) -> None:
    files = {}
    for name in ("config", "generation_config"):
        path = shared / "configs" / folder / f"{name}.json"
        files[name] = json.loads(path.read_text()) if path.is_file() else {}
    positions = files["config"]["text_config"]["max_position_embeddings"]
    policy = read_policy(files["generation_config"], files["config"], TOKENIZER, positions, 51289)
    expected = RELEASED | {"early_stopping": folder == "microsoft-base"}
    assert {name: getattr(policy, name) for name in RELEASED} == expected
    assert policy.max_new_tokens == positions


def test_a_fine_tune_with_wrong_ids(shared: Path) -> None:
    folder = shared / "configs" / "finetune-saved-by-transformers"
    config = json.loads((folder / "config.json").read_text())
    saved = json.loads((folder / "generation_config.json").read_text())
    with pytest.raises(ModelFileError, match=r"bos_token_id is 2, but 0 in tokenizer\.json"):
        read_policy(saved, config, TOKENIZER, 1024, 51289)
    right = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    assert read_policy(saved | right, config, TOKENIZER, 1024, 51289) == from_config(
        {}, TEXT_CONFIG
    )


def test_lengths_count_the_start_token() -> None:
    policy = from_config({"max_length": 20, "min_length": 5}, TEXT_CONFIG)
    assert (policy.max_new_tokens, policy.min_new_tokens) == (19, 4)
    policy = from_config({"max_length": 20, "max_new_tokens": 30, "min_length": 0}, TEXT_CONFIG)
    assert (policy.max_new_tokens, policy.min_new_tokens) == (30, 0)
    policy = from_config({"max_length": 20}, TEXT_CONFIG | {"max_new_tokens": 30})
    assert policy.max_new_tokens == 19
    policy = from_config({}, TEXT_CONFIG | {"max_length": 1025, "max_new_tokens": None})
    assert policy.max_new_tokens == 1024


def test_a_length_that_transformers_wrote_unasked_is_none() -> None:
    """Its defaults are in the nested sections of what transformers 4 saved."""
    dumped = TEXT_CONFIG | {"max_length": 20, "typical_p": 1.0, "num_beam_groups": 1}
    assert from_config({}, dumped).max_new_tokens == 1024
    assert from_config({}, dumped | {"max_length": 21}).max_new_tokens == 20
    assert from_config({}, TEXT_CONFIG | {"max_length": 20}).max_new_tokens == 19
    assert from_config({"max_length": 20}, dumped).max_new_tokens == 19


def test_a_least_length_beyond_the_most_is_the_most() -> None:
    policy = from_config({"max_length": 20, "min_length": 56}, TEXT_CONFIG)
    assert (policy.max_new_tokens, policy.min_new_tokens) == (19, 19)
    assert policy.replace(max_new_tokens=5).min_new_tokens == 5
    with pytest.raises(GenerationError, match="min_new_tokens is 6; it must be at most 5"):
        policy.replace(max_new_tokens=5, min_new_tokens=6)


def test_lists_of_ids() -> None:
    policy = from_config(
        {"eos_token_id": [50, 2, 50], "forced_eos_token_id": [2], "forced_bos_token_id": [9, 4]},
        TEXT_CONFIG,
    )
    assert (policy.eos_token_id, policy.ends) == ((2, 50), (2, 50))
    assert (policy.forced_eos_token_id, policy.last_tokens) == (2, (2,))
    assert policy.first_tokens == (4, 9)
    assert from_config({"eos_token_id": [2]}, TEXT_CONFIG).eos_token_id == 2
    assert policy.replace(suppress_tokens=[9]).first_tokens == (4,)
    with pytest.raises(ModelFileError, match=r"eos_token_id is \[50\], but 2 in tokenizer.json"):
        from_config({"eos_token_id": [50]}, TEXT_CONFIG)


def test_lists_become_tuples_and_a_bias_may_be_a_mapping(policy: GenerationPolicy) -> None:
    changed = policy.replace(
        bad_words_ids=[[1, 2], (np.int64(3),)],
        suppress_tokens=None,
        begin_suppress_tokens=range(3),
        sequence_bias={(5, 6): 1, (7,): -2.5},
        exponential_decay_length_penalty=[4, 1],
    )
    assert changed.bad_words_ids == ((1, 2), (3,))
    assert (changed.suppress_tokens, changed.begin_suppress_tokens) == ((), (0, 1, 2))
    assert changed.sequence_bias == (((5, 6), 1.0), ((7,), -2.5))
    assert changed.exponential_decay_length_penalty == (4, 1.0)
    assert len({changed, policy}) == 2
    pairs = changed.replace(sequence_bias=[[[5, 6], 9.0], [[7], -2.5], [[5, 6], 1.0]])
    assert pairs == changed


def test_replace_changes_what_it_is_told(policy: GenerationPolicy) -> None:
    changed = policy.replace(
        num_beams=np.int64(4), early_stopping="never", length_penalty=0, forced_bos_token_id=None
    )
    assert (changed.num_beams, changed.early_stopping) == (4, "never")
    assert (changed.length_penalty, changed.forced_bos_token_id) == (0, None)
    assert changed.no_repeat_ngram_size == policy.no_repeat_ngram_size == 3
    assert policy.replace() == policy
    assert policy.replace(max_new_tokens=1024).max_new_tokens == 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; it must be at least 1"),
        ({"num_beams": 257}, "num_beams is 257; it must be at most 256"),
        ({"num_beams": 1_000_000}, "num_beams is 1000000; it must be at most 256"),
        ({"num_beams": True}, "num_beams is True; it must be a whole number"),
        ({"num_beams": 2.0}, "num_beams is 2.0; it must be a whole number"),
        ({"num_beams": None}, "num_beams is None; it must be a whole number"),
        ({"num_return_sequences": 4}, "num_return_sequences is 4; it must be at most 3, num_beams"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0; it must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"max_new_tokens": 1025}, "max_new_tokens is 1025; it must be at most 1024, the position"),
        ({"max_new_tokens": "9"}, "max_new_tokens is '9'; it must be a whole number"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1; it must be at least 0"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens is 9; it must be at most 8"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1; it must be at least 0"),
        ({"early_stopping": "always"}, "early_stopping is 'always'; it must be True, False or"),
        ({"early_stopping": 1}, "early_stopping is 1; it must be True, False or"),
        ({"length_penalty": math.nan}, "length_penalty is nan; it must be a number from -8.0 to"),
        ({"length_penalty": 9}, "length_penalty is 9; it must be a number from -8.0 to 8.0"),
        ({"length_penalty": "1"}, "length_penalty is '1'; it must be a number"),
        ({"length_penalty": True}, "length_penalty is True; it must be a number"),
        ({"forced_bos_token_id": "<s>"}, "forced_bos_token_id is '<s>'; it must be a token id or"),
        ({"forced_eos_token_id": -1}, "forced_eos_token_id is -1; it must be at least 0"),
        (
            {"max_length": 1},
            "max_length is 1; it must be a whole number from 2 to 1025, as the start",
        ),
        ({"max_length": "9"}, "max_length is '9'; it must be a whole number from 2"),
        ({"min_length": -1}, "min_length is -1; it must be a whole number from 0 to 1025"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be a number from 0.001 to"),
        ({"encoder_repetition_penalty": 10**400}, "encoder_repetition_penalty is 1000"),
        ({"encoder_no_repeat_ngram_size": -1}, "encoder_no_repeat_ngram_size is -1; it must be at"),
        (
            {"bad_words_ids": [[]]},
            r"bad_words_ids is \[\[\]\]; it must be a list of lists of token",
        ),
        (
            {"bad_words_ids": [3]},
            r"bad_words_ids is \[3\]; it must be a list of lists of token ids",
        ),
        ({"suppress_tokens": 3}, "suppress_tokens is 3; it must be a list of token ids"),
        ({"suppress_tokens": "33"}, "suppress_tokens is '33'; it must be a list of token ids"),
        ({"begin_suppress_tokens": [-1]}, r"begin_suppress_tokens is \[-1\]; it must be a list of"),
        (
            {"sequence_bias": {(3,): "x"}},
            "sequence_bias is .*; it must be pairs of a list of token",
        ),
        ({"sequence_bias": [[[3], 1e9]]}, "sequence_bias is .*; it must be pairs of a list of tok"),
        (
            {"exponential_decay_length_penalty": 3},
            "penalty is 3; it must be a number of tokens",
        ),
        ({"renormalize_logits": 1}, "renormalize_logits is 1; it must be True or False"),
        ({"eos_token_id": None}, "eos_token_id is None; it must be a token id or a list of them"),
        ({"eos_token_id": []}, r"eos_token_id is \[\]; it must be a token id or a list of them"),
        (
            {"forced_bos_token_id": [0, 60000]},
            "forced_bos_token_id is 60000; it must be below",
        ),
        ({"suppress_tokens": [0, 1]}, "forced_bos_token_id is 0, which suppress_tokens forbids"),
        ({"do_sample": True}, "unknown generation option 'do_sample'; valid are"),
        ({"beams": 3}, "unknown generation option 'beams'; valid are bos_token_id, .*num_beams"),
        ({"max_positions": 9}, "unknown generation option 'max_positions'"),
    ],
)
def test_bad_options(policy: GenerationPolicy, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        policy.replace(**options)


def test_a_policy_is_a_value(policy: GenerationPolicy) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.num_beams = 1  # type: ignore[misc]
    assert hash(policy) == hash(from_config({}, TEXT_CONFIG))
