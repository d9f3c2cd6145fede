"""What follows from a fix's status: the issue moves on, and with an applied fix its reports are resolved."""

from __future__ import annotations

from fixloop import grouping
from fixloop.fixes import Fix, followed
from fixloop.issues import Issue
from fixloop.storage import issue_reports, issues

MEMBERS_AT_ONCE = 1000


def follow_fix(org: str, fix: Fix, now: int) -> Issue | None:
    """The issue after it has followed its fix, forward only. Doing it again changes nothing."""
    issue = issues.look(org, fix.issue_id) if fix.issue_id else None
    if issue is None:
        return None

    def moved(current: Issue) -> dict[str, str]:
        target = followed(fix.status, current.status)
        return {"status": target} if target else {}

    return issues.change(org, issue.id, moved, now)


def resolve_reports(org: str, issue: Issue, applied_at: int, now: int) -> int:
    """Resolves the reports behind an issue that were filed before its fix was applied. Repeats change nothing."""
    if issue.group is None:
        return 0
    members = [grouping.Member.model_validate(one) for one in issues.members(org, issue.group, MEMBERS_AT_ONCE)]
    reports = [issue_reports.find(org, str(member.report_id)) for member in members]
    before = [report for report in reports if report.created_at <= applied_at]
    for report in before:
        issue_reports.set_status(org, report, "resolved", now)
    return len(before)
