"""The tokenizer: ids and texts of the real files, and files that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from florence_onnx.errors import TokenizerError
from florence_onnx.tokenizer import Tokenizer
from tests.helpers.tokenizers import BART_SIZE, make_tokenizer

REAL = ("tokenizer/onnx-community/tokenizer.json", "configs/native/processor/tokenizer.json")
PROMPT = "What does the region <loc_0><loc_12><loc_998><loc_999> describe?"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make_tokenizer(tmp_path)


@pytest.mark.parametrize("file", REAL)
def test_prompts_have_the_published_ids(shared: Path, file: str) -> None:
    tokenizer = Tokenizer.from_file(shared / file)
    prompts = json.loads((shared / "tokenizer/prompt_ids.json").read_text())["ids"]
    assert prompts
    for prompt, ids in prompts.items():
        assert tokenizer.encode(prompt) == ids


@pytest.mark.parametrize("file", REAL)
def test_generated_ids_have_the_published_texts(shared: Path, file: str) -> None:
    tokenizer = Tokenizer.from_file(shared / file)
    expected = json.loads((shared / "expected_by_transformers.json").read_text())["generation"]
    for entry in expected:
        text = tokenizer.decode(entry["expected_output_ids"])
        if entry["decode_skip_special_tokens"]:
            text = text.replace("<s>", "").replace("</s>", "")
        assert text == entry["expected_generated_text"]


def test_special_ids_of_the_real_tokenizer(shared: Path) -> None:
    tokenizer = Tokenizer.from_file(shared / REAL[0])
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert ids == (0, 1, 2)
    np.testing.assert_array_equal(tokenizer.location_token_ids, np.arange(50269, 51269))


def test_text_and_location_tokens_survive_both_ways(small: Path) -> None:
    tokenizer = Tokenizer.from_file(small)
    ids = tokenizer.encode(PROMPT)
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert set(tokenizer.location_token_ids[[0, 12, 998, 999]]) < set(ids)
    assert tokenizer.decode(ids) == f"<s>{PROMPT}</s>"


def test_decoding_keeps_spaces_unknown_bytes_and_other_scripts(small: Path) -> None:
    tokenizer = Tokenizer.from_file(small)
    text = " two  spaces . n't ? \u4ea4\u901a caf\u00e9 \U0001f697"
    assert tokenizer.decode(tokenizer.encode(text)[1:-1]) == text
    half_a_character = tokenizer.encode("\u00e9")[1:2]
    assert tokenizer.decode(half_a_character) == "\ufffd"


def test_ids_may_be_an_array(small: Path) -> None:
    tokenizer = Tokenizer.from_file(small)
    ids = np.array([2, 0, *tokenizer.location_token_ids[:2], 2])
    assert tokenizer.decode(ids) == "</s><s><loc_0><loc_1></s>"


def test_truncation_and_padding_of_the_file_are_ignored(small: Path) -> None:
    expected = Tokenizer.from_file(small).encode(PROMPT)
    changed = tokenizers.Tokenizer.from_file(str(small))
    changed.enable_truncation(max_length=4)
    changed.enable_padding(length=64)
    changed.save(str(small))
    assert Tokenizer.from_file(small).encode(PROMPT) == expected


def test_a_file_without_post_processor_gives_the_same_ids(small: Path) -> None:
    expected = Tokenizer.from_file(small).encode(PROMPT)
    content = json.loads(small.read_text())
    content["post_processor"] = None
    small.write_text(json.dumps(content))
    assert Tokenizer.from_file(small).encode(PROMPT) == expected


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", ["", "version https://git-lfs", '{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json(:| cannot be read as JSON)"):
        Tokenizer.from_file(path)


def test_a_tokenizer_without_location_tokens(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path, extra_tokens=False)
    with pytest.raises(TokenizerError, match=r"no token <loc_0> and 999 more"):
        Tokenizer.from_file(path)


def test_a_tokenizer_without_one_location_token(small: Path) -> None:
    content = json.loads(small.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<loc_7>"]
    small.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"no token <loc_7>;"):
        Tokenizer.from_file(small)


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>"])
def test_a_tokenizer_without_a_special_token(small: Path, token: str) -> None:
    small.write_text(small.read_text().replace(json.dumps(token), '"<gone>"'))
    with pytest.raises(TokenizerError, match=f"no token {token};"):
        Tokenizer.from_file(small)


def test_the_small_tokenizer_is_laid_out_like_the_real_one(small: Path) -> None:
    tokenizer = Tokenizer.from_file(small)
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert ids == (0, 1, 2)
    assert tokenizer.location_token_ids[0] == BART_SIZE + 4


def random_ids(size: int, seed: int) -> list[int]:
    """Any tokens at all: most are parts of characters of no script, or special."""
    return [int(i) for i in np.random.default_rng(seed).integers(0, size, 60)]


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_where_the_tokens_stand(small: Path, seed: int) -> None:
    tokenizer = Tokenizer.from_file(small)
    size = int(tokenizer.location_token_ids.max()) + 1
    letters = " a caf\u00e9 \u4ea4\u901a<loc_7><loc_8> \U0001f697</s>"
    for ids in (random_ids(size, seed), tokenizer.encode(letters[seed % 7 :])):
        text, spans = tokenizer.decode(ids), tokenizer.spans(ids)
        assert len(spans) == len(ids)
        assert (spans[0][0], spans[-1][1]) == (0, len(text))
        for i, (start, end) in enumerate(spans):
            # Text is only told apart where no character has been begun.
            before, until = tokenizer.decode(ids[:i]), tokenizer.decode(ids[: i + 1])
            if not before.endswith("\ufffd"):
                assert start == len(before)
            if not until.endswith("\ufffd"):
                assert text[start:end] == until[start:]


def test_a_character_belongs_to_all_tokens_that_make_it(small: Path) -> None:
    tokenizer = Tokenizer.from_file(small)
    ids = tokenizer.encode("a\U0001f697b")[1:-1]
    assert len(ids) > 3, "the car is one token"
    assert tokenizer.spans(ids) == [(0, 1), *[(1, 2)] * (len(ids) - 2), (2, 3)]


@pytest.mark.parametrize("file", REAL)
def test_spans_of_the_published_answers(shared: Path, file: str) -> None:
    tokenizer = Tokenizer.from_file(shared / file)
    expected = json.loads((shared / "expected_by_transformers.json").read_text())["generation"]
    for entry in expected:
        ids = entry["expected_output_ids"]
        text = tokenizer.decode(ids)
        spans = tokenizer.spans(ids)
        assert sorted({at for span in spans for at in range(*span)}) == list(range(len(text)))
        for token, (start, end) in zip(ids, spans, strict=True):
            alone = tokenizer.decode([token])
            assert text[start:end] == alone or "\ufffd" in alone
