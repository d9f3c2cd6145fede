"""Triage, app issues and call reports on the deployed stack, and the loop that they are tied to."""

from __future__ import annotations

import json
import random
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.model_server import ModelServer

from deployed.world import Caller, World, at_once, eventually
from fixloop.identity import User
from fixloop_cli.main import app
from wire.gomobile import CALL, JOB

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

TRIAGE = "/v1/triage/issues"
APP_ISSUES = "/api/v1/app/issue"
ENDED = ("completed", "failed")
PROMPT = "You are Mia, the support agent of Aurora.\nRefunds are possible within 30 days of purchase."
SAID = [
    ("say", 0, 3000, "Hello, this is Mia of Aurora. How can I help?"),
    ("speech", 4000, 7000, "How long do I have to return my lamp?"),
    ("say", 8000, 11_000, "You can get a refund within 60 days of purchase."),
    ("speech", 12_000, 13_000, "Great, thank you, bye."),
]
TURNS = [
    {"role": "assistant" if kind == "say" else "user", "content": text, "start_ms": start, "end_ms": end}
    for kind, start, end, text in SAID
]
WRONG = {
    "agent_id": 12,
    "start_time": "2026-04-20T18:21:00Z",
    "duration_seconds": 13,
    "prompt_snapshot": PROMPT,
    "transcripts": TURNS,
}
BUSY = json.loads(JOB)["attempts"][0]
START = BUSY["call"]["createdAt"]
RETRY = {"type": "fixed-delay", "delay": 300_000, "maxRetries": 1}


def card(severity: str = "high", **content: Any) -> dict[str, Any]:
    return {"title": "Agent skipped a step", "severity": severity, "category": "Routing", **content}


def link(number: int | str, kind: str = "call") -> dict[str, str]:
    return {"resource_type": kind, "resource_id": str(number)}


def listed(caller: Caller, **query: Any) -> list[dict[str, Any]]:
    return list(caller.get(TRIAGE, **query)["data"]["items"])


def timeline(caller: Caller, path: str) -> list[dict[str, Any]]:
    return list(caller.get(f"{path}/activity", limit=100)["data"]["items"])[::-1]


def tied(caller: Caller, kind: str, key: object) -> dict[str, set[str]]:
    """What an object is tied to, kind by kind."""
    shown = caller.get(f"/v1/links/{kind}/{key}")
    assert not shown["more"]
    found: dict[str, set[str]] = {}
    for one in shown["links"]:
        found.setdefault(one["kind"], set()).add(one["id"])
    return found


def without_call(number: int, **content: Any) -> dict[str, Any]:
    """An attempt in which nobody spoke, so that it becomes no call."""
    call = {"status": "completed", "direction": "outbound", "from": "1000", "to": "6002", "createdAt": START}
    return {
        "callId": f"call-{number}",
        "attempt": number,
        "call": call,
        "outcome": "completed",
        "events": [],
        **content,
    }


def talk(turns: int) -> list[dict[str, Any]]:
    """What a caller goes on to say; no packing makes it much smaller."""
    chance = random.Random(5)
    return [
        {
            "role": "user",
            "content": "".join(chance.choices(ascii_letters, k=12_000)),
            "start_ms": at * 1000,
            "end_ms": at * 1000 + 900,
        }
        for at in range(14, 14 + turns)
    ]


