"""What a page of each list costs, for every combination of its filters, at two sizes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from bench.store import Meter
from bench.world import AGENTS, DAY, LINES, NOW, ORG, SPAN, World, played

SIZES = (1_000, 100_000)
DEEP = 10_000
LIMIT = 50
SINCE, UNTIL = NOW - SPAN + 20 * DAY, NOW - 30 * DAY
DATES: dict[str, tuple[int | None, int | None]] = {
    "-": (None, None),
    "start": (SINCE, None),
    "end": (None, UNTIL),
    "both": (SINCE, UNTIL),
}
ENUMS: dict[str, dict[str, tuple[Any, ...]]] = {
    "issue_reports": {
        "severity": ("info", "warning", "critical"),
        "status": ("open", "acknowledged", "resolved"),
        "source": ("user", "system"),
    },
    "calls": {
        "direction": ("inbound", "outbound", "mic", "widget", "test", "web"),
        "status": ("in_progress", "completed", "failed"),
        "exclude_test_calls": ("true",),
    },
}
TITLES = {"issue_reports": "GET /v1/issue-reports", "calls": "GET /v1/calls"}


@dataclass(frozen=True)
class Measure:
    """One page. `read` counts evaluated and got items, those of counters too."""

    family: str
    stored: int
    unsealed: int
    filters: dict[str, Any]
    dates: str
    matching: int
    offset: int
    returned: int
    requests: int
    read: int
    units: float

    @property
    def shape(self) -> tuple[str, ...]:
        """Which filters are set, whatever to."""
        return (*sorted(self.filters), self.dates)

    @property
    def first(self) -> bool:
        return self.offset == 0

    def json(self) -> dict[str, Any]:
        return asdict(self)


def measure(family: str) -> dict[str, Any]:
    """Every combination at every size, the sealing's price, and the walks that number filters are."""
    found: list[Measure] = []
    walks: list[Measure] = []
    sealing: dict[str, float] = {}
    for size in SIZES:
        world = World(family, size)
        with played(world.store):
            world.build()
            sealing = {"writes": world.sealing_writes / size, "reads": world.sealing_reads / size}
            found += _all(world)
            if family == "calls":
                walks += _walks(world)
    with played(world.store):
        worst = _fullest(world)
    return {
        "family": family,
        "pages": [one.json() for one in found],
        "fullest": [one.json() for one in worst],
        "walks": [one.json() for one in walks],
        "sealing": sealing,
    }


def _all(world: World, share: float = 1.0) -> list[Measure]:
    asked, chance = [], random.Random(1)
    for dates, agent in product(DATES, (None, AGENTS[0], AGENTS[-1])):
        since, until = DATES[dates]
        counts = world.matching(agent, since, until)
        for filters in _filters(world.family):
            if share < 1 and chance.random() > share:
                continue
            if agent is not None:
                filters = {**filters, "agent_id": agent}
            query = _query(world.family, filters, dates, 0)
            matching = sum(count for leaf, count in counts.items() if query.wants(leaf))
            deep = min(DEEP, max(0, matching - LIMIT))
            for offset in dict.fromkeys((0, deep)):
                asked.append(_one(world, filters, dates, matching, offset))
    return asked


def _filters(family: str) -> Iterator[dict[str, Any]]:
    names = ENUMS[family]
    for values in product(*((None, *known) for known in names.values())):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _query(family: str, filters: dict[str, Any], dates: str, offset: int) -> Any:
    from fixloop.calls import CallQuery
    from fixloop.issue_reports import ReportQuery
    from fixloop.times import iso_ms

    given = {name: str(value) for name, value in filters.items()} | {"offset": str(offset), "limit": str(LIMIT)}
    for name, at in zip(("start_date", "end_date"), DATES[dates], strict=True):
        if at is not None:
            given[name] = iso_ms(at)
    return (CallQuery if family == "calls" else ReportQuery).model_validate(given)


def _one(world: World, filters: dict[str, Any], dates: str, matching: int, offset: int) -> Measure:
    query = _query(world.family, filters, dates, offset)
    with world.store.metered() as meter:
        rows = _page(world.family)(query)
    expected = max(0, min(LIMIT, matching - offset))
    if len(rows) != expected:
        raise AssertionError(f"{world.family} {filters} {dates} {offset}: {len(rows)} rows instead of {expected}")
    return _measured(world, filters, dates, matching, offset, len(rows), meter)


def _page(family: str) -> Callable[[Any], list[Any]]:
    from fixloop.storage import calls, issue_reports

    if family == "calls":
        return lambda query: calls.page(ORG, query)[0]
    return lambda query: issue_reports.page(ORG, query)


def _measured(
    world: World, filters: dict[str, Any], dates: str, matching: int, offset: int, returned: int, meter: Meter
) -> Measure:
    return Measure(
        family=world.family,
        stored=len(world.placed),
        unsealed=_unsealed(world),
        filters=filters,
        dates=dates,
        matching=matching,
        offset=offset,
        returned=returned,
        requests=len(meter.requests),
        read=meter.read,
        units=meter.reads,
    )


def _unsealed(world: World) -> int:
    lists = world.lists
    return len(world.placed) - lists._mark(ORG).sealed * lists.chunk


def _fullest(world: World) -> list[Measure]:
    """A sample of the pages at the most inconvenient moment, when a full chunk and a tick wait to be sealed."""
    from fixloop.storage import calls

    world.grow(world.lists.chunk + calls.TICK - 1 - _unsealed(world))
    return _all(world, share=0.25)


def _walks(world: World) -> list[Measure]:
    """Filters on numbers: one that called often, one that called seldom, and one of the organisation's own lines."""
    numbers = {"a customer who calls most": "+15550100000", "a customer who calls least": "+15550101990"}
    measured = []
    for who, number in (*numbers.items(), ("an own line", LINES[0])):
        for name in ("from_number", "to_number", "phone_number"):
            from fixloop.storage import calls

            query = _query("calls", {name: number}, "-", 0)
            with world.store.metered() as meter:
                rows, total = calls.page(ORG, query)
            measured.append(_measured(world, {name: who}, "-", total, 0, len(rows), meter))
    return measured
