"""Calls as ThunderPhone describes them: what a finished call brings along and how it is shown."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from fixloop import times
from fixloop.leaves import Leaves
from fixloop.ranges import Limit, Offset, Since, Until, instant, not_before
from fixloop.shapes import Said, Time

MAX_ID = 2**63 - 1

Direction = Literal["inbound", "outbound", "mic", "widget", "test", "web"]
CallStatus = Literal["in_progress", "completed", "failed"]
EndReason = Literal[
    "caller_hangup", "agent_end", "transfer", "timeout", "error", "busy", "no_answer", "rejected", "failed", "cancelled"
]
Number = Annotated[str, StringConstraints(max_length=64)]
Name = Annotated[str, StringConstraints(max_length=255)]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
PathId = Annotated[str, Said({"type": "integer", "minimum": 1, "maximum": MAX_ID})]

DIRECTIONS: tuple[Direction, ...] = ("inbound", "outbound", "mic", "widget", "test", "web")
STATUSES: tuple[CallStatus, ...] = ("in_progress", "completed", "failed")


class TranscriptRow(BaseModel):
    """One line of the transcript; times in ms from the start of the call. Further keys are kept as they come."""

    model_config = ConfigDict(extra="allow")

    role: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    content: str | dict[str, Any] | list[Any] = ""
    content_type: str | None = None
    start_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None
    end_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None


class CallIn(BaseModel):
    """The body of `PUT /v1/calls/{call_id}` and `POST /v1/calls`, which are fixloop's own; unknown keys are ignored."""

    agent_id: Id | None = None
    direction: Direction = "inbound"
    from_number: Number | None = None
    to_number: Number | None = None
    start_time: str | None = None
    end_time: str | None = None
    duration_seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] | None = None
    status: CallStatus = "completed"
    end_reason: EndReason | None = None
    recording_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    is_test_call: bool = False
    product: Name | None = None
    voice: Name | None = None
    billable_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    billing_total_cents: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    billed_at: str | None = None
    transcripts: list[TranscriptRow] = []
    prompt_snapshot: str = ""
    tool_snapshot: list[Any] = []
    steps_trace: list[Any] | None = None
    variables: dict[str, Any] = {}
    extracted_data: dict[str, Any] = {}
    recording_mode: Name | None = None
    events: list[dict[str, Any]] = []

    @model_validator(mode="before")
    @classmethod
    def _spellings(cls, given: Any) -> Any:
        if isinstance(given, dict) and "transcript" in given and "transcripts" not in given:
            return {**given, "transcripts": given["transcript"]}
        return given

    @field_validator("start_time", "end_time", "billed_at")
    @classmethod
    def _dated(cls, value: str | None) -> str | None:
        return value if value is None else times.iso_ms(instant(value))

    @field_validator("duration_seconds")
    @classmethod
    def _within_time(cls, value: float | None, info: Any) -> float | None:
        start, end = info.data.get("start_time"), info.data.get("end_time")
        if value and start and times.parse(start) + value * 1000 > times.LAST:
            raise ValueError("must not reach beyond the year 9999")
        if value and end and not start and times.parse(end) - value * 1000 < times.FIRST:
            raise ValueError("must not reach before the year 1")
        return value

    @field_validator("end_time")
    @classmethod
    def _ordered(cls, value: str | None, info: Any) -> str | None:
        started = info.data.get("start_time")
        if value and started and value < started:
            raise ValueError("must not be before start_time")
        return value


class Call(BaseModel):
    """A call as it is kept. `record` has what lists show and ingest decides, `body` what only a detail shows."""

    call_id: int
    start: int
    record: dict[str, Any]
    body: dict[str, Any]

    @property
    def agent_id(self) -> int | None:
        agent: int | None = self.record["agent_id"]
        return agent

    @property
    def leaf(self) -> str:
        return leaf(self.record["direction"], self.record["status"], self.record["is_test_call"])


_BODY = ("transcripts", "prompt_snapshot", "tool_snapshot", "steps_trace", "variables", "extracted_data", "events")


def received(call_id: int, given: CallIn, now: int, started: int | None = None) -> Call:
    """The call that `given` describes. Without a start it began when it was first heard of, less its duration."""
    record = given.model_dump(exclude=set(_BODY))
    seconds = given.duration_seconds
    if given.start_time:
        start = times.parse(given.start_time)
    elif started is not None:
        start = started
    elif given.end_time:
        start = times.parse(given.end_time) - int((seconds or 0) * 1000)
    else:
        start = now - int((seconds or 0) * 1000)
    end = times.parse(given.end_time) if given.end_time else None
    if end is None and seconds is not None and given.status != "in_progress":
        end = start + int(seconds * 1000)
    if seconds is None and end is not None:
        seconds = (end - start) / 1000
    if seconds is not None and float(seconds).is_integer():
        seconds = int(seconds)
    record |= {
        "call_id": call_id,
        "start_time": times.iso_ms(start),
        "end_time": times.iso_ms(end) if end is not None else None,
        "duration_seconds": seconds,
    }
    for amount in ("billable_minutes", "billing_total_cents"):
        if record[amount] is not None and float(record[amount]).is_integer():
            record[amount] = int(record[amount])
    body = {name: value for name in _BODY if (value := getattr(given, name)) or name == "transcripts"}
    body["transcripts"] = [row.model_dump(exclude_unset=True) for row in given.transcripts]
    return Call(call_id=call_id, start=start, record=record, body=body)


