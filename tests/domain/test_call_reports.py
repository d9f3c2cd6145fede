"""Attempts, what they cost, and where a job stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop import call_reports
from fixloop.call_reports import (
    KEPT_MS,
    AttemptIn,
    CallRequestIn,
    InvalidCallRequest,
    InvalidRetryStrategy,
    InvalidStartTime,
    Job,
    Kept,
    attempt,
    billed,
    present,
    status,
)
from fixloop.errors import Invalid
from fixloop.exact import dumps, loads
from fixloop.http import checked
from wire.gomobile import CALL

NOW = 1_776_709_511_002


def read(**changes: Any) -> call_reports.Attempt:
    """The published call with some keys changed, read as attempt 1."""
    given = present({**loads(CALL), **changes})
    checked(AttemptIn, given, strict=True)
    return attempt(given, 1)


def refused(**changes: Any) -> dict[str, list[str]]:
    with pytest.raises(Invalid) as error:
        read(**changes)
    return error.value.fields


# The report


def test_nulls_of_optional_keys_are_left_out_and_others_stay() -> None:
    report = loads(CALL)
    report["programId"] = report["call"]["dialedAt"] = report["flowExecution"]["flowStartedAt"] = None
    report["flowExecution"]["executionPath"][0]["nodeLabel"] = None
    report["flowExecution"]["finalVariables"]["nothing"] = None
    report["events"][0]["data"]["nothing"] = None
    report["billing"]["nodes"][0]["minDurationMs"] = None
    shown = json.loads(read(**report).text)
    assert "programId" not in shown
    assert "dialedAt" not in shown["call"]
    assert "flowStartedAt" not in shown["flowExecution"]
    assert "nodeLabel" not in shown["flowExecution"]["executionPath"][0]
    assert shown["flowExecution"]["finalVariables"]["nothing"] is None
    assert shown["events"][0]["data"]["nothing"] is None
    assert shown["billing"]["nodes"][0]["minDurationMs"] is None


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ((), "jobId"),
        (("call",), "call.ringing"),
        (("flowExecution",), "flowExecution.state"),
        (("flowExecution", "executionPath", 0), "flowExecution.executionPath.0.note"),
        (("events", 1), "events.1.note"),
        (("billing",), "billing.currency"),
        (("billing", "nodes", 0), "billing.nodes.0.note"),
    ],
)
def test_an_unknown_field_is_refused_wherever_the_shape_is_fixed(where: tuple[Any, ...], field: str) -> None:
    report = loads(CALL)
    place = report
    for step in where:
        place = place[step]
    place[field.rpartition(".")[2]] = 1
    assert refused(**report) == {field: ["Extra inputs are not permitted"]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"callId": ""}, "callId"),
        ({"callId": "a#b"}, "callId"),
        ({"callId": None}, "callId"),
        ({"attempt": 2}, "attempt"),
        ({"attempt": 0}, "attempt"),
        ({"attempt": True}, "attempt"),
        ({"attempt": "1"}, "attempt"),
        ({"outcome": ""}, "outcome"),
        ({"outcome": None}, "outcome"),
        ({"call": None}, "call"),
        ({"call": []}, "call"),
        ({"events": {}}, "events"),
        ({"events": [{"type": "x", "timestamp": "now", "data": {}}]}, "events.0.timestamp"),
        ({"events": [{"type": "x", "timestamp": "2026-01-01T00:00:00Z", "data": None}]}, "events.0.data"),
        ({"billing": {"nodes": 1}}, "billing.nodes"),
        ({"outcomeReason": 7}, "outcomeReason"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert list(refused(**changes)) == [field]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", ""),
        ("direction", "sideways"),
        ("from", 1000),
        ("to", "1" * 65),
        ("createdAt", "yesterday"),
        ("createdAt", None),
        ("answeredAt", 7),
        ("durationMs", -1),
        ("durationMs", "7"),
        ("durationMs", True),
    ],
)
def test_a_bad_field_of_the_call_is_named(name: str, value: Any) -> None:
    assert list(refused(call={**loads(CALL)["call"], name: value})) == [f"call.{name}"]


@pytest.mark.parametrize("value", [[], {}, [1]])
def test_a_final_variable_is_text_a_number_a_truth_value_or_null(value: Any) -> None:
    flow = loads(CALL)["flowExecution"]
    bad = refused(flowExecution={**flow, "finalVariables": {"x": value}})
    assert {name.rpartition(".x")[0] for name in bad} == {"flowExecution.finalVariables"}


def test_an_attempt_that_is_going_on_needs_no_outcome_yet() -> None:
    call = {key: value for key, value in loads(CALL)["call"].items() if key != "terminatedAt"}
    going = {"call": {**call, "status": "ringing"}, "outcome": None, "billing": None}
    assert read(**going).live
    assert json.loads(read(**going).text)["outcome"] == "ringing"


@pytest.mark.parametrize(
    ("state", "outcome", "ended", "live"),
    [
        ("ringing", "ringing", False, True),
        ("in-progress", "pending", False, True),
        ("answered", "completed", False, False),
        ("completed", "active", False, False),
        ("in_progress", "in_progress", True, False),
        ("busy", "busy", False, False),
        ("strange", "strange", False, False),
        ("No Answer", "no-answer", False, False),
    ],
)
def test_an_attempt_is_live_until_something_final_is_said(state: str, outcome: str, ended: bool, live: bool) -> None:
    call: Any = {"status": state, **({"terminatedAt": "2026-01-01T00:00:00Z"} if ended else {})}
    assert call_reports.is_live(call, outcome) == live


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*loads(CALL), *loads(CALL)["call"], "nodes", "data"]), inner, max_size=6)
        ),
    ),
    st.sampled_from([None, *loads(CALL)]),
)
def test_whatever_is_sent_is_taken_or_refused(body: Any, key: str | None) -> None:
    given = present(body if key is None else {**loads(CALL), key: body})
    try:
        AttemptIn.model_validate(given, strict=True)
        attempt(given, 1)
    except (ValidationError, Invalid):
        return


# The cost


def node(**changes: Any) -> dict[str, Any]:
    return {**loads(CALL)["billing"]["nodes"][0], **changes}


def cost(**changes: Any) -> str:
    """The cost of one node, of which nothing was said."""
    one = node(**changes)
    del one["cost"]
    return json.loads(dumps(billed({"nodes": [one]})), parse_float=str, parse_int=str)["totalCost"]


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, "1.875075"),
        ({"durationMs": 10_000}, "0.75"),
        ({"durationMs": 9_999}, "0.75"),
        ({"durationMs": None}, "0.75"),
        ({"durationMs": None, "minDurationMs": None}, "0"),
        ({"durationMs": 0, "minDurationMs": None}, "0"),
        ({"unit": "minute", "costPerUnit": 6}, "2.5001"),
        ({"unit": "minute", "costPerUnit": 1, "durationMs": 20_000}, "0.333333"),
        ({"unit": "flat", "costPerUnit": 3.5}, "3.5"),
        ({"unit": "flat", "costPerUnit": 3.5, "durationMs": None, "minDurationMs": None}, "3.5"),
        ({"costPerUnit": 10**12, "durationMs": 10**12}, "1000000000000000000000"),
    ],
)
def test_a_cost_is_time_by_price_and_at_least_the_minimum(changes: dict[str, Any], due: str) -> None:
    assert cost(**changes) == due


@pytest.mark.parametrize("given", ["1.875075", "1.8750750", "1.87507500000000002", "1.8750749999999998"])
def test_a_given_cost_stays_as_it_is_written_if_it_is_right(given: str) -> None:
    billing = dumps(billed({"nodes": [node(cost=loads(given))], "totalCost": loads(given)}))
    assert billing.count(f":{given}") == 2


@pytest.mark.parametrize("given", ["1.87", "1.875", "2", "0", "1.875076"])
def test_a_given_cost_that_is_not_right_is_refused_by_name(given: str) -> None:
    with pytest.raises(Invalid) as error:
        billed({"nodes": [node(), node(cost=loads(given))]})
    assert error.value.fields == {
        "billing.nodes.1.cost": ["must be 1.875075: 0.075 a second for 25001 ms"],
    }


def test_the_total_is_the_sum_of_the_nodes_or_refused_by_name() -> None:
    nodes = [node(), node(unit="flat", costPerUnit=loads("0.50"), cost=loads("0.50"))]
    assert '"totalCost":2.375075' in dumps(billed({"nodes": nodes}))
    assert '"totalCost":2.3750750' in dumps(billed({"nodes": nodes, "totalCost": loads("2.3750750")}))
    with pytest.raises(Invalid) as error:
        billed({"nodes": nodes, "totalCost": 2.3})
    assert error.value.fields == {"billing.totalCost": ["must be 2.375075, the sum of the nodes' costs"]}


@given(st.lists(st.tuples(st.floats(0, 10**6), st.floats(0, 10**3), st.sampled_from(["second", "minute", "flat"]))))
def test_what_was_worked_out_is_right_when_it_is_sent_again(made: list[tuple[float, float, str]]) -> None:
    nodes = []
    for duration, price, unit in made:
        one = node(durationMs=duration, costPerUnit=price, unit=unit)
        del one["cost"]
        nodes.append(one)
    once = billed({"nodes": nodes})  # type: ignore[typeddict-item]
    assert dumps(billed(loads(dumps(once)))) == dumps(once)


def test_only_a_completed_call_has_a_billing() -> None:
    call = {**loads(CALL)["call"], "status": "busy"}
    assert refused(call=call, outcome="busy") == {"billing": ["must be there for completed calls only"]}
    assert read(call=call).cost == "1.875075"
    assert read(outcome="voicemail").cost == "1.875075"
    assert read(billing=None).cost is None


# The job


def kept(number: int, outcome: str, live: bool = False) -> Kept:
    return Kept("j", number, f"c{number}", outcome, live, NOW, None, "r", NOW)


def planned(most: int = 1, state: Any = "queued") -> Job:
    return Job("j", state, most, NOW, False, {})


@pytest.mark.parametrize(
    ("job", "attempts", "stands"),
    [
        (None, [], None),
        (planned(), [], "queued"),
        (planned(state="cancelled"), [], None),
        (planned(state="failed"), [], "failed"),
        (None, [kept(1, "busy")], "completed"),
        (None, [kept(1, "failed")], "completed"),
        (None, [kept(1, "ringing", live=True)], "active"),
        (None, [kept(1, "ringing", live=True), kept(2, "completed")], "active"),
        (planned(), [kept(1, "busy")], "completed"),
        (planned(3), [kept(1, "busy")], "active"),
        (planned(3), [kept(1, "no-answer"), kept(2, "failed")], "active"),
        (planned(3), [kept(1, "busy"), kept(2, "completed")], "completed"),
        (planned(3), [kept(1, "busy"), kept(2, "busy"), kept(3, "busy")], "completed"),
        (planned(3), [kept(3, "busy")], "completed"),
        (planned(3), [kept(1, "voicemail")], "completed"),
        (planned(3, "cancelled"), [kept(1, "busy")], "completed"),
        (planned(3, "failed"), [kept(1, "busy")], "failed"),
        (planned(3, "failed"), [kept(1, "ringing", live=True)], "active"),
    ],
)
def test_where_a_job_stands(job: Job | None, attempts: list[Kept], stands: str | None) -> None:
    assert status(job, attempts) == stands


def test_the_final_outcome_is_that_of_the_last_attempt_once_it_has_ended() -> None:
    assert call_reports.final_outcome([]) is None
    assert call_reports.final_outcome([kept(1, "busy"), kept(2, "completed")]) == "completed"
    assert call_reports.final_outcome([kept(1, "busy"), kept(2, "ringing", live=True)]) is None


@pytest.mark.parametrize(
    ("held_live", "held_at", "given_live", "given_at", "outdates"),
    [
        (False, 5, False, 4, True),
        (False, 5, False, 5, False),
        (False, 5, False, 6, False),
        (False, 5, True, 9, True),
        (True, 9, False, 5, False),
        (True, 5, True, 4, True),
        (True, 5, True, 6, False),
    ],
)
def test_an_end_is_newer_than_what_came_before_it_and_else_time_tells(
    held_live: bool, held_at: int, given_live: bool, given_at: int, outdates: bool
) -> None:
    held = Kept("j", 1, "c", "x", held_live, NOW, None, "r", held_at)
    told = call_reports.Attempt(1, "c", "x", given_live, NOW, None, "{}")
    assert held.outdates(told, given_at) == outdates


# Asking for calls

ASKED: dict[str, Any] = {"didId": "d", "contactId": "c", "flowId": "f", "retry": {"type": "none"}}


def asked(**changes: Any) -> Job:
    body = {name: value for name, value in {**ASKED, **changes}.items() if value is not ...}
    try:
        given = checked(CallRequestIn, body, strict=True)
    except Invalid as error:
        raise call_reports.refused(error) from None
    return call_reports.job("j", given, NOW)


@pytest.mark.parametrize(
    ("retry", "most", "after"),
    [
        ({"type": "none"}, 1, 0),
        ({"type": "fixed-delay", "delay": 300_000, "maxRetries": 3}, 4, 900_000),
        ({"type": "scheduled", "dates": ["2026-04-22T18:25:11.002Z", "2026-04-21T18:25:11.002Z"]}, 3, 2 * 86_400_000),
    ],
)
def test_retries_come_on_top_of_the_first_attempt(retry: dict[str, Any], most: int, after: int) -> None:
    job = asked(retry=retry)
    assert (job.most, job.expires) == (most, NOW + after + KEPT_MS)


@pytest.mark.parametrize(
    ("retry", "field"),
    [
        ("none", "retry"),
        (None, "retry"),
        ({}, "retry"),
        ({"type": "fixed_delay", "delay": 1, "maxRetries": 1}, "retry"),
        ({"type": "none", "delay": 1}, "retry.delay"),
        ({"type": "fixed-delay", "delay": 1}, "retry.maxRetries"),
        ({"type": "fixed-delay", "delay": 0, "maxRetries": 1}, "retry.delay"),
        ({"type": "fixed-delay", "delay": "1", "maxRetries": 1}, "retry.delay"),
        ({"type": "fixed-delay", "delay": 1.5, "maxRetries": 1}, "retry.delay"),
        ({"type": "fixed-delay", "delay": 1, "maxRetries": 0}, "retry.maxRetries"),
        ({"type": "fixed-delay", "delay": 1, "maxRetries": 101}, "retry.maxRetries"),
        ({"type": "fixed-delay", "delay": 1, "maxRetries": 1, "dates": []}, "retry.dates"),
        ({"type": "scheduled"}, "retry.dates"),
        ({"type": "scheduled", "dates": []}, "retry.dates"),
        ({"type": "scheduled", "dates": ["soon"]}, "retry.dates.0"),
        ({"type": "scheduled", "dates": ["2020-01-01T00:00:00Z"]}, "retry.dates.0"),
        ({"type": "scheduled", "dates": ["2027-01-01T00:00:00Z", "2027-01-01T01:00:00+01:00"]}, "retry.dates.1"),
    ],
)
def test_a_retry_strategy_that_cannot_be_followed_has_an_error_of_its_own(retry: Any, field: str) -> None:
    with pytest.raises(InvalidRetryStrategy) as error:
        asked(retry=retry)
    assert list(error.value.fields) == [field]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"didId": ...}, "fromNumber"),
        ({"fromNumber": "1000"}, "fromNumber"),
        ({"contactId": ...}, "contactId"),
        ({"flowId": 7}, "flowId"),
        ({"retry": ...}, "retry"),
        ({"startAt": "soon"}, "startAt"),
        ({"priority": 3}, "priority"),
    ],
)
def test_what_else_is_wrong_with_a_request_is_a_validation_error(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCallRequest) as error:
        asked(**changes)
    assert list(error.value.fields) == [field]


def test_a_call_may_be_asked_for_from_a_number() -> None:
    assert asked(didId=..., fromNumber="1000").request["fromNumber"] == "1000"


def test_a_start_in_the_past_has_an_error_of_its_own() -> None:
    assert asked(startAt="2026-04-20T18:25:11.002Z").expires == NOW + KEPT_MS
    with pytest.raises(InvalidStartTime):
        asked(startAt="2026-04-20T18:25:11.001Z")


def test_a_retry_before_the_start_cannot_be_followed() -> None:
    with pytest.raises(InvalidRetryStrategy):
        asked(startAt="2027-01-02T00:00:00Z", retry={"type": "scheduled", "dates": ["2027-01-01T00:00:00Z"]})


def test_a_start_at_the_end_of_time_is_as_good_as_any() -> None:
    assert asked(startAt="9999-12-31T23:59:59Z", retry={"type": "fixed-delay", "delay": 10**9, "maxRetries": 100})
