"""Who may come in, how often, and what of their own they may see; said in the dialect of the API that was called."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Answer, Client, Cloud
from fixloop.identity import Scope
from fixloop.settings import settings
from fixloop.storage import platform

MIB = 1024 * 1024


def thunderphone(body: Any, status: int) -> bool:
    return list(body) == ["detail"]


def thinkhive(body: Any, status: int) -> bool:
    return (
        body["success"] is False
        and body["error"]["code"] == body["code"]
        and body["error"]["message"] == body["message"]
    )


def zylon(body: Any, status: int) -> bool:
    return list(body) == ["message"]


def bland(body: Any, status: int) -> bool:
    return body["data"] is None and list(body["errors"][0]) == ["error", "message"]


def gomobile(body: Any, status: int) -> bool:
    return list(body) == ["statusCode", "message", "error"] and body["statusCode"] == status


# Coming in


@pytest.mark.parametrize(
    "header",
    [
        lambda key: {"authorization": f"Bearer {key}"},
        lambda key: {"Authorization": f"bearer   {key} "},
        lambda key: {"authorization": key},
        lambda key: {"AUTHORIZATION": key},
        lambda key: {"x-api-key": key},
        lambda key: {"X-API-Key": f" {key}"},
    ],
)
def test_a_key_is_taken_in_any_of_the_three_presentations(
    cloud: Cloud, caller: Client, header: Callable[..., Any]
) -> None:
    assert cloud.request("GET", "/v1/calls", headers=header(caller.key)).status == 200


@pytest.mark.parametrize("prefix", ["sk_live_", "thk_", "org_", ""])
def test_a_key_may_have_any_prefix(cloud: Cloud, prefix: str) -> None:
    assert cloud.caller(prefix=prefix).get("/v1/calls").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer sk_live_nobody"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": ""},
        {"x-api-key": "x" * 10_000},
        {"authorization": "Bearer \x00😀\ud800"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/calls"), ("POST", "/v1/calls"), ("PATCH", "/v1/issue-reports")]
)
def test_without_a_known_key_nothing_is_answered(cloud: Cloud, headers: Any, method: str, path: str) -> None:
    answer = cloud.request(method, path, json={}, headers=headers)
    assert answer.status == 401
    assert list(answer.json()) == ["detail"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_key_ends_with_the_second_it_expires(cloud: Cloud, clock: Any) -> None:
    caller = cloud.caller(expires_at=int(clock.now * 1000) + 10_000)
    assert caller.get("/v1/calls").status == 200
    clock.now += 9.9
    assert caller.get("/v1/calls").status == 200
    clock.now += 0.2
    assert caller.get("/v1/calls").status == 401


def test_a_revoked_key_stops_within_a_minute(cloud: Cloud, caller: Client, clock: Any) -> None:
    assert caller.get("/v1/calls").status == 200
    (key,) = platform.list_keys(caller.org)
    platform.revoke_key(caller.org, key.key_id, int(clock.now * 1000))
    assert settings().key_cache_seconds < 60
    clock.now += 60
    assert caller.get("/v1/calls").status == 401
    clock.now += 3600
    assert caller.get("/v1/calls").status == 401


def test_a_key_that_was_never_used_stops_at_once(cloud: Cloud, caller: Client) -> None:
    (key,) = platform.list_keys(caller.org)
    platform.revoke_key(caller.org, key.key_id, 1)
    assert caller.get("/v1/calls").status == 401


def test_a_key_is_stored_as_its_hash_alone(cloud: Cloud, caller: Client) -> None:
    caller.get("/v1/calls")
    stored = cloud.client("dynamodb").scan(TableName="PlatformTable")["Items"]
    assert caller.key.removeprefix("sk_live_") not in str(stored)


# What a key may do


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/calls", {}),
        ("PUT", "/v1/calls/1", {}),
        ("POST", "/v1/calls/1/grade", None),
        ("POST", "/v1/calls/1/issue-reports", {"title": "x"}),
        ("PATCH", "/v1/issue-reports/1", {"status": "open"}),
        ("PATCH", "/v1/issue-reports", {"trace_ids": ["1"], "status": "open"}),
    ],
)
def test_a_read_key_reads_and_no_more(cloud: Cloud, method: str, path: str, body: Any) -> None:
    reader = cloud.caller(scope=Scope.READ)
    refused = reader(method, path, body)
    assert refused.status == 403
    assert list(refused.json()) == ["detail"]
    assert reader.get("/v1/calls").json()["total"] == 0
    assert reader.get("/v1/issue-reports").status == 200


def test_another_organisations_objects_are_not_found_anywhere(
    cloud: Cloud, caller: Client, reported: Callable[..., Any]
) -> None:
    report = reported()
    caller.post("/v1/calls/987654321/grade")
    stranger = cloud.caller()
    call = "/v1/calls/987654321"
    for method, path, body in (
        *(("GET", call + part, None) for part in ("", "/transcript", "/history", "/grade", "/issue-reports")),
        ("POST", f"{call}/grade", None),
        ("POST", f"{call}/issue-reports", {"title": "x"}),
        *(("GET", f"/v1/issue-reports/{report[key]}", None) for key in ("id", "trace_id")),
        *(("PATCH", f"/v1/issue-reports/{report[key]}", {"status": "resolved"}) for key in ("id", "trace_id")),
        ("PATCH", "/v1/issue-reports", {"trace_ids": [report["trace_id"]], "status": "resolved"}),
    ):
        answer = stranger(method, path, body)
        assert answer.status == 404, (method, path)
        assert list(answer.json()) == ["detail"]
    assert stranger.get("/v1/issue-reports").json() == []
    assert stranger.get("/v1/calls").json()["total"] == 0
    assert stranger.put(call, {"product": "theirs"}).status == 201
    assert caller.get(call).json()["product"] is None
    assert caller.get("/v1/issue-reports").json() == [report]


def test_all_keys_of_an_organisation_see_the_same_and_file_under_their_own_users(cloud: Cloud, caller: Client) -> None:
    colleague = cloud.caller(caller.org)
    caller.put("/v1/calls/1", {})
    mine = caller.post("/v1/calls/1/issue-reports", {"title": "x"}).json()
    theirs = colleague.post("/v1/calls/1/issue-reports", {"title": "x"}).json()
    assert colleague.get("/v1/issue-reports").json() == [theirs, mine]
    assert mine["reported_by_id"] != theirs["reported_by_id"]


# How often


def test_a_key_has_its_number_of_requests_a_minute_and_then_must_wait(cloud: Cloud, clock: Any) -> None:
    caller = cloud.caller(limit=40)
    answers = [caller.get("/v1/calls") for _ in range(40)]
    assert {answer.status for answer in answers} == {200}
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == [str(left) for left in range(39, -1, -1)]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"40"}
    clock.now += 20
    refused = caller.get("/v1/calls")
    assert (refused.status, list(refused.json())) == (429, ["detail"])
    assert refused.headers["Retry-After"] == "40"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    reset = int(refused.headers["X-RateLimit-Reset"])
    assert reset == int(clock.now) + 40
    clock.now = reset - 1
    assert caller.get("/v1/calls").status == 429
    clock.now = reset
    assert caller.get("/v1/calls").status == 200


def test_the_window_is_one_for_all_functions_and_processes(cloud: Cloud, clock: Any) -> None:
    caller = cloud.caller(limit=100)
    others = [Client(Cloud(template=cloud.template), caller.key) for _ in range(4)]
    for other in others:
        for function in ("CallsFunction", "IssueReportsFunction"):
            other.cloud.module(function).handler._clock = clock
    statuses = [
        client.get(path).status
        for _ in range(15)
        for client in (caller, *others)
        for path in ("/v1/calls?limit=1", "/v1/issue-reports?limit=1")
    ]
    assert 95 <= statuses.count(200) <= 100
    assert statuses.count(429) == len(statuses) - statuses.count(200)


def test_keys_do_not_use_up_each_others_windows(cloud: Cloud, clock: Any) -> None:
    org = cloud.org()
    busy, idle = cloud.caller(org, limit=1), cloud.caller(org, limit=1)
    assert [busy.get("/v1/calls").status for _ in range(2)] == [200, 429]
    assert idle.get("/v1/calls").status == 200


# Doing a thing once


def post(caller: Client, key: str, body: Any, path: str = "/v1/calls/1/issue-reports") -> Answer:
    return caller.post(path, body, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_get_the_first_answer_again(caller: Client) -> None:
    caller.put("/v1/calls/1", {})
    first, again = (post(caller, "k1", {"title": "x"}) for _ in range(2))
    assert (again.status, again.text) == (first.status, first.text) == (201, again.text)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert caller.get("/v1/issue-reports").json() == [first.json()]
    assert caller.get("/v1/calls/1").json()["issue_count"] == 1


def test_the_same_key_with_another_request_is_a_conflict(caller: Client) -> None:
    for call in (1, 2):
        caller.put(f"/v1/calls/{call}", {})
    post(caller, "k1", {"title": "x"})
    for refused in (
        post(caller, "k1", {"title": "y"}),
        post(caller, "k1", {"title": "x"}, "/v1/calls/2/issue-reports"),
        post(caller, "k1", {}, "/v1/calls"),
    ):
        assert (refused.status, list(refused.json())) == (409, ["detail"])
    assert len(caller.get("/v1/issue-reports").json()) == 1


def test_a_refused_request_may_be_mended_under_the_same_key(caller: Client) -> None:
    assert post(caller, "k1", {"title": "x"}).status == 404
    caller.put("/v1/calls/1", {})
    assert post(caller, "k1", {"title": ""}).status == 400
    assert post(caller, "k1", {"title": "x"}).status == 201


def test_a_key_is_forgotten_after_a_day(caller: Client, clock: Any) -> None:
    caller.put("/v1/calls/1", {})
    first = post(caller, "k1", {"title": "x"}).json()
    clock.now += 24 * 3600 - 1
    assert post(caller, "k1", {"title": "x"}).json() == first
    clock.now += 2
    assert post(caller, "k1", {"title": "y"}).json()["id"] != first["id"]


def test_organisations_do_not_share_keys(cloud: Cloud, caller: Client) -> None:
    stranger = cloud.caller()
    mine, theirs = (
        post(caller, "k1", {"product": "a"}, "/v1/calls"),
        post(stranger, "k1", {"product": "b"}, "/v1/calls"),
    )
    assert (mine.json()["product"], theirs.json()["product"]) == ("a", "b")


@pytest.mark.parametrize("key", ["x" * 255, "ключ 😀", "a\x00b", "#", " padded "])
def test_a_key_is_any_text_of_up_to_255_characters(caller: Client, key: str) -> None:
    first, again = (post(caller, key, {}, "/v1/calls") for _ in range(2))
    assert first.json() == again.json()
    assert caller.get("/v1/calls").json()["total"] == 1


def test_a_key_that_is_too_long_is_refused(caller: Client) -> None:
    refused = post(caller, "x" * 256, {}, "/v1/calls")
    assert (refused.status, list(refused.json())) == (400, ["Idempotency-Key"])


def test_only_what_is_posted_needs_a_key(caller: Client) -> None:
    for product in ("a", "b"):
        answer = caller.put("/v1/calls/1", {"product": product}, headers={"Idempotency-Key": "k1"})
        assert answer.json()["product"] == product


def test_a_large_answer_is_remembered_too(caller: Client) -> None:
    snapshot = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(300_000))
    first, again = (post(caller, "k1", {"prompt_snapshot": snapshot}, "/v1/calls") for _ in range(2))
    assert (first.status, again.text) == (201, first.text)
    assert again.headers["Idempotency-Replayed"] == "true"


def test_grading_is_done_once_under_a_key(caller: Client) -> None:
    caller.put("/v1/calls/1", {})
    first, again = (post(caller, "k1", None, "/v1/calls/1/grade") for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert again.json() == first.json()


@pytest.mark.parametrize("said", [{"title": "x"}, {"title": "x", "source": "system", "detected_issue_ref": "r"}])
def test_twenty_at_once_under_one_key_file_one_report(cloud: Cloud, caller: Client, said: Any) -> None:
    caller.put("/v1/calls/1", {})
    processes = [Client(Cloud(template=cloud.template), caller.key) for _ in range(20)]
    for process in processes:
        process.cloud.module("IssueReportsFunction")
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda process: post(process, "k1", said), processes))
    assert {answer.status for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.text for answer in answers}) == 1
    assert len(caller.get("/v1/issue-reports").json()) == 1
    assert caller.get("/v1/calls/1").json()["issue_count"] == 1


def test_twenty_at_once_under_one_key_create_one_call(cloud: Cloud, caller: Client) -> None:
    processes = [Client(Cloud(template=cloud.template), caller.key) for _ in range(20)]
    for process in processes:
        process.cloud.module("CallsFunction")
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda process: post(process, "k1", {"agent_id": 3}, "/v1/calls"), processes))
    assert len({(answer.status, answer.text) for answer in answers}) == 1
    assert caller.get("/v1/calls").json()["total"] == 1


# Errors in each dialect

VOICES = [
    ("/v1/nothing", thunderphone),
    ("/", thunderphone),
    ("/v1/triage", bland),
    ("/v1/triage/nothing/9", bland),
    ("/v1/triages", thunderphone),
    ("/api/v1/app/issues", zylon),
    ("/api/v1/application", thinkhive),
    ("/api/issues", thinkhive),
    ("/api", thinkhive),
    ("/call-report/j1/nothing", gomobile),
    ("/api/call-report/j1/nothing", gomobile),
    ("/api/call-requests/j1/nothing", gomobile),
]


@pytest.mark.parametrize(("path", "voice"), VOICES)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_an_unknown_route_is_not_found_in_the_voice_of_its_api(
    caller: Client, path: str, voice: Callable[..., bool], method: str
) -> None:
    answer = caller(method, path)
    assert answer.status == 404
    assert voice(answer.json(), 404)
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/calls", "GET, POST"),
        ("/v1/calls/1", "GET, PUT"),
        ("/v1/calls/1/transcript", "GET"),
        ("/v1/calls/1/grade", "GET, POST"),
        ("/v1/calls/1/issue-reports", "GET, POST"),
        ("/v1/issue-reports", "GET, PATCH"),
        ("/v1/issue-reports/1", "GET, PATCH"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(caller: Client, path: str, allowed: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} - set(allowed.split(", ")):
        answer = caller(method, path)
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert answer.json() == {"detail": f'Method "{method}" not allowed.'}


@pytest.mark.parametrize("path", ["/v1/calls/1/nothing", "/v1/calls/1/grade/2", "/v1/issue-reports/1/2", "/v1/calls/"])
def test_a_path_below_a_family_that_it_does_not_serve_is_not_found(caller: Client, path: str) -> None:
    assert caller.get(path).status == 404


@pytest.mark.parametrize(
    "part", ['"', "%22", "a b", "\n", "\x00", "\\", "`", "é😀", "%", "%ff", "..", "#", "<script>", "'"]
)
def test_a_path_with_odd_characters_is_not_found_rather_than_a_wrong_method(
    caller: Client, cloud: Cloud, part: str
) -> None:
    for function, path in (
        ("CallsFunction", f"/v1/calls/{part}"),
        ("IssueReportsFunction", f"/v1/issue-reports/{part}"),
    ):
        event = {
            "version": "2.0",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"authorization": caller.key},
            "requestContext": {"http": {"method": "GET", "path": path}, "requestId": "r", "stage": "$default"},
        }
        answer = cloud.invoke(function, event)
        assert answer["statusCode"] == 404, answer
        assert list(json.loads(answer["body"])) == ["detail"]


# How much


def test_a_body_over_1_mib_is_too_large_and_one_of_1_mib_is_not(caller: Client) -> None:
    frame = len('{"prompt_snapshot": ""}')
    assert caller.put("/v1/calls/1", body=f'{{"prompt_snapshot": "{"x" * (MIB - frame)}"}}').status == 201
    refused = caller.put("/v1/calls/1", body=f'{{"prompt_snapshot": "{"x" * (MIB - frame + 1)}"}}')
    assert (refused.status, list(refused.json())) == (413, ["detail"])


def test_the_size_is_in_bytes_also_of_a_body_in_base64(cloud: Cloud, caller: Client) -> None:
    def put(content: bytes | str) -> int:
        body = base64.b64encode(content).decode() if isinstance(content, bytes) else content
        event = {
            "version": "2.0",
            "rawPath": "/v1/calls/1",
            "rawQueryString": "",
            "headers": {"authorization": caller.key},
            "requestContext": {"http": {"method": "PUT", "path": "/v1/calls/1"}, "requestId": "r", "stage": "$default"},
            "body": body,
            "isBase64Encoded": True,
        }
        status: int = cloud.invoke("CallsFunction", event)["statusCode"]
        return status

    assert caller.put("/v1/calls/2", {"prompt_snapshot": "é" * (MIB // 2)}).status == 413
    assert put('{"product": "é"}'.encode()) == 201
    assert put(b"x" * (MIB + 1)) == 413
    assert put(b"\xff\xfe") == 400
    assert put("not base64!!") == 400
