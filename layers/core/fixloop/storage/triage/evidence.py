"""Resources, flags, relations and comments of triage issues."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fixloop.calls import number
from fixloop.errors import Conflict, Invalid, NotFound
from fixloop.storage import agents, calls, dynamo
from fixloop.storage.dynamo import Action, Item
from fixloop.storage.triage import catalog, rows, sessions
from fixloop.storage.triage.rows import Change, Step
from fixloop.times import parse
from fixloop.triage.activity import Actor, CommentIn, Entry, ShownEntry, author
from fixloop.triage.agent import mentioned
from fixloop.triage.evidence import (
    Affected,
    CallNotAttached,
    Flag,
    FlagIn,
    Link,
    LinkIn,
    Relation,
    RelationIn,
    ShownRelation,
    affected,
    named,
)
from fixloop.triage.issues import Issue
from fixloop.triage.wire import is_identifier

_THREADS = 8
MAX_RESOURCES = 1000  # of an issue, all told

Known = tuple[str, int | None]
"""What is shown of a resource: its title, and when it began (ms)."""


# Resources


def looked_up(org: str, links: Sequence[LinkIn]) -> list[Known]:
    """What is known of each resource. Raises NotFound when one of the calls is not there."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda link: _looked_up(org, link), links))


def _looked_up(org: str, link: LinkIn) -> Known:
    if link.resource_type != "call":
        return named(link.resource_type, link.resource_id), None
    call_id = number(link.resource_id)
    if call_id is None:
        raise NotFound("Resource not found")
    try:
        row = calls.find(org, call_id)
    except NotFound:
        raise NotFound("Resource not found") from None
    grade = calls.grade(org, call_id)
    title = grade.found.get("summary") if grade else None
    return title or named("call", link.resource_id), parse(row.record["start_time"])


def _mark_key(org: str, issue_id: str, kind: str, resource_id: str) -> Item:
    return rows.key(org, issue_id, f"res#{kind}#{resource_id}")


def link_rows(org: str, link: Link) -> list[Action]:
    """The link, and the mark by which its resource is found."""
    mark = _mark_key(org, link.issue_id, link.resource_type, link.resource_id)
    return [
        rows.put({**rows.key(org, link.issue_id, f"link#{link.id}"), "doc": link.model_dump_json()}),
        rows.put({**mark, "link": link.id}),
    ]


def link_of(org: str, issue_id: str, kind: str, resource_id: str) -> Link | None:
    """The link of a resource on an issue."""
    mark = dynamo.get(rows.table(), _mark_key(org, issue_id, kind, resource_id))
    return _link(org, issue_id, mark["link"]) if mark else None


def _link(org: str, issue_id: str, link_id: str) -> Link | None:
    if not is_identifier(link_id):
        return None
    held = dynamo.get(rows.table(), rows.key(org, issue_id, f"link#{link_id}"))
    return Link.model_validate_json(held["doc"]) if held else None


def attach(
    org: str,
    issue_id: str,
    given: LinkIn,
    actor: Actor,
    now: int,
    also: Callable[[Link], list[Action]] = rows.nothing_more,
) -> tuple[Link, bool]:
    """The link, and whether it is new. Raises NotFound for an unknown issue or call, Conflict for one too many."""
    rows.find(org, issue_id)
    ((title, started_at),) = looked_up(org, [given])
    found: list[tuple[Link, bool]] = []

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        if known := link_of(org, issue_id, given.resource_type, given.resource_id):
            found[:] = [(known, False)]
            return None
        if sum(old.resources.values()) >= MAX_RESOURCES:
            raise Conflict(f"An issue has at most {MAX_RESOURCES} resources.")
        new = old.counted(now, given.resource_type, 1)
        link = Link(
            id=rows.identified(new),
            issue_id=issue_id,
            resource_type=given.resource_type,
            resource_id=given.resource_id,
            title=title,
            started_at=started_at,
            attached_by_id=author(actor),
            created_at=new.last_activity_at,
        )
        found[:] = [(link, True)]
        entry = Entry(
            type="resource_added", actor=actor, detail="Attached a resource.", resources=[dict(link.shown(org))]
        )
        return Change([Step(old, new, [entry])], link_rows(org, link))

    rows.change(org, asked, lambda _: also(found[0][0]))
    return found[0]