def noise(characters: int) -> dict[str, Any]:
    """An event that no packing makes much smaller."""
    return {"type": "note", "timestamp": START, "data": {"text": secrets.token_urlsafe(characters * 3 // 4)}}


@dataclass
class Scene:
    """What is started at once, so that the waiting for it is done together.

    `loop` has three calls with the same wrong answer, one of them too long for a row, and wants triage. `phone`, where
    one report opens an issue, has a job whose attempts are told over HTTP (`job`) and one whose attempt is told over
    the bus (`bus_job`). `storm` calls one number again and again. `heard` is a queue that hears the bus.
    """

    world: World
    loop: Caller
    phone: Caller
    storm: Caller
    heard: str
    job: str = ""
    bus_job: str = "job.of-the:bus@1"

    def choose(self, caller: Caller, option: str, value: str) -> str:
        return self.run("orgs", "set", caller.org, option, value)

    def run(self, *words: str, typed: str | None = None) -> str:
        """What a command prints that works on this stack."""
        where = {"FIXLOOP_DIRECTORY": str(self.world.directory)}
        done = CliRunner().invoke(app, ["--local", *words], input=typed, env=where)
        assert done.exit_code == 0, done.output
        return done.output

    def tell(self) -> None:
        said = self.phone("POST", "/call-requests", {"didId": "d", "contactId": "c", "flowId": "f", "retry": RETRY})
        assert (said.status_code, said.json()["status"]) == (202, "queued")
        self.job = said.json()["jobId"]
        report = {**BUSY, "callId": "bus-call", "call": {**BUSY["call"], "to": "6003"}, "outcome": "no_answer"}
        detail = {
            "type": "call.attempt.completed",
            "org_id": self.phone.org,
            "time": "2025-12-16T11:15:08.000Z",
            "data": {"job_id": self.bus_job, "report": report},
        }
        self.world.put_event("call.attempt.completed", detail, source="acme.telephony", times=2)
        for number in (2, 1, 3, 5, 4):
            attempt = {**BUSY, "attempt": number, "callId": f"storm-{number}"}
            self.storm.ok("PUT", f"/call-report/storm/attempts/{number}", attempt)

    def events(self) -> dict[str, dict[str, Any]]:
        """What the queue has heard of `phone`, by type."""
        sqs, found = self.world.client("sqs"), {}
        while got := sqs.receive_message(QueueUrl=self.heard, MaxNumberOfMessages=10).get("Messages", []):
            for message in got:
                detail = json.loads(message["Body"])["detail"]
                if detail["org_id"] == self.phone.org:
                    found[detail["type"]] = detail["data"]
                sqs.delete_message(QueueUrl=self.heard, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture(scope="module", autouse=True)
def scene(world: World) -> Iterator[Scene]:
    sqs, events, bus = world.client("sqs"), world.client("events"), world.stack.outputs["BusName"]
    queue = sqs.create_queue(QueueName="acme-telephony")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"detail-type": ["call_request.queued", "call.attempt.completed", "attempt.recorded"]}
    rule = {"Rule": "acme-telephony", "EventBusName": bus}
    events.put_rule(Name=rule["Rule"], EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(**rule, Targets=[{"Id": "queue", "Arn": arn}])
    made = Scene(world, world.caller(), world.caller(), world.caller(), queue)
    assert "triage: on" in made.choose(made.loop, "--triage", "on")
    assert "grouping threshold: 1" in made.choose(made.phone, "--grouping-threshold", "1")
    bodies = {1: WRONG, 2: WRONG, 3: {**WRONG, "transcripts": [*TURNS, *talk(45)]}}
    at_once(lambda number: made.loop.ok("PUT", f"/v1/calls/{number}", bodies[number]), bodies, clients=3)
    made.tell()
    yield made
    events.remove_targets(**rule, Ids=["queue"])
    events.delete_rule(Name=rule["Rule"], EventBusName=bus)
    sqs.delete_queue(QueueUrl=queue)


# Triage


def test_triage_issues_are_found_by_every_filter_and_paged_while_they_change(caller: Caller) -> None:
    caller.ok("PUT", "/v1/calls/1", {"agent_id": 12})
    refused = caller("POST", TRIAGE, card(resource_links=[link(1), link(404)]))
    assert (refused.status_code, refused.json()["errors"][0]["error"]) == (404, "not_found")
    assert listed(caller) == []

    def make(number: int) -> dict[str, Any]:
        content = card(
            severity=("critical", "high", "medium", "low")[number % 4],
            title=f"Agent {('skipped', 'repeated')[number % 2]} step {number}",
            status=("todo", "in_progress", "done")[number % 3],
            category=("Routing", "routing", "Tools")[number % 3],
            assignee_id=("ann", None)[number % 2],
            resource_links=[link(1), link("sms", "sms_conversation")][: number % 3],
        )
        return dict(caller.ok("POST", TRIAGE, content)["data"])

    made = at_once(make, range(12), clients=3)
    assert len({one["number"] for one in made}) == 12
    newest = sorted(made, key=lambda one: one["id"], reverse=True)
    in_order = {"sort": "created_at", "limit": 100}
    filters: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        ({}, lambda one: True),
        ({"status": ["todo", "in_progress"]}, lambda one: one["status"] != "done"),
        ({"severity": "critical"}, lambda one: one["severity"] == "critical"),
        ({"category": "ROUTING", "severity": ["low", "high"]}, lambda one: one["number"] in routed),
        ({"resource_type": "call"}, lambda one: one["resource_count"] > 0),
        ({"resource_type": "sms_conversation"}, lambda one: one["resource_count"] == 2),
        ({"assignee_id": "ann", "date_range": "24h"}, lambda one: one["assignee_id"] == "ann"),
        ({"search": "skip STEP"}, lambda one: "skipped" in one["title"]),
        ({"search": "nobody"}, lambda one: False),
    ]
    routed = {one["number"] for one in made if one["category"] != "Tools" and one["severity"] in ("low", "high")}
    for query, wanted in filters:
        assert listed(caller, **query, **in_order) == [one for one in newest if wanted(one)], query

    # Some change between two pages: some that the reader has met, and some that were to come.
    to_change = random.Random(2).sample([one["id"] for one in made], 6)
    met, cursor = [], {}
    while True:
        page = caller.get(TRIAGE, limit=3, **cursor)["data"]
        met += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        for key in to_change[:2]:
            caller.ok("PATCH", f"{TRIAGE}/{key}", {"status": "in_review"})
        del to_change[:2]
    after = listed(caller, limit=100)
    unchanged = [one["id"] for one in after if one["status"] != "in_review"]
    assert 6 <= len(unchanged) < len(after) == 12
    assert [key for key in met if key in unchanged] == unchanged
    assert len(met) == len(set(met))
    foreign = caller("GET", TRIAGE, params={**cursor, "status": "todo"})
    assert (foreign.status_code, foreign.json()["errors"][0]["error"]) == (400, "bad_request")


def test_a_triage_issue_is_worked_on_and_goes_with_all_that_hangs_on_it(caller: Caller) -> None:
    caller.ok("PUT", "/v1/calls/7", {"agent_id": 12})
    caller.ok("PUT", "/v1/calls/8", {"agent_id": 12})
    other, issue = (
        caller.ok("POST", TRIAGE, card(title=title, resource_links=[link(7)]))["data"] for title in ("Other", "Mine")
    )
    assert (issue["resource_count"], issue["has_unread_activity"]) == (1, False)
    path = f"{TRIAGE}/{issue['id']}"

    # Evidence.
    assert caller.ok("PUT", f"{path}/calls/8")["data"]["resource_count"] == 2
    told = {"call_id": "8", "type": "wrongDay", "note": "Said Monday.", "message_index": 2}
    flag = caller.ok("POST", f"{path}/flags", told)["data"]
    assert flag["type"] == "wrong_day"
    elsewhere = caller("POST", f"{path}/flags", {**told, "call_id": "9"})
    assert (elsewhere.status_code, elsewhere.json()["errors"][0]["error"]) == (409, "call_not_attached")
    assert caller.get("/v1/triage/flag-types")["data"]["items"][0]["usage_count"] == 1
    relation = {"related_issue_id": other["id"], "relation_type": "blocks"}
    assert [caller("POST", f"{path}/relations", relation).status_code for _ in range(2)] == [201, 200]
    (seen,) = caller.get(f"{TRIAGE}/{other['id']}/relations")["data"]["items"]
    assert (seen["direction"], seen["related_title"]) == ("incoming", "Mine")
    assert [one["call_id"] for one in caller.get(f"{path}/affected")["data"]["calls"]] == ["7", "8"]
    assert tied(caller, "triage_issue", issue["id"])["call"] == {"7", "8"}

    # Work.
    changes = {"status": "in_progress", "severity": "low", "category": "Billing", "assignee_id": "ann"}
    assert caller.ok("PATCH", path, changes)["data"].items() >= changes.items()
    caller.ok("POST", f"{path}/comments", {"detail": "Seen on two more calls today."})
    assert caller.get(path)["data"]["has_unread_activity"] is True
    caller.ok("PUT", f"{path}/view")
    assert caller.get(path)["data"]["has_unread_activity"] is False
    assert [caller("POST", "/v1/triage/categories", {"name": name}).status_code for name in ("Billing", "billing")] == [
        201,
        200,
    ]
    assert "Billing" in [one["name"] for one in caller.get("/v1/triage/categories")["data"]["items"]]
    assert caller("DELETE", f"{path}/calls/8").status_code == 204
    assert [one["resource_id"] for one in caller.get(f"{path}/resources")["data"]["items"]] == ["7"]
    entries = timeline(caller, path)
    assert [one["type"] for one in entries if one["type"].endswith("changed")] == [
        "status_changed",
        "severity_changed",
        "category_changed",
        "assignee_changed",
    ]
    kinds = {"created", "resource_added", "resource_removed", "flag_added", "relation_added", "comment"}
    assert {one["type"] for one in entries if not one["type"].endswith("changed")} == kinds

    # It goes, and nothing is left of it but the calls.
    assert caller("DELETE", path).status_code == 204
    assert [caller("GET", gone).status_code for gone in (path, f"{path}/activity", f"{path}/flags")] == [404] * 3
    assert caller.get(f"{TRIAGE}/{other['id']}/relations")["data"]["items"] == []
    assert [one["id"] for one in listed(caller)] == [other["id"]]
    assert caller.get("/v1/triage/flag-types")["data"]["items"][0]["usage_count"] == 0
    assert caller("GET", "/v1/calls/8").status_code == 200


# App issues


def test_app_issues_are_counted_right_while_many_report_and_review_them(world: World, caller: Caller) -> None:
    types = ("NoAnswer", "Inaccurate", "NoContextUsed", "Format")

    def work(client: int) -> list[dict[str, Any]]:
        """Two issues of each client: an anonymous one that is left alone, and one that is closed or deleted."""
        body = {"resource_type": "Thread", "type": types[client % 4], "project_id": f"p{client // 4}"}
        left = caller.ok("POST", APP_ISSUES, {**body, "description": "No ANSWER", "anonymous": True})
        mine = caller.ok("POST", APP_ISSUES, {**body, "description": "Wrong answer"})
        path = f"{APP_ISSUES}/{mine['id']}"
        if client % 2:
            assert caller("DELETE", path).status_code == 204
            assert caller("GET", path).status_code == 404
        else:
            assert caller.ok("PATCH", path, {"is_read": True})["is_read"] is True
            mine = caller.ok("PUT", path, {"state": "Closed"})
            assert (mine["state"], mine["is_read"]) == ("Closed", False)
        return [left, mine]

    done = at_once(work, range(8), clients=8)
    everything = sorted((one for made in done for one in made), key=lambda one: one["issue_number"])
    numbers = [one["issue_number"] for one in everything]
    assert len(set(numbers)) == 16  # one that got lost on its way to us is never given again
    assert numbers[0] == 1
    assert ["created_by" in one for one in done[0]] == [False, True]

    def total(**query: Any) -> int:
        page = caller.get(APP_ISSUES, page_size=2, **query)
        assert len(page["data"]) == min(2, page["total_count"])
        assert page["has_next_page"] == (page["total_count"] > 2)
        return int(page["total_count"])

    assert total() == 12
    assert total(states="NotReviewed") == 8
    assert total(states="Closed") == total(states=["Deleted"]) == 4
    assert total(type="NoAnswer,Format") == 6
    assert total(type=["Inaccurate", "Format"], states="Closed,Deleted") == 4
    assert total(created_by=done[0][1]["created_by"]["id"]) == 4
    assert total(projects="p1", states="Closed") == 2
    assert total(filter_by_text="no answer") == 8
    shown = [one for client, made in enumerate(done) for one in made[: 2 - client % 2]]
    shown.sort(key=lambda one: one["issue_number"])
    assert caller.get(APP_ISSUES, page_size=100, page_order="ASC")["data"] == shown
    page = caller.get(APP_ISSUES, page_size=5, page_order="ASC", after=shown[4]["id"])
    assert (page["data"], page["has_previous_page"]) == (shown[5:10], True)

    stranger = world.caller(caller.org, user=User(id=99, name="Nobody", roles=["AppUser"]))
    refused = stranger("PATCH", f"{APP_ISSUES}/{shown[0]['id']}", {"state": "Closed"})
    assert (refused.status_code, list(refused.json())) == (403, ["message"])


# Call reports


def spoken() -> dict[str, Any]:
    """The published report of an answered call with a conversation in it, as the second attempt."""
    report = json.loads(CALL)
    report |= {"attempt": 2}
    report["flowExecution"]["finalVariables"] |= {"agent.id": 12, "agent.prompt": PROMPT, "ratio": 1.0}
    for kind, start, end, text in SAID:
        data = {"startMs": start, "endMs": end, "text": text}
        report["events"].append({"type": kind, "timestamp": "2025-12-18T14:17:36.100Z", "data": data})
    return report


@pytest.fixture(scope="module")
def told(scene: Scene) -> list[httpx.Response]:
    """The answers to telling of both attempts of `job`: of the second one, of the first, and of the second again."""
    phone, path = scene.phone, f"/call-report/{scene.job}/attempts"
    assert phone.get(f"/api/call-report/{scene.job}") == {"jobId": scene.job, "status": "queued", "attempts": []}
    return [
        phone("PUT", f"{path}/2", spoken()),
        phone("PUT", f"/api{path}/1", BUSY),
        phone("PUT", f"{path}/2", spoken()),
    ]


def test_attempts_are_told_in_any_order_and_shown_to_the_digit(scene: Scene, told: list[httpx.Response]) -> None:
    phone, second = scene.phone, spoken()
    assert [answer.status_code for answer in told] == [201, 201, 200]
    written = json.dumps(second, ensure_ascii=False, separators=(",", ":"))
    assert '"totalCost":1.875075' in written
    assert '"ratio":1.0' in written
    for prefix in ("/call-report", "/api/call-report"):
        of_call, of_job = phone("GET", f"{prefix}/call/{second['callId']}"), phone("GET", f"{prefix}/{scene.job}")
        assert of_call.text == told[0].text == told[2].text == written
        assert written in of_job.text
        assert of_job.json() == {
            "jobId": scene.job,
            "status": "completed",
            "finalOutcome": "completed",
            "attempts": [BUSY, second],
        }
    wrong = phone("PUT", f"/call-report/{scene.job}/attempts/3", {**second, "attempt": 3})
    assert (wrong.status_code, wrong.json()["error"]) == (409, "ConflictException")
    assert scene.world.caller()("GET", f"/call-report/{scene.job}").status_code == 404


def test_a_timeline_that_fits_no_row_lies_in_the_bucket_until_it_is_replaced(scene: Scene, caller: Caller) -> None:
    def stored() -> int:
        bucket = scene.world.stack.outputs["BlobsBucket"]
        return int(scene.world.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{caller.org}/")["KeyCount"])

    long, short = without_call(1, events=[noise(700_000)]), without_call(1)
    assert caller("PUT", "/call-report/long/attempts/1", long).status_code == 201
    assert stored() == 1
    assert caller.get("/call-report/long")["attempts"] == [long]
    assert caller.get("/call-report/call/call-1") == long
    assert caller("PUT", "/call-report/long/attempts/1", short).status_code == 200
    assert caller.get("/call-report/long")["attempts"] == [short]
    assert stored() == 0


def test_a_report_too_large_for_an_answer_is_read_where_the_answer_points(scene: Scene, caller: Caller) -> None:
    bodies = [without_call(number, events=[noise(950_000)]) for number in range(1, 7)]
    path = "/call-report/large"
    at_once(lambda body: caller.ok("PUT", f"{path}/attempts/{body['attempt']}", body), bodies, clients=3)
    answer = caller("GET", path)
    assert (answer.status_code, answer.json()["statusCode"]) == (307, 307)
    lent = httpx.get(answer.headers["Location"], trust_env=False)
    assert (lent.status_code, lent.headers["Content-Type"]) == (200, "application/json")
    assert len(lent.content) > 5_500_000
    assert lent.json() == {"jobId": "large", "status": "completed", "finalOutcome": "completed", "attempts": bodies}
    followed = scene.world.http.get(path, headers={"x-api-key": caller.key}, follow_redirects=True)
    assert (followed.status_code, followed.content) == (200, lent.content)
    assert caller.get("/call-report/call/call-6") == bodies[5]


# Joined to the loop


@pytest.fixture(scope="module")
def opened(scene: Scene) -> dict[str, Any]:
    """The triage issue for the three calls, once all of them are in it and the loop has an issue for them too."""

    def found() -> list[dict[str, Any]]:
        there = [one for one in listed(scene.loop) if one["resource_count"] == one["flag_count"] == 3]
        return [one for one in there if "issue" in tied(scene.loop, "triage_issue", one["id"])]

    cards = eventually(found)
    assert len(cards) == 1, listed(scene.loop)
    return cards[0]


def test_calls_that_fail_alike_are_one_triage_issue_with_the_calls_attached(
    scene: Scene, opened: dict[str, Any]
) -> None:
    loop, path = scene.loop, f"{TRIAGE}/{opened['id']}"
    assert [one["id"] for one in listed(loop)] == [opened["id"]]
    assert (opened["source"], opened["author_id"], opened["category"]) == ("automated", None, "Dialogue")
    assert {one["resource_id"] for one in loop.get(f"{path}/resources")["data"]["items"]} == {"1", "2", "3"}
    for flag in loop.get(f"{path}/flags")["data"]["items"]:
        assert (flag["message_index"], "60 days" in flag["message_text"]) == (2, True)
    (issue,) = loop.get("/api/v2/issues")["data"]
    assert issue["title"] == opened["title"]
    of_issue = tied(loop, "issue", issue["id"])
    assert (of_issue["triage_issue"], of_issue["call"]) == ({opened["id"]}, {"1", "2", "3"})
    assert len(of_issue["trace"]) == len(of_issue["report"]) == 3
    of_card = tied(loop, "triage_issue", opened["id"])
    assert (of_card["issue"], of_card["call"]) == ({issue["id"]}, {"1", "2", "3"})
    assert "triage_issue" not in of_card
    for kind, key in (("call", 1), ("report", min(of_issue["report"])), ("trace", min(of_issue["trace"]))):
        assert tied(loop, kind, key)["issue"] == {issue["id"]}


def asked(caller: Caller, issue_id: str, detail: str) -> list[dict[str, Any]]:
    """What the agent leaves in the timeline when it is asked, in the order it happened."""
    path = f"{TRIAGE}/{issue_id}"
    session = caller.get(path)["data"]["latest_agent_session"] or caller.ok("POST", f"{path}/agent-sessions")["data"]
    told = caller.ok("POST", f"{path}/agent-sessions/{session['id']}/prompts", {"detail": detail})["data"]
    assert eventually(lambda: caller.get(path)["data"]["is_processing"], lambda busy: busy is False) is False
    return [one for one in timeline(caller, path) if (one["metadata"] or {}).get("run_id") == told["run_id"]]


@pytest.fixture(scope="module")
def verified(scene: Scene, opened: dict[str, Any]) -> tuple[str, str]:
    """The ids of the fix that the agent has drafted and of the shadow test that it has begun."""
    loop, key = scene.loop, opened["id"]
    assert "There is no fix yet" in asked(loop, key, "status")[-1]["detail"]
    entries = asked(loop, key, "/fix what it says about refunds")
    assert {one["type"] for one in entries} >= {"action", "thought", "artifact", "response"}
    assert {one["actor"]["kind"] for one in entries if one["type"] != "prompt"} == {"agent"}
    (fix,) = loop.get("/api/fixes")["data"]
    assert next(one["artifact"]["id"] for one in entries if one["type"] == "artifact") == fix["id"]
    assert "Refunds are possible within 30 days of purchase." in fix["changes"]["promptDiff"]
    begun = asked(loop, key, "verify it")
    return fix["id"], next(one["artifact"]["id"] for one in begun if one["type"] == "artifact")


def test_the_model_that_an_organisation_chose_drafts_its_fixes(scene: Scene, caller: Caller) -> None:
    prompt, right = PROMPT.replace("30 days", "60 days"), PROMPT.splitlines()[1]
    diff = f"- {right.replace('30 days', '60 days')}\n+ {right} Ask for the receipt."

    def answer(body: dict[str, Any]) -> str:
        mark = re.match(r"<data (\w+)>", body["messages"][-1]["content"])
        assert mark
        changes = {"promptDiff": diff}
        return json.dumps({"id": mark[1], "type": "prompt_update", "changes": changes, "rationale": "It is 30 days."})

    with ModelServer(answer) as server:
        where = ["--base-url", server.url, "--org", caller.org, "--api-key-stdin"]
        scene.run("models", "add", "acme", *where, typed="key-of-the-endpoint\n")
        assert "triage: on" in scene.choose(caller, "--triage", "on")
        assert "triage model: openai:acme/small" in scene.choose(caller, "--triage-model", "openai:acme/small")
        agent = caller.ok("POST", "/api/agents", {"name": "Mia", "systemPrompt": prompt})["data"]["id"]
        trace = {
            "agentId": agent,
            "systemPrompt": prompt,
            "userMessage": "How long do I have to return my lamp?",
            "agentResponse": "You can get a refund within 60 days of purchase.",
            "reference": right,
        }
        traces = [caller.ok("POST", "/api/traces", trace)["data"]["traceId"] for _ in range(2)]
        issue = {"title": "Wrong period", "agentId": agent, "severity": "high", "traceIds": traces}
        caller.ok("POST", "/api/v2/issues", issue)
        (opened,) = eventually(lambda: listed(caller))
        entries = asked(caller, opened["id"], "fix and have it ask for the receipt")
        (fix,) = caller.get("/api/fixes")["data"]
        assert fix["changes"] == {"promptDiff": diff}, entries
        assert fix["description"] == "Drafted by Norm with openai:acme/small: It is 30 days."
        assert [body["model"] for body in server.bodies] == ["small"]
        begun = asked(caller, opened["id"], "verify")
        test = next(one["artifact"]["id"] for one in begun if one["type"] == "artifact")
        shown = eventually(lambda: caller.get(f"/api/shadow-tests/{test}")["data"], lambda one: one["status"] in ENDED)
        assert shown["results"]["improved"] == 2


def test_people_report_an_answer_and_are_heard_when_its_triage_issue_is_done(
    scene: Scene, opened: dict[str, Any], verified: tuple[str, str]
) -> None:
    loop = scene.loop
    trace = min(tied(loop, "issue", loop.get("/api/v2/issues")["data"][0]["id"])["trace"])
    body = {"resource_type": "Thread", "type": "Inaccurate", "description": "It is 30.", "config": {"thread_id": trace}}
    filed = [loop.ok("POST", APP_ISSUES, body)["id"] for _ in range(3)]
    cards = eventually(lambda: [one for one in listed(loop) if one["id"] != opened["id"]])
    assert [one["title"] for one in cards] == ["Inaccurate answer: It is 30."]
    (issue,) = tied(loop, "triage_issue", cards[0]["id"])["issue"]
    assert eventually(lambda: tied(loop, "issue", issue).get("app_issue"), lambda ids: ids == set(filed)) == set(filed)
    assert tied(loop, "app_issue", filed[0]).items() >= {"triage_issue": {cards[0]["id"]}, "trace": {trace}}.items()
    loop.ok("PATCH", f"{TRIAGE}/{cards[0]['id']}", {"status": "done"})
    closed = eventually(lambda: loop.get(APP_ISSUES, states="Closed")["total_count"], lambda total: total == 3)
    assert closed == 3
    assert loop.get(f"/api/v2/issues/{issue}")["data"]["status"] == "closed"
    assert loop.get(f"{TRIAGE}/{opened['id']}")["data"]["status"] == "todo"


def test_attempts_become_calls_that_are_graded_whoever_told_of_them(scene: Scene, told: list[httpx.Response]) -> None:
    phone = scene.phone
    calls = eventually(lambda: phone.get("/v1/calls")["results"], lambda found: len(found) == 3)
    assert sorted(str(one["end_reason"]) for one in calls) == ["None", "busy", "no_answer"]
    grades = phone.ended(*(one["call_id"] for one in calls))
    for one in calls:
        spoke = one["end_reason"] is None
        assert (grades[one["call_id"]]["call_outcome"] == "no_conversation") is not spoke
        if spoke:
            assert any("60 days" in str(issue) for issue in grades[one["call_id"]]["detected_issues"])
            assert phone.get(f"/v1/calls/{one['call_id']}/transcript")["transcripts"][2]["content"] == SAID[2][3]
    assert tied(phone, "call_report", BUSY["callId"])["job"] == {scene.job}
    of_job = tied(phone, "job", scene.job)
    assert of_job["call_report"] == {BUSY["callId"], spoken()["callId"]}
    assert of_job["call"] | tied(phone, "job", scene.bus_job)["call"] == {str(one["call_id"]) for one in calls}
    assert phone.get("/call-report/call/bus-call")["outcome"] == "no_answer"


def test_an_issue_tells_what_its_calls_cost_also_when_that_is_corrected(
    scene: Scene, told: list[httpx.Response]
) -> None:
    phone = scene.phone

    def costs() -> list[float | None]:
        issues = [phone.get(f"/api/v2/issues/{one['id']}")["data"] for one in phone.get("/api/v2/issues")["data"]]
        return [one["metadata"]["affectedCost"] for one in issues]

    assert eventually(costs, lambda found: found == [1.875075]) == [1.875075]
    corrected = {**spoken(), "billing": {"nodes": [], "totalCost": 0}}
    phone.ok("PUT", f"/call-report/{scene.job}/attempts/2", corrected)
    assert eventually(costs, lambda found: found == [0]) == [0]
    assert listed(phone) == []  # this organisation has not asked for triage


def test_attempts_that_show_something_only_together_are_reported(scene: Scene) -> None:
    reports = eventually(lambda: scene.storm.get("/v1/issue-reports"), lambda found: len(found) == 2)
    assert sorted(one["detected_issue_ref"] for one in reports) == ["number-always-failing", "retry-storm"]
    assert {(one["source"], one["metadata"]["number"]) for one in reports} == {("system", BUSY["call"]["to"])}


def test_who_listens_on_the_bus_hears_what_is_asked_for_and_what_is_recorded(
    scene: Scene, told: list[httpx.Response]
) -> None:
    heard: dict[str, dict[str, Any]] = {}
    wanted = {"call_request.queued", "call.attempt.completed", "attempt.recorded"}
    eventually(lambda: heard.update(scene.events()) or set(heard) == wanted)
    assert set(heard) == wanted
    queued = heard["call_request.queued"]
    assert (queued["job_id"], queued["attempts"], queued["request"]["retry"]) == (scene.job, 2, RETRY)


def test_a_verified_fix_is_told_and_closes_the_triage_issue_when_it_is_applied(
    scene: Scene, opened: dict[str, Any], verified: tuple[str, str]
) -> None:
    loop, (fix, test) = scene.loop, verified
    shown = eventually(lambda: loop.get(f"/api/shadow-tests/{test}")["data"], lambda one: one["status"] in ENDED)
    assert (shown["status"], shown["results"]["improved"]) == ("completed", 3)
    assert "3 improved" in asked(loop, opened["id"], "status")[-1]["detail"]
    assert tied(loop, "fix", fix).items() >= {"shadow_test": {test}, "triage_issue": {opened["id"]}}.items()
    assert tied(loop, "shadow_test", test)["fix"] == {fix}
    assert tied(loop, "agent", "agent_12").items() >= {"call": {"1", "2", "3"}}.items()
    loop.ok("PATCH", f"/api/fixes/{fix}", {"status": "applied"})
    path = f"{TRIAGE}/{opened['id']}"
    assert eventually(lambda: loop.get(path)["data"]["status"], lambda status: status == "done") == "done"
    (moved,) = (one for one in timeline(loop, path) if one["type"] == "status_changed")
    assert (moved["actor"]["kind"], moved["from_status"], moved["to_status"]) == ("system", "todo", "done")


def test_no_function_was_refused_what_it_asked_for(world: World) -> None:
    logs = world.client("logs")
    pages = logs.get_paginator("describe_log_groups").paginate()
    groups = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    found = logs.get_paginator("filter_log_events")

    def said(words: str, group: str) -> list[str]:
        pages = found.paginate(logGroupName=group, filterPattern=words)
        return [one["message"] for page in pages for one in page["events"]]

    assert not [message for group in groups for message in said("AccessDenied", group)]
    assert sum(bool(said("START", group)) for group in groups) > 15
