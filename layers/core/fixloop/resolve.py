"""Resolving the reports behind an applied fix, run by run."""

from __future__ import annotations

from dataclasses import replace

from fixloop.grouping import Member
from fixloop.issues import Issue
from fixloop.storage import issue_reports, issues
from fixloop.storage.issues import Resolving

AT_ONCE = 250  # members of a group that one run looks at


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
