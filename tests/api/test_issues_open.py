"""The third report alike opens an issue by itself, with the traces of the failing turns."""

from __future__ import annotations

from typing import Any

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
