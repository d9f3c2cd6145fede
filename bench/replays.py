"""Shadow tests against a provider of known latency and cap: the worker alone, and the whole path on the local stack.

Every trace's result is stored before its time counts. The stack is one of its own in a folder that goes with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.world import ROOT
from fixloop import rehearsal
from fixloop.fixes import Fix
from fixloop.models import Endpoint
from fixloop.shadow_tests import Config, ShadowTest
from fixloop.storage import endpoints, fixes, shadow_tests, traces
from fixloop.thinkhive import identifier
from fixloop.traces import Document, Trace
from fixloop_cli import local
from fixloop_cli.caller import Caller
from fixloop_cli.manage import working_on

LATENCY = 0.1  # seconds
MANY, FEW = 1000, 300
IN_FLIGHT = 50
CAP = 20  # requests a second
MOST_WORKER, MOST_PATH = 4.0, 15.0
MOST_CAPPED = 1.1 * FEW / CAP  # seconds
MOST_ASKED = round(1.1 * FEW)
PROMPT = "You are Mia.\nAnswer refund questions using the knowledge base.\nBe brief."
CHANGES = {
    "promptDiff": "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Returns are possible within 30 days of purchase."
}


@contextmanager
def provider(cap: int | None = None) -> Iterator[tuple[str, Any]]:
    """A model server in a process of its own: its URL, and a function that tells what it has counted."""
    command = [sys.executable, "-m", "bench.model_server", "--latency", str(LATENCY)]
    command += ["--cap", str(cap)] if cap else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()

            def counted() -> dict[str, int]:
                with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=10) as answer:  # noqa: S310
                    return dict(json.load(answer))

            yield url, counted
        finally:
            process.kill()


def measure(say: Any = lambda _: None) -> list[dict[str, Any]]:
    """One line per measurement: seconds, calls that the provider saw, results that were stored."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        try:
            stack = local.up(ROOT, directory, say=say)
            with working_on(stack.outputs, stack.client):
                return _measured(stack, say)
        finally:
            local.down(directory)


def _measured(stack: local.Stack, say: Any) -> list[dict[str, Any]]:
    caller, org = Caller(stack.url, stack.api_key), stack.org_id
    say(f"Storing {MANY} traces")
    ids = _traces(org, MANY)
    fix = _fix(org)
    found = []
    say("The worker alone")
    with provider() as (url, counted):
        endpoints.put(org, "free", Endpoint(url))
        found += [_alone(org, ids, fix, counted) for _ in range(2)]
    say("The whole path")
    with provider() as (url, counted):
        endpoints.put(org, "path", Endpoint(url))
        found += [_through(caller, fix, ids, "openai:path/small", counted) for _ in range(2)]
    say(f"{FEW} traces against {CAP} requests a second")
    with provider(CAP) as (url, counted):
        endpoints.put(org, "capped", Endpoint(url))
        found.append(_alone(org, ids[:FEW], fix, counted, "openai:capped/small"))
    with provider(CAP) as (url, counted):
        endpoints.put(org, "capped2", Endpoint(url))
        found.append(_through(caller, fix, ids[:FEW], "openai:capped2/small", counted))
    return found


def _traces(org: str, count: int) -> list[str]:
    now = int(time.time() * 1000)

    def one(number: int) -> str:
        trace = Trace(
            id=identifier("tr", now, number),
            agent_id="agent_bench",
            system_prompt=PROMPT,
            user_message=f"How long can I return tent number {number}?",
            recorded_response="You can return it within 60 days of purchase.",
            context=[Document(id="policy", text="Returns are possible within 30 days of purchase.")],
            created_at=now,
        )
        traces.add(org, trace, now)
        return trace.id

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def _fix(org: str) -> str:
    n, at = fixes.number(org, int(time.time() * 1000))
    fix = Fix(
        id=identifier("fix", at, 0),
        n=n,
        issue_id=None,
        type="prompt_update",
        status="draft",
        description="Say it",
        changes=CHANGES,
        author="user_1",
        created_at=at,
        updated_at=at,
    )
    fixes.add(org, fix)
    return fix.id


def _alone(org: str, ids: list[str], fix: str, counted: Any, model: str = "openai:free/small") -> dict[str, Any]:
    """The worker in this process, from reading the traces to the last result stored."""
    n, at = shadow_tests.number(org, int(time.time() * 1000))
    test_id = identifier("st", at, n)
    test = ShadowTest(
        id=test_id,
        n=n,
        fix_id=fix,
        fix_type="prompt_update",
        changes=CHANGES,
        status="running",
        trace_count=len(ids),
        config=Config(model=model),
        traces=shadow_tests.keep_traces(org, test_id, ids),
        author="user_1",
        created_at=at,
        updated_at=at,
    )
    shadow_tests.add(org, test)
    batch = rehearsal.Batch(org=org, test=test_id, batch=0, first=0, traceIds=ids, inFlight=IN_FLIGHT)
    before, started, cpu = counted()["asked"], time.monotonic(), time.process_time()
    rehearsal.replay_batch(batch, started + 300)
    seconds = time.monotonic() - started
    return {
        "what": "worker alone",
        "model": model,
        "traces": len(ids),
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "asked": counted()["asked"] - before,
        "stored": shadow_tests.sum_of_batches(org, test_id).replayed,
        "seen": 0,
    }


def _through(caller: Caller, fix: str, ids: list[str], model: str, counted: Any) -> dict[str, Any]:
    """From `POST /api/shadow-tests` to `completed`, looking at it twice a second as a user would."""
    before, started = counted()["asked"], time.monotonic()
    body = {"fixId": fix, "traceIds": ids, "config": {"model": model}}
    test = caller.ok("POST", "/api/shadow-tests", body)["data"]
    seen: set[int] = set()
    while test["status"] in ("pending", "running"):
        time.sleep(0.5)
        test = caller.ok("GET", f"/api/shadow-tests/{test['id']}?limit=1")["data"]
        seen.add((test.get("progress") or {}).get("done", 0))
    seconds = time.monotonic() - started
    results = test.get("results") or {}
    return {
        "what": "whole path",
        "model": model,
        "traces": len(ids),
        "seconds": seconds,
        "cpu": None,
        "asked": counted()["asked"] - before,
        "stored": sum(results.get(name, 0) for name in ("improved", "unchanged", "regressed")),
        "seen": len(seen - {0, len(ids)}),
    }


if __name__ == "__main__":
    for line in measure(lambda text: print(text, flush=True)):  # noqa: T201
        print(line)  # noqa: T201
