"""Call reports over HTTP: attempts come in any order, once each, at any size; calls are asked for and cancelled."""

from __future__ import annotations

import itertools
import json
import random
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from api.conftest import Clock
from cloud import Answer, Client, Cloud
from fixloop.identity import Scope
from fixloop.storage import call_reports, dynamo
from wire.gomobile import CALL

JOB = "ec8edce0-f898-4d34-b2fc-542ef98f38a5"
ASKED = {"didId": "did", "contactId": "contact", "flowId": "flow", "retry": {"type": "none"}}
START = "2025-12-16T11:15:00.062Z"


def report(number: int = 1, outcome: str = "completed", **changes: Any) -> dict[str, Any]:
    """A small report of an attempt."""
    call = {"status": outcome, "direction": "outbound", "from": "1000", "to": "6001", "createdAt": START}
    return {"callId": f"call-{number}", "attempt": number, "call": call, "outcome": outcome, "events": [], **changes}


def live(number: int = 1, state: str = "ringing") -> dict[str, Any]:
    return report(number, state)


@pytest.fixture
def put(caller: Client) -> Callable[..., Answer]:
    def store(body: dict[str, Any], job: str = JOB) -> Answer:
        return caller.put(f"/call-report/{job}/attempts/{body['attempt']}", body)

    return store


@pytest.fixture
def shown(caller: Client) -> Callable[..., Any]:
    def show(job: str = JOB) -> Any:
        answer = caller.get(f"/call-report/{job}")
        assert answer.status == 200, answer.text
        return answer.json()

    return show


def items(cloud: Cloud, caller: Client, job: str = JOB) -> list[dict[str, Any]]:
    """The rows that are stored of a job."""
    return list(dynamo.query(cloud.environment()["CALL_REPORTS_TABLE"], "pk = :pk", {":pk": f"{caller.org}#job#{job}"}))


# Telling of attempts


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_attempts_are_shown_in_order_however_they_came(put: Any, shown: Any, order: tuple[int, ...]) -> None:
    for number in order:
        assert put(report(number, "completed" if number == 3 else "busy")).status == 201
    job = shown()
    assert [one["attempt"] for one in job["attempts"]] == [1, 2, 3]
    assert (job["status"], job["finalOutcome"]) == ("completed", "completed")


def test_more_than_nine_attempts_are_in_the_order_of_their_numbers(put: Any, shown: Any) -> None:
    for number in (10, 9, 100, 2):
        put(report(number, "busy"))
    assert [one["attempt"] for one in shown()["attempts"]] == [2, 9, 10, 100]


def test_an_attempt_told_twice_is_one_and_writes_nothing(cloud: Cloud, caller: Client, put: Any, shown: Any) -> None:
    first = put(report())
    before = items(cloud, caller)
    again = put(report())
    assert (first.status, again.status) == (201, 200)
    assert first.text == again.text
    assert items(cloud, caller) == before
    assert len(shown()["attempts"]) == 1


def test_an_attempt_told_anew_is_what_was_told_last(cloud: Cloud, caller: Client, put: Any, shown: Any) -> None:
    put(report(outcome="failed", outcomeReason="No trunk"))
    assert put(report(outcome="completed")).status == 200
    assert shown()["finalOutcome"] == "completed"
    assert "outcomeReason" not in shown()["attempts"][0]
    assert len([row for row in items(cloud, caller) if row["sk"].startswith("text#")]) == 1


def test_an_attempt_that_has_ended_does_not_go_on_again(put: Any, shown: Any) -> None:
    """What was sent before the end may come after it."""
    assert put(live()).status == 201
    assert shown()["status"] == "active"
    assert "finalOutcome" not in shown()
    put(report(outcome="busy"))
    late = put(live(state="queued"))
    assert (late.status, late.json()["outcome"]) == (200, "busy")
    assert shown()["finalOutcome"] == "busy"


def test_a_late_attempt_is_taken_when_the_job_is_long_gone(
    cloud: Cloud, caller: Client, clock: Clock, put: Any, shown: Any
) -> None:
    job = caller.post("/call-requests", ASKED).json()["jobId"]
    put(report(1, "busy"), job)
    clock.now += 400 * 24 * 3600
    assert [one["attempt"] for one in shown(job)["attempts"]] == [1]
    assert put(report(2), job).status == 201
    assert (shown(job)["status"], shown(job)["finalOutcome"]) == ("completed", "completed")
    gone = {"pk": f"{caller.org}#job#{job}", "sk": "job"}
    dynamo.delete(cloud.environment()["CALL_REPORTS_TABLE"], gone)
    assert shown(job)["status"] == "completed"


