"""Rows of the triage table: an issue, what hangs on it, and the one way in which they change.

Everything that belongs to an issue lies under its partition key. Whatever happens to it is one transaction that holds
only while the issue has the version it was read with: counts, timeline, index keys and search words never disagree.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from fixloop.errors import NotFound
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.triage.activity import Entry, ShownEntry
from fixloop.triage.issues import Issue
from fixloop.triage.queries import moment, scope_values
from fixloop.triage.wire import fingerprint, identifier, is_identifier, list_cursor, list_key
from fixloop.triage.words import words

TRANSACTION = 100
_ATTEMPTS = 30
SCOPES = tuple("".join(some) for size in range(1, 4) for some in combinations("cws", size))
_known: set[tuple[str, str]] = set()


def table() -> str:
    return settings().triage_table


def noise() -> int:
    return secrets.randbits(74)


def identified(issue: Issue, at: int = 0) -> str:
    """An id for what an issue got with this version: sorted by version and `at` (below 128) within a millisecond."""
    return identifier(issue.last_activity_at, issue.version % 4096 << 62 | at << 55 | secrets.randbits(55))


def _pk(org: str, issue_id: str) -> str:
    return f"{org}#ti#{issue_id}"


def key(org: str, issue_id: str, sk: str = "issue") -> Item:
    return {"pk": _pk(org, issue_id), "sk": sk}


def counter_key(org: str, name: str) -> Item:
    return {"pk": f"{org}#list", "sk": name}


def word_key(org: str, word: str, issue_id: str) -> Item:
    return {"pk": f"{org}#word#{word[:2]}", "sk": f"{word}#{issue_id}"}


def put(item: Item, **options: Any) -> Action:
    return dynamo.put_action(table(), item, **options)


def deletion(where: Item) -> Action:
    return dynamo.delete_action(table(), where)


# Issues


def hashes(org: str, scopes: str, values: Sequence[str], leaf: str) -> str:
    """The hash key of an index; `scopes` is empty for that of all issues of a leaf."""
    return f"{org}#{leaf}#{fingerprint(values)}" if scopes else f"{org}#{leaf}"


def _index_keys(org: str, issue: Issue) -> Item:
    given = scope_values(issue)
    keys = {"g": org, "h": hashes(org, "", (), issue.leaf)}
    for scopes in SCOPES:
        values = [given[letter] for letter in scopes]
        if None not in values:
            keys[f"h{scopes}"] = hashes(org, scopes, values, issue.leaf)
    return keys


def _fields(org: str, issue: Issue) -> Item:
    return {
        **_index_keys(org, issue),
        "id": issue.id,
        "act": moment(issue),
        "v": issue.version,
        "doc": issue.model_dump_json(),
    }


def issue_of(item: Item) -> Issue:
    return Issue.model_validate_json(item["doc"])


def look(org: str, issue_id: str) -> Issue | None:
    item = dynamo.get(table(), key(org, issue_id)) if is_identifier(issue_id) else None
    return issue_of(item) if item else None


def find(org: str, issue_id: str) -> Issue:
    """Raises NotFound."""
    issue = look(org, issue_id)
    if issue is None:
        raise NotFound("Issue not found")
    return issue


def find_many(org: str, issue_ids: Sequence[str]) -> dict[str, Issue]:
    """Those of the issues that exist, by id."""
    items = dynamo.get_many(table(), (key(org, one) for one in dict.fromkeys(issue_ids)), consistent=True)
    return {issue.id: issue for issue in map(issue_of, items)}


def inserted(org: str, issue: Issue) -> Action:
    return put({**key(org, issue.id), **_fields(org, issue)}, condition="attribute_not_exists(pk)")


def _unchanged(issue: Issue) -> dict[str, Any]:
    """The condition under which an issue's row is written: that nothing has happened to it since it was read."""
    return {"names": {"#v": "v"}, "values": {":v": issue.version}, "condition": "#v = :v"}


def _replaced(org: str, old: Issue, new: Issue) -> Action:
    fields = _fields(org, new)
    gone = _index_keys(org, old).keys() - fields.keys()
    return dynamo.set_action(table(), key(org, old.id), fields, remove=sorted(gone), **_unchanged(old))


def _removed(org: str, issue: Issue) -> Action:
    """The write that takes an issue's row away, unless something happened to it."""
    return dynamo.delete_action(table(), key(org, issue.id), **_unchanged(issue))


def announce(org: str, leaf: str) -> None:
    """Makes a leaf known to readers before the first issue in it appears. One write per leaf and process."""
    if (org, leaf) not in _known:
        update = "SET rev = if_not_exists(rev, :zero) ADD leaves :leaf"
        dynamo.update(table(), counter_key(org, "mark"), update, values={":zero": 0, ":leaf": {leaf}})
        _known.add((org, leaf))


def mark(org: str) -> tuple[set[str], int]:
    """The leaves there ever were, and a number that changes when an issue goes to another place of an index."""
    held = dynamo.get(table(), counter_key(org, "mark")) or {"leaves": set(), "rev": 0}
    return held["leaves"], held["rev"]


# Timeline


