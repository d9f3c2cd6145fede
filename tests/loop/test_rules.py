"""The rules on the bus: which events wake which function."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from cloud import ROOT, Cloud
from fixloop.events import SHAPES

SAMPLES = sorted((ROOT / "events").glob("*/*.json"))
EVENTS = [(path.parent.name, json.loads(path.read_text())) for path in SAMPLES]
BUS_EVENTS = [(f, event) for f, event in EVENTS if not event.get("source", "aws.").startswith("aws.")]
(ENDED,) = [event for _, event in EVENTS if event.get("source") == "aws.states"]


def rules(cloud: Cloud) -> dict[str, Any]:
    """The pattern of each function fed by a rule on our bus, by the function's folder."""
    return {
        properties["CodeUri"].rstrip("/").rpartition("/")[2]: event["Properties"]["Pattern"]
        for properties in cloud.functions().values()
        for event in properties.get("Events", {}).values()
        if event["Type"] == "EventBridgeRule" and "EventBusName" in event["Properties"]
    }


def lets_through(pattern: Any, event: dict[str, Any]) -> bool:
    return bool(EventPattern.load(json.dumps(pattern)).matches_event(event))


@pytest.mark.parametrize(("folder", "event"), BUS_EVENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_event_wakes_the_functions_of_its_type_and_no_other(
    cloud: Cloud, folder: str, event: dict[str, Any]
) -> None:
    for function, pattern in rules(cloud).items():
        wanted = event["detail-type"] in pattern["detail-type"]
        assert lets_through(pattern, event) == wanted
        assert wanted or function != folder


def test_no_rule_asks_who_the_source_is_so_that_other_graders_are_heard(cloud: Cloud) -> None:
    for pattern in rules(cloud).values():
        event = {**BUS_EVENTS[0][1], "detail-type": pattern["detail-type"][0], "source": "somebody.else"}
        assert lets_through(pattern, event)


@pytest.mark.parametrize("detail_type", ["call.grade", "Call.Graded", "call.graded.v2", "", "issue_report.updated"])
def test_an_event_of_no_or_another_type_wakes_nothing(cloud: Cloud, detail_type: str) -> None:
    event = {**BUS_EVENTS[0][1], "detail-type": detail_type}
    assert not any(lets_through(pattern, event) for pattern in rules(cloud).values())


@pytest.mark.parametrize(
    ("status", "wakes"),
    [("ABORTED", True), ("FAILED", True), ("TIMED_OUT", True), ("SUCCEEDED", False), ("RUNNING", False)],
)
def test_an_execution_that_did_not_succeed_wakes_what_ends_its_test(cloud: Cloud, status: str, wakes: bool) -> None:
    events = cloud.functions()["EndShadowTestsFunction"]["Events"]
    pattern = cloud.resolve(events["ExecutionEnded"]["Properties"]["Pattern"])
    pattern["detail"]["stateMachineArn"] = [ENDED["detail"]["stateMachineArn"]]
    assert lets_through(pattern, {**ENDED, "detail": {**ENDED["detail"], "status": status}}) is wakes
    other = {**ENDED["detail"], "status": status, "stateMachineArn": "arn:aws:states:us-east-1:1:stateMachine:x"}
    assert not lets_through(pattern, {**ENDED, "detail": other})


def test_every_type_a_rule_waits_for_exists(cloud: Cloud) -> None:
    assert {kind for pattern in rules(cloud).values() for kind in pattern["detail-type"]} <= set(SHAPES)


def test_a_rule_retries_for_a_day_and_then_gives_the_event_to_a_queue(cloud: Cloud) -> None:
    """And what the function itself could not take goes to its failure destination."""
    for properties in cloud.functions().values():
        for event in properties.get("Events", {}).values():
            if event["Type"] == "EventBridgeRule":
                assert event["Properties"]["RetryPolicy"] == {
                    "MaximumRetryAttempts": 185,
                    "MaximumEventAgeInSeconds": 86400,
                }
                assert event["Properties"]["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": "RulesDeadLetters.Arn"}}
                failed = properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
                assert failed == {"Type": "SQS", "Destination": {"Fn::GetAtt": "EventsDeadLetters.Arn"}}
            if event["Type"] == "DynamoDB":
                assert event["Properties"]["DestinationConfig"]["OnFailure"]["Type"] == "SQS"
                assert event["Properties"]["BisectBatchOnFunctionError"] is True
