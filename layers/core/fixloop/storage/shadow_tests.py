"""Shadow tests, the batches they are cut into and the results of their traces: the shadow tests table.

A test's row carries what was asked and how it stands. Each batch has an item with its tally, and each trace's result
is an item under its batch and position: results and tally are written in one transaction, so that no result is
counted twice and the sums always agree, without workers meeting on one counter.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fixloop.errors import NotFound
from fixloop.settings import settings
from fixloop.shadow_tests import Outcome, ShadowTest, ShadowTestQuery, Tally
from fixloop.storage import blobs, dynamo, issues
from fixloop.storage.documents import Documents, updated
from fixloop.storage.dynamo import Action, ConditionFailed, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

AT_ONCE = 48  # results stored in one transaction
_FITS = 60_000  # bytes of a result that are kept in its item


def _table() -> str:
    return settings().shadow_tests_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "fix": ("by_fix", "xf")})


def key(org: str, test_id: str) -> Item:
    return {"pk": f"{org}#test#{test_id}", "sk": "test"}


def _batch_key(org: str, test_id: str, batch: int) -> Item:
    return {"pk": f"{org}#test#{test_id}", "sk": f"batch#{batch:04d}"}


def _result_key(org: str, test_id: str, position: int) -> Item:
    return {"pk": f"{org}#test#{test_id}", "sk": f"result#{position:05d}"}


def _place(org: str, test: ShadowTest) -> Place:
    return Place(org, test.n, test.created_at, test.leaf, (("fix", test.fix_id),))


def _fields(test: ShadowTest) -> Item:
    return {"status": test.status, "doc": test.model_dump_json(exclude_none=True)}


def test_of(item: Item) -> ShadowTest:
    """The test in a stored item, also in one that came through the table's stream."""
    return ShadowTest.model_validate_json(item["doc"])


_tests = Documents("Shadow test", _table, lists, key, _place, _fields, test_of)
number, find = lists.allocate, _tests.find


def keep_traces(org: str, test_id: str, trace_ids: list[str]) -> str:
    """Stores the ids a test is about, before its row is there, and returns the name to find them by."""
    return blobs.store(_table(), key(org, test_id)["pk"], "traces", trace_ids)


def trace_ids(org: str, test: ShadowTest) -> list[str]:
    ids: list[str] = blobs.load(_table(), key(org, test.id)["pk"], test.traces)
    return ids


def add(org: str, test: ShadowTest, *also: Action) -> None:
    """Stores a new test, and counts it on its issue in the same transaction.

    Raises NotFound when the issue has gone meanwhile, ConditionFailed when one of `also` is refused.
    """
    counted = [issues.tested(org, test.issue_id, 1)] if test.issue_id else []
    try:
        _tests.add(org, test.id, test, *counted, *also)
    except ConditionFailed as refused:
        if counted and refused.failed(1):
            raise NotFound(f"Issue {test.issue_id} not found") from None
        raise


def page(org: str, query: ShadowTestQuery) -> tuple[list[ShadowTest], int]:
    """Newest first, and how many match."""
    scope = ORG if query.fixId is None else f"fix#{query.fixId}"
    return _tests.page(org, Filter(scope, query.wants), query.start, query.limit)


def of_fix(org: str, fix_id: str) -> list[ShadowTest]:
    """All tests of a fix, newest first."""
    return _tests.all(org, Filter(f"fix#{fix_id}"))


def change(org: str, test_id: str, fields: Callable[[ShadowTest], dict[str, Any]], now: int) -> ShadowTest:
    """Sets what `fields` names for the test as it stands; asked anew on each attempt.

    A test that ends is taken off its issue's active ones in the same transaction. Raises NotFound, what `fields`
    raises, and Contended when others keep getting in between.
    """

    def asked(old: ShadowTest) -> tuple[ShadowTest, list[Action]]:
        new = updated(old, fields(old), now)
        if not old.active or new.active:
            return new, []
        ended = new.model_copy(update={"completed_at": new.updated_at})
        return ended, [issues.tested(org, old.issue_id, -1)] if old.issue_id else []

    return _tests.change(org, test_id, asked)


# Results


def tally(org: str, test: ShadowTest) -> Tally:
    """What a test has come to: as it was concluded, or the sum over its batches so far."""
    if test.tally is not None:
        return test.tally
    if test.status == "pending":
        return Tally()
    return sum_of_batches(org, test.id)


def sum_of_batches(org: str, test_id: str) -> Tally:
    values = {":pk": key(org, test_id)["pk"], ":batch": "batch#"}
    items = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :batch)", values, ConsistentRead=True)
    return sum((_tally(item) for item in items), Tally())


