"""Which reports are one issue, how bad it is, and which turn a report is about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop.app_issues import TYPES, AppIssue, AppIssueIn, Type, identifier, made
from fixloop.grouping import (
    THRESHOLD,
    VERSION,
    Member,
    complaint,
    described,
    failing_turn,
    fingerprint,
    fingerprint_of_app_issue,
    severity,
    tags,
    worst,
)
from fixloop.identity import User
from fixloop.issue_reports import Report, ReportIn
from fixloop.issues import SEVERITIES


def report(**said: Any) -> Report:
    return Report(
        id=1,
        call_id=2,
        trace_id="t",
        said=ReportIn(title="Wrong", **said),
        reported_by_id=7,
        agent_id=12,
        call_start=None,
        status="open",
        created_at=0,
        updated_at=0,
    )


def member(number: int, **content: Any) -> Member:
    known = {"report_id": number, "call_id": number, "trace_id": None, "at": 0, "customer": None, "severity": "low"}
    return Member(**{**known, "title": "Wrong", "description": f"What {number} says.", **content})


def test_the_same_pattern_on_the_same_agent_is_one_group() -> None:
    first = fingerprint(report(detected_issue_ref="days", source="user"), "agent_1")
    second = fingerprint(report(detected_issue_ref="days", source="system", description="else"), "agent_1")
    assert first
    assert first == second
    assert first.group.startswith(f"{VERSION}#")
    assert "days" in first.why
    assert "agent_1" in first.why


@pytest.mark.parametrize(("ref", "agent"), [("days", "agent_2"), ("weeks", "agent_1")])
def test_another_pattern_or_another_agent_is_another_group(ref: str, agent: str) -> None:
    one, other = (fingerprint(report(detected_issue_ref=r), a) for r, a in (("days", "agent_1"), (ref, agent)))
    assert one
    assert other
    assert one.group != other.group


def test_a_report_without_a_pattern_stands_alone() -> None:
    assert fingerprint(report(), "agent_1") is None


def test_the_first_version_is_frozen() -> None:
    """Groups are stored under this name: one that changes would part the reports from their issue."""
    found = fingerprint(report(detected_issue_ref="contradicts-prompt:days"), "agent_12")
    assert found
    assert (VERSION, THRESHOLD) == ("1", 3)
    assert found.group == "1#agent_12#contradicts-prompt:days"


def test_severities_are_on_the_scale_of_issues_and_the_worst_counts() -> None:
    assert [severity(report(severity=one)) for one in ("info", "warning", "critical")] == ["low", "medium", "critical"]
    assert worst(["low", "critical", "medium"]) == "critical"
    assert worst(["medium", "high"]) == "high"


@given(st.lists(st.sampled_from(SEVERITIES), min_size=1))
def test_the_worst_is_one_of_them_and_none_is_worse(given_: list[Any]) -> None:
    found = worst(given_)
    assert found in given_
    assert all(SEVERITIES.index(found) >= SEVERITIES.index(one) for one in given_)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("contradicts-prompt:refund-days", ["contradicts-prompt", "refund-days"]),
        ("silence", ["silence"]),
        (":a::a:b", ["a", "b"]),
        ("x" * 255, ["x" * 100]),
        (":", []),
    ],
)
def test_a_patterns_name_gives_the_tags(ref: str, expected: list[str]) -> None:
    assert tags(ref) == expected


def test_the_description_quotes_the_first_reports_and_says_why() -> None:
    text = described([member(one) for one in range(1, 6)], "version 1: the same")
    assert "Call 1: What 1 says." in text
    assert "What 4 says." not in text
    assert text.endswith("Grouped by version 1: the same.")
    assert len(described([member(1, description="x" * 40_000)] * 3, "it")) < 20_000


ROWS = [
    {"role": "assistant", "start_ms": 0},
    {"role": "user", "start_ms": 4_000},
    {"role": "tool_call", "start_ms": 6_000},
    {"role": "Bot", "start_ms": 8_500},
    {"role": "user", "start_ms": 12_000},
    {"role": "agent", "start_ms": 15_000},
]


@pytest.mark.parametrize(
    ("index", "second", "turn"),
    [
        (None, None, None),
        (3, None, 3),
        (1, None, 3),
        (4, 0, 5),
        (99, None, 5),
        (0, None, 0),
        (None, 0, 0),
        (None, 7, 0),
        (None, 8, 3),
        (None, 14, 3),
        (None, 600, 5),
    ],
)
def test_a_report_is_about_the_agents_turn_it_names_or_the_one_at_its_second(
    index: int | None, second: int | None, turn: int | None
) -> None:
    assert failing_turn(ROWS, index, second) == turn


def test_where_the_agent_says_nothing_there_is_no_failing_turn() -> None:
    silent = [{"role": "user"}, {"role": "system"}, {}]
    assert failing_turn(silent, 0, None) is None
    assert failing_turn(silent, None, 3) is None
    assert failing_turn([], 0, 0) is None


@given(
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", None])}), max_size=8),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 100),
)
def test_a_failing_turn_is_always_one_of_the_agents(rows: list[Any], index: int | None, second: int | None) -> None:
    found = failing_turn(rows, index, second)
    spoken = [at for at, row in enumerate(rows) if row["role"] == "assistant"]
    assert found in spoken if spoken and (index, second) != (None, None) else found is None


# App issues


def app_issue(**content: Any) -> AppIssue:
    given = AppIssueIn(resource_type="Thread", **{"type": "Inaccurate", **content})
    return made("org_1", given, User(id=7), 1, 0, 0)


def test_app_issues_of_one_type_on_one_agent_are_one_group() -> None:
    first, second = (
        fingerprint_of_app_issue(app_issue(description=text), "agent_1").group for text in ("One.", "Other.")
    )
    assert first == second
    assert first != fingerprint_of_app_issue(app_issue(type="Format"), "agent_1").group
    assert first != fingerprint_of_app_issue(app_issue(), "agent_2").group


def test_the_second_version_is_frozen_and_leaves_the_groups_of_the_first_alone() -> None:
    found = fingerprint_of_app_issue(app_issue(), "agent_12")
    assert found.group == "2#agent_12#app-issue:Inaccurate"
    of_report = fingerprint(report(detected_issue_ref="app-issue:Inaccurate"), "agent_12")
    assert of_report
    assert of_report.group == "1#agent_12#app-issue:Inaccurate"


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_complaint_has_a_title_and_a_severity(kind: Type) -> None:
    title, how_bad = complaint(app_issue(type=kind))
    assert title
    assert how_bad in SEVERITIES
    assert complaint(app_issue(type=kind, description="  The day was wrong.\nAnd more."))[0] == (
        f"{title}: The day was wrong."
    )
    assert len(complaint(app_issue(type=kind, description="x" * 5000))[0]) == 255


def test_members_are_named_by_what_they_are_and_sort_by_age() -> None:
    reports = [member(number).key for number in (1, 9, 10, 100)]
    assert reports == sorted(reports)
    complaints = [
        Member(app_issue_id=identifier(number, 5), thread_id="t", at=0, severity="low", title="", description="")
        for number in (1, 9, 16, 256)
    ]
    assert [one.key for one in complaints] == sorted(one.key for one in complaints)
    assert described([member(1), complaints[0]], "them").startswith("Call 1: What 1 says.\n\nThread t:")
