"""What the demo tells: its samples replayed in process, with the default model and the default graders."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fixloop.changes import Changes, DiffDoesNotApply, apply_to_prompt, parse_changes
from fixloop.grading import GradedCall, Turn, grade
from fixloop.models.extractive import Extractive
from fixloop.replays import Result, replay, summary
from fixloop.traces import Trace, TraceIn, of_call, received
from fixloop_cli.demo import retrieval_update
from fixloop_cli.gate import Bar, Report

ROOT = Path(__file__).resolve().parents[2]
REFUNDS = json.loads((ROOT / "samples" / "refunds.json").read_text())
SHIPPING = json.loads((ROOT / "samples" / "shipping.json").read_text())
IDLE = parse_changes("config_change", {"temperature": 0.5})


def graded(sample: dict[str, Any]) -> list[str]:
    call = sample["call"]
    turns = [Turn(**turn) for turn in call["transcripts"]]
    fields = {name: call[name] for name in ("prompt_snapshot", "duration_seconds", "status", "end_reason")}
    found = grade(GradedCall(call_id=sample["call_id"], turns=turns, **fields)).detected_issues
    return [issue.ref for issue in found if issue.ref.startswith("contradicts-prompt:")]


def outdated_turns() -> list[Trace]:
    """The answer of each call in which the agent cites the refund policy that is no longer in force."""
    return [
        next(
            trace
            for trace in of_call("org", sample["call_id"], sample["call"], agent_id="agent_1", created_at=0)
            if "60 days" in trace.recorded_response
        )
        for sample in REFUNDS["calls"]
        if graded(sample)
    ]


def shipping() -> list[Trace]:
    context = [{"id": name, "text": "\n".join(lines)} for name, lines in SHIPPING["documents"].items()]
    frozen = {"agentId": "agent_2", "systemPrompt": SHIPPING["agent"]["systemPrompt"], "context": context}
    return [
        received(f"tr_{at}", TraceIn.model_validate({**frozen, **trace}), 0)
        for at, trace in enumerate(SHIPPING["traces"])
    ]


def replayed(traces: list[Trace], changes: Changes) -> list[Result]:
    return [replay(trace, changes, Extractive()) for trace in traces]


def counted(results: list[Result]) -> tuple[int, int, int]:
    counts = Counter(result.verdict for result in results)
    return counts["improved"], counts["unchanged"], counts["regressed"]


def met(results: list[Result]) -> bool:
    test = {"status": "completed", "results": summary(result.verdict for result in results)}
    return not Report(test, [], Bar(SHIPPING["bar"]["minImproved"], SHIPPING["bar"]["maxRegressed"])).misses()


def shipping_fix(at: int) -> Changes:
    fix = retrieval_update(SHIPPING["fixes"][at])
    return parse_changes(fix["type"], fix["changes"])


def refund_fix(name: str) -> Changes:
    fix = REFUNDS["fixes"][name]
    return parse_changes(fix["type"], fix["changes"])


def test_three_calls_contradict_their_prompt_alike_and_the_others_do_not():
    alike = ["contradicts-prompt:policy-allows-customers-days"]
    assert [graded(sample) for sample in REFUNDS["calls"]] == [[], alike, [], alike, alike, []]


def test_the_refund_fix_improves_every_failing_turn():
    results = replayed(outdated_turns(), refund_fix("good"))
    assert counted(results) == (3, 0, 0)
    for result in results:
        assert "60 days" in result.original_output
        assert "30 days" in result.fixed_output
        assert "says 60 days, which is outdated" in result.explanation


def test_without_the_refund_fix_the_failing_turns_are_answered_as_badly_as_before():
    results = replayed(outdated_turns(), IDLE)
    assert counted(results) == (0, 3, 0)
    assert all("60 days" in result.fixed_output for result in results)


def test_the_refused_refund_fix_does_not_apply():
    refused = REFUNDS["fixes"]["refused"]["changes"]["promptDiff"]
    with pytest.raises(DiffDoesNotApply):
        apply_to_prompt(REFUNDS["calls"][0]["call"]["prompt_snapshot"], refused)


def test_the_first_document_improves_most_and_makes_those_worse_whose_country_it_forgot():
    traces = shipping()
    results = replayed(traces, shipping_fix(0))
    assert counted(results) == (28, 9, 3)
    assert not met(results)
    for trace, result in zip(traces, results, strict=True):
        norway = "Norway" in trace.user_message
        wanted = "improved" if trace.outcome == "failure" else "regressed" if norway else "unchanged"
        assert (result.verdict, trace.user_message) == (wanted, trace.user_message)


def test_the_completed_document_meets_the_bar():
    traces = shipping()
    results = replayed(traces, shipping_fix(1))
    assert counted(results) == (28, 12, 0)
    assert met(results)
    assert {trace.outcome for trace, result in zip(traces, results, strict=True) if result.verdict == "improved"} == {
        "failure"
    }


def test_without_a_fix_no_answer_about_orders_from_abroad_changes_for_better_or_worse():
    assert counted(replayed(shipping(), IDLE)) == (0, 40, 0)
