"""From a telephony system to the loop: attempts told over the bus, the calls made of them, and what several show."""

from __future__ import annotations

import copy
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.errors import Conflict, NotFound
from fixloop.loop import Malformed
from fixloop.storage import call_reports
from wire.gomobile import CALL, JOB

BUSY, ANSWERED = json.loads(JOB)["attempts"]
PROMPT = "You are the support agent of Aurora. Refunds are possible within 30 days of purchase."
SAID = [
    ("say", 0, 3000, "Hello, this is Aurora. How can I help?"),
    ("speech", 4000, 7000, "How long do I have to return my lamp?"),
    ("say", 13000, 17000, "You can get a refund within 60 days."),
    ("speech", 18000, 20000, "Great, thank you, bye."),
]


def told(org: str, report: Any, job: str = "job", kind: str = "call.attempt.completed", **outer: Any) -> dict[str, Any]:
    """What a telephony system puts on the bus, as EventBridge hands it on."""
    detail = {"type": kind, "org_id": org, "data": {"job_id": job, "report": report}, **outer}
    return {"version": "0", "id": "e", "detail-type": kind, "source": "acme.telephony", "detail": detail}


def recorded(org: str, job: str, number: int) -> dict[str, Any]:
    data = {"job_id": job, "attempt": number, "call_id": "c", "outcome": "busy"}
    detail = {"type": "attempt.recorded", "org_id": org, "data": data}
    return {"version": "0", "id": "e", "detail-type": "attempt.recorded", "source": "fixloop", "detail": detail}


def spoken() -> dict[str, Any]:
    """The published answered call, with a conversation that has something wrong in it."""
    report = copy.deepcopy(ANSWERED)
    report["flowExecution"]["finalVariables"] |= {"agent.id": 12, "agent.prompt": PROMPT}
    report["call"]["durationMs"] = 21_000
    for kind, start, end, text in SAID:
        data = {"startMs": start, "endMs": end, "text": text}
        report["events"].append({"type": kind, "timestamp": "2025-12-16T11:15:34.479Z", "data": data})
    return report


def attempt(number: int, second: int, outcome: str = "busy", to: str = "6001", **changes: Any) -> dict[str, Any]:
    """An attempt so many seconds into the day."""
    made = f"2026-04-20T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000Z"
    call = {**BUSY["call"], "status": outcome, "createdAt": made, "dialedAt": made, "to": to}
    call["terminatedAt"] = made
    flow = copy.deepcopy(BUSY["flowExecution"])
    report = {"attempt": number, "call": call, "outcome": outcome, "flowExecution": flow, "events": [], **changes}
    return {"callId": f"call-{to}-{number}-{second}", **report}


def dead(number: int, second: int, node: str = "ask") -> dict[str, Any]:
    """An answered call that came to a bad end at a node."""
    report = attempt(number, second, "completed", to=str(7000 + number))
    step = {"nodeId": node, "nodeType": "dtmf", "outputPath": "onError", "timestamp": report["call"]["createdAt"]}
    report["flowExecution"]["executionPath"] = [ANSWERED["flowExecution"]["executionPath"][0], step]
    return report


def put(caller: Client, report: dict[str, Any], job: str = "job") -> None:
    answer = caller.put(f"/call-report/{job}/attempts/{report['attempt']}", report)
    assert answer.status in (200, 201), answer.text


def reports(caller: Client, **query: Any) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = caller.get("/v1/issue-reports", limit=200, **query).json()
    return answer


def refs(caller: Client) -> list[str]:
    return sorted(report["detected_issue_ref"] for report in reports(caller))


