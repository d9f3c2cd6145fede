"""Making, changing and deleting triage issues, and what each reader has seen of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, Contended, Item
from fixloop.storage.triage import catalog, evidence, rows
from fixloop.storage.triage.rows import Change, Step
from fixloop.triage.activity import Actor, Entry, author
from fixloop.triage.evidence import Flag, Link, Relation, distinct
from fixloop.triage.issues import FIRST_NUMBER, Issue, IssueIn, differences, made
from fixloop.triage.wire import identifier
from fixloop.triage.words import words

_AT_ONCE = 15  # relations that go with their issue in one transaction
_TYPES = 30  # types of flags that do


def number(org: str) -> int:
    """The next `T-` number: no two issues have the same, some numbers may stay unused."""
    held = dynamo.update(rows.table(), rows.counter_key(org, "numbers"), "ADD n :one", values={":one": 1})
    return int(held["n"]) + FIRST_NUMBER - 1


def add(
    org: str,
    given: IssueIn,
    actor: Actor,
    now: int,
    also: Callable[[Issue], list[Action]] = rows.nothing_more,
    **fields: Any,
) -> Issue:
    """Stores a new issue with its resources; `also` tells what else to write in the transaction.

    Raises NotFound when a call is not there (nothing is stored then), ConditionFailed when one of `also` is refused.
    """
    wanted = distinct(given.resource_links)
    known = evidence.looked_up(org, wanted)
    issue = made(identifier(now, rows.noise()), number(org), given, author(actor), now).model_copy(update=fields)
    links = [
        Link(
            id=rows.identified(issue, at),
            issue_id=issue.id,
            resource_type=link.resource_type,
            resource_id=link.resource_id,
            title=title,
            started_at=started_at,
            attached_by_id=author(actor),
            created_at=now,
        )
        for at, (link, (title, started_at)) in enumerate(zip(wanted, known, strict=True))
    ]
    counts = {kind: sum(one.resource_type == kind for one in links) for kind in {one.resource_type for one in links}}
    issue = issue.model_copy(update={"resources": counts})
    rows.announce(org, issue.leaf)
    created = Entry(
        type="created", actor=actor, detail="Created the issue.", resources=[dict(one.shown(org)) for one in links]
    )
    actions = [
        rows.inserted(org, issue),
        *(action for action, _ in rows.entry_actions(org, issue, [created])),
        *(action for one in links for action in evidence.link_rows(org, one)),
        *([_seen(org, issue, actor["id"], now)] if actor["kind"] == "user" else []),
        *also(issue),
    ]
    postings = [rows.put(rows.word_key(org, word, issue.id)) for word in words(issue.title, issue.description)]
    room = rows.TRANSACTION - len(actions)
    rows.in_batches(postings[room:])
    dynamo.write([*actions, *postings[:room]])
    return issue


def patch(org: str, issue_id: str, fields: dict[str, Any], actor: Actor, now: int) -> Issue:
    """Sets the named fields. Raises NotFound."""
    current: list[Issue] = []

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        current[:] = [old]
        if all(getattr(old, name) == value for name, value in fields.items()):
            return None
        new = old.changed(now, **fields)
        current[:] = [new]
        return Change([Step(old, new, differences(old, fields, actor))])

    rows.change(org, asked)
    return current[0]


def remove(org: str, issue_id: str, actor: Actor, now: int) -> None:
    """Deletes an issue with all that hangs on it; calls and files stay. Raises NotFound.

    What counts elsewhere, the other sides of its relations and the types of its flags, goes in one transaction with the
    issue; of more than fits one, the rest goes before, each in its own. What nobody can reach any more goes afterwards.
    """
    rows.find(org, issue_id)
    for item in list(rows.all_of(org, issue_id, "rel#"))[_AT_ONCE:]:
        evidence.unrelate(org, issue_id, Relation.model_validate_json(item["doc"]).id, actor, now)
    flags = [Flag.model_validate_json(item["doc"]) for item in rows.all_of(org, issue_id, "flag#")]
    kept = set(sorted({flag.type for flag in flags})[:_TYPES])
    for flag in flags:
        if flag.type not in kept:
            evidence.remove_flag(org, issue_id, flag.id, actor, now)
    gone: list[Issue] = []
    held: list[Item] = []

    def asked() -> Change:
        issue = rows.find(org, issue_id)
        gone[:], held[:] = [issue], list(rows.all_of(org, issue_id))
        relations = [Relation.model_validate_json(one["doc"]) for one in held if one["sk"].startswith("rel#")]
        types = Counter(one["type"] for one in held if one["sk"].startswith("flag#"))
        if len(relations) > _AT_ONCE or len(types) > _TYPES:
            raise Contended("the issue was given more while it was being deleted")
        return Change(
            steps=evidence.left_behind(org, issue, relations, actor, now),
            actions=[
                *(rows.deletion(where) for one in relations for where in evidence.far_keys(org, one)),
                *(catalog.flag_type_less(org, name, count) for name, count in types.items()),
            ],
            gone=issue,
        )

    rows.change(org, asked)
    (issue,) = gone
    left = [{"pk": one["pk"], "sk": one["sk"]} for one in held if one["sk"] != "issue"]
    left += [rows.word_key(org, word, issue_id) for word in words(issue.title, issue.description)]
    rows.in_batches([rows.deletion(where) for where in left])


# What readers have seen


def _seen(org: str, issue: Issue, reader: str, now: int) -> Action:
    return rows.put({**rows.key(org, issue.id, f"view#{reader}"), "seen": issue.version, "at": now})


def view(org: str, issue_id: str, reader: str, now: int) -> int:
    """Marks everything on an issue as seen by a reader, and tells when. Raises NotFound."""
    issue = rows.find(org, issue_id)
    at = max(now, issue.last_activity_at)
    dynamo.write([_seen(org, issue, reader, at)])
    return at


def unread(org: str, issues: Sequence[Issue], reader: str) -> dict[str, bool]:
    """By id, whether something happened on an issue that the reader has not seen."""
    keys = (rows.key(org, issue.id, f"view#{reader}") for issue in issues)
    held = {item["pk"]: item["seen"] for item in dynamo.get_many(rows.table(), keys, consistent=True)}
    return {issue.id: held.get(rows.key(org, issue.id)["pk"], 0) < issue.version for issue in issues}
