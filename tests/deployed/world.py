"""The deployed stack as its users have it: callers over HTTP, tools on its AWS, and patience."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from fixloop.identity import Scope
from fixloop.storage import platform
from fixloop_cli import local, manage
from fixloop_cli.target import Target

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
CLIENTS = 16
SAMPLES: list[dict[str, Any]] = json.loads((ROOT / "samples" / "refunds.json").read_text())["calls"]

T = TypeVar("T")
R = TypeVar("R")


def eventually(ask: Callable[[], T], done: Callable[[T], Any] = bool, seconds: float = PATIENCE) -> T:
    """What `ask` says once it is `done`, or the last thing it said when that took too long."""
    deadline = time.monotonic() + seconds
    while not done(said := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return said


def at_once(work: Callable[[T], R], each: Iterable[T], clients: int = CLIENTS) -> list[R]:
    """`work` on each, as many at a time as there are clients."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(work, each))


@dataclass
class Caller:
    """A client with a key."""

    http: httpx.Client
    key: str
    org: str
    key_id: str

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return self.http.request(method, path, headers=headers, **options)

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that must be a success."""
        answer = self(method, path, body, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str, **query: Any) -> Any:
        return self.ok("GET", path, params=query)

    def ended(self, *call_ids: int) -> dict[int, dict[str, Any]]:
        """The calls' grades, once all of them are made."""

        def waiting() -> set[int]:
            calls = self.get("/v1/calls", limit=200)["results"]
            return set(call_ids) - {one["call_id"] for one in calls if one["grade_status"] not in (None, "pending")}

        left = eventually(waiting, lambda left: not left)
        assert not left, f"calls {sorted(left)} were not graded"
        return {call_id: self.get(f"/v1/calls/{call_id}/grade") for call_id in call_ids}

    def filed(self, grades: dict[int, dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
        """The graded calls' reports, once there are as many as issues were detected."""
        detected = sum(len(grade["detected_issues"]) for grade in grades.values())

        def counted() -> int:
            calls = self.get("/v1/calls", limit=200)["results"]
            return sum(call["issue_count"] for call in calls if call["call_id"] in grades)

        eventually(counted, lambda count: count >= detected)
        return {call_id: self.get(f"/v1/calls/{call_id}/issue-reports") for call_id in grades}


class World:
    """The stack in one directory, and everything a test does to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = local.up(ROOT, directory)
        self.http = httpx.Client(
            base_url=self.stack.url, timeout=120, trust_env=False, limits=httpx.Limits(max_connections=64)
        )

    def up(self) -> list[str]:
        """Starts the stack again and tells the steps it took."""
        steps: list[str] = []
        self.stack = local.up(ROOT, self.directory, say=steps.append)
        return steps

    def down(self) -> None:
        assert local.down(self.directory)

    def client(self, service: str) -> Any:
        return self.stack.client(service)

    @property
    def target(self) -> Target:
        return Target(self.stack.outputs, self.stack.client)

    def caller(self, org: str | None = None, **options: Any) -> Caller:
        """A client with a new write key, in a new organisation unless one is given."""
        with manage.working_on(self.stack.outputs, self.stack.client):
            org = org or platform.create_org("Aurora Labs", manage.now())
            key, principal = platform.create_key(
                org, manage.now(), **{"limit": manage.NO_LIMIT, "scope": Scope.WRITE, **options}
            )
        return Caller(self.http, key, org, principal.key_id)

    def revoke(self, caller: Caller) -> None:
        with manage.working_on(self.stack.outputs, self.stack.client):
            platform.revoke_key(caller.org, caller.key_id, manage.now())

    def put_event(self, kind: str, detail: dict[str, Any], source: str = "acme.grader", times: int = 1) -> None:
        bus = self.stack.outputs["BusName"]
        entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail), "EventBusName": bus}
        answer = self.client("events").put_events(Entries=[entry] * times)
        assert answer["FailedEntryCount"] == 0
