"""What Bland's families have in common on the wire: envelope, ids, texts, cursors."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints
from typing_extensions import TypedDict

from fixloop.errors import Invalid

MAX_LIMIT = 100
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


Data = TypeVar("Data")


class One(TypedDict, Generic[Data]):
    data: Data
    errors: None


class Items(TypedDict, Generic[Data]):
    items: list[Data]
    next_cursor: str | None


class Many(TypedDict, Generic[Data]):
    data: Items[Data]
    errors: None


def one(data: Data) -> One[Data]:
    return {"data": data, "errors": None}


def many(items: Iterable[Data], next_cursor: str | None) -> Many[Data]:
    return {"data": {"items": list(items), "next_cursor": next_cursor}, "errors": None}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Ref = Annotated[str, StringConstraints(min_length=1, max_length=128), BeforeValidator(_text)]
"""An id of something kept elsewhere; the integer ids of calls are taken as numbers too."""

Detail = Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class PageQuery(BaseModel):
    """`limit` and `cursor`, as every list of this API takes them."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 50
    cursor: Annotated[str, StringConstraints(max_length=2048)] | None = None


def identifier(at: int, noise: int) -> str:
    """A UUID, version 7: `at` in ms, then 74 bits of noise. Sorts by time."""
    value = (at & (2**48 - 1)) << 80 | 7 << 76 | (noise >> 62 & 0xFFF) << 64 | 2 << 62 | noise & (2**62 - 1)
    return str(uuid.UUID(int=value))


def first_at(at: int) -> str:
    """The least identifier of a millisecond."""
    return identifier(at, 0)


def derived(*parts: str) -> str:
    """A UUID that is the same for the same parts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(parts)))


def is_identifier(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def fingerprint(*parts: Any) -> str:
    """Sixteen hex digits that differ where the parts do."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sealed(place: dict[str, Any]) -> str:
    """A place in a list as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def opened(cursor: str, shape: dict[str, type]) -> dict[str, Any]:
    """The place that `sealed` was given, if it has the keys and types of `shape`. Raises Invalid."""
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise stale() from None
    if not isinstance(place, dict) or {name: type(value) for name, value in place.items()} != shape:
        raise stale()
    return place


def stale() -> Invalid:
    return Invalid({"cursor": ["is not a next_cursor of this list with these filters"]})


def list_cursor(of: str, key: str) -> str:
    """The cursor of a list that is read by key; `of` names the list."""
    return sealed({"l": fingerprint(of), "k": key})


def list_key(of: str, cursor: str | None) -> str | None:
    """The key behind which the page starts. Raises Invalid for a cursor of another list."""
    if cursor is None:
        return None
    place = opened(cursor, {"l": str, "k": str})
    if place["l"] != fingerprint(of) or not place["k"].isascii() or not place["k"]:
        raise stale()
    key: str = place["k"]
    return key