def detach(org: str, issue_id: str, find: Callable[[], Link | None], actor: Actor, now: int) -> None:
    """Takes a resource off an issue; flags on its moments stay. Raises NotFound."""

    def asked() -> Change:
        old = rows.find(org, issue_id)
        link = find()
        if link is None:
            raise NotFound("Resource not found")
        entry = Entry(
            type="resource_removed", actor=actor, detail="Removed a resource.", resources=[dict(link.shown(org))]
        )
        gone = [
            rows.key(org, issue_id, f"link#{link.id}"),
            _mark_key(org, issue_id, link.resource_type, link.resource_id),
        ]
        new = old.counted(now, link.resource_type, -1)
        return Change([Step(old, new, [entry])], [rows.deletion(where) for where in gone])

    rows.change(org, asked)


def detach_link(org: str, issue_id: str, link_id: str, actor: Actor, now: int) -> None:
    """Raises NotFound."""
    detach(org, issue_id, lambda: _link(org, issue_id, link_id), actor, now)


def detach_call(org: str, issue_id: str, call_id: str, actor: Actor, now: int) -> None:
    """Raises NotFound."""
    detach(org, issue_id, lambda: link_of(org, issue_id, "call", call_id), actor, now)


def links(org: str, issue_id: str, limit: int, cursor: str | None) -> tuple[list[Link], str | None]:
    """A page of an issue's resources in the order they were attached. Raises NotFound, Invalid."""
    rows.find(org, issue_id)
    items, following = rows.part(org, issue_id, "link#", limit, cursor)
    return [Link.model_validate_json(item["doc"]) for item in items], following


def attached_calls(org: str, issue_id: str) -> list[Link]:
    """Every call on an issue, in the order they were attached."""
    held = (Link.model_validate_json(item["doc"]) for item in rows.all_of(org, issue_id, "link#"))
    return [link for link in held if link.resource_type == "call"]


def what_is_affected(org: str, issue_id: str) -> Affected:
    """Raises NotFound."""
    rows.find(org, issue_id)
    attached = attached_calls(org, issue_id)
    with ThreadPoolExecutor(_THREADS) as threads:
        numbers = list(threads.map(lambda link: calls.find(org, int(link.resource_id)).agent_id, attached))
        distinct = sorted({one for one in numbers if one is not None})
        known = dict(zip(distinct, threads.map(lambda one: agents.of_number(org, one), distinct), strict=True))
    found: list[tuple[Link, str | None, str | None]] = []
    for link, one in zip(attached, numbers, strict=True):
        agent = None if one is None else known[one]
        found.append(
            (link, None if one is None else agent.id if agent else str(one), agent.content.name if agent else None)
        )
    return affected(issue_id, found)


# Flags


def flag(
    org: str,
    issue_id: str,
    given: FlagIn,
    actor: Actor,
    now: int,
    also: Callable[[Flag], list[Action]] = rows.nothing_more,
    flag_id: str | None = None,
) -> Flag:
    """Puts a flag on a moment of an attached call; one with a `flag_id` that is there already stays as it is.

    Raises NotFound, and CallNotAttached.
    """
    made: list[Flag] = []

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        if flag_id and (held := dynamo.get(rows.table(), rows.key(org, issue_id, f"flag#{flag_id}"))):
            made[:] = [Flag.model_validate_json(held["doc"])]
            return None
        link = link_of(org, issue_id, "call", given.call_id)
        if link is None:
            raise CallNotAttached(f"Call {given.call_id} is not attached to this issue")
        new = old.changed(now, flag_count=old.flag_count + 1)
        raised = Flag(
            id=flag_id or rows.identified(new),
            issue_id=issue_id,
            **given.model_dump(),
            author_id=author(actor),
            created_at=new.last_activity_at,
        )
        made[:] = [raised]
        row = {**rows.key(org, issue_id, f"flag#{raised.id}"), "doc": raised.model_dump_json(), "type": raised.type}
        entry = _flagged(org, "flag_added", "Added a flag.", raised, link, actor)
        return Change([Step(old, new, [entry])], [rows.put(row), catalog.flag_type_more(org, raised)])

    rows.change(org, asked, lambda _: also(made[0]))
    return made[0]


def _flagged(org: str, kind: str, detail: str, flag: Flag, link: Link | None, actor: Actor) -> Entry:
    about = {"flag_id": flag.id, "flag_type": flag.type, "note": flag.note, "message_index": flag.message_index}
    shown = [dict(link.shown(org))] if link else []
    return Entry.model_validate({"type": kind, "actor": actor, "detail": detail, "metadata": about, "resources": shown})


