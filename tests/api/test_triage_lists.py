"""Lists of triage issues over HTTP: every filter, every sort, and a place in them that holds while all changes."""

from __future__ import annotations

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cloud import Client, Cloud
from fixloop.storage import dynamo
from fixloop.storage.triage import issues as store
from fixloop.storage.triage import lists, rows
from fixloop.times import iso_ms
from fixloop.triage.activity import SYSTEM
from fixloop.triage.issues import SEVERITIES, STATUSES, IssueIn

ROOT = "/v1/triage/issues"
SORTS = ("last_activity_at", "created_at", "severity", "status")
DAY = 86_400


def walk(reader: Client, limit: int = 7, **query: Any) -> list[dict[str, Any]]:
    """Every item of a list, page by page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(200):
        said = reader.get(ROOT, limit=limit, **query, **cursor)
        assert said.status == 200, said.text
        page = said.json()["data"]
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the list has no end")


def ranked(issue: dict[str, Any], sort: str) -> tuple[Any, str]:
    ranks: dict[str, Any] = {"severity": SEVERITIES, "status": STATUSES}
    value = issue[sort]
    return (ranks[sort].index(value) if sort in ranks else value), issue["id"]


def expected(issues: list[dict[str, Any]], sort: str, order: str) -> list[str]:
    return [one["id"] for one in sorted(issues, key=lambda one: ranked(one, sort), reverse=order == "desc")]


World = tuple[Client, list[dict[str, Any]], dict[str, set[str]]]
NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def made_before(cloud: Cloud) -> World:
    """Forty issues made over a hundred days, half of them touched later; which have a call or a file."""
    reader, chance = cloud.caller(), random.Random(3)
    reader.put("/v1/calls/17", {})
    handler = cloud.module("TriageFunction").handler
    before, handler._clock = handler._clock, lambda: now
    has: dict[str, set[str]] = {"call": set(), "file": set(), "sms_conversation": set()}
    now, made = NOW, []
    for at in range(40):
        now = NOW - (100 - at * 2.5) * DAY + chance.random()
        kinds = chance.choice(((), ("call",), ("file",), ("call", "file")))
        body = {
            "title": f"Agent {chance.choice(('skipped', 'repeated', 'forgot'))} step {at}",
            "description": chance.choice(("", "The caller waited.", "Wrong queue, caller waited twice.")),
            "severity": chance.choice(SEVERITIES),
            "status": chance.choice(STATUSES[:4]),
            "category": chance.choice(("Routing", "routing", "Tools", "My own")),
            "owner_id": chance.choice((None, "ann", "bob")),
            "assignee_id": chance.choice((None, "ann", "cy")),
            "resource_links": [{"resource_type": kind, "resource_id": "17"} for kind in kinds],
        }
        answer = reader.post(ROOT, body)
        assert answer.status == 201, answer.text
        made.append(answer.json()["data"])
        for kind in kinds:
            has[kind].add(made[-1]["id"])
    for issue in chance.sample(made, 20):
        now = NOW - chance.random() * 20 * DAY
        reader.patch(f"{ROOT}/{issue['id']}", {"title": issue["title"] + " again"})
    issues = [reader.get(f"{ROOT}/{issue['id']}").json()["data"] for issue in made]
    handler._clock = before
    return reader, issues, has


@pytest.fixture
def world(made_before: World, clock: Any) -> World:
    clock.now = NOW
    return made_before


FILTERS: list[dict[str, Any]] = [
    {},
    {"status": "todo"},
    {"status": ["todo", "in_review"], "severity": ["high", "low"]},
    {"category": "Routing"},
    {"category": ["Tools", "My own"], "severity": "critical"},
    {"owner_id": "ann"},
    {"assignee_id": "cy", "status": ["backlog", "todo", "in_progress"]},
    {"owner_id": "bob", "assignee_id": "ann"},
    {"owner_id": "ann", "category": "routing"},
    {"assignee_id": "ann", "category": ["routing", "tools"]},
    {"owner_id": "ann", "assignee_id": "ann", "category": ["routing", "tools"], "resource_type": "call"},
    {"resource_type": "call"},
    {"resource_type": "file", "severity": ["high", "critical"]},
    {"resource_type": "sms_conversation"},
    {"date_range": "30d"},
    {"date_range": "7d", "date_field": "last_activity_at", "status": ["todo", "backlog"]},
    {"date_range": "90d", "date_field": "created_at"},
    {"date_range": "30d", "date_field": "created_at", "category": "routing"},
    {"search": "skipped"},
    {"search": "WAIT twice"},
    {"search": "step again", "category": "routing", "date_range": "30d"},
    {"search": "a"},
    {"search": "nobody"},
    {"search": "!?"},
    {"owner_id": "nobody"},
]
_SPANS = {"24h": 1, "7d": 7, "30d": 30, "90d": 90}


def passes(issue: dict[str, Any], query: dict[str, Any], has: dict[str, set[str]]) -> bool:
    def listed(name: str) -> list[str]:
        value = query.get(name, [])
        return [value] if isinstance(value, str) else value

    words = "".join(c if c.isalnum() else " " for c in (issue["title"] + " " + issue["description"]).lower()).split()
    wanted = "".join(c if c.isalnum() else " " for c in query.get("search", "").lower()).split()
    since = ""
    if "date_range" in query:
        since = iso_ms(int((NOW - _SPANS[query["date_range"]] * DAY) * 1000))
    return (
        (not listed("status") or issue["status"] in listed("status"))
        and (not listed("severity") or issue["severity"] in listed("severity"))
        and (not listed("category") or issue["category"].lower() in [one.lower() for one in listed("category")])
        and query.get("owner_id", issue["owner_id"]) == issue["owner_id"]
        and query.get("assignee_id", issue["assignee_id"]) == issue["assignee_id"]
        and ("resource_type" not in query or issue["id"] in has[query["resource_type"]])
        and issue[query.get("date_field", "last_activity_at")] >= since
        and ("search" not in query or bool(wanted))
        and all(any(word.startswith(one) for word in words) for one in wanted)
    )


_LOOKED_FOR = [query for query in FILTERS if query.keys() & {"search", "date_range"}]


@pytest.mark.parametrize(
    ("few", "query"),
    [*((lists.FEW, query) for query in FILTERS), *((0, query) for query in _LOOKED_FOR)],
    ids=lambda value: str(value),
)
def test_every_filter_in_every_order_is_what_a_plain_look_at_all_issues_finds(
    world: Any, query: dict[str, Any], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing counts as few, so that words and dates are looked for issue by issue."""
    reader, issues, has = world
    monkeypatch.setattr(lists, "FEW", few)
    matching = [issue for issue in issues if passes(issue, query, has)]
    for sort, order in itertools.product(SORTS, ("desc", "asc")):
        found = walk(reader, limit=9, sort=sort, order=order, **query)
        assert [one["id"] for one in found] == expected(matching, sort, order), (sort, order)