def calls(caller: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller.get("/v1/calls", limit=200).json()["results"]
    return found


@pytest.fixture(autouse=True)
def _fresh(cloud: Cloud) -> None:
    cloud.settle()
    cloud.failures.clear()


# Attempts told over the bus


def test_attempts_told_over_the_bus_are_the_same_as_those_told_over_http(cloud: Cloud, caller: Client) -> None:
    job = json.loads(JOB)
    for report in reversed(job["attempts"]):
        cloud.put_event("call.attempt.completed", told(caller.org, report, job["jobId"])["detail"], "acme.telephony")
    cloud.settle()
    assert not cloud.failures
    assert caller.get(f"/call-report/{job['jobId']}").json() == job


@pytest.mark.parametrize("seed", range(4))
def test_events_may_come_twice_and_in_any_order(cloud: Cloud, caller: Client, seed: int) -> None:
    events = [
        told(caller.org, {**BUSY, "outcome": "failed"}, time="2026-04-20T18:25:11.001Z"),
        told(caller.org, BUSY, time="2026-04-20T18:25:11.002Z"),
        told(caller.org, ANSWERED, time="2026-04-20T18:25:11.003Z"),
    ] * 2
    random.Random(seed).shuffle(events)
    for event in events:
        cloud.invoke("RecordAttemptsFunction", event)
    shown = caller.get("/call-report/job").json()
    assert shown["attempts"] == [BUSY, ANSWERED]


def test_an_event_from_before_a_put_changes_nothing(cloud: Cloud, caller: Client) -> None:
    put(caller, BUSY)
    older = told(caller.org, {**BUSY, "outcome": "failed"}, time="2020-01-01T00:00:00.000Z")
    cloud.invoke("RecordAttemptsFunction", older)
    assert caller.get("/call-report/job").json()["attempts"] == [BUSY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"job_id": "a b"}, "data.job_id: "),
        ({"job_id": 7}, "job_id: "),
        ({"report": []}, "report: "),
        ({"report": {**BUSY, "attempt": None}}, "data.report.attempt: "),
        ({"report": {**BUSY, "note": 1}}, "data.report.note: "),
        ({"report": {**BUSY, "call": {**BUSY["call"], "direction": "up"}}}, "data.report.call.direction: "),
        (
            {"report": {**json.loads(CALL), "billing": {"nodes": [], "totalCost": 1}}},
            "data.report: billing.totalCost: ",
        ),
        ({"report": {**BUSY, "outcomeReason": "\ud800"}}, "data.report"),
    ],
)
def test_a_malformed_event_says_what_is_wrong_with_it(
    cloud: Cloud, caller: Client, change: dict[str, Any], reason: str
) -> None:
    event = told(caller.org, BUSY)
    event["detail"]["data"] |= change
    with pytest.raises(Malformed, match=reason):
        cloud.invoke("RecordAttemptsFunction", event)
    assert caller.get("/call-report/job").status == 404


def test_a_time_that_is_none_is_malformed(cloud: Cloud, caller: Client) -> None:
    with pytest.raises(Malformed, match="time"):
        cloud.invoke("RecordAttemptsFunction", told(caller.org, BUSY, time="soon"))


def test_a_call_of_another_attempt_cannot_be_told(cloud: Cloud, caller: Client) -> None:
    cloud.invoke("RecordAttemptsFunction", told(caller.org, BUSY))
    with pytest.raises(Conflict):
        cloud.invoke("RecordAttemptsFunction", told(caller.org, BUSY, job="other"))


def test_a_job_that_could_not_be_processed_has_failed(cloud: Cloud, caller: Client) -> None:
    asked = {"didId": "d", "contactId": "c", "flowId": "f", "retry": {"type": "none"}}
    job = caller.post("/call-requests", asked).json()["jobId"]
    event = told(caller.org, None, job, "call_request.failed")
    event["detail"]["data"] = {"job_id": job, "reason": "no trunk"}
    for _ in range(2):
        cloud.invoke("RecordAttemptsFunction", event)
    assert caller.get(f"/call-report/{job}").json() == {"jobId": job, "status": "failed", "attempts": []}
    event["detail"]["data"]["job_id"] = "unknown"
    cloud.invoke("RecordAttemptsFunction", event)
    assert caller.get("/call-report/unknown").status == 404


