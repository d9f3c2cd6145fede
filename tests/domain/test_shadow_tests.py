"""Shadow tests: what may be asked, how counts add up, how a test ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop.errors import Conflict
from fixloop.graders import Score
from fixloop.replays import Result
from fixloop.shadow_tests import (
    WORKERS,
    Config,
    Outcome,
    ShadowTest,
    ShadowTestIn,
    ShadowTestPatch,
    Tally,
    batches,
    concluded,
    outcome_of,
    patch,
)


def shadow_test(**changes: Any) -> ShadowTest:
    values: dict[str, Any] = {
        "id": "st_7k2m9p",
        "n": 1,
        "fix_id": "fix_3a9c7e",
        "fix_type": "prompt_update",
        "changes": {},
        "trace_count": 10,
        "config": Config(),
        "traces": "traces#x",
        "author": "user_1",
        "created_at": 1_755_165_600_000,
        "updated_at": 1_755_165_600_000,
    }
    return ShadowTest(**{**values, **changes})


def result(original: float, fixed: float, **changes: Any) -> Result:
    values: dict[str, Any] = {
        "trace_id": "tr_1",
        "original_output": "60 days",
        "fixed_output": "30 days",
        "original_score": original,
        "fixed_score": fixed,
        "verdict": "improved",
        "explanation": "says so",
        "latency_ms": 100,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_estimate": 0.001,
        "original": Score(original, "x"),
    }
    return Result(**{**values, **changes})


verdicts = st.sampled_from(["improved", "unchanged", "regressed", None])
outcomes = st.lists(
    st.builds(
        Outcome,
        trace_id=st.just("tr_1"),
        verdict=verdicts,
        input_tokens=st.integers(0, 10**6),
        output_tokens=st.integers(0, 10**6),
        cost=st.none() | st.floats(0, 10),
    ),
    max_size=40,
)


@given(outcomes, st.integers(1, 7))
def test_a_tally_is_the_same_however_its_results_are_cut_into_batches(found: list[Outcome], size: int) -> None:
    whole = Tally()
    for outcome in found:
        whole = whole.with_outcome(outcome)
    parts = []
    for start in range(0, len(found), size):
        part = Tally()
        for outcome in found[start : start + size]:
            part = part.with_outcome(outcome)
        parts.append(part)
    summed = sum(parts, Tally())
    assert summed.model_dump(exclude={"cost"}) == whole.model_dump(exclude={"cost"})
    assert summed.cost == pytest.approx(whole.cost)
    assert whole.done == len(found)
    assert whole.replayed + whole.failed == len(found)
    assert 0 <= whole.improvement_rate <= 1


@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 500))
def test_batches_hold_every_trace_once_and_keep_to_the_calls_in_flight(count: int, most: int, in_flight: int) -> None:
    ids = [f"tr_{at}" for at in range(count)]
    cut, each = batches(ids, most, in_flight)
    assert [one for batch in cut for one in batch] == ids
    assert all(1 <= len(batch) <= most for batch in cut)
    assert each == 1 or each * min(len(cut), WORKERS) <= in_flight


def test_the_published_rate_is_improved_of_all_that_were_replayed() -> None:
    assert Tally(improved=8, unchanged=1, regressed=1).counts() == {
        "improved": 8, "unchanged": 1, "regressed": 1, "improvementRate": 0.8
    }  # fmt: skip
    assert Tally(improved=1, regressed=2, failed=7).counts()["improvementRate"] == 0.3333
    assert Tally(failed=3).counts()["improvementRate"] == 0


def test_a_cost_with_an_unknown_price_in_it_is_not_a_number() -> None:
    assert Tally(input_tokens=5, output_tokens=6, cost=0.25).usage() == {
        "inputTokens": 5, "outputTokens": 6, "costEstimateUsd": 0.25
    }  # fmt: skip
    assert Tally(cost=0.25, unpriced=1).usage()["costEstimateUsd"] is None


def test_traces_that_fail_are_in_no_count_and_noted() -> None:
    failures = [Outcome(trace_id=f"tr_{at}", error="promptDiff does not apply") for at in range(5)]
    ended = concluded(10, Tally(improved=5, failed=5), failures, None)
    assert ended["status"] == "completed"
    assert ended["error"].startswith("5 of 10 traces could not be replayed and are in no count. tr_0, tr_1, tr_2 …: ")


def test_a_test_fails_only_when_no_trace_could_be_replayed_or_it_was_stopped() -> None:
    failures = [Outcome(trace_id="tr_1", error="Throttled")]
    assert concluded(1, Tally(failed=1), failures, None) == {
        "status": "failed",
        "error": "No trace could be replayed. tr_1: Throttled",
    }
    assert concluded(3, Tally(improved=3), [], None) == {"status": "completed", "error": None}
    stopped = concluded(3, Tally(improved=2), [], "the execution was stopped")
    assert stopped == {"status": "failed", "error": "Stopped after 2 of 3 traces: the execution was stopped"}
    assert concluded(3, Tally(improved=2), [], None)["status"] == "failed"


def test_several_replays_of_a_trace_count_with_their_mean() -> None:
    found = outcome_of([result(0.4, 0.9), result(0.4, 0.3, fixed_output="no"), result(0.4, 0.6)], 0.05)
    assert (found.original_score, found.fixed_score, found.verdict) == (0.4, 0.6, "improved")
    assert (found.input_tokens, found.output_tokens, found.cost) == (30, 15, 0.003)
    assert found.explanation == "Mean of 3 replays. says so"
    assert outcome_of([result(0.4, 0.6, cost_estimate=None), result(0.4, 0.6)], 0.05).cost is None


def test_only_an_active_test_can_be_ended_and_what_has_ended_stays_so() -> None:
    cancel = ShadowTestPatch.model_validate({"status": "failed", "results": {"error": "429 during replay"}})
    assert patch(shadow_test(status="running"), cancel) == {"status": "failed", "error": "429 during replay"}
    assert patch(shadow_test(), ShadowTestPatch(status="failed"))["error"] == "Cancelled"
    assert patch(shadow_test(status="failed"), ShadowTestPatch(status="failed")) == {}
    for status in ("completed", "failed"):
        with pytest.raises(Conflict):
            patch(shadow_test(status=status), ShadowTestPatch(status="running"))
    with pytest.raises(Conflict):
        patch(shadow_test(status="completed"), cancel)
    with pytest.raises(Conflict):
        patch(shadow_test(status="running"), ShadowTestPatch(status="completed"))
    with pytest.raises(Conflict):
        patch(shadow_test(status="running"), ShadowTestPatch.model_validate({"results": {"error": "x"}}))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"traceIds": []}, "traceIds"),
        ({"traceIds": ["tr_1"] * 10_001}, "traceIds"),
        ({"traceIds": ["no such form!"]}, "traceIds"),
        ({"config": {"comparisonMode": "sequential"}}, "config.comparisonMode"),
        ({"config": {"threshold": 0}}, "config.threshold"),
        ({"config": {"graders": []}}, "config.graders"),
        ({"config": {"model": "gpt-4o"}}, "config.model"),
        ({"config": {"concurrency": 501}}, "config.concurrency"),
        ({"config": {"batchSize": 1001}}, "config.batchSize"),
        ({"config": {"repeat": 11}}, "config.repeat"),
        ({"config": {"maxCostUsd": 0}}, "config.maxCostUsd"),
        ({"config": None}, "config"),
    ],
)
def test_a_body_that_breaks_a_rule_names_the_field(body: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ShadowTestIn.model_validate({"fixId": "fix_1", "traceIds": ["tr_1"], **body}, strict=True)
    assert {".".join(map(str, problem["loc"])) for problem in raised.value.errors()} == {named}


def test_trace_ids_given_twice_count_once_and_keep_their_order() -> None:
    given_twice = ShadowTestIn.model_validate({"fixId": "fix_1", "traceIds": ["tr_2", "tr_1", "tr_2"]})
    assert given_twice.traceIds == ["tr_2", "tr_1"]
    assert given_twice.config.shown() == {"comparisonMode": "side_by_side"}
