"""Which part of a list is asked for: dates from and to, and ThunderPhone's limit and offset."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from fixloop import times
from fixloop.shapes import INSTANT

MAX_PAGE = 200


def instant(value: Any, *, end_of_day: bool = False) -> int:
    """ISO 8601 text to ms. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be an ISO 8601 date")
    try:
        return times.parse(value, end_of_day=end_of_day)
    except ValueError:
        raise ValueError("must be an ISO 8601 date") from None


def whole_second(at: int) -> int:
    """The last ms of the second that `at` names, where times are shown in whole seconds; other instants as they are."""
    return at + 999 if at % 1000 == 0 else at


def not_before(start: str) -> AfterValidator:
    """Refuses the end of a range that lies before the field `start`."""

    def ordered(end: int | None, info: ValidationInfo) -> int | None:
        begun = info.data.get(start)
        if end is not None and begun is not None and end < begun:
            raise ValueError(f"must not be before {start}")
        return end

    return AfterValidator(ordered)


def _capped(limit: int) -> int:
    return min(limit, MAX_PAGE)


Since = Annotated[int | None, BeforeValidator(instant), INSTANT]
"""A date that rows are not before, in ms once read; a bare one is its first ms."""

Until = Annotated[int | None, BeforeValidator(partial(instant, end_of_day=True)), INSTANT]
"""A date that rows are not after, in ms once read; a bare one is its last ms. To be combined with `not_before`."""

Limit = Annotated[int, Field(ge=1), AfterValidator(_capped)]
Offset = Annotated[int, Field(ge=0, le=10**12)]
