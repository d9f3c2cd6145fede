"""The third report alike opens an issue by itself, with the traces of the failing turns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud

CALL = {
    "agent_id": 12,
    "direction": "inbound",
    "to_number": "+15559998888",
    "start_time": "2026-04-20T18:24:00.000Z",
    "duration_seconds": 70,
    "end_reason": "agent_end",
    "prompt_snapshot": "You are the support agent of Aurora. Refunds are possible within 30 days of purchase.",
    "transcripts": [
        {
            "role": "assistant",
            "content": "Hello, this is Aurora support. How can I help?",
            "start_ms": 0,
            "end_ms": 3000,
        },
        {"role": "user", "content": "How long do I have to return my lamp?", "start_ms": 4000, "end_ms": 7000},
        {
            "role": "assistant",
            "content": "You can get a refund within 60 days of purchase.",
            "start_ms": 8000,
            "end_ms": 11000,
        },
        {"role": "user", "content": "Great, thank you, bye.", "start_ms": 12000, "end_ms": 14000},
        {"role": "assistant", "content": "You're welcome. Goodbye!", "start_ms": 14500, "end_ms": 16000},
    ],
}


def fail(caller: Client, call_id: int, **changes: Any) -> None:
    assert caller.put(f"/v1/calls/{call_id}", {**CALL, "from_number": f"+1555000{call_id}", **changes}).status == 201


def the_issue(caller: Client) -> dict[str, Any]:
    found = caller.get("/api/v2/issues", limit=100).json()["data"]
    (issue,) = [one for one in found if one["tags"][0] == "contradicts-prompt"]
    issue_detail: dict[str, Any] = caller.get(f"/api/v2/issues/{issue['id']}").json()["data"]
    return issue_detail


def test_the_third_report_alike_opens_an_issue_with_the_failing_traces(cloud: Cloud, caller: Client) -> None:
    for call_id in (1, 2):
        fail(caller, call_id)
    cloud.settle()
    assert caller.get("/api/v2/issues").json()["pagination"]["total"] == 0
    fail(caller, 3)
    cloud.settle()
    issue = the_issue(caller)
    assert issue["status"] == "open"
    assert issue["severity"] == "critical"
    assert issue["traceCount"] == len(issue["traceIds"]) == 3
    assert issue["agentName"] == "Agent 12"
    assert issue["metadata"]["affectedCustomers"] == 3
    assert issue["metadata"]["firstSeenAt"] == "2026-04-20T18:24:00Z"
    for trace_id in issue["traceIds"]:
        trace = caller.get(f"/api/traces/{trace_id}").json()["data"]
        assert "60 days" in trace["agentResponse"]
        assert trace["systemPrompt"] == CALL["prompt_snapshot"]


def test_later_reports_join_once_however_often_they_come(cloud: Cloud, caller: Client) -> None:
    for call_id in range(1, 6):
        fail(caller, call_id)
    cloud.settle()
    for report in caller.get("/v1/issue-reports", limit=200).json():
        detail = {
            "id": "evt_again",
            "type": "issue.reported",
            "org_id": caller.org,
            "data": {"call_id": report["call_id"], "issue_report": report},
        }
        cloud.put_event("issue.reported", detail)
    cloud.settle()
    issue = the_issue(caller)
    assert issue["traceCount"] == 5
    assert issue["metadata"]["affectedCustomers"] == 5


def test_a_closed_issue_whose_pattern_comes_back_is_open_again(cloud: Cloud, caller: Client) -> None:
    for call_id in (1, 2, 3):
        fail(caller, call_id)
    cloud.settle()
    issue = the_issue(caller)
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "closed"}).status == 200
    fail(caller, 4)
    cloud.settle()
    again = the_issue(caller)
    assert (again["id"], again["status"], again["traceCount"]) == (issue["id"], "open", 4)


def test_every_agent_turn_of_a_call_is_a_trace(cloud: Cloud, caller: Client) -> None:
    fail(caller, 7)
    cloud.settle()
    listed = caller.get("/api/traces").json()
    assert listed["pagination"]["total"] == 3
    assert {trace["agentId"] for trace in listed["data"]} == {"agent_12"}


# Reports that people and other graders file

TURNS = [
    {"role": "assistant", "content": "Hello!", "start_ms": 0, "end_ms": 1000},
    {"role": "user", "content": "Where is my parcel?", "start_ms": 2000, "end_ms": 4000},
    {"role": "assistant", "content": "It left on Monday.", "start_ms": 5000, "end_ms": 7000},
]


def call(caller: Client, call_id: int, **content: Any) -> int:
    call = {"agent_id": 12, "start_time": f"2026-04-2{call_id % 10}T10:00:00Z", "transcripts": TURNS, **content}
    assert caller.put(f"/v1/calls/{call_id}", call).status == 201
    return call_id


def report(caller: Client, call_id: int, **content: Any) -> dict[str, Any]:
    said = {"title": "Wrong day", "detected_issue_ref": "wrong-day:parcels", "failing_turn_index": 2, **content}
    answer = caller.post(f"/v1/calls/{call_id}/issue-reports", said)
    assert answer.status == 201, answer.text
    filed: dict[str, Any] = answer.json()
    return filed


def opened(caller: Client) -> list[dict[str, Any]]:
    listed = caller.get("/api/v2/issues", limit=100, sortOrder="asc").json()["data"]
    return [caller.get(f"/api/v2/issues/{issue['id']}").json()["data"] for issue in listed]


def deliver(cloud: Cloud, caller: Client, filed: dict[str, Any]) -> None:
    """The report's event, as it may come once more at any time."""
    data = {"call_id": filed["call_id"], "issue_report": filed}
    detail = {"id": "evt_again", "type": "issue.reported", "org_id": caller.org, "data": data}
    cloud.invoke("GroupReportsFunction", {"detail-type": "issue.reported", "source": "fixloop", "detail": detail})


