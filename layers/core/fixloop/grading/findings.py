"""What the grader reads and what it finds: calls and turns in, issues, rubric items and the grade out."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Severity = Literal["info", "warning", "critical"]


def _text_or_object(value: object) -> object:
    """Nothing is empty text; a bare number or boolean is its text."""
    return "" if value is None else value if isinstance(value, (str, dict, list)) else str(value)


def _milliseconds(value: object) -> object:
    """Fractions are rounded; what is no finite number is no time."""
    if isinstance(value, float):
        return round(value) if math.isfinite(value) else None
    return value


def _or_empty(empty: object) -> BeforeValidator:
    return BeforeValidator(lambda value: empty if value is None else value)


Milliseconds = Annotated[int | None, BeforeValidator(_milliseconds)]


class Turn(BaseModel):
    """One transcript row in ThunderPhone's names.

    `role` is "user", "assistant" or "agent" (alike), "tool_call", "tool_response" or "system"; tool rows may carry
    objects in `content`. Times are milliseconds from the start of the call.
    """

    role: Annotated[str, _or_empty("")]
    content: Annotated[str | dict[Any, Any] | list[Any], BeforeValidator(_text_or_object)]
    start_ms: Milliseconds = None
    end_ms: Milliseconds = None


class GradedCall(BaseModel):
    """What the grader needs of a call.

    `prompt_snapshot` is the system prompt and knowledge the agent had at the time. `end_reason` is caller_hangup,
    agent_end, transfer, timeout or error; `status` is completed, failed or in_progress. `events` are free-form
    `{type, timestamp? | at_ms?, data}` objects.
    """

    call_id: int
    turns: Annotated[list[Turn], _or_empty(())] = []
    prompt_snapshot: Annotated[str, _or_empty("")] = ""
    end_reason: str | None = None
    status: str | None = None
    duration_seconds: float | None = None
    events: Annotated[list[dict[str, Any]], _or_empty(())] = []


class GraderSettings(BaseModel):
    """The thresholds of the detectors. Times are in seconds or, by their name, milliseconds; likenesses are 0..1."""

    model_config = ConfigDict(frozen=True)

    silence_seconds: float = Field(default=4.0, gt=0)
    """How long the caller may wait for an answer."""
    abrupt_end_seconds: float = Field(default=5.0, ge=0)
    """A caller who hangs up this soon after the agent spoke, without a goodbye, was lost."""
    interruption_ms: int = Field(default=500, ge=0)
    """How far the agent may talk into the end of the caller's turn."""
    repeat_likeness: float = Field(default=0.8, gt=0, le=1)
    """Share of words two turns must have in common to be the same thing said again."""
    caller_repeat_window: int = Field(default=3, ge=1, le=20)
    """Number of earlier caller turns a caller turn is compared with."""
    agent_repeat_window: int = Field(default=4, ge=1, le=20)
    """Number of earlier agent turns an agent turn is compared with."""
    repeat_min_words: int = Field(default=4, ge=1)
    """Turns with fewer distinct words are too short to count as said again."""


class DetectedIssue(BaseModel):
    """One kind of problem in a call; its occurrences are merged into it.

    `ref` is stable over calls and grader runs. `timestamp_seconds` and `turn_index` (0-based, into the call's turns)
    point at the earliest occurrence. `evidence` holds exact quotes, one a line; `metadata.count` is the number of
    occurrences.
    """

    ref: str
    title: str = Field(min_length=1, max_length=255)
    description: str
    severity: Severity
    timestamp_seconds: int | None
    turn_index: int | None
    relevant_turn_indices: list[int]
    evidence: str
    metadata: dict[str, Any]


class RubricItem(BaseModel):
    """One weighted criterion; `score` is 0..1 and the weights of a rubric sum to 1."""

    criterion: str
    weight: float
    score: float
    explanation: str


class Grade(BaseModel):
    """The grader's findings about a call.

    `score` is 0..1, the weighted sum of the rubric items to four decimals; `None` when there was nothing to grade.
    """

    status: Literal["completed", "failed", "skipped_recording_disabled"]
    score: float | None
    summary: str
    rubric_breakdown: list[RubricItem]
    detected_issues: list[DetectedIssue]
    call_outcome: Literal["success", "failure", "unknown", "no_conversation"]
    goal_achievement: Literal["achieved", "missed", "no_opportunity"] | None
    goal_reasoning: str | None
    outcome_reasoning: str
    caller_welfare_violation: bool
    caller_welfare_reasoning: str
