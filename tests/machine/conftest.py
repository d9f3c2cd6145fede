"""What the tests of shadow tests share: an agent, its traces, a fix that helps, and model providers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.model_server import Answers, ModelServer, agreeable

from cloud import Client, Cloud
from fixloop.models import Endpoint
from fixloop.storage import endpoints
from machine.scenes import DIFF, PROMPT, WRONG, Scene


@pytest.fixture
def traced(caller: Client) -> Callable[..., str]:
    def record(agent: str, **content: Any) -> str:
        body = {
            "agentId": agent,
            "userMessage": "How long can I return a tent?",
            "agentResponse": WRONG,
            "systemPrompt": PROMPT,
            "context": [{"id": "policy", "text": "Returns are possible within 30 days of purchase."}],
            **content,
        }
        made = caller.post("/api/traces", body)
        assert made.status == 201, made.text
        return str(made.json()["data"]["id"])

    return record


@pytest.fixture
def scene(cloud: Cloud, caller: Client, traced: Callable[..., str]) -> Callable[..., Scene]:
    def make(traces: int = 3, **content: Any) -> Scene:
        agent = str(caller.post("/api/agents", {"name": "Mia", "systemPrompt": PROMPT}).json()["data"]["id"])
        issue = str(caller.post("/api/v2/issues", {"title": "Wrong days", "agentId": agent}).json()["data"]["id"])
        body = {"issueId": issue, "type": "prompt_update", "description": "Say it", "changes": {"promptDiff": DIFF}}
        fix = str(caller.post("/api/fixes", body).json()["data"]["id"])
        ids = [traced(agent, **content) for _ in range(traces)]
        cloud.settle()
        cloud.failures.clear()
        return Scene(cloud, caller, agent, issue, fix, ids)

    return make


@pytest.fixture
def provider(caller: Client) -> Callable[..., Any]:
    """A model provider on loopback, set up for the caller's organisation under a name."""

    @contextmanager
    def run(answers: Answers = agreeable, name: str = "acme", **options: Any) -> Iterator[ModelServer]:
        with ModelServer(answers, **options) as server:
            endpoints.put(caller.org, name, Endpoint(server.url, "secret"))
            yield server

    return run
