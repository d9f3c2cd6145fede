"""Filtered lists with exact totals and any offset, at a cost that does not grow with what is stored.

Rows get dense numbers per organisation, newest highest. A *leaf* is the tuple of a row's enum filters written as a short
code; every scope (the whole organisation, one agent) has an index keyed by (scope, leaf) and sorted by number. A filter is a
set of leaves, merged while reading. What lies before an offset is counted, not read: once all rows of a *chunk* of numbers
are there, the chunk is *sealed*, that is, its rows are counted per leaf into cells; from then on whoever moves a row to
another leaf moves the counts in the same transaction. Until then the rows are their own counters, so creating one
touches no shared counter and never meets another writer. `docs/decisions/0002-lists.md` has the costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fixloop.aws import client
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item

SUPER = 32  # chunks to a super cell
TOP = 64  # supers to an item of the top level
SETTLED_MS = 60_000  # a number without a row after this long is a gap: its writer gave up long before
_ATTEMPTS = 10
_SLACK = 2
_END = 10**15
ORG = "o"


@dataclass(frozen=True)
class Place:
    """Where a row stands in its lists: number, time in ms, leaf code, and the value of each further scope it is in."""

    org: str
    n: int
    t: int
    leaf: str
    scopes: tuple[tuple[str, str], ...] = ()

    def members(self) -> list[str]:
        return [ORG, *(f"{name}#{value}" for name, value in self.scopes)]


@dataclass(frozen=True)
class Filter:
    """`scope` is ORG or `name#value`; `wanted` tells matching leaves; `since` and `until` are inclusive ms."""

    scope: str = ORG
    wanted: Callable[[str], bool] = lambda leaf: True
    since: int | None = None
    until: int | None = None

    @property
    def timed(self) -> bool:
        return self.since is not None or self.until is not None

    def covers(self, t: int) -> bool:
        return (self.since is None or t >= self.since) and (self.until is None or t <= self.until)


@dataclass(frozen=True)
class Segment:
    """A run of numbers. `count` is None where rows must be looked at to know; `parent` is the super it is, if it is one."""

    low: int
    high: int
    count: int | None
    parent: int | None = None


@dataclass
class Page:
    """`rows` as the index projects them; `total` is None unless it was asked for."""

    rows: list[Item]
    total: int | None


@dataclass
class Mark:
    """How far an organisation's rows are sealed: `sealed` chunks from the first; `leaves` that ever occurred."""

    sealed: int = 0
    rev: int = 0
    leaves: set[str] = field(default_factory=set)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=16)


