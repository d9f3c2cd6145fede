"""From a grade to reports: once per issue, whoever graded and however often it is said."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.errors import NotFound
from fixloop.loop import Malformed

ISSUES: list[dict[str, Any]] = [
    {"ref": "a", "title": "Long silence", "severity": "low", "timestamp_seconds": 4},
    {"ref": "b", "title": "Wrong number", "severity": "critical", "evidence": "It is 60 days."},
    {"ref": "c", "title": "Angry caller", "severity": "major"},
]
CALL = {"transcripts": [], "start_time": "2026-04-20T18:24:00Z", "status": "in_progress"}


def graded(org: str, call_id: Any, issues: Any, *, source: str = "acme.grader", **grade: Any) -> dict[str, Any]:
    """`call.graded` as EventBridge hands it on."""
    detail = {"type": "call.graded", "org_id": org, "data": {"call_id": call_id, "grade": grade}}
    if issues is not None:
        grade["detected_issues"] = issues
    return {"version": "0", "id": "e", "detail-type": "call.graded", "source": source, "detail": detail}


def file(cloud: Cloud, event: dict[str, Any]) -> None:
    cloud.invoke("FileReportsFunction", event)


@pytest.fixture
def call(caller: Client) -> Client:
    """A caller whose organisation has call 5, not graded by us."""
    assert caller.put("/v1/calls/5", CALL).status == 201
    return caller


def refs(caller: Client) -> list[str]:
    return sorted(report["detected_issue_ref"] for report in caller.get("/v1/issue-reports", limit=200).json())


def test_each_detected_issue_becomes_one_system_report(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, ISSUES))
    reports = {report["detected_issue_ref"]: report for report in call.get("/v1/calls/5/issue-reports").json()}
    assert list(reports) == ["c", "b", "a"]
    assert {report["source"] for report in reports.values()} == {"system"}
    assert {report["reported_by_id"] for report in reports.values()} == {None}
    assert reports["a"]["timestamp_seconds"] == 4
    assert reports["b"]["evidence"] == "It is 60 days."
    shown = call.get("/v1/calls/5").json()
    assert (shown["issue_count"], shown["critical_issue_count"]) == (3, 1)


@pytest.mark.parametrize("start", range(3))
def test_an_issue_is_filed_once_however_often_and_in_whatever_order_events_come(
    cloud: Cloud, call: Client, start: int
) -> None:
    subsets = [list(some) for count in (1, 2, 3) for some in itertools.combinations(ISSUES, count)]
    events = [graded(call.org, 5, some) for some in subsets] * 2
    random.Random(start).shuffle(events)
    for event in events:
        file(cloud, event)
    assert refs(call) == ["a", "b", "c"]
    assert call.get("/v1/calls/5").json()["issue_count"] == 3


def test_an_issue_named_twice_in_one_grade_is_filed_once(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, [*ISSUES, {**ISSUES[0], "title": "Other words"}]))
    assert refs(call) == ["a", "b", "c"]


def test_the_same_issue_on_another_call_is_another_report(cloud: Cloud, call: Client) -> None:
    call.put("/v1/calls/6", CALL)
    file(cloud, graded(call.org, 5, ISSUES[:1]))
    file(cloud, graded(call.org, 6, ISSUES[:1]))
    assert refs(call) == ["a", "a"]


def test_more_issues_than_fit_a_transaction_are_all_filed(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, [{"ref": f"r{n:03d}", "title": "t"} for n in range(55)]))
    assert refs(call) == [f"r{n:03d}" for n in range(55)]
    assert call.get("/v1/calls/5").json()["issue_count"] == 55


@pytest.mark.parametrize(
    ("given", "filed"),
    [
        ("info", "info"),
        ("low", "info"),
        ("minor", "info"),
        ("warning", "warning"),
        ("medium", "warning"),
        ("MAJOR", "warning"),
        ("high", "warning"),
        ("error", "critical"),
        ("Critical", "critical"),
        (None, "warning"),
    ],
)
def test_severities_of_other_graders_are_mapped_to_the_three(
    cloud: Cloud, call: Client, given: str | None, filed: str
) -> None:
    file(cloud, graded(call.org, 5, [{"title": "t", "severity": given}]))
    assert [report["severity"] for report in call.get("/v1/issue-reports").json()] == [filed]


@pytest.mark.parametrize("second", [-1, math.inf, 1e300, "soon", None, [4]])
def test_a_second_that_makes_no_sense_is_left_out(cloud: Cloud, call: Client, second: Any) -> None:
    file(cloud, graded(call.org, 5, [{"ref": "a", "timestamp_seconds": second}]))
    assert [report["timestamp_seconds"] for report in call.get("/v1/issue-reports").json()] == [None]


def test_an_issue_that_is_only_a_sentence_is_filed_under_it(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, ["The agent never said goodbye"]))
    assert refs(call) == ["The agent never said goodbye"]


def test_a_grade_made_elsewhere_becomes_the_calls_grade_if_it_has_none(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, ISSUES, score=0.25, summary="Poor.", grader_model="acme-2"))
    grade = call.get("/v1/calls/5/grade").json()
    assert (grade["score"], grade["summary"], grade["grader_model"]) == (0.25, "Poor.", "acme-2")
    assert grade["status"] == "completed"
    shown = call.get("/v1/calls/5").json()
    assert (shown["grade_score"], shown["grade_status"]) == (0.25, "completed")
    file(cloud, graded(call.org, 5, [], score=0.9))
    assert call.get("/v1/calls/5/grade").json()["score"] == 0.25


def test_an_adopted_grade_comes_back_over_the_bus_and_files_nothing_more(cloud: Cloud, call: Client) -> None:
    file(cloud, graded(call.org, 5, ISSUES, score=0.25))
    cloud.settle()
    assert refs(call) == ["a", "b", "c"]
    assert not [failure for failure in cloud.failures if failure.event.get("detail", {}).get("org_id") == call.org]


def test_grading_again_files_nothing_twice(cloud: Cloud, caller: Client) -> None:
    from loop.stories import CALL_WITH_ISSUES

    caller.put("/v1/calls/7", CALL_WITH_ISSUES)
    cloud.settle()
    before = caller.get("/v1/issue-reports").json()
    assert before
    for _ in range(3):
        assert caller.post("/v1/calls/7/grade?force=true").status == 201
        cloud.settle()
    assert caller.get("/v1/issue-reports").json() == before
    assert caller.get("/v1/calls/7").json()["issue_count"] == len(before)


NESTED: Any = "x"
for _ in range(40):
    NESTED = [NESTED]

BAD: dict[str, dict[str, Any]] = {
    "detail is missing": {"detail": None},
    "detail is a list": {"detail": []},
    "detail is text": {"detail": "call.graded"},
    "empty detail": {"detail": {}},
    "type of another event": {"detail": {"type": "call.completed", "org_id": "o", "data": {"call_id": 1}}},
    "unknown type": {"detail": {"type": "call.exploded", "org_id": "o", "data": {}}},
    "no organisation": {"detail": {"type": "call.graded", "data": {"call_id": 5, "grade": {}}}},
    "organisation with a hash": {
        "detail": {"type": "call.graded", "org_id": "a#b", "data": {"call_id": 5, "grade": {}}}
    },
    "organisation is a number": {"detail": {"type": "call.graded", "org_id": 5, "data": {"call_id": 5, "grade": {}}}},
    "no data": {"detail": {"type": "call.graded", "org_id": "o"}},
}


@pytest.mark.parametrize("bad", BAD)
def test_an_event_that_is_no_grade_fails_and_says_why(cloud: Cloud, bad: str) -> None:
    with pytest.raises(Malformed, match=r"\w"):
        file(cloud, {"source": "acme.grader", "detail-type": "call.graded", **BAD[bad]})


@pytest.mark.parametrize(
    ("call_id", "grade", "says"),
    [
        ("five", {}, "call_id"),
        (None, {}, "call_id"),
        (-1, {}, "call_id"),
        (2**63, {}, "call_id"),
        (5.5, {}, "call_id"),
        (5, {"detected_issues": {"ref": "a"}}, "detected_issues"),
        (5, {"detected_issues": "a"}, "detected_issues"),
        (5, {"detected_issues": [7]}, "detected_issues.0"),
        (5, {"detected_issues": [{}]}, "detected_issues.0"),
        (5, {"detected_issues": [{"ref": "a", "severity": "fatal"}]}, "fatal"),
        (5, {"detected_issues": [{"ref": "a", "severity": ["low"]}]}, "severity"),
        (5, {"detected_issues": [{"ref": "a" * 256}]}, "detected_issues.0"),
        (5, {"detected_issues": [{"ref": "a", "relevant_turn_indices": "all"}]}, "relevant_turn_indices"),
        (5, {"detected_issues": [{"ref": "a", "metadata": [1]}]}, "metadata"),
        (5, {"detected_issues": [], "score": 1.01}, "score"),
        (5, {"detected_issues": [], "score": -1}, "score"),
        (5, {"detected_issues": [], "score": "0.5"}, "score"),
        (5, {"detected_issues": [], "score": True}, "score"),
        (5, {"detected_issues": [], "summary": 5}, "summary"),
        (5, {"detected_issues": [], "caller_welfare_violation": "no"}, "caller_welfare_violation"),
        (5, {"detected_issues": [], "score": math.nan}, "score"),
    ],
)
def test_a_grade_with_a_wrong_part_is_refused_whole_and_the_part_named(
    cloud: Cloud, call: Client, call_id: Any, grade: dict[str, Any], says: str
) -> None:
    event = graded(call.org, call_id, None, **grade)
    with pytest.raises(Malformed) as refused:
        file(cloud, event)
    assert says in str(refused.value)
    assert call.get("/v1/issue-reports").json() == []
    assert call.get("/v1/calls/5/grade").status == 404


def test_an_unknown_call_or_organisation_fails_and_names_the_call(cloud: Cloud, call: Client) -> None:
    for org, call_id in ((call.org, 6), ("org_nobody", 5)):
        for issues in (ISSUES, []):
            with pytest.raises(NotFound, match=str(call_id)):
                file(cloud, graded(org, call_id, issues))


def test_bad_events_do_not_stand_in_the_way_of_good_ones(cloud: Cloud, call: Client) -> None:
    """Each is in what a dead-letter queue gets once, with its reason; all others are filed."""
    failed = len(cloud.failures)
    bad = [
        graded(call.org, 5, "nothing"),
        graded(call.org, 99, ISSUES),
        graded("org_nobody", 5, ISSUES),
        graded(call.org, 5, [{"ref": "big", "description": "x" * 1_000_000}]),
        graded(call.org, 5, [{"ref": "deep", "metadata": {"x": NESTED}}], score=7),
    ]
    for event, good in itertools.zip_longest(bad, ISSUES):
        for one in (event, graded(call.org, 5, [good]) if good else None):
            if one:
                entry = {"Source": one["source"], "DetailType": "call.graded", "EventBusName": "Bus"}
                cloud.client("events").put_events(Entries=[{**entry, "Detail": json.dumps(one["detail"])}])
    cloud.settle()
    assert refs(call) == ["a", "b", "c"]
    failures = cloud.failures[failed:]
    assert len(failures) == len(bad)
    assert all(str(failure.error) for failure in failures)
    assert {failure.function for failure in failures} == {"FileReportsFunction"}
    del cloud.failures[failed:]
