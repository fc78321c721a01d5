"""Text <-> token ids: a model's tokenizer.json and the ids that Florence-2 gives meaning to."""

from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from florence_onnx.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

LOCATION_TOKENS = tuple(f"<loc_{i}>" for i in range(1000))
"""One token per coordinate bin, in the order of the bins."""


class Tokenizer:
    """A model's tokenizer, equal to transformers' ``AutoTokenizer`` on the same tokenizer.json.

    Attributes:
        bos_token_id: Id of ``<s>``.
        eos_token_id: Id of ``</s>``.
        pad_token_id: Id of ``<pad>``.
        location_token_ids: int64 [1000], the id of ``<loc_i>`` at position ``i``.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", name: str) -> None:
        """Wraps ``tokenizer``; ``name`` is what error messages call it.

        Raises:
            TokenizerError: A token that Florence-2 needs is missing.
        """
        self._tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id, self.pad_token_id = _token_ids(
            tokenizer, ("<s>", "</s>", "<pad>"), name
        )
        self.location_token_ids: NDArray[np.int64] = np.array(
            _token_ids(tokenizer, LOCATION_TOKENS, name), dtype=np.int64
        )
        # A file saved after training may cut or fill every text to one length.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        frame = [self.bos_token_id, self.eos_token_id]
        self._frames_by_itself = tokenizer.encode("").ids == frame

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> "Tokenizer":
        """Reads a tokenizer.json.

        Raises:
            TokenizerError: The file is missing, is not a tokenizer, or lacks a token that
                Florence-2 needs.
        """
        import tokenizers

        name = fspath(path)
        if not Path(path).is_file():
            raise TokenizerError(f"{name} does not exist; a model folder needs its tokenizer.json")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(name)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(
                f"{name} is not a tokenizer of the tokenizers library: {error}"
            ) from error
        return cls(tokenizer, name)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` between ``<s>`` and ``</s>``."""
        if self._frames_by_itself:
            return list(self._tokenizer.encode(text).ids)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids, self.eos_token_id]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, special tokens included.

        Equal to transformers' ``batch_decode(..., skip_special_tokens=False)``.
        """
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))


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
