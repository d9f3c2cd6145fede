"""The list engine against brute force: it shows what is there, whoever writes, moves, seals or dies meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fixloop.storage import dynamo, lists
from fixloop.storage.dynamo import ConditionFailed
from fixloop.storage.lists import ORG, SETTLED_MS, Filter, Lists, Place
from storage.memory import WRITES, Memory, Twin

O = "org"  # noqa: E741
LEAVES, AGENTS = "xyz", ("1", "2", "3")
SCOPES = (ORG, *(f"agent#{agent}" for agent in AGENTS))


RowKey = Callable[[str, int], dict[str, Any]]


def key(org: str, number: int) -> dict[str, Any]:
    return {"pk": f"{org}#row{number}", "sk": "row"}


def shelf_key(chunk: int) -> RowKey:
    """Rows of a chunk are beside each other."""
    return lambda org, number: {"pk": f"{org}#rows{(number - 1) // chunk}", "sk": f"row{number:06d}"}


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def engine(
    chunk: int = 4,
    supers: int = 3,
    top: int = 2,
    row_key: RowKey | None = None,
    shelved: bool = False,
    whole: bool = False,
    made: type[Memory] = Memory,
) -> Iterator[tuple[Memory, Lists]]:
    """Lists with small chunks, so that all levels are there after a few dozen rows, on tables in this process."""
    row_key = shelf_key(chunk) if shelved else row_key
    memory = made()
    memory.table("rows", ("by_leaf", "lf"), ("by_agent", "af"), ("by_org", "wf"))
    indexes = {ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")}
    all_rows = ("by_org", "wf") if whole else None
    listed = Lists(lambda: "rows", chunk=chunk, indexes=indexes, row_key=row_key, shelved=shelved, whole=all_rows)
    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamo, lists):
            patch.setattr(module, "client", lambda service: memory)
        patch.setattr(lists, "SUPER", supers)
        patch.setattr(lists, "TOP", top)
        yield memory, listed


def _one_after_the_other(act: Callable[[Any], Any], over: Sequence[Any]) -> list[Any]:
    return [act(one) for one in over]


@dataclass
class World:
    """Rows as they should be, beside the lists that show them."""

    listed: Lists
    rows: dict[int, Place] = field(default_factory=dict)
    now: int = 1_000_000_000

    def put(self, leaf: str, agent: str | None, *, back: int = 0) -> Place:
        number, at = self.listed.allocate(O, self.now)
        scopes = () if agent is None else (("agent", agent),)
        place = Place(O, number, at - back, leaf, scopes)
        self.listed.announce(O, leaf)
        dynamo.put("rows", self.item(place))
        self.rows[number] = place
        return place

    def item(self, place: Place) -> dict[str, Any]:
        return {**self.key(place.n), "at": self.now, **self.listed.attributes(place)}

    def key(self, number: int) -> dict[str, Any]:
        return (self.listed.row_key or key)(O, number)

    def move(self, old: Place, new: Place) -> None:
        change = dynamo.put_action(
            "rows",
            self.item(new),
            condition="leaf = :leaf AND t = :t" + (" AND af = :af" if old.scopes else ""),
            values={":leaf": old.leaf, ":t": old.t}
            | ({":af": self.listed.attributes(old)["af"]} if old.scopes else {}),
        )
        self.listed.move(old, new, change)
        self.rows[new.n] = new

    def remove(self, old: Place) -> None:
        self.listed.move(old, None, {"Delete": {"TableName": "rows", "Key": dynamo.pack(self.key(old.n))}})
        del self.rows[old.n]

    def expected(self, wanted: Filter) -> list[int]:
        return [
            number
            for number, place in sorted(self.rows.items(), reverse=True)
            if wanted.wanted(place.leaf) and wanted.scope in place.members() and wanted.covers(place.t)
        ]

    def check(self, wanted: Filter, offset: int, limit: int, *, totals: tuple[bool, ...] = (False, True)) -> None:
        expected = self.expected(wanted)
        for total in totals:
            page = self.listed.page(O, wanted, offset=offset, limit=limit, total=total)
            assert [row["n"] for row in page.rows] == expected[offset : offset + limit]
            assert page.total == (len(expected) if total else None)

    def check_totals(self) -> None:
        """What no cell can hide: totals per scope and leaf, and within times, with a page from the middle."""
        times = sorted(place.t for place in self.rows.values())
        for scope in SCOPES:
            for wanted in (*LEAVES, LEAVES):
                query = Filter(scope, wanted.__contains__)
                self.check(query, len(self.expected(query)) // 2, 2, totals=(True,))
            query = Filter(scope, since=times[len(times) // 4], until=times[len(times) * 3 // 4])
            self.check(query, 1, 2, totals=(True,))
        for query in (Filter(until=times[0]), Filter(since=times[-1])):
            self.check(query, 0, 2, totals=(True,))

    def check_all(self) -> None:
        """Totals and some pages of every scope, set of leaves and kind of time range."""
        times = sorted(place.t for place in self.rows.values()) or [self.now]
        early, late = times[len(times) // 4], times[len(times) * 3 // 4]
        for scope in SCOPES:
            for wanted in ("x", "yz", "xyz"):
                for since, until in ((None, None), (early, None), (None, late), (early, late)):
                    query = Filter(scope, lambda leaf, wanted=wanted: leaf in wanted, since, until)
                    self.check(query, len(self.expected(query)) // 2, 5)
                    self.check(query, 0, 3)
            assert [row["n"] for row in self.listed.walk(O, Filter(scope))] == self.expected(Filter(scope))


class Interrupt:
    """Runs `what` right before or after the `at`-th call on DynamoDB from now on, once."""

    def __init__(self, memory: Memory, at: int, what: Callable[[], None], *, after: bool, only_writes: bool) -> None:
        self.left = at
        self.what = what
        self.only_writes = only_writes
        self.memory = memory
        setattr(memory, "after" if after else "before", self)

    def __call__(self, operation: str) -> None:
        if self.only_writes and operation not in WRITES:
            return
        self.left -= 1
        if self.left == 0:
            self.what()

    def off(self) -> None:
        self.left = 0
        self.memory.before = self.memory.after = lambda operation: None


agents = st.sampled_from([None, *AGENTS])
leaves = st.sampled_from(LEAVES)
steps = st.integers(1, 12)


class ListsAgainstBruteForce(RuleBasedStateMachine):
    """Any history of writes, with sealers and movers stopped or overtaken between any two of their calls."""

    @initialize(
        kind=st.sampled_from(["unordered", "ordered", "shelved"]), whole=st.booleans(), chunk=st.sampled_from([4, 16])
    )
    def start(self, kind: str, whole: bool, chunk: int) -> None:
        unordered = kind == "unordered"
        self.context = engine(chunk, row_key=None if unordered else key, shelved=kind == "shelved", whole=whole)
        self.memory, listed = self.context.__enter__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(lists, "_mapped", _one_after_the_other)
        self.world = World(listed)
        self.unordered = unordered

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.listed.seal(O, self.world.now + 2 * SETTLED_MS)
            self.world.check_all()
            self.patch.undo()
            self.context.__exit__(None, None, None)

    def pick(self, index: int) -> Place | None:
        rows = self.world.rows
        return rows[sorted(rows)[index % len(rows)]] if rows else None

    def moved(self, place: Place, leaf: str, agent: str | None, dt: int) -> Place:
        t = place.t + dt if self.unordered else place.t
        return replace(place, leaf=leaf, scopes=() if agent is None else (("agent", agent),), t=t)

    @rule(count=st.integers(1, 9), leaf=leaves, agent=agents, back=st.integers(0, 20_000))
    def rows_come_in(self, count: int, leaf: str, agent: str | None, back: int) -> None:
        for index in range(count):
            self.world.now += 500
            code = LEAVES[(LEAVES.index(leaf) + index) % 3]
            self.world.put(code, agent if index % 2 else None, back=back if self.unordered and index % 3 == 0 else 0)

    @rule(count=st.integers(1, 3))
    def numbers_stay_without_rows(self, count: int) -> None:
        self.world.listed.allocate(O, self.world.now, count)

    @rule(index=st.integers(0, 200), leaf=leaves, agent=agents, dt=st.integers(-30_000, 30_000))
    def a_row_moves(self, index: int, leaf: str, agent: str | None, dt: int) -> None:
        if place := self.pick(index):
            self.world.move(place, self.moved(place, leaf, agent, dt))

    @rule(index=st.integers(0, 200))
    def a_row_goes(self, index: int) -> None:
        if place := self.pick(index):
            self.world.remove(place)

    @rule(later=st.booleans())
    def chunks_are_sealed(self, later: bool) -> None:
        self.world.now += SETTLED_MS if later else 100
        self.world.listed.seal(O, self.world.now)

    @rule(at=steps, after=st.booleans())
    def a_sealer_dies(self, at: int, after: bool) -> None:
        def die() -> None:
            raise Killed

        interrupt = Interrupt(self.memory, at, die, after=after, only_writes=True)
        try:
            self.world.listed.seal(O, self.world.now)
        except Killed:
            pass
        finally:
            interrupt.off()

    @rule(
        at=st.integers(1, 25),
        after=st.booleans(),
        index=st.integers(0, 200),
        leaf=leaves,
        agent=agents,
        sealed=st.booleans(),
    )
    def a_sealer_is_overtaken(
        self, at: int, after: bool, index: int, leaf: str, agent: str | None, sealed: bool
    ) -> None:
        """While it stands still another seals what it was at, and rows move."""

        def overtake() -> None:
            if sealed:
                self.world.listed.seal(O, self.world.now)
            self.a_row_moves(index, leaf, agent, 40_000)

        interrupt = Interrupt(self.memory, at, overtake, after=after, only_writes=False)
        self.world.listed.seal(O, self.world.now)
        interrupt.off()

    @precondition(lambda self: len(self.world.rows) > 1)
    @rule(
        at=st.integers(1, 8),
        after=st.booleans(),
        index=st.integers(0, 200),
        other=st.integers(0, 200),
        leaf=leaves,
        agent=agents,
        dt=st.integers(-50_000, 50_000),
    )
    def a_mover_is_overtaken(
        self, at: int, after: bool, index: int, other: int, leaf: str, agent: str | None, dt: int
    ) -> None:
        """By a sealer, and by the mover of another row."""
        place, second = self.pick(index), self.pick(other)
        assert place
        assert second

        def overtake() -> None:
            self.world.listed.seal(O, self.world.now)
            if second.n != place.n:
                self.world.move(second, self.moved(second, "y", agent, dt // 2))

        interrupt = Interrupt(self.memory, at, overtake, after=after, only_writes=False)
        self.world.move(place, self.moved(place, leaf, agent, dt))
        interrupt.off()

    @rule(
        scope=st.sampled_from(SCOPES),
        wanted=st.sets(leaves, min_size=1),
        since=st.none() | st.integers(0, 200),
        until=st.none() | st.integers(0, 200),
        offset=st.integers(0, 60),
        limit=st.integers(1, 20),
    )
    def a_page_is_right(
        self, scope: str, wanted: set[str], since: int | None, until: int | None, offset: int, limit: int
    ) -> None:
        first, last = (place.t if (place := self.pick(index)) else None for index in (since or 0, until or 0))
        query = Filter(scope, wanted.__contains__, None if since is None else first, None if until is None else last)
        self.world.check(query, offset, limit)

    @rule(
        at=st.integers(1, 8),
        wanted=st.sets(leaves, min_size=1),
        offset=st.integers(0, 40),
        scope=st.sampled_from(SCOPES),
    )
    def a_reader_does_not_notice_a_sealer(self, at: int, wanted: set[str], offset: int, scope: str) -> None:
        interrupt = Interrupt(
            self.memory, at, lambda: void(self.world.listed.seal(O, self.world.now)), after=False, only_writes=False
        )
        self.world.check(Filter(scope, wanted.__contains__), offset, 6)
        interrupt.off()


def void(_: object) -> None:
    """For callbacks whose result nobody wants."""


TestListsAgainstBruteForce = ListsAgainstBruteForce.TestCase
TestListsAgainstBruteForce.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes: add it for a failure
    suppress_health_check=list(HealthCheck),
)


def filled(listed: Lists, count: int, *, ordered: bool = True) -> World:
    world = World(listed)
    for index in range(count):
        world.now += 1000
        back = 0 if ordered else (index * 7919) % 30_000
        world.put(LEAVES[index % 3], AGENTS[index % 2] if index % 4 else None, back=back)
    return world


def steps_of(act: Callable[[World], object], count: int, sealed: bool) -> int:
    """How many calls on DynamoDB `act` makes when nothing comes in between."""
    with engine(supers=2) as (memory, listed):
        world = filled(listed, count)
        if sealed:
            listed.seal(O, world.now)
        before = sum(memory.calls.values())
        act(world)
        return sum(memory.calls.values()) - before


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves are read one after the other, so that the k-th call is always the same one."""
    monkeypatch.setattr(lists, "_mapped", _one_after_the_other)


