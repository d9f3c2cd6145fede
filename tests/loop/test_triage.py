"""What the loop finds is opened in triage where that is wanted, once, and both sides close together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.storage import issues as loop_issues
from loop.failures import Seen, applied, call, cards, issues, report, wants_triage


@pytest.fixture
def seen(cloud: Cloud, caller: Client) -> Seen:
    return Seen(cloud, caller)


def opened(caller: Client, seen: Seen, **content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The loop's issue and the triage issue after three reports alike."""
    wants_triage(caller)
    for number in (1, 2, 3):
        report(caller, call(caller, number), **content)
    seen.settle()
    (issue,), (card,) = issues(caller), cards(caller)
    return issue, card


def test_an_issue_that_opens_is_a_triage_issue_with_its_calls_and_flags(caller: Client, seen: Seen) -> None:
    issue, card = opened(caller, seen)
    assert card["title"] == issue["title"] == "Wrong day"
    assert (card["source"], card["severity"], card["category"]) == ("automated", "medium", "Dialogue")
    assert (card["resource_count"], card["flag_count"]) == (3, 3)
    path = f"/v1/triage/issues/{card['id']}"
    attached = caller.get(f"{path}/resources").json()["data"]["items"]
    assert [link["resource_id"] for link in attached] == ["1", "2", "3"]
    for flag in caller.get(f"{path}/flags").json()["data"]["items"]:
        assert (flag["type"], flag["message_index"]) == ("wrong_day", 2)
        assert flag["message_text"] == "It left on Monday."
        assert "second 5 of the call" in flag["note"]


def test_nothing_is_opened_where_it_was_not_asked_for(cloud: Cloud, caller: Client) -> None:
    for number in (1, 2, 3):
        report(caller, call(caller, number), severity="critical")
    cloud.settle()
    assert len(issues(caller)) == 1
    assert cards(caller) == []


def test_a_critical_report_is_a_triage_issue_before_there_is_an_issue_and_then_its(caller: Client, seen: Seen) -> None:
    wants_triage(caller)
    report(caller, call(caller, 1), severity="critical", title="Dangerous advice")
    seen.settle()
    (card,) = cards(caller)
    assert (card["title"], card["severity"], card["resource_count"]) == ("Dangerous advice", "critical", 1)
    for number in (2, 3):
        report(caller, call(caller, number))
    seen.settle()
    (same,) = cards(caller)
    assert same["id"] == card["id"]
    assert same["resource_count"] == 3
    assert caller.patch(f"/v1/triage/issues/{card['id']}", {"status": "done"}).status == 200
    seen.settle()
    assert issues(caller)[0]["status"] == "closed"


def test_critical_reports_without_a_pattern_are_triage_issues_of_their_own(caller: Client, seen: Seen) -> None:
    wants_triage(caller)
    for number in (1, 2):
        report(caller, call(caller, number), severity="critical", detected_issue_ref=None)
    report(caller, call(caller, 3), severity="warning", detected_issue_ref=None)
    seen.settle()
    assert [card["resource_count"] for card in cards(caller)] == [1, 1]


def test_what_people_open_as_an_issue_goes_to_triage_with_the_calls_of_its_traces(caller: Client, seen: Seen) -> None:
    wants_triage(caller)
    call(caller, 1)
    seen.settle()
    traces = [trace["id"] for trace in caller.get("/api/traces").json()["data"]]
    told = {"title": "Too slow", "agentId": "agent_12", "severity": "high", "traceIds": traces}
    assert caller.post("/api/v2/issues", told).status == 201
    seen.settle()
    (card,) = cards(caller)
    assert (card["title"], card["severity"], card["resource_count"]) == ("Too slow", "high", 1)


@pytest.mark.parametrize("seed", range(4))
def test_events_in_any_order_and_again_end_in_one_triage_issue(caller: Client, seen: Seen, seed: int) -> None:
    opened(caller, seen, severity="critical")
    before = cards(caller)
    seen.again(seed)
    assert cards(caller) == before
    assert [(card["resource_count"], card["flag_count"]) for card in before] == [(3, 3)]


def test_reports_and_issue_that_come_to_triage_at_the_same_time_open_one(cloud: Cloud, caller: Client) -> None:
    wants_triage(caller)
    filed = [report(caller, call(caller, number), severity="critical") for number in range(1, 6)]

    def told(kind: str, data: dict[str, Any]) -> dict[str, Any]:
        detail = {"id": "evt_1", "type": kind, "org_id": caller.org, "data": data}
        return {"detail-type": kind, "source": "fixloop", "detail": detail}

    reported = [told("issue.reported", {"call_id": one["call_id"], "issue_report": one}) for one in filed]
    for event in reported:
        cloud.invoke("GroupReportsFunction", event)
    (issue,) = issues(caller)
    events = [told("issue.opened", {"issue_id": issue["id"], "issue": {}}), *reported] * 2
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda event: cloud.invoke("OpenTriageIssuesFunction", event), events))
    (card,) = cards(caller)
    assert (card["resource_count"], card["flag_count"]) == (5, 5)


