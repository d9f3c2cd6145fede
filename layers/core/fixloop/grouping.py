"""Which reports are one issue. Versions are frozen once shipped; a group says which version made it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from fixloop.issue_reports import Report
from fixloop.issues import SEVERITIES, Severity
from fixloop.traces import is_agent

VERSION = "1"
THRESHOLD = 3
UNASSIGNED = "unassigned"

_SEVERITY: dict[str, Severity] = {"info": "low", "warning": "medium", "critical": "critical"}


class Fingerprint(BaseModel):
    """A group's id within the organisation, and the rule that puts a report in it, in words."""

    group: str
    why: str


class Member(BaseModel):
    """What a report brings to its group. `at` is the call's start in ms, `customer` the caller's side of it."""

    report_id: int
    call_id: int
    trace_id: str | None
    at: int
    customer: str | None
    severity: Severity
    title: str
    description: str


def fingerprint(report: Report, agent_id: str) -> Fingerprint | None:
    """Version 1: reports with one `detected_issue_ref` on one agent belong together; one without stands alone."""
    ref = report.said.detected_issue_ref
    if ref is None:
        return None
    return Fingerprint(
        group=f"{VERSION}#{agent_id}#{ref}",
        why=f"version {VERSION}: same detected_issue_ref {ref!r} on agent {agent_id}",
    )


def severity(report: Report) -> Severity:
    """A report's severity on the scale of issues."""
    return _SEVERITY[report.said.severity]


def worst(severities: Sequence[Severity]) -> Severity:
    return max(severities, key=SEVERITIES.index)


def tags(ref: str) -> list[str]:
    """The parts of a pattern's name: `contradicts-prompt:refund-days` is tagged with both sides of the colon."""
    return list(dict.fromkeys(part[:100] for part in ref.split(":") if part))


def described(members: Sequence[Member], why: str) -> str:
    """What the first reports said, and why they are together."""
    said = "\n\n".join(f"Call {member.call_id}: {member.description}".strip() for member in members[:THRESHOLD])
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