def entry_actions(org: str, issue: Issue, entries: Sequence[Entry]) -> list[tuple[Action, ShownEntry]]:
    """The writes that put entries on an issue that has just come to its version."""
    made = []
    for at, entry in enumerate(entries):
        shown = entry.shown(identified(issue, at), issue.id, issue.last_activity_at)
        row = {**key(org, issue.id, f"act#{issue.version:010d}#{at:03d}"), "doc": json.dumps(shown, ensure_ascii=False)}
        made.append((put(row), shown))
    return made


# Changing


@dataclass
class Step:
    """One issue as it was and as it becomes, with what its timeline says of it."""

    old: Issue
    new: Issue
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Change:
    """What happens in one transaction: steps of issues, further writes on what hangs on them, an issue deleted."""

    steps: list[Step]
    actions: list[Action] = field(default_factory=list)
    gone: Issue | None = None


Also = Callable[[list[ShownEntry]], list[Action]]
"""What else to write in the transaction, told the entries that it makes."""


def nothing_more(_: object) -> list[Action]:
    return []


def change(org: str, ask: Callable[[], Change | None], also: Also = nothing_more) -> list[ShownEntry]:
    """Makes the change that `ask` finds right for things as they stand; asks anew when something came in between.

    Whatever `ask` reads of the issues it changes is still so when the change is made. Gives the entries made. Raises
    what `ask` raises, ConditionFailed when one of `also` is refused, and Contended when others kept getting in between.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, min(0.01 * 2**attempt, 0.3)))
        asked = ask()
        if asked is None:
            return []
        rows = [_replaced(org, step.old, step.new) for step in asked.steps]
        rows += [_removed(org, asked.gone)] if asked.gone else []
        placed = [made for step in asked.steps for made in entry_actions(org, step.new, step.entries)]
        shown = [entry for _, entry in placed]
        actions = [*rows, *(action for action, _ in placed), *asked.actions, *_moved(org, asked.steps), *also(shown)]
        before, during, after = _words(org, asked.steps, TRANSACTION - len(actions))
        in_batches(before)
        try:
            dynamo.write([*actions, *during])
        except ConditionFailed as refused:
            if any(refused.failed(at) for at in range(len(rows))):
                continue
            raise
        in_batches(after)
        return shown
    raise Contended("the issue kept changing")


def _moved(org: str, steps: Sequence[Step]) -> list[Action]:
    """Says that an issue goes to another place of an index, so that who reads a page just then reads it again."""
    if all(_index_keys(org, step.old) == _index_keys(org, step.new) for step in steps):
        return []
    for step in steps:
        announce(org, step.new.leaf)
    return [dynamo.update_action(table(), counter_key(org, "mark"), "ADD rev :one", values={":one": 1})]


def _words(org: str, steps: Sequence[Step], room: int) -> tuple[list[Action], list[Action], list[Action]]:
    """Search words to write before the transaction, in it, and after it: more than it has room for never lack."""
    added: list[Action] = []
    dropped: list[Action] = []
    for step in steps:
        if (step.old.title, step.old.description) != (step.new.title, step.new.description):
            old, new = words(step.old.title, step.old.description), words(step.new.title, step.new.description)
            added += [put(word_key(org, word, step.new.id)) for word in new if word not in set(old)]
            dropped += [deletion(word_key(org, word, step.new.id)) for word in old if word not in set(new)]
    inside = added[:room]
    return added[room:], [*inside, *dropped[: room - len(inside)]], dropped[room - len(inside) :]


def in_batches(actions: Sequence[Action]) -> None:
    """Writes that need not be one: search words ahead of their issue, or what is left of a deleted one."""
    for start in range(0, len(actions), TRANSACTION):
        dynamo.write(list(actions[start : start + TRANSACTION]))


# Lists by key


def part(
    org: str, issue_id: str, prefix: str, limit: int, cursor: str | None, *, newest: bool = False
) -> tuple[list[Item], str | None]:
    """A page of what hangs on an issue under a prefix of the sort key, and the cursor of the next. Raises Invalid."""
    return by_key(_pk(org, issue_id), prefix, f"{issue_id} {prefix}", limit, cursor, newest=newest)


def by_key(
    pk: str, prefix: str, name: str, limit: int, cursor: str | None, *, newest: bool = False
) -> tuple[list[Item], str | None]:
    """A page of a partition's items. Raises Invalid for a cursor of another list than `name`."""
    after = list_key(name, cursor)
    low, high = prefix, prefix + "~"
    if after is not None:
        low, high = (low, prefix + after) if newest else (prefix + after, high)
    values = {":pk": pk, ":low": low, ":high": high}
    options = {"ScanIndexForward": not newest, "ConsistentRead": True}
    condition = "pk = :pk AND sk BETWEEN :low AND :high"
    found, _ = dynamo.some(table(), condition, values, limit + 2, **options)
    items = [item for item in found if item["sk"] != prefix + (after or "~")]
    more = len(items) > limit
    return items[:limit], list_cursor(name, items[limit - 1]["sk"].removeprefix(prefix)) if more else None


def all_of(org: str, issue_id: str, prefix: str = "") -> Iterator[Item]:
    """Everything that hangs on an issue under a prefix of the sort key."""
    values = {":pk": _pk(org, issue_id)}
    condition = "pk = :pk"
    if prefix:
        condition, values[":prefix"] = "pk = :pk AND begins_with(sk, :prefix)", prefix
    return dynamo.query(table(), condition, values, ConsistentRead=True)
