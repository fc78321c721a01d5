"""Text <-> token ids: a model's tokenizer.json and the ids that Florence-2 gives meaning to."""

import codecs
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from florence_onnx.errors import TaskError, TokenizerError
from florence_onnx.token_kinds import Kinds, kinds_of
from florence_onnx.tokenizer_file import library_errors, read_tokenizer

if TYPE_CHECKING:
    import tokenizers

LOCATION_TOKENS = tuple(f"<loc_{i}>" for i in range(1000))
"""Location tokens, in the order of the coordinate bins."""

LONGEST_TOKEN = 1000
"""Limit of a token in characters; tokens of the released models have up to 128."""

_STRUCTURE = ("<s>", "</s>", "<pad>", "<mask>", "<image>")
"""Special tokens without text: start, end, padding, and a picture."""


class Tokenizer:
    """Tokenizer of a model, equal to transformers' ``AutoTokenizer`` on the same tokenizer.json.

    Attributes:
        bos_token_id: Id of ``<s>``.
        eos_token_id: Id of ``</s>``.
        pad_token_id: Id of ``<pad>``.
        location_token_ids: int64 [1000], the id of ``<loc_i>`` at position ``i``.
        highest_id: The highest id there is.
        longest_token: Characters of the longest token.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", name: str) -> None:
        """Wraps ``tokenizer``; ``name`` is the name of the tokenizer in error messages.

        Raises:
            TokenizerError: A token that Florence-2 needs is missing, two of these share an id, or
                a token is too long.
        """
        from tokenizers import processors

        self._tokenizer = tokenizer
        self._name = name
        self.bos_token_id, self.eos_token_id, self.pad_token_id = _token_ids(
            tokenizer, ("<s>", "</s>", "<pad>"), name
        )
        self.location_token_ids: NDArray[np.int64] = np.array(
            _token_ids(tokenizer, LOCATION_TOKENS, name), dtype=np.int64
        )
        ids = [self.bos_token_id, self.eos_token_id, self.pad_token_id, *self.location_token_ids]
        if len(set(ids)) < len(ids):
            raise TokenizerError(
                f"{name} gives one id to several of <s>, </s>, <pad> and the location tokens"
            )
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.longest_token = max(map(len, vocabulary))
        if self.longest_token > LONGEST_TOKEN:
            raise TokenizerError(
                f"{name} has a token of {self.longest_token} characters; {LONGEST_TOKEN} are the "
                "most allowed"
            )
        self.highest_id = max(vocabulary.values())
        # A file saved after training may cut or fill every text to one length.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A template could repeat the text; <s> and </s> are put around it here.
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "Tokenizer":
        """Reads a tokenizer.json.

        Raises:
            TokenizerError: The file is missing, is no byte-level BPE, or lacks a token that
                Florence-2 needs.
        """
        return cls(read_tokenizer(Path(path)), fspath(path))

    @cached_property
    def kinds(self) -> Kinds:
        """Kinds of the tokens in the grammar of answers, int8 [highest_id + 1]."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        texts = {i: _bytes_of(text).decode(errors="replace") for text, i in vocabulary.items()}
        return kinds_of(texts, self.location_token_ids)

    def least_tokens(self, text: str) -> int:
        """Estimates the least number of ids of ``text``, without tokenizing.

        Raises:
            TaskError: The text holds half of a surrogate pair.
        """
        _check_unicode(text)
        normalizer = self._tokenizer.normalizer
        if normalizer is not None:  # One character becomes up to 18 characters.
            text = normalizer.normalize_str(text)
        return len(text) // self.longest_token

    def encode(self, text: str) -> list[int]:
        """Tokenizes ``text``; the ids are between those of ``<s>`` and ``</s>``.

        Raises:
            TaskError: The text holds half of a surrogate pair.
        """
        _check_unicode(text)
        with library_errors(f"{self._name} cannot encode text"):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids, self.eos_token_id]

    def encode_text(self, text: str) -> list[int]:
        """Tokenizes the text of a person, as `encode` does.

        Raises:
            TaskError: The text holds a special token, such as ``</s>`` or ``<image>``, or `encode`
                refuses the text.
        """
        ids = self.encode(text)
        for token in _STRUCTURE:
            # Some tokenizers do not know <image>; transformers puts a picture there all the same.
            if token in text or self._tokenizer.token_to_id(token) in ids[1:-1]:
                raise TaskError(
                    f"the text {text[:80]!r} holds the special token {token}, which is no "
                    "text: it may only stand where the model's input is put together; leave it out"
                )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Spells ``ids``, special tokens included. Ids without a token are left out.

        Equal to transformers' ``batch_decode(..., skip_special_tokens=False)``.

        Raises:
            TokenizerError: A number is below 0 or has more than 32 bits.
        """
        with library_errors(f"{self._name} cannot decode ids"):
            return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    def spans(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Finds the places of the tokens in ``decode(ids)``: start and end, in characters.

        A character that several tokens spell together belongs to each of these tokens.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        end, spans = 0, []
        for i in ids:
            start = end
            end += len(decoder.decode(_bytes_of(self._tokenizer.id_to_token(int(i)) or "")))
            is_unfinished = bool(decoder.getstate()[0])
            spans.append((start, end + is_unfinished))
        return spans


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"character {error.start} of the text {text[:40]!r} is half of a surrogate pair, "
            "which is no character: the text was read with the wrong encoding"
        ) from None


def _byte_of_character() -> dict[str, int]:
    """Makes GPT-2's table, in which one character stands for each byte of a token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_of_character()


@lru_cache(1 << 16)
def _bytes_of(token: str) -> bytes:
    # A token added to the vocabulary, such as one with a space inside, is spelled as it is.
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode()


def _token_ids(tokenizer: "tokenizers.Tokenizer", tokens: tuple[str, ...], name: str) -> list[int]:
    ids, missing = [], []
    for token in tokens:
        token_id = tokenizer.token_to_id(token)
        missing.append(token) if token_id is None else ids.append(token_id)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TokenizerError(
            f"{name} has no token {missing[0]}{more}; "
            "use the tokenizer that was saved with a Florence-2 model, location tokens included"
        )
    return ids