def remove_flag(org: str, issue_id: str, flag_id: str, actor: Actor, now: int) -> None:
    """Raises NotFound."""

    def asked() -> Change:
        old = rows.find(org, issue_id)
        where = rows.key(org, issue_id, f"flag#{flag_id}")
        held = dynamo.get(rows.table(), where) if is_identifier(flag_id) else None
        if held is None:
            raise NotFound("Flag not found")
        flag = Flag.model_validate_json(held["doc"])
        link = link_of(org, issue_id, "call", flag.call_id)
        entry = _flagged(org, "flag_removed", "Removed a flag.", flag, link, actor)
        new = old.changed(now, flag_count=old.flag_count - 1)
        return Change([Step(old, new, [entry])], [rows.deletion(where), catalog.flag_type_less(org, flag.type, 1)])

    rows.change(org, asked)


def flags(org: str, issue_id: str, limit: int, cursor: str | None) -> tuple[list[Flag], str | None]:
    """A page of an issue's flags. Raises NotFound, Invalid."""
    rows.find(org, issue_id)
    items, following = rows.part(org, issue_id, "flag#", limit, cursor)
    return [Flag.model_validate_json(item["doc"]) for item in items], following


# Relations


def _relation_key(org: str, relation: Relation) -> Item:
    return rows.key(org, relation.issue_id, f"rel#{relation.id}")


def _pair_key(org: str, issue_id: str, kind: str, related: str) -> Item:
    return rows.key(org, issue_id, f"to#{kind}#{related}")


def _both_keys(org: str, relation: Relation) -> list[Item]:
    """The rows of both sides, and the mark by which the pair is found."""
    outgoing = relation if relation.direction == "outgoing" else relation.other_side()
    pair = _pair_key(org, outgoing.issue_id, relation.relation_type, outgoing.related_issue_id)
    return [_relation_key(org, outgoing), _relation_key(org, outgoing.other_side()), pair]


def far_keys(org: str, relation: Relation) -> list[Item]:
    """What a relation has under the issue on its other side."""
    far = rows.key(org, relation.related_issue_id)["pk"]
    return [where for where in _both_keys(org, relation) if where["pk"] == far]


def _known_relation(org: str, issue_id: str, given: RelationIn) -> Relation | None:
    """The relation as it is already; `related_to` is the same from either side."""
    pairs = [(issue_id, given.related_issue_id)]
    if given.relation_type == "related_to":
        pairs.append((given.related_issue_id, issue_id))
    for one, other in pairs:
        if mark := dynamo.get(rows.table(), _pair_key(org, one, given.relation_type, other)):
            return _relation(org, issue_id, mark["relation"])
    return None


def _relation(org: str, issue_id: str, relation_id: str) -> Relation | None:
    held = dynamo.get(rows.table(), rows.key(org, issue_id, f"rel#{relation_id}"))
    return Relation.model_validate_json(held["doc"]) if held else None


def relate(
    org: str,
    issue_id: str,
    given: RelationIn,
    actor: Actor,
    now: int,
    also: Callable[[ShownRelation], list[Action]] = rows.nothing_more,
) -> tuple[ShownRelation, bool]:
    """The relation as this issue sees it, and whether it is new. Raises NotFound, and Invalid for an issue itself."""
    found: list[tuple[ShownRelation, bool]] = []

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        if given.related_issue_id == issue_id:
            raise Invalid({"related_issue_id": ["must be another issue"]})
        other = rows.look(org, given.related_issue_id)
        if other is None:
            raise NotFound("Related issue not found")
        if known := _known_relation(org, issue_id, given):
            found[:] = [(known.shown(org, other.triage_id, other.title), False)]
            return None
        at = max(now, old.last_activity_at, other.last_activity_at)
        relation = Relation(
            id=rows.identified(old.active(at)),
            issue_id=issue_id,
            related_issue_id=other.id,
            relation_type=given.relation_type,
            direction="outgoing",
            created_by_id=author(actor),
            created_at=at,
        )
        found[:] = [(relation.shown(org, other.triage_id, other.title), True)]
        steps = [
            Step(
                one,
                one.changed(at, relation_count=one.relation_count + 1),
                [_related(actor, relation, about, added=True)],
            )
            for one, about in ((old, other), (other, old))
        ]
        sides = [relation, relation.other_side()]
        pair = _pair_key(org, issue_id, given.relation_type, other.id)
        return Change(
            steps,
            [
                *(rows.put({**_relation_key(org, side), "doc": side.model_dump_json()}) for side in sides),
                rows.put({**pair, "relation": relation.id}),
            ],
        )

    rows.change(org, asked, lambda _: also(found[0][0]))
    return found[0]


