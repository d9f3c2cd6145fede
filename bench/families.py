"""What a page of the other families' lists costs, and a create: app issues, triage issues, issues and traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from unittest.mock import patch

from bench.store import Store
from bench.world import DAY, NOW, ORG, SPAN, empty, played

SIZES = (1_000, 100_000)
LIMIT = 20
DEEP = 10_000
FAMILIES = ("app_issues", "triage", "issues", "traces")
TITLES = {
    "app_issues": "GET /api/v1/app/issue",
    "triage": "GET /v1/triage/issues",
    "issues": "GET /api/v2/issues",
    "traces": "GET /api/traces",
}
AGENTS = tuple(f"agent_{number}" for number in range(10))
WORDS = [
    "refund",
    "policy",
    "outdated",
    "answer",
    "caller",
    "waited",
    "silence",
    "transfer",
    "promised",
    "verification",
    "skipped",
    "price",
    "wrong",
    "booking",
    "hours",
    "holiday",
    "delivery",
    "address",
    "spelled",
    "name",
    "order",
    "number",
    "repeated",
    "tone",
    "curt",
    "language",
    "mixed",
    "link",
    "broken",
]


@dataclass
class Family:
    """How rows of one list are made, asked for and counted. `pages` gives (what, query, offset) to ask."""

    make: Callable[[random.Random, int, int], None]
    page: Callable[[Any], int]
    pages: Callable[[], Iterator[tuple[str, Any, int]]]
    seal: Callable[[], Any] = lambda: None


@dataclass
class _Texts:
    chance: random.Random = field(default_factory=lambda: random.Random(3))

    def title(self) -> str:
        return " ".join(self.chance.choice(WORDS) for _ in range(6)).capitalize()

    def description(self) -> str:
        return " ".join(self.chance.choice(WORDS) for _ in range(12)).capitalize() + "."


TEXTS = _Texts()


def measure(name: str) -> dict[str, Any]:
    """Every kind of page at both sizes, and what one create costs."""
    found: list[dict[str, Any]] = []
    create = 0.0
    for size in SIZES:
        store = empty()
        with played(store):
            family = _family(name)
            chance = random.Random(7)
            for index in range(size):
                at = NOW - SPAN + int(SPAN * (index + chance.random()) / size)
                family.make(chance, index, at)
            family.seal()
            with store.metered() as meter:
                family.make(chance, size + 1, NOW)
            create = meter.writes
            found += [_measured(store, name, size, family, *asked) for asked in family.pages()]
    return {"family": name, "pages": found, "create": create}


def _measured(store: Store, name: str, size: int, family: Family, what: str, query: Any, offset: int) -> dict[str, Any]:
    with store.metered() as meter:
        returned = family.page(query)
    return {
        "family": name,
        "stored": size,
        "what": what,
        "offset": offset,
        "returned": returned,
        "requests": len(meter.requests),
        "read": meter.read,
        "units": meter.reads,
    }


def _family(name: str) -> Family:
    made: Family = {"app_issues": _app_issues, "triage": _triage, "issues": _issues, "traces": _traces}[name]()
    return made


def _combined(names: dict[str, tuple[Any, ...]], fixed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every choice of the filters, each left out or set to one of its values."""
    for values in product(*((None, *known) for known in names.values())):
        yield {**fixed, **{one: value for one, value in zip(names, values, strict=True) if value is not None}}


def _said(given: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in given.items()) or "no filter"


