"""A model that is asked again: when it is throttled as long as its rate budget says, when it fails a few times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from fixloop.models import TIMEOUT, Completion, Model, ModelRefused, ModelUnavailable, Prompt, Throttled

ATTEMPTS = 3  # calls for one answer that fail before it is given up
THROTTLES = 12  # calls for one answer that are throttled before it is given up
IN_A_ROW = 20  # failures of a model, over all threads and without an answer between them, that open the circuit
_LONGEST = 8.0  # seconds


class OutOfTime(Exception):
    """What was asked for could not be had before the deadline."""


class Pace(Protocol):
    """When a call may be made, and what came of it: `storage.paces.Pace`, or nothing that holds back.

    Each call that was let through is reported once; `succeeded` says that its rate was accepted, whatever else it said.
    """

    def take(self, deadline: float) -> bool: ...
    def succeeded(self) -> None: ...
    def throttled(self, retry_after: float | None) -> None: ...
    def failed(self) -> None: ...


class Unpaced:
    """For models that nobody throttles."""

    def take(self, deadline: float) -> bool:  # noqa: ARG002
        return True

    def succeeded(self) -> None: ...

    def throttled(self, retry_after: float | None) -> None: ...

    def failed(self) -> None: ...


class Patient:
    """A `Model` over another one, for one piece of work with a deadline (of `time.monotonic`); thread-safe.

    Once a model has failed `IN_A_ROW` times without an answer between, it is not asked any more.
    """

    def __init__(
        self,
        model: Model,
        pace: Pace,
        deadline: float,
        *,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._model, self._pace, self._deadline, self._attempts = model, pace, deadline, attempts
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self._failures = 0
        self._lock = Lock()

    def complete(self, prompt: Prompt, *, timeout: float = TIMEOUT) -> Completion:
        """Raises OutOfTime, Throttled, ModelUnavailable and ModelRefused."""
        failed = throttled = 0
        while True:
            if self._failures >= IN_A_ROW:
                raise ModelUnavailable(f"The model failed {IN_A_ROW} times in a row and is not asked any more.")
            if not self._pace.take(self._deadline):
                raise OutOfTime("The rate budget of the model left no time.")
            left = self._deadline - self._clock()
            if left <= 0:
                self._pace.succeeded()
                raise OutOfTime("No time was left to ask the model.")
            try:
                answer = self._model.complete(prompt, timeout=min(timeout, left))
            except Throttled as refused:
                throttled += 1
                self._pace.throttled(refused.retry_after)
                if throttled >= THROTTLES:
                    raise
            except ModelUnavailable as broken:
                failed += 1
                self._pace.failed()
                self._note(1)
                if failed >= self._attempts:
                    raise
                self._wait(broken, failed)
            except ModelRefused:
                self._pace.succeeded()
                raise
            else:
                self._pace.succeeded()
                self._note(0)
                return answer

    def _note(self, failures: int) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failures else 0

    def _wait(self, broken: ModelUnavailable, failed: int) -> None:
        """Full jitter, or what the provider asked for. Raises the failure itself where that would take too long."""
        wait = broken.retry_after
        if wait is None:
            wait = self._chance() * min(0.5 * 2**failed, _LONGEST)
        if self._clock() + wait >= self._deadline:
            raise broken
        self._sleep(wait)
