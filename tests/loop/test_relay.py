"""The outbox: what is written becomes events with ids that stay the same, in order, and a refusal is tried again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop import outbox
from fixloop.events import SHAPES, Envelope
from loop.stories import CALL_WITH_ISSUES


def records(cloud: Cloud, caller: Client, act: Any) -> list[dict[str, Any]]:
    """The stream records of the caller's organisation that `act` and all that follows from it make."""
    seen: list[dict[str, Any]] = []
    invoke = cloud.invoke

    def watched(function: str, event: dict[str, Any]) -> Any:
        if function == "RelayEventsFunction":
            seen.extend(copy.deepcopy(event["Records"]))
        return invoke(function, event)

    cloud.invoke = watched  # type: ignore[method-assign]
    try:
        act()
        cloud.settle()
    finally:
        del cloud.invoke
    return [record for record in seen if record["dynamodb"]["Keys"]["pk"]["S"].startswith(caller.org)]


def events(made: list[dict[str, Any]]) -> list[Envelope]:
    return [event for record in made for event in outbox.of_record(record)]


def test_the_story_of_a_call_is_told_in_events(cloud: Cloud, caller: Client) -> None:
    told = events(records(cloud, caller, lambda: caller.put("/v1/calls/5", CALL_WITH_ISSUES)))
    reports = caller.get("/v1/issue-reports").json()
    assert reports
    assert [event.type for event in told] == ["call.completed", "call.graded", *["issue.reported"] * len(reports)]
    assert {event.org_id for event in told} == {caller.org}
    assert [event.data["issue_report"] for event in told[2:]] == reports[::-1]
    assert told[1].data["grade"] == caller.get("/v1/calls/5/grade").json()
    for event in told:
        SHAPES[event.type].model_validate(event.data)


def test_a_person_filing_a_report_is_an_event_too(cloud: Cloud, caller: Client) -> None:
    caller.put("/v1/calls/5", {"status": "in_progress"})
    told = events(records(cloud, caller, lambda: caller.post("/v1/calls/5/issue-reports", {"title": "Rude"})))
    assert [event.type for event in told] == ["issue.reported"]
    assert told[0].data["issue_report"]["reported_by_id"] is not None
    assert told[0].time == told[0].data["issue_report"]["created_at"]


def test_each_change_of_status_is_an_event_with_an_id_of_its_own(cloud: Cloud, caller: Client) -> None:
    caller.put("/v1/calls/5", {"status": "in_progress"})
    report = caller.post("/v1/calls/5/issue-reports", {"title": "Rude"}).json()
    cloud.settle()
    path = f"/v1/issue-reports/{report['trace_id']}"

    def act() -> None:
        for status in ("acknowledged", "open", "acknowledged", "acknowledged", "resolved"):
            assert caller.patch(path, {"status": status}).status == 200

    told = events(records(cloud, caller, act))
    steps = [(event.data["previous_status"], event.data["issue_report"]["status"]) for event in told]
    assert {event.type for event in told} == {"issue_report.updated"}
    assert steps == [
        ("open", "acknowledged"),
        ("acknowledged", "open"),
        ("open", "acknowledged"),
        ("acknowledged", "resolved"),
    ]
    assert len({event.id for event in told}) == 4


def test_ids_are_the_same_however_often_a_record_is_relayed(cloud: Cloud, caller: Client) -> None:
    made = records(cloud, caller, lambda: caller.put("/v1/calls/5", CALL_WITH_ISSUES))
    once, again = events(made), events(copy.deepcopy(made))
    assert [event.model_dump() for event in once] == [event.model_dump() for event in again]
    assert len({event.id for event in once}) == len(once)


def test_a_call_still_going_on_is_no_event_until_it_ends(cloud: Cloud, caller: Client) -> None:
    assert not events(records(cloud, caller, lambda: caller.put("/v1/calls/5", {"status": "in_progress"})))
    told = events(records(cloud, caller, lambda: caller.put("/v1/calls/5", {"status": "completed"})))
    assert told[0].type == "call.completed"
    assert not events(records(cloud, caller, lambda: caller.put("/v1/calls/5", {"status": "completed"})))


