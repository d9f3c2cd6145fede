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
GROWTH = 0.6
"""More in flight per answer: with doubling, a cap that is met refuses half as many calls again."""
SETTLE = 0.6
"""Seconds that all workers have to say how many calls of theirs were accepted before the first refusal."""
HOLD = 15.0
LONGEST_HOLD = 240.0
RAISE_EVERY = 3.0
LONGEST_PERIOD = 30.0
LOWERINGS = 5
"""In a row; a refusal that is for the rate needs fewer."""
PEACE = 30
"""Calls, or five frames of them if that is more, without a refusal: then a row of them is over."""
ERRATIC = 60.0
"""Seconds for which refusals that did not follow the rate do not lower it."""
PATIENCE = 1.0
"""Seconds after which a careful start goes on without answers: a refusal would have come by then."""
LATE = 0.05
"""Seconds after its time that a number may still be taken."""


@dataclass(frozen=True)
class Budget:
    """What all workers share: `count` calls in every `period` of seconds, the first at `start`; without a limit at 0.

    Calls are numbered; the number decides the time, so whoever takes numbers keeps the pace of all. `taken` is the next
    one. A change of the budget gets a new `epoch`, which starts at number 0. Nobody calls before `paused`, and calls
    that were made nevertheless say nothing new. `changed` is when the last refusal was reported, `refused` when the
    refused call was sent. `clean` says that nothing was sent in the second before the start, `fits` how many were then
    accepted at the last refusal. `probing` says that nothing at all is accepted and single calls ask whether that is
    over; then `before` comes back. After some `lowerings` from `top` in a row the refusals do not follow the rate, and
    until `erratic` they only make a pause. All times are in seconds since 1970.
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
    probing: bool = False
    lowerings: int = 0
    top: int = 0
    fits: int = 0
    erratic: float = 0.0
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
    Later it says only that the budget is too large; after a long peace not even that: a call came early or late, and if
    it is the rate after all, the next refusal tells by its number. When nothing is accepted, single calls ask whether
    that is over; when one lower rate after the other is refused, the rate is not why, and it goes back to where it was.
    """
    peace = number is not None and number >= max(PEACE, 5 * budget.count)
    lowerings = 1 if peace else budget.lowerings + (not budget.probing)
    top = budget.top if lowerings > 1 else budget.count
    count, period, before, probing = budget.count, budget.period, budget.count, False
    fits = number if budget.clean and number is not None and number < count else 0
    raises, erratic, hold = 0, budget.erratic, HOLD
    if fits >= 3 and fits == budget.fits:  # the same number twice is no accident
        erratic = 0.0
    if budget.probing or number == 0:
        probing, before = True, budget.before if budget.probing else count
        count, period = 1, min(2 * period, LONGEST_PERIOD) if budget.probing else FRAME
    elif now < erratic:
        raises, hold = budget.raises, RAISE_EVERY
    elif lowerings > LOWERINGS:
        count, period, lowerings = max(top, count), FRAME, 0
        erratic, hold = now + ERRATIC, RAISE_EVERY
    else:
        if fits:
            count = fits
        elif peace:
            pass
        elif count == 1:
            period = min(2 * period, LONGEST_PERIOD)
        else:
            count = max(1, min(count - 1, round(0.9 * count)))
        if 0 < budget.raises <= 2:
            hold = min(2 * budget.hold, LONGEST_HOLD)
    pause = period if retry_after is None else retry_after
    start = now + pause
    return Budget(
        epoch=budget.epoch + 1,
        count=count,
        period=period,
        start=start,
        changed=now,
        refused=sent,
        paused=max(start, budget.paused),
        clean=pause >= 1,
        before=before,
        probing=probing,
        lowerings=lowerings,
        top=top,
        fits=fits,
        erratic=erratic,
        raises=raises,
        raise_at=min(budget.raise_at, start + hold) if now < min(erratic, budget.erratic) else start + hold,
        hold=max(hold, HOLD),
    )


def raised(budget: Budget, now: float) -> Budget | None:
    """The budget a step up, from the next frame that nobody has calls in; None while it is too early or not needed."""
    if not budget.limited or budget.probing or now < budget.raise_at or budget.taken <= budget.number_at(now):
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
        lowerings=0,
        raises=budget.raises + 1,
        raise_at=start + RAISE_EVERY,
    )


def restored(budget: Budget, now: float) -> Budget:
    """The budget as it was before a refusal that was not for the rate, or is over: later calls were accepted."""
    return replace(
        budget,
        epoch=budget.epoch + 1,
        count=budget.before,
        period=FRAME,
        start=max(budget.start, now),
        taken=0,
        clean=budget.probing,
        probing=False,
        before=0,
    )


@dataclass
class Ramp:
    """How many calls one worker has in flight while nothing limits it: few at first, more with every answer."""

    limit: int
    window: float = FIRST
    grown: float = 0.0

    def waited(self, now: float) -> None:
        """Slow models answer late, but refuse at once."""
        if now - self.grown >= PATIENCE:
            self.window = min(float(self.limit), self.window * 2) if self.grown else self.window
            self.grown = now

    def answered(self) -> None:
        self.window = min(float(self.limit), self.window + GROWTH)

    def stumbled(self) -> None:
        self.window = max(1.0, self.window / 2)
        self.grown = 0.0

    @property
    def allowed(self) -> int:
        return max(1, min(self.limit, math.floor(self.window + 1e-6)))
