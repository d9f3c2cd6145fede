"""An agent with an issue, a fix and traces, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloud import Client, Cloud

PROMPT = "You are Mia.\nAnswer refund questions using the knowledge base.\nBe brief."
DIFF = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Returns are possible within 30 days of purchase."
)
WRONG, RIGHT = "You can return it within 60 days of purchase.", "You can return it within 30 days of purchase."


@dataclass
class Scene:
    """An agent with an issue, a fix of it and traces, made over the API."""

    cloud: Cloud
    caller: Client
    agent: str
    issue: str
    fix: str
    traces: list[str]

    def test(self, *, expect: int = 201, **body: Any) -> dict[str, Any]:
        given = {"fixId": self.fix, "traceIds": self.traces, **body}
        made = self.caller.post("/api/shadow-tests", given)
        assert made.status == expect, made.text
        answer: dict[str, Any] = made.json()
        return dict(answer["data"]) if expect == 201 else answer

    def shown(self, test_id: str) -> dict[str, Any]:
        answer = self.caller.get(f"/api/shadow-tests/{test_id}")
        assert answer.status == 200, answer.text
        return dict(answer.json()["data"])

    def ended(self, **body: Any) -> dict[str, Any]:
        """A new test, once its execution is over."""
        made = self.test(**body)
        self.cloud.settle()
        return self.shown(made["id"])
