"""What the loop makes of call attempts: the call with what was said in it, and what goes wrong over several of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel

from fixloop import times
from fixloop.call_reports import CallAttemptReport, CallEvent, Kept, NodeExecution, plain
from fixloop.calls import MAX_ID, CallIn, EndReason
from fixloop.issue_reports import ReportIn

STORM_ATTEMPTS = 5
STORM_MS = 10 * 60 * 1000
FAILING_IN_A_ROW = 5
DEATHS = 3
DEATH_SHARE = 0.5
LOOKED_AT = 50  # latest attempts of a number or a flow
NODES = 100  # of a path that are remembered

REACHED = frozenset({"completed", "voicemail"})
UNREACHED = frozenset({"busy", "no_answer", "rejected", "failed"})
_DEAD_ENDS = frozenset({"onError", "onTimeout", "onInvalid", "onMaxRetries"})
_NOT_THE_NODES_FAULT = frozenset({"hangup"})

# Who speaks in an event of this type, unless its data says so itself.
_SPEAKERS = {
    "speech": "user",
    "transcript": "user",
    "utterance": "user",
    "user_speech": "user",
    "collect_audio": "user",
    "agent_speech": "assistant",
    "agent_response": "assistant",
    "say": "assistant",
    "tool_call": "tool_call",
    "tool_response": "tool_response",
}
_ROLES = {
    "user": "user",
    "caller": "user",
    "callee": "user",
    "customer": "user",
    "contact": "user",
    "human": "user",
    "assistant": "assistant",
    "agent": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "tool_call": "tool_call",
    "tool_response": "tool_response",
    "system": "system",
}
_HUNG_UP = {"caller": "caller_hangup", "callee": "caller_hangup", "remote": "caller_hangup", "user": "caller_hangup"}


# The call


def is_a_call(report: CallAttemptReport) -> bool:
    """Whether the loop makes a call of an attempt: somebody spoke in it, or it did not get through."""
    return plain(report["outcome"]) in UNREACHED or bool(transcript(report["events"], _begun(report)))


def call_of(report: CallAttemptReport) -> CallIn:
    """The call behind an attempt that has ended, as `PUT /v1/calls/{call_id}` would take it.

    The flow's variables `agent.id` and `agent.prompt` tell which agent spoke, and with which prompt. Where nobody spoke
    there is no transcript, and the grade is `no_conversation`.
    """
    outcome = plain(report["outcome"])
    begun = _begun(report)
    call, variables = report["call"], _variables(report)
    ended = times.parse(call["terminatedAt"]) if "terminatedAt" in call else None
    lasted = call.get("durationMs")
    agent, prompt = variables.get("agent.id"), variables.get("agent.prompt")
    return CallIn.model_validate(
        {
            "agent_id": agent if type(agent) is int and 1 <= agent <= MAX_ID else None,
            "direction": call["direction"],
            "from_number": call["from"],
            "to_number": call["to"],
            "start_time": times.iso_ms(begun),
            "end_time": times.iso_ms(ended) if ended is not None and ended >= begun else None,
            "duration_seconds": lasted / 1000 if lasted is not None and begun + lasted <= times.LAST else None,
            "status": "completed" if outcome in REACHED else "failed",
            "end_reason": _end_reason(report, outcome),
            "transcripts": transcript(report["events"], begun),
            "prompt_snapshot": prompt if isinstance(prompt, str) else "",
            "variables": variables,
            "events": [_placed(event, begun) for event in report["events"]],
        }
    )


def _variables(report: CallAttemptReport) -> dict[str, Any]:
    flow = report.get("flowExecution")
    return {**flow["finalVariables"]} if flow else {}


def _path(report: CallAttemptReport) -> list[NodeExecution]:
    flow = report.get("flowExecution")
    return flow["executionPath"] if flow else []


def _begun(report: CallAttemptReport) -> int:
    call = report["call"]
    return times.parse(call.get("answeredAt") or call.get("dialedAt") or call["createdAt"])


def _end_reason(report: CallAttemptReport, outcome: str) -> str | None:
    if outcome not in REACHED:
        return outcome if outcome in get_args(EndReason) else "error"
    for event in reversed(report["events"]):
        if plain(event["type"]) == "hangup":
            kind = plain(str(event["data"].get("hangupType") or ""))
            if kind in _HUNG_UP:
                return _HUNG_UP[kind]
    path = _path(report)
    return "agent_end" if path and path[-1]["nodeType"] == "hangup" else None


def _placed(event: CallEvent, begun: int) -> dict[str, Any]:
    return {"type": event["type"], "at_ms": max(0, times.parse(event["timestamp"]) - begun), "data": event["data"]}


def transcript(events: Sequence[CallEvent], begun: int) -> list[dict[str, Any]]:
    """The rows of a transcript, in order, from the events that carry speech or a tool's work.

    Their text is in `text`, `content` or `transcript`, their speaker in `role` or `speaker` unless the type tells;
    `startMs` and `endMs` count from the start of the call, else the event's time and `durationMs` do.
    """
    rows = [row for event in events if (row := _row(event, begun))]
    return sorted(rows, key=lambda row: row["start_ms"])


def _row(event: CallEvent, begun: int) -> dict[str, Any] | None:
    data, kind = event["data"], plain(event["type"])
    speaker = _SPEAKERS.get(kind)
    if speaker is None:
        return None
    content = next((data[name] for name in ("text", "content", "transcript") if data.get(name)), None)
    if not isinstance(content, str) and not (speaker.startswith("tool_") and isinstance(content, dict | list)):
        return None
    if isinstance(content, str) and not content.strip():
        return None
    said = plain(str(data.get("role") or data.get("speaker") or ""))
    start = _milliseconds(data.get("startMs"))
    if start is None:
        start = max(0, times.parse(event["timestamp"]) - begun)
    end, lasted = _milliseconds(data.get("endMs")), _milliseconds(data.get("durationMs"))
    if end is None and lasted is not None:
        end = start + lasted
    row = {"role": _ROLES.get(said, speaker), "content": content, "start_ms": start}
    return row if end is None else {**row, "end_ms": max(start, end)}


def _milliseconds(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2**52:
        return None
    return round(value)


# What several attempts show


class Sighting(BaseModel):
    """What is remembered of an attempt that has ended. Times in ms; `number` is the other side's.

    `nodes` are those that it ran through, `died` the one where it came to a bad end, `last` the last that did anything.
    """

    job_id: str
    attempt: int
    at: int
    told: int
    outcome: str
    number: str
    flow_id: str | None = None
    flow_name: str = ""
    nodes: list[str] = []
    died: str | None = None
    died_by: str | None = None
    last: str | None = None
    node_type: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.job_id, self.attempt


def sighting(kept: Kept, report: CallAttemptReport) -> Sighting:
    """What to remember of an attempt."""
    call, flow = report["call"], report.get("flowExecution")
    path = _path(report)
    worked = [step for step in path if step["nodeType"] not in _NOT_THE_NODES_FAULT]
    died = worked[-1] if worked and _died(report, worked[-1].get("outputPath")) else None
    last = worked[-1] if worked else None
    return Sighting(
        job_id=kept.job_id,
        attempt=kept.number,
        at=kept.at,
        told=kept.reported,
        outcome=plain(kept.outcome),
        number=call["from" if call["direction"] == "inbound" else "to"],
        flow_id=flow["flowId"] if flow else None,
        flow_name=flow["flowName"] if flow else "",
        nodes=list(dict.fromkeys(step["nodeId"] for step in path))[:NODES],
        died=died["nodeId"] if died else None,
        died_by=died.get("outputPath") if died else None,
        last=last["nodeId"] if last else None,
        node_type=last["nodeType"] if last else None,
    )


def _died(report: CallAttemptReport, way_out: str | None) -> bool:
    """Whether a flow ended badly at its last node: by a way out for failures, or as an answered call that failed."""
    if way_out in _DEAD_ENDS:
        return True
    return plain(report["outcome"]) == "failed" and "answeredAt" in report["call"]


@dataclass(frozen=True)
class Finding:
    """Something wrong over several attempts: reported once, on one of `members`, if it has a `key`; else on each."""

    said: ReportIn
    members: tuple[Sighting, ...]
    key: str | None = None


def found(seen: Sighting, of_number: Sequence[Sighting], of_flow: Sequence[Sighting]) -> list[Finding]:
    """What an attempt shows together with the latest ones of its number and its flow, newest first, itself included."""
    to_number, in_flow = _unique(of_number), _unique(of_flow)
    findings = (_retry_storm(seen, to_number), _failing_number(seen, to_number), _dead_end(seen, in_flow))
    return [finding for finding in findings if finding is not None]


def _unique(seen: Sequence[Sighting]) -> list[Sighting]:
    """Each attempt once, as it was told last, newest first."""
    newest: dict[tuple[str, int], Sighting] = {}
    for one in sorted(seen, key=lambda one: one.told):
        newest[one.key] = one
    return sorted(newest.values(), key=lambda one: (-one.at, one.key))


def _retry_storm(seen: Sighting, of_number: Sequence[Sighting]) -> Finding | None:
    """Many attempts in a short time, all but the last in vain: once a day for a number."""
    starts = [one.at for one in of_number if seen.at - STORM_MS <= one.at <= seen.at]
    windows = ([one for one in of_number if start <= one.at <= start + STORM_MS] for start in starts)
    storm = max(windows, key=len, default=[])
    if len(storm) < STORM_ATTEMPTS or sum(one.outcome in UNREACHED for one in storm) < STORM_ATTEMPTS - 1:
        return None
    seconds = (storm[0].at - storm[-1].at) // 1000
    jobs = list(dict.fromkeys(one.job_id for one in storm))
    said = ReportIn(
        title="Retry storm",
        description=(
            f"{seen.number} was called {len(storm)} times within {seconds} seconds, by {len(jobs)} "
            f"job{'s' if len(jobs) > 1 else ''}. The outcomes were: {_outcomes(storm)}."
        ),
        severity="warning",
        source="system",
        detected_issue_ref="retry-storm",
        what_went_wrong="Attempts follow each other faster than the other side can become free.",
        suggested_fix="Give the retry strategy a longer delay, and let one job at a time call a number.",
        metadata={**_about(seen), "attempts": len(storm), "seconds": seconds, "jobIds": jobs[:20]},
    )
    day = times.iso_s(seen.at)[:10]
    return Finding(said, (seen,), key=f"retry-storm#{seen.number}#{day}")


def _failing_number(seen: Sighting, of_number: Sequence[Sighting]) -> Finding | None:
    """A number that is never reached: once until it is."""
    run = []
    for one in of_number:
        if one.outcome in REACHED:
            break
        if one.outcome in UNREACHED:
            run.append(one)
    if len(run) < FAILING_IN_A_ROW or seen.outcome not in UNREACHED or seen.key not in {one.key for one in run}:
        return None
    reached = next((one for one in of_number if one.outcome in REACHED), None)
    said = ReportIn(
        title="A number is never reached",
        description=(
            f"The last {len(run)} attempts to reach {seen.number} failed, since {times.iso_s(run[-1].at)}. "
            f"The outcomes were: {_outcomes(run)}."
        ),
        severity="warning",
        source="system",
        detected_issue_ref="number-always-failing",
        what_went_wrong="Every attempt ends without the other side being reached.",
        suggested_fix="Check that the number is right and in use, and leave it out until then.",
        metadata={**_about(seen), "attempts": len(run), "since": times.iso_ms(run[-1].at)},
    )
    since = f"{reached.at}#{reached.job_id}" if reached else "never"
    return Finding(said, (seen,), key=f"number-always-failing#{seen.number}#{since}")


def _dead_end(seen: Sighting, of_flow: Sequence[Sighting]) -> Finding | None:
    """A node of a flow where calls come to a bad end, at least every other: on each of those calls."""
    if seen.died is None or seen.flow_id is None:
        return None
    passed = [one for one in of_flow if seen.died in one.nodes]
    dead = [one for one in passed if one.died == seen.died]
    if len(dead) < DEATHS or len(dead) < DEATH_SHARE * len(passed):
        return None
    said = ReportIn(
        title=f"Calls die at {seen.died} of {seen.flow_name or seen.flow_id}"[:255],
        description=(
            f"Of the last {len(passed)} calls that came to the node {seen.died} ({seen.node_type}) of the flow "
            f"{seen.flow_name or seen.flow_id}, {len(dead)} came to a bad end there."
        ),
        severity="critical",
        source="system",
        detected_issue_ref=_named("calls-die-at-node", seen.flow_id, seen.died),
        what_went_wrong=f"The flow leaves the node by {seen.died_by or 'no way out'} and cannot go on.",
        suggested_fix="Look at what the node calls or waits for, and give that way out somewhere to go.",
        metadata=_about(seen),
    )
    return Finding(said, tuple(dead))


def _named(kind: str, *parts: str) -> str:
    """A `detected_issue_ref`, which has at most 255 characters: ids are at most 128, so two may be too much."""
    whole = ":".join([kind, *parts])
    return whole if len(whole) <= 255 else ":".join([kind, *(part[:110] for part in parts)])


def _about(seen: Sighting) -> dict[str, Any]:
    """What all findings have in their `metadata`."""
    about = {
        "nodeId": seen.died or seen.last,
        "nodeType": seen.node_type,
        "flowId": seen.flow_id,
        "flowName": seen.flow_name or None,
        "number": seen.number,
        "jobId": seen.job_id,
        "attempt": seen.attempt,
        "outcome": seen.outcome,
    }
    return {name: value for name, value in about.items() if value is not None}


def _outcomes(seen: Sequence[Sighting]) -> str:
    counts: dict[str, int] = {}
    for one in seen:
        counts[one.outcome] = counts.get(one.outcome, 0) + 1
    return ", ".join(f"{outcome} {count} times" if count > 1 else outcome for outcome, count in counts.items())


def report_of(text: str) -> CallAttemptReport:
    """A kept report, its numbers as plain ones."""
    report: CallAttemptReport = json.loads(text)
    return report
