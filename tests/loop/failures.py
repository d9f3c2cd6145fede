"""Calls that fail alike, what is filed on them, and events that come as often and in such an order as a test likes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cloud import Client, Cloud
from fixloop.storage import platform

TURNS = [
    {"role": "assistant", "content": "Hello!", "start_ms": 0, "end_ms": 1000},
    {"role": "user", "content": "Where is my parcel?", "start_ms": 2000, "end_ms": 4000},
    {"role": "assistant", "content": "It left on Monday.", "start_ms": 5000, "end_ms": 7000},
]
FIX = {
    "type": "guardrail",
    "description": "Say no day.",
    "changes": {"rules": [{"type": "not_contains", "config": {"values": ["Monday"]}}], "action": "block"},
}


def wants_triage(caller: Client) -> None:
    platform.change_org(caller.org, {"triage": True})


def call(caller: Client, call_id: int, **content: Any) -> int:
    said = {"agent_id": 12, "start_time": f"2026-04-2{call_id % 10}T10:00:00Z", "transcripts": TURNS, **content}
    assert caller.put(f"/v1/calls/{call_id}", said).status == 201
    return call_id


def report(caller: Client, call_id: int, **content: Any) -> dict[str, Any]:
    said = {"title": "Wrong day", "detected_issue_ref": "wrong-day:parcels", "timestamp_seconds": 6, **content}
    answer = caller.post(f"/v1/calls/{call_id}/issue-reports", said)
    assert answer.status == 201, answer.text
    filed: dict[str, Any] = answer.json()
    return filed


def complaint(caller: Client, **config: str) -> dict[str, Any]:
    said = {"resource_type": "Thread", "type": "Inaccurate", "description": "It left on Friday.", "config": config}
    answer = caller.post("/api/v1/app/issue", said)
    assert answer.status == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def recorded(caller: Client, session: str, **content: Any) -> str:
    told = {"agentId": "agent_abc", "userMessage": "Where?", "agentResponse": "It left on Monday.", **content}
    answer = caller.post("/api/traces", {**told, "sessionId": session})
    assert answer.status == 201, answer.text
    trace_id: str = answer.json()["data"]["id"]
    return trace_id


def issues(caller: Client) -> list[dict[str, Any]]:
    listed = caller.get("/api/v2/issues", limit=100, sortOrder="asc").json()["data"]
    return [caller.get(f"/api/v2/issues/{issue['id']}").json()["data"] for issue in listed]


def cards(caller: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller.get("/v1/triage/issues", sort="created_at", order="asc").json()["data"][
        "items"
    ]
    return found


def applied(caller: Client, issue_id: str) -> str:
    fix = caller.post("/api/fixes", {**FIX, "issueId": issue_id}).json()["data"]
    assert caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"}).status == 200
    fix_id: str = fix["id"]
    return fix_id


class Seen:
    """Notes every event that reaches a consumer, so that it can come again."""

    def __init__(self, cloud: Cloud, caller: Client) -> None:
        self.cloud = cloud
        self.org = caller.org
        self.events: list[tuple[str, dict[str, Any]]] = []

    def settle(self) -> None:
        invoke = self.cloud.invoke

        def noted(function: str, event: dict[str, Any]) -> Any:
            if event.get("detail", {}).get("org_id") == self.org:
                self.events.append((function, event))
            return invoke(function, event)

        self.cloud.invoke = noted  # type: ignore[method-assign]
        try:
            self.cloud.settle()
        finally:
            del self.cloud.invoke
        assert not self.cloud.failures, self.cloud.failures

    def again(self, seed: int, *kinds: str) -> None:
        """Plays the events once more, in another order and eight at a time; without `kinds` all of them."""
        chosen = [(f, e) for f, e in self.events if not kinds or e["detail-type"] in kinds]
        random.Random(seed).shuffle(chosen)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda one: self.cloud.invoke(*one), chosen))
        self.settle()
