"""The grade of a call: made once, on demand or by the bus, by one run at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop import grades, loop
from fixloop.storage import calls

TALK = [
    {"role": "user", "content": "How long do I have to return it?", "start_ms": 0, "end_ms": 2000},
    {"role": "assistant", "content": "Thirty days from the day of purchase.", "start_ms": 9000, "end_ms": 11000},
]


@pytest.fixture
def talked(caller: Client) -> str:
    """The path of the grade of a call that was not graded yet."""
    caller.put("/v1/calls/5", {"transcripts": TALK})
    return "/v1/calls/5/grade"


def test_a_call_without_a_grade_says_so(caller: Client, talked: str) -> None:
    answer = caller.get(talked)
    assert (answer.status, list(answer.json())) == (404, ["detail"])


def test_a_grade_is_made_once_and_then_shown(caller: Client, talked: str) -> None:
    made = caller.post(talked)
    assert made.status == 201
    again = caller.post(talked)
    assert again.status == 200
    assert again.json() == made.json() == caller.get(talked).json()


def test_a_forced_grade_is_made_anew_under_the_same_id(caller: Client, talked: str, clock: Any) -> None:
    first = caller.post(talked).json()
    clock.now += 60
    for force in ("true", "1", "TRUE"):
        assert caller.post(f"{talked}?force={force}").status == 201
    second = caller.get(talked).json()
    assert second == {**first, "graded_at": second["graded_at"], "updated_at": second["updated_at"]}
    assert second["graded_at"] > first["graded_at"]
    assert caller.post(f"{talked}?force=false").status == 200


def test_force_is_a_truth_value(caller: Client, talked: str) -> None:
    refused = caller.post(f"{talked}?force=perhaps")
    assert (refused.status, list(refused.json())) == (400, ["force"])
    assert caller.get(talked).status == 404


def test_while_one_run_has_the_claim_others_get_the_grade_as_it_stands(caller: Client, talked: str, clock: Any) -> None:
    claimed, mine = calls.claim(calls.find(caller.org, 5), force=False, now=int(clock.now * 1000))
    assert mine
    for path in (talked, f"{talked}?force=true"):
        waiting = caller.post(path)
        assert waiting.status == 200
        assert waiting.json()["status"] == "pending"
        assert waiting.json()["score"] is None
        assert waiting.json()["id"] == claimed.id
    clock.now += grades.CLAIM_MS / 1000 - 1
    assert caller.post(talked).status == 200
    clock.now += 1
    made = caller.post(talked)
    assert made.status == 201
    assert made.json()["status"] == "completed"
    assert not calls.settle(caller.org, claimed), "whoever lost the claim cannot overwrite the grade"


def test_a_run_that_failed_may_be_tried_again_after_90_seconds(
    caller: Client, talked: str, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(loop, "grade", broken)
        failed = caller.post(talked)
    assert failed.status == 500
    assert failed.json() == {"detail": "Internal server error."}
    shown = caller.get(talked).json()
    assert shown["status"] == "failed"
    assert "ZeroDivisionError" in shown["error_message"]
    assert caller.get("/v1/calls/5").json()["grade_status"] == "failed"
    clock.now += grades.RETRY_MS / 1000 - 1
    assert caller.post(talked).status == 200
    clock.now += 1
    assert caller.post(talked).status == 201
    assert caller.get(talked).json()["error_message"] is None


def test_the_call_shows_its_grade(caller: Client, talked: str) -> None:
    grade = caller.post(talked).json()
    call = caller.get("/v1/calls/5").json()
    assert call["grade_score"] == grade["score"]
    assert call["grade_status"] == "completed"
    assert call["grade_updated_at"] == grade["updated_at"]
    for key in ("call_outcome", "goal_achievement", "goal_reasoning"):
        assert call[key] == grade[key]


def test_the_issues_of_a_demanded_grade_are_filed_too(cloud: Cloud, caller: Client, talked: str) -> None:
    found = {issue["ref"] for issue in caller.post(talked).json()["detected_issues"]}
    assert found
    cloud.settle()
    feed = caller.get("/v1/issue-reports").json()
    assert {report["detected_issue_ref"] for report in feed} == found
    caller.post(f"{talked}?force=true")
    cloud.settle()
    assert caller.get("/v1/issue-reports").json() == feed


@pytest.mark.parametrize(
    "rows", [[], [{"role": "assistant", "content": "", "start_ms": 0}], [{"role": "system", "content": "Connected."}]]
)
def test_a_call_without_speech_is_no_conversation_and_no_failure(caller: Client, rows: list[Any]) -> None:
    caller.put("/v1/calls/5", {"transcripts": rows})
    grade = caller.post("/v1/calls/5/grade").json()
    assert grade["status"] == "completed"
    assert grade["call_outcome"] == "no_conversation"
    assert grade["score"] is None
    assert grade["detected_issues"] == []
    assert caller.get("/v1/calls/5").json()["grade_status"] == "completed"


def test_grading_needs_no_body_and_ignores_one(caller: Client, talked: str) -> None:
    assert caller.post(talked, body="not json").status == 201


def test_reading_a_grade_needs_a_read_key_and_making_one_a_write_key(cloud: Cloud, caller: Client, talked: str) -> None:
    from fixloop.identity import Scope

    reader = cloud.caller(caller.org, scope=Scope.READ)
    assert reader.post(talked).status == 403
    caller.post(talked)
    assert reader.get(talked).status == 200


def test_a_grade_made_elsewhere_is_shown_like_our_own(cloud: Cloud, caller: Client, called: Callable[..., int]) -> None:
    called(5, status="in_progress")
    grade = {
        "score": 0.4,
        "summary": "Curt.",
        "detected_issues": [{"ref": "curt", "title": "Curt", "severity": "high"}],
    }
    detail = {"type": "call.graded", "org_id": caller.org, "data": {"call_id": 5, "grade": grade}}
    cloud.put_event("call.graded", detail, source="our.grader")
    cloud.settle()
    shown = caller.get("/v1/calls/5/grade").json()
    assert (shown["score"], shown["summary"], shown["grader_model"]) == (0.4, "Curt.", "external")
    (report,) = caller.get("/v1/issue-reports").json()
    assert (report["detected_issue_ref"], report["severity"], report["source"]) == ("curt", "warning", "system")
    assert caller.get("/v1/calls/5").json()["grade_score"] == 0.4
