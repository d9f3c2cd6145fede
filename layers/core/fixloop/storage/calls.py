"""Calls and their grades: the calls table."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from fixloop.calls import Call, CallIn, CallQuery, Standing, kept, received, record_of
from fixloop.errors import Conflict, NotFound
from fixloop.grades import CLAIM_MS, CallGrade
from fixloop.settings import settings
from fixloop.storage import blobs, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

TICK = 16  # every so many rows the list index is given a chance to seal a chunk
FIRST_ASSIGNED = 1_000_000_000  # ids for calls that are still to come
FIRST_POSTED = 2_000_000_000  # and for those that come without one: this and their number in the list
_ATTEMPTS = 6
_SPARE = 64


def _table() -> str:
    return settings().calls_table


_NUMBERS = {"from_number": ("by_from", "ff"), "to_number": ("by_to", "tf")}
_INDEXES = {ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")}
lists = Lists(_table, chunk=32, fan=64, indexes=_INDEXES, whole=("by_org", "wf"))


@dataclass(frozen=True)
class Row:
    """A stored call without its body."""

    org: str
    record: dict[str, Any]
    standing: Standing
    revision: str
    place: Place
    refs: frozenset[str]
    report_ids: frozenset[int]

    @property
    def call_id(self) -> int:
        call_id: int = self.record["call_id"]
        return call_id

    @property
    def agent_id(self) -> int | None:
        agent: int | None = self.record["agent_id"]
        return agent


def key(org: str, call_id: int) -> Item:
    return {"pk": f"{org}#call#{call_id}", "sk": "call"}


def _row(item: Item) -> Row:
    org = item["pk"].partition("#")[0]
    return Row(
        org=org,
        record=record_of(item["doc"]),
        standing=Standing.model_validate(item),
        revision=item["body"],
        place=lists.place(org, item),
        refs=frozenset(item.get("refs", ())),
        report_ids=frozenset(item.get("report_ids", ())),
    )


def find(org: str, call_id: int, *, consistent: bool = True) -> Row:
    """Raises NotFound."""
    item = dynamo.get(_table(), key(org, call_id), consistent=consistent)
    if item is None:
        raise NotFound(f"Call {call_id} not found.")
    return _row(item)


def body(row: Row) -> dict[str, Any]:
    """Transcript, prompt snapshot and the rest that only a detail shows."""
    pk = key(row.org, row.call_id)["pk"]
    try:
        content: dict[str, Any] = blobs.load(_table(), pk, row.revision)
    except LookupError:  # replaced since the row was read
        content = blobs.load(_table(), pk, find(row.org, row.call_id).revision)
    return content


def _place(org: str, n: int, call: Call) -> Place:
    scopes = () if call.agent_id is None else (("agent", str(call.agent_id)),)
    return Place(org, n, call.start, call.leaf, scopes)


def _listed(place: Place, call: Call) -> Item:
    numbers = {
        attribute: f"{place.org}#{call.record[name]}"
        for name, (_, attribute) in _NUMBERS.items()
        if call.record[name] is not None
    }
    return {**lists.attributes(place), **numbers}


def put(org: str, call_id: int, given: CallIn, now: int) -> tuple[Row, bool]:
    """Stores the call as `given`, and whether that made it. The same content twice writes nothing the second time.

    Raises Conflict when its agent changes although reports were filed on it.
    """
    for _ in range(_ATTEMPTS):
        held = dynamo.get(_table(), key(org, call_id))
        known = _row(held) if held else None
        call = received(call_id, given, now, known.place.t if known else None)
        try:
            if known is None:
                return insert(org, call, now), True
            return _replace(known, call, now), False
        except ConditionFailed as refused:
            if not refused.failed(0):
                raise
    raise Contended(f"call {call_id} kept changing")


def insert(org: str, call: Call, now: int, *also: Action, n: int | None = None) -> Row:
    """Stores a call that is new, under the number `n` that `numbered` gave it or one of its own.

    Raises ConditionFailed: at 0 when its id is taken, else for what `also` has.
    """
    pk = key(org, call.call_id)["pk"]
    revision = blobs.store(_table(), pk, "body", call.body)
    if n is None:
        n, _ = lists.allocate(org, now)
    place = _place(org, n, call)
    lists.announce(org, call.leaf)
    item = {
        **key(org, call.call_id),
        **_listed(place, call),
        "at": now,
        "doc": kept(call.record),
        "body": revision,
        "issue_count": 0,
        "critical_issue_count": 0,
    }
    if n % TICK == 0:
        item["tick"] = True
    row = dynamo.put_action(_table(), item, condition="attribute_not_exists(pk)")
    dynamo.write([row, *also])
    return _row(item)


def _replace(known: Row, call: Call, now: int) -> Row:
    revision = f"body#{blobs.digest(call.body)}"
    if known.record == call.record and known.revision == revision:
        return known
    if known.report_ids and known.agent_id != call.agent_id:
        raise Conflict("agent_id cannot change once issue reports were filed on the call.")
    pk = key(known.org, call.call_id)["pk"]
    outdated = None
    if revision != known.revision:
        outdated = blobs.held(_table(), pk, known.revision)
        blobs.store(_table(), pk, "body", call.body)
    place = _place(known.org, known.place.n, call)
    listed = _listed(place, call)
    gone = [name for name in ("af", "ff", "tf") if name not in listed]
    fields = {**listed, "doc": kept(call.record), "body": revision, "changed": now}
    change = dynamo.set_action(
        _table(),
        key(known.org, call.call_id),
        fields,
        remove=gone,
        names={"#body": "body", "#doc": "doc"},
        values={":body": known.revision, ":doc": kept(known.record)},
        condition="#body = :body AND #doc = :doc",
    )
    lists.move(known.place, place, change)
    blobs.discard(_table(), outdated)
    return find(known.org, call.call_id)


def numbered(org: str, now: int) -> tuple[int, int]:
    """A call id nobody has used yet, for a call to be stored at once, and its number in the list.

    Both come from one counter, which saves a write. Ids chosen by callers are stepped over.
    """
    for _ in range(_SPARE):
        n, _ = lists.allocate(org, now)
        if dynamo.get(_table(), key(org, FIRST_POSTED + n)) is None:
            return FIRST_POSTED + n, n
    raise Contended("no free call id was found")


def assign(org: str) -> int:
    """A call id nobody has used yet, for a call that may come later. Ids chosen by callers are stepped over."""
    for _ in range(_SPARE):
        held = dynamo.update(_table(), {"pk": f"{org}#list", "sk": "ids"}, "ADD n :one", values={":one": 1})
        call_id = FIRST_ASSIGNED + int(held["n"])
        if dynamo.get(_table(), key(org, call_id)) is None:
            return call_id
    raise Contended("no free call id was found")


def page(org: str, query: CallQuery) -> tuple[list[Row], int]:
    """The calls of a page, newest arrival first, and how many match."""
    wanted = Filter(
        scope=ORG if query.agent_id is None else f"agent#{query.agent_id}",
        wanted=query.wants,
        since=query.start_date,
        until=query.end_date,
    )
    if query.from_number is None and query.to_number is None and query.phone_number is None:
        found = lists.page(org, wanted, offset=query.offset, limit=query.limit, total=True)
        rows, total = found.rows, found.total or 0
    else:
        matching = _of_numbers(org, query, wanted)
        rows, total = matching[query.offset : query.offset + query.limit], len(matching)
    return [_row(item) for item in dynamo.get_rows(_table(), rows)], total


def _of_numbers(org: str, query: CallQuery, wanted: Filter) -> list[Item]:
    """Index rows of the calls with the asked numbers, newest first. Walks the shorter-lived of its indexes whole."""
    asked = {name: value for name in _NUMBERS if (value := getattr(query, name)) is not None}
    if asked:
        name, value = next(iter(asked.items()))
        found = _walk(org, name, value)
    else:
        found = {**_walk(org, "from_number", query.phone_number), **_walk(org, "to_number", query.phone_number)}
    agent = None if query.agent_id is None else str(query.agent_id)

    def fits(row: Item) -> bool:
        at = lists.place(org, row)
        return (
            query.wants(at.leaf)
            and wanted.covers(at.t)
            and (agent is None or dict(at.scopes).get("agent") == agent)
            and all(row.get(_NUMBERS[name][1]) == f"{org}#{value}" for name, value in asked.items())
            and (query.phone_number is None or f"{org}#{query.phone_number}" in (row.get("ff"), row.get("tf")))
        )

    return sorted(filter(fits, found.values()), key=lambda row: -row["n"])


def _walk(org: str, name: str, value: str | None) -> dict[int, Item]:
    index, attribute = _NUMBERS[name]
    rows = dynamo.query(_table(), f"{attribute} = :number", {":number": f"{org}#{value}"}, IndexName=index)
    return {row["n"]: row for row in rows}


def counted(org: str, call_id: int, ids: list[int], critical: int, refs: list[str]) -> Action:
    """Counts new reports on their call. The condition fails for an unknown call or a ref filed before."""
    values: Item = {":count": len(ids), ":critical": critical, ":ids": set(ids)}
    values |= {f":ref{i}": ref for i, ref in enumerate(refs)}
    conditions = ["attribute_exists(pk)", *(f"NOT contains(refs, :ref{i})" for i in range(len(refs)))]
    adds = "ADD issue_count :count, critical_issue_count :critical, report_ids :ids"
    if refs:
        values[":refs"] = set(refs)
        adds += ", refs :refs"
    return dynamo.update_action(_table(), key(org, call_id), adds, values=values, condition=" AND ".join(conditions))


# Grades


def _grade_key(org: str, call_id: int) -> Item:
    return {"pk": f"{org}#call#{call_id}", "sk": "grade"}


def _kept(grade: CallGrade) -> Item:
    return {"doc": grade.model_dump_json(), "status": grade.status, "claim": grade.claim}


def grade(org: str, call_id: int) -> CallGrade | None:
    item = dynamo.get(_table(), _grade_key(org, call_id))
    return CallGrade.model_validate_json(item["doc"]) if item else None


def claim(row: Row, *, force: bool, now: int, run: str = "") -> tuple[CallGrade, bool]:
    """The call's grade, and whether this caller may now make it: one run at a time, for 15 minutes at most.

    A caller that will come again after it was killed names its `run`, and then may go on at once.
    """
    for _ in range(_ATTEMPTS):
        current = grade(row.org, row.call_id)
        if current and not current.claimable(row.revision, force, now, run):
            return current, False
        fields: dict[str, Any] = {
            "status": "pending",
            "revision": row.revision,
            "claim": run or secrets.token_hex(8),
            "claimed_until": now + CLAIM_MS,
            "updated_at": now,
        }
        if current:
            claimed = current.model_copy(update=fields)
            condition, values = "claim = :claim", {":claim": current.claim}
        else:
            claimed = CallGrade(id=_grade_id(row.org), call_id=row.call_id, created_at=now, **fields)
            condition, values = "attribute_not_exists(pk)", {}
        try:
            dynamo.put(
                _table(),
                {**_grade_key(row.org, row.call_id), **_kept(claimed)},
                condition=condition,
                values=values,
            )
        except ConditionFailed:
            continue
        return claimed, True
    raise Contended(f"the grade of call {row.call_id} kept changing")


def settle(org: str, made: CallGrade) -> bool:
    """Stores a claimed grade with the call's standing in one transaction; False when the claim was lost meanwhile."""
    found = made.found
    standing: Item = {
        "grade_score": made.score,
        "grade_status": made.status,
        "grade_updated_at": made.updated_at,
        "call_outcome": found.get("call_outcome"),
        "goal_achievement": found.get("goal_achievement"),
        "goal_reasoning": found.get("goal_reasoning"),
    }
    try:
        dynamo.write(
            [
                dynamo.put_action(
                    _table(),
                    {**_grade_key(org, made.call_id), **_kept(made)},
                    condition="claim = :claim AND #status = :pending" if made.claim else "attribute_not_exists(pk)",
                    names={"#status": "status"} if made.claim else {},
                    values={":claim": made.claim, ":pending": "pending"} if made.claim else {},
                ),
                dynamo.set_action(_table(), key(org, made.call_id), standing, condition="attribute_exists(pk)"),
            ]
        )
    except ConditionFailed:
        return False
    return True


def _grade_id(org: str) -> int:
    held = dynamo.update(_table(), {"pk": f"{org}#list", "sk": "grades"}, "ADD n :one", values={":one": 1})
    return int(held["n"])


def adopt(row: Row, given: dict[str, Any], make: Any, now: int) -> bool:
    """Keeps a grade made elsewhere, unless the call already has one of its own kind or newer."""
    if grade(row.org, row.call_id) is not None:
        return False
    made: CallGrade = make(_grade_id(row.org), row.call_id, given, row.revision, now)
    return settle(row.org, made)
