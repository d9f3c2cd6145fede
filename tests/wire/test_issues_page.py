"""ThinkHive's published page of issues, fixes and shadow tests: every example, filter, field and error of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from cloud import Answer, Client, Cloud
from wire import thinkhive as page

ISSUES, FIXES, TESTS, EXECUTION = "/api/v2/issues", "/api/fixes", "/api/shadow-tests", "/api/shadow-execution"
OURS = {
    "affectedCost",
    "progress",
    "usage",
    "startedAt",
    "inputTokens",
    "outputTokens",
    "costEstimateUsd",
    "code",
    "message",
    "details",
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ID = re.compile(r"(iss|fix|st|tr|agent|user)_\w+")
CALL = {
    "agent_id": 12,
    "start_time": "2025-08-10T11:22:00.000Z",
    "duration_seconds": 16,
    "prompt_snapshot": "Refunds are possible within 30 days of purchase.",
    "transcripts": [
        {"role": "user", "content": "How long do I have to return my lamp?", "start_ms": 0, "end_ms": 3000},
        {"role": "assistant", "content": "You have 60 days to return it.", "start_ms": 4000, "end_ms": 7000},
    ],
}
REPORT = {"title": "Incorrect refund policy citations", "detected_issue_ref": "refund-policy", "timestamp_seconds": 5}
PROMPT = "Answer refund questions using the knowledge base.\nHelp customers understand our product capabilities."
DOCUMENTS = [
    {"id": "policy-2023", "text": "Refund policy 2023 (outdated): our policy allows returns within 60 days."},
    {"id": "policy-2025", "text": "Refund policy (effective January 2025): our policy allows returns within 30 days."},
]
BY_TYPE: dict[str, dict[str, Any]] = {
    "prompt_update": json.loads(page.CREATE_FIX)["changes"],
    "config_change": {"temperature": 0.2},
    "retrieval_update": {"remove": ["policy-2023"]},
    "guardrail": {"rules": [{"pattern": "60 days"}], "action": "flag"},
}


def same_form(said: Any, published: Any) -> None:
    """The published keys in their order, and values of the same types; ids and instants look alike.

    What a list holds looks like one of those that the published list holds.
    """
    assert type(said) is type(published), (said, published)
    if isinstance(published, dict):
        assert [key for key in said if key in published or key not in OURS] == list(published)
        for key in published:
            same_form(said[key], published[key])
    elif isinstance(published, list):
        assert bool(said) == bool(published)
        for one in said:
            same_form(one, published[0])
    elif isinstance(published, str):
        if form := ID.fullmatch(published):
            assert re.fullmatch(rf"{form[1]}_\w+", said), said
        elif INSTANT.fullmatch(published):
            assert INSTANT.fullmatch(said), said


def ok(answer: Answer, status: int = 200) -> Any:
    """The body of an answer that must be a success, as JSON."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body["success"] is True
    return body


