"""Organisations, API keys, rate windows and remembered answers: the platform table."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from fixloop.errors import Conflict, NotFound, RateLimited
from fixloop.identity import OrgSettings, Principal, Scope, User, digest
from fixloop.settings import settings
from fixloop.storage import blobs, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Item

WINDOW_SECONDS = 60
REMEMBERED_SECONDS = 24 * 3600
_SHARE = 320  # a lease is at most this part of the limit: sixteen processes with one each withhold at most 5 %


_REMEMBERED = 1000  # organisations whose settings a process remembers
_remembered: dict[str, tuple[int, OrgSettings]] = {}


def _table() -> str:
    return settings().platform_table


# Organisations and keys


def create_org(name: str, now: int) -> str:
    """The new organisation's id, `org_` and 16 hex digits."""
    org_id = f"org_{secrets.token_hex(8)}"
    dynamo.put(
        _table(),
        {"pk": f"org#{org_id}", "sk": "org", "name": name, "created_at": now, "members": 0},
        condition="attribute_not_exists(pk)",
    )
    return org_id


def org(org_id: str) -> Item | None:
    """`name`, `created_at` (ms) and `members`, or None."""
    return dynamo.get(_table(), {"pk": f"org#{org_id}", "sk": "org"})


def change_org(org_id: str, changes: dict[str, Any]) -> OrgSettings:
    """Sets those of an organisation's settings that are named; None leaves one to the stack. Raises NotFound."""
    given = {name: value for name, value in changes.items() if value is not None}
    row = {"pk": f"org#{org_id}", "sk": "org"}
    setting = dynamo.set_action(
        _table(),
        row,
        {"chosen": True, **given},
        remove=sorted(changes.keys() - given.keys()),
        condition="attribute_exists(pk)",
    )
    try:
        dynamo.write([setting])
    except ConditionFailed:
        raise NotFound(f"Organisation {org_id} not found") from None
    _remembered.pop(org_id, None)
    return OrgSettings.model_validate(org(org_id))


def org_settings(org_id: str, now: int) -> OrgSettings:
    """An organisation's settings, remembered for as long as keys are. `now` in ms."""
    at, known = _remembered.get(org_id, (0, None))
    if known is None or not 0 <= now - at < settings().key_cache_seconds * 1000:
        known = OrgSettings.model_validate(org(org_id) or {})
        if len(_remembered) >= _REMEMBERED:
            _remembered.clear()
        _remembered[org_id] = (now, known)
    return known


def create_key(
    org_id: str,
    now: int,
    *,
    user: User | None = None,
    scope: Scope = Scope.WRITE,
    limit: int,
    expires_at: int | None = None,
    prefix: str = "sk_live_",
    label: str = "",
) -> tuple[str, Principal]:
    """The secret, which is shown this once, and what is kept. Raises NotFound for an unknown organisation."""
    try:
        held = dynamo.update(
            _table(),
            {"pk": f"org#{org_id}", "sk": "org"},
            "ADD members :one",
            values={":one": 1},
            condition="attribute_exists(pk)",
        )
    except ConditionFailed:
        raise NotFound(f"Organisation {org_id} not found") from None
    secret = prefix + secrets.token_urlsafe(32)
    principal = Principal(
        key_id=f"key_{secrets.token_hex(8)}",
        org_id=org_id,
        user=user or User(id=held["members"], created_at=now),
        scope=scope,
        limit=limit,
        expires_at=expires_at,
        created_at=now,
        label=label,
        hint=f"{secret[: len(prefix) + 2]}…{secret[-4:]}",
    )
    hashed = digest(secret)
    content = principal.model_dump_json()
    dynamo.write(
        [
            dynamo.put_action(_table(), {"pk": f"key#{hashed}", "sk": "key", "doc": content}),
            dynamo.put_action(
                _table(), {"pk": f"org#{org_id}", "sk": f"key#{principal.key_id}", "doc": content, "hash": hashed}
            ),
        ]
    )
    return secret, principal


def find_key(secret: str) -> Principal | None:
    held = dynamo.get(_table(), {"pk": f"key#{digest(secret)}", "sk": "key"})
    return Principal.model_validate_json(held["doc"]) if held else None


