"""Fixes over HTTP: proposing, refusing what cannot work, applying, and what follows from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud

PROMPT = "You are Mia.\nAnswer refund questions using the knowledge base.\nBe brief."
DIFF = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Always verify the policy effective date."
)


@pytest.fixture
def agent(caller: Client) -> str:
    made = caller.post("/api/agents", {"name": "Customer Support Bot", "systemPrompt": PROMPT})
    return str(made.json()["data"]["id"])


@pytest.fixture
def issue(caller: Client, agent: str) -> str:
    body = {"title": "Incorrect refund policy citations", "agentId": agent, "severity": "high"}
    return str(caller.post("/api/v2/issues", body).json()["data"]["id"])


def propose(caller: Client, issue: str, **changes: Any) -> dict[str, Any]:
    body = {
        "issueId": issue,
        "type": "prompt_update",
        "description": "Cross-reference effective dates",
        "changes": {"promptDiff": DIFF},
        **changes,
    }
    made = caller.post("/api/fixes", body)
    assert made.status == 201, made.text
    return dict(made.json()["data"])


def status_of(caller: Client, issue: str) -> str:
    return str(caller.get(f"/api/v2/issues/{issue}").json()["data"]["status"])


def test_a_new_fix_is_a_draft_without_an_author_in_the_answer(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    assert list(fix) == ["id", "issueId", "type", "status", "description", "changes", "createdAt", "updatedAt"]
    assert fix["status"] == "draft"
    assert fix["changes"] == {"promptDiff": DIFF}
    assert status_of(caller, issue) == "open"


def test_one_fix_shows_its_shadow_tests_and_its_author(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    shown = caller.get(f"/api/fixes/{fix['id']}").json()["data"]
    keys = [
        "id",
        "issueId",
        "type",
        "status",
        "description",
        "changes",
        "shadowTests",
        "author",
        "createdAt",
        "updatedAt",
    ]
    assert list(shown) == keys
    assert shown["shadowTests"] == []
    assert shown["author"].startswith("user_")


def test_the_list_filters_by_issue_status_and_type_with_exact_totals(caller: Client, agent: str) -> None:
    issues = [
        caller.post("/api/v2/issues", {"title": str(at), "agentId": agent}).json()["data"]["id"] for at in range(2)
    ]
    made = [propose(caller, issues[at % 2]) for at in range(5)]
    made += [propose(caller, issues[0], type="config_change", changes={"temperature": 0.1})]
    for fix in made[:2]:
        caller.patch(f"/api/fixes/{fix['id']}", {"status": "proposed"})
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"issueId": issues[0]}, [5, 4, 2, 0]),
        ({"status": "proposed"}, [1, 0]),
        ({"type": "config_change"}, [5]),
        ({"issueId": issues[0], "status": "draft", "type": "prompt_update"}, [4, 2]),
        ({"issueId": "iss_nobody"}, []),
    ]
    for query, order in wanted:
        page = caller.get("/api/fixes", **query).json()
        assert [fix["id"] for fix in page["data"]] == [made[at]["id"] for at in order]
        assert page["pagination"]["total"] == len(order)
    second = caller.get("/api/fixes", page=2, limit=4).json()
    assert [fix["id"] for fix in second["data"]] == [made[1]["id"], made[0]["id"]]
    assert second["pagination"] == {"page": 2, "limit": 4, "total": 6, "hasMore": False}


def test_an_issue_shows_its_fixes(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    shown = caller.get(f"/api/v2/issues/{issue}").json()["data"]["fixes"]
    assert [one["id"] for one in shown] == [fix["id"]]
    listed = caller.get(f"/api/v2/issues/{issue}/fixes").json()
    assert [one["id"] for one in listed["data"]] == [fix["id"]]
    assert listed["pagination"]["total"] == 1


def test_an_update_answers_with_what_was_sent(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    said = caller.patch(f"/api/fixes/{fix['id']}", {"status": "proposed", "description": "Stricter"}).json()["data"]
    assert list(said) == ["id", "status", "description", "updatedAt"]
    assert (said["status"], said["description"]) == ("proposed", "Stricter")


def test_the_issue_follows_its_fix_and_only_forward(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    for status, followed in (("proposed", "proposed_fix"), ("testing", "testing"), ("proposed", "testing")):
        caller.patch(f"/api/fixes/{fix['id']}", {"status": status})
        assert status_of(caller, issue) == followed


def test_an_applied_fix_is_a_new_version_of_its_agent_and_closes_the_issue(
    cloud: Cloud, caller: Client, agent: str, issue: str
) -> None:
    fix = propose(caller, issue)
    assert caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"}).status == 200
    shown = caller.get(f"/api/agents/{agent}").json()["data"]
    assert shown["version"] == 2
    assert "effective date" in shown["systemPrompt"]
    version = caller.get(f"/api/agents/{agent}/versions/2").json()["data"]
    assert version["reason"] == f"fix {fix['id']}"
    assert status_of(caller, issue) == "closed"
    cloud.settle()
    assert not cloud.failures


def test_applying_twice_makes_one_version(caller: Client, agent: str, issue: str) -> None:
    fix = propose(caller, issue)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"}), range(4)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert 200 in {answer.status for answer in answers}
    assert caller.get(f"/api/agents/{agent}").json()["data"]["version"] == 2


def test_a_diff_that_does_not_apply_is_refused_naming_the_field_and_the_line(caller: Client, issue: str) -> None:
    body = {
        "issueId": issue,
        "type": "prompt_update",
        "description": "x",
        "changes": {"promptDiff": "- Nothing\n+ Some"},
    }
    said = caller.post("/api/fixes", body)
    assert said.status == 400
    assert "changes.promptDiff" in said.json()["error"]["message"]
    assert "line 1" in said.json()["error"]["message"]
    assert caller.get("/api/fixes").json()["pagination"]["total"] == 0


def test_a_diff_that_no_longer_applies_is_a_conflict_and_changes_nothing(
    caller: Client, agent: str, issue: str
) -> None:
    fix = propose(caller, issue)
    caller.patch(f"/api/agents/{agent}", {"systemPrompt": "Something else."})
    said = caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"})
    assert said.status == 409
    assert "line 1" in said.json()["error"]["message"]
    assert caller.get(f"/api/fixes/{fix['id']}").json()["data"]["status"] == "draft"
    assert caller.get(f"/api/agents/{agent}").json()["data"]["version"] == 2
    assert status_of(caller, issue) == "open"


def test_rejecting_an_applied_fix_rolls_nothing_back(caller: Client, agent: str, issue: str) -> None:
    fix = propose(caller, issue)
    caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"})
    caller.patch(f"/api/fixes/{fix['id']}", {"status": "rejected"})
    assert caller.get(f"/api/agents/{agent}").json()["data"]["version"] == 2


def test_a_config_change_goes_into_the_model_and_parameters(caller: Client, agent: str, issue: str) -> None:
    fix = propose(caller, issue, type="config_change", changes={"model": "openai:main/gpt-x", "temperature": 0.2})
    caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"})
    shown = caller.get(f"/api/agents/{agent}").json()["data"]
    assert (shown["model"], shown["parameters"]) == ("openai:main/gpt-x", {"temperature": 0.2})


def test_deleting_an_issue_keeps_its_fixes_without_it(caller: Client, issue: str) -> None:
    fix = propose(caller, issue)
    assert caller("DELETE", f"/api/v2/issues/{issue}").status == 200
    shown = caller.get(f"/api/fixes/{fix['id']}").json()["data"]
    assert shown["issueId"] is None
    assert caller.get("/api/fixes", issueId=issue).json()["pagination"]["total"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "prompt_update", "description": "x", "changes": {}}, "issueId"),
        ({"issueId": "ISSUE", "type": "magic", "description": "x", "changes": {}}, "type"),
        ({"issueId": "ISSUE", "type": "prompt_update", "description": "", "changes": {}}, "description"),
        ({"issueId": "ISSUE", "type": "prompt_update", "description": "x", "changes": []}, "changes"),
        ({"issueId": "ISSUE", "type": "prompt_update", "description": "x", "changes": {"extra": 1}}, "changes.extra"),
        (
            {"issueId": "ISSUE", "type": "config_change", "description": "x", "changes": {"temperature": 9}},
            "temperature",
        ),
    ],
)
def test_a_bad_fix_is_refused_naming_the_field(caller: Client, issue: str, body: dict[str, Any], field: str) -> None:
    said = caller.post("/api/fixes", {k: issue if v == "ISSUE" else v for k, v in body.items()})
    assert said.status == 400
    assert said.json()["error"]["code"] == said.json()["code"] == "VALIDATION_ERROR"
    assert field in said.json()["error"]["message"]


def test_what_is_not_there_is_404_in_words(caller: Client, issue: str) -> None:
    body = {"issueId": "iss_nobody", "type": "prompt_update", "description": "x", "changes": {"promptDiff": DIFF}}
    said = caller.post("/api/fixes", body)
    assert (said.status, said.json()["error"]["message"]) == (404, "Issue iss_nobody not found")
    assert caller.get("/api/fixes/fix_nobody").json()["error"]["message"] == "Fix fix_nobody not found"
    assert caller.patch("/api/fixes/fix_nobody", {"status": "draft"}).status == 404


def test_the_reports_behind_an_applied_fix_are_resolved(cloud: Cloud, caller: Client) -> None:
    for call_id in (1, 2, 3):
        caller.put(f"/v1/calls/{call_id}", {"agent_id": 5, "prompt_snapshot": PROMPT})
        report = {"title": "Wrong policy", "detected_issue_ref": "wrong-policy", "severity": "critical"}
        assert caller.post(f"/v1/calls/{call_id}/issue-reports", report).status == 201
    cloud.settle()
    (opened,) = caller.get("/api/v2/issues").json()["data"]
    fix = propose(caller, opened["id"])
    caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"})
    cloud.settle()
    assert not cloud.failures
    assert {report["status"] for report in caller.get("/v1/issue-reports").json()} == {"resolved"}
    assert caller.get("/api/agents/5").json()["data"]["version"] == 2