class Lists:
    """One family's lists in its table.

    `indexes` maps a scope's name to the (index, hash attribute) that serves it. The instance holds no data but the
    set of leaves this process has already made known.
    """

    def __init__(self, table: Callable[[], str], *, chunk: int, indexes: dict[str, tuple[str, str]]) -> None:
        self._table = table
        self.chunk = chunk
        self._indexes = indexes
        self._known: set[tuple[str, str]] = set()

    # Writing

    def allocate(self, org: str, now: int, count: int = 1) -> tuple[int, int]:
        """The first of `count` new numbers and a time that never runs behind an earlier number's."""
        key = {"pk": f"{org}#list", "sk": "head"}
        try:
            head = dynamo.update(
                self._table(),
                key,
                "SET ts = :now ADD n :count",
                values={":now": now, ":count": count},
                condition="attribute_not_exists(ts) OR ts <= :now",
            )
        except ConditionFailed:
            head = dynamo.update(self._table(), key, "ADD n :count", values={":count": count})
        return head["n"] - count + 1, head["ts"]

    def attributes(self, place: Place) -> Item:
        """What a row carries to be listed. Call `announce` before the row is written."""
        listed: Item = {"n": place.n, "t": place.t, "leaf": place.leaf}
        for scope in place.members():
            _, attribute = self._indexes[scope.partition("#")[0]]
            listed[attribute] = self._hash(place.org, scope, place.leaf)
        return listed

    def announce(self, org: str, leaf: str) -> None:
        """Makes a leaf known to readers, before the first row in it appears. One write per leaf and process."""
        if (org, leaf) not in self._known:
            dynamo.update(
                self._table(),
                self._mark_key(org),
                "SET sealed = if_not_exists(sealed, :zero), rev = if_not_exists(rev, :zero) ADD leaves :leaf",
                values={":zero": 0, ":leaf": {leaf}},
            )
            self._known.add((org, leaf))

    def move(self, old: Place, new: Place, *rest: Action) -> None:
        """Writes `rest` together with what keeps the counts right when a row goes from `old` to `new`.

        The first of `rest` is the row itself; when its condition fails, ConditionFailed is raised with its index.
        """
        if old == new:
            return dynamo.write(list(rest))
        self.announce(new.org, new.leaf)
        for _ in range(_ATTEMPTS):
            mark = self._mark(new.org)
            counts = self._recount(mark, old, new)
            try:
                return dynamo.write([*rest, *counts])
            except ConditionFailed as refused:
                if any(refused.failed(index) for index in range(len(rest))):
                    raise
        raise Contended(f"row {new.n} could not be moved while its chunk was being sealed")

    def _recount(self, mark: Mark, old: Place, new: Place) -> list[Action]:
        chunk = (new.n - 1) // self.chunk
        whole = chunk // SUPER < mark.sealed // SUPER
        actions: list[Action] = []
        if not whole:
            actions.append(
                dynamo.update_action(
                    self._table(),
                    self._mark_key(new.org),
                    "ADD rev :one",
                    values={":one": 1, ":sealed": mark.sealed},
                    condition="sealed = :sealed",
                )
            )
        if chunk >= mark.sealed:
            return actions
        before, after = old.members(), new.members()
        for scope in dict.fromkeys(before + after):
            deltas: dict[str, int] = {}
            if scope in before:
                deltas[old.leaf] = -1
            if scope in after:
                deltas[new.leaf] = deltas.get(new.leaf, 0) + 1
            widened = new.t if scope == ORG and new.t != old.t else None
            levels = [("s", chunk, SUPER), *([("t", chunk // SUPER, TOP)] if whole else [])]
            for level, cell, fan in levels:
                key = self._cell_key(new.org, scope, level, cell // fan)
                bounds = self._bounds(key, cell % fan, widened) if widened is not None else {}
                if any(deltas.values()) or bounds:
                    actions.append(_cell_change(self._table(), key, cell % fan, deltas, bounds))
        return actions

    def _bounds(self, key: Item, cell: int, t: int) -> Item:
        """The cell's time bounds, if `t` lies outside of them. They are only ever widened, so an old read does no harm."""
        held = dynamo.get(self._table(), key) or {}
        return {
            name: t
            for name, outside in (
                (f"{cell}.<", t < held.get(f"{cell}.<", _END)),
                (f"{cell}.>", t > held.get(f"{cell}.>", -_END)),
            )
            if outside
        }

    # Sealing

    def seal(self, org: str, now: int, most: int = 64) -> int:
        """Counts full chunks into cells, oldest first, and tells how many. Safe to run anywhere, any number of times."""
        done = 0
        for _ in range(most + _ATTEMPTS):
            if done == most:
                break
            mark = self._mark(org)
            rows = self._settled(org, mark, now)
            if rows is None:
                break
            if self._seal_chunk(org, mark, rows):
                done += 1
        return done

    def _settled(self, org: str, mark: Mark, now: int) -> list[Place] | None:
        """The rows of the next chunk as they are stored, or None while one of its numbers may still get its row."""
        low, high = mark.sealed * self.chunk + 1, (mark.sealed + 1) * self.chunk
        head = dynamo.get(self._table(), {"pk": f"{org}#list", "sk": "head"}) or {"n": 0, "ts": now}
        if head["n"] < high:
            return None
        index, _ = self._indexes[ORG]
        found: list[Item] = []
        for leaf in sorted(mark.leaves):
            values = {":hash": self._hash(org, ORG, leaf), ":low": low, ":high": high}
            condition = f"{self._indexes[ORG][1]} = :hash AND n BETWEEN :low AND :high"
            found += dynamo.query(self._table(), condition, values, IndexName=index)
        keys = {(row["pk"], row["sk"]) for row in found}
        rows = dynamo.get_many(self._table(), ({"pk": pk, "sk": sk} for pk, sk in keys), consistent=True)
        if len(rows) < self.chunk:
            newest = max((row["at"] for row in rows if row["n"] == high), default=head["ts"])
            if now - newest < SETTLED_MS:
                return None
        return [self.place(org, row) for row in rows]

    def place(self, org: str, row: Item) -> Place:
        """Where a stored row stands, read from the attributes that `attributes` gave it."""
        scopes = []
        for name, (_, attribute) in self._indexes.items():
            if name != ORG and attribute in row:
                value = row[attribute].removeprefix(f"{org}#{name}#").removesuffix(f"#{row['leaf']}")
                scopes.append((name, value))
        return Place(org, row["n"], row["t"], row["leaf"], tuple(scopes))

    def _seal_chunk(self, org: str, mark: Mark, rows: list[Place]) -> bool:
        """Cells are set, not added to, and count only once the mark has moved: a crash in between is mended by the next run."""
        chunk = mark.sealed
        parent, cell = divmod(chunk, SUPER)
        org_key = self._cell_key(org, ORG, "s", parent)
        counts: dict[str, dict[str, int]] = {ORG: {}}
        for row in rows:
            for scope in row.members():
                leaves = counts.setdefault(scope, {})
                leaves[row.leaf] = leaves.get(row.leaf, 0) + 1
        held = dynamo.update(
            self._table(),
            org_key,
            "ADD scopes :scopes",
            values={":scopes": set(counts)},
        )
        bounds = {"<": min((row.t for row in rows), default=0), ">": max((row.t for row in rows), default=0)}
        for scope in held["scopes"]:
            extra = bounds if scope == ORG and rows else {}
            self._set_cell(self._cell_key(org, scope, "s", parent), cell, {**counts.get(scope, {}), **extra})
        if cell == SUPER - 1:
            self._close_super(org, parent, held["scopes"])
        try:
            dynamo.update(
                self._table(),
                self._mark_key(org),
                "SET sealed = :next ADD rev :one",
                values={":next": chunk + 1, ":one": 1, ":chunk": chunk, ":rev": mark.rev},
                condition="sealed = :chunk AND rev = :rev",
            )
        except ConditionFailed:
            return False
        return True

    def _close_super(self, org: str, parent: int, scopes: set[str]) -> None:
        for scope in scopes:
            summed: dict[str, int] = {}
            cells = _cells(dynamo.get(self._table(), self._cell_key(org, scope, "s", parent)) or {})
            for cell in cells.values():
                for name, value in cell.items():
                    if name == "<":
                        summed["<"] = min(value, summed.get("<", _END))
                    elif name == ">":
                        summed[">"] = max(value, summed.get(">", -_END))
                    else:
                        summed[name] = summed.get(name, 0) + value
            self._set_cell(self._cell_key(org, scope, "t", parent // TOP), parent % TOP, summed)

    def _set_cell(self, key: Item, cell: int, content: dict[str, int]) -> None:
        stale = set(_cells(dynamo.get(self._table(), key) or {}).get(cell, {})) - set(content)
        if not content and not stale:
            return
        names = {f"#{i}": f"{cell}.{name}" for i, name in enumerate([*content, *sorted(stale)])}
        values = {f":{i}": value for i, value in enumerate(content.values())}
        expression = "SET " + ", ".join(f"#{i} = :{i}" for i in range(len(content))) if content else ""
        if stale:
            expression += " REMOVE " + ", ".join(f"#{len(content) + i}" for i in range(len(stale)))
        dynamo.update(self._table(), key, expression, names=names, values=values)

    # Reading

    def page(self, org: str, wanted: Filter, *, offset: int, limit: int, total: bool = False) -> Page:
        """`limit` rows from `offset` in the filtered list, newest first."""
        mark = self._mark(org)
        leaves = sorted(leaf for leaf in mark.leaves if wanted.wanted(leaf))
        reader = _Reader(self, org, mark, wanted, leaves)
        if not leaves:
            return Page([], 0 if total else None)
        if not total and not wanted.timed and offset + limit <= self.chunk * 2:
            return Page(reader.rows(1, _END, offset, limit), None)
        return reader.page(offset, limit, total)

    def walk(self, org: str, wanted: Filter) -> Iterator[Item]:
        """Every matching row, newest first, read in pages as they are consumed."""
        mark = self._mark(org)
        leaves = sorted(leaf for leaf in mark.leaves if wanted.wanted(leaf))
        high = _END
        while leaves:
            rows = _Reader(self, org, mark, wanted, leaves).rows(1, high, 0, 100)
            yield from rows
            if len(rows) < 100:
                return
            high = rows[-1]["n"] - 1

    # Keys

    def _mark(self, org: str) -> Mark:
        held = dynamo.get(self._table(), self._mark_key(org))
        return Mark(held["sealed"], held["rev"], held["leaves"]) if held else Mark()

    @staticmethod
    def _mark_key(org: str) -> Item:
        return {"pk": f"{org}#list", "sk": "mark"}

    @staticmethod
    def _hash(org: str, scope: str, leaf: str) -> str:
        return f"{org}#{leaf}" if scope == ORG else f"{org}#{scope}#{leaf}"

    @staticmethod
    def _cell_key(org: str, scope: str, level: str, item: int) -> Item:
        return {"pk": f"{org}#cells#{scope}", "sk": f"{level}#{item:08d}"}

    def cells(self, org: str, scope: str, level: str, item: int | None = None) -> dict[int, dict[str, int]]:
        """Cells of one level, by their number from the first: of one item, or of all."""
        fan = SUPER if level == "s" else TOP
        if item is not None:
            found = [dynamo.get(self._table(), self._cell_key(org, scope, level, item), consistent=False) or {}]
        else:
            values = {":pk": f"{org}#cells#{scope}", ":level": f"{level}#"}
            found = list(dynamo.query(self._table(), "pk = :pk AND begins_with(sk, :level)", values))
        return {
            int(held["sk"].partition("#")[2]) * fan + cell: content
            for held in found
            if held
            for cell, content in _cells(held).items()
        }

    def fetch(self, request: dict[str, Any], scope: str) -> dict[str, Any]:
        """One Query on the index that serves `scope`."""
        index, _ = self._indexes[scope.partition("#")[0]]
        answer: dict[str, Any] = client("dynamodb").query(TableName=self._table(), IndexName=index, **request)
        return answer

    def attribute(self, scope: str) -> str:
        return self._indexes[scope.partition("#")[0]][1]


class _Reader:
    """One read of one filtered list."""

    def __init__(self, lists: Lists, org: str, mark: Mark, wanted: Filter, leaves: Sequence[str]) -> None:
        self._lists = lists
        self._org = org
        self._mark = mark
        self._wanted = wanted
        self._leaves = leaves
        self._edge = mark.sealed * lists.chunk  # rows above it are not sealed

    def page(self, offset: int, limit: int, total: bool) -> Page:
        if offset == 0 and not self._wanted.timed:
            return self._first(limit, total)
        counted, skip, low = 0, offset, 1
        high: int | None = None
        for segment in self._segments():
            for piece in self._opened(segment, skip if high is None else None):
                count = self.count(piece.low, piece.high) if piece.count is None else piece.count
                counted += count
                if high is None and skip < count:
                    high = piece.high
                elif high is None:
                    skip -= count
                if count:
                    low = piece.low
            if not total and counted >= offset + limit:
                break
        rows = self.rows(low, high, skip, limit) if high is not None else []
        return Page(rows, counted if total else None)

    def _first(self, limit: int, total: bool) -> Page:
        """The first page needs no counts; for its total only what it did not read itself is counted."""
        rows = self.rows(1, _END, 0, limit)
        if not total:
            return Page(rows, None)
        if len(rows) < limit:
            return Page(rows, len(rows))
        tail = sum(1 for row in rows if row["n"] > self._edge) + self.count(self._edge + 1, rows[-1]["n"] - 1)
        return Page(rows, tail + sum(segment.count or 0 for segment in self._sealed()))

    def _opened(self, segment: Segment, skip: int | None) -> Iterator[Segment]:
        """The segment, or its chunks where the page begins in it."""
        if segment.parent is not None and segment.count is not None and skip is not None and skip < segment.count:
            yield from self._chunks(segment.parent)
        else:
            yield segment

    def _segments(self) -> Iterator[Segment]:
        """The whole list as runs of numbers, newest first; sealed runs outside the filter's times are left out."""
        yield Segment(self._edge + 1, _END, None)
        yield from self._sealed()

    def _sealed(self) -> Iterator[Segment]:
        closed, opened = divmod(self._mark.sealed, SUPER)
        if opened:
            yield from self._chunks(closed)
        if not closed:
            return
        scope = self._wanted.scope
        tops = self._lists.cells(self._org, scope, "t")
        times = tops if scope == ORG or not self._wanted.timed else self._lists.cells(self._org, ORG, "t")
        width = SUPER * self._lists.chunk
        for number in range(closed - 1, -1, -1):
            within = self._within(times.get(number, {}))
            count = self._sum(tops.get(number, {}))
            if count and within is None:
                yield from self._chunks(number)
            elif count and within:
                yield Segment(number * width + 1, (number + 1) * width, count, number)

    def _chunks(self, parent: int) -> Iterator[Segment]:
        scope = self._wanted.scope
        cells = self._lists.cells(self._org, scope, "s", parent)
        times = cells if scope == ORG or not self._wanted.timed else self._lists.cells(self._org, ORG, "s", parent)
        size = self._lists.chunk
        for number in range(min((parent + 1) * SUPER, self._mark.sealed) - 1, parent * SUPER - 1, -1):
            within = self._within(times.get(number, {}))
            count = self._sum(cells.get(number, {}))
            if count and within is not False:
                yield Segment(number * size + 1, (number + 1) * size, count if within else None)

    def _within(self, cell: dict[str, int]) -> bool | None:
        """Whether all of a cell's rows are inside the filter's times; None when only some may be."""
        if not self._wanted.timed or "<" not in cell:
            return True
        first, last = self._wanted.covers(cell["<"]), self._wanted.covers(cell[">"])
        if first and last:
            return True
        since, until = self._wanted.since, self._wanted.until
        apart = (since is not None and cell[">"] < since) or (until is not None and cell["<"] > until)
        return False if apart else None

    def _sum(self, cell: dict[str, int]) -> int:
        return sum(cell.get(leaf, 0) for leaf in self._leaves)

    def count(self, low: int, high: int) -> int:
        """Matching rows with numbers from `low` to `high`, by looking at each."""
        if low > high:
            return 0
        if self._wanted.timed:
            return len(self.rows(low, high, 0, _END))
        requests = [self._request(leaf, low, high) | {"Select": "COUNT"} for leaf in self._leaves]
        return sum(self._counted(request) for request in requests)

    def _counted(self, request: dict[str, Any]) -> int:
        counted = 0
        while True:
            answer = self._lists.fetch(request, self._wanted.scope)
            counted += answer["Count"]
            if "LastEvaluatedKey" not in answer:
                return counted
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def rows(self, low: int, high: int, skip: int, need: int) -> list[Item]:
        """Rows `skip` to `skip + need` of the merged leaves, reading little more than that of each leaf."""
        if low > high or need <= 0:
            return []
        streams = [_Stream(self, leaf, low, high) for leaf in self._leaves]
        goal = skip + need
        share = goal if len(streams) == 1 else -(-goal // len(streams)) + _SLACK
        _together([(stream, share) for stream in streams])
        while True:
            horizon = max((stream.horizon for stream in streams if not stream.ended), default=0)
            safe = [row for stream in streams for row in stream.rows if row["n"] >= horizon]
            if len(safe) >= goal or not horizon:
                return sorted(safe, key=lambda row: -row["n"])[skip:goal]
            _together(_refills([stream for stream in streams if not stream.ended], safe, horizon, goal - len(safe)))

    def _request(self, leaf: str, low: int, high: int) -> dict[str, Any]:
        scope = self._wanted.scope
        return {
            "KeyConditionExpression": f"{self._lists.attribute(scope)} = :hash AND n BETWEEN :low AND :high",
            "ExpressionAttributeValues": dynamo.pack(
                {":hash": self._lists._hash(self._org, scope, leaf), ":low": low, ":high": high}
            ),
            "ScanIndexForward": False,
        }

    def more(self, leaf: str, low: int, high: int, limit: int) -> tuple[list[Item], int | None]:
        """Up to `limit` rows of one leaf, and the number reached, or None at the leaf's end."""
        answer = self._lists.fetch(self._request(leaf, low, high) | {"Limit": min(limit, 1000)}, self._wanted.scope)
        rows = [dynamo.unpack(item) for item in answer["Items"]]
        reached = rows[-1]["n"] if "LastEvaluatedKey" in answer and rows else None
        return [row for row in rows if self._wanted.covers(row["t"])], reached


class _Stream:
    """What has been read of one leaf. `horizon` is the number down to which it is known."""

    def __init__(self, reader: _Reader, leaf: str, low: int, high: int) -> None:
        self._reader = reader
        self._leaf = leaf
        self._low = low
        self.rows: list[Item] = []
        self.horizon = high + 1
        self.ended = False

    def read(self, limit: int) -> None:
        rows, reached = self._reader.more(self._leaf, self._low, self.horizon - 1, limit)
        self.rows += rows
        if reached is None or reached <= self._low:
            self.ended = True
        else:
            self.horizon = reached


def _refills(streams: list[_Stream], safe: list[Item], horizon: int, missing: int) -> list[tuple[_Stream, int]]:
    """Which leaves to read on, and how far, for `missing` more rows if they go on as densely as so far."""
    newest = max((row["n"] for row in safe), default=horizon)
    target = horizon - missing * (newest - horizon + 1) // max(len(safe), 1)
    refills = []
    for stream in streams:
        if stream.horizon > target or stream.horizon == horizon:
            density = len(stream.rows) / max(newest - stream.horizon + 1, 1)
            refills.append((stream, max(1, min(missing, round(density * (stream.horizon - target)) + 1))))
    return refills


def _together(reads: list[tuple[_Stream, int]]) -> None:
    if len(reads) == 1:
        ((stream, limit),) = reads
        stream.read(limit)
        return
    for done in [_threads().submit(stream.read, limit) for stream, limit in reads]:
        done.result()


def _cells(item: Item) -> dict[int, dict[str, int]]:
    cells: dict[int, dict[str, int]] = {}
    for name, value in item.items():
        number, dot, rest = name.partition(".")
        if dot:
            cells.setdefault(int(number), {})[rest] = value
    return cells


def _cell_change(table: str, key: Item, cell: int, deltas: dict[str, int], bounds: Item) -> Action:
    moved = {leaf: delta for leaf, delta in deltas.items() if delta}
    names = {f"#{i}": f"{cell}.{leaf}" for i, leaf in enumerate(moved)}
    values: Item = {f":{i}": delta for i, delta in enumerate(moved.values())}
    adds = ", ".join(f"#{i} :{i}" for i in range(len(moved)))
    expression = f"ADD {adds}" if adds else ""
    for i, (name, value) in enumerate(bounds.items()):
        names[f"#b{i}"] = name
        values[f":b{i}"] = value
    if bounds:
        expression += " SET " + ", ".join(f"#b{i} = :b{i}" for i in range(len(bounds)))
    return dynamo.update_action(table, key, expression.strip(), names=names, values=values)
