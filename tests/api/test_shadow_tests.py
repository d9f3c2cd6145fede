"""`/api/shadow-tests` and `/api/shadow-execution` over HTTP: what comes of a test, refusals and races."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.models import Completion, ModelRefused, ModelUnavailable, Throttled
from fixloop.shadow_tests import Outcome
from fixloop.storage import shadow_tests as store

PROMPT = "Answer refund questions using the knowledge base."
DIFF = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Always verify the policy effective date matches the "
    "customer's purchase date before citing specific terms."
)
OLD = "Refund policy 2023 (outdated, replaced in January 2025): our policy allows returns within 60 days of purchase."
NEW = "Refund policy (effective January 2025): our current refund policy allows returns within 30 days of purchase."


@pytest.fixture
def fix(caller: Client) -> str:
    agent = caller.post("/api/agents", {"name": "Customer Support Bot", "systemPrompt": PROMPT}).json()["data"]["id"]
    issue = caller.post("/api/v2/issues", {"title": "Incorrect refund policy citations", "agentId": agent})
    given = {
        "issueId": issue.json()["data"]["id"],
        "type": "prompt_update",
        "description": "Check the date",
        "changes": {"promptDiff": DIFF},
    }
    made = caller.post("/api/fixes", given)
    assert made.status == 201, made.text
    return str(made.json()["data"]["id"])


@pytest.fixture
def trace(caller: Client) -> Callable[..., str]:
    def record(**content: Any) -> str:
        body = {
            "agentId": "agent_abc123",
            "systemPrompt": PROMPT,
            "userMessage": "How long do I have to return my bike for a refund?",
            "context": [{"id": "policy-2023", "text": OLD}, {"id": "policy-2025", "text": NEW}],
            "agentResponse": "Our refund policy allows returns within 60 days of purchase.",
            **content,
        }
        made = caller.post("/api/traces", body)
        assert made.status == 201, made.text
        return str(made.json()["data"]["id"])

    return record


def create(caller: Client, fix: str, traces: list[str], **body: Any) -> dict[str, Any]:
    made = caller.post("/api/shadow-tests", {"fixId": fix, "traceIds": traces, **body})
    assert made.status == 201, made.text
    return dict(made.json()["data"])


def refusal(answer: Any) -> dict[str, Any]:
    assert answer.status == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    return dict(error.get("details", {}))


def run(cloud: Cloud, caller: Client, fix: str, verdicts: list[str | None], trace: Callable[..., str]) -> str:
    """A test that has come to the given verdicts, without asking a model."""
    from fixloop import rehearsal

    made = create(caller, fix, [trace() for _ in verdicts])
    rehearsal.prepare(caller.org, made["id"], 1_776_709_512_000)
    ids = store.trace_ids(caller.org, store.find(caller.org, made["id"]))
    for start in range(0, len(ids), store.AT_ONCE):
        given = {}
        for at in range(start, min(start + store.AT_ONCE, len(ids))):
            verdict: Any = verdicts[at]
            scores = {} if verdict is None else {"original_score": 0.35, "fixed_score": 0.88, "explanation": "It does"}
            given[at] = Outcome(trace_id=ids[at], verdict=verdict, error=None if verdict else "Refused", **scores)
        store.record(caller.org, made["id"], 0, given)
    rehearsal.conclude(caller.org, made["id"], 1_776_709_513_000)
    return str(made["id"])


def test_a_completed_test_has_the_published_keys(
    cloud: Cloud, caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    test_id = run(cloud, caller, fix, ["improved"] * 8 + ["unchanged", "regressed"], trace)
    shown = caller.get(f"/api/shadow-tests/{test_id}").json()["data"]
    published = ["id", "fixId", "status", "traceCount", "config", "results", "traceResults", "createdAt", "completedAt"]
    assert [key for key in shown if key in published] == published
    assert shown["results"] == {"improved": 8, "unchanged": 1, "regressed": 1, "improvementRate": 0.8}
    assert list(shown["traceResults"][0])[:5] == [
        "traceId",
        "verdict",
        "originalScore",
        "fixedScore",
        "explanation",
    ]
    (listed,) = caller.get("/api/shadow-tests", fixId=fix).json()["data"]
    assert "traceResults" not in listed
    assert listed["results"] == shown["results"]
    assert listed["completedAt"] == shown["completedAt"]
    of_fix = caller.get(f"/api/fixes/{fix}").json()["data"]["shadowTests"]
    assert of_fix == [{"id": test_id, "status": "completed", "improvementRate": 0.8}]
    assert caller.get(f"/api/fixes/{fix}/shadow-tests").json()["data"] == [listed]


def test_failed_traces_are_in_no_rate_and_no_verdict(
    cloud: Cloud, caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    test_id = run(cloud, caller, fix, ["improved", None, "regressed"], trace)
    shown = caller.get(f"/api/shadow-tests/{test_id}").json()["data"]
    assert shown["results"]["improvementRate"] == 0.5
    assert shown["results"]["error"].startswith("1 of 3 traces could not be replayed")
    assert [line["verdict"] for line in shown["traceResults"]] == ["improved", "regressed"]
    whole = caller.get(f"/api/shadow-tests/{test_id}/results").json()
    assert [(one["verdict"], one["error"]) for one in whole["data"]] == [
        ("improved", None),
        (None, "Refused"),
        ("regressed", None),
    ]
    assert whole["pagination"] == {"page": 1, "limit": 20, "total": 3, "hasMore": False}


def test_results_come_in_pages_in_the_order_of_the_traces(
    cloud: Cloud, caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    test_id = run(cloud, caller, fix, ["improved"] * 7, trace)
    whole = [line["traceId"] for line in caller.get(f"/api/shadow-tests/{test_id}").json()["data"]["traceResults"]]
    paged: list[str] = []
    for page in (1, 2, 3):
        answer = caller.get(f"/api/shadow-tests/{test_id}", page=page, limit=3).json()
        paged += [line["traceId"] for line in answer["data"]["traceResults"]]
        assert answer["pagination"] == {"page": page, "limit": 3, "total": 7, "hasMore": page < 3}
    assert paged == whole
    assert caller.get(f"/api/shadow-tests/{test_id}/results", page=3, limit=3).json()["pagination"]["hasMore"] is False


def test_lists_filter_by_fix_and_status_with_exact_totals(
    cloud: Cloud, caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    done = run(cloud, caller, fix, ["improved"], trace)
    waiting = [create(caller, fix, [trace()])["id"] for _ in range(3)]
    everything = caller.get("/api/shadow-tests", limit=2).json()
    assert everything["pagination"] == {"page": 1, "limit": 2, "total": 4, "hasMore": True}
    assert [one["id"] for one in everything["data"]] == [waiting[2], waiting[1]]
    assert [one["id"] for one in caller.get("/api/shadow-tests", status="completed").json()["data"]] == [done]
    assert caller.get("/api/shadow-tests", status="pending", fixId=fix).json()["pagination"]["total"] == 3
    assert caller.get("/api/shadow-tests", fixId="fix_other").json()["pagination"]["total"] == 0


@pytest.mark.parametrize("query", [{"limit": 101}, {"page": 0}, {"status": "done"}, {"limit": "x"}])
def test_a_bad_query_names_its_parameter(caller: Client, query: dict[str, Any]) -> None:
    assert set(refusal(caller.get("/api/shadow-tests", **query))) == set(query)


def test_unknown_traces_are_named_and_nothing_is_stored(
    cloud: Cloud, caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    known = trace()
    theirs = cloud.caller().post(
        "/api/traces", {"agentId": "a", "userMessage": "x", "agentResponse": "y", "systemPrompt": "z"}
    )
    other = theirs.json()["data"]["id"]
    answer = caller.post("/api/shadow-tests", {"fixId": fix, "traceIds": [known, "tr_nowhere", other]})
    assert refusal(answer) == {"traceIds": [f"unknown: tr_nowhere, {other}"]}
    assert caller.get("/api/shadow-tests").json()["pagination"]["total"] == 0


def test_an_unknown_fix_is_not_found(caller: Client, trace: Callable[..., str]) -> None:
    for path, body in (
        ("/api/shadow-tests", {"fixId": "fix_nowhere", "traceIds": [trace()]}),
        ("/api/shadow-execution", {"fixId": "fix_nowhere", "traceId": trace()}),
    ):
        answer = caller.post(path, body)
        assert (answer.status, answer.json()["error"]["message"]) == (404, "Fix fix_nowhere not found")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"comparisonMode": "sequential"}, "config.comparisonMode"),
        ({"model": "openai:nowhere/x"}, "config.model"),
        ({"graders": [{"type": "regex", "config": {"pattern": "("}}]}, "config.graders.0.config"),
        ({"graders": [{"type": "llm_judge"}]}, "config.graders.0.config.model"),
        ({"graders": [{"type": "unheard_of"}]}, "config.graders.0.type"),
        ({"threshold": 2}, "config.threshold"),
    ],
)
def test_a_config_that_cannot_be_carried_out_is_refused_at_once(
    caller: Client, fix: str, trace: Callable[..., str], config: dict[str, Any], named: str
) -> None:
    answer = caller.post("/api/shadow-tests", {"fixId": fix, "traceIds": [trace()], "config": config})
    assert set(refusal(answer)) == {named}


def test_the_published_cancellation_is_taken(caller: Client, fix: str, trace: Callable[..., str]) -> None:
    made = create(caller, fix, [trace()])
    error = "Upstream model returned 429 during replay"
    said = caller.patch(f"/api/shadow-tests/{made['id']}", {"status": "failed", "results": {"error": error}})
    assert said.status == 200
    assert said.json()["data"]["results"] == {"error": error}
    assert list(said.json()["data"]) == ["id", "status", "results", "completedAt"]
    shown = caller.get(f"/api/shadow-tests/{made['id']}").json()["data"]
    assert (shown["status"], shown["results"]) == ("failed", {"error": error})
    again = caller.patch(f"/api/shadow-tests/{made['id']}", {"status": "running"})
    assert (again.status, again.json()["error"]["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize("body", [{"status": "done"}, {"status": None}, {"results": {"error": ""}}, {"results": 1}])
def test_a_bad_change_is_refused(caller: Client, fix: str, trace: Callable[..., str], body: dict[str, Any]) -> None:
    made = create(caller, fix, [trace()])
    assert refusal(caller.patch(f"/api/shadow-tests/{made['id']}", body))
    assert caller.get(f"/api/shadow-tests/{made['id']}").json()["data"]["status"] == "pending"


def test_of_many_cancellations_one_is_counted(caller: Client, fix: str, trace: Callable[..., str]) -> None:
    issue = caller.get(f"/api/fixes/{fix}").json()["data"]["issueId"]
    made = create(caller, fix, [trace()])
    path = f"/api/shadow-tests/{made['id']}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: caller.patch(path, {"status": "failed"}), range(8)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert caller("DELETE", f"/api/v2/issues/{issue}").status == 200


def test_deleting_an_issue_and_starting_a_test_never_both_succeed(
    cloud: Cloud, caller: Client, trace: Callable[..., str]
) -> None:
    for _ in range(6):
        issue = caller.post("/api/v2/issues", {"title": "x", "agentId": "agent_abc123"}).json()["data"]["id"]
        body = {"issueId": issue, "type": "prompt_update", "description": "x", "changes": {"promptDiff": DIFF}}
        fix_id = caller.post("/api/fixes", body).json()["data"]["id"]
        given = {"fixId": fix_id, "traceIds": [trace()]}
        with ThreadPoolExecutor(2) as pool:
            started = pool.submit(caller.post, "/api/shadow-tests", given)
            deleted = pool.submit(caller, "DELETE", f"/api/v2/issues/{issue}")
        if deleted.result().status == 200:
            assert caller.get(f"/api/fixes/{fix_id}").json()["data"]["issueId"] is None
            assert started.result().status in (201, 404)
        else:
            assert (started.result().status, deleted.result().status) == (201, 409)


def test_the_same_idempotency_key_makes_one_test(caller: Client, fix: str, trace: Callable[..., str]) -> None:
    given = {"fixId": fix, "traceIds": [trace()]}
    with ThreadPoolExecutor(8) as pool:
        headers = {"Idempotency-Key": "once"}
        answers = list(pool.map(lambda _: caller.post("/api/shadow-tests", given, headers=headers), range(8)))
    made = {answer.json()["data"]["id"] for answer in answers if answer.status == 201}
    assert len(made) == 1
    assert {answer.status for answer in answers} <= {201, 409}
    assert caller.get("/api/shadow-tests").json()["pagination"]["total"] == 1


# One replay at once


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the model answers, in order; the last for ever."""
    script: list[Any] = []

    class Scripted:
        def complete(self, prompt: Any, *, timeout: float = 20.0) -> Completion:
            step = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
            return Completion(str(step), 1, 1, 1)

    monkeypatch.setattr("fixloop.models.named", lambda *_: Scripted())
    return script


