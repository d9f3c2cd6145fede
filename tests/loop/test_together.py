"""App issues join the loop, applied fixes close what belongs to them, and issues tell what their calls cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud import ROOT, Client, Cloud
from fixloop import gather, resolve
from fixloop.storage import app_issues as app_store
from fixloop.storage import call_reports, platform
from fixloop.storage import issues as issue_store
from loop.failures import Seen, applied, call, complaint, issues, recorded, report

ATTEMPT = json.loads(json.loads((ROOT / "events/call_reports/put_attempt.json").read_text())["body"])


@pytest.fixture
def seen(cloud: Cloud, caller: Client) -> Seen:
    return Seen(cloud, caller)


def states(caller: Client) -> list[str]:
    """Of the app issues, oldest first."""
    listed = caller.get("/api/v1/app/issue", page_order="ASC", page_size=100).json()["data"]
    return [one["state"] for one in listed]


# App issues


def test_the_third_app_issue_alike_opens_an_issue_that_they_all_are_part_of(caller: Client, seen: Seen) -> None:
    traces = [recorded(caller, f"thread-{at}") for at in range(3)]
    filed = [complaint(caller, thread_id=f"thread-{at}") for at in range(2)]
    seen.settle()
    assert issues(caller) == []
    filed.append(complaint(caller, thread_id="somewhere", reported_interaction_id=traces[2]))
    seen.settle()
    (issue,) = issues(caller)
    assert (issue["title"], issue["severity"]) == ("Inaccurate answer: It left on Friday.", "high")
    assert (issue["agentId"], issue["tags"]) == ("agent_abc", ["app-issue", "Inaccurate"])
    assert sorted(issue["traceIds"]) == sorted(traces)
    assert "Thread thread-0: It left on Friday." in issue["description"]
    assert "version 2" in issue["description"]
    bound = app_store.of_issue(caller.org, issue["id"])
    assert [one.id for one in bound] == [one["id"] for one in filed]


def test_the_last_trace_of_a_session_is_what_an_app_issue_is_about(caller: Client, seen: Seen) -> None:
    recorded(caller, "long")
    last = recorded(caller, "long")
    for _ in range(3):
        complaint(caller, thread_id="long")
    seen.settle()
    (issue,) = issues(caller)
    assert issue["traceIds"] == [last]
    assert issue["metadata"]["affectedCustomers"] == 1


def test_app_issues_about_the_turn_of_a_call_are_about_its_agent(caller: Client, seen: Seen) -> None:
    for number in (1, 2, 3):
        call(caller, number)
    seen.settle()
    answers = [t["id"] for t in caller.get("/api/traces").json()["data"] if t["agentResponse"] == "It left on Monday."]
    for trace_id in answers:
        complaint(caller, thread_id=trace_id)
    seen.settle()
    (issue,) = issues(caller)
    assert (issue["agentId"], sorted(issue["traceIds"])) == ("agent_12", sorted(answers))


@pytest.mark.parametrize("other", [{"agentId": "agent_else"}, {}], ids=["another agent", "a thread nobody knows"])
def test_app_issues_that_are_not_alike_or_about_nothing_recorded_stay_alone(
    caller: Client, seen: Seen, other: dict[str, Any]
) -> None:
    for at in range(2):
        recorded(caller, f"thread-{at}")
        complaint(caller, thread_id=f"thread-{at}")
    if other:
        recorded(caller, "thread-2", **other)
    complaint(caller, thread_id="thread-2")
    gone = complaint(caller, thread_id="thread-0")
    assert caller("DELETE", f"/api/v1/app/issue/{gone['id']}").status == 204
    caller.post("/api/v1/app/issue", {"resource_type": "Thread", "type": "Inaccurate", "description": "Nowhere."})
    seen.settle()
    assert issues(caller) == []


@pytest.mark.parametrize("seed", range(3))
def test_app_issues_that_come_again_and_at_the_same_time_open_one_issue(
    cloud: Cloud, caller: Client, seen: Seen, seed: int
) -> None:
    for at in range(6):
        recorded(caller, f"thread-{at}")
        complaint(caller, thread_id=f"thread-{at}")
    made = list(cloud.stream_records("AppIssuesTable"))
    relayed = [r for r in made if r["dynamodb"]["Keys"]["sk"]["S"] == "app_issue"]
    invoke = cloud.invoke
    told: list[dict[str, Any]] = []

    def held_back(function: str, event: dict[str, Any]) -> Any:
        if function == "GroupAppIssuesFunction":
            told.append(event)
            return None
        return invoke(function, event)

    cloud.invoke = held_back  # type: ignore[method-assign]
    try:
        cloud.invoke("RelayEventsFunction", {"Records": relayed})
        cloud.settle()
    finally:
        del cloud.invoke
    assert len(told) == 6
    seen.events = [("GroupAppIssuesFunction", event) for event in [*told, *told]]
    seen.again(seed)
    (issue,) = issues(caller)
    assert issue["traceCount"] == len(issue["traceIds"]) == 6
    assert len(app_store.of_issue(caller.org, issue["id"])) == 6
    seen.again(seed + 10)
    assert issues(caller) == [issue]


def test_an_applied_fix_closes_the_app_issues_of_its_issue_and_none_that_comes_after(
    caller: Client, seen: Seen
) -> None:
    for at in range(4):
        recorded(caller, f"thread-{at}")
    for at in range(3):
        complaint(caller, thread_id=f"thread-{at}")
    seen.settle()
    (issue,) = issues(caller)
    applied(caller, issue["id"])
    seen.settle()
    assert states(caller) == ["Closed"] * 3
    complaint(caller, thread_id="thread-3")
    seen.settle()
    assert states(caller) == ["Closed"] * 3 + ["NotReviewed"]
    assert [one["status"] for one in issues(caller)] == ["open"]
    seen.again(1)
    assert states(caller) == ["Closed"] * 3 + ["NotReviewed"]
    assert [one["status"] for one in issues(caller)] == ["open"]


def test_an_app_issue_that_is_grouped_after_its_issue_was_closed_is_closed_too(
    cloud: Cloud, caller: Client, seen: Seen
) -> None:
    for at in range(4):
        recorded(caller, f"thread-{at}")
    late = complaint(caller, thread_id="thread-3")
    records = list(cloud.stream_records("AppIssuesTable"))
    for at in range(3):
        complaint(caller, thread_id=f"thread-{at}")
    seen.settle()
    (issue,) = issues(caller)
    assert issue["traceCount"] == 3
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "closed"}).status == 200
    seen.settle()
    told = {"app_issue_id": late["id"], "thread_id": "thread-3", "app_issue": {}}
    detail = {"id": "e", "type": "app_issue.created", "org_id": caller.org, "data": told}
    cloud.invoke("GroupAppIssuesFunction", {"detail-type": "app_issue.created", "detail": detail})
    assert records
    assert states(caller) == ["Closed"] * 4
    assert [(one["status"], one["traceCount"]) for one in issues(caller)] == [("closed", 4)]


def test_an_app_issue_that_its_reviewer_opens_again_stays_open(caller: Client, seen: Seen) -> None:
    recorded(caller, "thread")
    filed = [complaint(caller, thread_id="thread") for _ in range(3)]
    seen.settle()
    applied(caller, issues(caller)[0]["id"])
    seen.settle()
    assert caller.patch(f"/api/v1/app/issue/{filed[0]['id']}", {"state": "InReview"}).status == 200
    seen.again(2)
    assert states(caller) == ["InReview", "Closed", "Closed"]


# What an organisation chooses


@pytest.mark.parametrize(("threshold", "opened"), [(1, [1]), (2, [2]), (4, [])])
def test_an_organisation_says_how_many_alike_open_an_issue(
    caller: Client, seen: Seen, threshold: int, opened: list[int]
) -> None:
    platform.change_org(caller.org, {"grouping_threshold": threshold})
    for number in range(1, min(threshold, 3) + 1):
        report(caller, call(caller, number))
    seen.settle()
    assert [issue["traceCount"] for issue in issues(caller)] == opened


def test_without_a_choice_the_number_is_the_stacks(
    cloud: Cloud, caller: Client, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = gather.settings().model_copy(update={"grouping_threshold": 2})
    monkeypatch.setattr(gather, "settings", lambda: chosen)
    for number in (1, 2):
        report(caller, call(caller, number))
    seen.settle()
    assert [issue["traceCount"] for issue in issues(caller)] == [2]


# Many members


def test_an_applied_fix_resolves_all_reports_however_many_they_are(
    caller: Client, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "AT_ONCE", 4)
    call(caller, 1)
    for _ in range(11):
        report(caller, 1)
    seen.settle()
    (issue,) = issues(caller)
    fix_id = applied(caller, issue["id"])
    later = report(caller, 1)
    seen.settle()
    reports = caller.get("/v1/issue-reports", limit=200).json()
    assert [one["status"] for one in reports] == ["open"] + ["resolved"] * 11
    assert reports[0]["id"] == later["id"]
    told = [e["detail"]["data"] for _, e in seen.events if e["detail-type"] == "reports.resolved"]
    assert [(one["resolved"], one["more"]) for one in told] == [(4, True), (8, True), (11, False)]
    assert {one["fix_id"] for one in told} == {fix_id}
    for one in reports[3:5]:
        assert caller.patch(f"/v1/issue-reports/{one['trace_id']}", {"status": "open"}).status == 200
    seen.again(3)
    assert sum(one["status"] == "open" for one in caller.get("/v1/issue-reports", limit=200).json()) == 3


def test_resolving_that_died_halfway_goes_on_where_it_was(
    caller: Client, seen: Seen, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "AT_ONCE", 4)
    call(caller, 1)
    for _ in range(10):
        report(caller, 1)
    seen.settle()
    applied(caller, issues(caller)[0]["id"])
    find, asked = resolve.issue_reports.find, []

    def failing(org: str, key: str) -> Any:
        asked.append(key)
        if len(asked) == 7:
            raise ZeroDivisionError
        return find(org, key)

    with monkeypatch.context() as broken:
        broken.setattr(resolve.issue_reports, "find", failing)
        cloud.settle()
    (failure,) = cloud.failures
    assert failure.event["detail-type"] == "reports.resolved"
    cloud.failures.clear()
    cloud.invoke(failure.function, failure.event)
    seen.settle()
    assert {one["status"] for one in caller.get("/v1/issue-reports", limit=200).json()} == {"resolved"}


def test_a_report_that_was_filed_before_the_fix_and_grouped_after_it_is_resolved(
    cloud: Cloud, caller: Client, seen: Seen
) -> None:
    call(caller, 1)
    for _ in range(3):
        report(caller, 1)
    seen.settle()
    late = report(caller, 1)
    event = {"id": "e", "type": "issue.reported", "org_id": caller.org, "data": {"call_id": 1, "issue_report": late}}
    (issue,) = issues(caller)
    cloud.forget()
    applied(caller, issue["id"])
    seen.settle()
    cloud.invoke("GroupReportsFunction", {"detail-type": "issue.reported", "source": "fixloop", "detail": event})
    assert {one["status"] for one in caller.get("/v1/issue-reports", limit=200).json()} == {"resolved"}
    assert [one["status"] for one in issues(caller)] == ["closed"]


def test_an_issue_opened_for_a_large_group_has_the_traces_of_all_of_it(cloud: Cloud, caller: Client) -> None:
    for at in range(1000, 1130):
        member = {"report_id": at, "call_id": at, "trace_id": f"tr_{at}", "at": at, "severity": "low"}
        group = "1#agent_12#wrong-day:parcels"
        told = {**member, "title": f"No. {at}", "description": ""}
        issue_store.join(caller.org, group, "why", f"{at:015d}", told, at, None)
    report(caller, call(caller, 1))
    cloud.settle()
    (issue,) = issues(caller)
    assert issue["title"] == "Wrong day"
    assert issue["traceCount"] == len(issue["traceIds"]) == 131


# Costs


def attempt(caller: Client, number: int, cost: str | None) -> None:
    """Puts an attempt in which somebody spoke, of which the loop makes a call."""
    spoken = {"type": "agent_speech", "timestamp": "2025-12-16T11:15:35.000Z", "data": {"text": "It left on Monday."}}
    told = {**ATTEMPT, "attempt": 1, "callId": f"call-{number}", "events": [*ATTEMPT["events"], spoken]}
    body = json.dumps(told)
    if cost is not None:
        node = f'"nodeId": "dial-1", "nodeType": "dial", "unit": "flat", "cost": {cost}, "costPerUnit": {cost}'
        billing = f'{{"nodes": [{{{node}, "durationMs": null, "minDurationMs": null}}], "totalCost": {cost}}}'
        body = f'{body[:-1]}, "billing": {billing}}}'
    answer = caller("PUT", f"/call-report/job-{number}/attempts/1", body=body)
    assert answer.status in (200, 201), answer.text


def joined(caller: Client, number: int) -> int:
    found = call_reports.attempt(caller.org, f"job-{number}", 1).joined
    assert found is not None
    return found


def cost(caller: Client) -> float | None:
    (issue,) = [one for one in issues(caller) if one["title"] == "Wrong day"]
    told: float | None = issue["metadata"]["affectedCost"]
    return told


def test_an_issue_tells_what_its_calls_cost_each_once_and_exactly(caller: Client, seen: Seen) -> None:
    for number, amount in ((1, "0.1"), (2, "0.2"), (3, None)):
        attempt(caller, number, amount)
    seen.settle()
    for number in (1, 2, 3):
        report(caller, joined(caller, number))
    seen.settle()
    assert cost(caller) == 0.3
    report(caller, joined(caller, 1))
    seen.settle()
    seen.again(1)
    assert cost(caller) == 0.3


def test_a_cost_that_is_told_later_or_corrected_is_in_the_sum(caller: Client, seen: Seen) -> None:
    for number in (1, 2, 3):
        attempt(caller, number, None)
    seen.settle()
    for number in (1, 2, 3):
        report(caller, joined(caller, number))
    seen.settle()
    assert cost(caller) is None
    attempt(caller, 1, "1.875075")
    attempt(caller, 2, "0")
    seen.settle()
    assert cost(caller) == 1.875075
    attempt(caller, 1, "0.0000005")
    seen.settle()
    seen.again(2)
    assert cost(caller) == 0.0000005
