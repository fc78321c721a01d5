"""tokenizer.json, completed from what a checkpoint folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from florence_onnx.assets.tokenizer_files import write_tokenizer
from florence_onnx.errors import CheckpointError
from florence_onnx.tasks import Task
from tests.helpers.tokenizers import BART_SIZE, EXTRA_TOKENS, VOCABULARY, make_tokenizer

TEXTS = [*(task.prompt for task in Task), " two  spaces <loc_3><mask> caf\u00e9</od>"]


@pytest.fixture
def bart(tmp_path: Path) -> Path:
    """A folder with a tokenizer like Microsoft's, without Florence-2's tokens."""
    make_tokenizer(tmp_path, extra_tokens=False)
    return tmp_path


def complete(folder: Path, rows: int = VOCABULARY) -> tokenizers.Tokenizer:
    out = folder / "out.json"
    write_tokenizer(folder, out, rows)
    return tokenizers.Tokenizer.from_file(str(out))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize(
    ("folder", "rows"),
    [
        ("tokenizer/microsoft", 51289),
        ("tokenizer/onnx-community", 51289),
        ("configs/native/processor", 51328),
        ("configs/native/processor", 51289),
    ],
)
def test_real_tokenizers_come_out_as_the_hubs(
    shared: Path, tmp_path: Path, folder: str, rows: int
) -> None:
    write_tokenizer(shared / folder, tmp_path / "out.json", rows)
    ours = read(tmp_path / "out.json")
    hubs = read(shared / "tokenizer/onnx-community/tokenizer.json")
    # The library writes a merge as a pair now, as "a b" before.
    merges = [" ".join(m) if isinstance(m, list) else m for m in ours["model"].pop("merges")]
    assert merges == hubs["model"].pop("merges")
    if "native" in folder:
        if rows > 51289:
            image = ours["added_tokens"].pop()
            assert (image["content"], image["id"]) == ("<image>", 51289)
        assert hubs["model"]["vocab"].items() <= ours["model"].pop("vocab").items()
        hubs["model"].pop("vocab")
    assert ours == hubs


def test_the_tokens_of_florence_are_added_in_their_order(bart: Path) -> None:
    tokenizer = complete(bart)
    ids = [tokenizer.token_to_id(token) for token in EXTRA_TOKENS]
    assert ids == list(range(BART_SIZE, VOCABULARY))


def test_a_complete_tokenizer_is_left_alone(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path)
    complete(tmp_path)
    assert read(tmp_path / "out.json") == read(path)


def test_vocabulary_and_merges_make_the_same_tokenizer(bart: Path) -> None:
    expected = complete(bart)
    model = read(bart / "tokenizer.json")["model"]
    vocabulary = {**model["vocab"], "<mask>": BART_SIZE - 1}
    (bart / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (bart / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (bart / "tokenizer.json").unlink()
    rebuilt = complete(bart)
    assert rebuilt.get_vocab() == expected.get_vocab()
    for text in TEXTS:
        assert rebuilt.encode(text).ids == expected.encode(text).ids


def test_listed_tokens_keep_their_ids(bart: Path) -> None:
    listed = {"<b>": BART_SIZE + 1, "<a>": BART_SIZE}
    (bart / "added_tokens.json").write_text(json.dumps(listed))
    tokenizer = complete(bart, VOCABULARY + 2)
    ids = [tokenizer.token_to_id(token) for token in ("<a>", "<b>", *EXTRA_TOKENS)]
    assert ids == list(range(BART_SIZE, VOCABULARY + 2))


def test_listed_tokens_at_other_ids(bart: Path) -> None:
    (bart / "added_tokens.json").write_text(json.dumps({"<od>": 50265}))
    with pytest.raises(CheckpointError, match=r"gives '<od>' the id 50265, but .* it 400"):
        complete(bart)


@pytest.mark.parametrize("listed", [{"<od>": "x"}, {"<od>": None}])
def test_listed_tokens_without_ids(bart: Path, listed: dict[str, object]) -> None:
    (bart / "added_tokens.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match=r"added_tokens\.json is not an object of tokens"):
        complete(bart)


def test_truncation_and_padding_are_not_exported(bart: Path) -> None:
    path = str(bart / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.enable_truncation(max_length=4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(path)
    complete(bart)
    written = read(bart / "out.json")
    assert written["truncation"] is None and written["padding"] is None


def test_more_ids_than_the_embedding_has_rows(bart: Path) -> None:
    message = f"ids go up to {VOCABULARY - 1}, but the token embedding has {VOCABULARY - 1} rows"
    with pytest.raises(CheckpointError, match=message):
        complete(bart, VOCABULARY - 1)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor vocab\.json and merge"):
        complete(tmp_path)


@pytest.mark.parametrize("names", [["tokenizer.json"], ["vocab.json", "merges.txt"]])
def test_files_that_are_no_tokenizer(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("[]")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json holds list|vocab\.json holds list"):
        complete(tmp_path)


@pytest.mark.parametrize(
    ("vocabulary", "merges"),
    [
        ('{"a": 0}', "a b"),
        ('{"a": -1}', ""),
        ('{"a": 1.5}', ""),
        ('{"a": "b"}', ""),
        ('{"a": 99999999999}', ""),
    ],
)
def test_a_vocabulary_and_merges_that_do_not_go_together(
    tmp_path: Path, vocabulary: str, merges: str
) -> None:
    (tmp_path / "vocab.json").write_text(vocabulary)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(CheckpointError, match="the tokenizer cannot be read"):
        complete(tmp_path)


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", "\x1b[31m"])
def test_merges_are_two_tokens(tmp_path: Path, line: str) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n\n{line}\n")
    with pytest.raises(CheckpointError, match=r"merges\.txt:3: '.*' is not two tokens"):
        complete(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_lfs_pointers_are_called_that(bart: Path, name: str) -> None:
    if name != "tokenizer.json":
        (bart / "tokenizer.json").unlink()
        (bart / "vocab.json").write_text("{}")
    (bart / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (bart / "merges.txt").touch()
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer, not the file"):
        complete(bart)


def test_many_listed_tokens_are_added_at_once(bart: Path) -> None:
    listed = {f"<new_{i}>": BART_SIZE + i for i in range(20_000)}
    (bart / "added_tokens.json").write_text(json.dumps(listed))
    tokenizer = complete(bart, VOCABULARY + 20_000)
    assert tokenizer.token_to_id("<new_19999>") == BART_SIZE + 19_999


@pytest.mark.parametrize("listed", [{"": 400}, {"<a>": -1}, {"<a>": 2**40}, {"a" * 2000: 400}])
def test_listed_tokens_that_cannot_be(bart: Path, listed: dict[str, int]) -> None:
    (bart / "added_tokens.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match=r"added_tokens|of 2000 characters"):
        complete(bart, VOCABULARY + 1)


def test_a_vocabulary_without_the_ends(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError, match=r"vocab\.json lacks <s> or </s>"):
        complete(tmp_path)


def test_a_tokenizer_of_another_model(bart: Path) -> None:
    path = bart / "tokenizer.json"
    path.write_text(path.read_text().replace('"<pad>"', '"[PAD]"'))
    with pytest.raises(CheckpointError, match="has no token <pad>"):
        complete(bart)
