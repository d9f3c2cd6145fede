"""The pipeline's view of a shadow test: the bar, JUnit and Markdown."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from fixloop_cli.gate import Bar, Report, junit, markdown

USUAL = Bar(0.6, 0.0)


def result(trace: str, verdict: str | None, **changes: Any) -> dict[str, Any]:
    values = {
        "traceId": trace,
        "verdict": verdict,
        "originalScore": 0.35 if verdict else None,
        "fixedScore": 0.88 if verdict else None,
        "explanation": "says 30 days" if verdict else None,
        "originalOutput": "60 days",
        "fixedOutput": "30 days",
        "latencyMs": 120 if verdict else None,
        "error": None if verdict else "The model refused",
    }
    return {**values, **changes}


def report(verdicts: list[str | None], bar: Bar = USUAL, status: str = "completed", **changes: Any) -> Report:
    counts = {name: verdicts.count(name) for name in ("improved", "unchanged", "regressed")}
    test = {
        "id": "st_7k2m9p",
        "fixId": "fix_3a9c7e",
        "status": status,
        "traceCount": len(verdicts),
        "results": counts,
        "usage": {"inputTokens": 10, "outputTokens": 5, "costEstimateUsd": 0.0123},
        **changes,
    }
    return Report(test, [result(f"tr_{at}", verdict) for at, verdict in enumerate(verdicts)], bar)


@pytest.mark.parametrize(
    ("verdicts", "bar", "met"),
    [
        (["improved"] * 6 + ["unchanged"] * 4, Bar(0.6, 0.0), True),
        (["improved"] * 5 + ["unchanged"] * 5, Bar(0.6, 0.0), False),
        (["improved"] * 9 + ["regressed"], Bar(0.6, 0.0), False),
        (["improved"] * 9 + ["regressed"], Bar(0.6, 0.1), True),
        (["improved"] * 6 + [None] * 4, Bar(1.0, 0.0), True),
        ([None], Bar(0.0, 0.0), True),
    ],
)
def test_the_bar_is_a_share_of_the_traces_that_were_replayed(verdicts: Any, bar: Bar, met: bool) -> None:
    assert (report(verdicts, bar).misses() == []) is met


def test_a_test_that_failed_misses_any_bar_and_says_why() -> None:
    failed = report(["improved"], Bar(0, 1), status="failed", results={"improved": 1, "error": "Cancelled"})
    assert failed.misses() == ["the test has failed: Cancelled"]


def test_junit_has_a_case_per_trace_and_one_for_a_missed_bar() -> None:
    suite = ElementTree.fromstring(junit(report(["improved", "regressed", None])))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == ["tr_0", "tr_1", "tr_2", "the bar"]
    failure = cases["tr_1"].find("failure")
    assert failure is not None
    assert failure.text == "Original:\n60 days\n\nFixed:\n30 days"
    error = cases["tr_2"].find("error")
    assert error is not None
    assert error.get("message") == "The model refused"
    met = ElementTree.fromstring(junit(report(["improved"])))
    assert (met.get("tests"), met.get("failures")) == ("1", "0")


def test_what_a_model_says_cannot_break_the_reports() -> None:
    hostile = "a | b\n<script> \x00\x1b ]]> & \ud800"
    found = Report(
        report(["regressed"]).test,
        [result("tr_0", "regressed", explanation=hostile, fixedOutput=hostile)],
        Bar(0.6, 0.0),
    )
    assert "\x00" not in ElementTree.fromstring(junit(found)).findall(".//failure")[0].get("message", "")
    (row,) = [line for line in markdown(found).splitlines() if "`tr_0`" in line]
    assert row.count(" | ") == 4
    assert "<script>" not in row


def test_markdown_says_the_verdict_first_and_lists_what_got_worse() -> None:
    text = markdown(report(["improved", "regressed", None]))
    assert text.startswith("## ❌ The bar is missed: fix `fix_3a9c7e`\n\n- improved 50.0%, wanted at least 60.0%")
    assert "| 1 | 0 | 1 | 1 | 50.0% |" in text
    assert "| `tr_1` | regressed | 0.35 | 0.88 | says 30 days |" in text
    assert "| `tr_2` | not replayed | – | – | The model refused |" in text
    assert "10 tokens in, 5 out, about $0.0123" in text
    assert markdown(report(["improved"])).startswith("## ✅ The bar is met")
