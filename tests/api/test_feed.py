"""`GET /v1/issue-reports`: every filter and combination, pages, order, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.storage import calls, issue_reports

Report = dict[str, Any]
FIRST = 1_776_700_800.0  # 2026-04-20T16:00:00Z
SEVERITIES, STATUSES, SOURCES = (
    ("info", "warning", "critical"),
    ("open", "acknowledged", "resolved"),
    ("user", "system"),
)


@dataclass
class Feed:
    """A caller and every report there is, newest first, with the agent of each one's call."""

    caller: Client
    reports: list[Report]

    def ids(self, **query: Any) -> list[int]:
        answer = self.caller.get("/v1/issue-reports", **query)
        assert answer.status == 200, answer.text
        return [report["id"] for report in answer.json()]

    def expected(self, **query: Any) -> list[int]:
        """What the filters mean, in the plainest way."""
        exact = {key: value for key, value in query.items() if key in ("severity", "status", "source", "agent_id")}
        return [
            report["id"]
            for report in self.reports
            if all(report[key] == value for key, value in exact.items())
            and query.get("start_date", "") <= report["created_at"] <= query.get("end_date", "9")
        ]


@pytest.fixture(scope="module")
def feed(cloud: Cloud) -> Feed:
    """A report of every severity, status and source, on a call with an agent and one without: one each 3 h."""
    caller = cloud.caller()
    for call_id, agent in ((1, {"agent_id": 12}), (2, {})):
        assert caller.put(f"/v1/calls/{call_id}", {"start_time": "2026-04-20T15:00:00Z", **agent}).status == 201
    module = cloud.module("IssueReportsFunction")
    before, reports = module.handler._clock, []
    try:
        everything = itertools.product(SEVERITIES, STATUSES, SOURCES, (1, 2))
        for number, (severity, status, source, call_id) in enumerate(everything):
            module.handler._clock = lambda at=FIRST + number * 10_800: at
            said = {"title": f"Report {number}", "severity": severity, "source": source}
            made = caller.post(f"/v1/calls/{call_id}/issue-reports", said).json()
            if status != "open":
                made = caller.patch(f"/v1/issue-reports/{made['trace_id']}", {"status": status}).json()
            reports.insert(0, made)
    finally:
        module.handler._clock = before
    return Feed(caller, reports)


def test_the_feed_is_sorted_by_creation_newest_first(feed: Feed) -> None:
    shown = feed.caller.get("/v1/issue-reports", limit=200).json()
    assert shown == feed.reports
    assert [report["created_at"] for report in shown] == sorted((r["created_at"] for r in shown), reverse=True)


def test_every_combination_of_filters_gives_exactly_the_reports_that_match_all_of_them(feed: Feed) -> None:
    since, until = {"start_date": "2026-04-21T12:00:00.000Z"}, {"end_date": "2026-04-23T15:00:00.000Z"}
    rest = itertools.cycle(itertools.product((None, 12, 99), ({}, {}, since, {}, until, {}, since | until)))
    for chosen in itertools.product((None, *SEVERITIES), (None, *STATUSES), (None, *SOURCES)):
        agent, span = next(rest)
        names = ("severity", "status", "source", "agent_id")
        query = {name: value for name, value in zip(names, (*chosen, agent), strict=True) if value is not None} | span
        assert feed.ids(limit=200, **query) == feed.expected(**query), query


def test_pages_of_a_filtered_feed_join_to_the_whole(feed: Feed) -> None:
    query = {"severity": "critical", "start_date": "2026-04-20T17:00:00.000Z"}
    whole = feed.expected(**query)
    pages = [feed.ids(limit=5, offset=offset, **query) for offset in range(0, len(whole) + 5, 5)]
    assert list(itertools.chain(*pages)) == whole


def test_the_limit_is_50_unless_given_and_capped_at_200(reported: Callable[..., Report], caller: Client) -> None:
    first = reported()
    call = calls.find(caller.org, first["call_id"])
    for _ in range(11):
        said = [issue_reports.ReportIn(title="Again")] * 20
        issue_reports.add(caller.org, issue_reports.prepare(call, said, 1, 1_800_000_000_000))
    assert len(caller.get("/v1/issue-reports").json()) == 50
    assert len(caller.get("/v1/issue-reports?limit=1").json()) == 1
    assert len(caller.get(f"/v1/issue-reports?limit={10**30}").json()) == 200
    assert len(caller.get("/v1/issue-reports?limit=201").json()) == 200
    assert len(caller.get("/v1/issue-reports?limit=201&offset=200").json()) == 21


