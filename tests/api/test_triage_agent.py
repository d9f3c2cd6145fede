"""The agent of triage over HTTP: sessions, prompts, and that it really does what it says in the timeline."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop import triage_agent
from fixloop.identity import User
from fixloop.storage import triage
from fixloop.storage.triage import rows, sessions
from fixloop.triage.activity import person
from fixloop.triage.evidence import FlagIn
from fixloop.triage.issues import IssueIn

ROOT = "/v1/triage/issues"
BODY = {"title": "Wrong refund period", "severity": "high", "category": "Dialogue"}
DEADLINE = math.inf
PROMPT = "You are Mia, the support agent of Aurora.\nRefunds are possible within 30 days of purchase."
Issue = dict[str, Any]


def data(answer: Any, status: int = 200) -> Any:
    assert answer.status == status, answer.text
    return answer.json()["data"]


@pytest.fixture
def agent(caller: Client) -> str:
    made = {"name": "Aurora support", "systemPrompt": PROMPT}
    return str(data(caller.post("/api/agents", made), 201)["id"])


def linked(caller: Client, agent: str, *traces: dict[str, Any]) -> tuple[Issue, str]:
    """A triage issue that stands for a loop issue with these traces, and the loop issue's id."""
    ids = [
        data(caller.post("/api/traces", {"agentId": agent, "systemPrompt": PROMPT, **trace}), 201)["traceId"]
        for trace in traces
    ]
    body = {"title": "Wrong refund period", "agentId": agent, "severity": "high", "traceIds": ids}
    loop_issue = data(caller.post("/api/v2/issues", body), 201)["id"]
    opened = triage.open_from(caller.org, loop_issue, IssueIn(**BODY), 1_776_709_511_002, loop_issue_id=loop_issue)
    assert opened
    return data(caller.get(f"{ROOT}/{opened.id}")), loop_issue


@pytest.fixture
def issue(caller: Client, agent: str) -> Issue:
    wrong = {"userMessage": "How long can I return my lamp?", "agentResponse": "You can return it within 60 days."}
    right = {"userMessage": "How long can I return my lamp?", "agentResponse": "Refunds are possible within 30 days."}
    return linked(caller, agent, wrong, {**wrong, "agentResponse": "Refunds are possible within 60 days."}, right)[0]


def now(caller: Client, issue: Issue) -> Issue:
    return dict(data(caller.get(f"{ROOT}/{issue['id']}")))


def started(caller: Client, issue: Issue) -> Any:
    return data(caller.post(f"{ROOT}/{issue['id']}/agent-sessions"), 201)


def asked(cloud: Cloud, caller: Client, issue: Issue, detail: str) -> list[dict[str, Any]]:
    """What the agent leaves in the timeline when it is asked, in the order it happened."""
    session = now(caller, issue)["latest_agent_session"] or started(caller, issue)
    before = len(timeline(caller, issue))
    path = f"{ROOT}/{issue['id']}/agent-sessions/{session['id']}/prompts"
    told = data(caller.post(path, {"detail": detail}), 202)
    assert list(told) == ["session_id", "run_id", "intent"]
    assert now(caller, issue)["is_processing"] is True
    cloud.settle()
    assert not cloud.failures
    assert now(caller, issue)["is_processing"] is False
    return timeline(caller, issue)[before:]


def timeline(caller: Client, issue: Issue) -> list[dict[str, Any]]:
    return list(data(caller.get(f"{ROOT}/{issue['id']}/activity", limit=100))["items"])[::-1]


def test_there_is_one_agent_under_the_name_of_the_template(caller: Client) -> None:
    (agent,) = data(caller.get("/v1/triage/agents"))["items"]
    assert list(agent) == ["id", "provider_type", "display_name", "description", "is_active"]
    assert (agent["display_name"], agent["is_active"]) == ("Norm", True)


def test_a_session_is_active_and_shown_on_its_issue(caller: Client, issue: Issue) -> None:
    session = started(caller, issue)
    assert list(session) == ["id", "agent_profile_id", "agent_name", "status"]
    assert (session["agent_name"], session["status"]) == ("Norm", "active")
    assert session["agent_profile_id"] == data(caller.get("/v1/triage/agents"))["items"][0]["id"]
    shown = now(caller, issue)
    assert (shown["latest_agent_session"], shown["is_processing"]) == (session, False)
    entry = timeline(caller, issue)[-1]
    assert (entry["entry_kind"], entry["type"], entry["agent_session"]) == ("agent", "session_started", session)


@pytest.mark.parametrize(
    ("detail", "intent"),
    [
        ("/fix the period", "fix"),
        ("What is wrong here?", "fix"),
        ("/debug", "fix"),
        ("Status please", "status"),
        ("/verify", "verify"),
    ],
)
def test_the_first_word_tells_what_is_wanted(caller: Client, issue: Issue, detail: str, intent: str) -> None:
    path = f"{ROOT}/{issue['id']}/agent-sessions/{started(caller, issue)['id']}/prompts"
    assert data(caller.post(path, {"detail": detail}), 202)["intent"] == intent
    entry = timeline(caller, issue)[-1]
    assert (entry["entry_kind"], entry["type"], entry["detail"]) == ("agent", "prompt", detail)
    assert entry["actor"]["kind"] == "user"


