"""Fields of a JSON file, read with a type. Errors name the field and the allowed values."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from florence_onnx.errors import FlorenceError


class Fields:
    """Fields of an object in a JSON file. A null counts as absent, as in transformers.

    An absent field has the given default. Without a default, the field must be present.
    """

    def __init__(
        self, values: Mapping[str, Any], file: str, error: type[FlorenceError], path: str = ""
    ) -> None:
        """Wraps an object.

        Args:
            values: The object.
            file: Name of the file in messages.
            error: Error to raise for a field with a wrong value.
            path: Path of the object inside the file, with a dot at the end.
        """
        self._values = values
        self._file = file
        self._error = error
        self._path = path

    def get(self, name: str, default: object = None) -> Any:
        """Reads a field of any type."""
        value = self._values.get(name)
        return default if value is None else value

    def refused(self, name: str, allowed: str, value: object = None) -> FlorenceError:
        """Makes the error for a field with a wrong value.

        Args:
            name: Name of the field.
            allowed: Allowed values, in words.
            value: Value of the field where the object does not have the field.
        """
        shown = json.dumps(self.get(name, value))
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return self._error(f"{self._file}: {self._path}{name} is {shown}, but must be {allowed}")

    def refuse_others(self, names: Iterable[str]) -> None:
        """Refuses fields of other names, which nothing would read."""
        known = sorted(names)
        others = [name for name in self._values if name not in known]
        if others:
            raise self._error(
                f"{self._file}: {self._path}{others[0][:80]} is unknown; there are "
                f"{', '.join(known)}"
            )

    def text(self, name: str) -> str:
        """Reads a string."""
        return str(self._value(name, None, lambda value: isinstance(value, str), "text"))

    def section(self, name: str) -> "Fields":
        """Reads an object; an empty object when absent."""
        value = self.get(name, {})
        if not isinstance(value, Mapping):
            raise self.refused(name, "an object")
        return Fields(value, self._file, self._error, f"{self._path}{name}.")

    def sections(self, name: str) -> "list[Fields]":
        """Reads a list of objects."""
        objects = self._value(name, None, _list_of(_is_object), "a list of objects")
        return [
            Fields(values, self._file, self._error, f"{self._path}{name}.{index}.")
            for index, values in enumerate(objects)
        ]

    def expect(self, name: str, *supported: object) -> None:
        """Refuses a value other than ``supported``; an absent field has the first of the values."""
        value = self.get(name, supported[0])
        # Compared with its type, because true equals 1 in Python.
        if not any(type(value) is type(choice) and value == choice for choice in supported):
            raise self.refused(name, " or ".join(map(json.dumps, supported)))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Reads a value of ``choices``; the first when absent."""
        self.expect(name, *choices)
        return str(self.get(name, choices[0]))

    def boolean(self, name: str, default: bool) -> bool:
        """Reads true or false."""
        return bool(self._value(name, default, _is_boolean, "true or false"))

    def booleans(self, name: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """Reads a list of true and false."""
        return tuple(self._value(name, default, _list_of(_is_boolean), "a list of true or false"))

    def integer(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """Reads a whole number in a range."""
        allowed = f"a whole number from {least} to {most}"
        return int(self._value(name, default, _is_integer(least, most), allowed))

    def integers(
        self, name: str, least: int, most: int, default: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Reads a list of whole numbers in a range."""
        allowed = f"a list of whole numbers from {least} to {most}"
        return tuple(self._value(name, default, _list_of(_is_integer(least, most)), allowed))

    def number(self, name: str, least: float, most: float, default: float | None = None) -> float:
        """Reads a number in a range."""
        allowed = f"a number from {least:g} to {most:g}"
        return float(self._value(name, default, _is_number(least, most), allowed))

    def numbers(
        self,
        name: str,
        count: int,
        least: float,
        most: float,
        default: tuple[float, ...] | None = None,
    ) -> tuple[float, ...]:
        """Reads a list of a certain number of numbers in a range."""
        allowed = f"a list of {count} numbers from {least:g} to {most:g}"
        values = self._value(name, default, _list_of(_is_number(least, most), count), allowed)
        return tuple(map(float, values))

    def number_lists(self, name: str, least: float, most: float) -> tuple[tuple[float, ...], ...]:
        """Reads a list of lists of numbers in a range; empty when absent."""
        allowed = f"a list of lists of numbers from {least:g} to {most:g}"
        valid = _list_of(_list_of(_is_number(least, most)))
        return tuple(tuple(map(float, values)) for values in self._value(name, [], valid, allowed))

    def _value(self, name: str, default: object, valid: Callable[[Any], bool], allowed: str) -> Any:
        value = self.get(name, default)
        if not valid(value):
            raise self.refused(name, allowed)
        return value


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: (
        type(value) in (int, float) and least <= value <= most and math.isfinite(value)
    )


def _list_of(valid: Callable[[Any], bool], count: int | None = None) -> Callable[[Any], bool]:
    return lambda values: (
        isinstance(values, list | tuple)
        and count in (None, len(values))
        and all(map(valid, values))
    )
