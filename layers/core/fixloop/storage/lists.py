"""Filtered lists with exact totals and any offset, at a cost that does not grow with what is stored.

Rows get dense numbers per organisation, newest highest. A *leaf* is the tuple of a row's enum filters written as a
short code; every scope (the whole organisation, one agent) has an index keyed by (scope, leaf) and sorted by number. A
filter is a set of leaves, merged while reading. What lies before an offset is counted, not read: once all rows of a
*chunk* of numbers are there, the chunk is *sealed*, that is, its rows are counted per leaf into cells; from then on
whoever moves a row to another leaf moves the counts in the same transaction. Until then the rows are their own
counters, so creating one touches no shared counter and never meets another writer. `docs/decisions/0002-lists.md` has
the costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from string import ascii_letters, digits
from typing import Any

from fixloop.aws import client
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item

SUPER = 32  # chunks to a super cell, where a family does not say
TOP = 64  # supers to an item of the top level
SETTLED_MS = 60_000  # a number without a row after this long is a gap: its writer gave up long before
_ATTEMPTS = 10
_CALM = 4  # times a page is read at most for one that no row moved under
_TOGETHER = 99  # cells set in one transaction, beside the mark
_SLACK = 24  # rows read ahead over all leaves, in the hope that one round is enough
_EVEN = 4  # rows looked at where they would be if they had come evenly, before halving
_CLOSE = 4  # rows too new that a page may begin with, which costs less than to look where it must begin
_SMALL, _FULL = 30, 7  # so many rows in small, and so many as they are, cost no more to pass over than to ask a leaf
_END = 10**15
ORG = "o"
# What a cell's attributes begin with, by its place in its item. "p" and "s" begin the names of other attributes there.
_CELLS = (digits + ascii_letters + "+-_=").translate({ord("p"): None, ord("s"): None})


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
    wanted: Callable[[str], bool] = lambda leaf: True  # noqa: ARG005
    since: int | None = None
    until: int | None = None

    @property
    def timed(self) -> bool:
        return self.since is not None or self.until is not None

    def covers(self, t: int) -> bool:
        return (self.since is None or t >= self.since) and (self.until is None or t <= self.until)


@dataclass(frozen=True)
class Segment:
    """A run of numbers with its rows per wanted leaf, None where they are not known. `parent` is the super it is.

    `exact` says that all its rows are inside the filter's times, so that they can be counted without being looked at;
    otherwise `counts` says only how many there can be. `times` are the earliest and the latest of its rows, if known.
    """

    low: int
    high: int
    counts: dict[str, int] | None
    parent: int | None = None
    exact: bool = True
    times: tuple[int, int] | None = None

    @property
    def count(self) -> int | None:
        """How many rows match, if that is known."""
        return sum(self.counts.values()) if self.exact and self.counts is not None else None


@dataclass
class _Run:
    """Numbers to read in one go: the page's rows are the `holds` after the first `skip`. `counts` as in a segment."""

    high: int
    skip: int
    low: int = 1
    holds: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def extend(self, segment: Segment, holds: int) -> None:
        self.low = segment.low
        self.holds += holds
        for leaf, count in (segment.counts or {}).items():
            self.counts[leaf] = self.counts.get(leaf, 0) + count


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

    `fan` chunks, up to 64, make a super: the more, the fewer cells a total reads, until those of a super come to 4 KB.
    `indexes` maps a scope's name to the (index, hash attribute) that serves it. `row_key` tells where the row of a
    number lies, for families whose times never run behind their numbers: dates are then found without looking at rows.
    With `shelved`, the rows of a chunk have the same pk there, and sks in the order of their numbers: a run of numbers
    is read from the table at once, whatever their leaves. `whole` is an index of all rows of an organisation for the
    same, with their leaves, times and scopes: worth its write where rows are small, leaves many and keys given. The
    instance holds no data but the set of leaves this process has already made known.
    """

    def __init__(
        self,
        table: Callable[[], str],
        *,
        chunk: int,
        fan: int | None = None,
        indexes: dict[str, tuple[str, str]],
        row_key: Callable[[str, int], Item] | None = None,
        shelved: bool = False,
        whole: tuple[str, str] | None = None,
    ) -> None:
        self._table = table
        self.chunk = chunk
        self._fan = fan
        self._indexes = indexes
        self.row_key = row_key
        self.shelved = shelved
        self.whole = whole
        self.passing = _FULL if shelved else _SMALL if whole else 0
        self._known: set[tuple[str, str]] = set()

    @property
    def fan(self) -> int:
        """How many chunks make a super."""
        return self._fan or SUPER

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
            listed[attribute] = self.hash(place.org, scope, place.leaf)
        if self.whole:
            listed[self.whole[1]] = place.org
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

    def move(self, old: Place, new: Place | None, *rest: Action) -> None:
        """Writes `rest` together with what keeps the counts right when a row goes from `old` to `new`.

        None for `new` takes the row away. The first of `rest` is the row itself; when its condition fails,
        ConditionFailed is raised with its index.
        """
        if old == new:
            return dynamo.write(list(rest))
        if new is not None:
            self.announce(new.org, new.leaf)
        for _ in range(_ATTEMPTS):
            mark = self._mark(old.org)
            counts = self._recount(mark, old, new)
            try:
                return dynamo.write([*rest, *counts])
            except ConditionFailed as refused:
                if any(refused.failed(index) for index in range(len(rest))):
                    raise
        raise Contended(f"row {old.n} could not be moved while its chunk was being sealed")

    def _recount(self, mark: Mark, old: Place, new: Place | None) -> list[Action]:
        chunk = (old.n - 1) // self.chunk
        whole = chunk // self.fan < mark.sealed // self.fan
        guard: dict[str, Any] = {} if whole else {"condition": "sealed = :sealed"}
        values = {":one": 1} if whole else {":one": 1, ":sealed": mark.sealed}
        moved = dynamo.update_action(self._table(), self._mark_key(old.org), "ADD rev :one", values=values, **guard)
        actions = [moved]
        if chunk >= mark.sealed:
            return actions
        before, after = old.members(), new.members() if new else []
        for scope in dict.fromkeys(before + after):
            deltas: dict[str, int] = {}
            if scope in before:
                deltas[old.leaf] = -1
            if new is not None and scope in after:
                deltas[new.leaf] = deltas.get(new.leaf, 0) + 1
            widened = new.t if new is not None and scope == ORG and new.t != old.t else None
            joined = set(after) - set(before) if scope == ORG and not whole else set()
            levels = [("s", chunk, self.fan), *([("t", chunk // self.fan, TOP)] if whole else [])]
            for level, cell, fan in levels:
                key = self._cell_key(old.org, scope, level, cell // fan)
                bounds = self._bounds(key, cell % fan, widened) if widened is not None else {}
                if any(deltas.values()) or bounds or joined:
                    actions.append(_cell_change(self._table(), key, cell % fan, deltas, bounds, joined))
        return actions

    def _bounds(self, key: Item, cell: int, t: int) -> Item:
        """The cell's time bounds, if `t` lies outside of them."""
        held = dynamo.get(self._table(), key) or {}
        return {
            name: t
            for name, outside in (
                (f"{_CELLS[cell]}<", t < held.get(f"{_CELLS[cell]}<", _END)),
                (f"{_CELLS[cell]}>", t > held.get(f"{_CELLS[cell]}>", -_END)),
            )
            if outside
        }

    # Sealing

    def seal(self, org: str, now: int, most: int = 64) -> int:
        """Counts full chunks into cells, oldest first, and tells how many. Safe to run anywhere, in any number."""
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
        rows = self._stored(org, mark, low, high)
        if len(rows) < self.chunk:
            newest = max((row["at"] for row in rows if row["n"] == high), default=head["ts"])
            if now - newest < SETTLED_MS:
                return None
        return [self.place(org, row) for row in rows]

    def _stored(self, org: str, mark: Mark, low: int, high: int) -> list[Item]:
        """The rows of a chunk, read consistently; those that an index does not show yet are not there yet."""
        if self.shelved:
            return list(dynamo.query(self._table(), *self.shelf(org, low, high), ConsistentRead=True))
        index, attribute = self._indexes[ORG]
        found: list[Item] = []
        for leaf in sorted(mark.leaves):
            values = {":hash": self.hash(org, ORG, leaf), ":low": low, ":high": high}
            condition = f"{attribute} = :hash AND n BETWEEN :low AND :high"
            found += dynamo.query(self._table(), condition, values, IndexName=index)
        keys = {(row["pk"], row["sk"]) for row in found}
        return dynamo.get_many(self._table(), ({"pk": pk, "sk": sk} for pk, sk in keys), consistent=True)

    def place(self, org: str, row: Item) -> Place:
        """Where a stored row stands, read from the attributes that `attributes` gave it."""
        scopes = []
        for name, (_, attribute) in self._indexes.items():
            if name != ORG and attribute in row:
                value = row[attribute].removeprefix(f"{org}#{name}#").removesuffix(f"#{row['leaf']}")
                scopes.append((name, value))
        return Place(org, row["n"], row["t"], row["leaf"], tuple(scopes))

    def _seal_chunk(self, org: str, mark: Mark, rows: list[Place]) -> bool:
        """Sets the chunk's cells and moves the mark; False when something came in between.

        Cells count only once the mark has moved, and every write holds only while the mark is as it was read: a sealer
        that was overtaken changes nothing, and what one left half done is set again by the next.
        """
        chunk = mark.sealed
        parent, cell = divmod(chunk, self.fan)
        counts: dict[str, dict[str, int]] = {ORG: {}}
        for row in rows:
            for scope in row.members():
                leaves = counts.setdefault(scope, {})
                leaves[row.leaf] = leaves.get(row.leaf, 0) + 1
        listed = dynamo.update(
            self._table(),
            self._cell_key(org, ORG, "s", parent),
            "ADD scopes :scopes",
            values={":scopes": set(counts)},
        )
        if rows:
            counts[ORG] |= {"<": min(row.t for row in rows), ">": max(row.t for row in rows)}
        contents = {scope: counts.get(scope, {}) for scope in sorted(listed["scopes"])}
        changes = self._cells_set(org, "s", parent, cell, contents)
        if cell == self.fan - 1:
            supers = self._held(org, "s", parent, contents)
            summed = {scope: _summed({**supers[scope], cell: content}) for scope, content in contents.items()}
            changes += self._cells_set(org, "t", parent // TOP, parent % TOP, summed)
        try:
            while len(changes) > _TOGETHER:
                dynamo.write([self._mark_change(org, mark, chunk), *changes[:_TOGETHER]])
                del changes[:_TOGETHER]
            dynamo.write([self._mark_change(org, mark, chunk + 1), *changes])
        except ConditionFailed:
            return False
        return True

    def _mark_change(self, org: str, mark: Mark, sealed: int) -> Action:
        """Sets the number of sealed chunks, if nobody has touched the mark; the same number only makes sure of that."""
        values = {":sealed": sealed, ":was": mark.sealed, ":rev": mark.rev}
        expression = "SET sealed = :sealed"
        if sealed != mark.sealed:
            expression += " ADD rev :one"
            values[":one"] = 1
        return dynamo.update_action(
            self._table(), self._mark_key(org), expression, values=values, condition="sealed = :was AND rev = :rev"
        )

    def _held(self, org: str, level: str, item: int, scopes: Iterable[str]) -> dict[str, dict[int, dict[str, int]]]:
        """The cells of one item of a level, per scope."""
        keys = {scope: self._cell_key(org, scope, level, item) for scope in scopes}
        found = {held["pk"]: held for held in dynamo.get_many(self._table(), keys.values(), consistent=True)}
        return {scope: _cells(found.get(key["pk"], {})) for scope, key in keys.items()}

    def _cells_set(
        self, org: str, level: str, item: int, cell: int, contents: dict[str, dict[str, int]]
    ) -> list[Action]:
        """The writes that make one cell of each scope what `contents` says, whatever stood there."""
        held = self._held(org, level, item, contents)
        actions = []
        for scope, content in contents.items():
            stale = sorted(set(held[scope].get(cell, {})) - set(content))
            if content or stale:
                key = self._cell_key(org, scope, level, item)
                actions.append(_cell_set(self._table(), key, cell, content, stale))
        return actions

    # Reading

    def page(self, org: str, wanted: Filter, *, offset: int, limit: int, total: bool = False) -> Page:
        """`limit` rows from `offset` in the filtered list, newest first.

        Where leaves are read one beside the other, a row that goes from one to another meanwhile could be missed or met
        twice. Every move is counted in the mark: when it has changed, the page is read again, as often as is sensible.
        """
        page = Page([], 0 if total else None)
        for _ in range(_CALM):
            reader = self._reader(org, wanted)
            if not reader.leaves:
                break
            page = self._page(reader, offset, limit, total)
            if not reader.merged or self._mark(org).rev == reader.rev:
                break
        return page

    def _page(self, reader: _Reader, offset: int, limit: int, total: bool) -> Page:
        if not total and offset + limit <= self.chunk * 2 and (start := reader.start()) is not None:
            return Page(reader.rows(1, start, offset, limit), None)
        return reader.page(offset, limit, total)

    def walk(self, org: str, wanted: Filter) -> Iterator[Item]:
        """Every matching row, newest first, read in pages as they are consumed."""
        reader = self._reader(org, wanted)
        high = _END
        while reader.leaves:
            rows = reader.rows(1, high, 0, 100)
            yield from rows
            if len(rows) < 100:
                return
            high = rows[-1]["n"] - 1

    def _reader(self, org: str, wanted: Filter) -> _Reader:
        """The mark may be a little old: rows that it does not call sealed yet are looked at."""
        mark = self._mark(org, consistent=False)
        return _Reader(self, org, mark, wanted, sorted(leaf for leaf in mark.leaves if wanted.wanted(leaf)))

    # Keys

    def _mark(self, org: str, *, consistent: bool = True) -> Mark:
        held = dynamo.get(self._table(), self._mark_key(org), consistent=consistent)
        return Mark(held["sealed"], held["rev"], held["leaves"]) if held else Mark()

    @staticmethod
    def _mark_key(org: str) -> Item:
        return {"pk": f"{org}#list", "sk": "mark"}

    @staticmethod
    def hash(org: str, scope: str, leaf: str) -> str:
        return f"{org}#{leaf}" if scope == ORG else f"{org}#{scope}#{leaf}"

    @staticmethod
    def _cell_key(org: str, scope: str, level: str, item: int) -> Item:
        return {"pk": f"{org}#cells#{scope}", "sk": f"{level}#{item:08d}"}

    def cells(
        self, org: str, scope: str, level: str, item: int | None, last: int, *, consistent: bool = False
    ) -> dict[int, dict[str, int]]:
        """Cells of one level, by their number from the first: of one item, or of all.

        A chunk that the mark calls sealed and whose cell is not seen would be lost. Cells are set in order, so where
        the `last` that must be there is seen, all are; where it is not, it may only be on its way: then they are read
        consistently, at twice the price.
        """
        fan = self.fan if level == "s" else TOP
        if item is not None:
            held = dynamo.get(self._table(), self._cell_key(org, scope, level, item), consistent=consistent)
            found = [held] if held else []
        else:
            values = {":pk": f"{org}#cells#{scope}", ":level": f"{level}#"}
            condition = "pk = :pk AND begins_with(sk, :level)"
            found = list(dynamo.query(self._table(), condition, values, ConsistentRead=consistent))
        cells = {
            int(held["sk"].partition("#")[2]) * fan + cell: content
            for held in found
            for cell, content in _cells(held).items()
        }
        if last not in cells and not consistent:
            return self.cells(org, scope, level, item, last, consistent=True)
        return cells

    def fetch(self, request: dict[str, Any]) -> dict[str, Any]:
        """One Query."""
        answer: dict[str, Any] = client("dynamodb").query(TableName=self._table(), **request)
        return answer

    def newest(self, org: str, *, consistent: bool = True) -> int:
        """The highest number given out."""
        head = dynamo.get(self._table(), {"pk": f"{org}#list", "sk": "head"}, consistent=consistent)
        return int(head["n"]) if head else 0

    def shelf(self, org: str, low: int, high: int) -> tuple[str, Item]:
        """Key condition, and its values, of the table's rows of numbers that are on one shelf."""
        if self.row_key is None:
            raise TypeError("only families with a row key have shelves")
        first, last = self.row_key(org, low), self.row_key(org, high)
        return "pk = :hash AND sk BETWEEN :low AND :high", {
            ":hash": first["pk"],
            ":low": first["sk"],
            ":high": last["sk"],
        }

    def row(self, org: str, number: int) -> Item | None:
        """The row of a number, where `row_key` is known."""
        return dynamo.get(self._table(), self.row_key(org, number), consistent=False) if self.row_key else None

    def leaves(self, org: str) -> list[str]:
        """Every leaf that ever had a row."""
        return sorted(self._mark(org).leaves)

    def index(self, scope: str) -> tuple[str, str]:
        """The index that serves a scope, and its hash attribute."""
        return self._indexes[scope.partition("#")[0]]


class _Reader:
    """One read of one filtered list. A leaf of None stands for all rows together."""

    def __init__(self, lists: Lists, org: str, mark: Mark, wanted: Filter, leaves: list[str]) -> None:
        self.leaves = leaves
        self.rev = mark.rev
        self.merged = False  # whether leaves were read one beside the other
        self._lists = lists
        self._org = org
        self._mark = mark
        self._wanted = wanted
        self._edge = mark.sealed * lists.chunk  # rows above it are not sealed
        self._skip = 0  # matching rows still to come before the page
        self._held: dict[tuple[str, str, int | None], dict[int, dict[str, int]]] = {}

    def start(self) -> int | None:
        """The number from which the first rows are best read in one go, without counting; None if that is not the way.

        With times that are not in order it is not. All rows inside the times are at that number or below.
        """
        if not self._wanted.timed:
            return _END
        if self._lists.row_key is None:
            return None
        if self._wanted.until is None:
            return _END
        after = self._wanted.until + 1
        closed, opened = divmod(self._mark.sealed, self._lists.fan)
        tops = self._cells(ORG, "t") if closed else {}
        if tops.get(closed - 1, {}).get(">", -_END) < after:
            cells = self._cells(ORG, "s", closed) if opened else {}
            if cells.get(self._mark.sealed - 1, {}).get(">", -_END) < after:
                newest = self._lists.newest(self._org)
                if (high := self._near(self._edge + 1, newest, after)) > self._edge:
                    return high
            if high := self._last_before(cells, after):
                return high
        number = next((number for number in sorted(tops, reverse=True) if tops[number].get("<", _END) < after), None)
        return 0 if number is None else self._last_before(self._cells(ORG, "s", number), after)

    def _last_before(self, cells: dict[int, dict[str, int]], t: int) -> int:
        """A number in one of the chunks, above which no row of them is before `t`; 0 if none is before it."""
        for number in sorted(cells, reverse=True):
            if cells[number].get("<", _END) < t:
                low, high = number * self._lists.chunk + 1, (number + 1) * self._lists.chunk
                return self._near(low, high, t, (cells[number]["<"], cells[number][">"]))
        return 0

    def _near(self, low: int, high: int, t: int, times: tuple[int, int] | None = None) -> int:
        """A number above which no row is before `t`; those a little below it may be after it, too."""
        if times is None and (last := self._row_at(high, high)) and last["t"] < t:
            return high
        return self._between(low, high, t, times, _CLOSE)[1]

    def page(self, offset: int, limit: int, total: bool) -> Page:
        """Goes through the list in runs of numbers. Looks at rows or counts them only where no cell has their count."""
        rows: list[Item] = []
        run: _Run | None = None
        counted = 0
        self._skip = offset
        for piece in self._pieces():
            missing = limit - len(rows) - (run.holds if run else 0)
            found: list[Item] | None = None
            if piece.exact and piece.counts is None and (self._skip or not missing) and self._cheaper(piece):
                piece = replace(piece, counts=self.count(piece))
            if piece.count is None:
                found = self.look(piece)
            count = len(found) if found is not None else piece.count or 0
            counted += count
            if self._skip >= count:
                self._skip -= count
                continue
            if missing and found is not None:
                rows += self._read(run)
                rows += found[self._skip : self._skip + missing]
                run = None
            elif missing:
                run = run or _Run(piece.high, self._skip)
                run.extend(piece, min(count - self._skip, missing))
            self._skip = 0
            if not total and len(rows) + (run.holds if run else 0) >= limit:
                break
        return Page(rows + self._read(run), counted if total else None)

    def _read(self, run: _Run | None) -> list[Item]:
        return self.rows(run.low, run.high, run.skip, run.holds, run.counts) if run else []

    def _pieces(self) -> Iterator[Segment]:
        """The segments, cut to the times where that can be; a super as its chunks where the page begins inside it."""
        for segment in self._segments():
            if segment.parent is not None and 0 < self._skip < (segment.count or 0):
                yield from map(self._cut, self._chunks(segment.parent))
            else:
                yield self._cut(segment)

    def _cut(self, segment: Segment) -> Segment:
        """A segment not wholly inside the filter's times, cut to them if its rows are numbered in order of time."""
        if segment.exact or self._lists.row_key is None:
            return segment
        if segment.high == _END and self._all_follow(segment.low):
            return replace(segment, exact=True)
        low = segment.low
        high = segment.high if segment.high < _END else self._lists.newest(self._org)
        if self._wanted.since is not None:
            low = self._first_from(low, high, self._wanted.since, segment.times)
        if self._wanted.until is not None:
            high = self._first_from(low, high, self._wanted.until + 1, segment.times) - 1
        whole = (low, high) == (segment.low, segment.high)
        return Segment(low, high, segment.counts, exact=whole or segment.counts is None)

    def _all_follow(self, low: int) -> bool:
        """Whether the row of a number, and with it all that follow, is known to be inside the filter's times."""
        if self._wanted.until is not None:
            return False
        first = self._lists.row(self._org, low)
        return first is not None and self._wanted.covers(first["t"])

    def _first_from(self, low: int, high: int, t: int, times: tuple[int, int] | None) -> int:
        """The first number from `low` on whose row is not before `t`, or `high` + 1. Reads a few rows by their keys."""
        return self._between(low, high, t, times)[0]

    def _between(self, low: int, high: int, t: int, times: tuple[int, int] | None, close: int = 0) -> tuple[int, int]:
        """Up to `close` numbers: the rows below them are before `t`, and those above them are not.

        Where the `times` of the first and the last row are known, it looks where `t` would be if rows came evenly:
        that takes half as many as halving, which is the way out when they did not come so.
        """
        if times and times[0] >= t:
            return low, low - 1
        if times and times[1] < t:
            return high + 1, high
        below, above = (low, times[0] if times else t), (high, times[1] if times else t)
        even = _EVEN if times else 1
        while high - low >= close:
            probe = (low + high) // 2
            if even:
                share = (t - below[1]) / max(above[1] - below[1], 1)
                probe = min(max(below[0] + round(share * (above[0] - below[0])), low), high)
                even -= 1
            found = self._row_at(probe, high)
            if found is None or found["t"] >= t:
                high = probe - 1
                above = (found["n"], found["t"]) if found else above
            else:
                low = found["n"] + 1
                below = (found["n"], found["t"])
        return low, high

    def _row_at(self, number: int, high: int) -> Item | None:
        """The first row there is from `number` to `high`."""
        return next((row for at in range(number, high + 1) if (row := self._lists.row(self._org, at))), None)

    def _segments(self) -> Iterator[Segment]:
        """The whole list as runs of numbers, newest first; sealed runs outside the filter's times are left out."""
        if not self._ends_sealed():
            yield Segment(self._edge + 1, _END, None, exact=not self._wanted.timed)
        yield from self._sealed()

    def _ends_sealed(self) -> bool:
        """Whether no row after the sealed ones can be old enough, which is known where times rise with numbers."""
        if self._wanted.until is None or self._lists.row_key is None or not self._mark.sealed:
            return False
        last = self._mark.sealed - 1
        return self._cells(ORG, "s", last // self._lists.fan).get(last, {}).get(">", -_END) > self._wanted.until

    def _sealed(self) -> Iterator[Segment]:
        closed, opened = divmod(self._mark.sealed, self._lists.fan)
        if opened:
            yield from self._chunks(closed)
        if not closed:
            return
        tops = self._cells(self._wanted.scope, "t")
        times = self._cells(ORG, "t") if self._wanted.timed else {}
        width = self._lists.fan * self._lists.chunk
        for number in range(closed - 1, -1, -1):
            within = self._within(times.get(number, {}))
            counts = self._counts(tops.get(number, {}))
            if counts and within is None:
                yield from self._chunks(number)
            elif counts and within:
                yield Segment(number * width + 1, (number + 1) * width, counts, number)

    def _chunks(self, parent: int) -> Iterator[Segment]:
        cells = self._cells(self._wanted.scope, "s", parent)
        times = self._cells(ORG, "s", parent) if self._wanted.timed else {}
        size, fan = self._lists.chunk, self._lists.fan
        for number in range(min((parent + 1) * fan, self._mark.sealed) - 1, parent * fan - 1, -1):
            within = self._within(times.get(number, {}))
            counts = self._counts(cells.get(number, {}))
            if counts and within is not False:
                bounds = times.get(number, {})
                known = (bounds["<"], bounds[">"]) if "<" in bounds else None
                yield Segment(number * size + 1, (number + 1) * size, counts, exact=bool(within), times=known)

    def _cells(self, scope: str, level: str, item: int | None = None) -> dict[int, dict[str, int]]:
        asked = (scope, level, item)
        if asked not in self._held:
            sealed, fan = self._mark.sealed, self._lists.fan
            last = sealed // fan if item is None else min((item + 1) * fan, sealed)
            self._held[asked] = self._lists.cells(self._org, scope, level, item, last - 1)
        return self._held[asked]

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

    def _counts(self, cell: dict[str, int]) -> dict[str, int]:
        """What a cell says of the wanted leaves; those without rows are left out."""
        return {leaf: count for leaf in self.leaves if (count := cell.get(leaf, 0)) > 0}

    def _cheaper(self, piece: Segment) -> bool:
        """Whether a short run of numbers is better read leaf by leaf than all rows together."""
        leaves = self.leaves if piece.counts is None else piece.counts
        return not self._lists.passing or len(leaves) * self._lists.passing < self._lists.chunk

    def count(self, piece: Segment) -> dict[str, int]:
        """Rows of each wanted leaf in a run of numbers, whatever their times."""
        if piece.low > piece.high:
            return {}
        counts = _mapped(lambda leaf: self._counted(leaf, piece.low, piece.high), self.leaves)
        return {leaf: count for leaf, count in zip(self.leaves, counts, strict=True) if count}

    def _counted(self, leaf: str, low: int, high: int) -> int:
        request = self._request(leaf, low, high) | {"Select": "COUNT"}
        counted = 0
        while True:
            answer = self._lists.fetch(request)
            counted += int(answer["Count"])
            if "LastEvaluatedKey" not in answer:
                return counted
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def look(self, piece: Segment) -> list[Item]:
        """The matching rows of a run of numbers, newest first, each looked at."""
        if piece.low > piece.high:
            return []
        leaves = self.leaves if piece.counts is None else list(piece.counts)
        streams = (
            [_Stream(self, leaf, piece.low, piece.high) for leaf in leaves]
            if self._cheaper(piece)
            else [stream for stream, _ in self._all(piece.low, piece.high, _END)]
        )
        while ahead := [(stream, _END) for stream in streams if not stream.ended]:
            _together(ahead)
        return sorted((row for stream in streams for row in stream.rows), key=lambda row: -row["n"])

    def rows(self, low: int, high: int, skip: int, need: int, counts: dict[str, int] | None = None) -> list[Item]:
        """Rows `skip` to `skip + need` of the merged leaves, reading little more than that of each leaf.

        `counts` says how many each leaf has from `low` to `high`, if that is known.
        """
        if low > high or need <= 0:
            return []
        goal = skip + need
        reads = self._shared(low, high, goal) if counts is None else self._weighed(low, high, goal, counts)
        streams = [stream for stream, _ in reads]
        while True:
            _together(reads)
            horizon = max((stream.horizon for stream in streams if not stream.ended), default=0)
            met = {row["n"]: row for stream in streams for row in stream.rows if row["n"] >= horizon}
            safe = list(met.values())
            if len(safe) >= goal or not horizon:
                return sorted(safe, key=lambda row: -row["n"])[skip:goal]
            reads = _refills([stream for stream in streams if not stream.ended], safe, horizon, goal - len(safe))

    def _shared(self, low: int, high: int, goal: int) -> list[tuple[_Stream, int]]:
        """All rows, if all are wanted; or all leaves, each with the same share of the rows.

        Rows too old may come in the place of wanted ones: then no row is read in mere hope.
        """
        if self._lists.passing and self._wanted.scope == ORG and len(self.leaves) == len(self._mark.leaves):
            return self._all(low, high, goal)
        many = len(self.leaves)
        share, rest = divmod(goal, many)
        if self._wanted.since is None and many > 1:
            share, rest = share + bool(rest) + min(2, _SLACK // many), 0
        return [(_Stream(self, leaf, low, high), max(1, share + (at < rest))) for at, leaf in enumerate(self.leaves)]

    def _weighed(self, low: int, high: int, goal: int, counts: dict[str, int]) -> list[tuple[_Stream, int]]:
        """The leaves that have rows, each with the share of them that it has; or all rows, if that costs less."""
        part = goal / sum(counts.values())
        width = (high - low + 1) * part
        if self._lists.passing and width <= min(self._lists.passing * len(counts) + goal, 2 * goal):
            return self._all(low, high, round(width) + 1)
        return [
            (_Stream(self, leaf, low, high), min(count + 1, round(count * part) + min(2, _SLACK // len(counts)) + 1))
            for leaf, count in counts.items()
        ]

    def _all(self, low: int, high: int, width: int) -> list[tuple[_Stream, int]]:
        """All rows of about `width` numbers from `high` on downwards: from their index, or shelf by shelf."""
        if not self._lists.shelved:
            return [(_Stream(self, None, low, high), width)]
        high = min(high, self._lists.newest(self._org, consistent=False)) if high == _END else high
        reads = []
        while high >= low and width > 0:
            bottom = max(low, self._bottom(high))
            reads.append((_Stream(self, None, bottom, high), min(width, high - bottom + 1)))
            high, width = bottom - 1, width - (high - bottom + 1)
        if reads and high >= low:  # what is missing then is read on from the last
            reads[-1][0].low = low
        return reads

    def _bottom(self, number: int) -> int:
        """The first number of the shelf that a number is on."""
        return (number - 1) // self._lists.chunk * self._lists.chunk + 1

    def _request(self, leaf: str | None, low: int, high: int) -> dict[str, Any]:
        self.merged |= leaf is not None and len(self.leaves) > 1
        where = {}
        if leaf is None and self._lists.shelved:
            condition, values = self._lists.shelf(self._org, low, high)
        else:
            index, attribute = (leaf is None and self._lists.whole) or self._lists.index(self._wanted.scope)
            hashed = self._org if leaf is None else self._lists.hash(self._org, self._wanted.scope, leaf)
            where = {"IndexName": index}
            condition, values = (
                f"{attribute} = :hash AND n BETWEEN :low AND :high",
                {":hash": hashed, ":low": low, ":high": high},
            )
        return {
            **where,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": dynamo.pack(values),
            "ScanIndexForward": False,
        }

    def more(self, leaf: str | None, low: int, high: int, limit: int) -> tuple[list[Item], int | None]:
        """The matching ones of up to `limit` rows of a leaf, and the number reached, or None at its end."""
        bottom = max(low, self._bottom(high)) if leaf is None and self._lists.shelved else low
        answer = self._lists.fetch(self._request(leaf, bottom, high) | {"Limit": min(limit, 1000)})
        rows = [dynamo.unpack(item) for item in answer["Items"]]
        reached = bottom if bottom > low else None
        if "LastEvaluatedKey" in answer and rows:
            reached = rows[-1]["n"]
        if reached and rows and self._lists.row_key and rows[-1]["t"] < (self._wanted.since or 0):
            reached = None  # all that follows is older still
        rows = [row for row in rows if self._wanted.covers(row["t"])]
        return (rows if leaf is not None else [row for row in rows if self._wants(row)]), reached

    def _wants(self, row: Item) -> bool:
        """Whether a row from the index of all is in a wanted leaf of the scope."""
        scope, leaf = self._wanted.scope, row["leaf"]
        if not self._wanted.wanted(leaf):
            return False
        return scope == ORG or row.get(self._lists.index(scope)[1]) == self._lists.hash(self._org, scope, leaf)


class _Stream:
    """What has been read of one leaf. `horizon` is the number down to which it is known."""

    def __init__(self, reader: _Reader, leaf: str | None, low: int, high: int) -> None:
        self._reader = reader
        self._leaf = leaf
        self.low = low
        self.rows: list[Item] = []
        self.horizon = high + 1
        self.ended = False

    def read(self, limit: int) -> None:
        rows, reached = self._reader.more(self._leaf, self.low, self.horizon - 1, limit)
        self.rows += rows
        if reached is None or reached <= self.low:
            self.ended = True
        else:
            self.horizon = reached

    def until(self, target: float, newest: int, missing: int) -> int:
        """How many rows it takes to get to a number, at the density so far; the index of all has one at each."""
        if self._leaf is None:
            return max(1, round(self.horizon - target))
        density = len(self.rows) / max(newest - self.horizon + 1, 1)
        return max(1, min(missing, round(density * (self.horizon - target)) + 1))


def _refills(streams: list[_Stream], safe: list[Item], horizon: int, missing: int) -> list[tuple[_Stream, int]]:
    """Which leaves to read on, and how far, for `missing` more rows if they go on as densely as so far."""
    newest = max((row["n"] for row in safe), default=horizon)
    target = horizon - missing * (newest - horizon + 1) // max(len(safe), 1)
    return [
        (stream, stream.until(target, newest, missing))
        for stream in streams
        if stream.horizon > target or stream.horizon == horizon
    ]


def _together(reads: list[tuple[_Stream, int]]) -> None:
    _mapped(lambda read: read[0].read(read[1]), reads)


def _mapped(act: Callable[[Any], Any], over: Sequence[Any]) -> list[Any]:
    """What `act` gives for each, asked for at the same time."""
    if len(over) == 1:
        return [act(over[0])]
    return [done.result() for done in [_threads().submit(act, one) for one in over]]


def _cells(item: Item) -> dict[int, dict[str, int]]:
    cells: dict[int, dict[str, int]] = {}
    for name, value in item.items():
        if (cell := _CELLS.find(name[0])) >= 0:
            cells.setdefault(cell, {})[name[1:]] = value
    return cells


def _summed(cells: dict[int, dict[str, int]]) -> dict[str, int]:
    """One cell that says of all `cells` together what they say each."""
    summed: dict[str, int] = {}
    for content in cells.values():
        for name, value in content.items():
            if name == "<":
                summed[name] = min(value, summed.get(name, _END))
            elif name == ">":
                summed[name] = max(value, summed.get(name, -_END))
            else:
                summed[name] = summed.get(name, 0) + value
    return summed


def _cell_set(table: str, key: Item, cell: int, content: dict[str, int], stale: list[str]) -> Action:
    names = {f"#{i}": f"{_CELLS[cell]}{name}" for i, name in enumerate([*content, *stale])}
    values: Item = {f":{i}": value for i, value in enumerate(content.values())}
    expression = "SET " + ", ".join(f"#{i} = :{i}" for i in range(len(content))) if content else ""
    if stale:
        expression += " REMOVE " + ", ".join(f"#{len(content) + i}" for i in range(len(stale)))
    return dynamo.update_action(table, key, expression.strip(), names=names, values=values)


def _cell_change(table: str, key: Item, cell: int, deltas: dict[str, int], bounds: Item, joined: set[str]) -> Action:
    """Adds to a cell's counts, lists scopes new to its super, and widens its time bounds if that is needed still."""
    moved = {leaf: delta for leaf, delta in deltas.items() if delta}
    names = {f"#{i}": f"{_CELLS[cell]}{leaf}" for i, leaf in enumerate(moved)}
    values: Item = {f":{i}": delta for i, delta in enumerate(moved.values())}
    adds = [f"#{i} :{i}" for i in range(len(moved))]
    if joined:
        adds.append("scopes :joined")
        values[":joined"] = joined
    expression = f"ADD {', '.join(adds)}" if adds else ""
    narrower = []
    for i, (name, value) in enumerate(bounds.items()):
        names[f"#b{i}"] = name
        values[f":b{i}"] = value
        narrower.append(f"attribute_not_exists(#b{i}) OR #b{i} {'>' if name.endswith('<') else '<'} :b{i}")
    if bounds:
        expression += " SET " + ", ".join(f"#b{i} = :b{i}" for i in range(len(bounds)))
    condition = f"({') AND ('.join(narrower)})" if len(narrower) > 1 else "".join(narrower)
    return dynamo.update_action(table, key, expression.strip(), names=names, values=values, condition=condition)
