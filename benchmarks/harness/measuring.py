"""Measurement of sides in turn, and statistics of the samples."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from benchmarks.harness.common import BenchmarkError, progress

T = TypeVar("T")

PAUSE = 0.3
"""Seconds between two sides, in which the idle threads of the first side stop spinning."""

OURS = "ours"
"""Start of the names of our sides."""

Samples = Mapping[str, Sequence[float]]
"""Side -> measured values, one per round."""


def alternate(
    sides: Mapping[str, Callable[[], T]], repeats: int, warmup: int = 1
) -> dict[str, list[T]]:
    """Calls the sides in turn, A B C A B C, so that other load of the machine affects all sides.

    Args:
        sides: Name -> function to call.
        repeats: Counted rounds.
        warmup: Earlier rounds, whose values are dropped.

    Returns:
        For each side the results of the calls, round by round.
    """
    values: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(warmup + repeats):
        counted = number >= warmup
        progress(f"round {number - warmup + 1} of {repeats}" if counted else "warming up")
        for name, call in sides.items():
            time.sleep(PAUSE)
            value = call()
            if counted:
                values[name].append(value)
    return values


def seconds(call: Callable[[], object]) -> float:
    """Measures the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def describe(samples: Sequence[float]) -> dict[str, Any]:
    """Returns median, extremes and all samples."""
    return {**_spread(samples), "samples": [_round(value) for value in samples]}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Divides ours by theirs round by round, because other load slows both sides of a round."""
    return _spread([a / b for a, b in zip(ours, theirs, strict=True)])


def compare_sides(case: str, sides: Samples) -> dict[str, dict[str, float]]:
    """Ratios of each of our sides to every other side, by ``"case: ours / other"``."""
    return {
        f"{case}: {a} / {b}": ratio(sides[a], sides[b])
        for a in sides
        for b in sides
        if a.startswith(OURS) and not b.startswith(OURS)
    }


def summarise(cases: Mapping[str, Samples], unit: str = "s") -> dict[str, Any]:
    """Makes the part of a record that all benchmarks have.

    Args:
        cases: Case -> samples of the sides.
        unit: Unit of the samples.
    """
    return {
        "unit": unit,
        "values": {
            case: {side: describe(samples) for side, samples in sides.items()}
            for case, sides in cases.items()
        },
        "ratios": {
            name: value
            for case, sides in cases.items()
            for name, value in compare_sides(case, sides).items()
        },
    }


def require_same_tokens(
    case: str, ours: Iterable[Sequence[int]], theirs: Iterable[Sequence[int]]
) -> None:
    """Refuses to compare the speed of sides with different tokens.

    Raises:
        BenchmarkError: A token differs. The message names the token.
    """
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if list(a) == list(b):
            continue
        place = next(
            (i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]),
            min(len(a), len(b)),
        )
        raise BenchmarkError(
            f"{case}, answer {number}: token {place} of {len(a)} and {len(b)} differs: "
            f"{list(a[place : place + 3])} here, {list(b[place : place + 3])} there"
        )


def agreement(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Share of tokens before the first token that differs."""
    equal = 0
    for a, b in zip(ours, theirs, strict=False):
        if a != b:
            break
        equal += 1
    return equal / max(len(ours), len(theirs))


def _spread(samples: Sequence[float]) -> dict[str, float]:
    return {
        "median": _round(statistics.median(samples)),
        "min": _round(min(samples)),
        "max": _round(max(samples)),
    }


def _round(value: float) -> float:
    """Rounds to six significant digits."""
    return float(f"{value:.6g}")
