"""Leaves: what rows of a list are by their enum filters, all of them together in one letter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from string import ascii_letters, digits
from typing import Any

_LETTERS = digits + ascii_letters


class Leaves:
    """A letter for each combination of the values of some enums, at most 62; adding a value changes the letters."""

    def __init__(self, *enums: Sequence[Any]) -> None:
        combinations = list(product(*enums))
        self._letters = dict(zip(combinations, _LETTERS[: len(combinations)], strict=True))
        self._values = {letter: values for values, letter in self._letters.items()}

    def letter(self, *values: Any) -> str:
        """The leaf of a row with these values, one of each enum in their order. Raises KeyError for unknown ones."""
        return self._letters[values]

    def values(self, letter: str) -> tuple[Any, ...]:
        """The values, in the order of the enums."""
        return self._values[letter]
