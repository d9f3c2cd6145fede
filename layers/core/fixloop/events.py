"""What happens in the loop, as events on the bus: their names, their shapes, and which row changes make them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fixloop import times
from fixloop.calls import Id, record_of
from fixloop.grades import CallGrade

SOURCE = "fixloop"


class CallCompleted(BaseModel):
    """A call has ended and its content is stored. `revision` changes with the content."""

    call_id: Id
    agent_id: int | None = None
    revision: str = ""


class CallGraded(BaseModel):
    """A grading run has ended. `grade` has the keys of `GET /v1/calls/{id}/grade`; from other graders any of them."""

    call_id: Id
    grade: dict[str, Any]


class IssueReported(BaseModel):
    """A report was filed, by a person or by grading. `issue_report` is the object of the feed."""

    call_id: Id
    issue_report: dict[str, Any]


class IssueReportUpdated(BaseModel):
    """A report's status has changed."""

    call_id: Id
    issue_report: dict[str, Any]
    previous_status: str


class FixApplied(BaseModel):
    """A fix went into its agent. `applied_at` in ms; `agent_version` is the one it made, if the agent is known."""

    fix_id: str
    issue_id: str | None = None
    applied_at: int
    agent_version: int | None = None


class ShadowTestCreated(BaseModel):
    """A shadow test waits for its execution."""

    shadow_test_id: str
    fix_id: str


class ShadowTestEnded(BaseModel):
    """A shadow test has completed or failed. `shadow_test` is what a list shows of it."""

    shadow_test_id: str
    fix_id: str
    shadow_test: dict[str, Any]


class IssueOpened(BaseModel):
    """A group of reports has become an issue. `issue` is what `POST /api/v2/issues` answers."""

    issue_id: str
    issue: dict[str, Any]


class IssueClosed(BaseModel):
    """An issue was closed, by people, by an applied fix or with its triage issue. `closed_at` in ms."""

    issue_id: str
    closed_at: int
    issue: dict[str, Any]


class ReportsResolved(BaseModel):
    """Some, or with `more` false the last, of the reports behind an applied fix are resolved.

    `resolved` and `looked_at` count reports and members of the issue's group since the fix was applied.
    """

    fix_id: str
    issue_id: str
    applied_at: int
    looked_at: int
    resolved: int
    more: bool


class TriageIssueClosed(BaseModel):
    """A triage issue has come to `done` or `closed`. `issue_id` is the loop's issue that it stands for.

    `followed` says that it went there because the loop's issue was closed. `closed_at` in ms.
    """

    triage_issue_id: str
    issue_id: str | None = None
    status: str
    closed_at: int
    followed: bool


class AppIssueCreated(BaseModel):
    """Somebody reported a thread. `app_issue` is what `POST /api/v1/app/issue` answers: its author unless anonymous."""

    app_issue_id: str
    thread_id: str | None = None
    reported_interaction_id: str | None = None
    app_issue: dict[str, Any]


class CallAttemptCompleted(BaseModel):
    """A telephony system tells of an attempt; `report` is the body of `PUT /call-report/{jobId}/attempts/{attempt}`."""

    job_id: str
    report: dict[str, Any]


class AttemptRecorded(BaseModel):
    """An attempt that has ended is stored, or its report has changed. `call_id` is the telephony system's."""

    job_id: str
    attempt: int
    call_id: str
    outcome: str
    revision: str = ""


class CallRequestQueued(BaseModel):
    """A call was asked for: for the telephony system to make. `request` is what was sent."""

    job_id: str
    attempts: int
    request: dict[str, Any]


class CallRequestCancelled(BaseModel):
    """A call that was asked for is not wanted any more."""

    job_id: str


class CallRequestFailed(BaseModel):
    """A telephony system tells that it could not process a job at all."""

    job_id: str
    reason: str = Field(default="", max_length=1000)


class Envelope(BaseModel):
    """The `detail` of every event. `id` is the same however often it is delivered; `time` is ISO 8601, UTC, in ms."""

    model_config = ConfigDict(extra="ignore")

    id: str = ""
    type: Literal[
        "call.completed",
        "call.graded",
        "issue.reported",
        "issue_report.updated",
        "issue.opened",
        "issue.closed",
        "triage_issue.closed",
        "fix.applied",
        "reports.resolved",
        "shadow_test.created",
        "shadow_test.completed",
        "shadow_test.failed",
        "app_issue.created",
        "call.attempt.completed",
        "attempt.recorded",
        "call_request.queued",
        "call_request.cancelled",
        "call_request.failed",
    ]
    org_id: str = Field(min_length=1, max_length=64, pattern=r"^[\w-]+$")
    time: str = ""
    data: dict[str, Any]


SHAPES: dict[str, type[BaseModel]] = {
    "call.completed": CallCompleted,
    "call.graded": CallGraded,
    "issue.reported": IssueReported,
    "issue_report.updated": IssueReportUpdated,
    "issue.opened": IssueOpened,
    "issue.closed": IssueClosed,
    "triage_issue.closed": TriageIssueClosed,
    "reports.resolved": ReportsResolved,
    "fix.applied": FixApplied,
    "shadow_test.created": ShadowTestCreated,
    "shadow_test.completed": ShadowTestEnded,
    "shadow_test.failed": ShadowTestEnded,
    "app_issue.created": AppIssueCreated,
    "call.attempt.completed": CallAttemptCompleted,
    "attempt.recorded": AttemptRecorded,
    "call_request.queued": CallRequestQueued,
    "call_request.cancelled": CallRequestCancelled,
    "call_request.failed": CallRequestFailed,
}


def envelope(kind: str, org: str, data: BaseModel, at: int, *identity: object) -> Envelope:
    """An event whose id follows from what it is about, so that a repeat can be told from a new one."""
    named = json.dumps([kind, org, *map(str, identity)])
    return Envelope(
        id=f"evt_{hashlib.sha256(named.encode()).hexdigest()[:24]}",
        type=kind,  # type: ignore[arg-type]
        org_id=org,
        time=times.iso_ms(at),
        data=data.model_dump(),
    )


def of_call(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    """From the call's row before and after: an event when it has come to its end, or its content has changed since."""
    if new is None or not _ended(new):
        return []
    if old is not None and _ended(old) and (old["body"], old["doc"]) == (new["body"], new["doc"]):
        return []
    record = record_of(new["doc"])
    data = CallCompleted(call_id=record["call_id"], agent_id=record["agent_id"], revision=new["body"])
    at = new.get("changed", new["at"])
    return [envelope("call.completed", org, data, at, record["call_id"], new["body"], new["doc"], at)]


def _ended(row: dict[str, Any]) -> bool:
    return bool(record_of(row["doc"])["status"] != "in_progress")


def of_grade(org: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> list[Envelope]:
    """From the grade's row before and after: an event when a run has ended."""
    if new is None or new["status"] == "pending" or (old is not None and old["doc"] == new["doc"]):
        return []
    grade = CallGrade.model_validate_json(new["doc"])
    data = CallGraded(call_id=grade.call_id, grade={**grade.shown()})
    return [envelope("call.graded", org, data, grade.updated_at, grade.call_id, grade.claim, grade.updated_at)]