def test_who_asks_for_a_call_is_heard_on_the_bus(cloud: Cloud, caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, Any]] = []
    real = cloud.client("events")

    class Listening:
        def put_events(self, Entries: list[dict[str, Any]]) -> Any:  # noqa: N803 - botocore's spelling
            details = [json.loads(entry["Detail"]) for entry in Entries]
            heard.extend((one["type"], one["data"]) for one in details if one["org_id"] == caller.org)
            return real.put_events(Entries=Entries)

    from fixloop import outbox

    monkeypatch.setattr(outbox, "client", lambda service: Listening())
    retry = {"type": "fixed-delay", "delay": 1000, "maxRetries": 2}
    asked = {"didId": "d", "contactId": "c", "flowId": "f", "retry": retry}
    job = caller.post("/call-requests", asked).json()["jobId"]
    cloud.settle()
    assert heard == [("call_request.queued", {"job_id": job, "attempts": 3, "request": asked})]
    for _ in range(2):
        caller("DELETE", f"/call-requests/{job}")
    cloud.settle()
    assert heard[1:] == [("call_request.cancelled", {"job_id": job})]


# The calls made of them


def test_a_conversation_becomes_a_call_that_is_graded_and_reported(cloud: Cloud, caller: Client) -> None:
    put(caller, spoken())
    cloud.settle()
    assert not cloud.failures
    (call,) = calls(caller)
    assert (call["agent_id"], call["to_number"], call["duration_seconds"]) == (12, "6001", 21)
    assert call["grade_status"] == "completed"
    assert call["issue_count"] == len(reports(caller)) > 0
    assert any("60 days" in report["description"] for report in reports(caller))
    rows = caller.get(f"/v1/calls/{call['call_id']}/transcript").json()["transcripts"]
    assert [(row["start_ms"], row["content"]) for row in rows] == [(start, text) for _, start, _, text in SAID]
    assert call_reports.attempt(caller.org, "job", 2).joined == call["call_id"]


def test_an_attempt_that_did_not_get_through_is_a_call_without_a_conversation(cloud: Cloud, caller: Client) -> None:
    put(caller, BUSY)
    cloud.settle()
    assert not cloud.failures
    (call,) = calls(caller)
    assert (call["status"], call["end_reason"], call["issue_count"]) == ("failed", "busy", 0)
    grade = caller.get(f"/v1/calls/{call['call_id']}/grade").json()
    assert (grade["status"], grade["call_outcome"], grade["score"]) == ("completed", "no_conversation", None)


def test_an_attempt_without_speech_that_got_through_is_no_call(cloud: Cloud, caller: Client) -> None:
    put(caller, ANSWERED)
    put(caller, {**BUSY, "call": {**BUSY["call"], "status": "ringing", "terminatedAt": None}, "outcome": "ringing"})
    cloud.settle()
    assert not cloud.failures
    assert calls(caller) == []


def test_an_attempt_is_one_call_however_often_it_is_told(cloud: Cloud, caller: Client) -> None:
    put(caller, spoken())
    cloud.settle()
    before, filed = calls(caller), reports(caller)
    for _ in range(3):
        cloud.invoke("FollowAttemptsFunction", recorded(caller.org, "job", 2))
    cloud.settle()
    assert (calls(caller), reports(caller)) == (before, filed)
    put(caller, {**spoken(), "outcomeReason": "mended"})
    cloud.settle()
    assert [call["call_id"] for call in calls(caller)] == [before[0]["call_id"]]


def test_an_attempt_followed_by_many_at_once_is_one_call(cloud: Cloud, caller: Client) -> None:
    put(caller, BUSY)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: cloud.invoke("FollowAttemptsFunction", recorded(caller.org, "job", 1)), range(4)))
    assert len(calls(caller)) == 1


def test_an_attempt_told_anew_changes_its_call(cloud: Cloud, caller: Client) -> None:
    put(caller, {**BUSY, "outcome": "failed"})
    cloud.settle()
    (first,) = calls(caller)
    put(caller, BUSY)
    cloud.settle()
    (call,) = calls(caller)
    assert (call["call_id"], call["end_reason"]) == (first["call_id"], "busy")


