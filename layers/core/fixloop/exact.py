"""JSON whose numbers keep the digits they came with: 1.50 stays 1.50, and 1.0 stays 1.0."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

_MOST = 2**63


class Exact(float):
    """A number as it was written. Reckons as the float next to it."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Exact:
        """Raises ValueError for what no float can hold."""
        number = super().__new__(cls, text)
        if not math.isfinite(number):
            raise ValueError(f"{text[:20]} is out of range")
        number.text = text
        return number


class Written(str):
    """A JSON document that is text already."""

    __slots__ = ()


def whole(text: str) -> int | Exact:
    """An integer, kept as it was written where Python would write it otherwise."""
    number = int(text)
    return number if -_MOST <= number < _MOST and str(number) == text else Exact(text)


def loads(text: str) -> Any:
    return json.loads(text, parse_float=Exact, parse_int=whole)


def dumps(value: Any) -> Written:
    """Raises ValueError for what JSON cannot say: unpaired surrogates, and nesting of more than 250 levels."""
    try:
        return Written(orjson.dumps(value, default=_as_written).decode())
    except TypeError as error:
        raise ValueError(str(error)) from None


def _as_written(value: Any) -> orjson.Fragment:
    if isinstance(value, Exact):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} has no JSON form")