def test_a_job_of_which_no_attempt_came_is_unknown_once_it_has_expired(caller: Client, clock: Clock) -> None:
    job = caller.post("/call-requests", ASKED).json()["jobId"]
    clock.now += 6 * 24 * 3600
    assert caller.get(f"/call-report/{job}").json()["status"] == "queued"
    clock.now += 2 * 24 * 3600
    assert caller.get(f"/call-report/{job}").status == 404


def test_while_retries_are_to_come_the_job_is_active(caller: Client, put: Any, shown: Any) -> None:
    retry = {"type": "fixed-delay", "delay": 300_000, "maxRetries": 2}
    job = caller.post("/call-requests", {**ASKED, "retry": retry}).json()["jobId"]
    stood = []
    for number in (1, 2, 3):
        put(report(number, "no_answer"), job)
        stood.append(shown(job)["status"])
    assert stood == ["active", "active", "completed"]


def test_many_tell_of_one_attempt_at_once_and_it_is_one(cloud: Cloud, caller: Client, shown: Any) -> None:
    bodies = [report(outcomeReason=f"told by {n}") for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: caller.put(f"/call-report/{JOB}/attempts/1", body), bodies))
    assert {answer.status for answer in answers} <= {200, 201}
    assert sum(answer.status == 201 for answer in answers) == 1
    (attempt,) = shown()["attempts"]
    assert attempt in bodies
    assert caller.get("/call-report/call/call-1").json() == attempt


def test_many_attempts_of_one_job_are_told_at_once_and_all_are_there(caller: Client, shown: Any) -> None:
    job = caller.post("/call-requests", ASKED).json()["jobId"]
    numbers = list(range(1, 13))
    random.Random(7).shuffle(numbers)
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(lambda n: caller.put(f"/call-report/{job}/attempts/{n}", report(n, "busy")), numbers)
        )
    assert {answer.status for answer in answers} == {201}
    assert [one["attempt"] for one in shown(job)["attempts"]] == sorted(numbers)


def test_a_call_is_one_attempts_only(caller: Client, put: Any) -> None:
    put(report(1))
    for other in (put(report(2, callId="call-1")), put(report(1, callId="call-1"), "other-job")):
        assert (other.status, other.json()["error"]) == (409, "ConflictException")
        assert "call-1" in other.json()["message"]
    changed = put(report(1, callId="call-9"))
    assert changed.status == 409
    assert caller.get("/call-report/call/call-9").status == 404
    assert caller.get("/call-report/other-job").status == 404


def test_two_attempts_race_for_one_call_and_one_gets_it(caller: Client) -> None:
    def tell(number: int) -> Answer:
        return caller.put(f"/call-report/{JOB}/attempts/{number}", report(number, callId="call-1"))

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(tell, range(1, 5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]


def test_digits_are_kept(cloud: Cloud, caller: Client) -> None:
    flow = {
        "flowId": "f",
        "flowName": "f",
        "flowVersion": 1,
        "executionPath": [],
        "finalVariables": {},
        "nodeExecutionCount": 0,
    }
    numbers = '"a":1.0,"b":1.50,"c":1e5,"d":-0,"e":12345678901234567890123,"f":0.1000'
    body = json.dumps(report(flowExecution=flow)).replace('"finalVariables": {}', f'"finalVariables":{{{numbers}}}')
    headers = {"x-api-key": caller.key}
    told = cloud.request("PUT", f"/call-report/{JOB}/attempts/1", body=body, headers=headers)
    assert told.status == 201
    for text in (told.text, caller.get(f"/call-report/{JOB}").text, caller.get("/call-report/call/call-1").text):
        assert f'"finalVariables":{{{numbers}}}' in text


# What is refused


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("j/attempts/0", report(), "attempt"),
        ("j/attempts/201", report(), "attempt"),
        ("j/attempts/one", report(), "attempt"),
        ("j/attempts/2", report(1), "attempt"),
        ("a%20b/attempts/1", report(), "jobId"),
        ("j/attempts/1", report(note=1), "note"),
        ("j/attempts/1", report(call={**report()["call"], "note": 1}), "call.note"),
        ("j/attempts/1", {**json.loads(CALL), "billing": {"nodes": [], "totalCost": 1}}, "billing.totalCost"),
    ],
)
def test_a_bad_report_is_refused_by_field_and_nothing_is_stored(
    cloud: Cloud, caller: Client, path: str, body: dict[str, Any], field: str
) -> None:
    answer = caller.put(f"/call-report/{path}", body)
    assert answer.status == 400
    assert answer.json()["error"] == "BadRequestException"
    assert answer.json()["message"].startswith(f"{field}: ")
    assert not items(cloud, caller, "j")