def test_a_prompt_needs_a_session_of_the_issue(cloud: Cloud, caller: Client, issue: Issue) -> None:
    other = data(caller.post(ROOT, BODY), 201)
    foreign = started(caller, other)["id"]
    for session in (foreign, "68007859-4325-4ea2-bbd6-e7c8be3a233a", "x"):
        said = caller.post(f"{ROOT}/{issue['id']}/agent-sessions/{session}/prompts", {"detail": "status"})
        assert (said.status, said.json()["errors"][0]["message"]) == (404, "Session not found")
    path = f"{ROOT}/{other['id']}/agent-sessions/{foreign}/prompts"
    for detail in ("", "x" * 4001):
        assert caller.post(path, {"detail": detail}).status == 400
    assert cloud.caller().post(path, {"detail": "status"}).status == 404


def test_a_fix_is_drafted_that_quotes_the_source_it_contradicts(cloud: Cloud, caller: Client, issue: Issue) -> None:
    entries = asked(cloud, caller, issue, "/fix")
    kinds = [entry["type"] for entry in entries]
    assert kinds[:2] == ["prompt", "action"]
    assert kinds[-3:] == ["action", "artifact", "response"]
    assert "thought" in kinds
    assert all(entry["actor"] == {**entry["actor"], "kind": "agent", "label": "Norm"} for entry in entries[1:])
    (fix,) = data(caller.get("/api/fixes"))
    assert (fix["type"], fix["status"]) == ("prompt_update", "draft")
    assert "Refunds are possible within 30 days of purchase." in fix["changes"]["promptDiff"]
    artifact = entries[-2]["artifact"]
    assert (artifact["type"], artifact["id"], artifact["status"]) == ("fix", fix["id"], "ready")
    assert artifact["payload"]["changes"] == fix["changes"]
    assert now(caller, issue)["latest_agent_session"]["status"] == "awaiting_input"
    assert data(caller.patch(f"/api/fixes/{fix['id']}", {"status": "applied"}))["status"] == "applied"


def test_a_fix_that_is_there_is_not_drafted_again(cloud: Cloud, caller: Client, issue: Issue) -> None:
    asked(cloud, caller, issue, "/fix")
    entries = asked(cloud, caller, issue, "/fix once more")
    assert "says that already" in entries[-1]["detail"]
    assert len(data(caller.get("/api/fixes"))) == 1


def test_outdated_text_in_what_is_retrieved_is_taken_out(cloud: Cloud, caller: Client, agent: str) -> None:
    context = [
        {"id": "kb-1", "text": "Shipping is free. The return window was 60 days until 2024-01-01 (outdated)."},
        {"id": "kb-2", "text": "The return window is 30 days, effective 2025-01-01."},
    ]
    trace = {
        "systemPrompt": "Answer from the knowledge base.",
        "context": context,
        "userMessage": "How long is the return window?",
        "agentResponse": "The return window is 60 days.",
    }
    issue, _ = linked(caller, agent, trace, trace)
    asked(cloud, caller, issue, "/fix")
    (fix,) = data(caller.get("/api/fixes"))
    assert fix["type"] == "retrieval_update"
    assert fix["changes"] == {"replace": {"kb-1": "Shipping is free."}}


def test_where_nothing_is_contradicted_no_fix_is_made_up(cloud: Cloud, caller: Client, agent: str) -> None:
    fine = {"userMessage": "How long?", "agentResponse": "Refunds are possible within 30 days of purchase."}
    issue, _ = linked(caller, agent, fine)
    entries = asked(cloud, caller, issue, "/fix")
    assert "drafted no fix" in entries[-1]["detail"]
    assert data(caller.get("/api/fixes")) == []


@pytest.mark.parametrize("intent", ["fix", "status", "verify"])
def test_an_issue_without_a_loop_issue_is_told_so(cloud: Cloud, caller: Client, intent: str) -> None:
    issue = data(caller.post(ROOT, BODY), 201)
    entries = asked(cloud, caller, issue, intent)
    assert (entries[-1]["type"], "not linked" in entries[-1]["detail"]) == ("response", True)


def test_a_fix_is_verified_by_a_real_shadow_test_whose_status_is_then_told(
    cloud: Cloud, caller: Client, issue: Issue
) -> None:
    assert "no fix that waits" in asked(cloud, caller, issue, "verify")[-1]["detail"]
    asked(cloud, caller, issue, "fix")
    entries = asked(cloud, caller, issue, "verify")
    assert [entry["type"] for entry in entries] == ["prompt", "action", "artifact", "response"]
    test = data(caller.get(f"/api/shadow-tests/{entries[2]['artifact']['id']}"))
    assert (test["status"], test["traceCount"]) == ("completed", 3)
    assert test["results"]["improved"] == 2
    told = asked(cloud, caller, issue, "status")[-1]["detail"]
    assert test["id"] in told
    assert "2 improved" in told


