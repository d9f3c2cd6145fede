"""What a triage issue says that the loop opens by itself."""

from __future__ import annotations

from typing import Any

import pytest

from fixloop.grouping import Member
from fixloop.issue_reports import Report, ReportIn
from fixloop.issues import Issue, Severity
from fixloop.triage.escalation import category, flag, of_issue, of_report
from fixloop.triage.evidence import BUILT_IN
from fixloop.triage.issues import SEVERITIES

ROWS = [
    {"role": "assistant", "content": "Hello!", "start_ms": 0},
    {"role": "assistant", "content": "It left on Monday.", "start_ms": 5900},
    {"role": "tool_call", "content": {"name": "track"}},
]


def member(**content: Any) -> Member:
    known = {"report_id": 1, "call_id": 5, "turn": 1, "at": 0, "severity": "low", "title": "Wrong day"}
    return Member.model_validate({**known, "description": "", **content})


def test_a_flag_is_on_the_turn_and_names_its_second() -> None:
    made = flag(member(), "wrong-day:parcels", ROWS)
    assert made
    assert (made.call_id, made.type, made.message_index) == ("5", "wrong_day", 1)
    assert (made.note, made.message_text) == ("Wrong day (second 5 of the call)", "It left on Monday.")


def test_a_flag_without_times_or_words_says_what_there_is() -> None:
    made = flag(member(turn=2), None, ROWS)
    assert made
    assert (made.note, made.message_text, made.type) == ("Wrong day", None, "critical_report")


@pytest.mark.parametrize("pattern", [":", "-", "#?!", "…", "x" * 300, "", "Größe:5"])
def test_whatever_a_pattern_is_called_there_is_a_flag(pattern: str) -> None:
    assert flag(member(), pattern, ROWS) is not None
    assert category(pattern) in BUILT_IN


@pytest.mark.parametrize("about", [{"turn": None}, {"turn": 3}, {"call_id": None}])
def test_there_is_no_flag_where_no_turn_is_known(about: dict[str, Any]) -> None:
    assert flag(member(**about), "wrong-day", ROWS) is None


@pytest.mark.parametrize(
    ("pattern", "named"),
    [("contradicts-prompt:days", "Dialogue"), ("long-silence", "Latency"), ("failed-tool-call:track", "Tools")],
)
def test_a_category_is_one_of_the_built_in(pattern: str, named: str) -> None:
    assert category(pattern) == named
    assert named in BUILT_IN


@pytest.mark.parametrize("severity", SEVERITIES)
def test_an_issue_of_any_length_fits(severity: Severity) -> None:
    issue = Issue(
        id="iss_1",
        n=1,
        title="t" * 500,
        description="d" * 20_000,
        severity=severity,
        status="open",
        agent_id="agent_1",
        tags=["timeout"],
        created_at=0,
        updated_at=0,
    )
    made = of_issue(issue)
    assert (made.severity, made.category, made.title, len(made.description)) == (severity, "Latency", "t" * 200, 10_000)


def test_a_critical_report_of_any_length_fits() -> None:
    said = ReportIn(title="t" * 255, description="d" * 39_000, severity="critical")
    report = Report(
        id=1,
        call_id=2,
        trace_id="t",
        said=said,
        reported_by_id=7,
        agent_id=12,
        call_start=None,
        status="open",
        created_at=0,
        updated_at=0,
    )
    made = of_report(report)
    assert (made.severity, made.title, len(made.description)) == ("critical", "t" * 200, 10_000)
