"""Shadow tests on the deployed stack: helped, refused, throttled, cancelled, stopped and killed on the way."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.model_server import ModelServer

from deployed.test_processes import family, needs_proc
from deployed.world import Caller, World, at_once, eventually
from fixloop import rehearsal
from fixloop.models import Endpoint
from fixloop.storage import endpoints
from fixloop_cli import local, manage
from fixloop_cli.main import app

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

PROMPT = "You are Mia.\nAnswer refund questions using the knowledge base.\nBe brief."
DIFF = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Returns are possible within 30 days of purchase."
)
WRONG, RIGHT = "You can return it within 60 days of purchase.", "You can return it within 30 days of purchase."
ENDED = ("completed", "failed")


def refusing(_: dict[str, Any]) -> Any:
    return 401, {}, b'{"error": {"message": "no such key"}}'


@dataclass
class Stage:
    """One organisation with a fix, traces, and providers to ask."""

    world: World
    caller: Caller
    fix: str = ""
    issue: str = ""
    traces: list[str] = field(default_factory=list)

    def prepare(self, traces: int) -> Stage:
        agent = self.caller.ok("POST", "/api/agents", {"name": "Mia", "systemPrompt": PROMPT})["data"]["id"]
        self.issue = self.caller.ok("POST", "/api/v2/issues", {"title": "Days", "agentId": agent})["data"]["id"]
        given = {"issueId": self.issue, "type": "prompt_update", "description": "x", "changes": {"promptDiff": DIFF}}
        self.fix = self.caller.ok("POST", "/api/fixes", given)["data"]["id"]
        self.traces = at_once(lambda _: self.trace(agent), range(traces), clients=4)
        return self

    def trace(self, agent: str, prompt: str = PROMPT) -> str:
        body = {
            "agentId": agent,
            "systemPrompt": prompt,
            "userMessage": "How long can I return a tent?",
            "agentResponse": WRONG,
            "context": [{"id": "policy", "text": "Returns are possible within 30 days of purchase."}],
        }
        return str(self.caller.ok("POST", "/api/traces", body)["data"]["id"])

    def provider(self, name: str, server: ModelServer) -> str:
        with manage.working_on(self.world.stack.outputs, self.world.stack.client):
            endpoints.put(self.caller.org, name, Endpoint(server.url, "secret"))
        return f"openai:{name}/small"

    def test(self, **config: Any) -> str:
        body = {"fixId": self.fix, "traceIds": self.traces, "config": config}
        return str(self.caller.ok("POST", "/api/shadow-tests", body)["data"]["id"])

    def shown(self, test_id: str) -> dict[str, Any]:
        return dict(self.caller.get(f"/api/shadow-tests/{test_id}")["data"])

    def ended(self, test_id: str) -> dict[str, Any]:
        shown = eventually(lambda: self.shown(test_id), lambda one: one["status"] in ENDED)
        assert shown["status"] in ENDED, shown
        return shown


@pytest.fixture(scope="module")
def stage(world: World) -> Stage:
    return Stage(world, world.caller()).prepare(12)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., ModelServer]]:
    with contextlib.ExitStack() as servers:
        yield lambda *given, **options: servers.enter_context(ModelServer(*given, **options))


@pytest.fixture(scope="module")
def running(stage: Stage, serve: Callable[..., ModelServer]) -> dict[str, str]:
    """Several tests started at once, so that the waiting for them is done together."""
    capped, refused = serve(lambda _: RIGHT, cap=6), serve(refusing)
    return {
        "helped": stage.test(),
        "throttled": stage.test(model=stage.provider("capped", capped)),
        "refused": stage.test(model=stage.provider("refused", refused)),
    }


def test_a_fix_that_helps_improves_every_trace_and_its_issue_is_testing(stage: Stage, running: dict[str, str]) -> None:
    shown = stage.ended(running["helped"])
    assert shown["results"] == {"improved": 12, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}
    assert [line["traceId"] for line in shown["traceResults"]] == stage.traces
    assert "30 days" in shown["traceResults"][0]["explanation"]
    assert stage.caller.get(f"/api/v2/issues/{stage.issue}")["data"]["status"] == "testing"
    assert running["helped"] in [
        one["id"] for one in stage.caller.get(f"/api/fixes/{stage.fix}")["data"]["shadowTests"]
    ]


def test_a_throttling_provider_gets_all_of_them_answered_in_the_end(stage: Stage, running: dict[str, str]) -> None:
    assert stage.ended(running["throttled"])["results"]["improved"] == 12


def test_a_provider_that_refuses_fails_the_test_and_says_why(stage: Stage, running: dict[str, str]) -> None:
    shown = stage.ended(running["refused"])
    assert shown["status"] == "failed"
    assert "did not accept the API key" in shown["results"]["error"]


def test_one_replay_is_answered_while_the_caller_waits(stage: Stage) -> None:
    given = {"fixId": stage.fix, "traceId": stage.traces[0]}
    shown = stage.caller.ok("POST", "/api/shadow-execution", given)["data"]
    assert (shown["verdict"], shown["originalOutput"]) == ("improved", WRONG)


def test_a_cancelled_test_stops_within_seconds_and_its_execution_too(
    stage: Stage, serve: Callable[..., ModelServer]
) -> None:
    server = serve(lambda _: RIGHT, latency=1.0)
    test_id = stage.test(model=stage.provider("slow", server), concurrency=1)
    assert eventually(lambda: server.asked) >= 1
    stage.caller.ok("PATCH", f"/api/shadow-tests/{test_id}", {"status": "failed", "results": {"error": "enough"}})
    started = time.monotonic()
    machine = stage.world.client("stepfunctions")
    with manage.working_on(stage.world.stack.outputs, stage.world.stack.client):
        arn = rehearsal.execution_arn(stage.caller.org, test_id)
    stopped = eventually(
        lambda: machine.describe_execution(executionArn=arn)["status"], lambda status: status != "RUNNING"
    )
    assert stopped in ("ABORTED", "SUCCEEDED")  # stopped, unless the worker saw it first and left nothing to stop
    assert time.monotonic() - started < 20
    asked = eventually(lambda: (server.asked, time.sleep(2.5), server.asked), lambda seen: seen[0] == seen[2])[2]
    assert asked < 12
    shown = stage.shown(test_id)
    assert (shown["status"], shown["results"]["error"]) == ("failed", "enough")
    assert shown["progress"]["done"] == len(shown["traceResults"]) < 12
    assert stage.caller("PATCH", f"/api/shadow-tests/{test_id}", {"status": "running"}).status_code == 409


@needs_proc
def test_a_worker_that_is_killed_is_run_again_for_what_is_missing(
    stage: Stage, serve: Callable[..., ModelServer]
) -> None:
    server = serve(lambda _: RIGHT, latency=0.4)
    test_id = stage.test(model=stage.provider("killed", server), concurrency=1)
    eventually(lambda: stage.shown(test_id).get("progress", {}).get("done", 0))
    done = stage.shown(test_id)["progress"]["done"]
    assert 0 < done < 12
    pid, _ = local.running(stage.world.directory)
    assert pid
    killed = 0
    for process in family(pid) - {pid}:
        with contextlib.suppress(OSError):
            if re.search("ReplayTraces", Path(f"/proc/{process}/cmdline").read_text()):
                os.kill(process, signal.SIGKILL)
                killed += 1
    assert killed
    shown = stage.ended(test_id)
    assert shown["results"] == {"improved": 12, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}
    assert server.asked <= 12 + 3  # what was under way when the worker died, and nothing that was stored


def test_an_execution_that_is_stopped_from_outside_ends_its_test(
    stage: Stage, serve: Callable[..., ModelServer]
) -> None:
    server = serve(lambda _: RIGHT, latency=1.0)
    test_id = stage.test(model=stage.provider("outside", server), concurrency=1)
    assert eventually(lambda: server.asked) >= 1
    with manage.working_on(stage.world.stack.outputs, stage.world.stack.client):
        arn = rehearsal.execution_arn(stage.caller.org, test_id)
    stage.world.client("stepfunctions").stop_execution(executionArn=arn)
    shown = eventually(lambda: stage.shown(test_id), lambda one: one["status"] in ENDED, seconds=60)
    assert shown["status"] == "failed"
    assert "the execution was stopped" in shown["results"]["error"]


def test_a_pipeline_passes_a_good_fix_and_stops_a_bad_one(
    stage: Stage, tmp_path: Path, serve: Callable[..., ModelServer]
) -> None:
    named = ["--url", stage.world.stack.url, "--api-key", stage.caller.key]
    run = ["shadow-test", "run", "--fix", stage.fix, "--traces", ",".join(stage.traces[:3]), *named]
    good = CliRunner().invoke(app, [*run, "--watch", "--junit", str(tmp_path / "good.xml")])
    assert good.exit_code == 0, good.output
    assert ElementTree.parse(tmp_path / "good.xml").getroot().get("tests") == "3"
    wrong = stage.provider("wrong", serve(lambda _: "You can return it within 90 days."))
    bad = CliRunner().invoke(app, [*run, "--model", wrong, "--markdown", str(tmp_path / "bad.md")])
    assert bad.exit_code == 1, bad.output
    assert "The bar is missed" in (tmp_path / "bad.md").read_text()


def test_an_issue_with_a_test_under_way_cannot_be_deleted(stage: Stage, serve: Callable[..., ModelServer]) -> None:
    server = serve(lambda _: RIGHT, latency=1.0)
    test_id = stage.test(model=stage.provider("busy", server), concurrency=1)
    assert stage.caller("DELETE", f"/api/v2/issues/{stage.issue}").status_code == 409
    stage.caller.ok("PATCH", f"/api/shadow-tests/{test_id}", {"status": "failed"})


def test_an_applied_fix_is_a_new_version_of_its_agent_and_closes_its_issue(stage: Stage) -> None:
    agent = stage.caller.get(f"/api/v2/issues/{stage.issue}")["data"]["agentId"]
    assert stage.caller.get(f"/api/agents/{agent}")["data"]["version"] == 1
    answers = at_once(lambda _: stage.caller("PATCH", f"/api/fixes/{stage.fix}", {"status": "applied"}), range(4))
    assert {answer.status_code for answer in answers} <= {200, 409}
    shown = stage.caller.get(f"/api/agents/{agent}")["data"]
    assert shown["version"] == 2
    assert "within 30 days of purchase" in shown["systemPrompt"]
    closed = eventually(
        lambda: stage.caller.get(f"/api/v2/issues/{stage.issue}")["data"]["status"], lambda status: status == "closed"
    )
    assert closed == "closed"
