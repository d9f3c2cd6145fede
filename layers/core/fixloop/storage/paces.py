"""The rate budget that all workers of an organisation share per model, and the pace one worker keeps by it."""

from __future__ import annotations

import heapq
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from fixloop import observe, pacing
from fixloop.pacing import Budget, Ramp
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.dynamo import ConditionFailed, Contended, Item

LEASE = 0.25
"""Seconds: how long a worker goes by what it knows of the budget, and how far ahead it takes numbers."""
KEPT = 600
"""Seconds that a budget is remembered after a worker came or it was changed."""
TOGETHER = 10.0
"""Seconds within which workers that start share the careful start."""
ALONE = 5.0
"""Seconds that a worker keeps its own pace after the table could not be reached."""
AHEAD = 0.1
"""Seconds before the end of a pause that the first numbers after it are taken."""
_WATCHED = 4096
_PATIENCE = 1.0
_NAMES = tuple(field.name for field in fields(Budget))
_UNREACHABLE = (BotoCoreError, ClientError, Contended)

T = TypeVar("T")


class Changed(Exception):
    """Another worker changed the budget first; `budget` is what it is now."""

    def __init__(self, item: Item | None) -> None:
        super().__init__()
        self.budget = _budget(item)


@dataclass(frozen=True)
class Shared:
    """A model's budget in the platform table. Any call may raise botocore's errors and Contended."""

    org: str
    model: str

    @property
    def _key(self) -> Item:
        return {"pk": f"{self.org}#pace#{self.model}", "sk": "pace"}

    def join(self, now: float) -> tuple[Budget, int]:
        """The budget, and which of the workers that start together this one is, from 1."""
        kept = {":expires": int(now) + KEPT, ":now": now, ":recent": now - TOGETHER, ":one": 1}
        for _ in range(5):
            for counted, when in (
                ("ADD #joined :one", "#joined_at > :recent"),
                (", #joined = :one, #joined_at = :now", "#joined_at <= :recent"),
            ):
                with suppress(Changed):
                    item = self._update(f"SET #expires = :expires {counted}", f"{when} AND #expires > :now", kept)
                    return _budget(item), item["joined"]
            with suppress(ConditionFailed):
                item = {**self._key, **asdict(Budget()), "joined": 1, "joined_at": now, "expires": int(now) + KEPT}
                unless = "attribute_not_exists(pk) OR expires <= :now"
                dynamo.put(settings().platform_table, item, condition=unless, values={":now": now})
                return Budget(), 1
        raise Contended("the pace could not be joined")

    def read(self) -> tuple[Budget, int]:
        """The budget, and how many workers started together last."""
        item = dynamo.get(settings().platform_table, self._key)
        return _budget(item), item.get("joined", 1) if item else 1

    def take(self, budget: Budget, wanted: int, now: float) -> Budget:
        """The budget after taking `wanted` numbers, the last of which is `taken - 1`. Raises Changed."""
        reached = budget.number_at(now)
        values = {
            ":epoch": budget.epoch,
            ":expires": int(now) + KEPT,
            ":wanted": wanted,
            ":reached": reached,
            ":next": reached + wanted,
        }
        for taken, condition in (
            ("#taken + :wanted", "#taken >= :reached"),
            (":next", "#taken < :reached"),
            ("#taken + :wanted", "#taken >= :reached"),
        ):
            try:
                expression = f"SET #expires = :expires, #taken = {taken}"
                return _budget(self._update(expression, f"#epoch = :epoch AND {condition}", values))
            except Changed as changed:
                if changed.budget.epoch != budget.epoch:
                    raise
        raise Contended("no numbers could be taken")

    def change(self, seen: Budget, new: Budget, now: float) -> None:
        """Puts `new` in the place of the budget that was `seen`. Raises Changed."""
        values = {f":{name}": value for name, value in asdict(new).items()}
        values |= {":expires": int(now) + KEPT, ":seen": seen.epoch}
        condition = "#epoch = :seen"
        if new.raises > seen.raises:  # numbers taken meanwhile would overlap with the new ones
            condition += " AND #taken = :booked"
            values[":booked"] = seen.taken
        if not seen.epoch:
            condition = f"({condition} OR attribute_not_exists(pk))"
        self._update("SET #expires = :expires, " + ", ".join(f"#{n} = :{n}" for n in _NAMES), condition, values)

    def contribute(self, budget: Budget, accepted: int) -> Budget:
        """The budget with what another worker had accepted before the first refusal. Raises Changed when it is past."""
        values = {":accepted": accepted, ":epoch": budget.epoch}
        return _budget(
            self._update("ADD #count :accepted", "#epoch = :epoch AND #taken = :none", {**values, ":none": 0})
        )

    def postpone(self, budget: Budget, until: float) -> Budget:
        """The budget with a start not before `until`. Raises Changed."""
        values = {":until": until, ":epoch": budget.epoch}
        condition = "#epoch = :epoch AND #paused < :until"
        return _budget(self._update("SET #start = :until, #paused = :until", condition, values))

    def _update(self, expression: str, condition: str, values: dict[str, Any]) -> Item:
        said = f"{expression} {condition}"
        try:
            return dynamo.update(
                settings().platform_table,
                self._key,
                expression,
                condition=condition,
                names={found: found[1:] for found in re.findall(r"#\w+", said)},
                values={found: values[found] for found in re.findall(r":\w+", said)},
            )
        except ConditionFailed as refused:
            raise Changed(refused.items[0]) from None


