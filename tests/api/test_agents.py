"""`/api/agents`: every change is a version; ThunderPhone's integer ids and these name the same agents."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Answer, Client, Cloud
from fixloop.storage import agents, dynamo

Agent = dict[str, Any]
CONTENT = ["name", "systemPrompt", "model", "parameters", "retrieval", "guardrails"]
KEYS = ["id", "number", "version", *CONTENT, "createdAt", "updatedAt"]
VERSION = ["agentId", "version", *CONTENT, "reason", "author", "createdAt"]
BOT = {
    "name": "Customer Support Bot",
    "systemPrompt": "Be polite.\nAnswer refund questions using the knowledge base.",
    "parameters": {"temperature": 0.2, "maxTokens": 300},
}


def made(caller: Client, **content: Any) -> Agent:
    answer = caller.post("/api/agents", {**BOT, **content})
    assert answer.status == 201, answer.text
    agent: Agent = answer.json()["data"]
    return agent


def shown(caller: Client, key: Any, tail: str = "") -> Any:
    answer = caller.get(f"/api/agents/{key}{tail}")
    assert answer.status == 200, answer.text
    return answer.json()["data"]


def changed(caller: Client, key: Any, **content: Any) -> Agent:
    answer = caller.patch(f"/api/agents/{key}", content)
    assert answer.status == 200, answer.text
    agent: Agent = answer.json()["data"]
    return agent


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


def test_an_agent_is_made_found_listed_changed_and_deleted(caller: Client, clock: Any) -> None:
    agent = made(caller)
    assert list(agent) == KEYS
    assert agent["id"].startswith("agent_")
    assert (agent["version"], agent["model"], agent["number"]) == (1, "extractive", None)
    assert {name: agent[name] for name in BOT} == BOT
    assert agent["createdAt"] == agent["updatedAt"] == "2026-04-20T18:25:11Z"
    assert shown(caller, agent["id"]) == agent
    clock.now += 60
    after = changed(caller, agent["id"], model="openai:house/small")
    assert after == {**agent, "version": 2, "model": "openai:house/small", "updatedAt": "2026-04-20T18:26:11Z"}
    listed = caller.get("/api/agents").json()
    assert listed["data"] == [after]
    assert listed["pagination"] == {"page": 1, "limit": 20, "total": 1, "hasMore": False}
    deleted = caller("DELETE", f"/api/agents/{agent['id']}")
    assert (deleted.status, deleted.json()) == (200, {"success": True, "message": "Agent deleted successfully"})
    gone = caller.get(f"/api/agents/{agent['id']}")
    assert (code(gone), gone.json()["message"]) == ((404, "NOT_FOUND"), f"Agent {agent['id']} not found")
    assert code(caller("DELETE", f"/api/agents/{agent['id']}")) == (404, "NOT_FOUND")
    assert caller.get("/api/agents").json()["pagination"]["total"] == 0


def test_pages_of_agents_newest_first(caller: Client) -> None:
    ids = [made(caller, name=str(number))["id"] for number in range(5)]
    caller("DELETE", f"/api/agents/{ids.pop(1)}")
    pages = [caller.get("/api/agents", limit=3, page=page).json() for page in (1, 2, 3)]
    assert [agent["id"] for page in pages for agent in page["data"]] == ids[::-1]
    assert [page["pagination"]["hasMore"] for page in pages] == [True, False, False]
    assert {page["pagination"]["total"] for page in pages} == {4}


def test_every_change_is_a_version_and_no_change_is_none(caller: Client) -> None:
    agent = made(caller)
    changed(caller, agent["id"], systemPrompt="Be brief.")
    same = changed(caller, agent["id"], systemPrompt="Be brief.", name=agent["name"])
    assert changed(caller, agent["id"]) == same
    assert same["version"] == 2
    answer = caller.get(f"/api/agents/{agent['id']}/versions").json()
    assert [version["version"] for version in answer["data"]] == [2, 1]
    assert [version["reason"] for version in answer["data"]] == ["updated", "created"]
    assert [list(version) for version in answer["data"]] == [VERSION] * 2
    assert answer["pagination"]["total"] == 2
    first = shown(caller, agent["id"], "/versions/1")
    assert first == answer["data"][1]
    assert (first["systemPrompt"], first["agentId"]) == (BOT["systemPrompt"], agent["id"])
    assert first["author"].startswith("user_")
    (last,) = caller.get(f"/api/agents/{agent['id']}/versions", limit=1, page=2).json()["data"]
    assert last == first


@pytest.mark.parametrize("version", ["0", "-1", "one", "3.0"])
def test_a_version_is_a_number(caller: Client, version: str) -> None:
    assert code(caller.get(f"/api/agents/{made(caller)['id']}/versions/{version}")) == (400, "VALIDATION_ERROR")


def test_a_diff_shows_what_changed(caller: Client) -> None:
    agent = made(caller)
    prompt = "Be polite.\nAnswer refund questions using the policy."
    changed(caller, agent["id"], systemPrompt=prompt, parameters={"temperature": 0})
    changed(caller, agent["id"], name="Other")
    latest = shown(caller, agent["id"], "/diff")
    assert (latest["from"], latest["to"], latest["changed"], latest["promptDiff"]) == (2, 3, ["name"], "")
    diff = shown(caller, agent["id"], "/diff?from=1&to=2")
    assert diff["changed"] == ["systemPrompt", "parameters"]
    lines = diff["promptDiff"].splitlines()
    assert "-Answer refund questions using the knowledge base." in lines
    assert "+Answer refund questions using the policy." in lines
    assert " Be polite." in lines
    assert diff["parameters"] == {"from": BOT["parameters"], "to": {"temperature": 0}}
    back = shown(caller, agent["id"], "/diff?from=2&to=1")
    assert "+Answer refund questions using the knowledge base." in back["promptDiff"].splitlines()
    assert code(caller.get(f"/api/agents/{agent['id']}/diff?to=9")) == (404, "NOT_FOUND")
    assert code(caller.get(f"/api/agents/{agent['id']}/diff?from=x")) == (400, "VALIDATION_ERROR")
    assert shown(caller, made(caller)["id"], "/diff")["changed"] == []


def test_a_diff_shows_what_a_fix_added_beside_the_prompt(caller: Client) -> None:
    agent = agents.find(caller.org, made(caller)["id"])
    content = agent.content.model_copy(update={"guardrails": [{"rules": ["no dates"]}]})
    _, writes = agents.next_version(caller.org, agent, content, "fix fix_1", "system", 1)
    dynamo.write(writes)
    diff = shown(caller, agent.id, "/diff")
    assert diff["changed"] == ["guardrails"]
    assert diff["guardrails"] == {"from": [], "to": [{"rules": ["no dates"]}]}


def test_rolling_back_is_a_new_version_with_the_old_content(caller: Client) -> None:
    agent = made(caller)
    changed(caller, agent["id"], systemPrompt="Be brief.", model="bedrock:m")
    answer = caller.post(f"/api/agents/{agent['id']}/rollback", {"version": 1})
    assert answer.status == 200
    back = answer.json()["data"]
    assert back["version"] == 3
    assert {name: back[name] for name in CONTENT} == {name: agent[name] for name in CONTENT}
    assert shown(caller, agent["id"], "/versions/3")["reason"] == "rolled back to 1"
    assert caller.post(f"/api/agents/{agent['id']}/rollback", {"version": 3}).json()["data"]["version"] == 3
    assert code(caller.post(f"/api/agents/{agent['id']}/rollback", {"version": 7})) == (404, "NOT_FOUND")
    for bad in ({}, {"version": "1"}, {"version": 0}):
        assert code(caller.post(f"/api/agents/{agent['id']}/rollback", bad)) == (400, "VALIDATION_ERROR")


def test_an_agent_is_found_by_its_number_too(caller: Client) -> None:
    agent = made(caller, number=12)
    assert shown(caller, 12) == shown(caller, agent["id"]) == agent
    assert changed(caller, 12, name="Twelve")["id"] == agent["id"]
    assert shown(caller, 12, "/versions/2")["name"] == "Twelve"
    assert code(caller.post("/api/agents", {**BOT, "number": 12})) == (409, "CONFLICT")
    assert caller.get("/api/agents").json()["pagination"]["total"] == 1
    assert caller("DELETE", "/api/agents/12").status == 200
    assert code(caller.get("/api/agents/12")) == (404, "NOT_FOUND")
    assert made(caller, number=12)["id"] != agent["id"]


def test_the_number_of_an_agent_is_the_agent_id_of_its_calls(cloud: Cloud, caller: Client) -> None:
    agent = made(caller, number=12, name="Aurora")
    for number in (12, 13):
        call = {
            "agent_id": number,
            "transcripts": [{"role": "user", "content": "Hi"}, {"role": "agent", "content": "Hello"}],
        }
        assert caller.put(f"/v1/calls/{number}", {**call, "prompt_snapshot": "Be kind."}).status == 201
        caller.post(f"/v1/calls/{number}/issue-reports", {"title": "Cold"})
    cloud.settle()
    assert [call["call_id"] for call in caller.get("/v1/calls", agent_id=12).json()["results"]] == [12]
    assert [report["call_id"] for report in caller.get("/v1/issue-reports", agent_id=12).json()] == [12]
    (trace,) = caller.get("/api/traces", agentId=agent["id"]).json()["data"]
    assert trace["agentResponse"] == "Hello"
    unknown = shown(caller, 13)
    assert (unknown["id"], unknown["name"], unknown["systemPrompt"]) == ("agent_13", "Agent 13", "Be kind.")
    assert caller.get("/api/traces", agentId="agent_13").json()["pagination"]["total"] == 1


def test_an_agent_that_calls_bring_back_goes_on_counting_its_versions(cloud: Cloud, caller: Client) -> None:
    def call(call_id: int) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        caller.put(f"/v1/calls/{call_id}", {"agent_id": 5, "prompt_snapshot": "Be kind.", "transcripts": turns})
        cloud.settle()

    call(1)
    changed(caller, 5, systemPrompt="Be cruel.")
    caller("DELETE", "/api/agents/5")
    call(2)
    again = shown(caller, 5)
    assert (again["id"], again["version"], again["systemPrompt"]) == ("agent_5", 3, "Be kind.")
    assert changed(caller, 5, name="Five")["version"] == 4
    assert [one["systemPrompt"] for one in shown(caller, 5, "/versions")] == [
        *("Be kind.", "Be kind."),
        *("Be cruel.", "Be kind."),
    ]


def test_a_call_whose_prompt_no_agent_can_have_is_recorded_all_the_same(cloud: Cloud, caller: Client) -> None:
    prompt, failed = "wörd " * 45_000, len(cloud.failures)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert caller.put("/v1/calls/1", {"agent_id": 6, "prompt_snapshot": prompt, "transcripts": turns}).status == 201
    cloud.settle()
    assert cloud.failures[failed:] == []
    (trace,) = caller.get("/api/traces").json()["data"]
    assert caller.get(f"/api/traces/{trace['id']}").json()["data"]["systemPrompt"] == prompt
    assert shown(caller, 6)["systemPrompt"] == ""


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"number": "12"}, "number"),
        ({"number": 0}, "number"),
        ({"number": 2**63}, "number"),
        ({"systemPrompt": "x" * 200_001}, "systemPrompt"),
        ({"systemPrompt": "語" * 110_000}, "systemPrompt"),
        ({"model": ""}, "model"),
        ({"parameters": {"temperature": 3}}, "parameters.temperature"),
        ({"parameters": {"topP": 0}}, "parameters.topP"),
        ({"parameters": {"top_p": 1}}, "parameters.top_p"),
        ({"parameters": {"maxTokens": 0}}, "parameters.maxTokens"),
        ({"parameters": {"stop": [""]}}, "parameters.stop.0"),
        ({"parameters": {"stop": ["x" * 256]}}, "parameters.stop.0"),
    ],
)
def test_a_bad_body_is_refused_by_the_names_of_its_fields(caller: Client, content: Any, field: str) -> None:
    answer = caller.post("/api/agents", {**BOT, **content})
    assert code(answer) == (400, "VALIDATION_ERROR")
    assert list(answer.json()["error"]["details"]) == [field]
    if "number" not in content:
        patched = caller.patch(f"/api/agents/{made(caller)['id']}", content)
        assert code(patched) == (400, "VALIDATION_ERROR")
        assert list(patched.json()["error"]["details"]) == [field]


def test_the_longest_prompts_there_may_be_are_stored(caller: Client) -> None:
    for prompt in ("x" * 200_000, "語" * 99_000):
        agent = made(caller, systemPrompt=prompt)
        assert shown(caller, agent["id"])["systemPrompt"] == prompt


def test_changes_at_the_same_time_are_all_there_as_a_version_each(caller: Client) -> None:
    agent = made(caller)
    changes: list[dict[str, Any]] = [
        {"name": "New"},
        {"systemPrompt": "New."},
        {"model": "bedrock:new"},
        {"parameters": {"topP": 0.5}},
    ]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda change: changed(caller, agent["id"], **change), changes))
    after = shown(caller, agent["id"])
    for change in changes:
        assert {name: after[name] for name in change} == change
    assert after["version"] == 5
    assert [one["version"] for one in shown(caller, agent["id"], "/versions")] == [5, 4, 3, 2, 1]


def test_of_agents_with_the_same_number_at_the_same_time_one_is_made(caller: Client) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: caller.post("/api/agents", {**BOT, "number": 7}), range(6)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert caller.get("/api/agents").json()["pagination"]["total"] == 1


def test_first_requests_with_the_same_key_at_the_same_time_make_one_agent(caller: Client) -> None:
    def create(_: int) -> Answer:
        return caller.post("/api/agents", {**BOT, "number": 7}, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(create, range(6)))
    answers.append(create(6))
    assert len({answer.text for answer in answers if answer.status == 201}) == 1
    assert answers[-1].status == 201
    assert caller.get("/api/agents").json()["pagination"]["total"] == 1


def test_another_organisations_agents_do_not_exist(cloud: Cloud, caller: Client) -> None:
    agent, other = made(caller, number=12), cloud.caller()
    for key in (agent["id"], 12):
        path = f"/api/agents/{key}"
        answers = [
            other.get(path),
            other.patch(path, {"name": "Mine"}),
            other("DELETE", path),
            other.get(f"{path}/versions"),
            other.get(f"{path}/versions/1"),
            other.get(f"{path}/diff"),
            other.post(f"{path}/rollback", {"version": 1}),
        ]
        assert {code(answer) for answer in answers} == {(404, "NOT_FOUND")}
    assert made(other, number=12)["number"] == 12
