"""The loop's steps that more than one function takes: grading a call and filing what was found."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fixloop import grades
from fixloop.calls import Id
from fixloop.events import SHAPES, CallGraded, Envelope
from fixloop.grades import CallGrade
from fixloop.grading import GRADER_MODEL, GRADER_VERSION, GradedCall, GraderSettings, Turn, grade
from fixloop.issue_reports import Report, detected
from fixloop.observe import count, logger
from fixloop.settings import settings
from fixloop.storage import calls, issue_reports


class Malformed(Exception):
    """An event that no retry will mend; its text says what is wrong with it."""


class _Adopted(BaseModel):
    """What a grade made elsewhere may say of the keys that are shown; null is as good as nothing."""

    model_config = ConfigDict(strict=True)

    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    summary: str | None = None
    call_outcome: str | None = None
    goal_achievement: str | None = None
    goal_reasoning: str | None = None
    outcome_reasoning: str | None = None
    caller_welfare_violation: bool | None = None
    caller_welfare_reasoning: str | None = None


class Busy(Exception):
    """Somebody else is at it. Try again later, in case that one dies."""


def grade_call(org: str, call_id: Id, *, force: bool, now: int, run: str = "") -> tuple[CallGrade, bool]:
    """The call's grade, and whether this run made it. Raises NotFound for an unknown call.

    One run at a time: whoever comes second gets the grade as it stands (ThunderPhone's claim window). A repeat with the
    name of a `run` that has not ended goes on with it.
    """
    row = calls.find(org, call_id)
    claimed, mine = calls.claim(row, force=force, now=now, run=run)
    if not mine:
        return claimed, False
    try:
        made = grades.finished(claimed, _grade(row), GRADER_MODEL, GRADER_VERSION, now)
    except Exception as error:
        calls.settle(org, grades.broken(claimed, f"The grader failed: {type(error).__name__}.", now))
        raise
    if not calls.settle(org, made):
        return calls.grade(org, call_id) or made, False
    count("CallsGraded")
    return made, True


def _grade(row: calls.Row) -> Any:
    body = calls.body(row)
    turns = [
        Turn(
            role=line["role"], content=line.get("content", ""), start_ms=line.get("start_ms"), end_ms=line.get("end_ms")
        )
        for line in body.get("transcripts", [])
    ]
    graded = GradedCall(
        call_id=row.call_id,
        turns=turns,
        prompt_snapshot=body.get("prompt_snapshot", ""),
        end_reason=row.record["end_reason"],
        status=row.record["status"],
        duration_seconds=row.record["duration_seconds"],
        events=body.get("events", []),
    )
    return grade(graded, GraderSettings(silence_seconds=settings().silence_seconds))


def received(event: dict[str, Any], kind: str) -> tuple[Envelope, Any]:
    """The envelope and its typed data from an EventBridge event. Raises Malformed naming what is wrong."""
    try:
        outer = Envelope.model_validate(event.get("detail"))
        if outer.type != kind:
            raise Malformed(f"expected {kind}, got {outer.type}")
        return outer, SHAPES[kind].model_validate(outer.data)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, p['loc'])) or 'detail'}: {p['msg']}" for p in error.errors())
        raise Malformed("; ".join(problems)) from None


def file_reports(event: dict[str, Any], now: int) -> list[Report]:
    """Files a system report for every issue a `call.graded` event detected, once per (call, ref).

    A grade made elsewhere becomes the call's own if it has none. Raises Malformed, and NotFound for an unknown call.
    """
    outer, graded = received(event, "call.graded")
    found = _detected(graded)
    if event.get("source") != "fixloop":
        _adopt(outer.org_id, graded, now)
    reports = issue_reports.file_system(outer.org_id, graded.call_id, found, now) if found else []
    if reports:
        count("ReportsFiled", len(reports))
    logger().info(
        "filed",
        extra={"org_id": outer.org_id, "call_id": graded.call_id, "detected": len(found), "filed": len(reports)},
    )
    return reports


def _detected(graded: CallGraded) -> list[Any]:
    listed = graded.grade.get("detected_issues") or []
    if not isinstance(listed, list):
        raise Malformed("data.grade.detected_issues: must be a list")
    found = []
    for index, issue in enumerate(listed):
        try:
            found.append(detected(issue))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise Malformed(f"data.grade.detected_issues.{index}.{where}: {problem['msg']}") from None
        except ValueError as error:
            raise Malformed(f"data.grade.detected_issues.{index}: {error}") from None
    return found


def _adopt(org: str, graded: CallGraded, now: int) -> None:
    try:
        _Adopted.model_validate(graded.grade)
    except ValidationError as error:
        problems = (f"data.grade.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise Malformed("; ".join(problems)) from None
    row = calls.find(org, graded.call_id)
    said = {name: value for name, value in graded.grade.items() if value is not None}
    calls.adopt(row, said, grades.foreign, now)
