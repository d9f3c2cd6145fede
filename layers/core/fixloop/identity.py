"""Who is calling: API keys, their owners, scopes and limits."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field

DEFAULT_LIMIT = 1000  # requests per minute
_PRESENTATION = re.compile(r"(?i)bearer\s+")


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class OrgSettings(BaseModel):
    """What an organisation has chosen for itself.

    `triage` opens a triage issue for what the loop finds; `grouping_threshold` is how many reports alike open an issue,
    None for the stack's own; `triage_model` drafts fixes for triage issues, None for the agent's own.
    """

    triage: bool = False
    grouping_threshold: Annotated[int, Field(ge=1)] | None = None
    triage_model: str | None = None


class User(BaseModel):
    """The owner of a key. `id` is what ThunderPhone shows as `reported_by_id`."""

    id: int
    name: str = ""
    email: str = ""
    roles: list[str] = Field(default_factory=lambda: ["AppAdmin"])
    created_at: int = 0

    @property
    def ref(self) -> str:
        """How other objects name who made, owns or reads them."""
        return f"user_{self.id}"


class Principal(BaseModel):
    """A key as it is stored: everything but the secret. Times in ms; `limit` in requests per minute."""

    key_id: str
    org_id: str
    user: User
    scope: Scope = Scope.WRITE
    limit: int = DEFAULT_LIMIT
    expires_at: int | None = None
    revoked_at: int | None = None
    created_at: int = 0
    label: str = ""
    hint: str = ""

    def usable(self, now: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def digest(secret: str) -> str:
    """What is stored of a key. The secret holds 256 random bits, so one SHA-256 is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def presented(headers: dict[str, Any]) -> str | None:
    """The key in any of the three presentations; header names are in lower case.

    `Authorization: Bearer …` (ThunderPhone, ThinkHive, Zylon), bare `authorization` (Bland) or `x-api-key` (GoMobile).
    """
    given = _PRESENTATION.sub("", str(headers.get("authorization") or "").strip(), count=1) or headers.get("x-api-key")
    return str(given).strip() or None if given else None