def tallies(org: str, tests: list[ShadowTest]) -> list[Tally]:
    """The tally of each of a page's tests."""
    open_ones = [test for test in tests if test.tally is None and test.status != "pending"]
    if not open_ones:
        return [tally(org, test) for test in tests]
    with ThreadPoolExecutor(min(8, len(open_ones))) as pool:
        summed = dict(zip((t.id for t in open_ones), pool.map(lambda t: tally(org, t), open_ones), strict=True))
    return [summed[test.id] if test.id in summed else tally(org, test) for test in tests]


def _tally(item: Item) -> Tally:
    held = {name: item[name] for name in Tally.model_fields if name in item}
    return Tally(**{**held, "cost": held.get("cost", 0) / 1e8})


def stored(org: str, test_id: str, first: int, last: int) -> set[int]:
    """The positions from `first` to `last` that have a result."""
    items = dynamo.query(
        _table(),
        "pk = :pk AND sk BETWEEN :first AND :last",
        _between(org, test_id, first, last),
        ConsistentRead=True,
        ProjectionExpression="sk",
    )
    return {int(item["sk"].removeprefix("result#")) for item in items}


def results(org: str, test_id: str, first: int, last: int) -> list[Outcome]:
    """The results there are from position `first` to `last`, in the order of the traces."""
    between = _between(org, test_id, first, last)
    items = dynamo.query(_table(), "pk = :pk AND sk BETWEEN :first AND :last", between, ConsistentRead=True)
    return [_outcome(item) for item in items]


def failures(org: str, test_id: str, trace_count: int) -> Iterator[Outcome]:
    """Those traces that could not be replayed, in the order of the traces."""
    for item in dynamo.query(
        _table(),
        "pk = :pk AND sk BETWEEN :first AND :last",
        _between(org, test_id, 0, trace_count),
        ConsistentRead=True,
        ProjectionExpression="pk, trace, verdict, #error",
        ExpressionAttributeNames={"#error": "error"},
    ):
        if "verdict" not in item:
            yield Outcome(trace_id=item["trace"], error=item.get("error"))


def _between(org: str, test_id: str, first: int, last: int) -> Item:
    low, high = _result_key(org, test_id, first), _result_key(org, test_id, last)
    return {":pk": low["pk"], ":first": low["sk"], ":last": high["sk"]}


def record(org: str, test_id: str, batch: int, outcomes: dict[int, Outcome]) -> int:
    """Stores the results of up to `AT_ONCE` traces by position, with the batch's tally; how many of them were new.

    A position that has its result already keeps it and is not counted again.
    """
    waiting = dict(outcomes)
    items = {position: _result(org, test_id, position, outcome) for position, outcome in waiting.items()}
    while waiting:
        tallied = Tally()
        for outcome in waiting.values():
            tallied = tallied.with_outcome(outcome)
        puts = [dynamo.put_action(_table(), items[at], condition="attribute_not_exists(pk)") for at in waiting]
        try:
            dynamo.write([*puts, _counted(org, test_id, batch, tallied)])
        except ConditionFailed as refused:
            waiting = {p: o for at, (p, o) in enumerate(waiting.items()) if not refused.failed(at)}
            continue
        return len(waiting)
    return 0


def _counted(org: str, test_id: str, batch: int, tallied: Tally) -> Action:
    counts = {**tallied.model_dump(), "cost": round(tallied.cost * 1e8)}
    moved = {name: value for name, value in counts.items() if value}
    adds = ", ".join(f"#{name} :{name}" for name in moved)
    return dynamo.update_action(
        _table(),
        _batch_key(org, test_id, batch),
        f"ADD {adds}",
        names={f"#{name}": name for name in moved},
        values={f":{name}": value for name, value in moved.items()},
    )


def _result(org: str, test_id: str, position: int, outcome: Outcome) -> Item:
    item: Item = {**_result_key(org, test_id, position), "trace": outcome.trace_id}
    if outcome.verdict:
        item["verdict"] = outcome.verdict
    if outcome.error:
        item["error"] = outcome.error
    content = outcome.model_dump(mode="json", exclude_defaults=True)
    packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"), 5, mtime=0)
    if len(packed) <= _FITS:
        item["gz"] = packed
    else:
        item["body"] = blobs.store(_table(), item["pk"], f"outcome#{position:05d}", content)
    return item


def _outcome(item: Item) -> Outcome:
    if "gz" in item:
        return Outcome.model_validate_json(gzip.decompress(item["gz"]))
    return Outcome.model_validate(blobs.load(_table(), item["pk"], item["body"]))


# Scores of recorded answers that a judge has given


def original(org: str, name: str) -> dict[str, Any] | None:
    """A recorded answer's score under its `replays.original_key`."""
    held = dynamo.get(_table(), {"pk": f"{org}#original#{name}", "sk": "original"})
    return json.loads(held["doc"]) if held else None


def keep_original(org: str, name: str, score: dict[str, Any], expires: int) -> None:
    """`expires` in seconds since 1970."""
    item = {"pk": f"{org}#original#{name}", "sk": "original", "doc": json.dumps(score), "expires": expires}
    dynamo.put(_table(), item)