def _related(actor: Actor, relation: Relation, about: Issue, *, added: bool) -> Entry:
    incoming = relation.related_issue_id != about.id
    kind = relation.relation_type.replace("_", " ")
    said = f"{about.triage_id} {kind} this issue" if incoming else f"{kind} {about.triage_id}"
    return Entry(
        type="relation_added" if added else "relation_removed",
        actor=actor,
        detail=f"{'Added' if added else 'Removed'} a relation: {said}.",
        metadata={
            "relation_id": relation.id,
            "relation_type": relation.relation_type,
            "direction": "incoming" if incoming else "outgoing",
        },
        referenced_issues=[about.referenced],
    )


def unrelate(org: str, issue_id: str, relation_id: str, actor: Actor, now: int) -> None:
    """Takes a relation away, from either of its sides. Raises NotFound."""

    def asked() -> Change:
        old = rows.find(org, issue_id)
        relation = _relation(org, issue_id, relation_id) if is_identifier(relation_id) else None
        if relation is None:
            raise NotFound("Relation not found")
        other = rows.look(org, relation.related_issue_id)
        if other is None:
            raise NotFound("Relation not found")
        outgoing = relation if relation.direction == "outgoing" else relation.other_side()
        at = max(now, old.last_activity_at, other.last_activity_at)
        steps = [
            Step(
                one,
                one.changed(at, relation_count=one.relation_count - 1),
                [_related(actor, outgoing, about, added=False)],
            )
            for one, about in ((old, other), (other, old))
        ]
        return Change(steps, [rows.deletion(where) for where in _both_keys(org, relation)])

    rows.change(org, asked)


def left_behind(org: str, issue: Issue, relations: Sequence[Relation], actor: Actor, now: int) -> list[Step]:
    """What the issues on the other side of these relations go through when `issue` goes."""
    steps: dict[str, Step] = {}
    others = rows.find_many(org, [one.related_issue_id for one in relations])
    for relation in relations:
        other = others.get(relation.related_issue_id)
        if other is None:  # deleted since, and the relation with it
            continue
        step = steps.setdefault(other.id, Step(other, other.changed(now)))
        outgoing = relation if relation.direction == "outgoing" else relation.other_side()
        step.new = step.new.model_copy(update={"relation_count": step.new.relation_count - 1})
        step.entries.append(_related(actor, outgoing, issue, added=False))
    return list(steps.values())


def relations(org: str, issue_id: str, limit: int, cursor: str | None) -> tuple[list[ShownRelation], str | None]:
    """A page of an issue's relations, from and to it. Raises NotFound, Invalid."""
    rows.find(org, issue_id)
    items, following = rows.part(org, issue_id, "rel#", limit, cursor)
    found = [Relation.model_validate_json(item["doc"]) for item in items]
    others = rows.find_many(org, [one.related_issue_id for one in found])
    shown = []
    for one in found:
        if other := others.get(one.related_issue_id):  # gone since the page was read
            shown.append(one.shown(org, other.triage_id, other.title))
    return shown, following


# Timeline


def comment(
    org: str, issue_id: str, given: CommentIn, actor: Actor, now: int, also: rows.Also, agent_name: str
) -> ShownEntry:
    """The comment as its entry; one that speaks to the agent is a prompt as well.

    Raises NotFound for an unknown issue or link.
    """
    told = mentioned(given.detail, agent_name)

    def asked() -> Change:
        old = rows.find(org, issue_id)
        shown = []
        for link_id in dict.fromkeys(given.resource_link_ids):
            link = _link(org, issue_id, link_id)
            if link is None:
                raise NotFound("Resource not found")
            shown.append(dict(link.shown(org)))
        entry = Entry(type="comment", actor=actor, detail=given.detail, resources=shown)
        if told is None:
            return Change([Step(old, old.active(now), [entry])])
        new, entries, actions = sessions.called_upon(org, old, told, agent_name, actor, now)
        return Change([Step(old, new, [entry, *entries])], actions)

    return rows.change(org, asked, also)[0]


def activity(org: str, issue_id: str, limit: int, cursor: str | None) -> tuple[list[ShownEntry], str | None]:
    """A page of what happened, the newest first. Raises NotFound, Invalid."""
    rows.find(org, issue_id)
    items, following = rows.part(org, issue_id, "act#", limit, cursor, newest=True)
    return [json.loads(item["doc"]) for item in items], following
