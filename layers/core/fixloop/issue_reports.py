"""Issue reports as ThunderPhone describes them: what is wrong with one call, filed by a person or by grading."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator
from typing_extensions import TypedDict

from fixloop import times
from fixloop.calls import Id
from fixloop.leaves import Leaves
from fixloop.ranges import Limit, Offset, Since, Until, not_before
from fixloop.shapes import Time

MAX_TEXT = 40_000  # bytes of one text or the metadata as JSON; with five such a report fits an item and an event
MAX_TURNS = 1000

Severity = Literal["info", "warning", "critical"]
Status = Literal["open", "acknowledged", "resolved"]
Source = Literal["user", "system"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
STATUSES: tuple[Status, ...] = ("open", "acknowledged", "resolved")
SOURCES: tuple[Source, ...] = ("user", "system")


def _fits(value: Any) -> Any:
    if len(json.dumps(value, ensure_ascii=False).encode()) > MAX_TEXT:
        raise ValueError(f"must have at most {MAX_TEXT} bytes as JSON")
    return value


Text = Annotated[str, AfterValidator(_fits)]
Turn = Annotated[int, Field(ge=0, le=2**31)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Seconds = Annotated[int, Field(ge=0, le=2**53)]


class ReportIn(BaseModel):
    """The body of `POST /v1/calls/{call_id}/issue-reports`; unknown keys are ignored."""

    title: Title
    description: Text = ""
    severity: Severity = "warning"
    source: Source = "user"
    timestamp_seconds: Seconds | None = None
    failing_turn_index: Turn | None = None
    relevant_turn_indices: Annotated[list[Turn], Field(max_length=MAX_TURNS)] = []
    detected_issue_ref: Ref | None = None
    evidence: Text = ""
    what_went_wrong: Text = ""
    suggested_fix: Text = ""
    metadata: Annotated[dict[str, Any], AfterValidator(_fits)] = {}


class ReportShown(TypedDict):
    """The 14 keys of the published object, then the ten that today's clients read too."""

    id: int
    call_id: int
    source: Source
    severity: Severity
    status: Status
    title: str
    description: str
    reported_by_id: int | None
    timestamp_seconds: int | None
    detected_issue_ref: str | None
    metadata: dict[str, Any]
    trace_id: str
    created_at: Time
    updated_at: Time
    agent_id: int | None
    call_start_time: Time | None
    cluster_id: None
    evidence: str
    failing_turn_index: int | None
    linked_test_cases: list[Any]
    regression_guarded: bool
    relevant_turn_indices: list[int]
    suggested_fix: str
    what_went_wrong: str


class Updated(TypedDict):
    """How many reports were meant by a change of many."""

    updated: int


class Report(BaseModel):
    """A report as it is kept. Times in ms."""

    id: int
    call_id: int
    agent_id: int | None
    call_start: str | None
    status: Status
    reported_by_id: int | None
    trace_id: str
    created_at: int
    updated_at: int
    said: ReportIn

    @property
    def leaf(self) -> str:
        return leaf(self.said.severity, self.status, self.said.source)

    def shown(self) -> ReportShown:
        said = self.said
        return {
            "id": self.id,
            "call_id": self.call_id,
            "source": said.source,
            "severity": said.severity,
            "status": self.status,
            "title": said.title,
            "description": said.description,
            "reported_by_id": self.reported_by_id,
            "timestamp_seconds": said.timestamp_seconds,
            "detected_issue_ref": said.detected_issue_ref,
            "metadata": said.metadata,
            "trace_id": self.trace_id,
            "created_at": times.iso_ms(self.created_at),
            "updated_at": times.iso_ms(self.updated_at),
            "agent_id": self.agent_id,
            "call_start_time": self.call_start,
            "cluster_id": None,
            "evidence": said.evidence,
            "failing_turn_index": said.failing_turn_index,
            "linked_test_cases": [],
            "regression_guarded": False,
            "relevant_turn_indices": said.relevant_turn_indices,
            "suggested_fix": said.suggested_fix,
            "what_went_wrong": said.what_went_wrong,
        }


LEAVES = Leaves(SEVERITIES, STATUSES, SOURCES)


def leaf(severity: str, status: str, source: str) -> str:
    return LEAVES.letter(severity, status, source)


