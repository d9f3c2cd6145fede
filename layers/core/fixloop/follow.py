"""What follows from a fix's status: its issue moves on."""

from __future__ import annotations

from typing import Any

from fixloop.fixes import Fix, followed
from fixloop.issues import Issue
from fixloop.storage import issues


def follow_fix(org: str, fix: Fix, now: int, applied_at: int | None = None) -> Issue | None:
    """The issue after it has followed its fix, forward only. Doing it again changes nothing.

    `applied_at` (ms) says up to when reports count as resolved by it. An issue that was closed since then and is open
    again stays open.
    """
    issue = issues.look(org, fix.issue_id) if fix.issue_id else None
    if issue is None:
        return None

    def moved(current: Issue) -> dict[str, Any]:
        target = followed(fix.status, current.status)
        fields: dict[str, Any] = {"status": target} if target else {}
        if applied_at is None:
            return fields
        through = current.resolved_through or 0
        once = {} if max(through, current.closed_at or 0) >= applied_at else fields
        return {**once, "resolved_through": max(applied_at, through)}

    return issues.change(org, issue.id, moved, now)
