"""The shapes of ThunderPhone's published pages: keys in their order, types, and nothing its readers do not know."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from cloud import Client, Cloud

PUBLISHED = """{
  "id": 4321,
  "call_id": 987654321,
  "source": "user",
  "severity": "warning",
  "status": "open",
  "title": "Agent paused too long",
  "description": "Five-second silence before responding to the main question.",
  "reported_by_id": 7,
  "timestamp_seconds": 48,
  "detected_issue_ref": null,
  "metadata": {},
  "trace_id": "5f9a...",
  "created_at": "2026-04-20T18:25:11.002Z",
  "updated_at": "2026-04-20T18:25:11.002Z"
}"""
NEWER = {
    "agent_id": int,
    "call_start_time": str,
    "cluster_id": type(None),
    "evidence": str,
    "failing_turn_index": type(None),
    "linked_test_cases": list,
    "regression_guarded": bool,
    "relevant_turn_indices": list,
    "suggested_fix": str,
    "what_went_wrong": str,
}
CALL = {
    "call_id": int,
    "agent_id": int,
    "direction": str,
    "from_number": str,
    "to_number": str,
    "start_time": str,
    "end_time": str,
    "duration_seconds": int,
    "status": str,
    "end_reason": str,
    "recording_url": str,
    "is_test_call": bool,
    "product": str,
    "voice": str,
    "billable_minutes": int,
    "billing_total_cents": int,
    "billed_at": str,
    "grade_score": float,
    "grade_status": str,
    "grade_updated_at": str,
    "issue_count": int,
    "critical_issue_count": int,
}
GRADE = {
    "id": int,
    "call_id": int,
    "status": str,
    "score": float,
    "summary": str,
    "rubric_breakdown": list,
    "detected_issues": list,
    "call_outcome": str,
    "goal_achievement": str,
    "goal_reasoning": str,
    "outcome_reasoning": str,
    "caller_welfare_violation": bool,
    "caller_welfare_reasoning": str,
    "grader_model": str,
    "grader_version": str,
    "graded_at": str,
    "error_message": type(None),
    "created_at": str,
    "updated_at": str,
}
GIVEN = {
    "agent_id": 12,
    "direction": "inbound",
    "from_number": "+15550001111",
    "to_number": "+15559998888",
    "start_time": "2026-04-20T18:24:00.000Z",
    "end_time": "2026-04-20T18:25:10.000Z",
    "duration_seconds": 70,
    "status": "completed",
    "end_reason": "agent_end",
    "recording_url": "https://recordings.example/1.wav",
    "is_test_call": False,
    "product": "support",
    "voice": "aria",
    "billable_minutes": 2,
    "billing_total_cents": 14,
    "billed_at": "2026-04-20T18:26:00.000Z",
    "prompt_snapshot": "You are the support agent of Aurora. Refunds are possible within 30 days.",
    "transcripts": [
        {"role": "assistant", "content": "Aurora support, how can I help?", "start_ms": 0, "end_ms": 2000},
        {"role": "user", "content": "How long do I have to return my lamp?", "start_ms": 3000, "end_ms": 5000},
        {"role": "assistant", "content": "Within 60 days of purchase.", "start_ms": 11000, "end_ms": 13000},
        {"role": "tool_call", "content": {"name": "note", "arguments": {"days": 60}}, "start_ms": 13100},
        {"role": "tool_response", "content": {"ok": True}, "content_type": "application/json", "start_ms": 13200},
        {"role": "user", "content": "Thank you, bye.", "start_ms": 14000, "end_ms": 15000},
    ],
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def reader(cloud: Cloud) -> Client:
    """A caller with one graded call."""
    reader = cloud.caller()
    assert reader.put("/v1/calls/987654321", GIVEN).status == 201
    cloud.settle()
    assert not cloud.failures
    return reader


def shape(content: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in content.items()}


def test_a_report_has_the_published_keys_in_their_order_and_then_the_newer_ones(reader: Client) -> None:
    published = json.loads(PUBLISHED)
    said = {key: published[key] for key in ("title", "description", "severity", "timestamp_seconds", "metadata")}
    made = reader.post("/v1/calls/987654321/issue-reports", said)
    assert made.status == 201
    report = made.json()
    assert list(report) == [*published, *NEWER]
    assert {key: type(report[key]) for key in published} == shape(published)
    assert {key: type(report[key]) for key in NEWER} == NEWER
    decided_here = {"id", "reported_by_id", "trace_id", "created_at", "updated_at"}
    assert {key: report[key] for key in published.keys() - decided_here} == {
        key: published[key] for key in published.keys() - decided_here
    }
    assert str(uuid.UUID(report["trace_id"])) == report["trace_id"]
    assert INSTANT.fullmatch(report["created_at"])
    assert report["updated_at"] == report["created_at"]
    assert reader.get(f"/v1/issue-reports/{report['trace_id']}").json() == report
    assert report in reader.get("/v1/issue-reports?severity=warning&source=user").json()


def test_the_feed_is_an_array_of_reports_also_when_it_is_empty(reader: Client) -> None:
    feed = reader.get("/v1/issue-reports").json()
    assert isinstance(feed, list)
    assert all(list(report) == [*json.loads(PUBLISHED), *NEWER] for report in feed)
    assert reader.get("/v1/issue-reports?offset=1000").json() == []
    assert isinstance(reader.get("/v1/calls/987654321/issue-reports").json(), list)


def test_a_system_report_has_no_reporter_and_names_its_pattern(reader: Client) -> None:
    feed = reader.get("/v1/issue-reports?source=system").json()
    assert feed
    for report in feed:
        assert report["reported_by_id"] is None
        assert isinstance(report["detected_issue_ref"], str)
        assert isinstance(report["timestamp_seconds"], int)


def test_a_call_has_the_published_keys_in_their_order_and_then_the_newer_ones(reader: Client) -> None:
    call = reader.get("/v1/calls/987654321").json()
    assert list(call)[: len(CALL)] == list(CALL)
    assert {key: type(call[key]) for key in CALL} == CALL
    newer = ["call_outcome", "goal_achievement", "goal_reasoning", "recording_mode", "prompt_snapshot", "tool_snapshot"]
    assert list(call)[len(CALL) :] == [*newer, "steps_trace", "variables", "extracted_data"]
    assert {key: call[key] for key in GIVEN.keys() & CALL.keys()} == {
        key: GIVEN[key] for key in GIVEN.keys() & CALL.keys()
    }
    for key in ("start_time", "end_time", "billed_at", "grade_updated_at"):
        assert INSTANT.fullmatch(call[key])
    assert 0 <= call["grade_score"] <= 1


def test_a_call_without_anything_known_has_every_key_all_the_same(cloud: Cloud) -> None:
    reader = cloud.caller()
    call = reader.put("/v1/calls/1", {}).json()
    assert list(call)[: len(CALL)] == list(CALL)
    assert call["agent_id"] is call["from_number"] is call["grade_score"] is call["end_reason"] is None
    assert call["issue_count"] == call["critical_issue_count"] == 0


def test_the_list_of_calls_is_a_page_object(reader: Client) -> None:
    page = reader.get("/v1/calls").json()
    assert list(page) == ["limit", "offset", "results", "total"]
    assert (page["limit"], page["offset"], page["total"]) == (50, 0, 1)
    detail = reader.get("/v1/calls/987654321").json()
    assert page["results"] == [{key: detail[key] for key in page["results"][0]}]
    assert list(page["results"][0])[: len(CALL)] == list(CALL)


def test_a_transcript_is_the_call_id_and_the_rows_as_they_came(reader: Client) -> None:
    assert reader.get("/v1/calls/987654321/transcript").json() == {
        "call_id": 987654321,
        "transcripts": GIVEN["transcripts"],
    }


def test_the_history_is_an_array_of_the_turns(reader: Client) -> None:
    history = reader.get("/v1/calls/987654321/history").json()
    assert [turn["role"] for turn in history] == [row["role"] for row in GIVEN["transcripts"]]  # type: ignore[union-attr, index]
    assert [turn["index"] for turn in history] == list(range(len(history)))


def test_a_grade_has_all_19_keys_in_their_order(reader: Client) -> None:
    grade = reader.get("/v1/calls/987654321/grade").json()
    assert list(grade) == list(GRADE)
    assert shape(grade) == GRADE
    assert grade["status"] == "completed"
    assert grade["call_outcome"] in ("success", "failure", "unknown", "no_conversation")
    assert grade["goal_achievement"] in ("achieved", "missed", "no_opportunity")
    assert INSTANT.fullmatch(grade["graded_at"])


def test_the_rubric_adds_up_to_the_score(reader: Client) -> None:
    grade = reader.get("/v1/calls/987654321/grade").json()
    rubric = grade["rubric_breakdown"]
    assert sum(item["weight"] for item in rubric) == pytest.approx(1)
    assert sum(item["weight"] * item["score"] for item in rubric) == pytest.approx(grade["score"], abs=1e-4)


def test_a_simple_error_is_a_detail(reader: Client) -> None:
    for answer in (
        reader.get("/v1/calls/5"),
        reader.get("/v1/calls/5/grade"),
        reader.get("/v1/nothing"),
        reader.cloud.request("GET", "/v1/calls"),
        reader("DELETE", "/v1/calls"),
    ):
        assert list(answer.json()) == ["detail"]
        assert isinstance(answer.json()["detail"], str)
        assert answer.headers["Content-Type"] == "application/json"


def test_an_error_of_fields_has_a_list_of_messages_for_each(reader: Client) -> None:
    errors = reader.post("/v1/calls/987654321/issue-reports", {"title": "", "severity": "fatal"}).json()
    assert errors.keys() == {"title", "severity"}
    for messages in errors.values():
        assert messages
        assert all(isinstance(message, str) and message for message in messages)
