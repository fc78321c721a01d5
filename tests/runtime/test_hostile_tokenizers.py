"""Tokenizer files of strangers: read or refused, without a panic and without gigabytes."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from florence_onnx.assets.reading import Assets
from florence_onnx.errors import TaskError, TokenizerError
from florence_onnx.tokenizer import LONGEST_TOKEN, Tokenizer
from florence_onnx.tokenizer_file import library_errors
from tests.helpers.tiny import TINY, copy_tiny

CONTENT: dict[str, Any] = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
TEXT = "What is \u00e9 in <loc_1>?"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
ONE_PIECE = {"Sequence": {"id": "A", "type_id": 0}}


def saved(folder: Path, **changes: Any) -> Path:
    """The tiny model's tokenizer with other parts; ``model_NAME`` is NAME of its model."""
    content = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        if name.startswith("model_"):
            content["model"][name.removeprefix("model_")] = value
        else:
            content[name] = value
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def vocabulary(**more: Any) -> dict[str, Any]:
    return {**CONTENT["model"]["vocab"], **more}


def added(**change: Any) -> list[dict[str, Any]]:
    token = {"id": 1424, "content": "<new>", "special": True, "normalized": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return [*CONTENT["added_tokens"], token | flags | change]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        # Each multiplies its input; in a row they do it exponentially.
        ({"normalizer": {"type": "Prepend", "prepend": "x" * 1_000_000}}, "normalizer.type"),
        (
            {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 999}},
            "normalizer.type",
        ),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 40}},
            "normalizer.type",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            "normalizer.type",
        ),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 40}},
            "pre_tokenizer.type",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+b"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "pre_tokenizer.type",
        ),
        (
            {"decoder": {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 999}},
            "decoder.type",
        ),
        ({"decoder": None}, "decoder.type"),
        ({"pre_tokenizer": [BYTE_LEVEL]}, "pre_tokenizer"),
        ({"model_type": "WordPiece"}, "model.type"),
        ({"model": None}, "model.vocab"),
        ({"model": 3}, "model"),
        # The library panics on these.
        ({"model_continuing_subword_prefix": "xxxxx"}, "model.continuing_subword_prefix"),
        ({"model_continuing_subword_prefix": "\u00e9"}, "model.continuing_subword_prefix"),
        ({"model_end_of_word_suffix": "</w>"}, "model.end_of_word_suffix"),
        # Another answer at every call.
        ({"model_dropout": 0.5}, "model.dropout"),
        ({"model_dropout": True}, "model.dropout"),
        ({"model_unk_token": "<nope>"}, "model.unk_token"),
        ({"model_unk_token": ["<s>"]}, "model.unk_token"),
        ({"model_vocab": []}, "model.vocab"),
        ({"model_vocab": vocabulary(x=-1)}, "model.vocab"),
        ({"model_vocab": vocabulary(x=1 << 31)}, "model.vocab"),
        ({"model_vocab": vocabulary(x=True)}, "model.vocab"),
        ({"model_vocab": vocabulary(x="1")}, "model.vocab"),
        ({"model_vocab": vocabulary(x=10**400)}, "model.vocab.x"),
        ({"added_tokens": {}}, "added_tokens"),
        ({"added_tokens": ["<s>"]}, "added_tokens"),
        ({"added_tokens": added(content=None)}, "added_tokens"),
        ({"added_tokens": added(content="\ud800")}, "added_tokens.1029.content"),
    ],
)
def test_parts_that_florence_has_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], field: str
) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: {field} ") as error:
        Tokenizer.from_file(path)
    assert len(str(error.value)) < 400 + len(str(tmp_path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_merges": [["<s>", "</s>"], ["z", "nope"]]}, "is not a tokenizer of the tokeniz"),
        ({"model_vocab": {}}, "is not a tokenizer of the tokenizers library"),
        ({"version": "9"}, "is not a tokenizer of the tokenizers library"),
        ({"added_tokens": added(id="1")}, "is not a tokenizer of the tokenizers library"),
        ({"model_vocab": vocabulary(**{"x" * 1001: 5})}, "has a token of 1001 characters"),
        ({"added_tokens": added(content="x" * 10_000)}, "has a token of 10000 characters"),
        ({"model_vocab": vocabulary(**{"</s>": 0})}, "gives one id to several of"),
    ],
)
def test_tokens_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json {message}"):
        Tokenizer.from_file(saved(tmp_path, **changes))


@pytest.mark.parametrize(
    "post_processor",
    [
        {"type": "TemplateProcessing", "single": [ONE_PIECE] * 10_000, "pair": []},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}]},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}]},
        {"type": "RobertaProcessing", "sep": ["</s>", 9], "cls": ["<s>", 9]},
        {"type": "BertProcessing", "sep": ["</s>", 9], "cls": ["<s>", 9]},
        None,
    ],
)
def test_templates_are_not_followed(tmp_path: Path, post_processor: dict[str, Any] | None) -> None:
    """They repeat the text, or panic; the frame of Florence-2's prompts is always the same."""
    defaults = {"trim_offsets": True, "add_prefix_space": False, "pair": [], "special_tokens": {}}
    whole = None if post_processor is None else defaults | post_processor
    tokenizer = Tokenizer.from_file(saved(tmp_path, post_processor=whole))
    assert tokenizer.encode(TEXT) == Tokenizer.from_file(TINY / "tokenizer.json").encode(TEXT)


