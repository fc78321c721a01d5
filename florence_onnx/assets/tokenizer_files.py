"""Completion of a checkpoint's tokenizer with the tokens that Florence-2 adds to BART's."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from florence_onnx.errors import CheckpointError, TokenizerError
from florence_onnx.files import open_regular, read_json, refuse_lfs_pointer, write_whole
from florence_onnx.tokenizer import LOCATION_TOKENS
from florence_onnx.tokenizer import Tokenizer as RuntimeTokenizer
from florence_onnx.tokenizer_file import library_errors, read_tokenizer

FLORENCE_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *LOCATION_TOKENS,
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>"),
    *("<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>"),
    # The spelling of the released tokenizer.
    *("<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
"""Tokens that Microsoft's processor adds to BART's tokenizer, in the processor's order."""

_IMAGE = "<image>"
"""Token for a picture in transformers' format. Microsoft's format has no such token."""

_MOST_MERGES = 32 << 20
"""Limit of merges.txt in bytes; the file of the released models has 0.5 MB."""


def write_tokenizer(folder: Path, out: Path, rows: int) -> tuple[RuntimeTokenizer, list[str]]:
    """Writes a complete tokenizer.json.

    Args:
        folder: Folder with a tokenizer.json, or with a vocab.json and a merges.txt.
        out: Path of the tokenizer.json to write.
        rows: Rows of the token embedding.

    Returns:
        The tokenizer, as the runtime reads it; and a sentence for a token that was left out.

    Raises:
        CheckpointError: There is no tokenizer, or it does not fit the model.
    """
    tokenizer = _read(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if os.path.lexists(folder / "added_tokens.json"):
        _add_listed(tokenizer, folder / "added_tokens.json")
    # Existing tokens keep their ids.
    tokenizer.add_special_tokens([_special(token) for token in FLORENCE_TOKENS])
    repairs = []
    if (tokenizer.token_to_id(_IMAGE) or 0) >= rows:
        tokenizer = _without_image(tokenizer)
        repairs.append(
            f"tokenizer.json: {_IMAGE} was left out, for which the token embedding has no row"
        )
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer's ids go up to {highest}, but the token embedding has "
            f"{rows} rows; tokenizer and weights are of different models"
        )
    write_whole(out, tokenizer.to_str(pretty=True))
    try:
        return RuntimeTokenizer(tokenizer, f"the tokenizer in {folder}"), repairs
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error


def _without_image(tokenizer: Tokenizer) -> Tokenizer:
    """Removes the image token, for a checkpoint in Microsoft's format."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] != _IMAGE
    ]
    return Tokenizer.from_str(json.dumps(content))


def _read(folder: Path) -> Tokenizer:
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if os.path.lexists(whole):
        return read_tokenizer(whole, CheckpointError)
    if not (vocabulary.exists() and merges.exists()):
        raise CheckpointError(
            f"{folder} has neither tokenizer.json nor vocab.json and merges.txt; take those of the "
            "model that was fine-tuned, as with --companions microsoft/Florence-2-base"
        )
    ids = read_json(vocabulary, CheckpointError)
    pairs = list(_pairs(merges))
    with library_errors(f"{folder}: the tokenizer cannot be read", CheckpointError):
        return _bart(models.BPE(ids, pairs), folder)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Reads the pairs of tokens in a merges.txt."""
    refuse_lfs_pointer(path, CheckpointError)
    try:
        with open_regular(path) as file:
            text = file.read(_MOST_MERGES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line and not line.startswith("#version"):
            first, *others = line.split(" ")
            if len(others) != 1:
                raise CheckpointError(f"{path}:{number}: {line[:80]!r} is not two tokens")
            yield first, others[0]


def _bart(model: models.BPE, folder: Path) -> Tokenizer:
    """Makes the content of BART's tokenizer.json from vocabulary and merges."""
    tokenizer = Tokenizer(model)
    start, end = model.token_to_id("<s>"), model.token_to_id("</s>")
    if start is None or end is None:
        raise CheckpointError(f"{folder / 'vocab.json'} lacks <s> or </s>")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", end), ("<s>", start), add_prefix_space=False
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        + [AddedToken("<mask>", lstrip=True, normalized=True)]
    )
    return tokenizer


def _add_listed(tokenizer: Tokenizer, path: Path) -> None:
    """Adds the tokens of an added_tokens.json, and checks their ids against the file."""
    listed = read_json(path, CheckpointError)
    if not all(type(token_id) is int for token_id in listed.values()):
        raise CheckpointError(f"{path} is not an object of tokens and their ids")
    tokens = sorted(listed, key=lambda token: int(listed[token]))
    tokenizer.add_special_tokens([_special(token) for token in tokens])
    for token in tokens:
        if tokenizer.token_to_id(token) != listed[token]:
            raise CheckpointError(
                f"{path} gives {token!r:.80} the id {listed[token]}, but the tokenizer gives it "
                f"{tokenizer.token_to_id(token)}"
            )


def _special(token: str) -> AddedToken:
    return AddedToken(token, normalized=False, special=True)
