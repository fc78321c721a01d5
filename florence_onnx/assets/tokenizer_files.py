"""A checkpoint's tokenizer, completed with the tokens that Florence-2 adds to BART's."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from florence_onnx.errors import CheckpointError, TokenizerError
from florence_onnx.files import read_json
from florence_onnx.tokenizer import LOCATION_TOKENS
from florence_onnx.tokenizer import Tokenizer as RuntimeTokenizer

FLORENCE_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *LOCATION_TOKENS,
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>"),
    *("<seg>", "</seg>", "<sep>", "<region_cap>", "</region_cap>"),
    # The spelling of the released tokenizer.
    *("<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
"""Tokens that Microsoft's processor adds when it loads BART's tokenizer, in its order."""


def write_tokenizer(folder: Path, out: Path, rows: int) -> RuntimeTokenizer:
    """Writes a complete tokenizer.json.

    Args:
        folder: Checkpoint with a tokenizer.json, or a vocab.json and a merges.txt.
        out: Path of the tokenizer.json to write.
        rows: Rows of the token embedding.

    Returns:
        What was written, as the runtime reads it.

    Raises:
        CheckpointError: There is no tokenizer, or it does not fit the model.
    """
    tokenizer = _read(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if (folder / "added_tokens.json").is_file():
        _add_listed(tokenizer, folder / "added_tokens.json")
    # Tokens that are there already keep their ids.
    tokenizer.add_special_tokens([_special(token) for token in FLORENCE_TOKENS])
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer's ids go up to {highest}, but the token embedding has "
            f"{rows} rows; tokenizer and weights are of different models"
        )
    out.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    try:
        return RuntimeTokenizer(tokenizer, f"the tokenizer in {folder}")
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error


def _read(folder: Path) -> Tokenizer:
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if not whole.is_file() and not (vocabulary.is_file() and merges.is_file()):
        raise CheckpointError(f"{folder} has neither tokenizer.json nor vocab.json and merges.txt")
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {error}") from error
    return _bart(model, folder)


def _bart(model: models.BPE, folder: Path) -> Tokenizer:
    """What BART's tokenizer.json says besides the vocabulary."""
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
    """Adds the tokens of an added_tokens.json, which have to come out at the ids it names."""
    listed = read_json(path, CheckpointError)
    if not all(type(token_id) is int for token_id in listed.values()):
        raise CheckpointError(f"{path} is not a list of tokens and their ids")
    for token in sorted(listed, key=lambda token: int(listed[token])):
        tokenizer.add_special_tokens([_special(token)])
        if tokenizer.token_to_id(token) != listed[token]:
            raise CheckpointError(
                f"{path} gives {token} the id {listed[token]}, but the tokenizer gives it "
                f"{tokenizer.token_to_id(token)}"
            )


def _special(token: str) -> AddedToken:
    return AddedToken(token, normalized=False, special=True)
