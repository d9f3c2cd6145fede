"""Filing issue reports on calls, reading one, and working them off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud import Client, Cloud
from fixloop.identity import User

Report = dict[str, Any]
Filing = Callable[..., Report]


def test_a_title_is_enough(called: Callable[..., int], caller: Client) -> None:
    answer = caller.post(f"/v1/calls/{called()}/issue-reports", {"title": "Agent paused too long"})
    assert answer.status == 201
    report = answer.json()
    assert (report["severity"], report["status"], report["source"]) == ("warning", "open", "user")
    assert report["description"] == ""
    assert report["metadata"] == {}
    assert report["timestamp_seconds"] is report["detected_issue_ref"] is None


def test_everything_that_may_be_said_is_kept(reported: Filing, caller: Client) -> None:
    said = {
        "title": "Wrong refund period",
        "description": "Said 60 days.",
        "severity": "critical",
        "timestamp_seconds": 48,
        "failing_turn_index": 2,
        "relevant_turn_indices": [1, 2],
        "detected_issue_ref": "unsupported-number",
        "evidence": "within 60 days",
        "what_went_wrong": "The prompt says 30.",
        "suggested_fix": "Say 30.",
        "metadata": {"ticket": {"id": 7, "tags": ["a", None, True, 1.5]}},
    }
    report = reported(**said)
    assert {key: report[key] for key in said} == said
    assert caller.get(f"/v1/issue-reports/{report['id']}").json() == report


def test_a_report_by_a_user_names_the_owner_of_the_key(cloud: Cloud) -> None:
    caller = cloud.caller(user=User(id=7))
    caller.put("/v1/calls/1", {})
    report = caller.post("/v1/calls/1/issue-reports", {"title": "x", "source": "user"}).json()
    assert report["reported_by_id"] == 7


def test_a_report_by_the_system_names_nobody_whoever_sends_it(reported: Filing) -> None:
    assert reported(source="system")["reported_by_id"] is None


def test_what_only_the_server_decides_cannot_be_sent(caller: Client, called: Callable[..., int]) -> None:
    called(5)
    forged = {"id": 9, "call_id": 5, "trace_id": str(uuid4()), "status": "resolved", "reported_by_id": 99}
    body = {"title": "x", **forged, "created_at": "2020-01-01T00:00:00Z"}
    report = caller.post(f"/v1/calls/{called(6)}/issue-reports", body).json()
    assert report["call_id"] == 6
    assert report["status"] == "open"
    assert report["reported_by_id"] == 1
    assert report["trace_id"] != forged["trace_id"]
    assert not report["created_at"].startswith("2020")


def test_a_system_report_is_filed_once_per_call_and_pattern(reported: Filing, caller: Client) -> None:
    said = {"title": "Long silence", "source": "system", "detected_issue_ref": "long-silence"}
    first = reported(**said)
    again = caller.post(f"/v1/calls/{first['call_id']}/issue-reports", {**said, "title": "Silence"})
    assert again.status == 200
    assert again.json() == first
    assert caller.get("/v1/calls/987654321").json()["issue_count"] == 1


def test_a_users_report_on_a_pattern_does_not_stand_in_for_the_systems(reported: Filing, caller: Client) -> None:
    by_user = reported(detected_issue_ref="long-silence")
    by_system = reported(detected_issue_ref="long-silence", source="system")
    later = reported(detected_issue_ref="long-silence")
    assert len({by_user["id"], by_system["id"], later["id"]}) == 3
    assert caller.get("/v1/calls/987654321").json()["issue_count"] == 3
    said = {"title": "x", "detected_issue_ref": "long-silence", "source": "system"}
    assert caller.post("/v1/calls/987654321/issue-reports", said).json() == by_system


def test_reports_of_one_call_are_listed_newest_first_and_alone(
    reported: Filing, called: Callable[..., int], caller: Client
) -> None:
    mine = [reported(called(1), title=str(number)) for number in range(3)]
    reported(called(2))
    assert caller.get("/v1/calls/1/issue-reports").json() == mine[::-1]
    assert caller.get(f"/v1/calls/{called(3)}/issue-reports").json() == []


def test_the_counts_on_the_call_follow_its_reports(
    reported: Filing, called: Callable[..., int], caller: Client
) -> None:
    called(1)
    for severity in ("info", "critical", "warning", "critical"):
        reported(1, severity=severity)
    for shown in (caller.get("/v1/calls/1").json(), caller.get("/v1/calls").json()["results"][0]):
        assert (shown["issue_count"], shown["critical_issue_count"]) == (4, 2)
    caller.patch(
        "/v1/issue-reports",
        {"trace_ids": [r["trace_id"] for r in caller.get("/v1/issue-reports").json()], "status": "resolved"},
    )
    called(1, product="support")
    assert caller.get("/v1/calls/1").json()["issue_count"] == 4


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("call_id", ["5", "0", "-1", "abc", str(2**63), "9" * 400, "%00", "1%2F2", "٣"])
def test_an_unknown_call_is_not_found(caller: Client, verb: str, call_id: str) -> None:
    answer = caller(verb, f"/v1/calls/{call_id}/issue-reports", {"title": "x"} if verb == "POST" else None)
    assert answer.status == 404
    assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({}, {"title"}),
        ({"title": ""}, {"title"}),
        ({"title": "x" * 256}, {"title"}),
        ({"title": None}, {"title"}),
        ({"title": 5}, {"title"}),
        ({"title": "x", "severity": "fatal"}, {"severity"}),
        ({"title": "x", "severity": None}, {"severity"}),
        ({"title": "x", "source": "robot"}, {"source"}),
        ({"title": "x", "description": ["a"]}, {"description"}),
        ({"title": "x", "description": "d" * 100_000}, {"description"}),
        ({"title": "x", "timestamp_seconds": -1}, {"timestamp_seconds"}),
        ({"title": "x", "timestamp_seconds": 4.5}, {"timestamp_seconds"}),
        ({"title": "x", "timestamp_seconds": "48"}, {"timestamp_seconds"}),
        ({"title": "x", "timestamp_seconds": True}, {"timestamp_seconds"}),
        ({"title": "x", "timestamp_seconds": 10**400}, {"timestamp_seconds"}),
        ({"title": "x", "failing_turn_index": 2**63}, {"failing_turn_index"}),
        ({"title": "x", "relevant_turn_indices": [0, "a", -1]}, {"relevant_turn_indices.1", "relevant_turn_indices.2"}),
        ({"title": "x", "relevant_turn_indices": [0] * 100_000}, {"relevant_turn_indices"}),
        ({"title": "x", "metadata": [1]}, {"metadata"}),
        ({"title": "x", "metadata": "bag"}, {"metadata"}),
        ({"title": "x", "metadata": {"a": "b" * 100_000}}, {"metadata"}),
        ({"title": "x", "detected_issue_ref": ""}, {"detected_issue_ref"}),
        ({"title": "x", "detected_issue_ref": 7}, {"detected_issue_ref"}),
        ({"severity": "x", "source": "x", "metadata": 1}, {"title", "severity", "source", "metadata"}),
    ],
)
def test_a_report_that_breaks_a_rule_is_refused_and_every_bad_field_named(
    caller: Client, called: Callable[..., int], said: Any, fields: set[str]
) -> None:
    answer = caller.post(f"/v1/calls/{called()}/issue-reports", said)
    assert answer.status == 400
    assert answer.json().keys() == fields
    assert caller.get("/v1/issue-reports").json() == []


@pytest.mark.parametrize(
    "title", ["x", "x" * 255, "😀" * 255, "مرحبا", "a\x00b", "\u202eevil", "  ", "<b>", "\U0010ffff"]
)
def test_a_title_of_1_to_255_characters_is_kept_as_it_is(reported: Filing, caller: Client, title: str) -> None:
    report = reported(title=title, description=title, metadata={title: title}, detected_issue_ref=title)
    assert report["title"] == report["description"] == report["detected_issue_ref"] == title
    assert report["metadata"] == {title: title}
    assert caller.get("/v1/issue-reports").json() == [report]


def test_the_largest_report_that_is_taken_is_kept_whole(reported: Filing, caller: Client) -> None:
    longest = "\u20ac" * 13_300  # three bytes each
    texts = dict.fromkeys(("description", "evidence", "what_went_wrong", "suggested_fix"), longest)
    rest = {"title": "\x00" * 255, "detected_issue_ref": "\x01" * 255, "relevant_turn_indices": [2**31] * 1000}
    report = reported(**texts, **rest, metadata={"a": longest})
    assert caller.get(f"/v1/issue-reports/{report['id']}").json() == report
    assert caller.patch(f"/v1/issue-reports/{report['id']}", {"status": "resolved"}).status == 200


# Working them off


@pytest.mark.parametrize("form", ["trace_id", "id"])
def test_the_status_changes_under_either_form_of_the_id(
    reported: Filing, caller: Client, clock: Any, form: str
) -> None:
    report = reported()
    clock.now += 5
    answer = caller.patch(f"/v1/issue-reports/{report[form]}", {"status": "acknowledged"})
    assert answer.status == 200
    changed = answer.json()
    assert changed == {**report, "status": "acknowledged", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > report["updated_at"]
    assert caller.get(f"/v1/issue-reports/{report[form]}").json() == changed
    assert caller.get("/v1/issue-reports?status=acknowledged").json() == [changed]
    assert caller.get("/v1/issue-reports?status=open").json() == []


def test_the_status_it_has_already_changes_nothing(reported: Filing, caller: Client, clock: Any) -> None:
    report = reported()
    clock.now += 5
    assert caller.patch(f"/v1/issue-reports/{report['id']}", {"status": "open"}).json() == report


def test_a_report_may_be_opened_again(reported: Filing, caller: Client) -> None:
    report = reported()
    for status in ("resolved", "open", "acknowledged"):
        assert caller.patch(f"/v1/issue-reports/{report['id']}", {"status": status}).json()["status"] == status


@pytest.mark.parametrize("body", [{}, {"status": "dismissed"}, {"status": None}, {"status": 1}, {"status": ["open"]}])
def test_only_the_three_published_statuses_are_taken(reported: Filing, caller: Client, body: Any) -> None:
    report = reported()
    for path, content in (
        (f"/v1/issue-reports/{report['trace_id']}", body),
        ("/v1/issue-reports", {"trace_ids": [report["trace_id"]], **body}),
    ):
        answer = caller.patch(path, content)
        assert answer.status == 400
        assert list(answer.json()) == ["status"]
    assert caller.get("/v1/issue-reports").json() == [report]


@pytest.mark.parametrize("verb", ["GET", "PATCH"])
@pytest.mark.parametrize(
    "key", ["99", "0", "-1", "abc", "9" * 30, "%00", str(UUID(int=0)), str(UUID(int=2**128 - 1)), "%E0%A4%A", "\u0663"]
)
def test_an_unknown_report_is_not_found(caller: Client, reported: Filing, verb: str, key: str) -> None:
    reported()
    answer = caller(verb, f"/v1/issue-reports/{key}", {"status": "open"} if verb == "PATCH" else None)
    assert answer.status == 404
    assert list(answer.json()) == ["detail"]


def test_a_trace_id_is_not_to_be_guessed_from_the_id(caller: Client, reported: Filing) -> None:
    report = reported()
    guessed = UUID(int=UUID(report["trace_id"]).int ^ 1)
    assert caller.get(f"/v1/issue-reports/{guessed}").status == 404
    assert (
        caller.get(f"/v1/issue-reports/{guessed.hex.translate(str.maketrans('0123456789', '٠١٢٣٤٥٦٧٨٩'))}").status
        == 404
    )


def test_many_reports_change_at_once(reported: Filing, caller: Client) -> None:
    first, second, third = reported(), reported(), reported()
    body = {"trace_ids": [first["trace_id"], second["trace_id"], first["trace_id"]], "status": "resolved"}
    answer = caller.patch("/v1/issue-reports", body)
    assert (answer.status, answer.json()) == (200, {"updated": 2})
    assert [r["id"] for r in caller.get("/v1/issue-reports?status=resolved").json()] == [second["id"], first["id"]]
    assert [r["id"] for r in caller.get("/v1/issue-reports?status=open").json()] == [third["id"]]


def test_a_pattern_widens_the_change_to_every_report_of_it(
    cloud: Cloud, called: Callable[..., int], reported: Filing, caller: Client
) -> None:
    alike = [reported(called(call), detected_issue_ref="long-silence") for call in (1, 2, 3)]
    other = reported(called(4), detected_issue_ref="long-silence-2")
    cloud.settle()
    body = {"trace_ids": [alike[0]["trace_id"]], "status": "acknowledged", "pattern_key": "long-silence"}
    assert caller.patch("/v1/issue-reports", body).json() == {"updated": 3}
    assert {r["id"] for r in caller.get("/v1/issue-reports?status=acknowledged").json()} == {r["id"] for r in alike}
    body = {"status": "resolved", "pattern_key": "long-silence-2"}
    assert caller.patch("/v1/issue-reports", body).json() == {"updated": 1}
    assert caller.get(f"/v1/issue-reports/{other['id']}").json()["status"] == "resolved"
    assert caller.patch("/v1/issue-reports", {**body, "pattern_key": "nobody knows"}).json() == {"updated": 0}


def test_a_change_that_names_an_unknown_report_changes_none(reported: Filing, caller: Client) -> None:
    report = reported()
    body = {"trace_ids": [report["trace_id"], str(uuid4())], "status": "resolved"}
    assert caller.patch("/v1/issue-reports", body).status == 404
    assert caller.get("/v1/issue-reports").json() == [report]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"status": "open"}, "trace_ids"),
        ({"status": "open", "trace_ids": []}, "trace_ids"),
        ({"status": "open", "trace_ids": "abc"}, "trace_ids"),
        ({"status": "open", "trace_ids": [5]}, "trace_ids.0"),
        ({"status": "open", "trace_ids": ["x"] * 1001}, "trace_ids"),
        ({"status": "open", "trace_ids": ["x"], "pattern_key": ""}, "pattern_key"),
    ],
)
def test_a_bulk_change_must_say_what_it_is_about(caller: Client, body: Any, field: str) -> None:
    answer = caller.patch("/v1/issue-reports", body)
    assert answer.status == 400
    assert list(answer.json()) == [field]
