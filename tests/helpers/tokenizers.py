"""A small genuine tokenizer: BART's kind of byte-level BPE with Florence-2's tokens."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from florence_onnx.tasks import Task

EXTRA_TOKENS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{i}>" for i in range(1000)]
    + [
        "<cap>",
        "</cap>",
        "<ncap>",
        "</ncap>",
        "<dcap>",
        "</dcap>",
        "<grounding>",
        "</grounding>",
        "<seg>",
        "</seg>",
        "<sep>",
        "<region_cap>",
        "</region_cap>",
        "<region_to_desciption>",
        "</region_to_desciption>",
        "<proposal>",
        "</proposal>",
        "<poly>",
        "</poly>",
        "<and>",
    ]
)
"""The 1,024 tokens that Florence-2 adds to BART's, in their order."""

BART_SIZE = 400
"""Tokens before the extra ones: 4 special ones, 256 bytes, merges, and <mask> as the last."""

VOCABULARY = BART_SIZE + len(EXTRA_TOKENS)
"""Tokens of the whole tokenizer: the least vocab_size of a model that goes with it."""

_SENTENCES = [task.prompt for task in Task] + [
    "A green car parked in front of a yellow building.",
    "The image shows a stop sign on the side of a street in Chinatown, New York City.",
    "Two cats are sleeping on a pink blanket beside two remote controls.",
]


def make_tokenizer(folder: Path, *, extra_tokens: bool = True) -> Path:
    """Writes ``tokenizer.json`` into ``folder`` and returns its path; the same file every time.

    Args:
        folder: An existing folder.
        extra_tokens: Whether the tokens of Florence-2 are there, or only those of BART, as in
            Microsoft's checkpoints.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, normalized=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    trainer = trainers.BpeTrainer(
        vocab_size=BART_SIZE - 1,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    if extra_tokens:
        tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in EXTRA_TOKENS])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path
