"""What a page of triage issues costs: items read, counted in DynamoDB's own answers, for every filter and sort."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloud import REGION, Cloud
from fixloop import settings as settings_module
from fixloop.storage import dynamo
from fixloop.storage.triage import issues, lists, rows
from fixloop.triage.activity import SYSTEM
from fixloop.triage.evidence import LinkIn
from fixloop.triage.issues import SEVERITIES, STATUSES, IssueIn
from fixloop.triage.queries import IssueQuery
from storage.memory import Memory

ORG, START, MINUTE = "org", 1_750_000_000_000, 60_000
COUNT = 900
LEAVES = 6 * 4 * 2  # with and without a file


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    """Issues a minute apart; every word of "rare" ones is in few of them, "agent" is in all."""
    chance = random.Random(5)
    with pytest.MonkeyPatch.context() as patch:
        cloud = Cloud()
        for name, value in {"AWS_REGION": REGION, **cloud.environment()}.items():
            patch.setitem(os.environ, name, value)
        settings_module.settings.cache_clear()
        stored = Memory()
        patch.setattr(dynamo, "client", lambda service: stored)
        table = cloud.template["Resources"]["TriageTable"]["Properties"]
        wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        with contextlib.suppress(ClientError):
            stored.delete_table(TableName="TriageTable")
        stored.create_table(TableName="TriageTable", **{key: table[key] for key in wanted})
        rows._known.clear()
        for at in range(COUNT):
            given = IssueIn(
                title=f"Agent {'rare' if at % 90 == 0 else 'often'} {at}",
                severity=chance.choice(SEVERITIES),
                status=chance.choice(STATUSES),
                category=chance.choice(("Routing", "Tools")),
                owner_id=chance.choice((None, "ann")),
                assignee_id=chance.choice((None, "bob")),
                resource_links=[LinkIn(resource_type="file", resource_id="f")] if chance.random() < 0.5 else [],
            )
            issues.add(ORG, given, SYSTEM, START + at * MINUTE)
        yield stored
    rows._known.clear()
    settings_module.settings.cache_clear()


NOW = START + COUNT * MINUTE
FILTERS: dict[str, tuple[Any, ...]] = {
    "status": ([], ["todo", "done"]),
    "severity": ([], ["critical"]),
    "category": ([], ["Routing"]),
    "owner_id": (None, "ann"),
    "assignee_id": (None, "bob"),
    "resource_type": (None, "file"),
}
SORTS = [*itertools.product(("last_activity_at", "created_at", "severity", "status"), ("desc", "asc"))]


def read(memory: Memory, query: IssueQuery) -> tuple[int, int, str | None]:
    memory.scanned = 0
    found, cursor = lists.page(ORG, query, NOW)
    return memory.scanned, len(found), cursor


def test_every_combination_of_filters_and_sorts_reads_twice_what_it_returns_and_a_little_per_leaf(
    memory: Memory,
) -> None:
    """On a first page and on one further on."""
    limits = itertools.cycle((10, 50, 100))
    for values, (sort, order) in zip(itertools.product(*FILTERS.values()), itertools.cycle(SORTS), strict=False):
        fields = {**dict(zip(FILTERS, values, strict=True)), "sort": sort, "order": order, "limit": next(limits)}
        cursor = None
        for _ in range(2):
            scanned, returned, cursor = read(memory, IssueQuery(**fields, cursor=cursor))
            assert scanned <= 2 * returned + 3 * LEAVES, fields
            if cursor is None:
                break


@pytest.mark.parametrize("sort", ["last_activity_at", "created_at"])
@pytest.mark.parametrize("order", ["desc", "asc"])
def test_a_list_without_filters_reads_the_page_and_one_more(memory: Memory, sort: str, order: str) -> None:
    cursor = None
    for _ in range(4):
        scanned, returned, cursor = read(
            memory, IssueQuery.model_validate({"sort": sort, "order": order, "cursor": cursor})
        )
        assert (returned, scanned) == (50, 51)


@pytest.mark.parametrize("span", ["24h", "90d"])
def test_a_date_range_on_the_time_of_the_sort_costs_nothing(memory: Memory, span: str) -> None:
    query = IssueQuery.model_validate({"date_range": span, "severity": ["high"], "limit": 20})
    scanned, returned, _ = read(memory, query)
    assert scanned <= 2 * returned + 3 * LEAVES


def test_a_rare_word_is_found_without_looking_at_the_others(memory: Memory) -> None:
    scanned, returned, cursor = read(memory, IssueQuery(search="rare"))
    assert (scanned, returned, cursor) == (COUNT // 90, COUNT // 90, None)


def test_a_rare_word_and_a_frequent_one_cost_no_more_than_the_limit_of_few(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "FEW", 100)
    scanned, returned, _ = read(memory, IssueQuery(search="rare agent"))
    assert returned == COUNT // 90
    assert scanned <= COUNT // 90 + 101


def test_a_frequent_word_costs_a_page_and_the_limit_of_few(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "FEW", 100)
    scanned, returned, cursor = read(memory, IssueQuery(search="often"))
    assert returned == 50
    assert cursor is not None
    assert scanned <= 101 + 4 * 51
