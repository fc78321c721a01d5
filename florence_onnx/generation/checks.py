"""Checks of the options of a search: one function per kind of value."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

from florence_onnx.errors import GenerationError

Tokens = tuple[int, ...]

_LONGEST = 80
_MOST_BIAS = 1e6
_MOST_FACTOR = 1e3
_MOST_SEQUENCES = 10_000
"""Limit of the tokens in a list, because every step reads the whole list."""


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Refuses an option unless ``holds``.

    Raises:
        GenerationError: ``holds`` is false.
    """
    if not holds:
        raise GenerationError(f"{name} is {shown(value)}; it must be {allowed}")


def shown(value: object) -> str:
    """Writes a value for a message; only the beginning of a long value."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def is_integer(value: object) -> TypeGuard[int]:
    """Tells whether a value is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Tells whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number beyond the largest float.
        return False


def token_ids(name: str, value: Any) -> Tokens:
    """Reads a list of token ids; None for an empty list."""
    found = () if value is None else value
    require(_are_tokens(found), name, value, "a list of token ids")
    return tuple(dict.fromkeys(int(token) for token in found))


def one_or_more(name: str, value: Any) -> int | Tokens:
    """Reads a token id or a list of token ids; a list of one id becomes the id."""
    if is_integer(value):
        require(value >= 0, name, value, "at least 0")
        return int(value)
    require(_are_tokens(value) and len(value) > 0, name, value, "a token id or a list of them")
    found = tuple(sorted({int(token) for token in value}))
    return found[0] if len(found) == 1 else found


def token_sequences(name: str, value: Any) -> tuple[Tokens, ...]:
    """Reads lists of token ids, of which none is empty; None for no list."""
    found = () if value is None else value
    holds = _is_list(found) and all(_are_tokens(part) and len(part) > 0 for part in found)
    require(holds, name, value, "a list of lists of token ids")
    require(len(found) <= _MOST_SEQUENCES, name, value, f"at most {_MOST_SEQUENCES} lists")
    return tuple(tuple(int(token) for token in part) for part in found)


def biases(name: str, value: Any) -> tuple[tuple[Tokens, float], ...]:
    """Reads the bias of token sequences: a mapping, or a list of pairs; None for nothing."""
    allowed = "pairs of a list of token ids and a number from -1e6 to 1e6"
    pairs = [] if value is None else list(value.items()) if isinstance(value, Mapping) else value
    holds = _is_list(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs)
    require(holds, name, value, allowed)
    for tokens, bias in pairs:
        holds = _are_tokens(tokens) and len(tokens) > 0
        require(holds and is_number(bias) and abs(bias) <= _MOST_BIAS, name, value, allowed)
    require(len(pairs) <= _MOST_SEQUENCES, name, value, f"at most {_MOST_SEQUENCES} pairs")
    # As in a dictionary, the last bias of a sequence is the one that counts.
    found = {tuple(int(token) for token in tokens): float(bias) for tokens, bias in pairs}
    return tuple(found.items())


def decay(name: str, value: Any) -> tuple[int, float] | None:
    """Reads a number of tokens and a factor, or None."""
    if value is None:
        return None
    holds = _is_list(value) and len(value) == 2 and is_integer(value[0]) and is_number(value[1])
    holds = holds and value[0] >= 0 and 0 < value[1] <= _MOST_FACTOR
    require(holds, name, value, "a number of tokens and a factor up to 1000, or None")
    return int(value[0]), float(value[1])


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and _is_list(value)
        and all(is_integer(token) and token >= 0 for token in value)
    )