def test_what_people_report_under_a_patterns_name_counts_too(cloud: Cloud, caller: Client) -> None:
    for number, severity in ((1, "info"), (2, "critical"), (3, "warning")):
        call(caller, number, from_number=f"+1555000{number % 2}")
        report(
            caller, number, severity=severity, source="system" if number == 2 else "user", description=f"No. {number}."
        )
    cloud.settle()
    (issue,) = opened(caller)
    assert (issue["title"], issue["status"], issue["severity"]) == ("Wrong day", "open", "critical")
    assert issue["tags"] == ["wrong-day", "parcels"]
    assert "No. 1." in issue["description"]
    assert issue["metadata"] == {
        "firstSeenAt": "2026-04-21T10:00:00Z",
        "lastSeenAt": "2026-04-23T10:00:00Z",
        "affectedCustomers": 2,
        "clusterConfidence": 1.0,
        "affectedCost": None,
    }
    assert len(issue["traceIds"]) == 3
    for trace_id in issue["traceIds"]:
        assert caller.get(f"/api/traces/{trace_id}").json()["data"]["agentResponse"] == "It left on Monday."


def test_later_reports_make_the_issue_worse_and_longer_but_never_better(cloud: Cloud, caller: Client) -> None:
    for number in (5, 6, 7):
        report(caller, call(caller, number), severity="info")
    cloud.settle()
    assert [issue["severity"] for issue in opened(caller)] == ["low"]
    report(caller, call(caller, 8), severity="critical")
    report(caller, call(caller, 3), severity="info")
    cloud.settle()
    (issue,) = opened(caller)
    assert (issue["severity"], issue["traceCount"]) == ("critical", 5)
    assert issue["metadata"]["firstSeenAt"] == "2026-04-23T10:00:00Z"
    assert issue["metadata"]["lastSeenAt"] == "2026-04-28T10:00:00Z"


