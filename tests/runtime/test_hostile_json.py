"""JSON files of strangers: whatever a field holds, it is read or refused by name, and quickly."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.errors import CheckpointError, FlorenceError, ModelFileError
from florence_onnx.files import parse_json, read_json, refuse_lfs_pointer
from florence_onnx.generation.checkpoint_policy import read_policy
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.images.preprocessor import Preprocessor
from florence_onnx.tokenizer import Tokenizer
from tests.helpers.tiny import TINY, change_json, copy_tiny

CONFIG, GENERATION, PREPROCESSOR = (
    json.loads((TINY / name).read_text(encoding="utf-8"))
    for name in ("config.json", "generation_config.json", "preprocessor_config.json")
)
NO_COUNT: tuple[Any, ...] = (
    True,
    False,
    -1,
    1.5,
    10**9,
    10**39,
    -(10**39),
    "2",
    "",
    [],
    [1],
    {},
    1e300,
)
"""Never what a size or an id is."""
NO_LENGTH = tuple(value for value in NO_COUNT if type(value) is not int or value < 1)
"""A length beyond the decoder's positions is cut, however large it is."""
NO_BOOLEAN: tuple[Any, ...] = (0, 1, 2, "true", "false", [], {}, 1.0)
NO_NUMBER: tuple[Any, ...] = (True, "1", [], {}, 10**39, -1, 0, 0.0, 1e300, -1e300, 1e-300, 5e-324)
"""Never what a positive factor is."""
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


NATIVE = copy.deepcopy(CONFIG)
"""The same model in transformers' own format."""
NATIVE["text_config"]["model_type"] = "bart"
NATIVE["vision_config"] |= {
    "model_type": "florence_vision",
    "embed_dim": NATIVE["vision_config"].pop("dim_embed"),
    **NATIVE["vision_config"].pop("image_pos_embed"),
    **NATIVE["vision_config"].pop("visual_temporal_embedding"),
}
NATIVE["vision_config"]["max_position_embeddings"] = NATIVE["vision_config"].pop(
    "max_pos_embeddings"
)
ORIGINAL_NAMES = {
    "vision_config.embed_dim": "vision_config.dim_embed",
    "vision_config.max_position_embeddings": "vision_config.image_pos_embed.max_pos_embeddings",
    "vision_config.max_temporal_embeddings": (
        "vision_config.visual_temporal_embedding.max_temporal_embeddings"
    ),
    "tie_word_embeddings": "text_config.tie_word_embeddings",
}
"""Where the original format has a field under another name."""


def config_fields() -> Iterator[tuple[str, object]]:
    """Fields of config.json, each with what it may not be."""
    for name in (
        *("vocab_size", "d_model", "encoder_layers", "decoder_layers", "max_position_embeddings"),
        *("encoder_attention_heads", "decoder_attention_heads"),
        *("encoder_ffn_dim", "decoder_ffn_dim"),
    ):
        for value in (*NO_COUNT, 0):
            yield f"text_config.{name}", value
    for name in (
        *("window_size", "projection_dim", "max_position_embeddings", "max_temporal_embeddings"),
    ):
        for value in (*NO_COUNT, 0):
            yield f"vision_config.{name}", value
    for name in (
        *("depths", "embed_dim", "num_heads", "num_groups"),
        *("patch_size", "patch_stride", "patch_padding"),
    ):
        for value in (*(one for one in NO_COUNT if one != [1]), 3, [4, 2, 2]):
            yield f"vision_config.{name}", value
        for value in (True, -1, 1.5, 10**9, 10**39, "2", [], None):
            yield f"vision_config.{name}", [4, value, 2, 2]
        yield f"vision_config.{name}", [1] * 100_000
    for value in (*NO_BOOLEAN, [True], [False, True, True, 1]):
        yield "vision_config.patch_prenorm", value
    for value in NO_NUMBER:
        yield "vision_config.mlp_ratio", value
    for name in ("vision_config.qkv_bias", "text_config.scale_embedding", "tie_word_embeddings"):
        for value in NO_BOOLEAN:
            yield name, value
    for name in ("text_config", "vision_config"):
        for value in (True, 3, "bart", [], [1]):
            yield name, value
        for value in (True, 3, "tanh", "\x1b[31m", [], {}, "x" * 100_000):
            yield f"{name}.activation_function", value
            yield f"{name}.model_type", value
    for value in (True, 1, "bart", [], {}):
        yield "model_type", value
    yield "vision_config.in_channels", True
    yield "vision_config.patch_stride", [8, 8, 8, 8]