@pytest.mark.usefixtures("in_order")
def test_a_sealer_that_was_overtaken_at_any_step_changes_nothing() -> None:
    """The other sealed the same chunk and then rows in it moved; or rows moved while nobody had sealed it."""
    for others_seal in (True, False):
        for step in range(1, steps_of(lambda world: world.listed.seal(O, world.now), 8, False) + 1):
            with engine(supers=2) as (memory, listed):
                world = filled(listed, 8)

                def overtake(world: World = world, others_seal: bool = others_seal) -> None:
                    if others_seal:
                        world.listed.seal(O, world.now)
                    for number in (1, 2, 6, 7):
                        old = world.rows[number]
                        world.move(old, replace(old, leaf="z" if old.leaf == "x" else "x", scopes=(("agent", "3"),)))

                interrupt = Interrupt(memory, step, overtake, after=False, only_writes=False)
                listed.seal(O, world.now)
                interrupt.off()
                listed.seal(O, world.now)
                world.check_totals()


@pytest.mark.usefixtures("in_order")
def test_a_sealer_killed_at_any_step_is_taken_over_by_the_next() -> None:
    def die() -> None:
        raise Killed

    for step in range(1, steps_of(lambda world: world.listed.seal(O, world.now), 8, False) + 1):
        for after in (False, True):
            with engine(supers=2) as (memory, listed):
                world = filled(listed, 8)
                interrupt = Interrupt(memory, step, die, after=after, only_writes=False)
                with pytest.raises(Killed):
                    listed.seal(O, world.now)
                interrupt.off()
                world.check_totals()
                old = world.rows[2]
                world.move(old, replace(old, leaf="z", scopes=(("agent", "3"),)))
                listed.seal(O, world.now)
                world.check_totals()


