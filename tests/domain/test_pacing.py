"""The rate budget: when numbered calls may go out, and what a refusal makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop import pacing
from fixloop.pacing import FRAME, HOLD, Budget, Ramp

NOW = 1_700_000_000.0
LIMITED = pacing.limited(Budget(), 20, NOW - 0.1, NOW, None)


def test_nothing_limits_a_model_that_never_refused():
    assert not Budget().limited
    assert pacing.raised(Budget(), NOW) is None


@given(count=st.integers(1, 500), first=st.integers(0, 2000))
def test_no_second_has_more_calls_than_the_budget_allows(count: int, first: int):
    budget = replace(LIMITED, count=count)
    assert budget.slot(first + count) - budget.slot(first) >= 1


@given(count=st.integers(1, 500), since=st.floats(0, 100))
def test_the_first_number_whose_time_is_not_over_is_found(count: int, since: float):
    budget = replace(LIMITED, count=count)
    number = budget.number_at(budget.start + since)
    assert budget.slot(number) >= budget.start + since - pacing.LATE - 1e-6
    assert number == 0 or budget.slot(number - 1) <= budget.start + since + 1e-6


def test_time_that_has_passed_unused_is_not_made_up_for():
    later = pacing.taken(LIMITED, 5, LIMITED.start + 10)
    assert later.slot(later.taken - 5) >= LIMITED.start + 10 - pacing.LATE
    assert pacing.taken(later, 5, LIMITED.start + 10).taken == later.taken + 5


@pytest.mark.parametrize(("after", "start"), [(None, NOW + FRAME), (3.0, NOW + 3), (0.0, NOW + pacing.SETTLE)])
def test_the_first_refusal_limits_to_what_was_accepted_and_pauses(after: float | None, start: float):
    budget = pacing.limited(Budget(), 24, NOW - 0.1, NOW, after)
    assert (budget.count, budget.start, budget.paused) == (24, start, start)
    assert budget.rate == pytest.approx(24 / FRAME)


def test_the_number_refused_first_after_a_pause_is_what_fits():
    assert pacing.lowered(LIMITED, 13, NOW + 2, NOW + 2.1, 1).count == 13


def test_a_refusal_later_on_takes_a_tenth_off():
    assert pacing.lowered(LIMITED, 45, NOW + 4, NOW + 4.1, 1).count == 18
    assert pacing.lowered(LIMITED, None, NOW + 4, NOW + 4.1, 1).count == 18


def test_a_refusal_after_a_long_peace_is_a_pause_and_the_next_one_says_how_many_fit():
    paused = pacing.lowered(LIMITED, 100, NOW + 7, NOW + 7.1, 1)
    assert (paused.count, paused.start) == (20, NOW + 8.1)
    assert pacing.lowered(paused, 12, NOW + 8.5, NOW + 8.6, 1).count == 12
    assert pacing.lowered(LIMITED, 99, NOW + 7, NOW + 7.1, 1).count == 18


def test_when_nothing_is_accepted_single_calls_ask_at_growing_distances_and_the_rate_comes_back():
    budget, periods = LIMITED, []
    for _ in range(7):
        budget = pacing.lowered(budget, 0, budget.start, budget.start + 0.1, None)
        assert (budget.count, budget.probing, budget.before) == (1, True, 20)
        periods.append(round(budget.paused - budget.changed, 2))
    assert periods == [1.03, 2.06, 4.12, 8.24, 16.48, 30.0, 30.0]
    assert pacing.restored(budget, budget.start + 0.2).count == 20


def test_a_rate_that_one_refusal_after_the_other_lowers_is_not_the_reason():
    budget, now = LIMITED, NOW
    for number in (15, 9, 4, 2, 1):
        now = budget.start + 0.5
        budget = pacing.lowered(budget, number, now - 0.1, now, 1)
        assert budget.count == number
    budget = pacing.lowered(budget, 2, now, budget.start + 0.5, 1)
    assert budget.count == 20
    again = pacing.lowered(budget, 7, budget.start, budget.start + 0.5, 1)
    assert again.count == 20
    assert again.paused == pytest.approx(budget.start + 1.5)
    assert pacing.lowered(again, 7, again.start, again.start + 0.5, 1).count == 7, "twice the same number is a cap"


def test_a_budget_is_raised_after_a_while_if_it_is_used_up_and_faster_if_that_goes_well():
    used = replace(LIMITED, taken=2000)
    assert pacing.raised(used, used.start + HOLD - 1) is None
    assert pacing.raised(replace(LIMITED, taken=3), LIMITED.start + HOLD) is None
    steps = []
    for _ in range(5):
        higher = pacing.raised(used, used.raise_at)
        assert higher is not None
        assert higher.start >= used.slot(used.taken - 1)
        steps.append(higher.count)
        used = replace(higher, taken=2000)
    assert steps == [22, 26, 36, 54, 81]


def test_a_rate_that_was_tried_in_vain_is_tried_again_later():
    higher = pacing.raised(replace(LIMITED, taken=2000), LIMITED.raise_at)
    assert higher is not None
    back = pacing.lowered(higher, 21, NOW, higher.start + 1, 1)
    assert (back.count, back.hold) == (20, 2 * HOLD)


def test_less_than_one_call_a_second_is_a_budget_too():
    budget = replace(LIMITED, count=1)
    slower = pacing.lowered(budget, 3, NOW, NOW + 5, 1)
    assert (slower.count, slower.period) == (1, 2 * FRAME)
    quicker = pacing.raised(replace(slower, taken=50), slower.raise_at)
    assert quicker is not None
    assert FRAME <= quicker.period < slower.period


def test_a_careful_start_grows_with_answers_and_shrinks_with_failures():
    ramp = Ramp(50)
    assert ramp.allowed == 5
    sizes = []
    for _ in range(6):
        for _ in range(ramp.allowed):
            ramp.answered()
        sizes.append(ramp.allowed)
    assert sizes == [8, 12, 20, 32, 50, 50]
    ramp.stumbled()
    assert ramp.allowed == 25


def test_a_careful_start_does_not_wait_for_slow_answers():
    ramp = Ramp(50)
    for tenth in range(31):
        ramp.waited(NOW + tenth / 10)
    assert ramp.allowed == 40