def refused(answer: Answer, status: int, code: str) -> str:
    """The message of an error in its published form."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    same_form(answer.json(), json.loads(page.NOT_FOUND))
    problem = answer.json()["error"]
    assert (answer.json()["success"], problem["code"]) == (False, code)
    return str(problem["message"])


@dataclass
class House:
    """An organisation with the agent of the examples, its traces, and a fix of an issue."""

    cloud: Cloud
    caller: Client
    agent: str = ""
    traces: list[str] = field(default_factory=list)

    def furnish(self) -> House:
        given = {"name": "Customer Support Bot", "systemPrompt": PROMPT}
        self.agent = ok(self.caller.post("/api/agents", given), 201)["data"]["id"]
        self.traces = [self.trace() for _ in range(3)]
        return self

    def trace(self) -> str:
        given = {
            "agentId": self.agent,
            "systemPrompt": PROMPT,
            "userMessage": "How long do I have to return my bike for a refund?",
            "context": DOCUMENTS,
            "agentResponse": "Our policy allows returns within 60 days.",
        }
        return str(ok(self.caller.post("/api/traces", given), 201)["data"]["id"])

    def issue(self, **content: Any) -> dict[str, Any]:
        given = {**json.loads(page.CREATE_ISSUE), "agentId": self.agent, "traceIds": self.traces, **content}
        return dict(ok(self.caller.post(ISSUES, given), 201)["data"])

    def fix(self, **content: Any) -> dict[str, Any]:
        given = {**json.loads(page.CREATE_FIX), **content}
        if "issueId" not in content:
            given["issueId"] = self.issue()["id"]
        return dict(ok(self.caller.post(FIXES, given), 201)["data"])

    def refund_fix(self) -> dict[str, Any]:
        """The fix of the published list."""
        (shown,) = json.loads(page.LISTED_FIXES)["data"]
        return self.fix(**{key: shown[key] for key in ("type", "description", "changes")})

    def test(self, fix_id: str) -> dict[str, Any]:
        given = {**json.loads(page.CREATE_TEST), "fixId": fix_id, "traceIds": self.traces}
        return dict(ok(self.caller.post(TESTS, given), 201)["data"])

    def completed(self, fix_id: str) -> str:
        """A shadow test that has been run."""
        test_id = self.test(fix_id)["id"]
        self.cloud.settle()
        assert ok(self.caller.get(f"{TESTS}/{test_id}"))["data"]["status"] == "completed"
        return str(test_id)


@pytest.fixture
def house(cloud: Cloud) -> House:
    return House(cloud, cloud.caller()).furnish()


# Issues


def test_an_issue_is_created_as_published(house: House) -> None:
    given, published = json.loads(page.CREATE_ISSUE), json.loads(page.CREATED_ISSUE)
    said = ok(house.caller.post(ISSUES, given), 201)
    same_form(said, published)
    decided_here = ("id", "createdAt", "updatedAt")
    assert said["data"] == published["data"] | {key: said["data"][key] for key in decided_here}
    assert said["data"]["createdAt"] == said["data"]["updatedAt"]


def test_issues_are_listed_as_published(house: House) -> None:
    made = [house.issue(severity=severity) for severity in ("high", "critical", "high")]
    ok(house.caller.patch(f"{ISSUES}/{made[2]['id']}", {"status": "proposed_fix"}))
    everything = ok(house.caller.get(ISSUES, limit=10))
    published = json.loads(page.LISTED_ISSUES)
    same_form(everything, published)
    assert everything["pagination"] == {**published["pagination"], "total": 3}
    asked = {"agentId": house.agent, "severity": "high", "status": "open", "limit": 10}
    found = ok(house.caller.get(ISSUES, **asked))
    same_form(found, published)
    assert found["data"] == [{**made[0], "agentName": "Customer Support Bot"}]
    assert found["pagination"] == {**published["pagination"], "total": 1}


def test_an_issue_that_was_found_in_calls_is_shown_as_published(house: House) -> None:
    for number in (1, 2, 3):
        assert house.caller.put(f"/v1/calls/{number}", {**CALL, "from_number": f"+1555000{number}"}).status == 201
        assert house.caller.post(f"/v1/calls/{number}/issue-reports", REPORT).status == 201
    house.cloud.settle()
    issues = ok(house.caller.get(ISSUES))["data"]
    (found,) = [one for one in issues if one["title"] == REPORT["title"]]
    said, published = ok(house.caller.get(f"{ISSUES}/{found['id']}")), json.loads(page.SHOWN_ISSUE)
    same_form(said, published)
    assert said["data"]["traceCount"] == len(said["data"]["traceIds"]) == 3
    metadata = said["data"]["metadata"]
    assert (metadata["firstSeenAt"], metadata["affectedCustomers"]) == ("2025-08-10T11:22:00Z", 3)


def test_an_issue_made_by_hand_is_shown_with_every_published_key(house: House) -> None:
    made = house.issue()
    shown, published = ok(house.caller.get(f"{ISSUES}/{made['id']}"))["data"], json.loads(page.SHOWN_ISSUE)["data"]
    assert list(shown) == list(published)
    assert list(shown["metadata"]) == [*published["metadata"], "affectedCost"]
    assert {key: shown[key] for key in made} == made
    assert (shown["traceIds"], shown["fixes"]) == (house.traces, [])
    stranger = house.issue(agentId="agent_abc123")
    assert ok(house.caller.get(f"{ISSUES}/{stranger['id']}"))["data"]["agentName"] is None


def test_an_issue_is_changed_as_published_and_only_where_asked(house: House) -> None:
    made, given = house.issue(), json.loads(page.PATCH_ISSUE)
    said, published = ok(house.caller.patch(f"{ISSUES}/{made['id']}", given)), json.loads(page.PATCHED_ISSUE)
    same_form(said, published)
    decided_here = {"id": made["id"], "updatedAt": said["data"]["updatedAt"]}
    assert said["data"] == published["data"] | decided_here
    shown = ok(house.caller.get(f"{ISSUES}/{made['id']}"))["data"]
    assert {key: shown[key] for key in made} == made | given | {"updatedAt": said["data"]["updatedAt"]}


def test_a_deleted_issue_leaves_its_traces_fixes_and_shadow_tests(house: House) -> None:
    fix = house.refund_fix()
    test_id = house.completed(fix["id"])
    path = f"{ISSUES}/{fix['issueId']}"
    assert ok(house.caller("DELETE", path)) == json.loads(page.DELETED_ISSUE)
    assert refused(house.caller.get(path), 404, "NOT_FOUND") == f"Issue {fix['issueId']} not found"
    refused(house.caller("DELETE", path), 404, "NOT_FOUND")
    assert ok(house.caller.get(ISSUES))["pagination"]["total"] == 0
    for trace_id in house.traces:
        assert ok(house.caller.get(f"/api/traces/{trace_id}"))["data"]["id"] == trace_id
    left = ok(house.caller.get(f"{FIXES}/{fix['id']}"))["data"]
    assert left["issueId"] is None
    assert [one["id"] for one in left["shadowTests"]] == [test_id]
    assert ok(house.caller.get(f"{TESTS}/{test_id}"))["data"]["fixId"] == fix["id"]


# Fixes


def test_a_fix_is_created_as_published(house: House) -> None:
    given, published = json.loads(page.CREATE_FIX), json.loads(page.CREATED_FIX)
    given["issueId"] = house.issue()["id"]
    said = ok(house.caller.post(FIXES, given), 201)
    same_form(said, published)
    decided_here = ("id", "createdAt", "updatedAt")
    assert said["data"] == {
        **published["data"],
        "issueId": given["issueId"],
        **{key: said["data"][key] for key in decided_here},
    }


def test_fixes_are_listed_as_published(house: House) -> None:
    fix = house.refund_fix()
    house.fix(issueId=fix["issueId"])
    patched = ok(house.caller.patch(f"{FIXES}/{fix['id']}", {"status": "proposed"}))["data"]
    said = ok(house.caller.get(FIXES, issueId=fix["issueId"], status="proposed"))
    published = json.loads(page.LISTED_FIXES)
    same_form(said, published)
    assert said["pagination"] == published["pagination"]
    (listed,) = said["data"]
    assert {key: listed[key] for key in fix} == {**fix, **patched}


def test_a_fix_is_shown_as_published_with_its_shadow_tests(house: House) -> None:
    fix = house.refund_fix()
    test_id = house.completed(fix["id"])
    said, published = ok(house.caller.get(f"{FIXES}/{fix['id']}")), json.loads(page.SHOWN_FIX)
    same_form(said, published)
    shown = said["data"]
    same = ("type", "status", "description", "changes")
    assert {key: shown[key] for key in same} == {key: published["data"][key] for key in same}
    assert shown["shadowTests"] == [{"id": test_id, "status": "completed", "improvementRate": 1.0}]
    in_issue = ok(house.caller.get(f"{ISSUES}/{fix['issueId']}"))["data"]["fixes"]
    assert [one["id"] for one in in_issue] == [fix["id"]]


def test_a_fix_is_changed_as_published_and_only_where_asked(house: House) -> None:
    fix, given = house.fix(), json.loads(page.PATCH_FIX)
    said, published = ok(house.caller.patch(f"{FIXES}/{fix['id']}", given)), json.loads(page.PATCHED_FIX)
    same_form(said, published)
    assert said["data"] == {**published["data"], "id": fix["id"], "updatedAt": said["data"]["updatedAt"]}
    shown = ok(house.caller.get(f"{FIXES}/{fix['id']}"))["data"]
    assert {key: shown[key] for key in fix} == fix | given | {"updatedAt": said["data"]["updatedAt"]}


# Shadow tests


def test_a_shadow_test_is_created_as_published(house: House) -> None:
    fix = house.refund_fix()
    made, published = house.test(fix["id"]), json.loads(page.CREATED_TEST)["data"]
    same_form(made, published)
    decided_here = {"id": made["id"], "fixId": fix["id"], "createdAt": made["createdAt"]}
    assert made == published | decided_here


def test_shadow_tests_are_listed_as_published(house: House) -> None:
    fix = house.refund_fix()
    test_id = house.completed(fix["id"])
    said, published = ok(house.caller.get(TESTS, fixId=fix["id"])), json.loads(page.LISTED_TESTS)
    same_form(said, published)
    assert said["pagination"] == published["pagination"]
    (listed,) = said["data"]
    assert (listed["id"], listed["fixId"], listed["traceCount"]) == (test_id, fix["id"], 3)
    assert listed["results"] == {"improved": 3, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}


def test_a_shadow_test_is_shown_as_published_with_every_trace(house: House) -> None:
    test_id = house.completed(house.refund_fix()["id"])
    said, published = ok(house.caller.get(f"{TESTS}/{test_id}")), json.loads(page.SHOWN_TEST)
    lines = said["data"]["traceResults"]
    assert list(lines[0])[:5] == list(published["data"]["traceResults"][0])
    for line in lines:
        assert isinstance(line.pop("latencyMs"), int)
    same_form(said, published)
    assert [line["traceId"] for line in lines] == house.traces
    assert all(line["verdict"] == "improved" and line["originalScore"] < line["fixedScore"] for line in lines)


def test_a_shadow_test_is_ended_as_published(house: House) -> None:
    test_id = house.test(house.refund_fix()["id"])["id"]
    given = json.loads(page.PATCH_TEST)
    said = ok(house.caller.patch(f"{TESTS}/{test_id}", given))["data"]
    assert list(said) == ["id", "status", "results", "completedAt"]
    assert said.items() >= given.items()
    shown = ok(house.caller.get(f"{TESTS}/{test_id}"))["data"]
    assert shown.items() >= given.items()


def test_one_replay_is_answered_as_published(house: House) -> None:
    fix = house.refund_fix()
    given = json.loads(page.EXECUTE) | {"fixId": fix["id"], "traceId": house.traces[0]}
    said, published = ok(house.caller.post(EXECUTION, given)), json.loads(page.EXECUTED)
    same_form(said, published)
    shown = said["data"]
    assert (shown["fixId"], shown["traceId"], shown["verdict"]) == (fix["id"], house.traces[0], "improved")
    assert "60 days" in shown["originalOutput"]
    assert "30 days" in shown["fixedOutput"]
    assert ok(house.caller.get(TESTS))["pagination"]["total"] == 0


# The tables


@pytest.mark.parametrize(
    ("path", "name", "values"),
    [
        (ISSUES, "status", ["open", "proposed_fix", "testing", "closed"]),
        (ISSUES, "severity", ["low", "medium", "high", "critical"]),
        (ISSUES, "sortBy", ["createdAt", "severity", "traceCount"]),
        (ISSUES, "sortOrder", ["asc", "desc"]),
        (FIXES, "status", ["draft", "proposed", "testing", "applied", "rejected"]),
        (FIXES, "type", ["prompt_update", "config_change", "retrieval_update", "guardrail"]),
        (TESTS, "status", ["pending", "running", "completed", "failed"]),
    ],
)
def test_every_published_value_of_a_filter_is_taken_and_no_other(
    caller: Client, path: str, name: str, values: list[str]
) -> None:
    for value in values:
        assert ok(caller.get(path, **{name: value}))["data"] == []
    assert refused(caller.get(path, **{name: "other"}), 400, "VALIDATION_ERROR").startswith(f"{name}: ")


@pytest.mark.parametrize("path", [ISSUES, FIXES, TESTS])
def test_a_page_has_20_items_unless_asked_otherwise_and_100_at_most(caller: Client, path: str) -> None:
    assert ok(caller.get(path))["pagination"] == {"page": 1, "limit": 20, "total": 0, "hasMore": False}
    assert ok(caller.get(path, page=2, limit=100))["pagination"] == {
        "page": 2,
        "limit": 100,
        "total": 0,
        "hasMore": False,
    }
    for query in ({"limit": 101}, {"limit": 0}, {"page": 0}):
        (name,) = query
        assert refused(caller.get(path, **query), 400, "VALIDATION_ERROR").startswith(f"{name}: ")


@pytest.mark.parametrize("kind", BY_TYPE)
def test_every_published_type_of_fix_is_taken(house: House, kind: str) -> None:
    fix = house.fix(type=kind, changes=BY_TYPE[kind])
    assert (fix["type"], fix["changes"].items() >= BY_TYPE[kind].items()) == (kind, True)
    assert [one["id"] for one in ok(house.caller.get(FIXES, type=kind))["data"]] == [fix["id"]]


@pytest.mark.parametrize("body", [page.CREATE_FIX, page.CREATE_TEST, page.EXECUTE], ids=["fix", "test", "execution"])
def test_every_field_that_is_published_as_required_is_missed(caller: Client, body: str) -> None:
    path = {page.CREATE_FIX: FIXES, page.CREATE_TEST: TESTS, page.EXECUTE: EXECUTION}[body]
    for name in json.loads(body).keys() - {"config"}:
        lacking = {key: value for key, value in json.loads(body).items() if key != name}
        assert refused(caller.post(path, lacking), 400, "VALIDATION_ERROR") == f"{name}: Field required"


def test_a_shadow_test_compares_side_by_side_unless_asked_otherwise(house: House) -> None:
    given = {"fixId": house.refund_fix()["id"], "traceIds": house.traces}
    for config, mode in (({}, "side_by_side"), ({"comparisonMode": "automated"}, "automated")):
        made = ok(house.caller.post(TESTS, {**given, "config": config}), 201)["data"]
        assert made["config"] == {"comparisonMode": mode}
    assert ok(house.caller.post(TESTS, given), 201)["data"]["config"] == {"comparisonMode": "side_by_side"}
    other = house.caller.post(TESTS, {**given, "config": {"comparisonMode": "other"}})
    assert refused(other, 400, "VALIDATION_ERROR").startswith("config.comparisonMode: ")


# Errors

OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", ISSUES, None),
    ("GET", f"{ISSUES}/iss_nonexistent", None),
    ("POST", ISSUES, json.loads(page.CREATE_ISSUE)),
    ("PATCH", f"{ISSUES}/iss_nonexistent", json.loads(page.PATCH_ISSUE)),
    ("DELETE", f"{ISSUES}/iss_nonexistent", None),
    ("GET", FIXES, None),
    ("GET", f"{FIXES}/fix_nonexistent", None),
    ("POST", FIXES, {**json.loads(page.CREATE_FIX), "issueId": "iss_nonexistent"}),
    ("PATCH", f"{FIXES}/fix_nonexistent", json.loads(page.PATCH_FIX)),
    ("GET", TESTS, None),
    ("GET", f"{TESTS}/st_nonexistent", None),
    ("POST", TESTS, {**json.loads(page.CREATE_TEST), "fixId": "fix_nonexistent"}),
    ("PATCH", f"{TESTS}/st_nonexistent", json.loads(page.PATCH_TEST)),
    ("POST", EXECUTION, {**json.loads(page.EXECUTE), "fixId": "fix_nonexistent"}),
]
NAMES = {"iss_nonexistent": "Issue", "fix_nonexistent": "Fix", "st_nonexistent": "Shadow test"}
operations = pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
about_one = pytest.mark.parametrize(
    ("method", "path", "body"), [one for one in OPERATIONS if "nonexistent" in json.dumps(one)]
)
with_content = pytest.mark.parametrize(
    ("method", "path", "body"), [one for one in OPERATIONS if one[2] or not one[1].endswith("_nonexistent")]
)


def test_the_published_error_is_said_word_for_word(caller: Client) -> None:
    published = json.loads(page.NOT_FOUND)
    assert caller.get(f"{ISSUES}/iss_nonexistent").json() == {**published, **published["error"]}


@about_one
def test_what_is_not_there_is_named(caller: Client, method: str, path: str, body: Any) -> None:
    (missing,) = (one for one in NAMES if one in json.dumps([path, body]))
    said = refused(caller(method, path, body), 404, "NOT_FOUND")
    assert said == f"{NAMES[missing]} {missing} not found"


@operations
def test_a_missing_or_wrong_key_is_unauthorized(cloud: Cloud, method: str, path: str, body: Any) -> None:
    refused(cloud.request(method, path, json=body), 401, "UNAUTHORIZED")
    refused(Client(cloud, "thk_wrong")(method, path, body), 401, "UNAUTHORIZED")


@operations
def test_too_many_requests_are_limited(cloud: Cloud, method: str, path: str, body: Any) -> None:
    busy = cloud.caller(limit=1)
    assert busy.get(ISSUES).status == 200
    refused(busy(method, path, body), 429, "RATE_LIMITED")


@with_content
def test_a_body_or_query_that_is_wrong_is_refused(caller: Client, method: str, path: str, body: Any) -> None:
    answer = caller.get(path, limit="many") if method == "GET" else caller(method, path, body="not JSON")
    refused(answer, 400, "VALIDATION_ERROR")


def test_an_issue_with_an_active_shadow_test_is_a_conflict(house: House) -> None:
    fix = house.refund_fix()
    house.test(fix["id"])
    said = refused(house.caller("DELETE", f"{ISSUES}/{fix['issueId']}"), 409, "CONFLICT")
    assert fix["issueId"] in said


@pytest.mark.parametrize(
    ("function", "store", "path"),
    [
        ("IssuesFunction", "issues", ISSUES),
        ("FixesFunction", "fixes", FIXES),
        ("ShadowTestsFunction", "store", TESTS),
    ],
)
def test_a_fault_of_ours_is_an_internal_error_that_tells_nothing(
    cloud: Cloud, caller: Client, monkeypatch: pytest.MonkeyPatch, function: str, store: str, path: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr(getattr(cloud.module(function), store), "page", broken)
    assert "secret" not in refused(caller.get(path), 500, "INTERNAL_ERROR")
