"""Asking a model again: how often, how long, and when not."""

from __future__ import annotations

from typing import Any

import pytest

from fixloop.models import Completion, ModelRefused, ModelUnavailable, Prompt, Throttled
from fixloop.patience import ATTEMPTS, IN_A_ROW, THROTTLES, OutOfTime, Patient

ASKED = Prompt("", [])
ANSWER = Completion("yes", 1, 1, 5)


class Script:
    """Answers, or raises, in the given order; the last one goes on for ever."""

    def __init__(self, *steps: Any) -> None:
        self.steps, self.timeouts = list(steps), list[float]()

    def complete(self, prompt: Prompt, *, timeout: float = 20.0) -> Completion:
        self.timeouts.append(timeout)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


class Recorder:
    """A pace that lets everything through and notes what it is told."""

    def __init__(self, *, lets: bool = True) -> None:
        self.lets, self.told = lets, list[Any]()

    def take(self, deadline: float) -> bool:
        return self.lets

    def succeeded(self) -> None:
        self.told.append("ok")

    def throttled(self, retry_after: float | None) -> None:
        self.told.append(retry_after)

    def failed(self) -> None:
        self.told.append("failed")


class Time:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def patient(script: Script, pace: Recorder | None = None, time: Time | None = None, deadline: float = 60.0) -> Patient:
    time = time or Time()
    return Patient(script, pace or Recorder(), deadline, clock=lambda: time.now, sleep=time.sleep, chance=lambda: 1.0)


def test_a_throttled_call_is_made_again_when_the_rate_budget_says_so() -> None:
    pace, time = Recorder(), Time()
    script = Script(Throttled("slow down", 2.0), Throttled("slow down"), ANSWER)
    assert patient(script, pace, time).complete(ASKED) == ANSWER
    assert pace.told == [2.0, None, "ok"]
    assert time.slept == []  # waiting is the budget's affair


def test_a_provider_that_only_throttles_is_given_up() -> None:
    script = Script(Throttled("slow down"))
    with pytest.raises(Throttled):
        patient(script).complete(ASKED)
    assert len(script.timeouts) == THROTTLES


def test_a_failed_call_is_made_again_a_few_times_with_growing_waits() -> None:
    time = Time()
    with pytest.raises(ModelUnavailable):
        patient(Script(ModelUnavailable("500")), time=time).complete(ASKED)
    assert time.slept == [1.0, 2.0]
    assert len(time.slept) == ATTEMPTS - 1


def test_what_the_provider_asks_to_wait_is_waited() -> None:
    time = Time()
    assert patient(Script(ModelUnavailable("503", 7.0), ANSWER), time=time).complete(ASKED) == ANSWER
    assert time.slept == [7.0]


def test_no_wait_goes_beyond_the_deadline() -> None:
    time = Time()
    with pytest.raises(ModelUnavailable):
        patient(Script(ModelUnavailable("503", 90.0), ANSWER), time=time).complete(ASKED)
    assert time.slept == []


def test_a_refusal_is_final() -> None:
    script, pace = Script(ModelRefused("no")), Recorder()
    with pytest.raises(ModelRefused):
        patient(script, pace).complete(ASKED)
    assert len(script.timeouts) == 1
    assert pace.told == ["ok"]  # the rate was accepted


def test_a_call_has_no_more_time_than_is_left() -> None:
    script = Script(ANSWER)
    patient(script, deadline=4.0).complete(ASKED)
    assert script.timeouts == [4.0]
    with pytest.raises(OutOfTime):
        patient(script, deadline=0.0).complete(ASKED)
    with pytest.raises(OutOfTime):
        patient(script, Recorder(lets=False)).complete(ASKED)


def test_a_model_that_is_down_is_not_asked_for_ever() -> None:
    script = Script(ModelUnavailable("down"))
    model = patient(script, deadline=10_000.0)
    for _ in range(50):
        with pytest.raises(ModelUnavailable):
            model.complete(ASKED)
    assert IN_A_ROW <= len(script.timeouts) <= IN_A_ROW + ATTEMPTS


def test_one_answer_closes_the_circuit_again() -> None:
    script = Script(ANSWER)
    model = patient(script, deadline=10_000.0)
    for _ in range(20):
        script.steps[:0] = [ModelUnavailable("down")] * (ATTEMPTS - 1)
        assert model.complete(ASKED) == ANSWER
