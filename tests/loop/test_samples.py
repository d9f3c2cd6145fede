"""Every sample under events/ is played through its function, and every function with a trigger has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloud import ROOT, Client, Cloud
from fixloop.events import SHAPES, Envelope
from fixloop.fixes import Fix
from fixloop.identity import Principal, Scope, User, digest
from fixloop.issues import IssueIn
from fixloop.shadow_tests import Config, ShadowTest
from fixloop.storage import dynamo, fixes, issues, shadow_tests, traces
from fixloop.traces import Trace

SAMPLES = sorted((ROOT / "events").glob("*/*.json"))
TRACES = ["tr_a1b2c3", "tr_d4e5f6"]
GUARDRAIL = {"rules": [{"type": "not_contains", "config": {"values": ["60 days"]}}], "action": "block"}
ORG, KEY = "org_5a3d1c0f9b7e2468", "sk_live_example"
REFUSED = {"unrouted/unknown_path.json": 404}


def name(sample: Path) -> str:
    return f"{sample.parent.name}/{sample.name}"


def read(sample: Path) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(sample.read_text())
    return event


def function_of(cloud: Cloud, folder: str) -> str:
    (found,) = (f for f, p in cloud.functions().items() if p["CodeUri"].rstrip("/") == f"functions/{folder}")
    return found


def kind(event: dict[str, Any]) -> str:
    if "Records" in event:
        return "stream"
    if "detail-type" not in event:
        return "http" if "rawPath" in event else "step"
    return "aws" if event["source"].startswith("aws.") else "bus"


@pytest.fixture
def sampled(cloud: Cloud) -> Client:
    """The samples' organisation, key, call 987654321, report 1, issue iss_8f3k2m, fix fix_3a9c7e and test st_7k2m9p."""
    principal = Principal(
        key_id="key_sample", org_id=ORG, user=User(id=1, created_at=1), scope=Scope.WRITE, limit=10**6, created_at=1
    )
    item = {"pk": f"key#{digest(KEY)}", "sk": "key", "doc": principal.model_dump_json()}
    dynamo.put(cloud.environment()["PLATFORM_TABLE"], item)
    client = Client(cloud, KEY, ORG)
    body = json.loads(read(ROOT / "events/calls/put_call.json")["body"])
    assert client.put("/v1/calls/987654321", body).status in (200, 201)
    told = read(ROOT / "events/call_reports/put_attempt.json")
    assert client.put(told["rawPath"], json.loads(told["body"])).status in (200, 201)
    if client.get("/v1/issue-reports/1").status == 404:
        assert client.post("/v1/calls/987654321/issue-reports", {"title": "First"}).json()["id"] == 1
    if issues.look(ORG, "iss_8f3k2m") is None:
        n, at = issues.number(ORG, 1)
        given = IssueIn(title="Incorrect refund policy citations", agentId="agent_abc123")
        issues.add(ORG, issues.made("iss_8f3k2m", n, at, given), [])
        made = {
            "issue_id": "iss_8f3k2m",
            "type": "guardrail",
            "status": "applied",
            "description": "x",
            "changes": GUARDRAIL,
        }
        times = {"created_at": at, "updated_at": at}
        fixes.add(ORG, Fix(id="fix_3a9c7e", n=fixes.number(ORG, 1)[0], author="user_1", **made, **times))
        said = {"user_message": "How long?", "recorded_response": "60 days.", "created_at": at}
        for trace_id in TRACES:
            traces.add(ORG, Trace(id=trace_id, agent_id="agent_abc123", **said), at)
        asked = {"fix_id": "fix_3a9c7e", "fix_type": "guardrail", "changes": GUARDRAIL, "config": Config()}
        kept = {"trace_count": len(TRACES), "traces": shadow_tests.keep_traces(ORG, "st_7k2m9p", TRACES)}
        n, _ = shadow_tests.number(ORG, 1)
        shadow_tests.add(ORG, ShadowTest(id="st_7k2m9p", n=n, author="user_1", **asked, **kept, **times))
    return client


@pytest.mark.parametrize("sample", SAMPLES, ids=name)
def test_a_sample_is_taken_by_its_function(cloud: Cloud, sampled: Client, sample: Path) -> None:
    event = read(sample)
    answer = cloud.invoke(function_of(cloud, sample.parent.name), event)
    match kind(event):
        case "http":
            expected = REFUSED.get(name(sample))
            assert answer["statusCode"] == expected if expected else answer["statusCode"] < 300, answer
        case "stream":
            assert not (answer or {}).get("batchItemFailures")
    cloud.settle()
    assert not [failure for failure in cloud.failures if failure.event.get("detail", {}).get("org_id") == ORG]


@pytest.mark.parametrize("sample", [s for s in SAMPLES if kind(read(s)) == "http"], ids=name)
def test_a_sample_request_is_routed_to_the_function_it_lies_under(cloud: Cloud, sample: Path) -> None:
    event = read(sample)
    key, function = cloud.route(event["requestContext"]["http"]["method"], event["rawPath"])
    assert (key, function) == (event["routeKey"], function_of(cloud, sample.parent.name))


@pytest.mark.parametrize("sample", [s for s in SAMPLES if kind(read(s)) == "bus"], ids=name)
def test_a_sample_event_has_the_documented_shape(sample: Path) -> None:
    event = read(sample)
    outer = Envelope.model_validate(event["detail"])
    assert event["detail-type"] == outer.type
    SHAPES[outer.type].model_validate(outer.data)


def triggered(event: dict[str, Any]) -> str:
    """The kind of an event source of the template. A rule without a bus of ours is on the account's own."""
    if event["Type"] == "EventBridgeRule":
        return "bus" if "EventBusName" in event["Properties"] else "aws"
    return {"DynamoDB": "stream"}[event["Type"]]


def triggers(cloud: Cloud) -> dict[str, set[str]]:
    """Folder of each function, and the kinds of events that the template sends to it."""
    found: dict[str, set[str]] = {}
    routed = {
        resource["Properties"]["IntegrationUri"]["Fn::GetAtt"].partition(".")[0]
        for resource in cloud.template["Resources"].values()
        if resource["Type"] == "AWS::ApiGatewayV2::Integration"
    }
    steps = {
        cloud.resolve(value)
        for resource in cloud.template["Resources"].values()
        if resource["Type"] == "AWS::Serverless::StateMachine"
        for value in resource["Properties"]["DefinitionSubstitutions"].values()
    }
    for function, properties in cloud.functions().items():
        folder = Path(properties["CodeUri"]).name
        found[folder] = {triggered(event) for event in properties.get("Events", {}).values()}
        found[folder] |= {"http"} if function in routed else set()
        found[folder] |= {"step"} if function in steps else set()
    return found


def test_every_function_with_a_trigger_has_a_sample_of_each_kind(cloud: Cloud) -> None:
    sampled = {folder: {kind(read(s)) for s in SAMPLES if s.parent.name == folder} for folder in triggers(cloud)}
    assert sampled == triggers(cloud)
    assert {sample.parent.name for sample in SAMPLES} <= set(sampled)
