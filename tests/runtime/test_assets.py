"""The files beside the graphs: what they decide, and what is wrong with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from florence_onnx import Florence2
from florence_onnx.assets.reading import Assets
from florence_onnx.errors import (
    FlorenceError,
    GenerationError,
    ModelFileError,
    ModelWarning,
    TokenizerError,
)
from tests.helpers.tiny import TINY, change_json, copy_tiny

JSON = ("config.json", "generation_config.json", "preprocessor_config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path)


def test_what_the_files_say() -> None:
    assets = Assets.read(TINY)
    assert assets.preprocessor.size == (64, 64)
    assert assets.preprocessor.mean == (0.485, 0.456, 0.406)
    assert assets.max_positions == 160
    assert assets.tokenizer.location_token_ids.shape == (1000,)
    policy = assets.policy
    assert (policy.num_beams, policy.no_repeat_ngram_size, policy.early_stopping) == (3, 3, True)
    assert (policy.forced_bos_token_id, policy.forced_eos_token_id) == (0, 2)
    assert policy.max_new_tokens == policy.max_positions == 160


def test_the_runtime_reads_no_more_than_it_needs(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert Assets.read(folder).policy == Assets.read(TINY).policy


def test_another_policy(folder: Path) -> None:
    change_json(
        folder / "generation_config.json",
        lambda content: content.update(num_beams=5, max_new_tokens=40, forced_bos_token_id=None),
    )
    policy = Florence2.load(folder).policy
    assert (policy.num_beams, policy.max_new_tokens, policy.forced_bos_token_id) == (5, 40, None)


def test_settings_in_lists(folder: Path) -> None:
    change_json(
        folder / "generation_config.json",
        lambda content: content.update(
            eos_token_id=[2, 7],
            forced_eos_token_id=[2],
            bad_words_ids=[[5, 6], [8]],
            sequence_bias=[[[9], 1.5]],
            exponential_decay_length_penalty=[3, 1.1],
        ),
    )
    policy = Florence2.load(folder).policy
    assert (policy.ends, policy.forced_eos_token_id) == ((2, 7), 2)
    assert policy.bad_words_ids == ((5, 6), (8,))
    assert policy.sequence_bias == (((9,), 1.5),)
    assert policy.exponential_decay_length_penalty == (3, 1.1)


def test_what_is_not_supported_is_warned_of(folder: Path) -> None:
    change_json(
        folder / "generation_config.json",
        lambda content: content.update(do_sample=True, top_p=0.9, use_cache=False, new_thing=3),
    )
    with pytest.warns(ModelWarning) as record:
        model = Florence2.load(folder)
    assert [str(warning.message) for warning in record] == list(model.assets.notes)
    assert {warning.filename for warning in record} == {__file__}
    assert model.assets.notes == (
        "generation_config.json: do_sample is True, which is not supported: "
        "answers are searched, not sampled (top_p 0.9)",
        "generation_config.json: 'new_thing' is no setting that is known here, and has no effect",
    )


@pytest.mark.parametrize(
    ("setting", "value", "kept"),
    [
        *(("max_length", 4096, 161), ("max_new_tokens", 161, 160)),
        *(("min_length", 10**30, 161), ("min_new_tokens", 4096, 160)),
    ],
)
def test_a_length_beyond_the_positions(folder: Path, setting: str, value: int, kept: int) -> None:
    """Of a folder that was exported elsewhere; a caller's own is refused."""
    change_json(folder / "generation_config.json", lambda content: content.update({setting: value}))
    assets = Assets.read(folder)
    assert assets.notes == (
        f"generation_config.json: {setting} was {value}, is {kept}, "
        "as far as the positions of the decoder reach",
    )
    assert assets.policy.max_new_tokens == 160
    assert assets.policy.min_new_tokens == (160 if setting[:3] == "min" else 0)
    with pytest.raises(GenerationError, match="max_new_tokens is 161; it must be at most 160"):
        assets.policy.replace(max_new_tokens=161)


def test_an_id_in_a_list(folder: Path) -> None:
    ids = {"decoder_start_token_id": [2], "forced_eos_token_id": [2], "eos_token_id": [2]}
    change_json(folder / "generation_config.json", lambda content: content.update(ids))
    policy = Assets.read(folder).policy
    assert (policy.decoder_start_token_id, policy.forced_eos_token_id, policy.ends) == (2, 2, (2,))


def test_settings_in_text_config_are_warned_of(folder: Path) -> None:
    """Microsoft's raw folders have them there."""
    change_json(
        folder / "config.json",
        lambda content: content["text_config"].update(guidance_scale=2.0, do_sample=None),
    )
    change_json(
        folder / "generation_config.json",
        lambda content: content.update(guidance_scale=None),
    )
    assert Assets.read(folder).notes == (
        "generation_config.json: guidance_scale is 2.0, which is not supported: "
        "answers are not guided",
    )


