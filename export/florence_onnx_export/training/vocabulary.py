"""Training of a small tokenizer with Florence-2's order: BART's special ids, text, added tokens."""

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from florence_onnx.assets.tokenizer_files import FLORENCE_TOKENS

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
IMAGE_TOKEN = "<image>"  # noqa: S105
"""Token for one image feature in transformers' prompts, with the last id."""


def train_tokenizer(texts: Iterable[str], text_tokens: int) -> Tokenizer:
    """Trains byte-level BPE on texts and adds every token that Florence-2 needs.

    Args:
        texts: Texts to learn merges from. Location tokens in the texts are left out.
        text_tokens: Largest number of ids for text, with the 256 bytes and four special tokens.
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
    """Returns the id of a token of the vocabulary."""
    return int(tokenizer.get_vocab()[token])
