"""Fixes: the fixes table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fixloop.errors import NotFound
from fixloop.fixes import Fix, FixQuery
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

_ATTEMPTS = 8


def _table() -> str:
    return settings().fixes_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "issue": ("by_issue", "jf")})


def key(org: str, fix_id: str) -> Item:
    return {"pk": f"{org}#fix#{fix_id}", "sk": "fix"}


def _place(org: str, fix: Fix) -> Place:
    scopes = () if fix.issue_id is None else (("issue", fix.issue_id),)
    return Place(org, fix.n, fix.created_at, fix.leaf, scopes)


def _fields(org: str, fix: Fix) -> Item:
    return {
        **lists.attributes(_place(org, fix)),
        "at": fix.created_at,
        "status": fix.status,
        "doc": fix.model_dump_json(),
    }


def fix_of(item: Item) -> Fix:
    """The fix in a stored item, also in one that came through the table's stream."""
    return Fix.model_validate_json(item["doc"])


def number(org: str, now: int) -> tuple[int, int]:
    """A new row number and the time that goes with it."""
    return lists.allocate(org, now)


def add(org: str, fix: Fix, *also: Action) -> None:
    """Raises ConditionFailed when one of `also` is refused."""
    lists.announce(org, fix.leaf)
    row = {**key(org, fix.id), **_fields(org, fix)}
    dynamo.write([dynamo.put_action(_table(), row, condition="attribute_not_exists(pk)"), *also])
    if fix.n % lists.chunk == 0:
        lists.seal(org, fix.created_at)


def find(org: str, fix_id: str) -> Fix:
    """Raises NotFound."""
    item = dynamo.get(_table(), key(org, fix_id))
    if item is None:
        raise NotFound(f"Fix {fix_id} not found")
    return fix_of(item)


def page(org: str, query: FixQuery) -> tuple[list[Fix], int]:
    """Newest first, and how many match."""
    wanted = Filter(ORG if query.issueId is None else f"issue#{query.issueId}", query.wants)
    found = lists.page(org, wanted, offset=query.start, limit=query.limit, total=True)
    items = dynamo.get_many(_table(), ({"pk": row["pk"], "sk": row["sk"]} for row in found.rows), consistent=True)
    return sorted(map(fix_of, items), key=lambda fix: -fix.n), found.total or 0


def of_issue(org: str, issue_id: str) -> list[Fix]:
    """All fixes of an issue, newest first."""
    rows = list(lists.walk(org, Filter(f"issue#{issue_id}")))
    items = dynamo.get_many(_table(), ({"pk": row["pk"], "sk": row["sk"]} for row in rows), consistent=True)
    return sorted(map(fix_of, items), key=lambda fix: -fix.n)


def change(org: str, fix_id: str, fields: Callable[[Fix], tuple[dict[str, Any], list[Action]]], now: int) -> Fix:
    """Sets what `fields` names for the fix as it stands, together with further writes; asked anew on each attempt.

    Raises NotFound, and Contended when others keep getting in between.
    """
    for _ in range(_ATTEMPTS):
        item = dynamo.get(_table(), key(org, fix_id))
        if item is None:
            raise NotFound(f"Fix {fix_id} not found")
        old = fix_of(item)
        named, also = fields(old)
        if not also and all(getattr(old, name) == value for name, value in named.items()):
            return old
        new = old.model_copy(update={**named, "updated_at": max(now, old.updated_at)})
        content = {name: value for name, value in _fields(org, new).items() if name not in ("n", "t", "at")}
        row = dynamo.set_action(
            _table(),
            key(org, fix_id),
            content,
            remove=() if new.issue_id else ("jf",),
            names={"#doc": "doc"},
            values={":doc": item["doc"]},
            condition="#doc = :doc",
        )
        try:
            lists.move(_place(org, old), _place(org, new), row, *also)
        except ConditionFailed:
            continue
        return new
    raise Contended(f"fix {fix_id} kept changing")
