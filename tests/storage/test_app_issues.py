"""Lists of app issues against brute force: whatever was filed, changed and deleted, pages and totals are exact."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud import REGION, Cloud
from fixloop import settings as settings_module
from fixloop.app_issues import STATES, TYPES, AppIssue, AppIssueIn, AppIssueQuery, made
from fixloop.identity import User
from fixloop.storage import app_issues, dynamo, lists
from storage.memory import Memory

START = 1_750_000_000_000
ORGS = itertools.count()
USERS, PROJECTS, TEXTS = (1, 2), ("p1", "p2", None), ("Missed the policy", "Wrong POLICY", "Rude", "")


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[Memory]:
    """The table in this process, with chunks so small that a dozen issues are counted in cells of every level."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_REGION": REGION, **Cloud().environment()}.items():
            patch.setitem(os.environ, name, value)
        settings_module.settings.cache_clear()
        stored = Memory()
        for module in (dynamo, lists):
            patch.setattr(module, "client", lambda service: stored)
        patch.setattr(app_issues.lists, "chunk", 3)
        patch.setattr(lists, "SUPER", 2)
        patch.setattr(lists, "TOP", 2)
        stored.table("AppIssuesTable", ("by_leaf", "lf"), ("by_user", "uf"), ("by_project", "pf"), ("by_org", "wf"))
        yield stored
    settings_module.settings.cache_clear()


CREATE = st.tuples(
    st.just("create"),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(TYPES[:3]),
            "description": st.sampled_from(TEXTS),
            "project_id": st.sampled_from(PROJECTS),
            "anonymous": st.sampled_from([False, False, True]),
        }
    ),
    st.sampled_from(USERS),
)
PATCH = st.tuples(
    st.just("patch"),
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES[:3]),
            "state": st.sampled_from(STATES[:3]),
            "description": st.sampled_from(TEXTS),
            "is_read": st.booleans(),
        },
    ),
    st.integers(0, 50),
)
DELETE = st.tuples(st.just("delete"), st.just({"state": "Deleted"}), st.integers(0, 50))
BIND = st.tuples(st.just("bind"), st.just({}), st.integers(0, 50))
STEPS = st.lists(st.one_of(CREATE, CREATE, CREATE, PATCH, PATCH, DELETE, BIND), min_size=5, max_size=45)
QUERY = st.fixed_dictionaries(
    {"page_size": st.integers(1, 7), "page_order": st.sampled_from(["ASC", "DESC"])},
    optional={
        "type": st.lists(st.sampled_from(TYPES[:3]), max_size=2),
        "states": st.lists(st.sampled_from(STATES), max_size=4),
        "start_date": st.integers(START, START + 30),
        "end_date": st.integers(START + 1, START + 30),
        "filter_by_text": st.sampled_from(["policy", "RUDE", "nothing"]),
        "created_by": st.lists(st.sampled_from(["user_1", "user_2", "user_3"]), unique=True, max_size=2),
        "projects": st.lists(st.sampled_from(["p1", "p2", "p3"]), unique=True, max_size=2),
    },
)


