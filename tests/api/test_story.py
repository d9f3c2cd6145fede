"""A call comes in, is graded, and what is wrong with it stands in the feed."""

from __future__ import annotations

from cloud import Client, Cloud

CALL = {
    "agent_id": 12,
    "direction": "inbound",
    "from_number": "+15550001111",
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
            "start_ms": 13000,
            "end_ms": 17000,
        },
        {"role": "user", "content": "Great, thank you, bye.", "start_ms": 18000, "end_ms": 20000},
        {"role": "assistant", "content": "You're welcome. Goodbye!", "start_ms": 20500, "end_ms": 22000},
    ],
}


def test_a_graded_call_becomes_reports_in_the_feed(cloud: Cloud, caller: Client) -> None:
    created = caller.put("/v1/calls/987654321", CALL)
    assert created.status == 201, created.text
    cloud.settle()
    assert not cloud.failures
    feed = caller.get("/v1/issue-reports").json()
    assert {report["source"] for report in feed} == {"system"}
    assert {report["call_id"] for report in feed} == {987654321}
    assert any("60 days" in report["description"] for report in feed)
    call = caller.get("/v1/calls/987654321").json()
    assert call["issue_count"] == len(feed) >= 2
    assert call["grade_status"] == "completed"
    assert caller.get("/v1/calls/987654321/issue-reports").json() == feed
    page = caller.get("/v1/calls").json()
    assert page["total"] == 1
    assert page["results"][0]["issue_count"] == len(feed)
