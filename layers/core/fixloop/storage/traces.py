"""Traces: the traces table. A row for lists, the trace itself beside it, compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

from fixloop.errors import NotFound
from fixloop.settings import settings
from fixloop.storage import blobs, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place
from fixloop.traces import Span, Trace, TraceListed, joined, listed, of_spans

TICK = 16
_ATTEMPTS = 10
SHOWN = 4000  # characters of a list's view of a trace that its row still holds; a longer one is read from the trace
LEAVES = {"success": "0", "failure": "1", None: "2"}


def _table() -> str:
    return settings().traces_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")})


def key(org: str, trace_id: str) -> Item:
    return {"pk": f"{org}#trace#{trace_id}", "sk": "trace"}


def _in_session(org: str, trace: Trace) -> list[Action]:
    """The write by which a trace is found in its session, if it names one."""
    if not trace.session_id:
        return []
    row = {**_session_key(org, trace.session_id), "sk": f"{trace.created_at:015d}#{trace.id}", "trace": trace.id}
    return [dynamo.put_action(_table(), row)]


def _session_key(org: str, session_id: str) -> Item:
    return {"pk": f"{org}#session#{session_id}"}


def last_of_session(org: str, session_id: str) -> str | None:
    """The id of the latest trace that names a session."""
    values = {":pk": _session_key(org, session_id)["pk"]}
    options = {"ScanIndexForward": False, "Limit": 1, "ConsistentRead": True}
    return next((row["trace"] for row in dynamo.query(_table(), "pk = :pk", values, **options)), None)


def _place(org: str, n: int, trace: Trace) -> Place:
    return Place(org, n, trace.created_at, LEAVES[trace.outcome], (("agent", trace.agent_id),))


def add(org: str, trace: Trace, now: int, *also: Action) -> bool:
    """Stores a trace, and tells whether its id was new; one that is there stays as it is."""
    pk = key(org, trace.id)["pk"]
    body = blobs.store(_table(), pk, "body", trace.model_dump(mode="json", exclude_defaults=True))
    n, _ = lists.allocate(org, now)
    place = _place(org, n, trace)
    lists.announce(org, place.leaf)
    item = {**key(org, trace.id), **lists.attributes(place), "at": now, "body": body, "view": _view(trace)}
    if n % TICK == 0:
        item["tick"] = True
    try:
        row = dynamo.put_action(_table(), item, condition="attribute_not_exists(pk)")
        dynamo.write([row, *also, *_in_session(org, trace)])
    except ConditionFailed as refused:
        if refused.failed(0):
            return False
        raise
    return True


def find(org: str, trace_id: str) -> Trace:
    """Raises NotFound."""
    held = _held(key(org, trace_id))
    if held is None:
        raise NotFound(f"Trace {trace_id} not found")
    return Trace.model_validate(held[1])


def find_many(org: str, trace_ids: Iterable[str]) -> dict[str, Trace]:
    """Those of the traces that there are, by id."""
    rows = dynamo.get_many(_table(), (key(org, one) for one in trace_ids), consistent=True)
    bodies = dynamo.get_many(_table(), ({"pk": row["pk"], "sk": row["body"]} for row in rows), consistent=True)
    inline = {item["pk"]: item["gz"] for item in bodies if "gz" in item}
    found = {}
    for row in rows:
        trace_id = row["pk"].removeprefix(f"{org}#trace#")
        packed = inline.get(row["pk"])
        if packed is None:  # in the bucket, or replaced in between
            held = _held({"pk": row["pk"], "sk": row["sk"]})
            if held is not None:
                found[trace_id] = Trace.model_validate(held[1])
        else:
            found[trace_id] = Trace.model_validate_json(gzip.decompress(packed))
    return found


def _held(where: Item) -> tuple[Item, Any] | None:
    """An item and the body it points at, read again when that was replaced in between."""
    for _ in range(_ATTEMPTS):
        item = dynamo.get(_table(), where)
        if item is None:
            return None
        try:
            return item, blobs.load(_table(), item["pk"], item["body"])
        except LookupError:
            continue
    raise Contended(f"{where['pk']} kept changing")


def look(org: str, trace_id: str) -> Trace | None:
    held = _held(key(org, trace_id))
    return Trace.model_validate(held[1]) if held else None


def missing(org: str, trace_ids: Iterable[str]) -> list[str]:
    """Those of the ids that name no trace, in their order."""
    wanted = list(trace_ids)
    items = dynamo.get_many(_table(), (key(org, one) for one in wanted))
    known = {item["pk"] for item in items}
    return [one for one in wanted if key(org, one)["pk"] not in known]


def replace(org: str, trace: Trace, item: Item) -> None:
    """Stores a trace anew over its `item`: one that grew by another batch of its spans.

    Raises ConditionFailed when another batch was first.
    """
    pk = item["pk"]
    body = blobs.store(_table(), pk, "body", trace.model_dump(mode="json", exclude_defaults=True))
    place = _place(org, item["n"], trace)
    fields = {**lists.attributes(place), "body": body, "view": _view(trace)}
    change = dynamo.set_action(
        _table(),
        key(org, trace.id),
        fields,
        names={"#body": "body"},
        values={":body": item["body"]},
        condition="#body = :body",
    )
    old = blobs.held(_table(), pk, item["body"]) if body != item["body"] else None
    lists.move(lists.place(org, item), place, change, *_in_session(org, trace))
    blobs.discard(_table(), old)


def gather(org: str, trace_id: str, agent_id: str, spans: list[Span], now: int) -> Trace | None:
    """Adds a batch of an exporter's spans to their trace; None as long as no span of it holds an answer.

    Batches may come in any order, again, and at the same time.
    """
    trace_key = key(org, trace_id)
    waiting_key = {"pk": trace_key["pk"], "sk": "waiting"}
    for _ in range(_ATTEMPTS):
        held = _held(trace_key)
        if held is not None:
            known = Trace.model_validate(held[1])
            grown = of_spans(trace_id, known.agent_id, joined(known.spans, spans), now) or known
            if grown != known:
                try:
                    replace(org, grown, held[0])
                except ConditionFailed:
                    continue
            return grown
        waiting = _held(waiting_key)
        before = [Span.model_validate(one) for one in waiting[1]] if waiting else []
        together = joined(before, spans)
        if waiting and together == before:
            return None
        old = waiting[0]["body"] if waiting else None
        waste = blobs.held(_table(), trace_key["pk"], old) if old else None
        trace = of_spans(trace_id, agent_id, together, now)
        try:
            if trace is not None:
                if not add(org, trace, now, _removed(waiting_key, old)):
                    continue
            else:
                body = blobs.store(
                    _table(), trace_key["pk"], "spans", [one.model_dump(mode="json") for one in together]
                )
                dynamo.write([_waits(waiting_key, body, old), _removed(trace_key, None)])
        except ConditionFailed:
            continue
        blobs.discard(_table(), waste)
        return trace
    raise Contended(f"trace {trace_id} kept changing")


def _waits(where: Item, body: str, old: str | None) -> Action:
    """The write that lets spans wait for their answer, if still those of `old` do."""
    return dynamo.put_action(
        _table(),
        {**where, "body": body},
        condition="body = :old" if old else "attribute_not_exists(pk)",
        values={":old": old} if old else {},
    )


def _removed(where: Item, body: str | None) -> Action:
    """The write that removes an item which still points at `body`; None for one that must not be there."""
    if body is None:
        return dynamo.delete_action(_table(), where, condition="attribute_not_exists(pk)")
    return dynamo.delete_action(_table(), where, condition="body = :body", values={":body": body})


def _view(trace: Trace) -> str:
    view = json.dumps(listed(trace), ensure_ascii=False)
    return view if len(view) <= SHOWN else ""


def page(org: str, wanted: Filter, offset: int, limit: int) -> tuple[list[TraceListed], int]:
    """Traces as a list shows them, newest arrival first, and how many match."""
    found = lists.page(org, wanted, offset=offset, limit=limit, total=True)
    return [_listed(item) for item in dynamo.get_rows(_table(), found.rows)], found.total or 0


def _listed(item: Item) -> TraceListed:
    """A row's view; a row without one has a trace too long for it, which may have grown since."""
    if item["view"]:
        view: TraceListed = json.loads(item["view"])
        return view
    held = _held({"pk": item["pk"], "sk": item["sk"]})
    return listed(Trace.model_validate((held or (item, {}))[1]))