def test_filters_find_something_or_the_test_above_says_little(world: Any) -> None:
    _, issues, has = world
    found = [sum(passes(issue, query, has) for issue in issues) for query in FILTERS]
    assert sum(count > 0 for count in found) >= len(FILTERS) - 4


def test_a_page_that_looked_at_enough_goes_on_at_the_next(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, issues, has = world
    monkeypatch.setattr(lists, "FEW", 0)
    monkeypatch.setattr(lists, "LOOKED_AT", 4)
    query = {"search": "forgot", "date_range": "90d"}
    matching = [issue for issue in issues if passes(issue, query, has)]
    assert [one["id"] for one in walk(reader, limit=5, **query)] == expected(matching, "last_activity_at", "desc")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"sort": "title"}, "sort"),
        ({"order": "up"}, "order"),
        ({"status": ["todo", "open"]}, "status"),
        ({"severity": "urgent"}, "severity"),
        ({"resource_type": "fax"}, "resource_type"),
        ({"date_field": "updated_at"}, "date_field"),
        ({"date_range": "1y"}, "date_range"),
        ({"search": "x" * 201}, "search"),
        ({"cursor": "68007859-4325-4ea2-bbd6-e7c8be3a233a"}, "cursor"),
        ({"cursor": "bm90IGEgY3Vyc29y"}, "cursor"),
    ],
)
def test_a_bad_parameter_is_named(caller: Client, query: dict[str, Any], named: str) -> None:
    said = caller.get(ROOT, **query)
    assert said.status == 400
    (error,) = said.json()["errors"]
    assert error["error"] == "bad_request"
    assert error["message"].startswith(named)


