"""Workers with many threads that call a capped model in simulated time: one thread runs at a time, in a fixed order."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fixloop.storage.paces import Pace

START = 1_700_000_000.0


class World:
    """A clock and the threads that live by it. Time passes only while all of them sleep."""

    def __init__(self, start: float = START) -> None:
        self.now = start
        self._waking: list[tuple[float, int, threading.Event]] = []
        self._order = 0
        self._idle = threading.Event()
        self.mistakes: list[BaseException] = []
        self._living = 0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.wake_at(self.now + max(0.0, seconds), mine := threading.Event())
        self.yield_until(mine)

    def wake_at(self, at: float, sleeper: threading.Event) -> None:
        self._order += 1
        heapq.heappush(self._waking, (at, self._order, sleeper))

    def yield_until(self, mine: threading.Event) -> None:
        self._idle.set()
        mine.wait()

    def condition(self) -> Condition:
        return Condition(self)

    def run(self, *works: Callable[[], None]) -> float:
        """Seconds until all of `works`, each in a thread of its own, are done."""
        started = self.now
        threads = []
        for work in works:
            begin = threading.Event()
            self.wake_at(self.now, begin)
            threads.append(threading.Thread(target=self._live, args=(work, begin), daemon=True))
            self._living += 1
            threads[-1].start()
        done = self.now
        while self._living:
            assert self._waking, "all threads wait and nobody will wake them"
            at, _, sleeper = heapq.heappop(self._waking)
            if sleeper.is_set():
                continue
            self.now = max(self.now, at)
            self._idle.clear()
            before = self._living
            sleeper.set()
            self._idle.wait()
            if self._living < before:
                done = self.now
        if self.mistakes:
            raise self.mistakes[0]
        return done - started

    def _live(self, work: Callable[[], None], begin: threading.Event) -> None:
        begin.wait()
        try:
            work()
        except BaseException as mistake:
            self.mistakes.append(mistake)
        finally:
            self._living -= 1
            self._idle.set()


class Condition:
    """A threading.Condition of a simulated world. Its lock is never contended for long: holders do not sleep."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: deque[threading.Event] = deque()
        self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        assert not self._held, "a thread slept with the lock in its hand"
        self._held = True

    def release(self) -> None:
        self._held = False

    def wait(self, timeout: float) -> None:
        mine = threading.Event()
        self._waiting.append(mine)
        self._world.wake_at(self._world.now + timeout, mine)
        self.release()
        self._world.yield_until(mine)
        if mine in self._waiting:
            self._waiting.remove(mine)
        self.acquire()

    def notify(self, n: int = 1) -> None:
        for _ in range(min(n, len(self._waiting))):
            self._world.wake_at(self._world.now, self._waiting.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Unlimited:
    """A model that takes every call."""

    def accepts(self, now: float) -> bool:
        return True

    def free_in(self, now: float) -> float:
        return 0.0


@dataclass
class Fixed:
    """Counts by the second: those that begin `phase` after the full one."""

    cap: int
    phase: float = 0.0
    _window: float = -1.0
    _used: int = 0

    def accepts(self, now: float) -> bool:
        window = math.floor(now - self.phase)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= self.cap:
            return False
        self._used += 1
        return True

    def free_in(self, now: float) -> float:
        return math.floor(now - self.phase) + 1 + self.phase - now


@dataclass
class Sliding:
    """Counts the calls of the last second."""

    cap: int
    _taken: deque[float] = field(default_factory=deque)

    def accepts(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - 1 + 1e-6:
            self._taken.popleft()
        if len(self._taken) >= self.cap:
            return False
        self._taken.append(now)
        return True

    def free_in(self, now: float) -> float:
        return self._taken[0] + 1 - now


@dataclass
class Bucket:
    """Fills at `cap` tokens a second up to `capacity`."""

    cap: int
    capacity: float = 20.0
    _tokens: float | None = None
    _at: float = 0.0

    def accepts(self, now: float) -> bool:
        tokens = self.capacity if self._tokens is None else self._tokens + (now - self._at) * self.cap
        self._tokens, self._at = min(self.capacity, tokens), now
        if self._tokens < 1 - 1e-6:
            return False
        self._tokens -= 1
        return True

    def free_in(self, now: float) -> float:
        return (1 - (self._tokens or 0.0)) / self.cap


@dataclass
class Server:
    """A model's endpoint: what it takes, how long it needs, and everything that it was asked."""

    world: World
    model: Any
    latency: Callable[[], float] = lambda: 0.1
    way: Callable[[], float] | None = None  # seconds until a call has arrived
    says_when: bool = False
    retry_after: float | None = None
    calls: list[tuple[float, str, bool]] = field(default_factory=list)

    def call(self, pace: Pace, worker: str = "") -> bool:
        """One call and what the worker says of it; whether it was answered."""
        if self.way:
            self.world.sleep(self.way())
        accepted = self.model.accepts(self.world.now)
        self.calls.append((self.world.now - START, worker, accepted))
        after = self.retry_after
        if not accepted and self.says_when:
            after = math.ceil(self.model.free_in(self.world.now) - 1e-9)
        self.world.sleep(self.latency())
        if accepted:
            pace.succeeded()
        else:
            pace.throttled(after)
        return accepted

    @property
    def refused(self) -> list[float]:
        return [at for at, _, accepted in self.calls if not accepted]

    def accepted_between(self, since: float, until: float) -> int:
        return sum(accepted and since <= at < until for at, _, accepted in self.calls)


def worker(
    server: Server, pace: Pace, work: list[int], name: str = "", deadline: float = math.inf
) -> Callable[[], None]:
    """What each thread of a worker does: calls until the work is done or the time is up."""

    def run() -> None:
        while work:
            work.pop()
            while pace.take(deadline):
                if server.call(pace, name):
                    break
            else:
                return

    return run