def test_a_replay_that_takes_too_long_is_a_timeout_that_names_the_way_out(
    caller: Client, fix: str, trace: Callable[..., str], model: list[Any], monkeypatch: pytest.MonkeyPatch, cloud: Cloud
) -> None:
    monkeypatch.setattr(cloud.module("ShadowTestsFunction"), "LONGEST_EXECUTION", 0.3)
    model.append(lambda: time.sleep(1.5))
    started = time.monotonic()
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": trace()})
    assert time.monotonic() - started < 1.4
    assert (answer.status, answer.json()["error"]["code"]) == (504, "TIMEOUT")
    assert "/api/shadow-tests" in answer.json()["error"]["message"]


def test_a_model_that_was_cut_off_before_the_callers_time_was_up_is_a_timeout_too(
    caller: Client, fix: str, trace: Callable[..., str], model: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixloop.patience._LONGEST", 0.01)
    model.append(ModelUnavailable("It did not answer in time.", slow=True))
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": trace()})
    assert (answer.status, answer.json()["error"]["code"]) == (504, "TIMEOUT")


def test_a_throttled_model_is_asked_again(
    caller: Client, fix: str, trace: Callable[..., str], model: list[Any]
) -> None:
    model.extend([Throttled("slow down", 0.01), "Returns within 30 days."])
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": trace()})
    assert answer.status == 200, answer.text


@pytest.mark.parametrize(
    "error", [ModelRefused("The key was not accepted (401)."), ModelUnavailable("It failed (500).")]
)
def test_a_model_that_does_not_answer_is_said_so(
    caller: Client,
    fix: str,
    trace: Callable[..., str],
    model: list[Any],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fixloop.patience._LONGEST", 0.01)
    model.append(error)
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": trace()})
    assert (answer.status, answer.json()["error"]["code"]) == (502, "UPSTREAM_FAILED")
    assert answer.json()["error"]["message"] == str(error)


def test_a_fix_that_does_not_fit_the_trace_is_a_conflict_that_says_which_line(
    caller: Client, fix: str, trace: Callable[..., str]
) -> None:
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": trace(systemPrompt="Be nice.")})
    assert (answer.status, answer.json()["error"]["code"]) == (409, "CONFLICT")
    assert "line 1" in answer.json()["error"]["message"]


def test_an_unknown_trace_is_not_found(caller: Client, fix: str) -> None:
    answer = caller.post("/api/shadow-execution", {"fixId": fix, "traceId": "tr_nowhere"})
    assert (answer.status, answer.json()["error"]["message"]) == (404, "Trace tr_nowhere not found")
