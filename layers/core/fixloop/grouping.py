"""Which reports, and which app issues, are one issue. Versions are frozen once shipped; a group names its own, and why.

Version 1 groups reports. Version 2 adds app issues, in groups of their own; reports still go by version 1, so that the
groups they are in go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from fixloop.app_issues import AppIssue, Type
from fixloop.issue_reports import Report
from fixloop.issues import SEVERITIES, Severity
from fixloop.traces import is_agent

VERSION = "1"
APP_ISSUES_VERSION = "2"
THRESHOLD = 3  # members alike that open an issue, where nobody has said otherwise
UNASSIGNED = "unassigned"
QUOTED = 3  # members that an issue's description quotes

_SEVERITY: dict[str, Severity] = {"info": "low", "warning": "medium", "critical": "critical"}
_COMPLAINTS: dict[Type, tuple[str, Severity]] = {
    "NoAnswer": ("No answer", "medium"),
    "Inaccurate": ("Inaccurate answer", "high"),
    "NoContextUsed": ("Answer without its context", "medium"),
    "Format": ("Badly formatted answer", "low"),
    "Other": ("Problem with an answer", "medium"),
}


class Fingerprint(BaseModel):
    """A group's id within the organisation, and the rule that puts a report in it, in words."""

    group: str
    why: str


class Member(BaseModel):
    """What a report, or an app issue, brings to its group.

    `at` is the call's or the trace's start in ms, `customer` the caller's side of it, `turn` the row of the transcript.
    """

    report_id: int | None = None
    app_issue_id: str | None = None
    call_id: int | None = None
    thread_id: str | None = None
    trace_id: str | None = None
    turn: int | None = None
    at: int
    customer: str | None = None
    severity: Severity
    title: str
    description: str

    @property
    def key(self) -> str:
        """Its name in the group. Names sort by age."""
        return f"{self.report_id:015d}" if self.report_id is not None else str(self.app_issue_id)

    @property
    def where(self) -> str:
        return f"Call {self.call_id}" if self.report_id is not None else f"Thread {self.thread_id}"


def fingerprint(report: Report, agent_id: str) -> Fingerprint | None:
    """Version 1: reports with one `detected_issue_ref` on one agent belong together; one without stands alone."""
    ref = report.said.detected_issue_ref
    if ref is None:
        return None
    return Fingerprint(
        group=f"{VERSION}#{agent_id}#{ref}",
        why=f"version {VERSION}: same detected_issue_ref {ref!r} on agent {agent_id}",
    )


def fingerprint_of_app_issue(issue: AppIssue, agent_id: str) -> Fingerprint:
    """Version 2: app issues of one type about one agent's answers belong together."""
    return Fingerprint(
        group=f"{APP_ISSUES_VERSION}#{agent_id}#app-issue:{issue.type}",
        why=f"version {APP_ISSUES_VERSION}: app issues of type {issue.type} on agent {agent_id}",
    )


def complaint(issue: AppIssue) -> tuple[str, Severity]:
    """What an app issue is called as a failure of the agent, and how bad that is on the scale of issues."""
    called, severity = _COMPLAINTS[issue.type]
    first = issue.description.strip().partition("\n")[0]
    return (f"{called}: {first}"[:255] if first else called), severity


def severity(report: Report) -> Severity:
    """A report's severity on the scale of issues."""
    return _SEVERITY[report.said.severity]


def worst(severities: Sequence[Severity]) -> Severity:
    return max(severities, key=SEVERITIES.index)


def tags(ref: str) -> list[str]:
    """The parts of a pattern's name: `contradicts-prompt:refund-days` is tagged with both sides of the colon."""
    return list(dict.fromkeys(part[:100] for part in ref.split(":") if part))


def described(members: Sequence[Member], why: str) -> str:
    """What the first members said, and why they are together."""
    said = "\n\n".join(f"{member.where}: {member.description}".strip() for member in members[:QUOTED])
    return f"{said[:15_000]}\n\nGrouped by {why}."


def failing_turn(rows: Sequence[dict[str, Any]], index: int | None, second: int | None) -> int | None:
    """The agent's turn that a report is about: the named one, the one at its second, or the next one after those."""
    spoken = [at for at, row in enumerate(rows) if is_agent(row.get("role"))]
    if index is None and second is not None:
        begun = [at for at in spoken if (rows[at].get("start_ms") or 0) <= second * 1000 + 999]
        return begun[-1] if begun else (spoken[0] if spoken else None)
    if index is None or not spoken:
        return None
    return next((at for at in spoken if at >= index), spoken[-1])