def _app_issues() -> Family:
    from fixloop.app_issues import STATES, TYPES, AppIssueIn, AppIssueQuery, made
    from fixloop.identity import User
    from fixloop.storage import app_issues as stored

    stored.lists._known.clear()
    users = [User(id=number, created_at=0) for number in range(1, 9)]

    def make(chance: random.Random, index: int, at: int) -> None:
        body = {"description": TEXTS.description(), "resource_type": "Thread", "type": chance.choice(TYPES)}
        given = AppIssueIn.model_validate(body)
        number, at = stored.number(ORG, at)
        issue = made(ORG, given, chance.choice(users), number, at, index)
        stored.add(ORG, issue.model_copy(update={"state": chance.choice(STATES)}))

    def pages() -> Iterator[tuple[str, Any, int]]:
        dates = {"start_date": (str(NOW - 40 * DAY),), "created_by": ("1",)}
        for given in _combined({"type": TYPES[:2], "states": STATES[:2], **dates}, {"page_size": str(LIMIT)}):
            for page in (1, DEEP // LIMIT // 10):
                query = AppIssueQuery.model_validate({**given, "page": str(page)})
                yield _said(given), query, (page - 1) * LIMIT

    return Family(make, lambda query: len(stored.page(ORG, query).issues), pages, lambda: _sealed(stored.lists))


def _triage() -> Family:
    from fixloop.identity import User
    from fixloop.storage.triage import issues as stored
    from fixloop.storage.triage import lists, rows
    from fixloop.triage.activity import person
    from fixloop.triage.issues import SEVERITIES, STATUSES, IssueIn
    from fixloop.triage.queries import IssueQuery

    known = getattr(rows, "_known", None)
    if known is not None:
        known.clear()
    actor = person(User(id=1, created_at=0))

    def make(chance: random.Random, index: int, at: int) -> None:
        rare = " zephyr" if index % 1000 == 0 else ""
        given = IssueIn(
            title=TEXTS.title() + rare,
            description=TEXTS.description(),
            severity=chance.choice(SEVERITIES),
            status=chance.choice(STATUSES),
            category=chance.choice(("Routing", "Policy", "Tone")),
        )
        stored.add(ORG, given, actor, at)

    def pages() -> Iterator[tuple[str, Any, int]]:
        filters = {"status": (["todo"],), "severity": (["critical"],), "category": (["Policy"],)}
        for sort, order in product(("last_activity_at", "created_at", "severity", "status"), ("desc", "asc")):
            for given in _combined(filters, {"sort": sort, "order": order}):
                yield _said(given), IssueQuery.model_validate({**given, "limit": LIMIT}), 0
        yield "search=zephyr", IssueQuery.model_validate({"search": "zephyr", "limit": LIMIT}), 0
        yield "date_range=30d", IssueQuery.model_validate({"date_range": "30d", "limit": LIMIT}), 0

    return Family(make, lambda query: len(lists.page(ORG, query, NOW)[0]), pages)


def _issues() -> Family:
    from fixloop.issues import SEVERITIES, STATUSES, IssueIn, IssueQuery
    from fixloop.storage import issues as stored

    stored.lists._known.clear()

    def make(chance: random.Random, index: int, at: int) -> None:
        given = IssueIn(
            title=TEXTS.title(),
            description=TEXTS.description(),
            agentId=chance.choice(AGENTS),
            severity=chance.choice(SEVERITIES),
        )
        n, at = stored.number(ORG, at)
        issue = stored.made(f"iss_{index:012d}", n, at, given)
        stored.add(ORG, issue.model_copy(update={"status": chance.choice(STATUSES)}), [])

    def pages() -> Iterator[tuple[str, Any, int]]:
        filters = {"agentId": (AGENTS[0],), "status": ("open",), "severity": ("high",)}
        for sort in ("createdAt", "severity", "traceCount"):
            for given in _combined(filters, {"sortBy": sort}):
                deep = 1 if sort == "traceCount" else DEEP // LIMIT // 50  # what is walked is said so in the docs
                for page in dict.fromkeys((1, deep)):
                    query = IssueQuery.model_validate({**given, "page": str(page), "limit": str(LIMIT)})
                    yield _said(given), query, (page - 1) * LIMIT

    return Family(make, lambda query: len(stored.page(ORG, query)[0]), pages, lambda: _sealed(stored.lists))


def _traces() -> Family:
    from fixloop.storage import blobs
    from fixloop.storage import traces as stored
    from fixloop.storage.lists import ORG as WHOLE
    from fixloop.storage.lists import Filter
    from fixloop.traces import Trace

    stored.lists._known.clear()

    def make(chance: random.Random, index: int, at: int) -> None:
        trace = Trace(
            id=f"tr_{index:012d}",
            agent_id=chance.choice(AGENTS),
            system_prompt="Answer from the knowledge base.",
            user_message=TEXTS.title(),
            recorded_response=TEXTS.description(),
            outcome=chance.choice(("success", "failure", None)),
            created_at=at,
        )
        with patch.object(blobs, "store", lambda *_: "body#880d492bdb632dd94c195db05e4c4e7b"):  # lists read no bodies
            stored.add(ORG, trace, at)

    def pages() -> Iterator[tuple[str, Any, int]]:
        for agent, leaf, since in product((None, AGENTS[0]), (None, "1"), (None, NOW - 40 * DAY)):
            said = {"agentId": agent, "outcome": leaf and "failure", "startDate": since and _iso(since)}
            wanted = Filter(
                WHOLE if agent is None else f"agent#{agent}",
                lambda code, leaf=leaf: leaf is None or code == leaf,
                since=since,
            )
            for offset in (0, 900):
                shown = {name: value for name, value in said.items() if value}
                yield _said(shown), (wanted, offset), offset

    return Family(
        make, lambda asked: len(stored.page(ORG, asked[0], asked[1], LIMIT)[0]), pages, lambda: _sealed(stored.lists)
    )


def _sealed(lists: Any) -> None:
    while lists.seal(ORG, NOW):
        pass


def _iso(at: int) -> str:
    from fixloop.times import iso_s

    return iso_s(at)