def test_different_agents_and_calls_without_one_do_not_mix(cloud: Cloud, caller: Client) -> None:
    for number, agent in enumerate((12, 12, 13, 13, None, None), 1):
        report(caller, call(caller, number, agent_id=agent))
    cloud.settle()
    assert opened(caller) == []
    report(caller, call(caller, 7, agent_id=13))
    report(caller, call(caller, 8, agent_id=None))
    cloud.settle()
    assert [issue["agentId"] for issue in opened(caller)] == ["agent_13", "unassigned"]


def test_reports_without_a_pattern_stay_alone(cloud: Cloud, caller: Client) -> None:
    for number in range(1, 5):
        report(caller, call(caller, number), detected_issue_ref=None)
    cloud.settle()
    assert opened(caller) == []


def test_a_call_with_two_patterns_is_in_both_issues(cloud: Cloud, caller: Client) -> None:
    for number in (1, 2, 3):
        call(caller, number)
        report(caller, number)
        report(
            caller, number, detected_issue_ref="too-slow", title="Slow", timestamp_seconds=5, failing_turn_index=None
        )
    cloud.settle()
    both = opened(caller)
    assert sorted(issue["title"] for issue in both) == ["Slow", "Wrong day"]
    assert {frozenset(issue["traceIds"]) for issue in both} == {frozenset(both[0]["traceIds"])}


def test_reports_delivered_at_the_same_time_open_one_issue_with_all_of_them(cloud: Cloud, caller: Client) -> None:
    filed = [report(caller, call(caller, number, from_number=f"+1555{number % 4}")) for number in range(1, 8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: deliver(cloud, caller, one), [*filed, *filed[::-1]]))
    (issue,) = opened(caller)
    assert issue["traceCount"] == len(issue["traceIds"]) == 7
    assert issue["metadata"]["affectedCustomers"] == 4
    before = opened(caller)
    for one in filed:
        deliver(cloud, caller, one)
    assert opened(caller) == before


def test_an_old_event_that_comes_again_undoes_nothing_that_people_did(cloud: Cloud, caller: Client) -> None:
    filed = [report(caller, call(caller, number), severity="critical") for number in (1, 2, 3)]
    cloud.settle()
    (issue,) = opened(caller)
    path = f"/api/v2/issues/{issue['id']}"
    assert caller.patch(path, {"severity": "low", "status": "closed", "traceIds": []}).status == 200
    for one in filed:
        deliver(cloud, caller, one)
    (after,) = opened(caller)
    assert (after["severity"], after["status"], after["traceCount"]) == ("low", "closed", 0)
    assert caller("DELETE", path).status == 200
    for one in filed:
        deliver(cloud, caller, one)
    assert opened(caller) == []


def test_a_pattern_that_comes_back_after_its_issue_was_deleted_opens_another(cloud: Cloud, caller: Client) -> None:
    for number in (1, 2, 3):
        report(caller, call(caller, number))
    cloud.settle()
    (issue,) = opened(caller)
    assert caller("DELETE", f"/api/v2/issues/{issue['id']}").status == 200
    report(caller, call(caller, 4))
    cloud.settle()
    (again,) = opened(caller)
    assert again["id"] != issue["id"]
    assert again["traceCount"] == 4


def test_a_grouping_that_died_halfway_is_finished_by_its_retry(
    cloud: Cloud, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixloop.storage import issues

    filed = [report(caller, call(caller, number)) for number in (1, 2, 3)]
    for one in filed[:2]:
        deliver(cloud, caller, one)
    with monkeypatch.context() as broken:
        broken.setattr(issues, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deliver(cloud, caller, filed[2])
    assert opened(caller) == []
    deliver(cloud, caller, filed[2])
    assert [issue["traceCount"] for issue in opened(caller)] == [3]


def test_a_report_on_nothing_said_joins_without_a_trace(cloud: Cloud, caller: Client) -> None:
    for number in (1, 2, 3):
        report(caller, call(caller, number, transcripts=[]))
    cloud.settle()
    (issue,) = opened(caller)
    assert (issue["traceCount"], issue["traceIds"]) == (0, [])
