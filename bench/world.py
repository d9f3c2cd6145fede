"""Organisations with any number of calls or reports, made by the product's own functions, skewed as real ones are."""

from __future__ import annotations

import os
import random
import sys
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.store import Store

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cloud import Cloud  # noqa: E402 - the template's reader lives with the tests

REGION = "us-east-1"
NOW = 1_790_000_000_000
SPAN = 90 * 24 * 3600 * 1000
DAY = 24 * 3600 * 1000
ORG = "org_0123456789abcdef"
AGENTS = tuple(range(11, 21))
LINES = tuple(f"+1555000{n:04d}" for n in range(5))


class Choice:
    """Weighted draws."""

    def __init__(self, weights: dict[Any, float]) -> None:
        self.values = list(weights)
        self.sums = list(accumulate(weights.values()))

    def __call__(self, chance: random.Random) -> Any:
        return self.values[bisect(self.sums, chance.random() * self.sums[-1])]


AGENT = Choice({agent: 1 / rank for rank, agent in enumerate(AGENTS, 1)})
CALLER = Choice({f"+1555{n:07d}": 1 / rank**0.7 for rank, n in enumerate(range(100_000, 102_000), 1)})
SEVERITY = Choice({"info": 60, "warning": 30, "critical": 10})
SOURCE = Choice({"system": 75, "user": 25})
STATUS = Choice({"open": 40, "acknowledged": 20, "resolved": 40})
DIRECTION = Choice({"inbound": 62, "outbound": 26, "web": 5, "widget": 4, "mic": 1, "test": 2})
CALL_STATUS = Choice({"completed": 92, "failed": 6, "in_progress": 2})

SYSTEM = (
    {
        "title": "Long silence before the agent answered",
        "ref": "long_silence",
        "description": "The caller waited 6.0 s for an answer; more than 4.0 s is too long.",
        "evidence": 'after "How long do I have to return my lamp?"',
    },
    {
        "title": "Answer contradicts the prompt",
        "ref": "unsupported_answer:60 days",
        "description": 'The agent said "60 days"; the prompt says "Refunds are possible within 30 days of purchase."',
        "evidence": "You can get a refund within 60 days of purchase.",
    },
    {
        "title": "The caller had to repeat themselves",
        "ref": "caller_repeated",
        "description": "The caller said nearly the same thing 3 times before it was taken up.",
        "evidence": 'I said my order number is 4417 · "order 4417, as I said"',
    },
)
USER = (
    "Agent gave the wrong opening hours",
    "Spelled the customer's name wrong in the booking",
    "Did not offer the callback although it was asked for twice",
)


def environment() -> dict[str, str]:
    """What the functions find in Lambda's environment, from the template."""
    return {
        **Cloud().environment(),
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "POWERTOOLS_METRICS_DISABLED": "true",
        "POWERTOOLS_SERVICE_NAME": "bench",
    }


def empty() -> Store:
    """The template's tables with nothing in them."""
    cloud = Cloud()
    return Store(
        {
            name: cloud.resolve(resource["Properties"])
            for name, resource in cloud.template["Resources"].items()
            if resource["Type"] == "AWS::DynamoDB::Table"
        }
    )


@contextmanager
def played(store: Store) -> Iterator[None]:
    """The product's storage runs on `store`."""
    from fixloop.aws import clients_from
    from fixloop.settings import settings

    os.environ.update(environment())
    settings.cache_clear()
    with clients_from(lambda _: store):
        yield