@pytest.mark.usefixtures("in_order")
def test_a_mover_overtaken_at_any_step_leaves_the_counts_right() -> None:
    """By a sealer closing its chunk or super, and by another row that widens the same chunk's times."""

    def act(world: World) -> None:
        old = world.rows[3]
        world.move(old, replace(old, leaf="y", t=old.t - 90_000, scopes=(("agent", "3"),)))

    for sealed in (False, True):
        for step in range(1, steps_of(act, 8 if sealed else 10, sealed) + 2):
            with engine(supers=2) as (memory, listed):
                world = filled(listed, 8 if sealed else 10, ordered=True)
                if sealed:
                    listed.seal(O, world.now)

                def overtake(world: World = world) -> None:
                    world.listed.seal(O, world.now)
                    other = world.rows[2]
                    world.move(other, replace(other, leaf="z", t=other.t - 100_000))

                interrupt = Interrupt(memory, step, overtake, after=False, only_writes=False)
                act(world)
                interrupt.off()
                world.check_totals()


def test_a_row_that_joins_an_agent_after_its_chunk_was_sealed_is_counted_there_also_when_the_super_closes() -> None:
    with engine() as (_, listed):
        world = World(listed)
        for _ in range(4):
            world.put("x", "1")
        assert listed.seal(O, world.now) == 1
        world.move(world.rows[2], replace(world.rows[2], scopes=(("agent", "2"),)))
        for _ in range(20):
            world.put("x", None)
        assert listed.seal(O, world.now) == 5
        world.check_totals()