def generation_fields() -> Iterator[tuple[str, object]]:
    for name in ("num_beams", "num_return_sequences"):
        for value in (*NO_COUNT, 0, 1_000_000):
            yield name, value
    for value in (*NO_LENGTH, 0):
        yield "max_new_tokens", value
    for value in NO_LENGTH:
        yield "min_new_tokens", value
    for value in (one for one in NO_COUNT if one != [1]):
        yield "decoder_start_token_id", value
    vocabulary = CONFIG["text_config"]["vocab_size"]
    yield "decoder_start_token_id", vocabulary
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        for value in (*(one for one in NO_COUNT if one != [1]), vocabulary):
            yield name, value
            yield name, [0, value]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for value in (*(one for one in NO_COUNT if not isinstance(one, bool)), 9, [9]):
            yield name, value
    for value in (*(one for one in NO_COUNT if one != [1]), vocabulary):
        yield "eos_token_id", [2, value]
    for value in (*NO_LENGTH, 0, 1):
        yield "max_length", value
    for value in NO_LENGTH:
        yield "min_length", value
    for value in (True, -1, 1.5, "3", [], {}):
        yield "encoder_no_repeat_ngram_size", value
    for name in ("repetition_penalty", "encoder_repetition_penalty"):
        for value in NO_NUMBER:
            yield name, value
    for value in (True, 3, "3", {}, [3], [3, 1.1, 1], [-1, 1.1], [3, "1"], [3, 1e300], [1.5, 1]):
        yield "exponential_decay_length_penalty", value
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        for value in (True, 3, "3", [-1], [[3]], [True], [1.5], ["3"], [None]):
            yield name, value
    for value in (True, 3, "3", [3], [[]], [[3], [-1]], [["3"]], [[[3]]], ["33"], {}):
        yield "bad_words_ids", value
    for value in (True, 3, "3", [3], [[3]], [[3], 1.0], [[[3], "1"]], [[[], 1.0]], [[[3], 1e300]]):
        yield "sequence_bias", value
    for value in NO_BOOLEAN:
        yield "renormalize_logits", value
    for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
        for value in (True, -1, 1.5, "3", [], {}, 10**39):
            yield name, value
    for value in (0, 1, "true", "always", [], {}, 1.0):
        yield "early_stopping", value
    for value in (0, 1, "true", [], {}):
        yield "renormalize_logits", value
    for name in ("repetition_penalty", "encoder_repetition_penalty"):
        for value in NO_NUMBER:
            yield name, value
    size = CONFIG["text_config"]["vocab_size"]
    for value in (True, 3, "3", {}, [True], ["3"], [1.5], [-1], [size], [10**39], [[3]]):
        yield "suppress_tokens", value
        yield "begin_suppress_tokens", value
        if value != [[3]]:
            yield "bad_words_ids", value
            yield "bad_words_ids", [value]
            yield "sequence_bias", [[value, 1.0]]
    for value in ([[]], [[3]] * 10_001):
        yield "bad_words_ids", value
    for value in (True, 3, "3", {"(3,)": 1}, [[3]], [[[3], "1"]], [[[3], 1e300]], [[[], 1]]):
        yield "sequence_bias", value
    for value in (True, 3, "3", [], {}, [3], [-1, 2], [3, 0], [3, "2"], [3, 1e300], [1.5, 2]):
        yield "exponential_decay_length_penalty", value
    for value in ([], [2, size], [2, -1], [2, True], [2, 10**39], [[2]]):
        yield "eos_token_id", value
        yield "forced_eos_token_id", value
        yield "forced_bos_token_id", value
    for name in ("max_length", "min_length"):
        for value in (True, -1, 1.5, "20", []):
            yield name, value
    for value in (True, "1", [], {}, 10**39, 1e300, -1e300):
        yield "length_penalty", value


def preprocessor_fields() -> Iterator[tuple[str, object]]:
    for side in ("height", "width"):
        for value in (*NO_COUNT, 0, 100_000, None):
            yield f"size.{side}", value
    for value in (True, 64, [64, 64], "64", {}, {"shortest_edge": 64}, None):
        yield "size", value
    for name in ("do_resize", "do_rescale", "do_normalize", "do_center_crop"):
        for value in NO_BOOLEAN:
            yield name, value
    for value in (True, 0, 2, 3.0, "bicubic", [], {}, 10**39):
        yield "resample", value
    for value in NO_NUMBER:
        yield "rescale_factor", value
        yield "image_std", [value, 0.2, 0.2]
    for value in (True, "1", [], None, 10**39, 1e300, -1e300):
        yield "image_mean", [0.5, value, 0.5]
    for name in ("image_mean", "image_std"):
        for value in (True, 0.5, "0.5", [], [0.5], [0.5] * 4, {}, None, [0.5] * 100_000):
            yield name, value


