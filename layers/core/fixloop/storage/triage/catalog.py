"""What an organisation's triage issues have in common: their categories and the types of their flags."""

from __future__ import annotations

import json
from collections.abc import Callable

from fixloop.storage import dynamo, platform
from fixloop.storage.dynamo import Action, ConditionFailed, Item
from fixloop.storage.triage import rows
from fixloop.times import iso_ms
from fixloop.triage.evidence import Flag, ShownCategory, ShownFlagType, built_in
from fixloop.triage.wire import identifier


def _category_key(org: str, name: str) -> Item:
    return {"pk": f"{org}#categories", "sk": f"category#{name.casefold()}"}


def _type_key(org: str, name: str) -> Item:
    return {"pk": f"{org}#flagtypes", "sk": f"type#{name}"}


def _always(org: str) -> dict[str, ShownCategory]:
    held = platform.org(org)
    return {one["name"].casefold(): one for one in built_in(org, held["created_at"] if held else 0)}


def categories(org: str, limit: int, cursor: str | None) -> tuple[list[ShownCategory], str | None]:
    """In alphabetical order, those that are always there among them. The cursor is the last one's name."""
    after = "" if cursor is None else cursor.casefold()
    values = {":pk": f"{org}#categories", ":low": f"category#{after}", ":high": "category#\U0010ffff"}
    condition = "pk = :pk AND sk BETWEEN :low AND :high"
    stored, _ = dynamo.some(rows.table(), condition, values, limit + 2, ConsistentRead=True)
    found = {**{one["sk"].removeprefix("category#"): json.loads(one["doc"]) for one in stored}, **_always(org)}
    names = sorted(name for name in found if name > after or cursor is None)
    shown = [found[name] for name in names[:limit]]
    return shown, shown[-1]["name"] if len(names) > limit else None


def add_category(
    org: str, name: str, now: int, also: Callable[[ShownCategory], list[Action]]
) -> tuple[ShownCategory, bool]:
    """The category and whether it is new: one that differs in case alone is the same. `also` goes with a new one."""
    known = _always(org).get(name.casefold()) or _category(org, name)
    if known:
        return known, False
    made: ShownCategory = {
        "id": identifier(now, rows.noise()),
        "org_id": org,
        "name": name,
        "created_at": iso_ms(now),
    }
    row = {**_category_key(org, name), "doc": json.dumps(made, ensure_ascii=False)}
    try:
        dynamo.write([rows.put(row, condition="attribute_not_exists(pk)"), *also(made)])
    except ConditionFailed:
        if known := _category(org, name):
            return known, False
        raise
    return made, True


def _category(org: str, name: str) -> ShownCategory | None:
    held = dynamo.get(rows.table(), _category_key(org, name))
    known: ShownCategory | None = json.loads(held["doc"]) if held else None
    return known


def flag_types(org: str, limit: int, cursor: str | None) -> tuple[list[ShownFlagType], str | None]:
    """Every type the organisation has used, in alphabetical order. Raises Invalid."""
    items, following = rows.by_key(f"{org}#flagtypes", "type#", "flag types", limit, cursor)
    return [
        {
            "type": item["sk"].removeprefix("type#"),
            "description": item.get("note", ""),
            "usage_count": item["used"],
            "last_used_at": iso_ms(item["last"]) if "last" in item else None,
        }
        for item in items
    ], following


def flag_type_more(org: str, flag: Flag) -> Action:
    """Counts a new flag on its type, whose newest note it may have."""
    update = "SET #last = :at, note = :note ADD used :one"
    values = {":at": flag.created_at, ":note": flag.note, ":one": 1}
    return dynamo.update_action(rows.table(), _type_key(org, flag.type), update, values=values, names={"#last": "last"})


def flag_type_less(org: str, name: str, count: int) -> Action:
    return dynamo.update_action(rows.table(), _type_key(org, name), "ADD used :count", values={":count": -count})