def test_an_answer_is_given_once_however_often_it_is_delivered(caller: Client, issue: Issue) -> None:
    session = started(caller, issue)
    run = sessions.prompt(caller.org, issue["id"], session["id"], "fix", person(User(id=1)), 1, lambda run: [])
    assert [triage_agent.answer(run, 2, DEADLINE) for _ in range(3)] == [True, False, False]
    assert len(data(caller.get("/api/fixes"))) == 1
    assert [entry["type"] for entry in timeline(caller, issue)].count("response") == 1


def test_a_run_that_was_cut_off_goes_on_with_the_fix_it_had_stored(
    caller: Client, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = started(caller, issue)
    run = sessions.prompt(caller.org, issue["id"], session["id"], "fix", person(User(id=1)), 1, lambda run: [])

    def killed(*_: Any, **__: Any) -> bool:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "answer", killed)
        with pytest.raises(RuntimeError):
            triage_agent.answer(run, 2, DEADLINE)
    assert triage_agent.answer(run, 3, DEADLINE)
    assert len(data(caller.get("/api/fixes"))) == 1
    assert timeline(caller, issue)[-2]["artifact"]["id"] == data(caller.get("/api/fixes"))[0]["id"]


def test_a_prompt_of_a_deleted_issue_is_let_go(cloud: Cloud, caller: Client, issue: Issue) -> None:
    session = started(caller, issue)
    caller.post(f"{ROOT}/{issue['id']}/agent-sessions/{session['id']}/prompts", {"detail": "fix"})
    assert caller("DELETE", f"{ROOT}/{issue['id']}").status == 204
    cloud.settle()
    assert not cloud.failures
    assert data(caller.get("/api/fixes")) == []
    assert not list(rows.all_of(caller.org, issue["id"]))


def test_a_comment_that_names_the_agent_is_a_prompt(cloud: Cloud, caller: Client, issue: Issue) -> None:
    comment = data(caller.post(f"{ROOT}/{issue['id']}/comments", {"detail": "@norm status, please"}), 201)
    assert (comment["type"], comment["detail"]) == ("comment", "@norm status, please")
    kinds = [entry["type"] for entry in timeline(caller, issue)]
    assert kinds[-3:] == ["comment", "session_started", "prompt"]
    cloud.settle()
    assert timeline(caller, issue)[-1]["type"] == "response"
    caller.post(f"{ROOT}/{issue['id']}/comments", {"detail": "Thanks. Mail me@norm.example"})
    assert timeline(caller, issue)[-1]["type"] == "comment"


# What the loop does


def opened(caller: Client, key: str, **more: Any) -> Any:
    return triage.open_from(caller.org, key, IssueIn(**BODY), 1_776_709_511_002, **more)


def test_the_loop_opens_an_issue_once_with_its_calls_and_flags(caller: Client, called: Any) -> None:
    flags = [FlagIn(call_id=17, type="wrong-policy", message_index=2), FlagIn(call_id=99, type="lost")]
    for calls in ([called(17), 404], [17, called(18)]):
        issue = opened(caller, "iss_1", call_ids=calls, flags=flags, loop_issue_id="iss_1")
    (shown,) = data(caller.get(ROOT))["items"]
    assert shown["id"] == issue.id
    assert (shown["source"], shown["author_id"]) == ("automated", None)
    assert (shown["resource_count"], shown["flag_count"]) == (2, 1)
    assert shown["has_unread_activity"] is True
    assert {entry["actor"]["kind"] for entry in timeline(caller, shown)} == {"system"}
    assert triage.find_from(caller.org, "iss_1").id == issue.id  # type: ignore[union-attr]
    assert triage.attach(caller.org, issue.id, called(19), 1) is True
    assert triage.attach(caller.org, issue.id, 19, 1) is False


def test_more_calls_than_fit_one_transaction_are_attached_as_well(caller: Client, called: Any) -> None:
    opened(caller, "iss_1", call_ids=[called(at) for at in range(1, 46)])
    assert data(caller.get(ROOT))["items"][0]["resource_count"] == 45


def test_what_somebody_deleted_is_not_opened_again(caller: Client) -> None:
    issue = opened(caller, "iss_1")
    caller("DELETE", f"{ROOT}/{issue.id}")
    assert opened(caller, "iss_1") is None
    assert triage.find_from(caller.org, "iss_1") is None
    assert data(caller.get(ROOT))["items"] == []


def test_the_loop_moves_an_issue_forward_and_never_back(caller: Client) -> None:
    issue = opened(caller, "iss_1")
    for status, expected in (("in_progress", "in_progress"), ("todo", "in_progress"), ("done", "done")):
        moved = triage.move_forward(caller.org, issue.id, status, 1)  # type: ignore[arg-type]
        assert moved
        assert moved.status == now(caller, {"id": issue.id})["status"] == expected
    kinds = [entry["type"] for entry in timeline(caller, {"id": issue.id})]
    assert kinds == ["created", "status_changed", "status_changed"]
    assert triage.move_forward(caller.org, "68007859-4325-4ea2-bbd6-e7c8be3a233a", "done", 1) is None
