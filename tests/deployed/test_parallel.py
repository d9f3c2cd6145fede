"""Lists and counts on the deployed stack while many write at once."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deployed.world import CLIENTS, Caller, at_once

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

SEVERITIES = ("info", "warning", "critical")
STATUSES = ("open", "acknowledged", "resolved")
DIRECTIONS = ("inbound", "outbound", "web")
SHARED = 1


def report(number: int) -> dict[str, Any]:
    return {"title": f"Report {number}", "severity": SEVERITIES[number % 3]}


def walk(caller: Caller, path: str, limit: int, **query: Any) -> list[Any]:
    """Everything in a list, page by page."""
    found: list[Any] = []
    while True:
        page = caller.get(path, limit=limit, offset=len(found), **query)
        rows = page["results"] if isinstance(page, dict) else page
        found += rows
        if len(rows) < limit:
            return found


def test_totals_and_pages_are_right_while_many_write_and_afterwards(caller: Caller):
    caller.ok("PUT", f"/v1/calls/{SHARED}", {"status": "in_progress", "agent_id": 1})
    shared = f"/v1/calls/{SHARED}/issue-reports"
    before = at_once(lambda number: caller.ok("POST", shared, report(number)), range(24))
    there = [one["id"] for one in sorted(before, key=lambda one: -one["id"])]
    until = max(one["created_at"] for one in before)
    writing = threading.Event()
    writing.set()

    def write(client: int) -> list[dict[str, Any]]:
        """A call of its own, reports on it, and one on the call that all write to."""
        own = 100 + client
        status = "in_progress" if client % 2 else "completed"
        call = {"status": status, "agent_id": 1 + client % 2, "direction": DIRECTIONS[client % 3]}
        caller.ok("PUT", f"/v1/calls/{own}", call)
        made = [caller.ok("POST", f"/v1/calls/{own}/issue-reports", report(client + number)) for number in range(2)]
        return [*made, caller.ok("POST", shared, report(client))]

    def read() -> int:
        """Pages through the lists until the writers are done; what was there throughout is met, and met once."""
        rounds = 0
        while writing.is_set() or not rounds:
            rounds += 1
            assert [one["id"] for one in walk(caller, "/v1/issue-reports", 10, end_date=until)] == there
            assert set(there) <= {one["id"] for one in walk(caller, "/v1/issue-reports", 50)}
            page = caller.get("/v1/calls", limit=200)
            assert page["total"] == len(page["results"])
            call = caller.get(f"/v1/calls/{SHARED}")
            assert len(there) <= call["issue_count"] <= len(caller.get(shared))
        return rounds

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read)
        try:
            written = at_once(write, range(CLIENTS))
        finally:
            writing.clear()
        assert reading.result() >= 1

    known = {one["id"]: one for one in [*before, *(one for made in written for one in made)]}

    def work_off(number: int) -> dict[str, Any]:
        changed: dict[str, Any] = caller.ok(
            "PATCH", f"/v1/issue-reports/{number}", {"status": STATUSES[1 + number % 2]}
        )
        return changed

    known |= {one["id"]: one for one in at_once(work_off, list(known)[::3])}
    assert len(known) == len(before) + 3 * CLIENTS
    newest_first = sorted(known.values(), key=lambda one: -one["id"])
    assert caller.get("/v1/issue-reports", limit=200) == newest_first
    assert walk(caller, "/v1/issue-reports", 7) == newest_first
    for severity in SEVERITIES:
        for status in STATUSES:
            wanted = [one for one in newest_first if (one["severity"], one["status"]) == (severity, status)]
            assert caller.get("/v1/issue-reports", limit=200, severity=severity, status=status) == wanted
    for agent in (1, 2):
        wanted = [one for one in newest_first if one["agent_id"] == agent]
        assert caller.get("/v1/issue-reports", limit=200, agent_id=agent) == wanted

    page = caller.get("/v1/calls", limit=200)
    assert page["total"] == len(page["results"]) == CLIENTS + 1
    reports_on = Counter(one["call_id"] for one in newest_first)
    critical_on = Counter(one["call_id"] for one in newest_first if one["severity"] == "critical")
    for call in page["results"]:
        assert call["issue_count"] == reports_on[call["call_id"]]
        assert call["critical_issue_count"] == critical_on[call["call_id"]]
    for name, values in {"direction": DIRECTIONS, "status": ("in_progress", "completed"), "agent_id": (1, 2)}.items():
        for value in values:
            total = caller.get("/v1/calls", limit=1, **{name: value})["total"]
            assert total == sum(call[name] == value for call in page["results"])
