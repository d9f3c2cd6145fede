"""The deployed stack's processes: where they listen, and what their end may not lose."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployed.world import SAMPLES, Caller, World, at_once
from fixloop_cli import local

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")

BEHIND_THE_BUS = re.compile("RelayEvents|GradeCall|FileReports|GroupReports|SealLists")


def family(pid: int) -> set[int]:
    """The process and all that it has started."""
    found = {pid}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) in found:
                found.add(int(status.parent.name))
    return found


def kill_behind_the_bus(pid: int) -> None:
    """They are started again when they are needed."""
    for function in family(pid) - {pid}:
        with contextlib.suppress(OSError):
            if BEHIND_THE_BUS.search(Path(f"/proc/{function}/cmdline").read_text()):
                os.kill(function, signal.SIGKILL)


def listening(pids: set[int]) -> Iterator[tuple[str, int]]:
    """Local address (hexadecimal, as the kernel shows it) and port of every TCP socket they listen on."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            sockets |= {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].partition(":")
                yield address, int(port, 16)


@needs_proc
def test_nothing_listens_beyond_this_machine(world: World, caller: Caller):
    caller.get("/v1/calls")
    pid, port = local.running(world.directory)
    assert pid
    found = set(listening(family(pid)))
    assert port in {its_port for _, its_port in found}
    assert {address for address, _ in found} == {"0100007F"}


@needs_proc
def test_functions_that_are_killed_in_the_middle_lose_nothing(world: World, caller: Caller):
    pid, _ = local.running(world.directory)
    assert pid
    call_ids = range(1, 9)

    def put(call_id: int) -> None:
        caller.ok("PUT", f"/v1/calls/{call_id}", SAMPLES[1]["call"])
        if call_id in (3, 6):  # twice: an event is given three chances
            kill_behind_the_bus(pid)

    at_once(put, call_ids, clients=4)
    grades = caller.ended(*call_ids)
    assert {grade["status"] for grade in grades.values()} == {"completed"}
    for call_id, reports in caller.filed(grades).items():
        refs = [report["detected_issue_ref"] for report in reports]
        assert sorted(refs) == sorted(issue["ref"] for issue in grades[call_id]["detected_issues"])
        assert caller.get(f"/v1/calls/{call_id}")["issue_count"] == len(refs) >= 1


def test_what_was_acknowledged_is_finished_after_a_stop_and_nothing_is_deployed_again(world: World, caller: Caller):
    """It is stopped while the functions behind the bus are still being started, and does not wait for them."""
    before = world.stack
    kill_behind_the_bus(before.pid)
    call_ids = range(1, 21)
    at_once(lambda call_id: caller.ok("PUT", f"/v1/calls/{call_id}", SAMPLES[1]["call"]), call_ids, clients=8)
    world.down()
    with pytest.raises(httpx.TransportError):
        caller("GET", "/v1/calls")
    steps = world.up()
    assert not any("Deploying" in step or "Building" in step for step in steps), steps
    assert (world.stack.url, world.stack.api_key, world.stack.outputs) == (before.url, before.api_key, before.outputs)
    assert world.http.get("/v1/calls", headers={"x-api-key": before.api_key}).status_code == 200
    grades = caller.ended(*call_ids)
    for call_id, reports in caller.filed(grades).items():
        refs = sorted(report["detected_issue_ref"] for report in reports)
        assert refs == sorted(issue["ref"] for issue in grades[call_id]["detected_issues"]) != []
    assert caller.get("/v1/calls", limit=1)["total"] == len(call_ids)
