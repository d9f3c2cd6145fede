"""The shapes of GoMobile's published page: what was told comes back key for key, digit for digit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud import Answer, Client, Cloud
from wire.gomobile import CALL, JOB, QUEUED

PREFIXES = ["", "/api"]


def exactly(text: str) -> Any:
    """JSON with its keys in their order and its numbers as they are written."""
    return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=list)


def told(cloud: Cloud, caller: Client, job_id: str, number: int, report: Any, prefix: str = "") -> Answer:
    body = report if isinstance(report, str) else json.dumps(report)
    headers = {"x-api-key": caller.key}
    return cloud.request("PUT", f"{prefix}/call-report/{job_id}/attempts/{number}", body=body, headers=headers)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_published_job_comes_back_key_for_key(cloud: Cloud, caller: Client, prefix: str) -> None:
    job = json.loads(JOB)
    for report in reversed(job["attempts"]):
        answer = told(cloud, caller, job["jobId"], report["attempt"], report, prefix)
        assert answer.status == 201, answer.text
        assert exactly(answer.text) == exactly(json.dumps(report))
    answer = caller.get(f"{prefix}/call-report/{job['jobId']}")
    assert answer.status == 200
    assert exactly(answer.text) == exactly(JOB)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_published_call_comes_back_key_for_key(cloud: Cloud, caller: Client, prefix: str) -> None:
    call = json.loads(CALL)
    assert told(cloud, caller, "job-of-a-program", 1, CALL, prefix).status == 201
    answer = caller.get(f"{prefix}/call-report/call/{call['callId']}")
    assert answer.headers["Content-Type"] == "application/json"
    assert exactly(answer.text) == exactly(CALL)
    assert '"cost":1.875075,' in answer.text
    job = caller.get(f"{prefix}/call-report/job-of-a-program")
    assert exactly(job.text)[3] == ("attempts", [exactly(CALL)])


def test_costs_left_out_of_the_published_call_are_the_published_ones(cloud: Cloud, caller: Client) -> None:
    call = json.loads(CALL)
    del call["billing"]["totalCost"], call["billing"]["nodes"][0]["cost"]
    assert exactly(told(cloud, caller, "j", 1, call).text) == exactly(CALL)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_queued_job_is_the_published_one_without_an_outcome(cloud: Cloud, caller: Client, prefix: str) -> None:
    asked = {"didId": "123e4567-e89b-12d3-a456-426614174000", "contactId": "contact_123", "flowId": "flow_789"}
    answer = caller.post(f"{prefix}/call-requests", {**asked, "retry": {"type": "none"}})
    assert answer.status == 202
    made = answer.json()
    assert made == {"jobId": made["jobId"], "status": "queued"}
    report = caller.get(f"{prefix}/call-report/{made['jobId']}")
    assert exactly(report.text) == exactly(QUEUED.replace(json.loads(QUEUED)["jobId"], made["jobId"]))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_error_has_the_status_the_message_and_the_published_name(cloud: Cloud, caller: Client, prefix: str) -> None:
    job = caller.get(f"{prefix}/call-report/550e8400-e29b-41d4-a716-446655440000")
    call = caller.get(f"{prefix}/call-report/call/550e8400-e29b-41d4-a716-446655440000")
    for answer in (job, call):
        assert answer.status == 404
        error = answer.json()
        assert list(error) == ["statusCode", "message", "error"]
        assert (error["statusCode"], error["error"]) == (404, "NotFoundException")
    assert cloud.request("GET", f"{prefix}/call-report/x").json()["error"] == "UnauthorizedException"
    assert caller.post(f"{prefix}/call-report/x").json()["error"] == "MethodNotAllowedException"


@pytest.mark.parametrize(
    "presented", [lambda key: {"x-api-key": key}, lambda key: {"authorization": key}, lambda key: {"X-API-Key": key}]
)
def test_a_key_is_taken_in_the_header_of_this_api(cloud: Cloud, caller: Client, presented: Any) -> None:
    told(cloud, caller, "j", 1, CALL)
    assert cloud.request("GET", "/call-report/j", headers=presented(caller.key)).status == 200
