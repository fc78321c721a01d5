"""How answers are searched: the checkpoint's generation settings and the caller's overrides."""

import dataclasses
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

from florence_onnx.errors import GenerationError, ModelFileError
from florence_onnx.tokenizer import Tokenizer

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_FORCED = ("forced_bos_token_id", "forced_eos_token_id")
_TOKENS = (*_SPECIAL, *_FORCED, "decoder_start_token_id")
_LEAST = {
    "max_positions": 1,
    "vocab_size": 1,
    "max_new_tokens": 1,
    "min_new_tokens": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 0,
}
_COUNTS = (*_LEAST, *_SPECIAL, "decoder_start_token_id")
_PENALTY_LIMIT = 8.0
_MOST_BEAMS = 256
"""Every step needs a slot of the cache and a row of logits for each beam: 9 MB that stay and 52 MB
that do not, with 256 beams of the base model."""
_OF_THE_MODEL = ("max_positions", "vocab_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationPolicy:
    """The options of a search, under the names and with the meaning they have in transformers.

    Raises:
        GenerationError: An option is out of range or of the wrong type.
    """

    decoder_start_token_id: int
    """The token every sequence starts from; it is part of the returned ids."""
    bos_token_id: int
    """The tokenizer's ``<s>``."""
    eos_token_id: int
    """The token that ends a sequence, the tokenizer's ``</s>``."""
    pad_token_id: int
    """The tokenizer's ``<pad>``."""
    max_positions: int
    """Positions of the decoder: a property of the model, the most that can be generated."""
    vocab_size: int = 1 << 31
    """Tokens that the model knows; ids are below."""
    max_new_tokens: int
    """The most tokens to generate, forced ones included, the start token not."""
    min_new_tokens: int = 0
    """Tokens to generate before a sequence may end by itself."""
    num_beams: int = 1
    """Hypotheses followed at once, at most 256; 1 is greedy search."""
    num_return_sequences: int = 1
    """Hypotheses returned per request, best first; at most ``num_beams``."""
    early_stopping: bool | Literal["never"] = False
    """True: stop as soon as ``num_beams`` sequences have ended. False: go on while the best
    running one, were it to end now, would beat the worst of them. "never": go on while it could
    still beat it at any length."""
    length_penalty: float = 1.0
    """A sequence's summed log-probability is divided by its length to this power: above 0 favours
    longer sequences."""
    no_repeat_ngram_size: int = 0
    """No run of so many tokens occurs twice in a sequence; 0 allows any repetition."""
    forced_bos_token_id: int | None = None
    """The first token to generate, whatever its score; None leaves it to the model."""
    forced_eos_token_id: int | None = None
    """The token to put at ``max_new_tokens``, whatever its score; None leaves it to the model."""

    def __post_init__(self) -> None:
        """Checks every option."""
        for name in _COUNTS:
            _require(_is_integer(getattr(self, name)), name, getattr(self, name), "a whole number")
        for name in _FORCED:
            value = getattr(self, name)
            _require(value is None or _is_integer(value), name, value, "a token id or None")
        for name, least in (*_LEAST.items(), *((name, 0) for name in _TOKENS)):
            value = getattr(self, name)
            _require(value is None or value >= least, name, value, f"at least {least}")
        for name in _TOKENS:
            value, tokens = getattr(self, name), self.vocab_size
            _require(value is None or value < tokens, name, value, f"below {tokens}, the tokens")
        self._check_limits()

    def _check_limits(self) -> None:
        beams = self.num_beams
        _require(beams <= _MOST_BEAMS, "num_beams", beams, f"at most {_MOST_BEAMS}")
        for name, other, why in (
            ("max_new_tokens", "max_positions", "the positions of this model's decoder"),
            ("min_new_tokens", "max_new_tokens", "max_new_tokens"),
            ("num_return_sequences", "num_beams", "num_beams"),
        ):
            value, limit = getattr(self, name), getattr(self, other)
            _require(value <= limit, name, value, f"at most {limit}, {why}")
        stopping = self.early_stopping
        _require(
            isinstance(stopping, bool) or stopping == "never",
            "early_stopping",
            stopping,
            'True, False or "never"',
        )
        penalty = self.length_penalty
        _require(
            isinstance(penalty, Real)
            and not isinstance(penalty, bool)
            and math.isfinite(penalty)
            and abs(penalty) <= _PENALTY_LIMIT,
            "length_penalty",
            penalty,
            f"a number from {-_PENALTY_LIMIT} to {_PENALTY_LIMIT}",
        )

    def replace(self, **overrides: Any) -> "GenerationPolicy":
        """This policy with some options changed.

        Args:
            **overrides: Any field but ``max_positions`` and ``vocab_size``.

        Raises:
            GenerationError: An option does not exist, or its value is out of range.
        """
        options = [f.name for f in dataclasses.fields(self) if f.name not in _OF_THE_MODEL]
        for name in overrides:
            if name not in options:
                raise GenerationError(
                    f"unknown generation option {name!r}; valid are {', '.join(sorted(options))}"
                )
        return dataclasses.replace(self, **overrides)

    @classmethod
    def from_config(
        cls,
        generation_config: Mapping[str, Any],
        config: Mapping[str, Any],
        tokenizer: Tokenizer,
        max_positions: int,
        vocab_size: int,
    ) -> "GenerationPolicy":
        """The policy of a model folder.

        What generation_config.json does not say is looked up in ``text_config``, where the
        released checkpoints keep it, and else is as transformers has it; without a limit there,
        answers may be as long as the decoder's positions allow. The ids at the top level of
        config.json are never read: many fine-tunes carry wrong ones.

        Args:
            generation_config: The content of generation_config.json.
            config: The content of config.json.
            tokenizer: Tells the ids of ``<s>``, ``</s>`` and ``<pad>``.
            max_positions: Positions of the decoder.
            vocab_size: Tokens that the model knows.

        Raises:
            ModelFileError: The ids in generation_config.json are not the tokenizer's, or a
                setting is out of range.
        """
        for name in _SPECIAL:
            stored, right = generation_config.get(name), getattr(tokenizer, name)
            if stored not in (None, right):
                raise ModelFileError(
                    f"generation_config.json: {name} is {stored!r:.80}, but {right} in "
                    "tokenizer.json; export the checkpoint again, which repairs it, or correct "
                    "the file"
                )
        found: dict[str, Any] = {
            "decoder_start_token_id": tokenizer.eos_token_id,
            "max_new_tokens": max_positions,
        }
        sources = {
            "generation_config.json: ": generation_config,
            "config.json: text_config.": config.get("text_config") or {},
        }
        origins = dict.fromkeys(_OF_THE_MODEL, "config.json: ")
        for field in dataclasses.fields(cls):
            for origin, source in sources.items():
                value = source.get(field.name)
                # A null means "not said", except that it switches off a forced token.
                if value is not None or (field.name in _FORCED and field.name in source):
                    found[field.name] = value
                    origins[field.name] = origin
                    break
        found |= {name: getattr(tokenizer, name) for name in _SPECIAL}
        try:
            return cls(**(found | {"max_positions": max_positions, "vocab_size": vocab_size}))
        except GenerationError as error:
            name = str(error).partition(" ")[0]
            raise ModelFileError(f"{origins.get(name, 'tokenizer.json: ')}{error}") from error


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise GenerationError(f"{name} is {shown}; it must be {allowed}")