def trace_id(number: int, noise: bytes) -> str:
    """The report's stable UUID (version 8): its id in the first 48 bits, the rest from 10 random bytes."""
    content = bytearray(number.to_bytes(6, "big") + noise)
    content[6] = 0x80 | (content[6] & 0x0F)
    content[8] = 0x80 | (content[8] & 0x3F)
    return str(uuid.UUID(bytes=bytes(content)))


def number_of(key: str) -> int | None:
    """The report id in either form of the key: the integer itself or the `trace_id`; None for anything else."""
    if key.isascii() and key.isdigit():
        return int(key) if len(key) < 16 else None
    try:
        return int.from_bytes(uuid.UUID(key).bytes[:6], "big")
    except ValueError:
        return None


class ReportQuery(BaseModel):
    """The filters of `GET /v1/issue-reports`. Dates are on `created_at`, inclusive, in ms once read."""

    severity: Severity | None = None
    status: Status | None = None
    source: Source | None = None
    agent_id: Id | None = None
    start_date: Since = None
    end_date: Annotated[Until, not_before("start_date")] = None
    limit: Limit = 50
    offset: Offset = 0

    def wants(self, code: str) -> bool:
        """Whether reports in the leaf `code` pass the enum filters."""
        severity, status, source = LEAVES.values(code)
        return self.severity in (None, severity) and self.status in (None, status) and self.source in (None, source)


class StatusChange(BaseModel):
    """The body of `PATCH /v1/issue-reports/{trace_id}`."""

    status: Status


class BulkStatusChange(BaseModel):
    """The body of `PATCH /v1/issue-reports`. A `pattern_key`, a `detected_issue_ref`, widens it to all its reports."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["trace_ids"], "properties": {"trace_ids": {"minItems": 1}}},
                {"required": ["pattern_key"]},
            ]
        }
    )

    status: Status
    pattern_key: Ref | None = None
    trace_ids: Annotated[list[str], Field(max_length=1000, validate_default=True)] = []

    @field_validator("trace_ids")
    @classmethod
    def _aimed(cls, value: list[str], info: Any) -> list[str]:
        if not value and info.data.get("pattern_key", "") is None:
            raise ValueError("must name at least one report, unless there is a pattern_key")
        return value


_SEVERITY_OF = {
    "info": "info",
    "low": "info",
    "minor": "info",
    "warning": "warning",
    "medium": "warning",
    "major": "warning",
    "high": "warning",
    "error": "critical",
    "critical": "critical",
}


def detected(issue: Any) -> ReportIn:
    """A system report from one element of a grade's `detected_issues`, whoever made the grade.

    The shape inside is documented nowhere, so the usual spellings are taken. Raises ValueError with the reason.
    """
    if isinstance(issue, str):
        issue = {"title": issue}
    if not isinstance(issue, dict):
        raise ValueError(f"a detected issue is an object or a string, not {type(issue).__name__}")
    ref = _first(issue, "ref", "detected_issue_ref", "id", "key", "name", "title")
    title = _first(issue, "title", "name", "ref", "detected_issue_ref")
    if ref is None or title is None:
        raise ValueError("a detected issue needs a `ref` or a `title`")
    severity = _SEVERITY_OF.get(str(issue.get("severity") or "warning").lower())
    if severity is None:
        raise ValueError(f"severity {issue['severity']!r} is none of {', '.join(_SEVERITY_OF)}")
    second = _first(issue, "timestamp_seconds", "at_seconds")
    return ReportIn.model_validate(
        {
            "title": str(title),
            "description": str(_first(issue, "description", "explanation") or ""),
            "severity": severity,
            "source": "system",
            "timestamp_seconds": int(second) if isinstance(second, int | float) and 0 <= second <= 2**53 else None,
            "failing_turn_index": _first(issue, "failing_turn_index", "turn_index"),
            "relevant_turn_indices": issue.get("relevant_turn_indices") or [],
            "detected_issue_ref": str(ref),
            "evidence": str(issue.get("evidence") or ""),
            "what_went_wrong": str(issue.get("what_went_wrong") or ""),
            "suggested_fix": str(issue.get("suggested_fix") or ""),
            "metadata": issue.get("metadata") or {},
        }
    )


def _first(issue: dict[str, Any], *names: str) -> Any:
    return next((issue[name] for name in names if issue.get(name) is not None), None)
