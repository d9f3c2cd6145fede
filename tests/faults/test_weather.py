"""DynamoDB throttles, fails, hangs and loses its answers: nothing is lost, doubled or half done."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest

from cloud import Answer, Client
from faults.weather import Weather, failing, losing_answers, resetting, throttled, weather
from fixloop.issue_reports import Report, ReportQuery
from fixloop.storage import calls, issue_reports
from fixloop.storage.lists import Filter

WORKERS = 16
GOING_ON = {"status": "in_progress", "agent_id": 3}


@pytest.fixture(scope="module")
def sky() -> Iterator[Weather]:
    with weather() as made:
        yield made


@cache
def workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WORKERS)


def together(work: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
    return list(workers().map(work, things))


def caller_with_call(sky: Weather, *numbers: int) -> Client:
    caller = sky.caller()
    for number in numbers or (5,):
        assert caller.put(f"/v1/calls/{number}", GOING_ON).status == 201
    return caller


def delivered(sky: Weather, function: str, event: dict[str, Any]) -> int:
    """How many deliveries an event took; what the third does not take would lie in the dead-letter queue."""
    for attempt in (1, 2):
        try:
            sky.invoke(function, event)
        except Exception:
            continue
        return attempt
    sky.invoke(function, event)
    return 3


def graded(org: str, call: int, *refs: str) -> dict[str, Any]:
    found = [{"ref": ref, "title": ref, "severity": "critical"} for ref in refs]
    data = {"call_id": call, "grade": {"detected_issues": found}}
    return {"source": "fixloop", "detail": {"type": "call.graded", "org_id": org, "data": data}}


def all_reports(org: str) -> list[Report]:
    listed: list[Report] = []
    while page := issue_reports.page(org, ReportQuery(limit=200, offset=len(listed))):
        listed += page
    return listed


def check_counts(org: str) -> list[Report]:
    """Every count against the rows themselves."""
    reports = all_reports(org)
    assert len({report.id for report in reports}) == len(reports)
    for call_id in {report.call_id for report in reports}:
        call = calls.find(org, call_id)
        mine = [report for report in reports if report.call_id == call_id]
        assert issue_reports.of_call(call) == mine
        assert call.standing.issue_count == len(mine)
        assert call.standing.critical_issue_count == sum(report.said.severity == "critical" for report in mine)
    return reports


def check_lists(org: str, reports: list[Report]) -> int:
    """Totals and pages of many filters against brute force; returns how many were compared."""
    compared = 0
    for severity, status, source in itertools.product(
        (None, "info", "critical"), (None, "open", "resolved"), (None, "user")
    ):
        query = ReportQuery(severity=severity, status=status, source=source)
        wanted = [report.id for report in reports if query.wants(report.leaf)]
        for offset in (0, 7, len(wanted) // 2):
            page = issue_reports.lists.page(org, Filter(wanted=query.wants), offset=offset, limit=10, total=True)
            assert page.total == len(wanted)
            assert [row["n"] for row in page.rows] == wanted[offset : offset + 10]
            compared += 1
    return compared


def shaped(answer: Answer) -> bool:
    """An error as this API says it, with nothing of AWS in it."""
    return list(answer.json()) == ["detail"] and "Dynamo" not in answer.text and "Throughput" not in answer.text


def deliveries(org: str, events: int, start: int) -> list[dict[str, Any]]:
    chance = random.Random(start)
    made = [graded(org, 1 + n % 10, f"issue-{n}") for n in range(events) for _ in range(chance.randint(1, 3))]
    chance.shuffle(made)
    return made


def test_duplicate_events_handled_at_once_file_each_report_once(sky: Weather) -> None:
    caller = caller_with_call(sky, *range(1, 11))
    together(lambda event: sky.invoke("FileReportsFunction", event), deliveries(caller.org, 100, 1))
    reports = check_counts(caller.org)
    assert Counter(r.said.detected_issue_ref for r in reports) == {f"issue-{n}": 1 for n in range(100)}


def test_twenty_deliveries_of_one_event_at_once_file_its_reports_once(sky: Weather) -> None:
    caller = caller_with_call(sky)
    event = graded(caller.org, 5, "a", "b", "c")
    together(lambda _: delivered(sky, "FileReportsFunction", event), range(20))
    assert sorted(report.said.detected_issue_ref or "" for report in check_counts(caller.org)) == ["a", "b", "c"]


def test_the_same_while_one_in_five_of_dynamodbs_answers_is_a_fault(sky: Weather) -> None:
    """Exactly one report per event, and nothing for the dead-letter queue after three deliveries."""
    caller = caller_with_call(sky, *range(1, 11))
    faults = [*throttled(0.05), *failing(0.06), *resetting(0.05), *losing_answers(0.05)]
    with sky.storm(*faults):
        together(lambda event: delivered(sky, "FileReportsFunction", event), deliveries(caller.org, 150, 2))
    reports = check_counts(caller.org)
    assert Counter(r.said.detected_issue_ref for r in reports) == {f"issue-{n}": 1 for n in range(150)}
    assert check_lists(caller.org, reports) == 54


def test_callers_are_told_within_seconds_when_dynamodb_throttles_everything(sky: Weather) -> None:
    """In the API's own words, with nothing written; and all is well again as soon as it is over."""
    caller = caller_with_call(sky)
    report = caller.post("/v1/calls/5/issue-reports", {"title": "First"}).json()
    asks: list[Callable[[], Answer]] = [
        lambda: caller.get("/v1/issue-reports"),
        lambda: caller.get("/v1/calls"),
        lambda: caller.post("/v1/calls/5/issue-reports", {"title": "Lost"}),
        lambda: caller.patch(f"/v1/issue-reports/{report['trace_id']}", {"status": "resolved"}),
        lambda: caller.put("/v1/calls/6", GOING_ON),
    ]

    def timed(ask: Callable[[], Answer]) -> tuple[float, Answer]:
        started = time.monotonic()
        answer = ask()
        return time.monotonic() - started, answer

    with sky.storm(*throttled(1)):
        answers = together(timed, asks * 2)
    for seconds, answer in answers:
        assert answer.status in (429, 500, 503)
        assert shaped(answer)
        assert seconds < 10
    with sky.storm(*throttled(1, operation="TransactWriteItems"), *throttled(1, operation="PutItem")):
        answers = together(timed, asks[2:])
    assert all(answer.status in (429, 500, 503) for _, answer in answers)
    seconds, answer = timed(lambda: caller.get("/v1/issue-reports"))
    assert seconds < 5
    assert answer.json() == [report]
    assert caller.get("/v1/calls").json()["total"] == 1
    assert len(check_counts(caller.org)) == 1


