"""The deployed API under generated requests: no answer outside the OpenAPI document, and none that is a 500."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployed.world import SAMPLES, Caller, World
from fixloop_cli.openapi import DOCUMENT

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

SECONDS = 25, 50, 100  # of requests; where a busy machine did not reach every operation, once more and longer
REPEATS = {"$ref": "#/components/parameters/IdempotencyKey"}
NAMED = {
    ("FixIn", "issueId"): "/api/v2/issues",
    ("ShadowTestIn", "fixId"): "/api/fixes",
    ("ShadowTestIn", "traceIds"): "/api/traces",
    ("ShadowExecutionIn", "fixId"): "/api/fixes",
    ("ShadowExecutionIn", "traceId"): "/api/traces",
    ("BulkStatusChange", "trace_ids"): "/v1/issue-reports",
    ("LinkIn", "resource_id"): "/v1/calls",
}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def furnished(caller: Caller) -> dict[str, Any]:
    """Something of everything, so that not every request is a 404: its id by the path below which it is found."""
    caller.ok("PUT", "/v1/calls/1", SAMPLES[0])
    caller.ok("POST", "/v1/calls/1/grade")
    report = caller.ok("POST", "/v1/calls/1/issue-reports", {"title": "Agent paused too long"})
    agent = caller.ok("POST", "/api/agents", {"name": "Aurora", "systemPrompt": "Answer.\nBe kind."})["data"]
    trace = caller.ok(
        "POST", "/api/traces", {"agentId": agent["id"], "userMessage": "Refund?", "agentResponse": "Within 60 days."}
    )["data"]
    issue = caller.ok(
        "POST", "/api/v2/issues", {"title": "Wrong days", "agentId": agent["id"], "traceIds": [trace["id"]]}
    )["data"]
    fix = caller.ok(
        "POST",
        "/api/fixes",
        {
            "issueId": issue["id"],
            "type": "prompt_update",
            "description": "Name the days",
            "changes": {"promptDiff": "+ Refunds are possible within 30 days."},
        },
    )["data"]
    test = caller.ok("POST", "/api/shadow-tests", {"fixId": fix["id"], "traceIds": [trace["id"]]})["data"]
    said = caller.ok("POST", "/api/v1/app/issue", {"resource_type": "Thread", "type": "Other"})
    triaged = caller.ok(
        "POST",
        "/v1/triage/issues",
        {
            "title": "Wrong days",
            "severity": "high",
            "category": "Routing",
            "resource_links": [{"resource_type": "call", "resource_id": "1"}],
        },
    )["data"]
    job = caller.ok(
        "POST",
        "/api/call-requests",
        {"contactId": "c1", "flowId": "f1", "fromNumber": "+15550001111", "retry": {"type": "none"}},
    )["jobId"]
    return {
        "/api/shadow-tests": test["id"],
        "/api/v1/app/issue": said["id"],
        "/v1/triage/issues": triaged["id"],
        "/call-report": job,
        "/api/call-report": job,
        "/v1/calls": 1,
        "/v1/issue-reports": report["trace_id"],
        "/api/agents": agent["id"],
        "/api/agents/{agent_id}/versions": 1,
        "/api/traces": trace["id"],
        "/api/v2/issues": issue["id"],
        "/api/v1/cases": issue["id"],
        "/api/fixes": fix["id"],
    }


def aimed(document: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The document with the ids that there are in the place of any; what deletes does not aim at them.

    Without keys for repeats: the few short ones that are generated would make most requests a 409.
    """
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operation["parameters"] = [one for one in operation.get("parameters", []) if one != REPEATS]
            for parameter in operation["parameters"] if method != "delete" else []:
                before = path.partition("/{" + parameter["name"] + "}")[0]
                if parameter["in"] == "path" and before in known:
                    parameter["schema"] = {"enum": [known[before]]}
    for (body, name), path in NAMED.items():
        field = document["components"]["schemas"][body]["properties"][name]
        aim = {"type": "string", "enum": [str(known[path])]}
        if field.get("type") == "array":
            field["items"] = aim
        else:
            document["components"]["schemas"][body]["properties"][name] = aim
    return document


def test_no_generated_request_gets_a_500_or_an_answer_outside_the_document(world: World, tmp_path: Path):
    caller = world.caller()
    document = aimed(json.loads(DOCUMENT.read_text()), furnished(caller))
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [Path(sys.executable).with_name("schemathesis"), "run", "openapi.json", "--url", world.stack.url]
    command += ["--header", f"Authorization: Bearer {caller.key}", "--checks", ",".join(CHECKS), "--no-color"]
    # One worker: two threads of Python 3.11 that parse lambdas at once can end in a SystemError.
    command += ["--seed", "1", "--workers", "1", "--generation-database", "none", "--max-examples", "20"]
    command += ["--report", "json", "--report-json-path", "report.json", "--max-time"]
    for seconds in SECONDS:
        run = subprocess.run(
            [*command, str(seconds)], cwd=tmp_path, capture_output=True, text=True, timeout=2 * seconds + 60
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
        report = json.loads((tmp_path / "report.json").read_text())
        if report["operations"]["tested"] == report["operations"]["total"]:
            break
    assert report["operations"]["tested"] == report["operations"]["total"] > 40
    rates = report["valid_rates"].items()
    served = {operation for operation, phases in rates if any(phase["accepted"] for phase in phases.values())}
    assert len(served) > 0.6 * report["operations"]["total"], f"few succeeded: {sorted(served)}"
