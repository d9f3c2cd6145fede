"""What a triage issue says that the loop opens by itself: of an issue that has opened, or of a critical report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fixloop.grouping import Member
from fixloop.issue_reports import Report
from fixloop.issues import Issue as LoopIssue
from fixloop.triage.evidence import FlagIn
from fixloop.triage.issues import IssueIn

EVIDENCE = 40  # calls attached when an issue is opened
_UNNAMED = "critical_report"
_CATEGORIES = {
    "failed-tool-call": "Tools",
    "promised-action-missing": "Tools",
    "promised-transfer-missing": "Routing",
    "long-silence": "Latency",
    "timeout": "Latency",
    "agent-interrupted": "Speech",
    "abrupt-end": "Telephony",
    "retry-storm": "Telephony",
    "number-always-failing": "Telephony",
    "calls-die-at-node": "Telephony",
}


def category(pattern: str | None) -> str:
    """One of the built-in categories for a pattern's name; what an agent says is dialogue."""
    return _CATEGORIES.get((pattern or "").partition(":")[0], "Dialogue")


def of_issue(issue: LoopIssue) -> IssueIn:
    return IssueIn(
        title=issue.title[:200],
        description=issue.description[:10_000],
        severity=issue.severity,
        category=category(next(iter(issue.tags), None)),
    )


def of_report(report: Report) -> IssueIn:
    said = report.said
    return IssueIn(
        title=said.title[:200],
        description=(said.description or said.evidence)[:10_000],
        severity="critical",
        category=category(said.detected_issue_ref),
    )


def flag(member: Member, pattern: str | None, rows: Sequence[Mapping[str, Any]]) -> FlagIn | None:
    """A flag on the moment a member is about, which its note names by the second; None where no turn is known."""
    if member.call_id is None or member.turn is None or member.turn >= len(rows):
        return None
    row = rows[member.turn]
    second = "" if row.get("start_ms") is None else f" (second {int(row['start_ms'] // 1000)} of the call)"
    said, stem = row.get("content"), (pattern or "").partition(":")[0][:64]
    return FlagIn(
        call_id=str(member.call_id),
        type=stem if re.search(r"[^\W_]", stem) else _UNNAMED,
        note=f"{member.title}{second}",
        message_index=member.turn,
        message_text=said[:10_000] if isinstance(said, str) else None,
    )