@dataclass
class World:
    """One organisation's list. `placed` has (n, t, leaf, agent) of every row, newest last."""

    family: str
    size: int
    store: Store = field(default_factory=empty)
    placed: list[tuple[int, int, str, int]] = field(default_factory=list)
    sealing_writes: float = 0.0
    sealing_reads: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def build(self) -> World:
        self.lists._known.clear()  # what another world knew
        self.grow(self.size)
        self.seal()
        return self

    def grow(self, count: int) -> None:
        """`count` more rows; the last comes an hour before NOW."""
        from fixloop.storage import blobs

        add = self._report if self.family == "issue_reports" else self._call
        first = len(self.placed)
        with patch.object(blobs, "store", lambda *_: "body#880d492bdb632dd94c195db05e4c4e7b"):  # lists read no bodies
            for index in range(count):
                share = (index + self.chance.random()) / count
                add(NOW - SPAN - 3_600_000 + int(SPAN * share) if not first else NOW - 3_600_000 + index)

    @property
    def lists(self) -> Any:
        from fixloop.storage import calls, issue_reports

        return calls.lists if self.family == "calls" else issue_reports.lists

    def seal(self) -> None:
        with self.store.metered() as meter:
            while self.lists.seal(ORG, NOW):
                pass
        self.sealing_writes += meter.writes
        self.sealing_reads += meter.reads

    def matching(self, agent: int | None, since: int | None, until: int | None) -> Counter[str]:
        """How many rows there are in each leaf, by looking at all of them."""
        return Counter(
            leaf
            for _, t, leaf, its in self.placed
            if (agent is None or its == agent) and (since is None or t >= since) and (until is None or t <= until)
        )

    def _report(self, at: int) -> None:
        from fixloop.storage import calls, dynamo, issue_reports
        from fixloop.times import iso_ms

        agent = AGENT(self.chance)
        record = {"call_id": self.chance.randrange(1, 10**9), "agent_id": agent, "start_time": iso_ms(at - 300_000)}
        call = calls.Row(ORG, record, None, "", None, frozenset(), frozenset())  # type: ignore[arg-type]
        (report,) = issue_reports.prepare(call, [said(self.chance)], 7, at)
        report = report.model_copy(update={"status": STATUS(self.chance)})
        issue_reports.lists.announce(ORG, report.leaf)
        dynamo.put(issue_reports._table(), issue_reports._item(ORG, report))
        self.placed.append((report.id, report.created_at, report.leaf, agent))

    def _call(self, at: int) -> None:
        from fixloop.calls import CallIn, received
        from fixloop.storage import calls

        given = a_call(self.chance, at)
        call = received(len(self.placed) + 1, CallIn.model_validate(given), at)
        row = calls.insert(ORG, call, at)
        self.placed.append((row.place.n, call.start, call.leaf, given["agent_id"]))


def said(chance: random.Random) -> Any:
    """What a new report says."""
    from fixloop.issue_reports import ReportIn, detected

    severity = SEVERITY(chance)
    if SOURCE(chance) == "system":
        return detected({**chance.choice(SYSTEM), "severity": severity, "timestamp_seconds": chance.randrange(600)})
    return ReportIn(title=chance.choice(USER), description="Heard it at the end of the call.", severity=severity)


def a_call(chance: random.Random, at: int) -> dict[str, Any]:
    """The body of a PUT for a call that has just ended at `at`, without a transcript."""
    from fixloop.times import iso_ms

    direction = DIRECTION(chance)
    seconds = min(900, 15 + int(chance.lognormvariate(4.6, 0.8)))
    caller, line = CALLER(chance), chance.choice(LINES)
    phone = direction in ("inbound", "outbound")
    return {
        "agent_id": AGENT(chance),
        "direction": direction,
        "from_number": (caller if direction == "inbound" else line) if phone else None,
        "to_number": (line if direction == "inbound" else caller) if phone else None,
        "start_time": iso_ms(at - seconds * 1000),
        "duration_seconds": seconds,
        "status": CALL_STATUS(chance),
        "end_reason": chance.choice(("caller_hangup", "agent_end", "transfer")),
        "recording_url": f"https://recordings.example.com/{chance.getrandbits(96):024x}.wav",
        "is_test_call": direction == "test" or chance.random() < 0.01,
        "product": "voice",
        "voice": "nova",
        "billable_minutes": -(-seconds // 60),
        "billing_total_cents": -(-seconds // 60) * 9,
    }