def test_the_image_token(folder: Path) -> None:
    assert Assets.read(folder).image_token_id is None

    def become_native(content: dict[str, Any]) -> None:
        content["text_config"]["model_type"] = "bart"
        vision = content["vision_config"]
        vision["embed_dim"] = vision.pop("dim_embed")

    change_json(folder / "config.json", become_native)
    assert Assets.read(folder).image_token_id == 51289
    change_json(folder / "config.json", lambda content: content.update(image_token_id=77))
    assert Assets.read(folder).image_token_id == 77


@pytest.mark.parametrize("name", JSON)
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(
        ModelFileError, match=rf"{name} is missing; a model folder or checkpoint needs it"
    ) as error:
        Florence2.load(folder)
    assert isinstance(error.value, OSError)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"text_config": {', "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[1, 2]", "holds list, not a JSON object"),
        (b"null", "holds NoneType, not a JSON object"),
    ],
)
@pytest.mark.parametrize("name", JSON)
def test_a_file_that_is_not_a_json_object(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"{name} {message}"):
        Florence2.load(folder)


def test_a_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(ModelFileError, match=r"cannot be read as JSON"):
        Florence2.load(folder)


@pytest.mark.parametrize("text_config", [None, {}, [], "bart", {"d_model": 768}], ids=str)
def test_a_configuration_of_another_model(folder: Path, text_config: Any) -> None:
    change_json(folder / "config.json", lambda content: content.update(text_config=text_config))
    message = "no text_config.max_position_embeddings; it is not the configuration of a Florence-2"
    with pytest.raises(ModelFileError, match=message):
        Florence2.load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("preprocessor_config.json", {"size": None}, "preprocessor_config.json: size is null, but"),
        ("preprocessor_config.json", {"size": {"height": 0, "width": 64}}, "size.height is 0"),
        ("preprocessor_config.json", {"resample": 0}, "resample is 0, but must be 3"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "image_mean is .*3 numbers"),
        ("generation_config.json", {"num_beams": 0}, "generation_config.json: num_beams is 0"),
        ("generation_config.json", {"max_new_tokens": 0}, "max_new_tokens is 0; it must be"),
        (
            "generation_config.json",
            {"decoder_start_token_id": [0, 2]},
            r"decoder_start_token_id is \(0, 2\); it must be a whole number",
        ),
        (
            "generation_config.json",
            {"eos_token_id": 1},
            "eos_token_id is 1, but 2 in tokenizer.json",
        ),
        (
            "generation_config.json",
            {"bos_token_id": 2},
            "bos_token_id is 2, but 0 in tokenizer.json",
        ),
    ],
)
def test_a_setting_that_cannot_be(
    folder: Path, name: str, change: dict[str, Any], message: str
) -> None:
    change_json(folder / name, lambda content: content.update(change))
    with pytest.raises(ModelFileError, match=message):
        Florence2.load(folder)


def test_wrong_ids_at_the_top_of_the_configuration_are_not_read(folder: Path) -> None:
    """As many fine-tunes carry them."""
    wrong = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    change_json(folder / "config.json", lambda content: content.update(wrong))
    assert Florence2.load(folder).policy == Assets.read(TINY).policy


def without(prefix: str) -> Callable[[dict[str, Any]], None]:
    """Takes the tokens that begin with ``prefix`` out of a tokenizer.json."""

    def change(content: dict[str, Any]) -> None:
        kept = [t for t in content["added_tokens"] if not t["content"].startswith(prefix)]
        assert len(kept) < len(content["added_tokens"])
        content["added_tokens"] = kept
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {
            token: i for token, i in vocabulary.items() if not token.startswith(prefix)
        }

    return change


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("<loc_", r"has no token <loc_0> and 999 more; use the tokenizer that was saved with"),
        ("<loc_999", r"has no token <loc_999>; use the tokenizer"),
    ],
)
def test_a_tokenizer_without_location_tokens(folder: Path, prefix: str, message: str) -> None:
    change_json(folder / "tokenizer.json", without(prefix))
    with pytest.raises(TokenizerError, match=message) as error:
        Florence2.load(folder)
    assert isinstance(error.value, ValueError)


def test_a_tokenizer_of_another_kind_of_model(folder: Path) -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    other.save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"tokenizer.json: pre_tokenizer.type is null, but"):
        Florence2.load(folder)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not JSON", b"\xff\xfe"], ids=repr)
def test_a_tokenizer_file_that_cannot_be_read(folder: Path, content: bytes | None) -> None:
    path = folder / "tokenizer.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    message = r"tokenizer.json( does not exist| cannot be read as JSON|: pre_tokenizer.type is)"
    with pytest.raises(TokenizerError, match=message) as error:
        Florence2.load(folder)
    assert isinstance(error.value, FlorenceError)
