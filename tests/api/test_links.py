"""Everything that is tied to an object is found from it, whichever of the five APIs it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from cloud import ROOT, Client, Cloud
from fixloop.links import Kind
from fixloop.storage import call_reports
from loop.failures import FIX, call, cards, complaint, issues, report, wants_triage

ATTEMPT = json.loads(json.loads((ROOT / "events/call_reports/put_attempt.json").read_text())["body"])
SPOKEN = {"type": "agent_speech", "timestamp": "2025-12-16T11:15:35.000Z", "data": {"text": "It left on Monday."}}


@dataclass
class World:
    """An organisation with one of everything, tied together."""

    caller: Client
    ids: dict[str, str]

    def links(self, kind: str, **query: Any) -> dict[str, list[str]]:
        answer = self.caller.get(f"/v1/links/{kind}/{self.ids[kind]}", **query)
        assert answer.status == 200, answer.text
        found: dict[str, list[str]] = {}
        for link in answer.json()["links"]:
            found.setdefault(link["kind"], []).append(link["id"])
        return found


@pytest.fixture
def world(cloud: Cloud, caller: Client) -> World:
    wants_triage(caller)
    told = {**ATTEMPT, "callId": "call-1", "events": [*ATTEMPT["events"], SPOKEN]}
    told["flowExecution"] = {**ATTEMPT["flowExecution"], "finalVariables": {"agent.id": 12}}
    assert caller.put("/call-report/job-1/attempts/2", told).status == 201
    cloud.settle()
    number = call_reports.attempt(caller.org, "job-1", 2).joined
    assert number
    filed = report(caller, number, failing_turn_index=0, timestamp_seconds=None)
    for other in (1, 2):
        report(caller, call(caller, other))
    cloud.settle()
    (issue,), (card,) = issues(caller), cards(caller)
    traces = [trace["id"] for trace in caller.get("/api/traces").json()["data"]]
    (trace_id,) = [one for one in traces if caller.get(f"/api/traces/{one}").json()["data"]["callId"] == number]
    fix = caller.post("/api/fixes", {**FIX, "issueId": issue["id"]}).json()["data"]["id"]
    asked = {"fixId": fix, "traceIds": issue["traceIds"], "config": {"comparisonMode": "automated"}}
    test = caller.post("/api/shadow-tests", asked)
    assert test.status in (200, 201), test.text
    app_issue = complaint(caller, thread_id=trace_id)
    cloud.settle()
    assert not cloud.failures
    ids = {
        "call": str(number),
        "report": str(filed["id"]),
        "issue": issue["id"],
        "trace": trace_id,
        "fix": fix,
        "shadow_test": test.json()["data"]["id"],
        "agent": "agent_12",
        "triage_issue": card["id"],
        "app_issue": app_issue["id"],
        "call_report": "call-1",
        "job": "job-1",
    }
    return World(caller, ids)


TIED = {
    "call": {"report", "issue", "trace", "agent", "triage_issue", "call_report", "job"},
    "report": {"call", "issue", "trace", "agent", "triage_issue"},
    "issue": {"call", "report", "trace", "fix", "shadow_test", "agent", "triage_issue"},
    "trace": {"call", "report", "issue", "agent", "app_issue"},
    "fix": {"issue", "shadow_test", "agent", "triage_issue"},
    "shadow_test": {"issue", "trace", "fix", "agent", "triage_issue"},
    "agent": {"call", "report", "issue", "trace"},
    "triage_issue": {"call", "issue", "agent"},
    "app_issue": {"call", "trace", "agent"},
    "call_report": {"call", "job"},
    "job": {"call", "call_report"},
}


def test_every_kind_is_tied_to_the_others(world: World) -> None:
    assert set(TIED) == set(world.ids) == set(get_args(Kind))
    for kind, others in TIED.items():
        found = world.links(kind)
        assert set(found) == others, kind
        for other in others:
            assert world.ids[other] in found[other], (kind, other)
        assert list(found) == [one for one in get_args(Kind) if one in found]


def test_every_link_leads_somewhere(world: World) -> None:
    for kind, key in world.ids.items():
        told = world.caller.get(f"/v1/links/{kind}/{key}").json()
        assert (told["kind"], told["id"], told["more"]) == (kind, key, [])
        for link in [told, *told["links"]]:
            assert world.caller.get(link["url"]).status == 200, link


def test_an_object_is_found_by_its_other_names_too(world: World) -> None:
    filed = world.caller.get(f"/v1/issue-reports/{world.ids['report']}").json()
    issue = world.ids["issue"].replace("iss_", "case_")
    for kind, key in (("report", filed["trace_id"]), ("agent", "12"), ("issue", issue)):
        told = world.caller.get(f"/v1/links/{kind}/{key}").json()
        assert told["id"] == world.ids[kind]


def test_app_issues_that_are_part_of_an_issue_are_tied_to_it(cloud: Cloud, world: World) -> None:
    for _ in range(2):
        complaint(world.caller, thread_id=world.ids["trace"])
    cloud.settle()
    (issue,) = [one for one in issues(world.caller) if "app-issue" in one["tags"]]
    found = world.caller.get(f"/v1/links/issue/{issue['id']}").json()["links"]
    assert len([link for link in found if link["kind"] == "app_issue"]) == 3
    assert issue["id"] in world.links("app_issue")["issue"]
    assert sorted(world.links("trace")["issue"]) == sorted([issue["id"], world.ids["issue"]])


def test_a_limit_is_for_each_kind_and_what_there_is_more_of_is_named(world: World) -> None:
    told = world.caller.get(f"/v1/links/issue/{world.ids['issue']}?limit=1").json()
    kinds = [link["kind"] for link in told["links"]]
    assert len(kinds) == len(set(kinds))
    assert told["more"] == ["call", "report", "trace"]
    told = world.caller.get("/v1/links/agent/agent_12?limit=2").json()
    assert told["more"] == ["call", "report", "trace"]
    for limit in ("0", "101", "many"):
        refused = world.caller.get(f"/v1/links/call/1?limit={limit}")
        assert refused.status == 400
        assert "limit" in refused.json()


def test_what_is_not_there_or_anothers_is_a_404(cloud: Cloud, world: World) -> None:
    stranger = cloud.caller()
    for kind, key in world.ids.items():
        assert stranger.get(f"/v1/links/{kind}/{key}").status == 404, kind
        for unknown in ("nothing", "0", "%20", "a/b", "99999999999999999999"):
            assert world.caller.get(f"/v1/links/{kind}/{unknown}").status == 404, (kind, unknown)
    refused = world.caller.get("/v1/links/thing/1")
    assert refused.status == 404
    assert "call, report, issue" in refused.json()["detail"]
    assert world.caller.post("/v1/links/call/1", {}).status == 405


def test_an_issue_that_was_deleted_is_tied_to_nothing_any_more(world: World) -> None:
    shadow = world.caller.get(f"/api/shadow-tests/{world.ids['shadow_test']}").json()["data"]
    assert shadow["status"] in ("completed", "failed")
    assert world.caller("DELETE", f"/api/v2/issues/{world.ids['issue']}").status == 200
    for kind in ("call", "report", "trace", "fix", "agent"):
        assert "issue" not in world.links(kind), kind
