"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Makes a table whose first line is the head."""
    lines: list[Sequence[str]] = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(value: Mapping[str, float], unit: str) -> str:
    """Writes a median, and the range where there is a range."""
    if value["min"] == value["max"]:
        return amount(value["median"], unit)
    scale = _scale(value["median"], unit)[0]
    low, high = (_number(value[name] * scale) for name in ("min", "max"))
    return f"{amount(value['median'], unit)} ({low} to {high})"


def amount(value: float, unit: str) -> str:
    """Writes a number with its unit; seconds below 1 as milliseconds."""
    scale, unit = _scale(value, unit)
    return f"{_number(value * scale)} {unit}"


def ratio(value: Mapping[str, float]) -> str:
    """Writes the median of a ratio, and the range."""
    return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"


def _scale(value: float, unit: str) -> tuple[float, str]:
    return (1000, "ms") if unit == "s" and value < 1 else (1, unit)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