def test_what_people_take_off_a_triage_issue_does_not_come_back(caller: Client, seen: Seen) -> None:
    _, card = opened(caller, seen, severity="critical")
    path = f"/v1/triage/issues/{card['id']}"
    assert caller("DELETE", f"{path}/calls/1").status == 204
    seen.again(1, "issue.opened", "issue.reported")
    assert cards(caller)[0]["resource_count"] == 2
    assert caller("DELETE", path).status == 204
    seen.again(2, "issue.opened", "issue.reported")
    assert cards(caller) == []


# Closing


def test_a_closed_issue_closes_its_triage_issue(caller: Client, seen: Seen) -> None:
    issue, card = opened(caller, seen)
    applied(caller, issue["id"])
    seen.settle()
    (after,) = cards(caller)
    assert (after["id"], after["status"]) == (card["id"], "done")
    told = [event["detail"]["data"] for _, event in seen.events if event["detail-type"] == "triage_issue.closed"]
    assert [(one["issue_id"], one["followed"]) for one in told] == [(issue["id"], True)]


@pytest.mark.parametrize("status", ["done", "closed"])
def test_a_triage_issue_that_people_end_closes_its_issue_and_keeps_its_status(
    caller: Client, seen: Seen, status: str
) -> None:
    issue, card = opened(caller, seen)
    assert caller.patch(f"/v1/triage/issues/{card['id']}", {"status": status}).status == 200
    seen.settle()
    assert [one["status"] for one in issues(caller)] == ["closed"]
    assert [one["status"] for one in cards(caller)] == [status]
    closings = [event for _, event in seen.events if event["detail-type"] == "issue.closed"]
    assert len(closings) == 1
    seen.again(3)
    assert [one["status"] for one in issues(caller)] == ["closed"]
    assert [one["status"] for one in cards(caller)] == [status]
    assert loop_issues.find(caller.org, issue["id"]).closed_at == closings[0]["detail"]["data"]["closed_at"]


@pytest.mark.parametrize("first", ["issue", "triage"])
def test_what_people_open_again_stays_open_however_often_its_closing_is_told(
    caller: Client, seen: Seen, first: str
) -> None:
    issue, card = opened(caller, seen)
    if first == "issue":
        assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "closed"}).status == 200
    else:
        assert caller.patch(f"/v1/triage/issues/{card['id']}", {"status": "done"}).status == 200
    seen.settle()
    assert caller.patch(f"/v1/triage/issues/{card['id']}", {"status": "todo"}).status == 200
    seen.again(4)
    assert [one["status"] for one in cards(caller)] == ["todo"]
    assert [one["status"] for one in issues(caller)] == ["closed"]
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "open"}).status == 200
    seen.again(5)
    assert [one["status"] for one in issues(caller)] == ["open"]
    assert [one["status"] for one in cards(caller)] == ["todo"]


def test_an_issue_that_came_back_is_open_and_what_is_critical_in_it_a_new_triage_issue(
    caller: Client, seen: Seen
) -> None:
    issue, card = opened(caller, seen)
    assert caller.patch(f"/v1/triage/issues/{card['id']}", {"status": "done"}).status == 200
    seen.settle()
    report(caller, call(caller, 4))
    seen.settle()
    assert [one["status"] for one in issues(caller)] == ["open"]
    assert [one["status"] for one in cards(caller)] == ["done"]
    for number in (5, 6):
        report(caller, call(caller, number), severity="critical")
    seen.settle()
    assert sorted((one["status"], one["resource_count"]) for one in cards(caller)) == [("done", 3), ("todo", 2)]
    seen.again(6)
    assert sorted((one["status"], one["resource_count"]) for one in cards(caller)) == [("done", 3), ("todo", 2)]
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "closed"}).status == 200
    seen.settle()
    assert [one["status"] for one in cards(caller)] == ["done", "done"]


def test_an_issue_that_was_closed_before_triage_heard_of_it_is_done_there(cloud: Cloud, caller: Client) -> None:
    for number in (1, 2, 3):
        report(caller, call(caller, number))
    cloud.settle()
    (issue,) = issues(caller)
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"status": "closed"}).status == 200
    wants_triage(caller)
    detail = {"id": "e", "type": "issue.opened", "org_id": caller.org, "data": {"issue_id": issue["id"], "issue": {}}}
    cloud.invoke("OpenTriageIssuesFunction", {"detail-type": "issue.opened", "source": "fixloop", "detail": detail})
    assert [card["status"] for card in cards(caller)] == ["done"]
