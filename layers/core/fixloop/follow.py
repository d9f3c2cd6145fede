"""What follows from a fix's status: the issue moves on, and with an applied fix its reports are resolved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fixloop.fixes import Fix, followed
from fixloop.grouping import Member
from fixloop.issues import Issue
from fixloop.storage import issue_reports, issues
from fixloop.storage.issues import Resolving

AT_ONCE = 250  # members of a group that one run looks at


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


def resolve_reports(org: str, issue: Issue, fix_id: str, applied_at: int, now: int) -> Resolving | None:
    """Begins to resolve the reports behind an issue that were filed before its fix was applied, however many they are.

    What is left is done by `go_on`, run by run. A repeat picks up nothing that another run has done; None when there
    is nothing to do.
    """
    if issue.group is None:
        return None
    known = issues.resolving(org, fix_id, applied_at)
    if known:
        return known
    return _resolved(org, issue.group, Resolving(fix_id, issue.id, applied_at), None, now)


def go_on(org: str, told: Resolving, now: int) -> Resolving | None:
    """Resolves the next reports, unless another run has come further than what was `told`."""
    known = issues.resolving(org, told.fix_id, told.applied_at)
    issue = issues.look(org, told.issue_id)
    if known is None or known.looked_at != told.looked_at or not known.more or issue is None or issue.group is None:
        return None
    return _resolved(org, issue.group, known, known, now)


def _resolved(org: str, group: str, start: Resolving, before: Resolving | None, now: int) -> Resolving | None:
    """What is done is done again by whoever takes this up after a crash: the progress is noted last."""
    following = [Member.model_validate(one) for one in issues.members(org, group, AT_ONCE + 1, start.after)]
    members, resolved = following[:AT_ONCE], 0
    for member in members:
        if member.report_id is None:
            continue
        report = issue_reports.find(org, str(member.report_id))
        if report.created_at <= start.applied_at:
            issue_reports.set_status(org, report, "resolved", now)
            resolved += 1
    made = replace(
        start,
        after=members[-1].key if members else start.after,
        looked_at=start.looked_at + len(members),
        resolved=start.resolved + resolved,
        more=len(following) > AT_ONCE,
        at=now,
    )
    return made if issues.resolved(org, before, made) else None
