"""Who may do what on the deployed stack: keys, scopes, limits, repeats, and how the API says no."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from deployed.world import Caller, World, at_once
from fixloop.identity import Scope
from fixloop_cli import manage

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]


@pytest.fixture(scope="module", autouse=True)
def forgotten_after(world: World) -> Iterator[Future[float]]:
    """Seconds from the revocation of a key in use until it was last answered; measured while other tests run."""
    revoked = world.caller()
    assert revoked("GET", "/v1/issue-reports").status_code == 200
    world.revoke(revoked)
    started = time.monotonic()

    def watch() -> float:
        worked = 0.0
        while time.monotonic() - started < 61 and revoked("GET", "/v1/issue-reports").status_code == 200:
            worked = time.monotonic() - started
            time.sleep(0.5)
        return worked

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(watch)


def test_a_key_may_be_presented_in_three_ways(world: World, caller: Caller):
    for headers in (
        {"Authorization": f"Bearer {caller.key}"},
        {"authorization": caller.key},
        {"x-api-key": caller.key},
    ):
        answer = world.http.get("/v1/calls", headers=headers)
        assert (answer.status_code, answer.json()["total"]) == (200, 0)


def test_every_refusal_has_its_status_and_the_form_of_the_api_that_was_called(world: World, caller: Caller):
    caller.ok("PUT", "/v1/calls/1", {})
    stranger, reader = world.caller(), world.caller(caller.org, scope=Scope.READ)
    expired = world.caller(caller.org, expires_at=manage.now() - 1)
    report = "/v1/calls/1/issue-reports"

    answer = world.http.get("/v1/issue-reports")
    assert (answer.status_code, list(answer.json())) == (401, ["detail"])
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert world.http.get("/v1/calls", headers={"x-api-key": caller.key + "x"}).status_code == 401
    assert expired("GET", "/v1/calls").status_code == 401

    assert reader("GET", "/v1/calls/1").status_code == 200
    answer = reader("POST", report, {"title": "x"})
    assert (answer.status_code, list(answer.json())) == (403, ["detail"])

    answer = stranger("GET", "/v1/calls/1")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Call 1 not found."})
    assert stranger("POST", report, {"title": "x"}).status_code == 404
    assert caller("GET", "/v1/nothing").json() == {"detail": "Not found."}
    for path, form in {
        "/v1/nothing": {"detail"},
        "/v1/calls/1/nothing": {"detail"},
        "/v1/issue-reports/1/nothing": {"detail"},
        "/api/nothing": {"success", "error", "code", "message"},
        "/v1/triage/nothing": {"data", "errors"},
        "/call-report/nothing/x/y": {"statusCode", "message", "error"},
    }.items():
        answer = caller("GET", path)
        assert (answer.status_code, set(answer.json())) == (404, form), path

    answer = caller("DELETE", "/v1/issue-reports")
    assert (answer.status_code, answer.json()) == (405, {"detail": 'Method "DELETE" not allowed.'})
    assert answer.headers["Allow"] == "GET, PATCH"

    answer = caller("POST", report, {"title": "", "severity": "bad"})
    assert (answer.status_code, set(answer.json())) == (400, {"title", "severity"})
    answer = caller("POST", report, {"title": "x", "description": "x" * 1024 * 1024})
    assert (answer.status_code, list(answer.json())) == (413, ["detail"])
    assert caller.get(report) == []


def test_a_limit_is_kept_under_many_clients_and_said_in_every_answer(world: World):
    limit, requests = 200, 320
    limited = world.caller(limit=limit)
    started = time.monotonic()
    answers = at_once(lambda _: limited("GET", "/v1/issue-reports"), range(requests))
    assert time.monotonic() - started < 60, "more than one window was used"
    admitted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(admitted) + len(refused) == requests
    assert limit * 0.95 <= len(admitted) <= limit
    for answer in answers:
        assert answer.headers["X-RateLimit-Limit"] == str(limit)
        assert 0 <= int(answer.headers["X-RateLimit-Remaining"]) < limit
        assert abs(int(answer.headers["X-RateLimit-Reset"]) - time.time()) <= 61
    for answer in refused:
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert list(answer.json()) == ["detail"]


def test_twenty_posts_with_one_idempotency_key_file_one_report(caller: Caller):
    caller.ok("PUT", "/v1/calls/1", {"status": "in_progress"})
    path, once = "/v1/calls/1/issue-reports", {"headers": {"Idempotency-Key": "only-once"}}
    answers = at_once(lambda _: caller("POST", path, {"title": "Twice?"}, **once), range(20), clients=20)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert caller.get(path) == [answers[0].json()]
    assert caller.get("/v1/calls/1")["issue_count"] == 1
    other = caller("POST", path, {"title": "Something else"}, **once)
    assert (other.status_code, list(other.json())) == (409, ["detail"])


def test_a_revoked_key_stops_working_within_a_minute(forgotten_after: Future[float]):
    assert forgotten_after.result() < 60