class Record(TypedDict):
    """What a list shows of the call itself, in its order."""

    call_id: int
    agent_id: int | None
    direction: Direction
    from_number: str | None
    to_number: str | None
    start_time: Time
    end_time: Time | None
    duration_seconds: float | None
    status: CallStatus
    end_reason: EndReason | None
    recording_url: str | None
    is_test_call: bool
    product: str | None
    voice: str | None
    billable_minutes: float | None
    billing_total_cents: float | None
    billed_at: Time | None


class CallListed(Record):
    """The 22 keys of the published object, then those of today's clients that need no body."""

    grade_score: float | None
    grade_status: str | None
    grade_updated_at: Time | None
    issue_count: int
    critical_issue_count: int
    call_outcome: str | None
    goal_achievement: str | None
    goal_reasoning: str | None
    recording_mode: str | None


class CallShown(CallListed):
    """One call on its own: as in a list, with what a replay needs."""

    prompt_snapshot: str
    tool_snapshot: list[Any]
    steps_trace: list[Any] | None
    variables: dict[str, Any]
    extracted_data: dict[str, Any]


class CallPage(TypedDict):
    limit: int
    offset: int
    results: list[CallListed]
    total: int


@with_config(ConfigDict(extra="allow"))
class RowShown(TypedDict):
    """A transcript's row as it came."""

    role: str
    content: NotRequired[str | dict[str, Any] | list[Any]]
    content_type: NotRequired[str | None]
    start_ms: NotRequired[int | None]
    end_ms: NotRequired[int | None]


class TranscriptShown(TypedDict):
    call_id: int
    transcripts: list[RowShown]


_SHOWN = tuple(Record.__annotations__)


# A record as it is kept: without its keys, because a call is written anew with each of its reports, and that costs
# twice as much from 1 KB on. New keys go to the end.
_KEPT = (*_SHOWN, "recording_mode")


def kept(record: dict[str, Any]) -> str:
    """A call's record as text."""
    return json.dumps([record[name] for name in _KEPT], ensure_ascii=False, separators=(",", ":"))


def record_of(text: str) -> dict[str, Any]:
    """What `kept` was given."""
    return dict(zip_longest(_KEPT, json.loads(text)))


class Standing(BaseModel):
    """What the loop has found out about a call since it came in. Times in ms, score 0 to 1."""

    grade_score: float | None = None
    grade_status: str | None = None
    grade_updated_at: int | None = None
    call_outcome: str | None = None
    goal_achievement: str | None = None
    goal_reasoning: str | None = None
    issue_count: int = 0
    critical_issue_count: int = 0


def shown(record: dict[str, Any], standing: Standing) -> CallListed:
    graded = standing.grade_updated_at
    return {
        **cast(Record, {name: record.get(name) for name in _SHOWN}),
        "grade_score": standing.grade_score,
        "grade_status": standing.grade_status,
        "grade_updated_at": times.iso_ms(graded) if graded is not None else None,
        "issue_count": standing.issue_count,
        "critical_issue_count": standing.critical_issue_count,
        "call_outcome": standing.call_outcome,
        "goal_achievement": standing.goal_achievement,
        "goal_reasoning": standing.goal_reasoning,
        "recording_mode": record.get("recording_mode"),
    }


def detailed(record: dict[str, Any], standing: Standing, body: dict[str, Any]) -> CallShown:
    return {
        **shown(record, standing),
        "prompt_snapshot": body.get("prompt_snapshot", ""),
        "tool_snapshot": body.get("tool_snapshot", []),
        "steps_trace": body.get("steps_trace"),
        "variables": body.get("variables", {}),
        "extracted_data": body.get("extracted_data", {}),
    }


def history(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The structured turns: transcript rows numbered, with the call's own events in their place by time."""
    turns = [{"type": "turn", "index": index, **row} for index, row in enumerate(body.get("transcripts", []))]
    events = [
        {"type": "event", **{("event" if key == "type" else key): value for key, value in event.items()}}
        for event in body.get("events", [])
    ]
    placed = [event for event in events if isinstance(event.get("at_ms"), int)]
    loose = [event for event in events if not isinstance(event.get("at_ms"), int)]
    timed = (
        sorted([*turns, *placed], key=lambda entry: entry.get("start_ms") or entry.get("at_ms") or 0)
        if placed
        else turns
    )
    return [*timed, *loose]


LEAVES = Leaves(DIRECTIONS, STATUSES, (False, True))


def leaf(direction: str, status: str, is_test: bool) -> str:
    return LEAVES.letter(direction, status, is_test)


class GradeQuery(BaseModel):
    """The parameters of `POST /v1/calls/{call_id}/grade`."""

    force: bool = False


class CallQuery(BaseModel):
    """The filters of `GET /v1/calls`. Dates are on `start_time`, inclusive, in ms once read."""

    agent_id: Id | None = None
    direction: Direction | None = None
    status: CallStatus | None = None
    from_number: Number | None = None
    to_number: Number | None = None
    phone_number: Number | None = None
    start_date: Since = None
    end_date: Annotated[Until, not_before("start_date")] = None
    exclude_test_calls: bool = False
    limit: Limit = 50
    offset: Offset = 0

    def wants(self, code: str) -> bool:
        """Whether calls in the leaf `code` pass the enum filters."""
        direction, status, is_test = LEAVES.values(code)
        return (
            self.direction in (None, direction)
            and self.status in (None, status)
            and not (self.exclude_test_calls and is_test)
        )


def number(text: str) -> int | None:
    """A path's id as an integer, or None if it cannot be one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= MAX_ID else None
