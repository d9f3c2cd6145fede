"""The grade of a call, in the 19 keys that ThunderPhone's clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from typing_extensions import TypedDict

from fixloop import times
from fixloop.shapes import Time

if TYPE_CHECKING:  # showing a grade needs none of what makes one
    from fixloop.grading import Grade

CLAIM_MS = 15 * 60 * 1000
RETRY_MS = 90 * 1000

Status = Literal["pending", "completed", "failed", "skipped_recording_disabled"]


class GradeShown(TypedDict):
    id: int
    call_id: int
    status: Status
    score: float | None
    summary: str
    rubric_breakdown: Any
    detected_issues: Any
    call_outcome: str
    goal_achievement: str | None
    goal_reasoning: str | None
    outcome_reasoning: str
    caller_welfare_violation: bool
    caller_welfare_reasoning: str
    grader_model: str
    grader_version: str
    graded_at: Time | None
    error_message: str | None
    created_at: Time
    updated_at: Time


class CallGrade(BaseModel):
    """A grade as it is kept. `revision` tells which content of the call was graded; times in ms."""

    id: int
    call_id: int
    status: Status = "pending"
    found: dict[str, Any] = {}
    grader_model: str = ""
    grader_version: str = ""
    graded_at: int | None = None
    error_message: str | None = None
    created_at: int
    updated_at: int
    revision: str = ""
    claimed_until: int = 0
    claim: str = ""

    @property
    def score(self) -> float | None:
        score: float | None = self.found.get("score")
        return score

    def claimable(self, revision: str, force: bool, now: int, claim: str = "") -> bool:
        """Whether a grading run may start: none is running, and this content has no grade yet or one is forced.

        Whoever comes with the `claim` of a run that died or failed may go on with it at once.
        """
        free = now >= self.claimed_until or (claim != "" and claim == self.claim)
        if self.status == "pending":
            return free
        return force or self.revision != revision or (self.status == "failed" and free)

    def shown(self) -> GradeShown:
        found = self.found
        return {
            "id": self.id,
            "call_id": self.call_id,
            "status": self.status,
            "score": found.get("score"),
            "summary": found.get("summary", ""),
            "rubric_breakdown": found.get("rubric_breakdown", []),
            "detected_issues": found.get("detected_issues", []),
            "call_outcome": found.get("call_outcome", "unknown"),
            "goal_achievement": found.get("goal_achievement"),
            "goal_reasoning": found.get("goal_reasoning"),
            "outcome_reasoning": found.get("outcome_reasoning", ""),
            "caller_welfare_violation": found.get("caller_welfare_violation", False),
            "caller_welfare_reasoning": found.get("caller_welfare_reasoning", ""),
            "grader_model": self.grader_model,
            "grader_version": self.grader_version,
            "graded_at": times.iso_ms(self.graded_at) if self.graded_at is not None else None,
            "error_message": self.error_message,
            "created_at": times.iso_ms(self.created_at),
            "updated_at": times.iso_ms(self.updated_at),
        }


def finished(claimed: CallGrade, grade: Grade, model: str, version: str, now: int) -> CallGrade:
    """The claimed grade with a run's findings in it."""
    return claimed.model_copy(
        update={
            "status": grade.status,
            "found": grade.model_dump(mode="json", exclude={"status"}),
            "grader_model": model,
            "grader_version": version,
            "graded_at": now,
            "updated_at": now,
            "error_message": None,
        }
    )


def broken(claimed: CallGrade, reason: str, now: int) -> CallGrade:
    """The claimed grade after a run that could not finish; it may be tried again 90 s later."""
    return claimed.model_copy(
        update={
            "status": "failed",
            "error_message": reason,
            "updated_at": now,
            "claimed_until": now + RETRY_MS,
        }
    )


_FOUND = (
    "score",
    "summary",
    "rubric_breakdown",
    "detected_issues",
    "call_outcome",
    "goal_achievement",
    "goal_reasoning",
    "outcome_reasoning",
    "caller_welfare_violation",
    "caller_welfare_reasoning",
)


def foreign(number: int, call_id: int, given: dict[str, Any], revision: str, now: int) -> CallGrade:
    """A grade made elsewhere. Keys it lacks take the values of a grade that says nothing."""
    graded_at = given.get("graded_at")
    try:
        at = times.parse(graded_at) if isinstance(graded_at, str) else now
    except ValueError:
        at = now
    return CallGrade(
        id=number,
        call_id=call_id,
        status="completed",
        found={name: given[name] for name in _FOUND if name in given},
        grader_model=str(given.get("grader_model") or "external"),
        grader_version=str(given.get("grader_version") or ""),
        graded_at=at,
        created_at=now,
        updated_at=now,
        revision=revision,
    )