def with_field(content: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """A copy with the field at the dotted ``name`` set."""
    changed = copy.deepcopy(content)
    *sections, field = name.split(".")
    section = changed
    for part in sections:
        section = section[part]
    section[field] = value
    return changed


def generation_policy(content: dict[str, Any]) -> GenerationPolicy:
    return read_policy(content, {}, TOKENIZER, 160, 1424)


TOKENIZER = Tokenizer.from_file(TINY / "tokenizer.json")
CASES: list[tuple[str, Callable[[dict[str, Any]], object], dict[str, Any], str, object]] = [
    *(("config.json", ModelConfig.from_dict, NATIVE, *case) for case in config_fields()),
    *(
        ("config.json", ModelConfig.from_dict, CONFIG, ORIGINAL_NAMES.get(field, field), value)
        for field, value in config_fields()
    ),
    *(
        ("generation_config.json", generation_policy, GENERATION, *case)
        for case in generation_fields()
    ),
    *(
        ("preprocessor_config.json", Preprocessor.from_config, PREPROCESSOR, *case)
        for case in preprocessor_fields()
    ),
]


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "preprocessor"])
def test_what_a_field_may_not_be_is_refused_by_file_and_field(file: str) -> None:
    accepted = []
    for name, read, content, field, value in CASES:
        if name.startswith(file):
            read(content)
            try:
                read(with_field(content, field, value))
            except (CheckpointError, ModelFileError) as error:
                # A list of another length is told as not fitting the others, or they as not it.
                other = field == "vision_config.depths" and "as in depths" in str(error)
                assert str(error).startswith(f"{name}: {field}") or other, error
                assert len(str(error)) < 400
                assert str(error).isprintable()
            else:
                accepted.append((field, value))
    assert accepted == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": {"b": [1, %s]}}' % (b"9" * 400), "x.json: a.b.1 is a number of more than 40 dig"),
        (b'{"a": -%s}' % (b"9" * 100_000), "x.json: a is a number of more than 40 digits"),
        (b'{"a": [0, NaN]}', "x.json: a.1 is nan, but must be finite"),
        (b'{"a": -Infinity}', "x.json: a is -inf, but must be finite"),
        (b'{"a": 1e999}', "x.json: a is inf, but must be finite"),
        (b'{"a": ["\\ud83d"]}', "x.json: a.0 holds half of a surrogate pair, which is no text"),
        (b'{"\\udc00": 1}', "x.json has a name that holds half of a surrogate pair"),
        (b'{"a": {"\\udc00": 1}}', "x.json: a has a name that holds half of a surrogate pair"),
        (b"[" * 200_000, "x.json is nested deeper than 32 levels"),
        (b'{"a":' * 200_000, "x.json is nested deeper than 32 levels"),
        (b'{"a":' * 32 + b"[]" + b"}" * 32, "x.json: a.a.*a is nested deeper than 32 levels"),
        (b'{"\\u001b[31m": NaN}', r"x.json: '\\x1b\[31m' is nan"),
        (b'\xef\xbb\xbf{"a": 1}', "x.json cannot be read as JSON: it begins with a byte order"),
        ('{"a": 1}'.encode("utf-16"), "x.json cannot be read as JSON: .*utf-8.*decode"),
        (b'{"a": "\xed\xa0\x80"}', "x.json cannot be read as JSON: .*utf-8.*decode"),
        (b'{"a": 1} {}', "x.json cannot be read as JSON: Extra data"),
        (b'{"a": 1}' + b" " * (8 << 20), "x.json cannot be read as JSON: it is larger than 8 MiB"),
        (b'["a"]', "x.json holds list, not a JSON object"),
        (b"1" * 400, "x.json holds int, not a JSON object"),
        (LFS_POINTER, "x.json is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_json(path, CheckpointError)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_json_that_is_read() -> None:
    """What published files hold."""
    content = (
        b'{"a": 1, "model_max_length": 1000000000000000019884624838656, "a": "\\ud83d\\ude97"}'
    )
    assert parse_json(content, "x.json", CheckpointError) == {
        "a": "\U0001f697",  # The last value of a name counts, as in transformers.
        "model_max_length": 10**30 + 19884624838656,
    }
    deep = b'{"a":' * 31 + b"[]" + b"}" * 31
    assert parse_json(deep, "x.json", CheckpointError) == json.loads(deep)


def test_a_file_that_is_no_lfs_pointer_is_left_to_its_reader(tmp_path: Path) -> None:
    refuse_lfs_pointer(TINY / "config.json", ModelFileError)
    for path in (tmp_path, tmp_path / "missing"):
        refuse_lfs_pointer(path, ModelFileError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": {"decoder_layers": 10**9}}, "config.json: text_config.decoder_layers is"),
        ({"generation_config.json": {"num_beams": 10**6}}, "generation_config.json: num_beams is"),
        (
            {"generation_config.json": {"forced_bos_token_id": 1424}},
            "generation_config.json: forced_bos_token_id is 1424; it must be below 1424",
        ),
        (
            {"generation_config.json": {"num_beams": None}, "config.json": {"num_beams": 10**6}},
            "config.json: text_config.num_beams is 1000000",
        ),
        (
            {"preprocessor_config.json": {"size": {"height": 1632, "width": 64}}},
            "a picture of 64x1632 pixels becomes 2x51 image tokens, but the position tables have",
        ),
        (
            {"preprocessor_config.json": {"size": {"height": 288, "width": 576}}},
            "becomes 18x9 image tokens, which leaves no room for a prompt in 160",
        ),
    ],
)
def test_files_that_do_not_fit_each_other(
    tmp_path: Path, changes: dict[str, dict[str, Any]], message: str
) -> None:
    folder = copy_tiny(tmp_path)
    for name, change in changes.items():
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (content["text_config"] if name == "config.json" else content).update(change)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFileError, match=message):
        Assets.read(folder)