def test_content_that_comes_back_is_completed_anew(cloud: Cloud, caller: Client) -> None:
    """A, B and A again are three completions, and three ids."""
    told = [
        event
        for transcript in ("A", "B", "A")
        for event in events(
            records(
                cloud,
                caller,
                lambda said=transcript: caller.put("/v1/calls/5", {"transcripts": [{"role": "user", "content": said}]}),
            )
        )
        if event.type == "call.completed"
    ]
    assert len({event.id for event in told}) == 3


class Refusing:
    """A bus that refuses the entries whose detail holds `text`, a number of times."""

    def __init__(self, cloud: Cloud, text: str, times: int) -> None:
        self.real = cloud.client("events")
        self.text, self.times = text, times
        self.taken: list[str] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - botocore's spelling
        if self.times and any(self.text in entry["Detail"] for entry in Entries):
            self.times -= 1
            refused = [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"} for _ in Entries]
            return {"FailedEntryCount": len(Entries), "Entries": refused}
        self.taken += [json.loads(entry["Detail"])["id"] for entry in Entries]
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in Entries]}


def test_from_the_first_record_that_is_refused_on_all_are_left_and_come_again_in_order(
    cloud: Cloud, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = records(cloud, caller, lambda: caller.put("/v1/calls/5", CALL_WITH_ISSUES))
    wanted = [event.id for event in events(made)]
    bus = Refusing(cloud, wanted[1], 2)
    monkeypatch.setattr(outbox, "client", lambda service: bus)
    waiting, rounds = made, 0
    while waiting:
        rounds += 1
        answer = cloud.invoke("RelayEventsFunction", {"Records": waiting})
        failed = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
        start = [record["dynamodb"]["SequenceNumber"] for record in waiting].index(failed[0]) if failed else None
        waiting = waiting[start:] if start is not None else []
    assert rounds == 3
    assert bus.taken == wanted


def test_rows_that_mean_nothing_are_passed_over(cloud: Cloud, caller: Client) -> None:
    made = records(cloud, caller, lambda: caller.put("/v1/calls/5", CALL_WITH_ISSUES))
    for record in made:
        removed = copy.deepcopy(record)
        removed["eventName"] = "REMOVE"
        removed["dynamodb"]["OldImage"] = removed["dynamodb"].pop("NewImage")
        assert outbox.of_record(removed) == []
        same = copy.deepcopy(record)
        same["dynamodb"]["OldImage"] = same["dynamodb"]["NewImage"]
        assert outbox.of_record(same) == []
    other = copy.deepcopy(made[0])
    other["dynamodb"]["Keys"]["sk"] = {"S": "body#1234"}
    assert outbox.of_record(other) == []


def test_each_closing_of_an_issue_is_an_event_of_its_own(cloud: Cloud, caller: Client) -> None:
    made = caller.post("/api/v2/issues", {"title": "Wrong days", "agentId": "agent_1"}).json()["data"]
    cloud.settle()
    path = f"/api/v2/issues/{made['id']}"

    def act() -> None:
        for status in ("testing", "closed", "closed", "open", "closed"):
            assert caller.patch(path, {"status": status}).status == 200
        assert caller.patch(path, {"title": "Wrong dates"}).status == 200
        assert caller("DELETE", path).status == 200

    told = events(records(cloud, caller, act))
    assert [event.type for event in told] == ["issue.closed", "issue.closed"]
    assert {event.data["issue_id"] for event in told} == {made["id"]}
    assert len({event.id for event in told}) == 2


def test_a_triage_issue_that_ends_is_an_event_and_one_that_goes_on_is_none(cloud: Cloud, caller: Client) -> None:
    body = {"title": "Wrong days", "severity": "low", "category": "Dialogue"}
    made = caller.post("/v1/triage/issues", body).json()["data"]
    path = f"/v1/triage/issues/{made['id']}"

    def act() -> None:
        for status in ("in_review", "done", "closed", "todo", "closed"):
            assert caller.patch(path, {"status": status}).status == 200
        assert caller.post(f"{path}/comments", {"detail": "Well."}).status == 201
        assert caller("DELETE", path).status == 204

    told = events(records(cloud, caller, act))
    assert [(event.type, event.data["status"]) for event in told] == [
        ("triage_issue.closed", "done"),
        ("triage_issue.closed", "closed"),
    ]
    assert {(event.data["issue_id"], event.data["followed"]) for event in told} == {(None, False)}
    assert len({event.id for event in told}) == 2
