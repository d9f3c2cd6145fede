"""Fixes: the fixes table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fixloop.fixes import Fix, FixQuery
from fixloop.settings import settings
from fixloop.storage.documents import Documents, updated
from fixloop.storage.dynamo import Action, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place


def _table() -> str:
    return settings().fixes_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "issue": ("by_issue", "jf")})


def key(org: str, fix_id: str) -> Item:
    return {"pk": f"{org}#fix#{fix_id}", "sk": "fix"}


def _place(org: str, fix: Fix) -> Place:
    scopes = () if fix.issue_id is None else (("issue", fix.issue_id),)
    return Place(org, fix.n, fix.created_at, fix.leaf, scopes)


def _fields(fix: Fix) -> Item:
    return {"status": fix.status, "doc": fix.model_dump_json()}


def fix_of(item: Item) -> Fix:
    """The fix in a stored item, also in one that came through the table's stream."""
    return Fix.model_validate_json(item["doc"])


_fixes = Documents("Fix", _table, lists, key, _place, _fields, fix_of)
number, find = lists.allocate, _fixes.find


def add(org: str, fix: Fix, *also: Action) -> None:
    """Raises ConditionFailed when one of `also` is refused."""
    _fixes.add(org, fix.id, fix, *also)


def page(org: str, query: FixQuery) -> tuple[list[Fix], int]:
    """Newest first, and how many match."""
    scope = ORG if query.issueId is None else f"issue#{query.issueId}"
    return _fixes.page(org, Filter(scope, query.wants), query.start, query.limit)


def of_issue(org: str, issue_id: str) -> list[Fix]:
    """All fixes of an issue, newest first."""
    return _fixes.all(org, Filter(f"issue#{issue_id}"))


def change(org: str, fix_id: str, fields: Callable[[Fix], tuple[dict[str, Any], list[Action]]], now: int) -> Fix:
    """Sets what `fields` names for the fix as it stands, together with further writes; asked anew on each attempt.

    Raises NotFound, and Contended when others keep getting in between.
    """

    def asked(old: Fix) -> tuple[Fix, list[Action]]:
        named, also = fields(old)
        return updated(old, named, now), also

    return _fixes.change(org, fix_id, asked)
