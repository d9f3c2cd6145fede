"""How fast a model may be asked: a careful start, and after a refusal a budget that follows what is accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FRAME = 1.03
"""Seconds. Providers count by the second; the rest is for calls that arrive early or late."""
DUTY = 0.6
"""The part of a frame in which its calls go out. What is refused then tells how many fit, and the end comes sooner."""
FIRST = 5.0
"""Calls in flight at first, of all workers that start together."""
GROWTH = 0.5
"""More in flight per answer. Half as many again per round trip: doubling wastes up to two seconds' calls on a cap."""
SETTLE = 0.3
"""Seconds that all workers have to say how many calls of theirs were accepted before the first refusal."""
HOLD = 15.0
LONGEST_HOLD = 240.0
RAISE_EVERY = 3.0
LONGEST_PERIOD = 30.0
LATE = 0.05
"""Seconds after its time that a number may still be taken."""


@dataclass(frozen=True)
class Budget:
    """What all workers share: `count` calls in every `period` of seconds, the first at `start`; without a limit at 0.

    Calls are numbered; the number decides the time, so whoever takes numbers keeps the pace of all. A change of the
    budget gets a new `epoch`, which starts at number 0. Nobody calls before `paused`, and calls that were say
    nothing new. `changed` is when the last refusal was reported, `refused` when the refused call was sent. All times
    are in seconds since 1970.
    """

    epoch: int = 0
    count: int = 0
    period: float = FRAME
    start: float = 0.0
    taken: int = 0
    changed: float = 0.0
    refused: float = 0.0
    paused: float = 0.0
    clean: bool = False
    before: int = 0
    raises: int = 0
    raise_at: float = 0.0
    hold: float = HOLD

    @property
    def limited(self) -> bool:
        return self.count > 0

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.count / self.period if self.count else math.inf

    @property
    def spacing(self) -> float:
        return DUTY * self.period / self.count

    def slot(self, number: int) -> float:
        """When the call with this number may go out."""
        frame, place = divmod(number, self.count)
        return self.start + frame * self.period + place * self.spacing

    def number_at(self, now: float) -> int:
        """The first number whose time is not over."""
        since = now - LATE - self.start
        if since <= 0:
            return 0
        frame = math.floor(since / self.period)
        late = since - frame * self.period
        return frame * self.count + min(self.count, math.ceil(late / self.spacing - 1e-6))


def taken(budget: Budget, wanted: int, now: float) -> Budget:
    """The budget when `wanted` more numbers are taken, none of a time that is over."""
    return replace(budget, taken=max(budget.taken, budget.number_at(now)) + wanted)


def limited(budget: Budget, accepted: int, sent: float, now: float, retry_after: float | None) -> Budget:
    """The budget after the first refusal, of a call `sent` when as many were `accepted` in the second before."""
    pause = FRAME if retry_after is None else max(retry_after, SETTLE)
    start = now + pause
    return Budget(
        epoch=budget.epoch + 1,
        count=max(1, accepted),
        start=start,
        changed=now,
        refused=sent,
        paused=start,
        clean=pause >= 1,
        raise_at=start + HOLD,
    )


def lowered(budget: Budget, number: int | None, sent: float, now: float, retry_after: float | None) -> Budget:
    """The budget after a further refusal, of a call with this number if it was of the same epoch.

    In the first frame after a pause nothing else can have used the provider's second up, so the number is what fits.
    Later it says only that the budget is too large.
    """
    count, period = budget.count, budget.period
    if count == 1:
        period = min(2 * period, LONGEST_PERIOD)
    elif budget.clean and number is not None and number < count:
        count = number or count // 2
    else:
        count = max(1, min(count - 1, round(0.9 * count)))
    pause = period if retry_after is None else retry_after
    start = now + pause
    hold = min(2 * budget.hold, LONGEST_HOLD) if 0 < budget.raises <= 2 else HOLD
    return Budget(
        epoch=budget.epoch + 1,
        count=count,
        period=period,
        start=start,
        changed=now,
        refused=sent,
        paused=max(start, budget.paused),
        clean=pause >= 1,
        before=budget.count,
        raise_at=start + hold,
        hold=hold,
    )


def raised(budget: Budget, now: float) -> Budget | None:
    """The budget a step up, from the next frame that nobody has calls in; None while it is too early or not needed."""
    ahead = budget.taken > budget.number_at(now)
    if not budget.limited or now < budget.raise_at or not ahead:
        return None
    step = 1 + min(0.1 * 2**budget.raises, 0.5)
    count, period = budget.count, budget.period
    if period > FRAME:
        period = max(FRAME, period / step)
    else:
        count = max(count + 1, round(count * step))
    start = budget.start + math.ceil(budget.taken / budget.count) * budget.period
    return replace(
        budget,
        epoch=budget.epoch + 1,
        count=count,
        period=period,
        start=start,
        taken=0,
        clean=False,
        before=budget.count,
        raises=budget.raises + 1,
        raise_at=start + RAISE_EVERY,
    )


def restored(budget: Budget) -> Budget:
    """The budget as it was before a refusal that was not for the rate: calls sent after it were accepted."""
    return replace(budget, epoch=budget.epoch + 1, count=budget.before, taken=0, clean=False, before=0)


@dataclass
class Ramp:
    """How many calls one worker has in flight while nothing limits it: few at first, more with every answer."""

    limit: int
    window: float = FIRST

    def answered(self) -> None:
        self.window = min(float(self.limit), self.window + GROWTH)

    def stumbled(self) -> None:
        self.window = max(1.0, self.window / 2)

    @property
    def allowed(self) -> int:
        return max(1, min(self.limit, math.floor(self.window)))
