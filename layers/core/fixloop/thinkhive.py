"""What ThinkHive's families have in common on the wire: envelopes, pages, ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
MAX_LIMIT = 100
_ID = re.compile(r"[\w.:-]{1,128}")

Data = TypeVar("Data")
PageNumber = Annotated[int, Field(ge=1, le=10**9)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


def identifier(prefix: str, at: int, noise: int) -> str:
    """`iss_` and the like, then the time and some noise in base 36: sortable by time, as short as that allows."""
    return f"{prefix}_{_base36(at).rjust(8, '0')}{_base36(noise % 36**4).rjust(4, '0')}"


def _base36(value: int) -> str:
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = DIGITS[digit] + digits
    return digits or "0"


def is_identifier(text: str) -> bool:
    return _ID.fullmatch(text) is not None


class PageQuery(BaseModel):
    """`page` from 1 and `limit` up to 100, as every list of this API takes them."""

    page: PageNumber = 1
    limit: Limit = 20

    @property
    def start(self) -> int:
        """How many rows lie before the page."""
        return (self.page - 1) * self.limit


class One(TypedDict, Generic[Data]):
    success: Literal[True]
    data: Data


class Pagination(TypedDict):
    page: int
    limit: int
    total: int
    hasMore: bool


class Many(TypedDict, Generic[Data]):
    success: Literal[True]
    data: list[Data]
    pagination: Pagination


class Done(TypedDict):
    success: Literal[True]
    message: str


def placed(shown: Mapping[str, Any], before: str, **more: Any) -> dict[str, Any]:
    """`shown` with further keys where the published pages print them: before the key `before`."""
    keys = list(shown.items())
    at = list(shown).index(before)
    return dict([*keys[:at], *more.items(), *keys[at:]])


def one(data: Data) -> One[Data]:
    return {"success": True, "data": data}


def many(data: list[Data], query: PageQuery, total: int) -> Many[Data]:
    return {
        "success": True,
        "data": data,
        "pagination": {
            "page": query.page,
            "limit": query.limit,
            "total": total,
            "hasMore": query.start + len(data) < total,
        },
    }
