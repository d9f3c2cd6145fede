"""From the tables' streams to the bus: every row change that means something becomes its event."""

from __future__ import annotations

import json
from typing import Any

from fixloop import events
from fixloop.aws import client
from fixloop.events import SOURCE, Envelope, FixApplied, IssueOpened, IssueReported, IssueReportUpdated, envelope
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.fixes import fix_of
from fixloop.storage.issue_reports import report_of
from fixloop.storage.issues import issue_of

MOST = 10  # entries PutEvents takes at once


class Undelivered(Exception):
    """The bus refused some events."""


def of_record(record: dict[str, Any]) -> list[Envelope]:
    """The events in one record of a table's stream."""
    change = record["dynamodb"]
    pk, sk = change["Keys"]["pk"]["S"], change["Keys"]["sk"]["S"]
    org = pk.partition("#")[0]
    old = dynamo.unpack(change["OldImage"]) if change.get("OldImage") else None
    new = dynamo.unpack(change["NewImage"]) if change.get("NewImage") else None
    match sk:
        case "call":
            return events.of_call(org, old, new)
        case "grade":
            return events.of_grade(org, old, new)
        case "report":
            return _of_report(org, old, new)
        case "issue":
            return _of_issue(org, old, new)
        case "fix":
            return _of_fix(org, old, new)
    return []


def _of_report(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None:
        return []
    report = report_of(new)
    if old is None:
        filed = IssueReported(call_id=report.call_id, issue_report=report.shown())
        return [envelope("issue.reported", org, filed, report.created_at, report.trace_id)]
    if old["status"] == report.status:
        return []
    changed = IssueReportUpdated(call_id=report.call_id, issue_report=report.shown(), previous_status=old["status"])
    return [envelope("issue_report.updated", org, changed, report.updated_at, report.trace_id, report.updated_at)]


def _of_issue(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if old is not None or new is None:
        return []
    issue = issue_of(new)
    opened = IssueOpened(issue_id=issue.id, issue=issue.created())
    return [envelope("issue.opened", org, opened, issue.created_at, issue.id)]


def _of_fix(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None or new["status"] != "applied" or (old is not None and old["status"] == "applied"):
        return []
    fix = fix_of(new)
    applied = FixApplied(
        fix_id=fix.id, issue_id=fix.issue_id, applied_at=fix.updated_at, agent_version=fix.applied_version
    )
    return [envelope("fix.applied", org, applied, fix.updated_at, fix.id, fix.updated_at)]


def publish(envelopes: list[Envelope]) -> None:
    """Puts events on the bus. Raises Undelivered when any was refused; putting all of them again is safe."""
    for start in range(0, len(envelopes), MOST):
        batch = envelopes[start : start + MOST]
        entries = [
            {
                "Source": SOURCE,
                "DetailType": event.type,
                "Detail": json.dumps(event.model_dump(), ensure_ascii=False),
                "EventBusName": settings().bus_name,
            }
            for event in batch
        ]
        answer = client("events").put_events(Entries=entries)
        if answer.get("FailedEntryCount"):
            codes = sorted({str(entry["ErrorCode"]) for entry in answer["Entries"] if "ErrorCode" in entry})
            raise Undelivered(f"{answer['FailedEntryCount']} of {len(batch)} events refused: {', '.join(codes)}")
