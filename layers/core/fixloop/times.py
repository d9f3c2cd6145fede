"""Instants as whole milliseconds since 1970 UTC, from `FIRST` to `LAST`, and how the five APIs write and read them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_MS = 86_400_000
_MILLISECOND = timedelta(milliseconds=1)
FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def iso_ms(at: int) -> str:
    """`2026-04-20T18:25:11.002Z`: ThunderPhone, Bland and GoMobile."""
    return f"{_written(at, 'milliseconds')}Z"


def iso_s(at: int) -> str:
    """`2025-08-12T14:30:00Z`: ThinkHive and Zylon."""
    return f"{_written(at, 'seconds')}Z"


def _written(at: int, precision: str) -> str:
    return (_EPOCH + timedelta(milliseconds=at)).replace(tzinfo=None).isoformat(timespec=precision)


def parse(text: str, *, end_of_day: bool = False) -> int:
    """ISO 8601 to milliseconds. No zone means UTC; a bare date is its first, with `end_of_day` its last, millisecond.

    Raises ValueError for anything else, and for years that cannot be shifted to UTC.
    """
    text = text.strip()
    try:
        if _DATE_ONLY.fullmatch(text):
            start = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return (start - _EPOCH) // _MILLISECOND + (_DAY_MS - 1 if end_of_day else 0)
        if "-" not in text[:5]:
            raise ValueError("not an ISO 8601 date")
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    except OverflowError as error:
        raise ValueError("the date is out of range") from error