def list_keys(org_id: str) -> list[Principal]:
    """Oldest first, revoked ones included."""
    held = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :key)", {":pk": f"org#{org_id}", ":key": "key#"})
    return sorted((Principal.model_validate_json(item["doc"]) for item in held), key=lambda key: key.created_at)


def revoke_key(org_id: str, key_id: str, now: int) -> Principal:
    """Processes forget a key within `key_cache_seconds`. Raises NotFound."""
    held = dynamo.get(_table(), {"pk": f"org#{org_id}", "sk": f"key#{key_id}"})
    if not held:
        raise NotFound(f"Key {key_id} not found")
    principal = Principal.model_validate_json(held["doc"])
    principal.revoked_at = principal.revoked_at or now
    content = principal.model_dump_json()
    dynamo.write(
        [
            dynamo.put_action(_table(), {"pk": f"key#{held['hash']}", "sk": "key", "doc": content}),
            dynamo.put_action(_table(), {**held, "doc": content}),
        ]
    )
    return principal


# Rate windows


@dataclass
class Lease:
    """Requests of a key's window that this process may answer without asking again. Seconds since 1970."""

    started: int
    left: int
    unleased: int

    def remaining(self) -> int:
        return self.left + self.unleased


def lease(key_id: str, limit: int, now: int) -> Lease:
    """A share of the key's window of 60 s, small enough that no process hoards.

    Raises RateLimited with the seconds until the window ends. `now` in seconds.
    """
    key = {"pk": f"rate#{key_id}", "sk": "window"}
    wanted = max(1, limit // _SHARE)
    cutoff = now - WINDOW_SECONDS
    for _ in range(20):
        try:
            held = dynamo.update(
                _table(),
                key,
                "SET used = used + :wanted",
                values={":wanted": wanted, ":room": limit - wanted, ":cutoff": cutoff},
                condition="started > :cutoff AND used <= :room",
            )
            left = limit - held["used"]
            return Lease(held["started"], wanted, left)
        except ConditionFailed as refused:
            current = refused.items[0]
        if current and current["started"] > cutoff:
            left = limit - current["used"]
            if left <= 0:
                raise RateLimited(max(1, current["started"] + WINDOW_SECONDS - now))
            wanted = 1
            continue
        try:
            dynamo.put(
                _table(),
                {**key, "started": now, "used": wanted, "expires": now + 2 * WINDOW_SECONDS},
                condition="attribute_not_exists(started) OR started <= :cutoff",
                values={":cutoff": cutoff},
            )
            return Lease(now, wanted, limit - wanted)
        except ConditionFailed:
            continue
    raise RateLimited(1)


# Remembered answers


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


def _answer_key(org_id: str, key: str) -> Item:
    return {"pk": f"answer#{org_id}#{digest(key)}", "sk": "answer"}


def answered(org_id: str, key: str, fingerprint: str, now: int) -> Answer | None:
    """The first answer to this `Idempotency-Key`, for 24 h. Raises Conflict when the key came with another request."""
    held = dynamo.get(_table(), _answer_key(org_id, key))
    if not held or held["expires"] <= now // 1000:
        return None
    if held["fingerprint"] != fingerprint:
        raise Conflict("This Idempotency-Key was used with a different request.")
    body = blobs.load(_table(), held["pk"], held["blob"]) if "blob" in held else json.loads(held["body"])
    return Answer(held["status"], body)


def remember(org_id: str, key: str, fingerprint: str, answer: Answer, now: int) -> Action:
    """The write that keeps an answer; its condition fails when another request with the key came first."""
    seconds = now // 1000
    item: Item = {
        **_answer_key(org_id, key),
        "fingerprint": fingerprint,
        "status": answer.status,
        "expires": seconds + REMEMBERED_SECONDS,
    }
    body = json.dumps(answer.body, ensure_ascii=False)
    if len(body.encode()) <= blobs.FITS:
        item["body"] = body
    else:
        item["blob"] = blobs.store(_table(), item["pk"], "body", answer.body, expires=item["expires"])
    return dynamo.put_action(
        _table(),
        item,
        condition="attribute_not_exists(pk) OR expires <= :now",
        values={":now": seconds},
    )