def _budget(item: Item | None) -> Budget:
    return Budget(**{name: item[name] for name in _NAMES}) if item else Budget()


@dataclass
class _Call:
    """A call that was let through: its order in this worker, when it was sent, and its number in the budget."""

    order: int
    sent: float
    epoch: int
    number: int | None


@dataclass(frozen=True, order=True)
class _Number:
    """A number that this worker took: when its call may go out, and in which epoch it is which."""

    at: float
    epoch: int
    own: int


class Pace:
    """When this worker may call a model: as fast as it answers, and after a refusal (429) by the shared budget.

    Each thread calls `take`, makes its call, and says what came of it with one of the other three. Deadlines are those
    of `clock`; what workers share is in `wall` time. When the platform table does not answer, the worker goes on by
    what it knows.
    """

    def __init__(
        self,
        org: str,
        model: str,
        concurrency: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        condition: Callable[[], Any] = threading.Condition,
    ) -> None:
        self._clock, self._wall, self._sleep = clock, wall, sleep
        self._shared = Shared(org, model)
        self._free = condition()
        self._mine = threading.local()
        self._concurrency = concurrency
        self._ramp = Ramp(concurrency)
        self._budget = Budget()
        self._workers = 1
        self._heard: float | None = None  # when the budget was last asked for
        self._alone_until = 0.0
        self._reading = False
        self._changing = 0
        self._numbers: list[_Number] = []
        self._booked = 0.0  # the time of the last number taken
        self._waiting = self._flying = self._order = 0
        self._sent: dict[int, float] = {}  # the last calls that were not refused: order and time
        self._answered: set[int] = set()  # those of them that are known to be accepted
        self._refusal: _Call | None = None
        self._counted: set[int] = set()  # the calls that were accepted before the first refusal, as far as is known
        self._counted_from = 0.0  # when the first of them was sent
        self._owed = 0  # what is to be added to the count once the table has it
        self._later_accepted = self._later_refused = 0
        self._first_accepted, self._mixed = 0, False

    def take(self, deadline: float) -> bool:
        """Waits until this thread may make one call; False when that is not before `deadline`."""
        with self._free:
            self._over()
            self._waiting += 1
            number: _Number | None = None
            try:
                while True:
                    now, left = self._wall(), deadline - self._clock()
                    number = self._valid(number, now)
                    at = max(self._budget.paused, number.at if number else 0.0)
                    if left <= 0 or at - now >= left:
                        self._give_back(number)
                        return False
                    if number is None and self._budget.limited:
                        at -= AHEAD
                    if self._stale(now, 2 * LEASE if number else LEASE) and not self._reading:
                        self._hear(now)
                    elif self._heard is None:
                        self._free.wait(min(left, _PATIENCE))
                    elif at > now:
                        self._rest(at - now)
                    elif self._full(now):
                        self._give_back(number)
                        number = None
                        self._free.wait(min(left, _PATIENCE))
                    elif number or not self._budget.limited:
                        self._go(now, number)
                        return True
                    elif not (number := self._next_number(now)):
                        if self._reading or self._booked - now >= LEASE:
                            self._free.wait(min(left, _PATIENCE))
                        else:
                            self._lease(now)
            finally:
                self._waiting -= 1

    def succeeded(self) -> None:
        """The call was answered, if only by a refusal that is not for the rate."""
        with self._free:
            call = self._over()
            self._ramp.answered()
            if call is None:
                return
            self._answered.add(call.order)
            over = self._budget.probing and call.epoch == self._budget.epoch
            if self._after_refusal(call):
                self._later_accepted += 1
                self._first_accepted = min(self._first_accepted, call.order)
                self._count_in(call)
                over = over or (self._mixed and self._later_accepted > max(2, 2 * self._later_refused))
            if over:
                self._refusal = None
                self._change(self._budget, pacing.restored(self._budget, self._wall()))

    def failed(self) -> None:
        """The call failed or was not answered in time (5xx): fewer at once until it answers again."""
        with self._free:
            self._over()
            self._ramp.stumbled()

    def throttled(self, retry_after: float | None) -> None:
        """The call was refused (429); nobody calls before `retry_after` seconds from now."""
        with self._free:
            call, now = self._over(), self._wall()
            if call is None:
                return
            self._sent.pop(call.order, None)
            if self._after_refusal(call):
                self._later_refused += 1
                self._mixed = self._mixed or call.order > self._first_accepted
            for _ in range(3):
                seen = self._budget
                if call.sent < seen.paused:
                    break
                self._refusal, self._later_accepted, self._later_refused = call, 0, 0
                self._first_accepted, self._mixed = call.order + _WATCHED, False
                if seen.limited:
                    number = call.number if call.epoch == seen.epoch else None
                    new = pacing.lowered(seen, number, call.sent, now, retry_after)
                else:
                    new = pacing.limited(seen, self._accepted(call.sent, call.order), call.sent, now, retry_after)
                if self._change(seen, new):
                    break
            if call.order in self._counted:
                self._counted.remove(call.order)
                self._contribute(-1)
            if retry_after and now + retry_after > self._budget.paused:
                self._postpone(now + retry_after)

    # What follows runs with the lock held; what goes to the table gives it up meanwhile.

    def _go(self, now: float, number: _Number | None) -> None:
        self._order += 1
        self._flying += 1
        self._mine.call = _Call(self._order, now, self._budget.epoch, number.own if number else None)
        if number:
            self._mine.call.epoch = number.epoch
        self._sent[self._order] = now
        if len(self._sent) > _WATCHED:
            del self._sent[oldest := next(iter(self._sent))]
            self._answered.discard(oldest)
        self._free.notify()

    def _over(self) -> _Call | None:
        """This thread's call, which is no longer under way."""
        call: _Call | None = getattr(self._mine, "call", None)
        if call:
            self._mine.call = None
            self._flying -= 1
            self._free.notify(2)
        return call

    def _full(self, now: float) -> bool:
        """Whether as many calls are under way as may be."""
        if self._budget.limited:
            return self._flying >= self._concurrency
        if self._flying >= self._ramp.allowed:
            self._ramp.waited(now)
        return self._flying >= self._ramp.allowed

    def _rest(self, seconds: float) -> None:
        self._free.release()
        try:
            self._sleep(seconds)
        finally:
            self._free.acquire()

    def _valid(self, number: _Number | None, now: float) -> _Number | None:
        """The number with its time by the budget of now; None when it does not count any more."""
        if number and self._budget.limited and number.epoch == self._budget.epoch:
            number = replace(number, at=self._budget.slot(number.own))
        elif number and not (self._budget.raises and number.at < self._budget.start):
            return None
        return number if number and number.at > now - LEASE else None

    def _next_number(self, now: float) -> _Number | None:
        while self._numbers:
            if found := self._valid(heapq.heappop(self._numbers), now):
                return found
        return None

    def _give_back(self, number: _Number | None) -> None:
        if number:
            heapq.heappush(self._numbers, number)
            self._free.notify()

    def _after_refusal(self, call: _Call) -> bool:
        first = self._refusal
        return first is not None and call.order > first.order and call.sent < self._budget.paused

    def _accepted(self, refused: float, order: int) -> int:
        """How many calls were accepted in the second before one that was not; those under way count till they end.

        Calls overtake each other on their way: what was answered counts, also when it was sent later.
        """
        counted = {
            own: sent
            for own, sent in self._sent.items()
            if (refused - 1 < sent <= refused and own < order) or (own > order and own in self._answered)
        }
        self._counted, self._counted_from = set(counted), min(counted.values(), default=0.0)
        return len(counted)

    def _count_in(self, call: _Call) -> None:
        """Counts a call that was sent after the refused one and was there before it: no place was free again yet."""
        if call.number is None and call.order not in self._counted and call.sent < self._counted_from + 1:
            self._counted.add(call.order)
            self._contribute(1)

    def _contribute(self, accepted: int) -> None:
        if self._changing:
            self._owed += accepted
            return
        budget = self._budget
        if not budget.before and not budget.taken:
            with suppress(Changed):
                self._budget = self._ask(lambda: self._shared.contribute(budget, accepted)) or budget

    def _ask(self, question: Callable[[], T]) -> T | None:
        """What the table says. None when it cannot be reached; then this worker keeps its own pace for a while."""
        if self._wall() < self._alone_until:
            return None
        self._free.release()
        try:
            return question()
        except _UNREACHABLE as error:
            observe.logger().warning("the pace is kept alone", extra={"model": self._shared.model, "why": str(error)})
            self._alone_until = self._wall() + ALONE
            return None
        finally:
            self._free.acquire()

    def _stale(self, now: float, age: float) -> bool:
        return self._heard is None or (now - self._heard > age and now >= self._alone_until)

    def _hear(self, now: float) -> None:
        """Learns what the budget is by now."""
        first, self._reading = self._heard is None, True
        try:
            found = self._ask(lambda: self._shared.join(now) if first else self._shared.read())
        finally:
            self._reading = False
            self._heard = now
        if found and not self._changing:
            budget, self._workers = found
            if first:
                self._ramp.window = pacing.FIRST / self._workers
            if budget.changed < self._budget.changed:  # refused while the table could not be reached
                self._change(budget, replace(self._budget, epoch=budget.epoch + 1))
            else:
                self._adopt(budget)
        self._free.notify_all() if first else self._free.notify()

    def _adopt(self, budget: Budget) -> None:
        """Goes by `budget` from now on, and adds what this worker had accepted before the first refusal."""
        before, self._budget = self._budget, budget
        if budget.epoch != before.epoch:
            self._booked = self._booked if budget.raises else 0.0
            self._free.notify_all()
        if budget.limited and not (before.limited or budget.before or budget.taken):
            own = self._refusal
            accepted = self._accepted(own.sent, own.order) if own else self._accepted(budget.refused, self._order + 1)
            if accepted:
                self._contribute(accepted)

    def _change(self, seen: Budget, new: Budget) -> bool:
        """Goes by `new` at once and tells the others; False when they had changed the budget first."""
        self._budget = new
        self._booked = self._booked if new.raises else 0.0
        self._free.notify_all()
        self._changing += 1
        now = self._wall()
        overtaken: Budget | None = None
        try:
            self._ask(lambda: self._shared.change(seen, new, now))
        except Changed as changed:
            overtaken = changed.budget
        finally:
            self._changing -= 1
        owed, self._owed = self._owed, 0
        if overtaken is not None:
            self._budget = seen
            self._adopt(overtaken)
            return False
        if owed:
            self._contribute(owed)
        return True

    def _postpone(self, until: float) -> None:
        budget = self._budget
        self._budget = replace(budget, start=max(until, budget.start), paused=until)
        with suppress(Changed):
            self._ask(lambda: self._shared.postpone(budget, until))

    def _lease(self, now: float) -> None:
        """Takes the next numbers for the threads that wait, a quarter of a second's at most."""
        budget = self._budget
        if more := pacing.raised(budget, now):
            self._change(budget, more)
            return
        wanted = max(1, min(self._waiting, budget.count // (4 * self._workers)))
        self._reading = True
        try:
            after = self._ask(lambda: self._shared.take(budget, wanted, now)) or pacing.taken(budget, wanted, now)
        except Changed as changed:
            self._adopt(changed.budget)
            return
        finally:
            self._reading = False
        self._heard = now
        if self._budget.epoch == budget.epoch:
            self._budget = replace(after, start=max(after.start, self._budget.start))
        for own in range(after.taken - wanted, after.taken):
            heapq.heappush(self._numbers, _Number(after.slot(own), after.epoch, own))
        self._booked = after.slot(after.taken - 1)
        self._free.notify(wanted)
