"""Traces: the traces table. A row for lists, the trace itself beside it, compressed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fixloop.errors import NotFound
from fixloop.settings import settings
from fixloop.storage import blobs, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place
from fixloop.traces import Span, Trace, joined, listed, of_spans

TICK = 16
_ATTEMPTS = 10
SHOWN = 4000  # characters of a list's view of a trace that its row still holds; a longer one is read from the trace
LEAVES = {"success": "0", "failure": "1", None: "2"}


def _table() -> str:
    return settings().traces_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")})


def key(org: str, trace_id: str) -> Item:
    return {"pk": f"{org}#trace#{trace_id}", "sk": "trace"}


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
        dynamo.write([dynamo.put_action(_table(), item, condition="attribute_not_exists(pk)"), *also])
    except ConditionFailed as refused:
        if refused.failed(0):
            return False
        raise
    return True


def find(org: str, trace_id: str) -> Trace:
    """Raises NotFound."""
    item = dynamo.get(_table(), key(org, trace_id))
    if item is None:
        raise NotFound(f"Trace {trace_id} not found")
    return _loaded(item)


def _loaded(item: Item) -> Trace:
    content: dict[str, Any] = blobs.load(_table(), item["pk"], item["body"])
    return Trace.model_validate(content)


def missing(org: str, trace_ids: Iterable[str]) -> list[str]:
    """Those of the ids that name no trace, in their order."""
    wanted = list(trace_ids)
    items = dynamo.get_many(_table(), (key(org, one) for one in wanted))
    known = {item["pk"] for item in items}
    return [one for one in wanted if key(org, one)["pk"] not in known]


def replace(org: str, trace: Trace) -> None:
    """Stores a trace anew under its id: one that grew by another batch of its spans. Raises NotFound."""
    pk = key(org, trace.id)["pk"]
    item = dynamo.get(_table(), key(org, trace.id))
    if item is None:
        raise NotFound(f"Trace {trace.id} not found")
    body = blobs.store(_table(), pk, "body", trace.model_dump(mode="json", exclude_defaults=True))
    place = _place(org, item["n"], trace)
    fields = {**lists.attributes(place), "body": body, "view": _view(trace)}
    change = dynamo.update_action(
        _table(),
        key(org, trace.id),
        "SET " + ", ".join(f"#{at} = :{at}" for at in range(len(fields))),
        names={f"#{at}": name for at, name in enumerate(fields)} | {"#body": "body"},
        values={f":{at}": value for at, value in enumerate(fields.values())} | {":body": item["body"]},
        condition="#body = :body",
    )
    old = blobs.held(_table(), pk, item["body"]) if body != item["body"] else None
    lists.move(lists.place(org, item), place, change)
    blobs.discard(_table(), old)


def gather(org: str, trace_id: str, agent_id: str, spans: list[Span], now: int) -> Trace | None:
    """Adds a batch of an exporter's spans to their trace; None as long as no span of it holds an answer.

    Batches may come in any order, again, and at the same time.
    """
    pk = key(org, trace_id)["pk"]
    for _ in range(_ATTEMPTS):
        item = dynamo.get(_table(), key(org, trace_id))
        if item is not None:
            known = _loaded(item)
            grown = of_spans(trace_id, known.agent_id, joined(known.spans, spans), now) or known
            try:
                replace(org, grown)
            except ConditionFailed:
                continue
            return grown
        waiting = dynamo.get(_table(), {"pk": pk, "sk": "waiting"})
        held = [Span.model_validate(one) for one in blobs.load(_table(), pk, waiting["body"])] if waiting else []
        together = joined(held, spans)
        trace = of_spans(trace_id, agent_id, together, now)
        if trace is not None:
            if not add(org, trace, now):
                continue
            if waiting:
                blobs.discard(_table(), blobs.held(_table(), pk, waiting["body"]))
                dynamo.delete(_table(), {"pk": pk, "sk": "waiting"})
            return trace
        body = blobs.store(_table(), pk, "spans", [one.model_dump(mode="json") for one in together])
        try:
            dynamo.put(
                _table(),
                {"pk": pk, "sk": "waiting", "body": body},
                condition="body = :body" if waiting else "attribute_not_exists(pk)",
                values={":body": waiting["body"]} if waiting else {},
            )
        except ConditionFailed:
            continue
        return None
    raise Contended(f"trace {trace_id} kept changing")


def _view(trace: Trace) -> str:
    view = json.dumps(listed(trace), ensure_ascii=False)
    return view if len(view) <= SHOWN else ""


def page(org: str, wanted: Filter, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Traces as a list shows them, newest arrival first, and how many match."""
    found = lists.page(org, wanted, offset=offset, limit=limit, total=True)
    items = dynamo.get_many(_table(), ({"pk": row["pk"], "sk": row["sk"]} for row in found.rows))
    ordered = sorted(items, key=lambda item: -item["n"])
    return [json.loads(item["view"]) if item["view"] else listed(_loaded(item)) for item in ordered], found.total or 0
