"""Calls come in once, however often they are sent, and are found again by every filter."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.storage import blobs

Call = dict[str, Any]
LINE = {"role": "user", "content": "Hello?", "start_ms": 0, "end_ms": 900}


def noise(length: int) -> str:
    """Text that does not get smaller by compressing."""
    return base64.b85encode(random.Random(length).randbytes(length * 4 // 5)).decode()


# Coming in


def test_a_call_is_created_once_and_found_under_its_id(caller: Client) -> None:
    first = caller.put("/v1/calls/5", {"product": "support", "transcripts": [LINE]})
    assert first.status == 201
    assert caller.get("/v1/calls/5").json() == first.json()


def test_the_same_content_again_changes_nothing_and_says_nothing(cloud: Cloud, caller: Client) -> None:
    body = {"product": "support", "transcripts": [LINE], "duration_seconds": 9.5}
    first = caller.put("/v1/calls/5", body)
    cloud.settle()
    graded = caller.get("/v1/calls/5/grade").json()
    again = caller.put("/v1/calls/5", body)
    assert again.status == 200
    assert again.json() == {**first.json(), **{k: v for k, v in again.json().items() if k in GRADED}}
    assert list(cloud.stream_records("CallsTable")) == []
    assert caller.get("/v1/calls/5/grade").json() == graded
    assert caller.get("/v1/calls").json()["total"] == 1


GRADED = {"grade_score", "grade_status", "grade_updated_at", "issue_count", "critical_issue_count"}
GRADED |= {"call_outcome", "goal_achievement", "goal_reasoning"}


def test_changed_content_replaces_the_call_and_is_graded_anew(cloud: Cloud, caller: Client) -> None:
    caller.put("/v1/calls/5", {"transcripts": [LINE]})
    cloud.settle()
    first = caller.get("/v1/calls/5/grade").json()
    changed = caller.put(
        "/v1/calls/5", {"transcripts": [LINE, {"role": "assistant", "content": "Yes?", "start_ms": 9000}]}
    )
    assert changed.status == 200
    cloud.settle()
    second = caller.get("/v1/calls/5/grade").json()
    assert second["id"] == first["id"]
    assert second["detected_issues"] != first["detected_issues"]
    assert len(caller.get("/v1/calls/5/transcript").json()["transcripts"]) == 2
    assert caller.get("/v1/calls/5").json()["issue_count"] == len(second["detected_issues"]) > 0


def test_a_call_sent_back_and_forth_keeps_its_content(caller: Client) -> None:
    for text in ("a", "b", "a", "b", "a"):
        caller.put("/v1/calls/5", {"transcripts": [{"role": "user", "content": text}]})
        assert caller.get("/v1/calls/5/transcript").json()["transcripts"][0]["content"] == text


def test_a_body_stored_anew_outlives_the_removal_of_the_old_one(caller: Client) -> None:
    table, content = "CallsTable", {"transcripts": [noise(400_000)]}
    name = blobs.store(table, f"{caller.org}#call#1", "body", content)
    outdated = blobs.held(table, f"{caller.org}#call#1", name)
    blobs.store(table, f"{caller.org}#call#1", "body", content)
    blobs.discard(table, outdated)
    assert blobs.load(table, f"{caller.org}#call#1", name) == content
    blobs.discard(table, blobs.held(table, f"{caller.org}#call#1", name))
    with pytest.raises(LookupError):
        blobs.load(table, f"{caller.org}#call#1", name)


def test_a_call_in_progress_is_graded_when_it_has_ended(cloud: Cloud, caller: Client) -> None:
    caller.put("/v1/calls/5", {"status": "in_progress", "transcripts": [LINE]})
    cloud.settle()
    assert caller.get("/v1/calls/5/grade").status == 404
    caller.put("/v1/calls/5", {"status": "completed", "transcripts": [LINE]})
    cloud.settle()
    assert caller.get("/v1/calls/5/grade").json()["status"] == "completed"


def test_the_agent_of_a_call_with_reports_cannot_change(caller: Client, reported: Callable[..., Call]) -> None:
    caller.put("/v1/calls/5", {"agent_id": 1})
    assert caller.put("/v1/calls/5", {"agent_id": 2}).status == 200
    reported(5)
    refused = caller.put("/v1/calls/5", {"agent_id": 1})
    assert refused.status == 409
    assert list(refused.json()) == ["detail"]
    assert caller.get("/v1/calls/5").json()["agent_id"] == 2


def test_the_server_gives_ids_that_nobody_has_used(caller: Client) -> None:
    taken = caller.post("/v1/calls", {}).json()["call_id"]
    caller.put(f"/v1/calls/{taken + 1}", {})
    made = caller.post("/v1/calls", {"product": "support"})
    assert made.status == 201
    assert made.json()["call_id"] == taken + 2
    assert caller.get(f"/v1/calls/{taken + 2}").json() == made.json()
    caller.put(f"/v1/calls/{taken + 4}", {})  # the id that the call after this one would get
    assert caller.post("/v1/calls", {}).json()["call_id"] == taken + 5


def test_what_is_not_said_follows_from_what_is(caller: Client, clock: Any) -> None:
    def times(body: Call) -> tuple[Any, ...]:
        call = caller.post("/v1/calls", body).json()
        return call["start_time"], call["end_time"], call["duration_seconds"]

    start, end = "2026-04-20T18:24:00.000Z", "2026-04-20T18:25:10.500Z"
    assert times({"start_time": start, "end_time": end}) == (start, end, 70.5)
    assert times({"start_time": start, "duration_seconds": 70.5}) == (start, end, 70.5)
    assert times({"end_time": end, "duration_seconds": 70.5}) == (start, end, 70.5)
    assert times({"start_time": "2026-04-20T20:24:00+02:00", "status": "in_progress"}) == (start, None, None)
    assert times({}) == ("2026-04-20T18:25:11.002Z", None, None)


def test_the_transcript_may_come_under_its_other_name(caller: Client) -> None:
    caller.put("/v1/calls/5", {"transcript": [LINE]})
    assert caller.get("/v1/calls/5/transcript").json() == {"call_id": 5, "transcripts": [LINE]}


def test_rows_are_kept_with_everything_in_them(caller: Client) -> None:
    rows = [
        {"role": "tool_call", "content": {"name": "refund", "arguments": {"days": [1, 2.5, None]}}, "positions": [1]},
        {"role": "tool_response", "content": ["a"], "content_type": "application/json", "ttfa_ms": 4},
        {"role": "user", "content": "صباح الخير 😀 \x00"},
    ]
    caller.put("/v1/calls/5", {"transcripts": rows})
    assert caller.get("/v1/calls/5/transcript").json()["transcripts"] == rows


def test_the_history_has_the_events_in_their_place_by_time(caller: Client) -> None:
    rows = [{"role": "user", "content": "a", "start_ms": 1000}, {"role": "assistant", "content": "b", "start_ms": 3000}]
    events = [{"type": "dtmf", "at_ms": 2000, "digits": "1"}, {"type": "note"}]
    caller.put("/v1/calls/5", {"transcripts": rows, "events": events})
    assert caller.get("/v1/calls/5/history").json() == [
        {"type": "turn", "index": 0, **rows[0]},
        {"type": "event", "event": "dtmf", "at_ms": 2000, "digits": "1"},
        {"type": "turn", "index": 1, **rows[1]},
        {"type": "event", "event": "note"},
    ]


@pytest.mark.parametrize(
    "content", [noise(900_000), "The same again. " * 60_000], ids=["incompressible", "compressible"]
)
def test_a_transcript_too_large_for_an_item_is_kept_whole(cloud: Cloud, caller: Client, content: str) -> None:
    rows = [
        {"role": "user", "content": content, "start_ms": 0},
        {"role": "assistant", "content": "Yes.", "start_ms": 9000},
    ]
    answer = caller.put("/v1/calls/5", {"transcripts": rows, "prompt_snapshot": "p" * 1000})
    assert answer.status == 201
    assert caller.get("/v1/calls/5/transcript").json()["transcripts"] == rows
    stored = cloud.client("s3").list_objects_v2(
        Bucket=cloud.environment()["BLOBS_BUCKET"], Prefix=f"{caller.org}/call/"
    )
    assert stored["KeyCount"] == (1 if content == noise(900_000) else 0)
    cloud.settle()
    assert not cloud.failures
    assert caller.get("/v1/calls/5").json()["grade_status"] == "completed"
    assert caller.put("/v1/calls/5", {"transcripts": rows, "prompt_snapshot": "p" * 1000}).status == 200
    caller.put("/v1/calls/5", {"transcripts": rows[1:]})
    stored = cloud.client("s3").list_objects_v2(
        Bucket=cloud.environment()["BLOBS_BUCKET"], Prefix=f"{caller.org}/call/"
    )
    assert stored["KeyCount"] == 0
    assert caller.get("/v1/calls/5/transcript").json()["transcripts"] == rows[1:]


def test_a_call_made_to_have_thousands_of_problems_is_graded_all_the_same(cloud: Cloud, caller: Client) -> None:
    rows: list[Call] = [{"role": "user", "content": "Please help me.", "start_ms": 0}]
    for number in range(4000):
        rows.append({"role": "tool_call", "content": {"name": f"tool_{number}"}, "start_ms": number * 1000})
        rows.append({"role": "tool_response", "content": {"error": "broken"}, "start_ms": number * 1000 + 9})
    caller.put("/v1/calls/5", {"transcripts": rows})
    grade = caller.post("/v1/calls/5/grade")
    assert grade.status == 201
    assert 100 < len(grade.json()["detected_issues"]) < 4000
    assert len(grade.text) < 200_000


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"agent_id": "12"}, {"agent_id"}),
        ({"agent_id": True}, {"agent_id"}),
        ({"agent_id": 0}, {"agent_id"}),
        ({"agent_id": 2**63}, {"agent_id"}),
        ({"direction": "sideways"}, {"direction"}),
        ({"status": "lost"}, {"status"}),
        ({"end_reason": "boredom"}, {"end_reason"}),
        ({"from_number": "1" * 65, "to_number": 7}, {"from_number", "to_number"}),
        ({"start_time": "soon", "end_time": 5}, {"start_time", "end_time"}),
        ({"start_time": "2026-04-20T10:00:00Z", "end_time": "2026-04-20T09:00:00Z"}, {"end_time"}),
        ({"duration_seconds": -1}, {"duration_seconds"}),
        ({"start_time": "9999-12-31T23:59:59Z", "duration_seconds": 10**9}, {"duration_seconds"}),
        ({"end_time": "0001-01-01T00:00:00Z", "duration_seconds": 10**9}, {"duration_seconds"}),
        ({"is_test_call": "no"}, {"is_test_call"}),
        ({"transcripts": "hello"}, {"transcripts"}),
        ({"transcripts": [{"content": "x"}, 5]}, {"transcripts.0.role", "transcripts.1"}),
        (
            {"transcripts": [{"role": "user", "start_ms": -1, "end_ms": 1.5}]},
            {"transcripts.0.start_ms", "transcripts.0.end_ms"},
        ),
        ({"events": {}, "variables": []}, {"events", "variables"}),
        ({"prompt_snapshot": None}, {"prompt_snapshot"}),
    ],
)
def test_a_call_that_breaks_a_rule_is_refused_and_every_bad_field_named(
    caller: Client, body: Call, fields: set[str]
) -> None:
    for answer in (caller.put("/v1/calls/5", body), caller.post("/v1/calls", body)):
        assert answer.status == 400
        assert answer.json().keys() == fields
    assert caller.get("/v1/calls").json()["total"] == 0


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", "0999-06-01", "9999-12-31T23:59:59.999Z"])
def test_any_year_can_be_written(caller: Client, start: str) -> None:
    answer = caller.put("/v1/calls/5", {"start_time": start})
    assert answer.status == 201
    assert answer.json()["start_time"].startswith(start[:10])
    assert caller.get("/v1/calls?start_date=0001-01-01&end_date=9999-12-31").json()["total"] == 1


@pytest.mark.parametrize("call_id", ["0", "-1", "abc", "1.5", str(2**63), "9" * 500, "%F0%9F%98%80"])
def test_an_id_is_an_integer_of_64_bits(caller: Client, call_id: str) -> None:
    refused = caller.put(f"/v1/calls/{call_id}", {})
    assert refused.status == 400
    assert list(refused.json()) == ["call_id"]
    for path in ("", "/transcript", "/history", "/grade"):
        assert caller.get(f"/v1/calls/{call_id}{path}").status == 404
    assert caller.post(f"/v1/calls/{call_id}/grade").status == 404


def test_the_largest_id_is_as_good_as_any(caller: Client) -> None:
    assert caller.put(f"/v1/calls/{2**63 - 1}", {}).json()["call_id"] == 2**63 - 1
    assert caller.get(f"/v1/calls/{2**63 - 1}").status == 200


# Being found


@dataclass
class Calls:
    caller: Client
    calls: list[Call]

    def expected(self, **query: Any) -> list[int]:
        """What the filters mean, in the plainest way."""
        plain = {key: value for key, value in query.items() if key in self.calls[0]}
        return [
            call["call_id"]
            for call in self.calls
            if all(call[key] == value for key, value in plain.items())
            and query.get("phone_number", call["from_number"]) in (call["from_number"], call["to_number"])
            and not (query.get("exclude_test_calls") == "true" and call["is_test_call"])
            and query.get("start_date", "") <= call["start_time"] <= query.get("end_date", "9")
        ]


@pytest.fixture(scope="module")
def stored(cloud: Cloud) -> Calls:
    caller, calls = cloud.caller(), []
    kinds = itertools.product(
        ("inbound", "outbound"), ("completed", "failed"), (False, True), (1, 2), ("+1", "+2", "+3")
    )
    for number, (direction, status, is_test, agent, phone) in enumerate(kinds, start=1):
        body = {"direction": direction, "status": status, "is_test_call": is_test, "agent_id": agent}
        body |= {"from_number": phone, "to_number": f"+{number % 4}", "start_time": f"2026-04-{1 + number * 7 % 28:02}"}
        calls.insert(0, caller.put(f"/v1/calls/{number}", body).json())
    return Calls(caller, calls)


FILTERS: dict[str, tuple[Any, ...]] = {
    "agent_id": (1, 9),
    "direction": ("inbound", "web"),
    "status": ("failed",),
    "exclude_test_calls": ("true", "false"),
    "from_number": ("+2",),
    "to_number": ("+0", "+3"),
    "phone_number": ("+1", "+9"),
    "start_date": ("2026-04-08T00:00:00.000Z",),
    "end_date": ("2026-04-20T00:00:00.000Z",),
}


@pytest.mark.parametrize("draw", range(8))
def test_every_combination_of_filters_finds_exactly_what_matches_and_counts_it(stored: Calls, draw: int) -> None:
    chance = random.Random(draw)
    for _ in range(8):
        names = chance.sample(sorted(FILTERS), chance.randint(0, 4))
        query = {name: chance.choice(FILTERS[name]) for name in names}
        expected = stored.expected(**query)
        limit, offset = chance.choice(((50, 0), (3, 0), (3, 2), (200, 5)))
        page = stored.caller.get("/v1/calls", limit=limit, offset=offset, **query).json()
        found = [call["call_id"] for call in page["results"]]
        assert (found, page["total"]) == (expected[offset : offset + limit], len(expected)), (query, offset, limit)
        assert (page["limit"], page["offset"]) == (limit, offset)


def test_pages_join_to_the_whole_and_end_where_the_total_says(stored: Calls) -> None:
    found, offset = [], 0
    while True:
        page = stored.caller.get("/v1/calls", limit=7, offset=offset).json()
        found += [call["call_id"] for call in page["results"]]
        offset += 7
        if offset >= page["total"]:
            break
    assert found == stored.expected()


def test_the_limit_is_shown_as_it_was_capped(stored: Calls) -> None:
    assert stored.caller.get("/v1/calls?limit=500").json()["limit"] == 200


def test_a_number_with_a_plus_sign_is_found_when_it_is_encoded(stored: Calls) -> None:
    assert stored.caller.get("/v1/calls?from_number=%2B2").json()["total"] == 16


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", {"limit"}),
        ("limit=-1&offset=-1", {"limit", "offset"}),
        ("agent_id=x&direction=x&status=x&start_date=x&end_date=x&exclude_test_calls=x&limit=x", None),
        ("start_date=2026-04-21&end_date=2026-04-20", {"end_date"}),
        (f"phone_number={'1' * 65}", {"phone_number"}),
    ],
)
def test_a_bad_filter_is_refused_and_every_bad_one_is_named(
    caller: Client, query: str, fields: set[str] | None
) -> None:
    answer = caller.get(f"/v1/calls?{query}")
    assert answer.status == 400
    assert answer.json().keys() == (fields or {part.partition("=")[0] for part in query.split("&")})


def test_a_changed_call_moves_in_the_lists_that_it_is_in(caller: Client) -> None:
    caller.put("/v1/calls/1", {"agent_id": 1, "from_number": "+1", "direction": "inbound"})
    caller.put("/v1/calls/1", {"to_number": "+2", "direction": "outbound", "is_test_call": True})
    for query, total in (
        ("agent_id=1", 0),
        ("from_number=%2B1", 0),
        ("phone_number=%2B1", 0),
        ("direction=inbound", 0),
        ("exclude_test_calls=true", 0),
        ("to_number=%2B2", 1),
        ("phone_number=%2B2&direction=outbound", 1),
        ("", 1),
    ):
        page = caller.get(f"/v1/calls?{query}").json()
        assert (page["total"], len(page["results"])) == (total, total), query


def test_what_is_shown_is_json_whatever_came_in(caller: Client) -> None:
    body = {"variables": {"big": 10**300, "small": 1e-300, "text": "\u2028"}, "tool_snapshot": [None, 1.5]}
    answer = caller.put("/v1/calls/5", body)
    assert answer.status == 201
    shown = json.loads(answer.text, parse_constant=lambda name: pytest.fail(name))
    assert {key: shown[key] for key in body} == body