def test_a_date_alone_means_its_whole_day_in_utc(feed: Feed) -> None:
    day = feed.expected(start_date="2026-04-21T00:00:00.000Z", end_date="2026-04-21T23:59:59.999Z")
    assert len(day) == 8
    assert feed.ids(start_date="2026-04-21", end_date="2026-04-21") == day


def test_bounds_are_inclusive_to_the_millisecond(feed: Feed) -> None:
    at = feed.reports[10]["created_at"]
    assert feed.ids(start_date=at, end_date=at) == [feed.reports[10]["id"]]


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_shifted(feed: Feed) -> None:
    wanted = feed.expected(start_date="2026-04-24T00:00:00.000Z")
    assert wanted
    assert feed.ids(start_date="2026-04-24T00:00:00") == wanted
    assert feed.ids(start_date="2026-04-24T02:00:00+02:00") == wanted
    assert feed.ids(start_date="2026-04-23T23:00:00.000-01:00") == wanted


@pytest.mark.parametrize(("start", "end"), [("0001-01-01", "9999-12-31"), ("1970-01-01", "9999-12-31T23:59:59.999Z")])
def test_dates_may_be_as_far_apart_as_dates_go(feed: Feed, start: str, end: str) -> None:
    assert feed.ids(start_date=start, end_date=end, limit=200) == feed.expected()


def test_an_empty_parameter_is_as_good_as_none_and_unknown_ones_are_ignored(feed: Feed) -> None:
    assert feed.ids(severity="", start_date="", limit="", cluster="7") == feed.ids()


def test_of_a_repeated_parameter_the_last_counts(feed: Feed) -> None:
    assert feed.ids(severity=["info", "critical"], limit=200) == feed.expected(severity="critical")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", {"limit"}),
        ("limit=-1", {"limit"}),
        ("limit=abc", {"limit"}),
        ("limit=1.5", {"limit"}),
        ("offset=-1", {"offset"}),
        ("offset=x", {"offset"}),
        ("severity=fatal", {"severity"}),
        ("severity=CRITICAL", {"severity"}),
        ("status=dismissed", {"status"}),
        ("source=bot", {"source"}),
        ("agent_id=twelve", {"agent_id"}),
        ("agent_id=-1", {"agent_id"}),
        ("agent_id=9223372036854775808", {"agent_id"}),
        ("start_date=yesterday", {"start_date"}),
        ("start_date=2026-02-30", {"start_date"}),
        ("end_date=2026-13-01", {"end_date"}),
        ("end_date=1776700800", {"end_date"}),
        ("start_date=2026-04-21&end_date=2026-04-20", {"end_date"}),
        (
            "severity=x&status=x&source=x&agent_id=x&start_date=x&end_date=x&limit=x&offset=x",
            {"severity", "status", "source", "agent_id", "start_date", "end_date", "limit", "offset"},
        ),
    ],
)
def test_a_bad_filter_is_refused_and_every_bad_one_is_named(caller: Client, query: str, fields: set[str]) -> None:
    answer = caller.get(f"/v1/issue-reports?{query}")
    assert answer.status == 400
    assert answer.json().keys() == fields


def test_the_same_day_as_start_and_end_is_not_backwards(caller: Client) -> None:
    assert caller.get("/v1/issue-reports?start_date=2026-04-20T12:00:00Z&end_date=2026-04-20").status == 200


def test_an_agent_is_the_one_that_handled_the_call(
    caller: Client, called: Callable[..., int], reported: Callable[..., Report]
) -> None:
    first, second = called(1, agent_id=5), called(2, agent_id=2**63 - 1)
    one, two = reported(first), reported(second)
    assert one["agent_id"] == 5
    assert caller.get("/v1/issue-reports?agent_id=5").json() == [one]
    assert caller.get(f"/v1/issue-reports?agent_id={2**63 - 1}").json() == [two]


def test_reports_made_in_the_same_millisecond_keep_their_order_over_pages(
    clock: Any, reported: Callable[..., Report], caller: Client
) -> None:
    made = [reported(title=f"{number}")["id"] for number in range(7)]
    pages = [caller.get(f"/v1/issue-reports?limit=2&offset={offset}").json() for offset in range(0, 8, 2)]
    assert [report["id"] for page in pages for report in page] == made[::-1]
    at = datetime.fromtimestamp(clock.now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert {report["created_at"] for page in pages for report in page} == {at}
