"""What a report is made of: its ids, its limits, its leaf, and what a grade says about it."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop.issue_reports import MAX_TEXT, Report, ReportIn, ReportQuery, detected, leaf, number_of, trace_id


@given(st.integers(1, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_trace_id_is_a_uuid_that_holds_the_reports_id(number: int, noise: bytes) -> None:
    made = UUID(trace_id(number, noise))
    assert (made.version, str(made.variant)) == (8, "specified in RFC 4122")
    assert number_of(str(made)) == number


@given(st.text(max_size=50))
def test_any_key_is_a_number_or_none(key: str) -> None:
    assert number_of(key) is None or isinstance(number_of(key), int)


def test_trace_ids_of_later_reports_sort_later() -> None:
    assert trace_id(1, b"\xff" * 10) < trace_id(2, b"\x00" * 10) < trace_id(300, b"\x00" * 10)


def test_a_report_is_shown_with_24_keys() -> None:
    report = Report(
        id=1,
        call_id=2,
        agent_id=None,
        call_start=None,
        status="open",
        reported_by_id=7,
        trace_id="t",
        created_at=0,
        updated_at=1,
        said=ReportIn(title="x"),
    )
    shown = report.shown()
    assert len(shown) == 24
    assert list(shown)[:3] == ["id", "call_id", "source"]
    assert (shown["created_at"], shown["updated_at"]) == ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.001Z")


@pytest.mark.parametrize("filler", ["x", "€", "😀", "\x00", '"'])
def test_a_text_is_measured_in_bytes_as_json(filler: str) -> None:
    size = {"x": 1, "€": 3, "😀": 4, "\x00": 6, '"': 2}[filler]
    most = (MAX_TEXT - 2) // size
    assert ReportIn(title="x", description=filler * most)
    with pytest.raises(ValidationError):
        ReportIn(title="x", description=filler * (most + 1))


def test_the_largest_report_fits_an_event_of_256_kb() -> None:
    text = "x" * (MAX_TEXT - 2)
    rest = {"title": "\x00" * 255, "detected_issue_ref": "\x00" * 255, "relevant_turn_indices": [2**31] * 1000}
    texts = dict.fromkeys(("description", "evidence", "what_went_wrong", "suggested_fix"), text)
    largest = ReportIn.model_validate({**texts, **rest, "metadata": {"": text[8:]}})
    assert len(largest.model_dump_json()) < 240_000


@pytest.mark.parametrize(
    ("query", "count"),
    [({}, 18), ({"severity": "info"}, 6), ({"status": "open", "source": "user"}, 3), ({"source": "system"}, 9)],
)
def test_a_query_wants_the_leaves_that_pass_all_its_filters(query: dict[str, Any], count: int) -> None:
    leaves = {
        leaf(severity, status, source)
        for severity in ("info", "warning", "critical")
        for status in ("open", "acknowledged", "resolved")
        for source in ("user", "system")
    }
    assert len([code for code in leaves if ReportQuery(**query).wants(code)]) == count


@pytest.mark.parametrize(
    ("given", "severity"),
    [("low", "info"), ("medium", "warning"), ("HIGH", "warning"), ("critical", "critical"), (None, "warning")],
)
def test_a_detected_issues_severity_is_mapped_to_the_three(given: str | None, severity: str) -> None:
    assert detected({"ref": "r", "title": "t", "severity": given}).severity == severity


def test_a_detected_issue_may_be_a_title_alone() -> None:
    report = detected("Talked too fast")
    assert (report.title, report.detected_issue_ref, report.source) == ("Talked too fast", "Talked too fast", "system")


@pytest.mark.parametrize(
    "issue",
    [5, None, [], {}, {"severity": "info"}, {"ref": "r", "severity": "deadly"}, {"ref": "r", "turn_index": -1}, ""],
)
def test_a_detected_issue_that_says_nothing_usable_is_refused(issue: Any) -> None:
    with pytest.raises(ValueError):
        detected(issue)


def test_a_detected_issue_keeps_its_place_in_the_call() -> None:
    report = detected({"ref": "r", "at_seconds": 12.9, "turn_index": 3, "explanation": "why", "metadata": {"count": 2}})
    assert (report.timestamp_seconds, report.failing_turn_index) == (12, 3)
    assert (report.description, report.metadata) == ("why", {"count": 2})
