"""The call behind an attempt, and what several attempts show together."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fixloop import attempts
from fixloop.attempts import Sighting, call_of, found, is_a_call, sighting, transcript
from fixloop.call_reports import Kept
from fixloop.grading import GradedCall, Turn, grade
from wire.gomobile import CALL, JOB

BUSY, ANSWERED = json.loads(JOB)["attempts"]
NOON = 1_776_686_400_000  # 2026-04-20T12:00:00Z
MINUTE = 60_000


def said(kind: str, second: float, **data: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": f"2025-12-16T11:15:{34 + second:06.3f}Z", "data": data}


def spoken(*events: dict[str, Any], **changes: Any) -> Any:
    """The published answered call, begun at :34.479, with speech in it."""
    return {**ANSWERED, "events": [*ANSWERED["events"], *events], **changes}


# The call


@pytest.mark.parametrize(
    ("report", "made"),
    [
        (BUSY, True),
        (ANSWERED, False),
        (spoken(said("speech", 2, text="Hello")), True),
        ({**ANSWERED, "outcome": "voicemail"}, False),
        ({**ANSWERED, "outcome": "no-answer"}, True),
        ({**ANSWERED, "outcome": "cancelled"}, False),
        (spoken(said("speech", 2, text=" ")), False),
    ],
)
def test_a_call_is_made_of_speech_and_of_what_did_not_get_through(report: Any, made: bool) -> None:
    assert is_a_call(report) == made


def test_the_transcript_is_what_was_said_in_the_order_of_time() -> None:
    report = spoken(
        said("speech", 6.5, role="caller", text="What is my balance?", durationMs=1500),
        said("say", 2.479, text="Hello", startMs=100.4, endMs=900),
        said("tool_call", 7, content={"name": "balance"}),
        said("transcript", 9, speaker="agent", transcript="90856."),
    )
    assert transcript(report["events"], attempts._begun(report)) == [
        {"role": "assistant", "content": "Hello", "start_ms": 100, "end_ms": 900},
        {"role": "user", "content": "What is my balance?", "start_ms": 6021, "end_ms": 7521},
        {"role": "tool_call", "content": {"name": "balance"}, "start_ms": 6521},
        {"role": "assistant", "content": "90856.", "start_ms": 8521},
    ]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"text": None},
        {"text": 7},
        {"text": {"a": 1}},
        {"text": []},
        {"content": "  "},
    ],
)
def test_an_event_without_text_is_no_speech(data: dict[str, Any]) -> None:
    assert transcript([said("speech", 1, **data)], 0) == []  # type: ignore[list-item]


@pytest.mark.parametrize("odd", [-5, 2**60, "7", True, None, [], 1e300])
def test_a_time_that_makes_no_sense_is_that_of_the_event(odd: Any) -> None:
    report = spoken(said("speech", 2, text="Hello", startMs=odd, endMs=odd, durationMs=odd))
    (row,) = transcript(report["events"], attempts._begun(report))
    assert row == {"role": "user", "content": "Hello", "start_ms": 1521}


def test_a_conversation_becomes_a_call_that_can_be_graded() -> None:
    flow = {**ANSWERED["flowExecution"], "finalVariables": {"agent.id": 12, "agent.prompt": "Be kind.", "x": 1.5}}
    made = call_of(
        spoken(
            said("say", 1, text="Hello, this is Aurora. How can I help?"),
            said("speech", 5, text="Thank you, that is all."),
            said("hangup", 8, hangupType="remote"),
            flowExecution=flow,
        )
    )
    assert (made.agent_id, made.prompt_snapshot, made.status, made.end_reason) == (
        12,
        "Be kind.",
        "completed",
        "caller_hangup",
    )
    assert (made.direction, made.from_number, made.to_number) == ("outbound", "1000", "6001")
    assert (made.start_time, made.end_time, made.duration_seconds) == ("2025-12-16T11:15:34.479Z", None, 7.757)
    assert made.variables["x"] == 1.5
    assert [event["type"] for event in made.events] == ["dial", "answer", "play", "say", "speech", "hangup"]
    assert [event["at_ms"] for event in made.events][:3] == [0, 0, 7752]
    turns = [Turn.model_validate(row.model_dump(exclude_unset=True)) for row in made.transcripts]
    assert grade(GradedCall(call_id=1, turns=turns, status=made.status)).call_outcome == "success"


def test_an_attempt_that_did_not_get_through_is_a_call_without_a_transcript_and_no_conversation() -> None:
    made = call_of(BUSY)
    assert (made.status, made.end_reason, made.transcripts) == ("failed", "busy", [])
    assert made.start_time == "2025-12-16T11:15:00.103Z"
    assert grade(GradedCall(call_id=1, turns=[], end_reason="busy", status="failed")).call_outcome == "no_conversation"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("no-answer", "no_answer"), ("rejected", "rejected"), ("failed", "failed"), ("congestion", "error")],
)
def test_an_outcome_is_the_reason_of_the_end(outcome: str, reason: str) -> None:
    assert call_of({**BUSY, "outcome": outcome}).end_reason == reason


def test_a_flow_that_hangs_up_has_ended_the_call() -> None:
    path = [*ANSWERED["flowExecution"]["executionPath"], BUSY["flowExecution"]["executionPath"][-1]]
    made = call_of(spoken(flowExecution={**ANSWERED["flowExecution"], "executionPath": path}))
    assert made.end_reason == "agent_end"


@pytest.mark.parametrize("agent", ["12", 0, -1, 1.5, True, None, 2**63])
def test_an_agent_that_cannot_be_one_is_none(agent: Any) -> None:
    flow = {**ANSWERED["flowExecution"], "finalVariables": {"agent.id": agent}}
    assert call_of({**ANSWERED, "flowExecution": flow}).agent_id is None


@pytest.mark.parametrize(
    "times",
    [
        {"answeredAt": "9999-12-31T23:59:59Z", "durationMs": 10**12},
        {"answeredAt": "2026-01-01T00:00:00Z", "terminatedAt": "2020-01-01T00:00:00Z"},
        {"createdAt": "0001-01-01T00:00:00Z", "dialedAt": "0001-01-01T00:00:00Z", "durationMs": 0},
    ],
)
def test_times_that_make_no_sense_still_make_a_call(times: dict[str, Any]) -> None:
    assert call_of({**BUSY, "call": {**BUSY["call"], **times}}).status == "failed"


# Sightings


def seen_of(report: Any, number: int = 1) -> Sighting:
    return sighting(Kept("j", number, "c", report["outcome"], False, NOON, None, "r", NOON), report)


def stopped(way_out: str | None, outcome: str = "completed", kind: str = "play") -> Any:
    """An answered call whose flow left its last node by `way_out`."""
    last = {"nodeId": "ask", "nodeType": kind, "timestamp": ANSWERED["call"]["createdAt"]}
    path = [ANSWERED["flowExecution"]["executionPath"][0], last if way_out is None else {**last, "outputPath": way_out}]
    return {**ANSWERED, "outcome": outcome, "flowExecution": {**ANSWERED["flowExecution"], "executionPath": path}}


@pytest.mark.parametrize(
    ("report", "died"),
    [
        (stopped("onError"), "ask"),
        (stopped("onMaxRetries"), "ask"),
        (stopped("onComplete"), None),
        (stopped(None), None),
        (stopped(None, "failed"), "ask"),
        (stopped("onComplete", "failed"), "ask"),
        (stopped("terminated", "failed", kind="hangup"), "dial-1"),
        (BUSY, None),
        ({**BUSY, "outcome": "failed"}, None),
        ({key: value for key, value in ANSWERED.items() if key != "flowExecution"}, None),
    ],
)
def test_a_call_dies_at_the_node_where_its_flow_could_not_go_on(report: Any, died: str | None) -> None:
    assert seen_of(report).died == died


def test_the_number_is_the_other_sides() -> None:
    assert seen_of(BUSY).number == "6001"
    assert seen_of({**BUSY, "call": {**BUSY["call"], "direction": "inbound"}}).number == "1000"


# Patterns


def at(minute: float, outcome: str = "busy", job: str = "j", number: int | None = None, **more: Any) -> Sighting:
    when = NOON + int(minute * MINUTE)
    return Sighting(
        job_id=job,
        attempt=number or 1 + int(minute * 100),
        at=when,
        told=when,
        outcome=outcome,
        number="6001",
        **{"last": "dial-1", "node_type": "dial", **more},
    )


def refs(seen: Sighting, of_number: list[Sighting] | None = None, of_flow: list[Sighting] | None = None) -> list[str]:
    return [str(one.said.detected_issue_ref) for one in found(seen, of_number or [seen], of_flow or [])]


def spread(count: int, apart: float, last: str = "busy") -> list[Sighting]:
    """Attempts some minutes apart, newest first."""
    made = [at(n * apart, last if n == count - 1 else "busy") for n in range(count)]
    return made[::-1]


def test_five_attempts_in_ten_minutes_are_a_storm() -> None:
    for apart, stormy in ((2.5, True), (2.51, False)):
        attempts_ = spread(5, apart, "completed")
        assert ("retry-storm" in refs(attempts_[0], attempts_)) == stormy
    attempts_ = spread(4, 0.1, "completed")
    assert refs(attempts_[0], attempts_) == []


def test_a_storm_is_seen_from_each_of_its_attempts_and_has_one_key() -> None:
    attempts_ = spread(6, 1)
    keys = {one.key for seen in attempts_ for one in found(seen, attempts_, []) if "storm" in str(one.key)}
    assert keys == {"retry-storm#6001#2026-04-20"}


def test_calls_that_get_through_one_after_the_other_are_no_storm() -> None:
    attempts_ = [at(n, "completed") for n in range(8)][::-1]
    assert refs(attempts_[0], attempts_) == []


def test_five_failures_in_a_row_are_a_number_that_is_never_reached() -> None:
    attempts_ = spread(5, 600)
    assert refs(attempts_[0], attempts_) == ["number-always-failing"]
    assert refs(attempts_[0], attempts_[:4]) == []
    assert refs(at(9999, "completed"), [at(9999, "completed"), *attempts_]) == []


def test_a_number_that_was_reached_has_to_fail_anew() -> None:
    attempts_ = spread(9, 600)
    attempts_[5] = at(1800, "voicemail", job="reached")
    (finding,) = found(attempts_[0], attempts_, [])
    assert finding.key == f"number-always-failing#6001#{NOON + 1800 * MINUTE}#reached"
    attempts_[4] = at(2400, "completed")
    assert refs(attempts_[0], attempts_) == []


def test_what_was_cancelled_says_nothing_of_a_number() -> None:
    attempts_ = [at(n * 600, "cancelled" if n % 2 else "busy") for n in range(9)][::-1]
    assert refs(attempts_[0], attempts_) == ["number-always-failing"]
    assert refs(attempts_[1], attempts_) == []


def died(minute: float, node: str | None = "ask", **more: Any) -> Sighting:
    flow = {"flow_id": "flow", "flow_name": "Balance", "nodes": ["dial-1", "ask"], "died": node, "died_by": "onError"}
    return at(minute, "completed", **{**flow, **more})


def test_three_deaths_at_a_node_are_reported_on_each_of_the_calls() -> None:
    flow = [died(n) for n in range(3)]
    (finding,) = found(flow[0], [], flow)
    assert finding.key is None
    assert {one.key for one in finding.members} == {one.key for one in flow}
    assert finding.said.detected_issue_ref == "calls-die-at-node:flow:ask"
    assert (finding.said.metadata["nodeId"], finding.said.metadata["flowId"]) == ("ask", "flow")
    assert found(flow[0], [], flow[:2]) == []


def test_a_node_that_most_calls_come_through_is_none_where_calls_die() -> None:
    deaths, passed = [died(n) for n in range(3)], [died(10 + n, None) for n in range(4)]
    elsewhere = [died(20 + n, None, nodes=["dial-1"]) for n in range(20)]
    assert refs(deaths[0], None, [*deaths, *passed[:3], *elsewhere]) == ["calls-die-at-node:flow:ask"]
    assert refs(deaths[0], None, [*deaths, *passed, *elsewhere]) == []


def test_an_attempt_counts_once_and_as_it_was_told_last() -> None:
    first = [died(n) for n in range(3)]
    mended = [one.model_copy(update={"died": None, "told": one.told + 1, "at": one.at + 5}) for one in first[1:]]
    assert found(first[0], [], [*first, *mended]) == []
    assert found(first[0], [], [first[0], first[0], first[0]]) == []


def test_what_is_found_does_not_depend_on_the_order_things_are_known_in() -> None:
    known = [*spread(8, 1), *spread(3, 600, "completed")]
    for seed in range(20):
        shuffled = random.Random(seed).sample(known, len(known))
        assert [one.key for one in found(known[0], shuffled, [])] == [one.key for one in found(known[0], known, [])]


@pytest.mark.parametrize("flow", ["f" * 128, "a:b"])
def test_every_report_can_be_filed_whatever_the_names(flow: str) -> None:
    seen = [died(n, "n" * 128, nodes=["n" * 128], flow_id=flow, flow_name="x" * 1000) for n in range(3)]
    (finding,) = found(seen[0], [], seen)
    assert len(finding.said.detected_issue_ref or "") <= 255
    assert len(finding.said.title) <= 255


def test_the_published_call_says_nothing_bad() -> None:
    seen = seen_of(json.loads(CALL))
    assert found(seen, [seen], [seen]) == []