@pytest.mark.parametrize("body", ["", "[]", "null", "7", "{", '{"callId": NaN}', '{"call": 1e999}', '"\\ud800"'])
def test_a_body_that_is_no_report_is_refused(cloud: Cloud, caller: Client, body: str) -> None:
    headers = {"x-api-key": caller.key}
    answer = cloud.request("PUT", "/call-report/j/attempts/1", body=body, headers=headers)
    assert (answer.status, answer.json()["error"]) == (400, "BadRequestException")


def test_a_body_of_more_than_a_mebibyte_is_too_large(put: Any, shown: Any, caller: Client) -> None:
    event = {"type": "note", "timestamp": START, "data": {"text": "x" * 2**20}}
    answer = put(report(events=[event]))
    assert (answer.status, answer.json()["error"]) == (413, "PayloadTooLargeException")
    assert caller.get(f"/call-report/{JOB}").status == 404


def test_what_belongs_to_another_organisation_is_not_there(cloud: Cloud, put: Any) -> None:
    put(report())
    other = cloud.caller()
    assert other.get(f"/call-report/{JOB}").status == 404
    assert other.get("/call-report/call/call-1").status == 404
    assert other("DELETE", f"/call-requests/{JOB}").status == 404
    assert other.put(f"/call-report/{JOB}/attempts/1", report()).status == 201


def test_a_key_that_may_only_read_tells_nothing(cloud: Cloud, caller: Client, put: Any) -> None:
    put(report())
    reader = cloud.caller(caller.org, scope=Scope.READ)
    assert reader.get(f"/call-report/{JOB}").status == 200
    for answer in (
        reader.put(f"/call-report/{JOB}/attempts/2", report(2)),
        reader.post("/call-requests", ASKED),
        reader("DELETE", f"/call-requests/{JOB}"),
    ):
        assert (answer.status, answer.json()["error"]) == (403, "ForbiddenException")


@pytest.mark.parametrize("path", ["/call-report/a%23b", "/call-report/call/a%23b", f"/call-report/{'a' * 129}"])
def test_an_id_that_cannot_be_one_is_not_found(caller: Client, path: str) -> None:
    assert caller.get(path).status == 404


# Reports of any size


