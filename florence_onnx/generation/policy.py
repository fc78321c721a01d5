"""Settings of the search: the checkpoint's generation settings and the caller's overrides."""

import dataclasses
from itertools import chain
from typing import Any, Literal

from florence_onnx.errors import GenerationError
from florence_onnx.generation import checks
from florence_onnx.generation.checks import require
from florence_onnx.generation.rules import AnswerRules
from florence_onnx.generation.settings import in_new_tokens

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
FORCED = ("forced_bos_token_id", "forced_eos_token_id")
_LEAST = {
    "bos_token_id": 0,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "max_positions": 1,
    "vocab_size": 1,
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
}
_LISTS = {
    "bad_words_ids": checks.token_sequences,
    "suppress_tokens": checks.token_ids,
    "begin_suppress_tokens": checks.token_ids,
    "sequence_bias": checks.biases,
    "exponential_decay_length_penalty": checks.decay,
}
_LONGEST_NGRAM = 1 << 31
_PENALTY_LIMIT = 8.0
_MOST_PENALTY = 1000.0
_MOST_BEAMS = 256
"""Limit of the beams. A step needs a slot of the cache and a row of logits for each beam: with 256
beams of the base model, 9 MB during the search and 52 MB during the step."""
_ANY_TOKENS = (
    *(*SPECIAL, *FORCED, "decoder_start_token_id"),
    *("suppress_tokens", "begin_suppress_tokens"),
)
OF_THE_MODEL = ("max_positions", "vocab_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationPolicy(AnswerRules):
    """Options of a search, with the names and the meaning of transformers.

    The options of `AnswerRules` are this package's own, and no checkpoint sets these options.

    Where an option is a list, any sequence may be given, and None for an empty one.

    Raises:
        GenerationError: An option is out of range or of the wrong type.
    """

    decoder_start_token_id: int
    """Token with which every sequence starts. The returned ids include this token."""
    bos_token_id: int
    """Id of ``<s>`` in the tokenizer."""
    eos_token_id: int | tuple[int, ...]
    """Token that ends a sequence, ``</s>`` in the tokenizer; or several tokens, with ``</s>`` among
    these."""
    pad_token_id: int
    """Id of ``<pad>`` in the tokenizer."""
    max_positions: int
    """Number of positions of the decoder, a property of the model: the limit of an answer."""
    vocab_size: int = 1 << 31
    """Number of tokens of the model. All ids are below this number."""
    max_new_tokens: int
    """Limit of the tokens to generate, with forced tokens, without the start token."""
    min_new_tokens: int = 0
    """Number of tokens to generate before a sequence may end by itself."""
    num_beams: int = 1
    """Number of hypotheses followed at once, at most 256; 1 is greedy search."""
    num_return_sequences: int = 1
    """Number of hypotheses returned per request, best first; at most ``num_beams``."""
    early_stopping: bool | Literal["never"] = False
    """Rule for the end of a beam search. True: stop as soon as ``num_beams`` sequences have ended.
    False: go on while the best running sequence, ended now, would beat the worst ended sequence.
    "never": go on while the best running sequence could beat the worst ended one at any length."""
    length_penalty: float = 1.0
    """Power of the length of a sequence that divides the summed log-probability of the sequence:
    above 0 favours longer sequences."""
    no_repeat_ngram_size: int = 0
    """Length of the runs of tokens that may not occur twice in a sequence; 0 allows all."""
    encoder_no_repeat_ngram_size: int = 0
    """Length of the runs of the encoder's tokens that may not occur in a sequence; 0 allows all."""
    repetition_penalty: float = 1.0
    """Factor above 1 by which tokens of the sequence, with the start token, become less likely."""
    encoder_repetition_penalty: float = 1.0
    """Factor above 1 by which tokens that the encoder reads become likelier."""
    exponential_decay_length_penalty: tuple[int, float] | None = None
    """Number of tokens after which an end becomes likelier with every token, and the factor."""
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    """Runs of tokens that do not occur in a sequence."""
    suppress_tokens: tuple[int, ...] = ()
    """Tokens that are never chosen."""
    begin_suppress_tokens: tuple[int, ...] = ()
    """Tokens that are not chosen first, a forced first token aside."""
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    """Runs of tokens, each with a number that is added to the score of the run's last token."""
    renormalize_logits: bool = False
    """Tells whether probabilities are scaled to a sum of 1 after the options above."""
    forced_bos_token_id: int | tuple[int, ...] | None = None
    """First token to generate, whatever the scores; None leaves the token to the model. From
    several tokens, the search chooses as if all were equally likely."""
    forced_eos_token_id: int | tuple[int, ...] | None = None
    """Token at ``max_new_tokens``, whatever the scores, or one of several tokens; None leaves the
    token to the model."""

    def __post_init__(self) -> None:
        """Checks every option, and turns lists into tuples."""
        super().__post_init__()
        start = checks.one_or_more("decoder_start_token_id", self.decoder_start_token_id)
        object.__setattr__(self, "decoder_start_token_id", start)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            require(checks.is_integer(value), name, value, "a whole number")
            require(value >= least, name, value, f"at least {least}")
        for name in ("eos_token_id", *FORCED):
            value = getattr(self, name)
            if value is not None or name == "eos_token_id":
                object.__setattr__(self, name, checks.one_or_more(name, value))
        for name, read in _LISTS.items():
            object.__setattr__(self, name, read(name, getattr(self, name)))
        self._check_choices()
        self._check_limits()
        self._check_tokens()

    def _check_choices(self) -> None:
        stopping = self.early_stopping
        holds = isinstance(stopping, bool) or stopping == "never"
        require(holds, "early_stopping", stopping, 'True, False or "never"')
        value = self.renormalize_logits
        require(isinstance(value, bool), "renormalize_logits", value, "True or False")
        for name in ("repetition_penalty", "encoder_repetition_penalty"):
            penalty = getattr(self, name)
            holds = checks.is_number(penalty) and 1 / _MOST_PENALTY <= penalty <= _MOST_PENALTY
            allowed = f"a number from {1 / _MOST_PENALTY} to {_MOST_PENALTY}"
            require(holds, name, penalty, allowed)
        penalty = self.length_penalty
        require(
            checks.is_number(penalty) and abs(penalty) <= _PENALTY_LIMIT,
            "length_penalty",
            penalty,
            f"a number from {-_PENALTY_LIMIT} to {_PENALTY_LIMIT}",
        )

    def _check_limits(self) -> None:
        beams = self.num_beams
        require(beams <= _MOST_BEAMS, "num_beams", beams, f"at most {_MOST_BEAMS}")
        for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):
            size = getattr(self, name)
            require(size <= _LONGEST_NGRAM, name, size, f"at most {_LONGEST_NGRAM}")
        for name, other, why in (
            ("max_new_tokens", "max_positions", "the positions of this model's decoder"),
            ("min_new_tokens", "max_new_tokens", "max_new_tokens"),
            ("num_return_sequences", "num_beams", "num_beams"),
        ):
            value, limit = getattr(self, name), getattr(self, other)
            require(value <= limit, name, value, f"at most {limit}, {why}")

    def _check_tokens(self) -> None:
        size = self.vocab_size
        lists = {name: self._tokens(name) for name in _ANY_TOKENS}
        lists["bad_words_ids"] = tuple(chain(*self.bad_words_ids))
        lists["sequence_bias"] = tuple(chain(*(tokens for tokens, _ in self.sequence_bias)))
        for name, tokens in lists.items():
            for token in tokens:
                require(token < size, name, token, f"below {size}, the size of the vocabulary")
        for name in FORCED:
            if self._tokens(name) and not self._forced(name):
                raise GenerationError(
                    f"{name} is {getattr(self, name)}, which suppress_tokens forbids; "
                    "take it out of one of them"
                )

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a sequence, ascending."""
        return self._tokens("eos_token_id")

    @property
    def first_tokens(self) -> tuple[int, ...]:
        """Tokens for a forced first token, ascending; none where the first token is not forced."""
        return self._forced("forced_bos_token_id")

    @property
    def last_tokens(self) -> tuple[int, ...]:
        """Tokens for a forced last token, ascending; none where the last token is not forced."""
        return self._forced("forced_eos_token_id")

    def _forced(self, name: str) -> tuple[int, ...]:
        return tuple(token for token in self._tokens(name) if token not in self.suppress_tokens)

    def _tokens(self, name: str) -> tuple[int, ...]:
        value = getattr(self, name)
        return value if isinstance(value, tuple) else () if value is None else (value,)

    def replace(self, **overrides: Any) -> "GenerationPolicy":
        """Copies this policy with some options changed.

        Args:
            **overrides: Any field but ``max_positions`` and ``vocab_size``; or ``max_length`` and
                ``min_length``, which count the start token.

        Raises:
            GenerationError: An option does not exist, or its value is out of range.
        """
        overrides = in_new_tokens(overrides, self.max_positions)
        options = [f.name for f in dataclasses.fields(self) if f.name not in OF_THE_MODEL]
        for name in overrides:
            if name not in options:
                options = sorted([*options, "max_length", "min_length"])
                names = ", ".join(sorted(options, key=lambda option: option in _LISTS))
                raise GenerationError(f"unknown generation option {name!r}; valid are {names}")
        most = overrides.get("max_new_tokens")
        if checks.is_integer(most) and "min_new_tokens" not in overrides:
            # The least length is the checkpoint's, not the caller's, so the limit goes first.
            overrides["min_new_tokens"] = max(min(self.min_new_tokens, most), 0)
        return dataclasses.replace(self, **overrides)


ANY_MODEL = GenerationPolicy(
    decoder_start_token_id=2,
    bos_token_id=0,
    eos_token_id=2,
    pad_token_id=1,
    max_positions=1 << 31,
    max_new_tokens=1 << 31,
    num_beams=_MOST_BEAMS,
)
"""Policy without a model: every model refuses the options that this policy refuses."""
