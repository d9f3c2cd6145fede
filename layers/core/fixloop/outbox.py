"""From the tables' streams to the bus: every row change that means something becomes its event."""

from __future__ import annotations

import json
from typing import Any

from fixloop import events
from fixloop.aws import client
from fixloop.events import (
    SOURCE,
    AppIssueCreated,
    AttemptRecorded,
    CallRequestCancelled,
    CallRequestQueued,
    Envelope,
    FixApplied,
    IssueClosed,
    IssueOpened,
    IssueReported,
    IssueReportUpdated,
    ReportsResolved,
    ShadowTestCreated,
    ShadowTestEnded,
    TriageIssueClosed,
    envelope,
)
from fixloop.settings import settings
from fixloop.shadow_tests import Tally
from fixloop.storage import dynamo
from fixloop.storage.app_issues import app_issue_of
from fixloop.storage.call_reports import job_of, kept_of
from fixloop.storage.fixes import fix_of
from fixloop.storage.issue_reports import report_of
from fixloop.storage.issues import issue_of, resolving_of
from fixloop.storage.shadow_tests import test_of
from fixloop.storage.triage import rows as triage
from fixloop.triage.issues import ENDED

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
        case "issue" if pk.startswith(triage.key(org, "")["pk"]):
            return _of_triage_issue(org, old, new)
        case "issue":
            return _of_issue(org, old, new)
        case "resolving":
            return _of_resolving(org, new)
        case "fix":
            return _of_fix(org, old, new)
        case "test":
            return _of_shadow_test(org, old, new)
        case "app_issue":
            return _of_app_issue(org, old, new)
        case "job":
            return _of_job(org, old, new)
        case _ if sk.startswith("report#"):
            return _of_report(org, old, new)
        case _ if sk.startswith("attempt#"):
            return _of_attempt(org, old, new)
    return []


def _of_report(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None:
        return []
    report = report_of(new)
    if old is None:
        filed = IssueReported(call_id=report.call_id, issue_report={**report.shown()})
        return [envelope("issue.reported", org, filed, report.created_at, report.trace_id)]
    if old["status"] == report.status:
        return []
    changed = IssueReportUpdated(call_id=report.call_id, issue_report={**report.shown()}, previous_status=old["status"])
    return [envelope("issue_report.updated", org, changed, report.updated_at, report.trace_id, report.updated_at)]


def _of_issue(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None:
        return []
    issue = issue_of(new)
    if old is None:
        opened = IssueOpened(issue_id=issue.id, issue={**issue.created()})
        return [envelope("issue.opened", org, opened, issue.created_at, issue.id)]
    if issue.closed_at is None or issue.status != "closed" or old["status"] == "closed":
        return []
    closed = IssueClosed(issue_id=issue.id, closed_at=issue.closed_at, issue={**issue.created()})
    return [envelope("issue.closed", org, closed, issue.closed_at, issue.id, issue.closed_at)]


def _of_triage_issue(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if old is None or new is None:
        return []
    before, issue = triage.issue_of(old), triage.issue_of(new)
    if issue.status not in ENDED or before.status in ENDED:
        return []
    closed = TriageIssueClosed(
        triage_issue_id=issue.id,
        issue_id=issue.loop_issue_id,
        status=issue.status,
        closed_at=issue.updated_at,
        followed=issue.followed != before.followed,
    )
    return [envelope("triage_issue.closed", org, closed, issue.updated_at, issue.id, issue.version)]


def _of_resolving(org: str, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None:
        return []
    progress = resolving_of(new)
    told = {name: getattr(progress, name) for name in ReportsResolved.model_fields}
    identity = (progress.fix_id, progress.applied_at, progress.looked_at, progress.more)
    return [envelope("reports.resolved", org, ReportsResolved(**told), progress.at, *identity)]


def _of_fix(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None or new["status"] != "applied" or (old is not None and old["status"] == "applied"):
        return []
    fix = fix_of(new)
    applied = FixApplied(
        fix_id=fix.id, issue_id=fix.issue_id, applied_at=fix.updated_at, agent_version=fix.applied_version
    )
    return [envelope("fix.applied", org, applied, fix.updated_at, fix.id, fix.updated_at)]


def _of_app_issue(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if old is not None or new is None:
        return []
    issue = app_issue_of(new)
    created = AppIssueCreated(
        app_issue_id=issue.id,
        thread_id=issue.config.thread_id if issue.config else None,
        reported_interaction_id=issue.config.reported_interaction_id if issue.config else None,
        app_issue=dict(issue.shown()),
    )
    return [envelope("app_issue.created", org, created, issue.created_at, issue.id)]


def _of_shadow_test(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None or (old is not None and old["status"] == new["status"]):
        return []
    test = test_of(new)
    if old is None:
        made = ShadowTestCreated(shadow_test_id=test.id, fix_id=test.fix_id)
        return [envelope("shadow_test.created", org, made, test.created_at, test.id)]
    if test.active:
        return []
    ended = ShadowTestEnded(
        shadow_test_id=test.id, fix_id=test.fix_id, shadow_test={**test.listed(test.tally or Tally())}
    )
    return [envelope(f"shadow_test.{test.status}", org, ended, test.updated_at, test.id)]


def _of_job(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None:
        return []
    job = job_of(new)
    if old is None:
        queued = CallRequestQueued(job_id=job.id, attempts=job.most, request=job.request)
        return [envelope("call_request.queued", org, queued, new["at"], job.id)]
    if job.state != "cancelled" or old["state"] == "cancelled":
        return []
    cancelled = CallRequestCancelled(job_id=job.id)
    return [envelope("call_request.cancelled", org, cancelled, new["changed"], job.id)]


def _of_attempt(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    if new is None or new["live"] or (old is not None and not old["live"] and old["body"] == new["body"]):
        return []
    kept = kept_of(new)
    recorded = AttemptRecorded(
        job_id=kept.job_id, attempt=kept.number, call_id=kept.call_id, outcome=kept.outcome, revision=kept.revision
    )
    at = new["changed"]
    return [envelope("attempt.recorded", org, recorded, at, kept.job_id, kept.number, kept.revision, at)]


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