def test_a_number_without_a_row_holds_up_sealing_for_a_minute_and_no_longer() -> None:
    with engine() as (_, listed):
        world = filled(listed, 3)
        listed.allocate(O, world.now)
        filler = filled(listed, 4)
        world.rows |= filler.rows
        assert listed.seal(O, filler.now) == 0
        assert listed.seal(O, filler.now + SETTLED_MS - 1) == 0
        assert listed.seal(O, filler.now + SETTLED_MS) == 2
        world.check_totals()


@pytest.mark.parametrize("shelved", [False, True])
def test_writers_movers_and_sealers_at_once_leave_exact_lists_and_no_reader_of_a_fixed_past_sees_a_row_twice(
    shelved: bool,
) -> None:
    """Real threads. Pages with a fixed end date hold exactly the rows that were there before, all the time."""
    with engine(chunk=8, row_key=key, shelved=shelved) as (_, listed):
        world = filled(listed, 60)
        fixed = Filter(until=world.now)
        frozen = world.expected(fixed)
        clock = world.now
        done = threading.Event()
        wrong: list[list[int]] = []

        def write(number: int) -> None:
            chance = random.Random(number)
            mine: list[Place] = []
            for step in range(30):
                world.now = clock + 1 + step * 100
                if mine and chance.random() < 0.4:
                    old = mine.pop(chance.randrange(len(mine)))
                    new = replace(old, leaf=chance.choice(LEAVES))
                    world.move(old, new)
                    mine.append(new)
                else:
                    mine.append(world.put(chance.choice(LEAVES), chance.choice(AGENTS)))

        def move_old(first: int) -> None:
            chance = random.Random(first)
            for number in range(first, 61, 2):
                world.move(world.rows[number], replace(world.rows[number], leaf=chance.choice(LEAVES)))

        def seal() -> None:  # at the writers' time: to one far ahead, a number whose row is on its way would be a gap
            while not done.is_set():
                listed.seal(O, world.now)

        def read() -> None:
            while not done.is_set():
                seen: list[int] = []
                while page := listed.page(O, fixed, offset=len(seen), limit=7).rows:
                    seen += [row["n"] for row in page]
                if seen != frozen:
                    wrong.append(seen)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        background = [threading.Thread(target=target) for target in (seal, seal, read)]
        for thread in writers + background:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in background:
            thread.join()
        assert not wrong
        movers = [threading.Thread(target=move_old, args=(first,)) for first in (1, 2)]
        for thread in movers:
            thread.start()
        for thread in movers:
            thread.join()
        listed.seal(O, clock + 100_000_000)
        assert len(world.rows) == len({place.n for place in world.rows.values()})
        world.check_all()


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("whence", "where"), [("x", "z"), ("z", "x")])
@pytest.mark.parametrize("together", ["", "whole", "shelved"])
def test_a_row_that_changes_its_leaf_at_any_step_of_a_read_is_neither_lost_nor_met_twice(
    sealed: bool, whence: str, where: str, together: str
) -> None:
    """It matches before and after, so it stays where it is in the list, whichever leaf was read first."""
    moving = next(number for number in range(1, 31) if LEAVES[(number - 1) % 3] == whence)
    for offset in (0, 11, 25):
        step, done = 0, False
        while not done:
            step += 1
            with engine(supers=2, whole=together == "whole", shelved=together == "shelved") as (memory, listed):
                world = filled(listed, 30)
                if sealed:
                    listed.seal(O, world.now)

                def move(world: World = world) -> None:
                    world.move(world.rows[moving], replace(world.rows[moving], leaf=where))

                interrupt = Interrupt(memory, step, move, after=False, only_writes=False)
                page = listed.page(O, Filter(), offset=offset, limit=10, total=True)
                done = interrupt.left > 0
                interrupt.off()
                assert [row["n"] for row in page.rows] == list(range(30 - offset, max(0, 20 - offset), -1)), step
                assert page.total == 30, step


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("row_key", "shelved"), [(None, False), (key, False), (key, True)])
def test_ministack_answers_all_that_the_lists_ask_as_these_tables_do(
    whole: bool, row_key: RowKey | None, shelved: bool
) -> None:
    chance = random.Random(5)
    with engine(whole=whole, row_key=row_key, shelved=shelved, made=Twin) as (memory, listed):
        world = filled(listed, 20, ordered=row_key is not None)
        for _ in range(3):
            for number in chance.sample(sorted(world.rows), 6):
                old = world.rows[number]
                world.move(old, replace(old, leaf=chance.choice(LEAVES), scopes=(("agent", chance.choice(AGENTS)),)))
            world.remove(world.rows[chance.choice(sorted(world.rows))])
            there = world.rows[max(world.rows)]
            with pytest.raises(ConditionFailed):
                world.move(replace(there, t=there.t - 1), replace(there, leaf="y"))
            listed.seal(O, world.now)
            world.check_totals()
            for _ in range(5):
                world.put(chance.choice(LEAVES), chance.choice(AGENTS))
        listed.seal(O, world.now + 2 * SETTLED_MS)
        world.check_totals()
        assert set(memory.calls) >= {"get_item", "query", "put_item", "update_item", "transact_write_items"}