def noise(length: int) -> dict[str, Any]:
    """An event that no packing makes smaller."""
    return {"type": "note", "timestamp": START, "data": {"text": secrets.token_urlsafe(length * 3 // 4)}}


def test_a_timeline_that_fits_no_row_lies_in_the_bucket(cloud: Cloud, caller: Client, put: Any, shown: Any) -> None:
    body = report(events=[noise(1000) for _ in range(600)])
    assert put(body).status == 201
    (text,) = (row for row in items(cloud, caller) if row["sk"].startswith("text#"))
    assert "gz" not in text
    bucket = cloud.environment()["BLOBS_BUCKET"]
    assert cloud.client("s3").head_object(Bucket=bucket, Key=text["s3"])
    assert shown()["attempts"] == [body]
    assert caller.get("/call-report/call/call-1").json() == body
    put(report())
    assert shown()["attempts"] == [report()]
    with pytest.raises(cloud.client("s3").exceptions.ClientError):
        cloud.client("s3").head_object(Bucket=bucket, Key=text["s3"])


def test_a_report_too_large_for_an_answer_is_lent_whole(cloud: Cloud, caller: Client, put: Any) -> None:
    bodies = [report(number, "busy", events=[noise(1000) for _ in range(900)]) for number in range(1, 8)]
    for body in bodies:
        assert put(body).status == 201
    answer = caller.get(f"/call-report/{JOB}")
    assert answer.status == 307
    assert answer.json()["statusCode"] == 307
    address = urlsplit(answer.headers["Location"])
    assert address.scheme == "https"
    assert parse_qs(address.query)["X-Amz-Expires"] == ["900"]
    assert parse_qs(address.query)["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    bucket = cloud.environment()["BLOBS_BUCKET"]
    key = address.path.rpartition(f"/answer/{caller.org}")[2]
    held = cloud.client("s3").get_object(Bucket=bucket, Key=f"answer/{caller.org}{key}")
    assert held["ContentType"] == "application/json"
    whole = json.loads(held["Body"].read())
    assert (whole["jobId"], whole["status"], whole["attempts"]) == (JOB, "completed", bodies)
    assert caller.get("/call-report/call/call-7").json() == bodies[6]


# Asking for calls


@pytest.mark.parametrize(
    ("body", "name", "field"),
    [
        ({**ASKED, "retry": {"type": "often"}}, "InvalidRetryStrategyError", "retry"),
        ({**ASKED, "retry": {"type": "fixed-delay", "delay": 5}}, "InvalidRetryStrategyError", "retry.maxRetries"),
        (
            {**ASKED, "retry": {"type": "scheduled", "dates": ["2020-01-01"]}},
            "InvalidRetryStrategyError",
            "retry.dates.0",
        ),
        ({**ASKED, "startAt": "2020-01-01T00:00:00Z"}, "InvalidStartTimeError", "startAt"),
        ({**ASKED, "priority": 1}, "CallRequestValidationError", "priority"),
        ({"didId": "d", "flowId": "f", "retry": {"type": "none"}}, "CallRequestValidationError", "contactId"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_by_its_name(
    caller: Client, body: dict[str, Any], name: str, field: str
) -> None:
    answer = caller.post("/call-requests", body)
    assert (answer.status, answer.json()["statusCode"], answer.json()["error"]) == (400, 400, name)
    assert answer.json()["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("body", ["", "[]", "{"])
def test_a_request_that_is_no_object_is_a_validation_error(cloud: Cloud, caller: Client, body: str) -> None:
    answer = cloud.request("POST", "/call-requests", body=body, headers={"x-api-key": caller.key})
    assert (answer.status, answer.json()["error"]) == (400, "CallRequestValidationError")


def test_a_request_repeated_with_its_idempotency_key_is_one_job(caller: Client) -> None:
    headers = {"Idempotency-Key": "abc"}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: caller.post("/call-requests", ASKED, headers=headers), range(4)))
    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.json()["jobId"] for answer in answers if answer.status == 202}) == 1
    assert caller.post("/call-requests", ASKED).json() != answers[0].json()


def test_a_job_that_waits_can_be_cancelled_and_is_gone(caller: Client, put: Any, shown: Any) -> None:
    job = caller.post("/api/call-requests", ASKED).json()["jobId"]
    for _ in range(2):
        answer = caller("DELETE", f"/api/call-requests/{job}")
        assert (answer.status, answer.text) == (204, "")
    assert caller.get(f"/call-report/{job}").status == 404
    put(report(), job)
    assert shown(job)["status"] == "completed"


def test_a_job_that_has_begun_goes_on_when_it_is_cancelled(caller: Client, put: Any, shown: Any) -> None:
    retry = {"type": "fixed-delay", "delay": 300_000, "maxRetries": 2}
    job = caller.post("/call-requests", {**ASKED, "retry": retry}).json()["jobId"]
    put(report(1, "busy"), job)
    assert caller("DELETE", f"/call-requests/{job}").status == 204
    assert shown(job)["status"] == "active"


def test_only_a_known_job_can_be_cancelled(caller: Client, put: Any) -> None:
    assert caller("DELETE", "/call-requests/nobody").status == 404
    put(report())
    assert caller("DELETE", f"/call-requests/{JOB}").status == 204


def test_a_job_is_either_cancelled_or_begun(caller: Client, shown: Any) -> None:
    """A cancellation and the first attempt at once: whichever is first, the attempt is there."""
    for _ in range(5):
        job = caller.post("/call-requests", {**ASKED, "retry": {"type": "fixed-delay", "delay": 9, "maxRetries": 1}})
        id_ = job.json()["jobId"]
        first = report(1, "busy", callId=f"call-of-{id_}")
        with ThreadPoolExecutor(2) as threads:
            told = threads.submit(caller.put, f"/call-report/{id_}/attempts/1", first)
            cancelled = threads.submit(caller, "DELETE", f"/call-requests/{id_}")
        assert (told.result().status, cancelled.result().status) == (201, 204)
        assert shown(id_)["attempts"] == [first]
        assert shown(id_)["status"] in ("active", "completed")


def test_the_cost_behind_a_call_is_that_of_its_attempt(cloud: Cloud, caller: Client) -> None:
    kept = {}
    for number, body in ((1, json.loads(CALL)), (2, report(2, "busy"))):
        assert caller.put(f"/call-report/{JOB}/attempts/{number}", {**body, "attempt": number}).status == 201
        kept[number] = call_reports.attempt(caller.org, JOB, number)
    assert call_reports.join(caller.org, kept[1], 71) == 71
    assert call_reports.join(caller.org, kept[1], 72) == 71
    assert call_reports.join(caller.org, kept[2], 73) == 73
    assert str(call_reports.cost_of_call(caller.org, 71)) == "1.875075"
    assert call_reports.cost_of_call(caller.org, 72) is call_reports.cost_of_call(caller.org, 73) is None
    assert list(call_reports.costs_of_calls(caller.org, [73, 71, 71, 99])) == [71]
    assert call_reports.cost_of_call("org_other", 71) is None