@pytest.mark.parametrize(
    ("side", "vision"),
    [
        (64, {"patch_size": [2] * 4, "patch_padding": [1] * 4, "patch_stride": [1] * 4}),
        (2048, {"patch_stride": [1, 2, 8, 8]}),
    ],
)
def test_more_places_than_a_picture_has_pixels_for(
    tmp_path: Path, side: int, vision: dict[str, Any]
) -> None:
    folder = copy_tiny(tmp_path)
    change_json(folder / "config.json", lambda content: content["vision_config"].update(vision))
    size = {"size": {"height": side, "width": side}}
    change_json(folder / "preprocessor_config.json", lambda content: content.update(size))
    most = min(side * side, 1 << 20)
    with pytest.raises(ModelFileError, match=f"image tokens by way of a grid of more than {most} "):
        Assets.read(folder)


HOSTILE: list[Any] = [
    *(*NO_COUNT, *NO_BOOLEAN, *NO_NUMBER, None, 0, 3, 65, "<s>", "\x00", "x" * 5000),
    *([0] * 4, [True] * 4, {"height": 64, "width": 64}, {"type": "COSINE"}, [[]] * 500),
]


def damaged(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy with some values replaced, removed or moved, at any depth."""
    changed = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        place: Any = changed
        while True:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw.random() < 0.7:
                place = inner
                continue
            if isinstance(place, dict) and draw.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(draw.choice(HOSTILE))
            break
    return changed


def test_damaged_folders_are_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, folder, read = random.Random(13), copy_tiny(tmp_path), 0
    monkeypatch.setattr(Tokenizer, "from_file", lambda path: TOKENIZER)
    contents = {
        "config.json": CONFIG,
        "generation_config.json": GENERATION,
        "preprocessor_config.json": PREPROCESSOR,
    }
    for _ in range(400):
        name = draw.choice(list(contents))
        original = (TINY / name).read_bytes()
        (folder / name).write_text(json.dumps(damaged(contents[name], draw)), encoding="utf-8")
        try:
            Assets.read(folder)
            read += 1
        except FlorenceError as error:
            assert name in str(error)
            assert str(error).isprintable()
        (folder / name).write_bytes(original)
    assert 50 < read < 300


CHECKPOINT = {
    "config.json": CONFIG,
    "generation_config.json": GENERATION,
    "preprocessor_config.json": PREPROCESSOR,
    "processor_config.json": {"image_processor": PREPROCESSOR},
    "tokenizer_config.json": {"model_max_length": 10**30, "bos_token": "<s>", "auto_map": {}},
    "added_tokens.json": {"<loc_0>": 404, "<and>": 1423},
}


def test_damaged_checkpoints_are_written_or_refused(tmp_path: Path) -> None:
    """What is written can be read; what is refused is refused as a checkpoint."""
    draw, folder, written = random.Random(13), copy_tiny(tmp_path), 0
    for round_ in range(60):
        name = draw.choice(list(CHECKPOINT))
        for other, content in CHECKPOINT.items():
            changed = damaged(content, draw) if other == name else content
            (folder / other).write_text(json.dumps(changed), encoding="utf-8")
        out = tmp_path / str(round_)
        out.mkdir()
        try:
            config = read_json(folder / "config.json", CheckpointError)
            write_assets(folder, ModelConfig.from_dict(config), config, out)
        except CheckpointError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 600
        else:
            Assets.read(out)
            written += 1
    assert 10 < written < 55