class World:
    """The issues as they should be, beside the table that has them."""

    def __init__(self) -> None:
        self.org = f"org_{next(ORGS)}"
        self.now = START
        self.issues: dict[int, AppIssue] = {}

    def take(self, what: str, content: dict[str, Any], which: int) -> None:
        self.now += which % 2
        if what == "create":
            said = AppIssueIn.model_validate({"resource_type": "Thread", **content})
            issue = made(self.org, said, User(id=which), *app_issues.number(self.org, self.now), which)
            app_issues.add(self.org, issue)
            self.issues[issue.number] = issue
            return
        there = [issue for issue in self.issues.values() if issue.state != "Deleted"]
        if not there:
            return
        old = there[which % len(there)]
        if what == "bind":
            bound = app_issues.bind(self.org, old.id, f"iss_{which % 3}")
            assert bound is not None
            self.issues[old.number] = bound
        else:
            self.issues[old.number] = app_issues.change(self.org, old.id, content, self.now)

    def expected(self, query: AppIssueQuery) -> list[int]:
        """By the words of the documentation, not by the ways of the code."""
        found = []
        for number, issue in sorted(self.issues.items(), reverse=query.page_order == "DESC"):
            creator = None if issue.anonymous else f"user_{issue.author.id}"
            if (
                issue.state in (query.states or ["NotReviewed", "InReview", "Closed"])
                and (not query.type or issue.type in query.type)
                and (query.start_date is None or issue.created_at >= query.start_date)
                and (query.end_date is None or issue.created_at <= query.end_date)
                and (not query.created_by or creator in query.created_by)
                and (not query.projects or issue.project_id in query.projects)
                and (query.filter_by_text or "").lower() in issue.description.lower()
            ):
                found.append(number)
        return found


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, queries=st.lists(QUERY, min_size=1, max_size=6), at=st.integers(0, 50))
def test_every_page_and_total_is_exact_after_any_writes(steps: list[Any], queries: list[Any], at: int) -> None:
    world = World()
    for step in steps:
        world.take(*step)
    for given_ in queries:
        query = AppIssueQuery.model_validate(
            {**given_, "end_date": max(given_.get("end_date", START + 99), given_.get("start_date", 0))}
        )
        expected, size = world.expected(query), query.page_size
        for page in range(1, len(expected) // size + 3):
            found = app_issues.page(world.org, query.model_copy(update={"page": page}))
            shown = expected[(page - 1) * size : page * size]
            assert [issue.number for issue in found.issues] == shown
            assert [issue for issue in found.issues if issue != world.issues[issue.number]] == []
            assert found.total == len(expected)
            assert (found.earlier, found.later) == (page > 1 and bool(expected), page * size < len(expected))
        if world.issues:
            cursor = list(world.issues.values())[at % len(world.issues)]
            newest = query.page_order == "DESC"
            ahead = [n for n in expected if (n > cursor.number if newest else n < cursor.number)]
            behind = [n for n in expected if (n < cursor.number if newest else n > cursor.number)]
            after = app_issues.page(world.org, query.model_copy(update={"after": cursor.id}))
            assert [issue.number for issue in after.issues] == behind[:size]
            assert (after.total, after.later) == (len(expected), len(behind) > size)
            before = app_issues.page(world.org, query.model_copy(update={"before": cursor.id}))
            assert [issue.number for issue in before.issues] == ahead[-size:]
            assert (before.total, before.earlier) == (len(expected), len(ahead) > size)


@settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_what_is_bound_to_an_issue_is_what_was_bound_last_and_is_not_deleted(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        world.take(*step)
    for issue_id in ("iss_0", "iss_1", "iss_2"):
        bound = [n for n, one in sorted(world.issues.items()) if one.issue_id == issue_id and one.state != "Deleted"]
        assert [one.number for one in app_issues.of_issue(world.org, issue_id)] == bound


def test_a_page_costs_the_same_with_ten_times_the_issues(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read by queries, for every filter that is read from an index."""
    monkeypatch.setattr(app_issues.lists, "chunk", 64)
    monkeypatch.setattr(lists, "SUPER", 32)
    monkeypatch.setattr(lists, "TOP", 64)
    world = World()
    queries = [
        AppIssueQuery(),
        AppIssueQuery(page=4),
        AppIssueQuery(states=["Closed"], type=["Format"]),
        AppIssueQuery(created_by=["user_1"]),
        AppIssueQuery(projects=["p1"], page_order="ASC"),
        AppIssueQuery(end_date=START + 90),
    ]
    cost: dict[int, list[int]] = {}
    for size in (130, 1300):
        while len(world.issues) < size:
            at = len(world.issues)
            world.take("create", {"type": TYPES[at % 5], "project_id": PROJECTS[at % 3]}, 1 + at % 2)
            if at % 4 == 0:
                world.take("patch", {"state": STATES[at % 3]}, at)
        cost[size] = []
        for query in queries:
            memory.scanned = 0
            found = app_issues.page(world.org, query)
            assert [issue.number for issue in found.issues] == world.expected(query)[(query.page - 1) * 20 :][:20]
            cost[size].append(memory.scanned)
    for small, large in zip(cost[130], cost[1300], strict=True):
        assert large <= max(small, 2 * 20 + 2 * 64)