def exchange(sky: Weather, caller: Client, requests: int, *rules: dict[str, Any]) -> Counter[int]:
    """Many requests at once in a storm: reads, creations and changes. Counts the statuses; each is asked once."""
    made = [caller.post("/v1/calls/5/issue-reports", {"title": "Known"}).json()["trace_id"] for _ in range(8)]

    def ask(number: int) -> int:
        match number % 4:
            case 0:
                return caller.post("/v1/calls/5/issue-reports", {"title": "t"}).status
            case 1:
                status = ("open", "acknowledged", "resolved")[number // 4 % 3]
                return caller.patch(f"/v1/issue-reports/{made[number % 8]}", {"status": status}).status
            case 2:
                return caller.get("/v1/calls/5").status
        return caller.get(f"/v1/issue-reports/{made[number % 8]}").status

    with sky.storm(*rules):
        return Counter(together(ask, range(requests)))


def test_one_in_ten_answers_throttled_is_hardly_noticed(sky: Weather) -> None:
    caller = caller_with_call(sky)
    statuses = exchange(sky, caller, 200, *throttled(0.1))
    assert set(statuses) <= {200, 201, 500}
    assert statuses[200] + statuses[201] >= 0.97 * 200, statuses
    check_lists(caller.org, check_counts(caller.org))


def test_one_in_ten_answers_an_error_or_a_cut_connection_is_hardly_noticed(sky: Weather) -> None:
    caller = caller_with_call(sky)
    statuses = exchange(sky, caller, 200, *failing(0.05), *resetting(0.05))
    assert set(statuses) <= {200, 201, 500}
    assert statuses[200] + statuses[201] >= 0.97 * 200, statuses
    check_lists(caller.org, check_counts(caller.org))


def test_answers_lost_after_the_write_change_no_count_and_are_no_error_to_the_caller(sky: Weather) -> None:
    """Whoever hears nothing asks again with the same Idempotency-Key; nobody is told no for what has landed."""
    caller = caller_with_call(sky, 1, 2, 3)
    statuses: list[int] = []

    def until_answered(ask: Callable[[], Answer]) -> Answer:
        for _ in range(5):
            answer = ask()
            statuses.append(answer.status)
            if answer.status < 500:
                assert answer.status < 400, answer.text
                return answer
        raise AssertionError("five answers were lost")

    def work(number: int) -> None:
        chance = random.Random(number)
        for step in range(6):
            said = {"title": f"{number}/{step}", "severity": chance.choice(("info", "warning", "critical"))}
            headers = {"idempotency-key": f"{number}/{step}"}
            path = f"/v1/calls/{1 + number % 3}/issue-reports"
            report = until_answered(lambda p=path, s=said, h=headers: caller.post(p, s, headers=h)).json()
            status = chance.choice(("acknowledged", "resolved", "open"))
            where = f"/v1/issue-reports/{report['trace_id']}"
            changed = until_answered(lambda w=where, s=status: caller.patch(w, {"status": s})).json()
            assert changed["status"] == status
        until_answered(lambda: caller.put(f"/v1/calls/{100 + number}", GOING_ON))

    with sky.storm(*losing_answers(0.05)):
        together(work, range(16))
        for _ in range(3):
            issue_reports.lists.seal(caller.org, int(time.time() * 1000) + 120_000)
    reports = check_counts(caller.org)
    assert Counter(report.said.title for report in reports) == {f"{n}/{s}": 1 for n in range(16) for s in range(6)}
    assert issue_reports.lists._mark(caller.org).sealed >= 1
    assert check_lists(caller.org, reports) >= 48
    assert caller.get("/v1/calls").json()["total"] == 3 + 16
    assert not [status for status in statuses if 400 <= status < 500]


def test_a_slow_or_silent_dynamodb_is_answered_long_before_the_gateway_gives_up(sky: Weather) -> None:
    caller = caller_with_call(sky)
    report = caller.post("/v1/calls/5/issue-reports", {"title": "t"}).json()
    asks: list[Callable[[], Answer]] = [
        lambda: caller.get(f"/v1/issue-reports/{report['id']}"),
        lambda: caller.get("/v1/issue-reports"),
        lambda: caller.patch(f"/v1/issue-reports/{report['id']}", {"status": "resolved"}),
    ]

    def timed(ask: Callable[[], Answer]) -> tuple[float, Answer]:
        started = time.monotonic()
        answer = ask()
        return time.monotonic() - started, answer

    with sky.storm({"service": "dynamodb", "latency": 1500}):
        slow = together(timed, asks)
    with sky.storm({"service": "dynamodb", "timeout_ms": 30_000}):
        silent = together(timed, asks)
    for seconds, answer in slow:
        assert answer.status == 200
        assert seconds < 12
    for seconds, answer in silent:
        assert answer.status == 500
        assert shaped(answer)
        assert seconds < 20