def test_a_cursor_is_good_for_the_list_it_came_from_alone(caller: Client) -> None:
    for at in range(3):
        caller.post(ROOT, {"title": f"Issue {at}", "severity": "low", "category": "Bug"})
    cursor = caller.get(ROOT, limit=1, severity="low").json()["data"]["next_cursor"]
    assert caller.get(ROOT, limit=100, severity="low", cursor=cursor).status == 200
    for other in ({}, {"severity": "high"}, {"severity": "low", "sort": "status"}, {"severity": "low", "order": "asc"}):
        assert caller.get(ROOT, cursor=cursor, **other).status == 400


def test_a_cursor_outlives_the_issue_it_was_made_at(caller: Client) -> None:
    made = [
        caller.post(ROOT, {"title": f"Issue {at}", "severity": "low", "category": "Bug"}).json()["data"]["id"]
        for at in range(4)
    ]
    page = caller.get(ROOT, limit=2, sort="created_at").json()["data"]
    assert caller("DELETE", f"{ROOT}/{made[2]}").status == 204
    rest = caller.get(ROOT, limit=2, sort="created_at", cursor=page["next_cursor"]).json()["data"]
    assert [one["id"] for one in page["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None


def test_an_issue_that_changes_while_a_page_is_read_is_neither_lost_nor_met_twice(
    caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes from a status that is read later to one that was read already, between the two reads."""
    made = [
        caller.post(ROOT, {"title": f"Issue {at}", "severity": "low", "category": "Bug"}).json()["data"]["id"]
        for at in range(3)
    ]
    caller.patch(f"{ROOT}/{made[0]}", {"status": "done"})
    fill, moved = lists._Stream.fill, []

    def slowly(stream: Any) -> None:
        fill(stream)
        if not moved and "#1" in stream.hash:
            moved.append(caller.patch(f"{ROOT}/{made[1]}", {"status": "done"}).status)
            moved.append(caller.patch(f"{ROOT}/{made[0]}", {"status": "todo"}).status)

    monkeypatch.setattr(lists._Stream, "fill", slowly)
    items = caller.get(ROOT, sort="created_at", status=["todo", "done"]).json()["data"]["items"]
    assert moved == [200, 200]
    assert [one["id"] for one in items] == made[::-1]


def test_lists_hold_their_place_while_many_write(caller: Client) -> None:
    """Who was there throughout and did not change is met once, in every order, whatever happens around it."""
    still = [
        caller.post(ROOT, {"title": f"Still {at}", "severity": SEVERITIES[at % 4], "category": "Bug"}).json()["data"]
        for at in range(12)
    ]
    busy = [
        caller.post(ROOT, {"title": f"Busy {at}", "severity": "low", "category": "Bug"}).json()["data"]["id"]
        for at in range(6)
    ]
    done = False

    def write(at: int) -> None:
        chance = random.Random(at)
        short = IssueIn(title="Short-lived", severity="high", category="Bug")
        while not done:
            fields = {"status": chance.choice(STATUSES), "severity": chance.choice(SEVERITIES)}
            store.patch(caller.org, busy[at], fields, SYSTEM, int(time.time() * 1000))
            made = store.add(caller.org, short, SYSTEM, int(time.time() * 1000))
            store.remove(caller.org, made.id, SYSTEM, int(time.time() * 1000))

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, at) for at in range(3)]
        try:
            for sort, order in itertools.product(SORTS, ("desc", "asc")):
                found = [one["id"] for one in walk(caller, limit=6, sort=sort, order=order)]
                met = [one for one in found if one in {issue["id"] for issue in still}]
                assert met == expected(still, sort, order), (sort, order)
        finally:
            done = True
        for writer in writers:
            writer.result()


class Board(RuleBasedStateMachine):
    """Readers of several lists go on page by page while issues come, change and go."""

    cloud: Cloud

    @initialize()
    def start(self) -> None:
        self.client = self.cloud.caller()
        self.issues: dict[str, dict[str, Any]] = {}
        self.touched: dict[str, int] = {}
        self.steps = 0
        self.readers: list[dict[str, Any]] = []

    def _now(self, issue_id: str) -> None:
        self.steps += 1
        self.touched[issue_id] = self.steps
        self.issues[issue_id] = self.client.get(f"{ROOT}/{issue_id}").json()["data"]

    @rule(
        severity=st.sampled_from(SEVERITIES),
        status=st.sampled_from(STATUSES[:3]),
        title=st.sampled_from(["Agent skipped", "Agent repeated"]),
    )
    def create(self, severity: str, status: str, title: str) -> None:
        body = {"title": title, "severity": severity, "status": status, "category": "Bug"}
        self._now(self.client.post(ROOT, body).json()["data"]["id"])

    @rule(
        at=st.integers(min_value=0, max_value=99),
        fields=st.fixed_dictionaries(
            {},
            optional={
                "severity": st.sampled_from(SEVERITIES),
                "status": st.sampled_from(STATUSES[:3]),
                "title": st.sampled_from(["Agent skipped twice", "Agent waited"]),
            },
        ),
    )
    def patch(self, at: int, fields: dict[str, str]) -> None:
        if self.issues:
            issue_id = sorted(self.issues)[at % len(self.issues)]
            assert self.client.patch(f"{ROOT}/{issue_id}", fields).status == 200
            if any(self.issues[issue_id][name] != value for name, value in fields.items()):
                self._now(issue_id)

    @rule(at=st.integers(min_value=0, max_value=99))
    def delete(self, at: int) -> None:
        if self.issues:
            issue_id = sorted(self.issues)[at % len(self.issues)]
            assert self.client("DELETE", f"{ROOT}/{issue_id}").status == 204
            del self.issues[issue_id]

    @rule(
        sort=st.sampled_from(SORTS),
        order=st.sampled_from(["asc", "desc"]),
        query=st.sampled_from([{}, {"severity": ["high", "low"]}, {"search": "skipped"}, {"date_range": "24h"}]),
    )
    def begin(self, sort: str, order: str, query: dict[str, Any]) -> None:
        there = set(self.issues)
        self.readers.append(
            {"query": {"sort": sort, "order": order, **query}, "met": [], "since": self.steps, "there": there}
        )

    @rule(at=st.integers(min_value=0, max_value=9))
    def read_on(self, at: int) -> None:
        if not self.readers:
            return
        reader = self.readers[at % len(self.readers)]
        cursor = {"cursor": reader["cursor"]} if "cursor" in reader else {}
        page = self.client.get(ROOT, limit=2, **reader["query"], **cursor).json()["data"]
        reader["met"] += [one["id"] for one in page["items"]]
        if page["next_cursor"] is not None:
            reader["cursor"] = page["next_cursor"]
            return
        self.readers.remove(reader)
        query = reader["query"]
        calm = [
            issue
            for issue_id, issue in self.issues.items()
            if issue_id in reader["there"] and self.touched[issue_id] <= reader["since"]
        ]
        has: dict[str, set[str]] = {}
        plain = {name: value for name, value in query.items() if name not in ("sort", "order", "date_range")}
        wanted = expected([one for one in calm if passes(one, plain, has)], query["sort"], query["order"])
        met = [one for one in reader["met"] if one in {issue["id"] for issue in calm}]
        assert met == wanted

    @invariant()
    def the_list_is_what_is_there(self) -> None:
        if hasattr(self, "client") and self.steps % 5 == 0:
            found = self.client.get(ROOT, limit=100, sort="created_at", order="asc").json()["data"]["items"]
            assert {one["id"]: one for one in found} == {
                issue_id: {**issue, "has_unread_activity": found_one["has_unread_activity"]}
                for issue_id, issue in self.issues.items()
                for found_one in found
                if found_one["id"] == issue_id
            }


def test_readers_hold_their_place_whatever_happens(cloud: Cloud) -> None:
    Board.cloud = cloud
    run_state_machine_as_test(
        Board,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_all_that_was_written_for_a_deleted_issue_is_gone(caller: Client) -> None:
    made = caller.post(ROOT, {"title": "Agent skipped", "severity": "low", "category": "Bug"}).json()["data"]
    caller.post(f"{ROOT}/{made['id']}/comments", {"detail": "x"})
    assert list(rows.all_of(caller.org, made["id"]))
    caller("DELETE", f"{ROOT}/{made['id']}")
    assert not list(rows.all_of(caller.org, made["id"]))
    words = {":pk": rows.word_key(caller.org, "agent", "")["pk"]}
    assert dynamo.some(rows.table(), "pk = :pk", words, 5) == ([], False)
