"""What a first page costs: items read, counted in DynamoDB's own answers, for every combination of filters."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cloud import REGION, Cloud
from fixloop import settings as settings_module
from fixloop import times
from fixloop.calls import DIRECTIONS, CallIn, CallQuery
from fixloop.issue_reports import ReportIn, ReportQuery
from fixloop.storage import calls, dynamo, issue_reports, lists
from storage.memory import Memory

ORG, START, MINUTE = "org", 1_750_000_000_000, 60_000
CALLS, REPORTS = 607, 639  # as many as possible of the newest are not sealed
CALLS_DATES_CONSTANT = 50 + 2 * calls.lists.chunk


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    """Calls that arrive a minute apart, some of them up to ten minutes after their start, and reports on them."""
    chance = random.Random(7)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_REGION": REGION, **Cloud().environment()}.items():
            patch.setitem(os.environ, name, value)
        settings_module.settings.cache_clear()
        stored = Memory()
        for module in (dynamo, lists):
            patch.setattr(module, "client", lambda service: stored)
        indexes = {"by_leaf": "lf", "by_agent": "af", "by_from": "ff", "by_to": "tf", "by_org": "wf"}
        stored.table("CallsTable", *indexes.items())
        stored.table("IssueReportsTable", ("by_leaf", "lf"), ("by_agent", "af"))
        for index in range(max(CALLS, REPORTS)):
            now = START + index * MINUTE
            if index < CALLS:
                given = CallIn(
                    agent_id=chance.choice((1, 1, 2, None)),
                    direction=chance.choice(DIRECTIONS),
                    status=chance.choice(("completed", "completed", "failed", "in_progress")),
                    is_test_call=chance.random() < 0.1,
                    start_time=times.iso_ms(now - chance.randrange(10 * MINUTE)),
                )
                calls.put(ORG, index + 1, given, now)
            if index < REPORTS:
                said = ReportIn(
                    title="t",
                    severity=chance.choice(("info", "warning", "critical")),
                    source=chance.choice(("user", "system")),
                )
                call = calls.find(ORG, chance.randrange(1, min(index + 2, CALLS + 1)))
                (report,) = issue_reports.prepare(call, [said], 1, now)
                issue_reports.add(ORG, [report])
                if chance.random() < 0.3:
                    issue_reports.set_status(ORG, report, chance.choice(("acknowledged", "resolved")), now)
            if index % 16 == 15:
                calls.lists.seal(ORG, now)
                issue_reports.lists.seal(ORG, now)
        yield stored
    settings_module.settings.cache_clear()


def combinations(**values: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*values.values()):
        yield {name: value for name, value in zip(values, chosen, strict=True) if value is not None}


def at(index: int) -> str:
    return times.iso_ms(START + index * MINUTE)


DATES: list[dict[str, str]] = [
    {},
    {"start_date": at(200)},
    {"end_date": at(330)},
    {"start_date": at(100), "end_date": at(330)},
    {"start_date": at(590)},
    {"end_date": at(30)},
    {"start_date": at(2000)},
]


def test_a_first_page_of_the_feed_reads_at_most_twice_what_it_returns_and_fifty(memory: Memory) -> None:
    assert issue_reports.lists._mark(ORG).sealed == REPORTS // issue_reports.lists.chunk
    filters = combinations(
        severity=(None, "critical"),
        status=(None, "open", "resolved"),
        source=(None, "user"),
        agent_id=(None, 1),
    )
    for (chosen, dates), limit in zip(itertools.product(filters, DATES), itertools.cycle((10, 50, 200)), strict=False):
        memory.scanned = 0
        found = issue_reports.page(ORG, ReportQuery.model_validate({**chosen, **dates, "limit": limit}))
        assert memory.scanned <= 2 * len(found) + 50, (chosen, dates, limit)


def test_a_first_page_of_calls_reads_at_most_twice_what_it_returns_and_a_constant(memory: Memory) -> None:
    """Totals included. Starts come in no order, so that with dates up to two chunks more must be looked at."""
    assert calls.lists._mark(ORG).sealed == CALLS // calls.lists.chunk
    filters = combinations(
        direction=(None, "web"),
        status=(None, "completed"),
        exclude_test_calls=(None, True),
        agent_id=(None, 1),
    )
    for (chosen, dates), limit in zip(itertools.product(filters, DATES), itertools.cycle((10, 50, 200)), strict=False):
        memory.scanned = 0
        found, total = calls.page(ORG, CallQuery.model_validate({**chosen, **dates, "limit": limit}))
        assert total >= len(found)
        constant = CALLS_DATES_CONSTANT if dates else 50
        assert memory.scanned <= 2 * len(found) + constant, (chosen, dates, limit)