def test_truncation_and_padding_on_which_the_library_panics(tmp_path: Path) -> None:
    strategy = {"direction": "Right", "strategy": "LongestFirst"}
    padding = {"direction": "Right", "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"}
    path = saved(
        tmp_path,
        truncation=strategy | {"max_length": 4, "stride": 4},
        padding=padding | {"strategy": {"Fixed": 1_000_000_000}, "pad_to_multiple_of": 0},
    )
    expected = Tokenizer.from_file(TINY / "tokenizer.json").encode(TEXT)
    assert Tokenizer.from_file(path).encode(TEXT) == expected


def test_a_panic_is_an_error() -> None:
    template = {"Sequence": {"id": "B", "type_id": 0}}
    processor = {"type": "TemplateProcessing", "single": [template], "pair": []}
    content = CONTENT | {"post_processor": processor | {"special_tokens": {}}}
    panicking = tokenizers.Tokenizer.from_str(json.dumps(content))
    message = r"^it cannot: index out of bounds"
    with pytest.raises(TokenizerError, match=message) as error, library_errors("it cannot"):
        panicking.encode(TEXT)
    assert not isinstance(error.value.__cause__, Exception)


def test_an_interrupt_is_no_error_of_the_tokenizer() -> None:
    with pytest.raises(KeyboardInterrupt), library_errors("it cannot"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("ids", [[-1], [1 << 32], [0, 10**30]])
def test_numbers_that_are_no_ids(ids: list[int]) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot decode ids: "):
        Tokenizer.from_file(TINY / "tokenizer.json").decode(ids)


def test_ids_of_no_token_are_left_out_as_in_transformers() -> None:
    tokenizer = Tokenizer.from_file(TINY / "tokenizer.json")
    assert tokenizer.decode([0, tokenizer.highest_id + 1, 2]) == "<s></s>"


def test_a_tokenizer_with_more_ids_than_the_model(tmp_path: Path) -> None:
    folder = copy_tiny(tmp_path)
    saved(folder, added_tokens=added())
    with pytest.raises(TokenizerError, match=r"ids go up to 1424, but .*vocab_size is 1424"):
        Assets.read(folder)


HOSTILE: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1.5,
        10**9,
        10**39,
        "",
        "x",
        "\x00",
        "<s>",
        "x" * 2000,
        [],
        {},
        [1],
        "NFC",
    ),
    *(BYTE_LEVEL, [BYTE_LEVEL] * 9, {"type": "Replace"}, {"type": "NFKC"}, ["a", "b"], [["a"]]),
]


def damaged(draw: random.Random) -> dict[str, Any]:
    """The tokenizer with some values replaced or removed."""
    content = copy.deepcopy(CONTENT)
    for _ in range(draw.randint(1, 3)):
        place: Any = content
        while True:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
                place = inner
            elif draw.random() < 0.2:
                del place[key]
                break
            else:
                place[key] = copy.deepcopy(draw.choice(HOSTILE))
                break
    return content


def test_damaged_tokenizers_are_read_or_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw, path, read = random.Random(13), tmp_path / "tokenizer.json", 0
    for _ in range(100):
        path.write_text(json.dumps(damaged(draw)), encoding="utf-8")
        try:
            tokenizer = Tokenizer.from_file(path)
        except TokenizerError:
            continue
        ids = tokenizer.encode(TEXT * 100)
        assert len(ids) <= 2 + 2 * len(TEXT.encode()) * 100
        assert len(tokenizer.decode(ids)) <= LONGEST_TOKEN * len(ids)
        read += 1
    assert 10 < read < 90
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a cat \ud83d", "character 6 of the text 'a cat .ud83d' is half of a surrogate pair"),
        ("\udcff", "character 0 of the text"),
        (
            "what is <image>",
            "the text 'what is <image>' holds the special token <image>, which is no text",
        ),
        ("a</s><s>b", "holds the special token <s>, which is no text"),
        ("<pad>" * 3, "holds the special token <pad>, which is no text"),
        ("the <mask> is", "holds the special token <mask>, which is no text"),
        ("?" * 200, "picture and prompt are 207 tokens long; the model has 160 positions"),
        ("?" * 10_000_000, "the prompt has 10000000 characters, which are more tokens than the"),
    ],
)
def test_prompts_that_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as error:
        ASSETS.encode_prompt(prompt)
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


def test_a_prompt_that_a_normalizer_makes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This character becomes 18, and each of these two tokens."""
    copy_tiny(tmp_path)
    saved(tmp_path / "tiny", normalizer={"type": "NFKC"})
    assets = Assets.read(tmp_path / "tiny")
    with pytest.raises(TaskError, match="picture and prompt are"):
        assets.encode_prompt("\ufdfa" * 9)
    with pytest.raises(TaskError, match="half of a surrogate pair"):
        assets.encode_prompt("\ufdfa\ud83d")
    monkeypatch.setattr(Tokenizer, "encode", lambda *rest: pytest.fail("it was encoded"))
    with pytest.raises(TaskError, match="the prompt has 5000 characters, which are more tokens"):
        assets.encode_prompt("\ufdfa" * 5000)


def test_any_other_text_is_a_prompt() -> None:
    for prompt in (
        "\x00\x1b[31m\r\n\t",
        "<image",
        "<loc_1><od></od><sep>",
        "\u202e\U0010ffff",
        "{}",
    ):
        ids = ASSETS.encode_prompt(prompt)
        assert ASSETS.tokenizer.decode(ids[1:-1]) == prompt


ASSETS = Assets.read(TINY)
