"""Checks of tokenizer.json, part by part, before the tokenizers library reads the file.

The tokenizers library panics on some files. Its normalizers, pre-tokenizers, decoders and templates
can turn a short text into gigabytes. Florence-2's tokenizers are byte-level BPE and need no such
parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_onnx.errors import FlorenceError, TokenizerError
from florence_onnx.fields import Fields
from florence_onnx.files import open_regular, parse_json, refuse_lfs_pointer

if TYPE_CHECKING:
    import tokenizers

_LARGEST_FILE = 32 << 20
_HIGHEST_ID = (1 << 31) - 1
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")


def read_tokenizer(
    path: Path, error: type[FlorenceError] = TokenizerError
) -> "tokenizers.Tokenizer":
    """Reads a tokenizer.json.

    Args:
        path: The file.
        error: Error to raise when the file is missing, or is no byte-level BPE.
    """
    import tokenizers

    refuse_lfs_pointer(path, error)
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise error(f"{path} does not exist; a model folder needs its tokenizer.json") from None
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror}") from reason
    _check(Fields(parse_json(data, str(path), error, _LARGEST_FILE), str(path), error))
    with library_errors(f"{path} is not a tokenizer of the tokenizers library", error):
        return tokenizers.Tokenizer.from_buffer(data)


@contextmanager
def library_errors(what: str, error: type[FlorenceError] = TokenizerError) -> Iterator[None]:
    """Turns errors of the tokenizers library, Rust's panics included, into ``error``."""
    try:
        yield
    except Exception as reason:  # the library raises bare Exception
        raise error(f"{what}: {reason}") from reason
    except BaseException as reason:
        # The exception of a panic cannot be imported, and is no Exception.
        if type(reason).__name__ != "PanicException":
            raise
        raise error(f"{what}: {reason}") from reason


def _check(fields: Fields) -> None:
    if fields.get("normalizer") is not None:
        fields.section("normalizer").expect("type", *_NORMALIZERS)
    for name in ("pre_tokenizer", "decoder"):
        part = fields.section(name)
        if part.get("type") != "ByteLevel":
            raise part.refused("type", '"ByteLevel", as in every Florence-2')
    model = fields.section("model")
    model.expect("type", "BPE")
    model.expect("dropout", 0.0)
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        model.expect(name, "")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not all(map(_is_id, vocabulary.values())):
        raise model.refused("vocab", f"an object of tokens and their ids, 0 to {_HIGHEST_ID}")
    unknown = model.get("unk_token")
    if unknown is not None and not (isinstance(unknown, str) and unknown in vocabulary):
        raise model.refused("unk_token", "a token of the vocabulary")
    added = fields.get("added_tokens", [])
    if not isinstance(added, list) or not all(map(_is_added_token, added)):
        raise fields.refused("added_tokens", "a list of objects with content and id")


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= _HIGHEST_ID


def _is_added_token(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str)
