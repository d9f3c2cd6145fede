"""A field as large as a body may be is kept or refused, whatever the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cloud import Answer, Client, Cloud
from fixloop.changes import MAX_STORED

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "docs" / "openapi.json").read_text())
LARGE = "x" * 900_000  # near what a body may have
MEDIUM = "x" * 370_000  # near what an item may have


def schema(shape: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in shape:
        shape = DOCUMENT["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
    return shape


def large(shape: dict[str, Any]) -> Iterator[Any]:
    """Values of the shape that are as large as a body may be."""
    shape = schema(shape)
    for one in (*shape.get("anyOf", ()), *shape.get("oneOf", ())):
        yield from large(one)
    kinds = shape.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        match kind:
            case "string":
                yield LARGE
            case "array":
                yield [LARGE]
                for value in large(shape.get("items", {})):
                    yield [value]
            case "object":
                yield {"key": LARGE}
                for name, inner in shape.get("properties", {}).items():
                    for value in large(inner):
                        yield {name: value}
    if not kinds and not any(name in shape for name in ("anyOf", "oneOf", "enum", "const")):
        yield LARGE
        yield {"key": LARGE}


@pytest.fixture(scope="module")
def sender(cloud: Cloud) -> Client:
    """A caller with a call 7 and a report on it."""
    sender = cloud.caller(scope="admin")
    sender.put("/v1/calls/7", {"agent_id": 1})
    sender.post("/v1/calls/7/issue-reports", {"title": "x"})
    return sender


@pytest.fixture(scope="module")
def known(sender: Client) -> dict[str, str]:
    """One of everything that a path or a body may name."""

    def made(path: str, body: dict[str, Any], method: str = "POST") -> str:
        answer = sender(method, path, body)
        assert answer.status < 300, answer.text
        content = answer.json()
        return str((content.get("data") or content)["id"])

    known = {"call": "7", "report": "1", "job": "job"}
    known["agent"] = made("/api/agents", {"name": "Mia", "prompt": "Be brief."})
    told = {"agentId": known["agent"], "userMessage": "How?", "agentResponse": "So.", "systemPrompt": "Be brief."}
    known["trace"] = made("/api/traces", told)
    known["issue"] = made("/api/v2/issues", {"agentId": known["agent"], "title": "t", "severity": "low"})
    fix = {"issueId": known["issue"], "type": "prompt_update", "changes": {"promptDiff": "+ Say so."}}
    known["fix"] = made("/api/fixes", {**fix, "description": "d"})
    known["test"] = made("/api/shadow-tests", {"fixId": known["fix"], "traceIds": [known["trace"]]})
    said = {"description": "d", "resource_type": "Thread", "type": "NoContextUsed"}
    known["app_issue"] = made("/api/v1/app/issue", said)
    for name in ("triage", "other"):
        known[name] = made("/v1/triage/issues", {"title": "x", "severity": "low", "category": "Bug"})
    return known


# A body that is accepted, by method and path; a name in braces is one of those above.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/calls/7"): {"agent_id": 1},
    ("POST", "/v1/calls"): {"agent_id": 1},
    ("POST", "/v1/calls/7/issue-reports"): {"title": "x"},
    ("PATCH", "/v1/issue-reports"): {"status": "open", "trace_ids": []},
    ("PATCH", "/v1/issue-reports/1"): {"status": "open"},
    ("POST", "/api/agents"): {"name": "Mia", "prompt": "Be brief."},
    ("PATCH", "/api/agents/{agent}"): {"name": "Mia"},
    ("POST", "/api/traces"): {"agentId": "{agent}", "userMessage": "How?", "agentResponse": "So."},
    ("POST", "/v1/traces"): {"resourceSpans": []},
    ("POST", "/api/v2/issues"): {"agentId": "{agent}", "title": "t", "severity": "low"},
    ("PATCH", "/api/v2/issues/{issue}"): {"title": "t"},
    ("POST", "/api/fixes"): {
        "issueId": "{issue}",
        "type": "prompt_update",
        "description": "d",
        "changes": {"prompt": "x"},
    },
    ("PATCH", "/api/fixes/{fix}"): {"description": "d"},
    ("POST", "/api/shadow-tests"): {"fixId": "{fix}", "traceIds": ["{trace}"]},
    ("PATCH", "/api/shadow-tests/{test}"): {},
    ("POST", "/api/shadow-execution"): {"fixId": "{fix}", "traceId": "{trace}"},
    ("POST", "/api/v1/app/issue"): {"description": "d", "resource_type": "Thread", "type": "NoContextUsed"},
    ("PATCH", "/api/v1/app/issue/{app_issue}"): {},
    ("PUT", "/api/v1/app/issue/{app_issue}"): {},
    ("POST", "/v1/triage/issues"): {"title": "x", "severity": "low", "category": "Bug"},
    ("PATCH", "/v1/triage/issues/{triage}"): {"title": "x"},
    ("POST", "/v1/triage/issues/{triage}/comments"): {},
    ("POST", "/v1/triage/issues/{triage}/flags"): {},
    ("POST", "/v1/triage/issues/{triage}/relations"): {"related_issue_id": "{other}", "relation_type": "blocks"},
    ("POST", "/v1/triage/issues/{triage}/resources"): {"resource_type": "call", "resource_id": "7"},
    ("POST", "/v1/triage/issues/{triage}/agent-sessions/x/prompts"): {},
    ("POST", "/v1/triage/categories"): {"name": "Bug"},
    ("POST", "/api/call-requests"): {},
    ("PUT", "/api/call-report/{job}/attempts/1"): {},
}


def documented(method: str, path: str) -> dict[str, Any]:
    """The fields of the operation that a path leads to."""
    for pattern, operations in DOCUMENT["paths"].items():
        expression = re.sub(r"\{\w+\}", "[^/]+", pattern)
        if method.lower() in operations and re.fullmatch(expression, path):
            body = operations[method.lower()]["requestBody"]["content"]["application/json"]
            return dict(schema(body["schema"]).get("properties", {}))
    raise LookupError(path)


def filled(content: Any, known: dict[str, str]) -> Any:
    return json.loads(re.sub(r"\{(\w+)\}", lambda name: known[name[1]], json.dumps(content)))


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_field_as_large_as_a_body_may_be_is_kept_or_refused(
    sender: Client, known: dict[str, str], method: str, path: str
) -> None:
    body = filled(BODIES[method, path], known)
    place = re.sub(r"\{(\w+)\}", lambda name: known[name[1]], path)
    for name, shape in documented(method, place).items():
        for value in large(shape):
            answer = sender(method, place, {**body, name: value})
            assert answer.status < 500, (name, str(value)[:60])
            value = json.loads(json.dumps(value).replace(LARGE, MEDIUM))
            answer = sender(method, place, {**body, name: value}, headers={"Idempotency-Key": uuid4().hex})
            assert answer.status < 500, (name, str(value)[:60])


def test_a_fix_with_the_largest_changes_and_description_there_may_be_can_be_changed(
    sender: Client, known: dict[str, str]
) -> None:
    def fix(text: str) -> Answer:
        changes = {"documents": [{"id": "policy", "text": text}]}
        said = {"type": "retrieval_update", "description": "\x01" * 20_000, "changes": changes}
        return sender.post("/api/fixes", {"issueId": known["issue"], **said})

    empty = len(json.dumps({"documents": [{"id": "policy", "text": ""}]}))
    made = fix("x" * (MAX_STORED - empty))
    assert made.status == 201
    assert sender.patch(f"/api/fixes/{made.json()['data']['id']}", {"status": "proposed"}).status == 200
    refused = fix("x" * (MAX_STORED - empty + 1))
    assert refused.status == 400
    assert f"at most {MAX_STORED} bytes" in refused.json()["error"]["details"]["changes"][0]
