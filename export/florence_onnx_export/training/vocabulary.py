"""Train a small tokenizer laid out as Florence-2's: BART's special ids, text, then the extras."""

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from florence_onnx.assets.tokenizer_files import FLORENCE_TOKENS

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
IMAGE_TOKEN = "<image>"  # noqa: S105
"""Stands for one image feature in transformers' prompts; the last token."""


def train_tokenizer(texts: Iterable[str], text_tokens: int) -> Tokenizer:
    """Byte-level BPE over texts, with every token Florence-2 needs.

    Args:
        texts: what to learn merges from; location tokens in them are left out.
        text_tokens: the most ids that text may take, the 256 bytes and four specials included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=text_tokens,
        special_tokens=list(_FIRST),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for text in texts for piece in re.split(r"(?:<loc_\d+>)+", text))
    tokenizer.train_from_iterator(pieces, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token in (*FLORENCE_TOKENS, IMAGE_TOKEN)
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that is there."""
    return int(tokenizer.get_vocab()[token])