def test_the_cost_behind_a_call_can_be_asked_for(cloud: Cloud, caller: Client) -> None:
    report = json.loads(CALL)
    report["events"] += spoken()["events"][-4:]
    put(caller, report)
    cloud.settle()
    (call,) = calls(caller)
    assert str(call_reports.cost_of_call(caller.org, call["call_id"])) == "1.875075"


def test_an_attempt_that_is_not_there_cannot_be_followed(cloud: Cloud, caller: Client) -> None:
    with pytest.raises(NotFound):
        cloud.invoke("FollowAttemptsFunction", recorded(caller.org, "nobody", 1))


# What several show


@pytest.mark.parametrize("seed", range(2))
def test_a_retry_storm_is_reported_once_however_its_attempts_come(cloud: Cloud, caller: Client, seed: int) -> None:
    storm = [attempt(n, 3600 + 30 * n) for n in range(1, 8)]
    storm[-1] = attempt(7, 3600 + 210, "voicemail")
    random.Random(seed).shuffle(storm)
    for report in storm:
        put(caller, report)
    cloud.settle()
    for number in range(1, 8):
        cloud.invoke("FollowAttemptsFunction", recorded(caller.org, "job", number))
    assert not cloud.failures
    (report,) = [one for one in reports(caller) if one["detected_issue_ref"] == "retry-storm"]
    assert (report["source"], report["severity"], report["reported_by_id"]) == ("system", "warning", None)
    assert report["metadata"]["nodeId"] == "dial-1"
    assert report["metadata"]["number"] == "6001"
    assert report["call_id"] in [call["call_id"] for call in calls(caller)]


def test_a_number_that_is_never_reached_is_reported_until_it_is_and_anew_when_it_fails_again(
    cloud: Cloud, caller: Client
) -> None:
    def tell(numbers: range, outcome: str = "no_answer") -> list[str]:
        for n in numbers:
            put(caller, attempt(n, 1200 * n, outcome))
            cloud.settle()
        return refs(caller)

    assert tell(range(1, 5)) == []
    assert tell(range(5, 9)) == ["number-always-failing"]
    assert tell(range(9, 10), "voicemail") == ["number-always-failing"]
    assert tell(range(10, 16)) == ["number-always-failing"] * 2
    assert not cloud.failures


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_a_node_where_calls_die_becomes_an_issue_of_those_calls(
    cloud: Cloud, caller: Client, order: tuple[int, ...]
) -> None:
    for number in order:
        assert reports(caller) == []
        put(caller, dead(number, 60 * number), job=f"job-{number}")
        cloud.settle()
    assert not cloud.failures
    filed = reports(caller)
    assert {report["detected_issue_ref"] for report in filed} == {
        f"calls-die-at-node:{BUSY['flowExecution']['flowId']}:ask"
    }
    assert len({report["call_id"] for report in filed}) == len(filed) == 3
    assert {report["metadata"]["nodeId"] for report in filed} == {"ask"}
    (issue,) = caller.get("/api/v2/issues").json()["data"]
    assert issue["title"].startswith("Calls die at ask")
    assert issue["severity"] == "critical"
    put(caller, dead(4, 600), job="job-4")
    cloud.settle()
    assert len(reports(caller)) == 4


def test_organisations_do_not_see_each_others_numbers(cloud: Cloud, caller: Client) -> None:
    other = cloud.caller()
    for number in range(1, 9):
        put(caller if number % 2 else other, attempt(number, 1200 * number))
    cloud.settle()
    assert refs(caller) == refs(other) == []


def test_a_finding_whose_filing_was_cut_off_is_filed_by_the_repeat(
    cloud: Cloud, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixloop.storage import issue_reports

    def down(*_: Any) -> Any:
        raise RuntimeError("away")

    for number in range(1, 6):
        put(caller, attempt(number, 1200 * number))
    with monkeypatch.context() as patched:
        patched.setattr(issue_reports, "file_system", down)
        cloud.settle()
    assert cloud.failures
    assert refs(caller) == []
    for failure in cloud.failures:
        cloud.invoke(failure.function, failure.event)
    cloud.failures.clear()
    assert refs(caller) == ["number-always-failing"]
