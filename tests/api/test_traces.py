"""`/api/traces`: both published ways of creating one, our own keys, lists and details."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import Answer, Client, Cloud

Trace = dict[str, Any]
SPANS = {
    "agentId": "agent_abc123",
    "outcome": "success",
    "spans": [
        {
            "name": "search",
            "type": "Retrieval",
            "startTime": "2026-04-20T18:25:00.000Z",
            "endTime": "2026-04-20T18:25:00.200Z",
            "input": "refunds",
            "output": [{"id": "policy", "text": "Refunds are possible within 30 days."}],
        },
        {
            "name": "chat",
            "type": "LLM",
            "startTime": "2026-04-20T18:25:00.300Z",
            "endTime": "2026-04-20T18:25:01.300Z",
            "input": [
                {"role": "system", "content": "Use the knowledge base."},
                {"role": "user", "content": "How long do I have?"},
            ],
            "output": "30 days.",
            "model": "extractive",
            "tokens": {"input": 40, "output": 4, "total": 44},
            "metadata": {"region": "eu"},
        },
    ],
}
SDK = {
    "agentId": "agent_abc123",
    "userMessage": "How long do I have?",
    "agentResponse": "60 days.",
    "userIntent": "refund",
    "outcome": "failure",
    "customFlags": ["hallucination"],
    "duration": 1400,
    "sessionId": "s-1",
    "conversationHistory": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}],
    "businessContext": {"tier": "gold"},
    "metadata": {"release": "7"},
    "runEvaluation": False,
}
OURS = {
    "systemPrompt": "Use the knowledge base.",
    "context": [{"id": "policy", "text": "Refunds are possible within 30 days."}],
    "model": "bedrock:m",
    "parameters": {"temperature": 0.1, "topP": 0.9, "maxTokens": 100, "stop": ["END"]},
    "reference": "30 days.",
}
LISTED = ["id", "agentId", "outcome", "userMessage", "agentResponse", "latencyMs", "tokenCount", "createdAt"]
UNION = {"id", "traceId", "agentId", "companyId", "spanCount", "ingested", "_evaluationQueued", *LISTED}


def made(caller: Client, content: dict[str, Any] = SDK, **more: Any) -> Trace:
    answer = caller.post("/api/traces", {**content, **more})
    assert answer.status == 201, answer.text
    assert answer.json()["success"] is True
    trace: Trace = answer.json()["data"]
    return trace


def shown(caller: Client, trace_id: str) -> Trace:
    answer = caller.get(f"/api/traces/{trace_id}")
    assert answer.status == 200, answer.text
    trace: Trace = answer.json()["data"]
    return trace


def test_a_trace_of_spans_answers_what_both_kinds_of_client_read(caller: Client) -> None:
    reply = made(caller, SPANS)
    assert set(reply) >= UNION
    assert reply["id"] == reply["traceId"]
    assert reply["id"].startswith("tr_")
    assert (reply["spanCount"], reply["ingested"], reply["_evaluationQueued"]) == (2, True, False)
    assert reply["companyId"] == caller.org
    trace = shown(caller, reply["id"])
    assert (trace["userMessage"], trace["agentResponse"]) == ("How long do I have?", "30 days.")
    assert trace["systemPrompt"] == "Use the knowledge base."
    assert [document["text"] for document in trace["context"]] == ["Refunds are possible within 30 days."]
    assert (trace["latencyMs"], trace["tokenCount"], trace["model"]) == (1300, 44, "extractive")
    assert [span["type"] for span in trace["spans"]] == ["Retrieval", "LLM"]
    assert trace["spans"][1]["startTime"] == "2026-04-20T18:25:00.300Z"
    assert trace["spans"][1]["metadata"] == {"region": "eu"}


def test_a_trace_of_the_sdk_is_kept_with_every_field(caller: Client) -> None:
    reply = made(caller)
    assert set(reply) >= UNION
    assert (reply["id"], reply["spanCount"]) == (reply["traceId"], 0)
    trace = shown(caller, reply["id"])
    for name in SDK.keys() - {"runEvaluation"}:
        assert trace[name] == SDK[name], name
    assert trace["latencyMs"] == 1400


def test_our_own_fields_come_back_as_they_came(caller: Client) -> None:
    trace = shown(caller, made(caller, **OURS)["id"])
    for name in OURS.keys() - {"context"}:
        assert trace[name] == OURS[name], name
    (document,) = trace["context"]
    assert document.items() >= OURS["context"][0].items()


def test_a_trace_too_big_for_a_row_is_kept_whole(caller: Client) -> None:
    answer, prompt = "é" * 9_000, "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(280_000))
    trace_id = made(caller, agentResponse=answer, systemPrompt=prompt)["id"]
    assert shown(caller, trace_id)["systemPrompt"] == prompt
    (listed,) = caller.get("/api/traces").json()["data"]
    assert listed["agentResponse"] == answer


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"agentId": None}, "agentId"),
        ({"outcome": "splendid"}, "outcome"),
        ({"customFlags": ["sad"]}, "customFlags.0"),
        ({"duration": -1}, "duration"),
        ({"conversationHistory": [{"role": "user"}]}, "conversationHistory.0.content"),
        ({"spans": [{"type": "LLM", "startTime": "yesterday"}]}, "spans.0.startTime"),
        ({"context": [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}]}, "context"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_bad_body_is_refused_by_the_names_of_its_fields(caller: Client, content: Any, field: str) -> None:
    answer = caller.post("/api/traces", {**SDK, **content})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert field in answer.json()["error"]["details"], answer.text
    assert caller.get("/api/traces").json()["pagination"]["total"] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"agentId": "a"}, "userMessage and agentResponse must be given"),
        ({"agentId": "a", "userMessage": "Hi"}, "agentResponse must be given"),
        ({"agentId": "a", "spans": [{"type": "Tool", "output": "x"}]}, "one of type LLM with an output"),
    ],
)
def test_a_trace_without_question_or_answer_is_refused(caller: Client, content: Any, said: str) -> None:
    answer = caller.post("/api/traces", content)
    assert answer.status == 400
    assert said in answer.json()["message"]


def test_newer_outcomes_are_folded_to_the_two(caller: Client) -> None:
    folded = {"resolved": "success", "escalated": "failure", "abandoned": "failure", "pending": None}
    assert {given: made(caller, outcome=given)["outcome"] for given in folded} == folded


def test_an_unknown_trace(caller: Client) -> None:
    answer = caller.get("/api/traces/tr_none")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert answer.json()["message"] == "Trace tr_none not found"


def test_another_organisations_traces_do_not_exist(cloud: Cloud, caller: Client) -> None:
    trace_id, other = made(caller)["id"], cloud.caller()
    assert other.get(f"/api/traces/{trace_id}").status == 404
    assert other.get("/api/traces").json()["pagination"]["total"] == 0
    assert other.get("/api/traces", agentId=SDK["agentId"]).json()["data"] == []


def test_requests_with_the_same_key_make_one_trace(caller: Client) -> None:
    def create(_: int) -> Answer:
        return caller.post("/api/traces", SDK, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(create, range(6)))
    answers.append(create(6))
    assert len({answer.text for answer in answers if answer.status == 201}) == 1
    assert answers[-1].status == 201
    assert caller.get("/api/traces").json()["pagination"]["total"] == 1


# Lists

FIRST = 1_776_700_800  # 2026-04-20T16:00:00Z


@dataclass
class Stock:
    """A caller and every trace there is as a list shows it, newest first."""

    caller: Client
    traces: list[Trace]

    def expected(self, query: dict[str, Any]) -> list[Trace]:
        return [
            trace
            for trace in self.traces
            if all(trace[name] == query[name] for name in ("agentId", "outcome") if name in query)
            and query.get("startDate", "") <= trace["createdAt"] <= query.get("endDate", "9")
        ]


@pytest.fixture(scope="module")
def stock(cloud: Cloud) -> Stock:
    """30 traces, one an hour and half a second past it, of two agents with every outcome and none."""
    caller, api = cloud.caller(), cloud.module("TracesFunction").handler
    before, traces = api._clock, []
    agents, outcomes = (
        itertools.cycle(["agent_a", "agent_b", "agent_a"]),
        itertools.cycle(["success", "failure", None, None]),
    )
    for number in range(30):
        api._clock = lambda at=FIRST + number * 3600 + 0.5: at
        content = {
            "agentId": next(agents),
            "userMessage": str(number),
            "agentResponse": "ok",
            "outcome": next(outcomes),
        }
        trace = shown(caller, made(caller, content)["id"])
        traces.insert(0, {name: trace[name] for name in LISTED})
    api._clock = before
    return Stock(caller, traces)


def test_every_filter_shows_exactly_what_matches_page_by_page(stock: Stock) -> None:
    since, until = {"startDate": "2026-04-20T20:00:00Z"}, {"endDate": "2026-04-21T10:00:00Z"}
    limits = itertools.cycle([100, 4, 1])
    for agent, outcome, dates in itertools.product(
        (None, "agent_a", "agent_b", "agent_c"), (None, "success", "failure"), ({}, since, until, since | until)
    ):
        given = {"agentId": agent, "outcome": outcome, **dates}
        query = {name: value for name, value in given.items() if value is not None}
        whole, limit = stock.expected(query), next(limits)
        for page in (1, 2):
            answer = stock.caller.get("/api/traces", **query, limit=limit, page=page).json()
            start = (page - 1) * limit
            assert answer["data"] == whole[start : start + limit], query
            assert answer["pagination"]["total"] == len(whole), query
            assert answer["pagination"]["hasMore"] == (start + limit < len(whole)), query


def test_a_list_shows_the_published_keys_newest_first(stock: Stock) -> None:
    answer = stock.caller.get("/api/traces").json()
    assert list(answer) == ["success", "data", "pagination"]
    assert {tuple(trace) for trace in answer["data"]} == {tuple(LISTED)}
    assert answer["data"] == stock.traces[:20]
    assert answer["pagination"] == {"page": 1, "limit": 20, "total": 30, "hasMore": True}


def test_an_offset_is_taken_as_well_as_a_page(stock: Stock) -> None:
    answer = stock.caller.get("/api/traces", limit=10, offset=25).json()
    assert answer["data"] == stock.traces[25:]
    assert answer["pagination"]["hasMore"] is False
    assert stock.caller.get("/api/traces", limit=10, offset=30).json()["data"] == []


def test_a_bare_date_is_a_whole_day(stock: Stock) -> None:
    day = [trace for trace in stock.traces if trace["createdAt"].startswith("2026-04-20")]
    assert stock.caller.get("/api/traces", endDate="2026-04-20", limit=100).json()["data"] == day
    found = stock.caller.get("/api/traces", startDate="2026-04-20", endDate="2026-04-20", limit=100).json()
    assert found["data"] == day


def test_the_second_a_trace_is_shown_with_is_inside_its_bounds(stock: Stock) -> None:
    at = stock.traces[3]["createdAt"]
    found = stock.caller.get("/api/traces", startDate=at, endDate=at).json()["data"]
    assert found == [stock.traces[3]]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 101}, ["limit"]),
        ({"page": 0, "limit": "abc"}, ["page", "limit"]),
        ({"offset": -1}, ["offset"]),
        ({"outcome": "resolved"}, ["outcome"]),
        ({"startDate": "soon"}, ["startDate"]),
        ({"startDate": "2026-04-21", "endDate": "2026-04-20"}, ["endDate"]),
    ],
)
def test_a_bad_query_is_refused_by_the_names_of_its_parameters(stock: Stock, query: Any, fields: list[str]) -> None:
    answer = stock.caller.get("/api/traces", **query)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert list(answer.json()["error"]["details"]) == fields
