"""Issues, the traces linked to them, and the groups of reports and app issues they come from: the issues table."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from decimal import Decimal
from typing import Any

from fixloop.aws import client
from fixloop.errors import Conflict, NotFound
from fixloop.issues import LEAVES, MAX_TRACES, SEVERITIES, Issue, IssueIn, IssuePatch, IssueQuery, Metadata, Severity
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.documents import Documents, unchanged, updated
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

_ATTEMPTS = 10
_AT_ONCE = 45  # links written in one transaction, each with the mark by which a trace finds its issues
_RANK = 10**12  # trace counts are sorted together with row numbers below this


def _table() -> str:
    return settings().issues_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")})
_BY_TRACES = {ORG: ("by_leaf_traces", "lf"), "agent": ("by_agent_traces", "af")}


def key(org: str, issue_id: str) -> Item:
    return {"pk": f"{org}#issue#{issue_id}", "sk": "issue"}


def _link_key(org: str, issue_id: str, trace_id: str) -> Item:
    return {"pk": f"{org}#issue#{issue_id}", "sk": f"trace#{trace_id}"}


def _mark_key(org: str, trace_id: str, kind: str, other_id: str) -> Item:
    return {"pk": f"{org}#trace#{trace_id}", "sk": f"{kind}#{other_id}"}


def _place(org: str, issue: Issue) -> Place:
    return Place(org, issue.n, issue.created_at, issue.leaf, (("agent", issue.agent_id),))


def _fields(issue: Issue) -> Item:
    """What only this module counts with is kept out of the document."""
    return {
        "status": issue.status,
        "doc": issue.model_dump_json(exclude={"trace_count", "active_tests"}),
        "changed": issue.updated_at,
    }


def issue_of(item: Item) -> Issue:
    """The issue in a stored item, also in one that came through the table's stream."""
    return Issue(**json.loads(item["doc"]), trace_count=item["traces"], active_tests=item["tests"])


_issues = Documents("Issue", _table, lists, key, _place, _fields, issue_of)
number, look, find = lists.allocate, _issues.look, _issues.find


def add(org: str, issue: Issue, trace_ids: list[str], *also: Action) -> Issue:
    """Stores a new issue with its links. Those beyond one transaction's worth are written before it, unseen."""
    issue = issue.model_copy(update={"trace_count": len(trace_ids)})
    links = [
        {**_link_key(org, issue.id, one), "linked_at": _turn(issue.created_at, at)} for at, one in enumerate(trace_ids)
    ]
    marks = [dynamo.put_action(_table(), _mark_key(org, one, "issue", issue.id)) for one in trace_ids]
    puts = [dynamo.put_action(_table(), link) for link in links]
    for start in range(_AT_ONCE, len(links), _AT_ONCE):
        dynamo.write(puts[start : start + _AT_ONCE] + marks[start : start + _AT_ONCE])
    _issues.add(
        org,
        issue.id,
        issue,
        *puts[:_AT_ONCE],
        *marks[:_AT_ONCE],
        *also,
        tc=issue.trace_count * _RANK + issue.n,
        traces=issue.trace_count,
        tests=issue.active_tests,
    )
    return issue


def made(issue_id: str, n: int, at: int, given: IssueIn) -> Issue:
    return Issue(
        id=issue_id,
        n=n,
        title=given.title,
        description=given.description,
        severity=given.severity,
        status="open",
        agent_id=given.agentId,
        tags=given.tags,
        trace_count=len(given.traceIds),
        metadata=Metadata(first_seen=at, last_seen=at),
        created_at=at,
        updated_at=at,
    )


def trace_ids(org: str, issue_id: str) -> list[str]:
    """Linked traces in the order they were linked."""
    values = {":pk": key(org, issue_id)["pk"], ":trace": "trace#"}
    items = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :trace)", values, ConsistentRead=True)
    return [item["sk"].removeprefix("trace#") for item in sorted(items, key=lambda item: item["linked_at"])]


def some_trace_ids(org: str, issue_id: str, limit: int) -> list[str]:
    """As many of the linked traces, in no order that means anything."""
    values = {":pk": key(org, issue_id)["pk"], ":trace": "trace#"}
    options = {"ConsistentRead": True, "Limit": limit}
    items = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :trace)", values, **options)
    return [item["sk"].removeprefix("trace#") for item in items]


def page(org: str, query: IssueQuery) -> tuple[list[Issue], int]:
    """A page of issues in the asked order, ties by age, and how many match."""
    scope = ORG if query.agentId is None else f"agent#{query.agentId}"
    match query.sortBy:
        case "severity":
            rows, total = _by_severity(org, scope, query)
        case "traceCount":
            rows, total = _by_traces(org, scope, query)
        case _:
            rows, total = _directed(org, Filter(scope, query.wants), query.start, query.limit, query.sortOrder == "asc")
    return _issues.behind(rows), total


def _directed(org: str, wanted: Filter, offset: int, limit: int, ascending: bool) -> tuple[list[Item], int]:
    """Oldest first is newest first read from the other end, which the total tells."""
    if not ascending:
        found = lists.page(org, wanted, offset=offset, limit=limit, total=True)
        return found.rows, found.total or 0
    total = lists.page(org, wanted, offset=0, limit=1, total=True).total or 0
    end = max(0, total - offset)
    start = max(0, end - limit)
    rows = lists.page(org, wanted, offset=start, limit=end - start).rows if end else []
    return rows[::-1], total


def _by_severity(org: str, scope: str, query: IssueQuery) -> tuple[list[Item], int]:
    ascending = query.sortOrder == "asc"
    rows: list[Item] = []
    offset, total = query.start, 0
    for severity in SEVERITIES if ascending else reversed(SEVERITIES):

        def wanted(code: str, severity: Severity = severity) -> bool:
            return LEAVES.values(code)[0] == severity and query.wants(code)

        found, count = _directed(org, Filter(scope, wanted), offset, max(1, query.limit - len(rows)), ascending)
        if len(rows) < query.limit:
            rows += found[: query.limit - len(rows)]
        offset = max(0, offset - count)
        total += count
    return rows, total


def _by_traces(org: str, scope: str, query: IssueQuery) -> tuple[list[Item], int]:
    """Leaves merged by trace count. An offset is walked, so its cost grows with it."""
    total = lists.page(org, Filter(scope, query.wants), offset=0, limit=1, total=True).total or 0
    if query.start >= total:
        return [], total
    leaves = [code for code in lists.leaves(org) if query.wants(code)]
    goal = query.start + query.limit
    share = -(-goal // max(1, len(leaves))) + 2
    ascending = query.sortOrder == "asc"
    streams = [_ranked(org, scope, code, ascending, share) for code in leaves]
    merged = heapq.merge(*streams, key=lambda row: int(row["tc"]), reverse=not ascending)
    rows = [row for _, row in zip(range(goal), merged, strict=False)]
    return rows[query.start :], total


def _ranked(org: str, scope: str, code: str, ascending: bool, share: int) -> Iterator[Item]:
    index, attribute = _BY_TRACES[scope.partition("#")[0]]
    request: dict[str, Any] = {
        "TableName": _table(),
        "IndexName": index,
        "KeyConditionExpression": f"{attribute} = :hash",
        "ExpressionAttributeValues": dynamo.pack({":hash": lists.hash(org, scope, code)}),
        "ScanIndexForward": ascending,
        "Limit": share,
    }
    while True:
        answer = client("dynamodb").query(**request)
        yield from map(dynamo.unpack, answer["Items"])
        if "LastEvaluatedKey" not in answer:
            return
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def change(org: str, issue_id: str, fields: dict[str, Any] | Callable[[Issue], dict[str, Any]], now: int) -> Issue:
    """Sets the named fields, whoever else changes others at the same time; a function is asked anew on each attempt.

    Raises NotFound.
    """

    def asked(old: Issue) -> tuple[Issue, list[Action]]:
        new = updated(old, fields(old) if callable(fields) else fields, now)
        closing = new.status == "closed" and old.status != "closed"
        return new.model_copy(update={"closed_at": new.updated_at}) if closing else new, []

    return _issues.change(org, issue_id, asked)


def patch(org: str, issue_id: str, given: IssuePatch, now: int) -> Issue:
    """Raises NotFound."""
    fields = given.sent()
    wanted, linked = fields.pop("traceIds", None), False
    if "agentId" in fields:
        fields["agent_id"] = fields.pop("agentId")
    if wanted is not None:
        find(org, issue_id)
        held = set(trace_ids(org, issue_id))
        linked = held != set(wanted)
        _link_all(org, issue_id, [one for one in wanted if one not in held], now)
        _unlink_all(org, issue_id, sorted(held - set(wanted)))
    return change(
        org, issue_id, lambda old: {**fields, "updated_at": max(now, old.updated_at)} if linked else fields, now
    )


def _link_all(org: str, issue_id: str, trace_ids: list[str], now: int) -> None:
    """As many at once as a transaction takes; one by one where somebody else is linking the same. Raises NotFound."""
    for start in range(0, len(trace_ids), _AT_ONCE):
        some = trace_ids[start : start + _AT_ONCE]
        try:
            dynamo.write(
                [_linked(org, issue_id, one, now, MAX_TRACES + start + at) for at, one in enumerate(some)]
                + [_count(org, issue_id, len(some))]
                + [dynamo.put_action(_table(), _mark_key(org, one, "issue", issue_id)) for one in some]
            )
        except ConditionFailed:
            for at, one in enumerate(some):
                link(org, issue_id, one, now, MAX_TRACES + start + at)


def _unlink_all(org: str, issue_id: str, trace_ids: list[str]) -> None:
    for start in range(0, len(trace_ids), _AT_ONCE):
        some = trace_ids[start : start + _AT_ONCE]
        try:
            dynamo.write(
                [_unlinked(org, issue_id, one) for one in some]
                + [_count(org, issue_id, -len(some))]
                + [_unmarked(org, issue_id, one) for one in some]
            )
        except ConditionFailed:
            for one in some:
                unlink(org, issue_id, one)


def link(org: str, issue_id: str, trace_id: str, now: int, turn: int = MAX_TRACES) -> bool:
    """Counts a trace on the issue, once. False when it was there already. Raises NotFound."""
    try:
        mark = dynamo.put_action(_table(), _mark_key(org, trace_id, "issue", issue_id))
        dynamo.write([_linked(org, issue_id, trace_id, now, turn), _count(org, issue_id, 1), mark])
    except ConditionFailed as refused:
        if refused.failed(1):
            raise NotFound(f"Issue {issue_id} not found") from None
        return False
    return True


def unlink(org: str, issue_id: str, trace_id: str) -> None:
    writes = [_unlinked(org, issue_id, trace_id), _count(org, issue_id, -1), _unmarked(org, issue_id, trace_id)]
    try:
        dynamo.write(writes)
    except ConditionFailed:
        return


def _turn(now: int, turn: int) -> int:
    """What links are in order of: those made in one ms by their turn, of which the issue itself has the first."""
    return now * 10 * MAX_TRACES + turn


def _linked(org: str, issue_id: str, trace_id: str, now: int, turn: int) -> Action:
    link = {**_link_key(org, issue_id, trace_id), "linked_at": _turn(now, turn)}
    return dynamo.put_action(_table(), link, condition="attribute_not_exists(pk)")


def _unlinked(org: str, issue_id: str, trace_id: str) -> Action:
    return dynamo.delete_action(_table(), _link_key(org, issue_id, trace_id), condition="attribute_exists(pk)")


def _unmarked(org: str, issue_id: str, trace_id: str) -> Action:
    return dynamo.delete_action(_table(), _mark_key(org, trace_id, "issue", issue_id))


def about_app_issue(org: str, trace_id: str, app_issue_id: str) -> None:
    """Notes that an app issue is about a trace. Doing it again changes nothing."""
    dynamo.put(_table(), _mark_key(org, trace_id, "app_issue", app_issue_id))


def of_trace(org: str, trace_id: str, kind: str, limit: int) -> list[str]:
    """Ids of the issues (`kind` is `issue`) that a trace is linked to, or the app issues (`app_issue`) about it."""
    values = {":pk": f"{org}#trace#{trace_id}", ":kind": f"{kind}#"}
    options = {"Limit": limit, "ConsistentRead": True}
    rows = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :kind)", values, **options)
    return [row["sk"].partition("#")[2] for row in rows]


def _count(org: str, issue_id: str, step: int) -> Action:
    values = {":step": step, ":rank": step * _RANK}
    return dynamo.update_action(
        _table(),
        key(org, issue_id),
        "ADD traces :step, tc :rank",
        values=values,
        condition="attribute_exists(pk)",
    )


def tested(org: str, issue_id: str, step: int) -> Action:
    """Counts an active shadow test in (1) or out (-1). Its condition fails for an issue that is gone."""
    return dynamo.update_action(
        _table(),
        key(org, issue_id),
        "ADD tests :step",
        values={":step": step},
        condition="attribute_exists(pk)",
    )


def remove(org: str, issue_id: str) -> Issue:
    """Raises NotFound, and Conflict while shadow tests are active. Traces stay; links go."""
    for _ in range(_ATTEMPTS):
        item = _issues.row(org, issue_id)
        issue = issue_of(item)
        if issue.active_tests > 0:
            raise Conflict(f"Issue {issue_id} has active shadow tests")
        as_read = unchanged(item)
        gone = dynamo.delete_action(
            _table(),
            key(org, issue_id),
            condition=f"tests <= :none AND {as_read['condition']}",
            values={":none": 0, **as_read.get("values", {})},
        )
        try:
            lists.move(_place(org, issue), None, gone)
        except ConditionFailed:
            continue
        linked = trace_ids(org, issue_id)
        for start in range(0, len(linked), _AT_ONCE):
            some = linked[start : start + _AT_ONCE]
            links = [dynamo.delete_action(_table(), _link_key(org, issue_id, one)) for one in some]
            dynamo.write(links + [_unmarked(org, issue_id, one) for one in some])
        return issue
    raise Contended(f"issue {issue_id} kept changing")


# Groups: reports of one pattern, or app issues of one type, on one agent


def _group_key(org: str, group: str) -> Item:
    return {"pk": f"{org}#group#{group}", "sk": "group"}


def _member_key(org: str, group: str, member: str) -> Item:
    return {"pk": f"{org}#group#{group}", "sk": f"member#{member}"}


@dataclass(frozen=True)
class Group:
    """What a group has come to. Times in ms of its members' calls; `cost` is the sum of those that are known.

    `bound` is the issue that its app issues were made part of, up to the one that joined last.
    """

    issue_id: str | None = None
    why: str = ""
    members: int = 0
    customers: int = 0
    first_seen: int | None = None
    last_seen: int | None = None
    cost: Decimal | None = None
    bound: str | None = None


def group(org: str, name: str) -> Group:
    key = dynamo.pack(_group_key(org, name))
    row = client("dynamodb").get_item(TableName=_table(), Key=key, ConsistentRead=True).get("Item", {})
    held = dynamo.unpack(row)
    return Group(
        issue_id=held.get("issue"),
        why=held.get("why", ""),
        members=held.get("members", 0),
        customers=held.get("customers", 0),
        first_seen=held.get("first_seen"),
        last_seen=held.get("last_seen"),
        cost=Decimal(row["cost"]["N"]) if "cost" in row else None,
        bound=held.get("bound"),
    )


def join(org: str, name: str, why: str, key: str, member: dict[str, Any], at: int, customer: str | None) -> bool:
    """Adds a member to its group under its `key`, once. `customer` is counted once per group.

    False for a member that is `taken` already: what came of it is not to be done again.
    """
    known = customer is None or dynamo.get(_table(), _customer_key(org, name, customer)) is not None
    for _ in range(_ATTEMPTS):
        joined = dynamo.put_action(
            _table(),
            {**_member_key(org, name, key), "doc": json.dumps(member, ensure_ascii=False)},
            condition="attribute_not_exists(pk)",
        )
        counted = dynamo.update_action(
            _table(),
            _group_key(org, name),
            "SET why = :why ADD members :one, customers :customers",
            values={":why": why, ":one": 1, ":customers": 0 if known else 1},
        )
        actions = [joined, counted]
        if not known:
            marker = _customer_key(org, name, customer or "")
            actions.append(dynamo.put_action(_table(), marker, condition="attribute_not_exists(pk)"))
        try:
            dynamo.write(actions)
        except ConditionFailed as refused:
            if refused.failed(0):
                if "taken" in (refused.items[0] or {}):
                    return False
                break
            known = True
            continue
        break
    else:
        raise Contended(f"group {name} kept changing")
    _widen(_group_key(org, name), "first_seen", "first_seen > :at", at)
    _widen(_group_key(org, name), "last_seen", "last_seen < :at", at)
    return True


def taken(org: str, name: str, key: str) -> None:
    """Notes that everything a member brings about has been done."""
    dynamo.update(_table(), _member_key(org, name, key), "SET taken = :yes", values={":yes": True})


def _widen(key: Item, attribute: str, condition: str, at: int) -> None:
    try:
        dynamo.update(
            _table(),
            key,
            f"SET {attribute} = :at",
            values={":at": at},
            condition=f"attribute_not_exists({attribute}) OR {condition}",
        )
    except ConditionFailed:
        return


def _customer_key(org: str, name: str, customer: str) -> Item:
    return {"pk": f"{org}#group#{name}", "sk": f"customer#{customer}"}


def count_cost(org: str, name: str, call_id: int, cost: Decimal) -> bool:
    """Counts what a call cost in its group's sum, once, in place of what was counted for it before.

    False when that was counted already.
    """
    key = {"pk": f"{org}#group#{name}", "sk": f"cost#{call_id}"}
    for _ in range(_ATTEMPTS):
        held = dynamo.get(_table(), key)
        before = Decimal(held["cost"]) if held else Decimal(0)
        if held and before == cost:
            return False
        row = dynamo.put_action(
            _table(),
            {**key, "cost": str(cost)},
            condition="cost = :before" if held else "attribute_not_exists(pk)",
            values={":before": held["cost"]} if held else {},
        )
        more = {":more": cost - before}
        try:
            dynamo.write([row, dynamo.update_action(_table(), _group_key(org, name), "ADD cost :more", values=more)])
        except ConditionFailed:
            continue
        return True
    raise Contended(f"the cost of call {call_id} kept changing")


def members(org: str, name: str, limit: int, after: str = "") -> list[dict[str, Any]]:
    """What the members behind the key `after` brought along, oldest first, at most `limit` of them."""
    values = {":pk": _group_key(org, name)["pk"], ":after": f"member#{after}", ":last": "member#~"}
    condition = "pk = :pk AND sk BETWEEN :after AND :last"
    items, _ = dynamo.some(_table(), condition, values, limit + 1, ConsistentRead=True)
    return [json.loads(item["doc"]) for item in items if item["sk"] != f"member#{after}"][:limit]


def all_members(org: str, name: str) -> Iterator[dict[str, Any]]:
    """What every member brought along, oldest first."""
    values = {":pk": _group_key(org, name)["pk"], ":member": "member#"}
    for item in dynamo.query(_table(), "pk = :pk AND begins_with(sk, :member)", values, ConsistentRead=True):
        yield json.loads(item["doc"])


def bind(org: str, name: str, issue_id: str, before: str | None) -> Action:
    """The write that gives a group its issue; its condition fails when another run was first."""
    return dynamo.update_action(
        _table(),
        _group_key(org, name),
        "SET issue = :issue",
        values={":issue": issue_id, **({":before": before} if before else {})},
        condition="issue = :before" if before else "attribute_not_exists(issue)",
    )


def bound(org: str, name: str, issue_id: str) -> None:
    """Notes that every app issue of a group has become part of its issue."""
    dynamo.update(_table(), _group_key(org, name), "SET bound = :issue", values={":issue": issue_id})


# What is left to resolve behind an applied fix


@dataclass(frozen=True)
class Resolving:
    """How far the reports behind an applied fix are resolved: `after` is the key of the last member looked at.

    Times in ms; `at` is when it came so far.
    """

    fix_id: str
    issue_id: str
    applied_at: int
    after: str = ""
    looked_at: int = 0
    resolved: int = 0
    more: bool = True
    at: int = 0


def _resolving_key(org: str, fix_id: str, applied_at: int) -> Item:
    return {"pk": f"{org}#fix#{fix_id}#{applied_at}", "sk": "resolving"}


def resolving_of(item: Item) -> Resolving:
    """The progress in a stored item, also in one that came through the table's stream."""
    return Resolving(**{one.name: item[one.name] for one in fields_of(Resolving)})


def resolving(org: str, fix_id: str, applied_at: int) -> Resolving | None:
    item = dynamo.get(_table(), _resolving_key(org, fix_id, applied_at))
    return resolving_of(item) if item else None


def resolved(org: str, before: Resolving | None, made: Resolving) -> bool:
    """Notes progress; False when another run has come further than `before`."""
    item = {**_resolving_key(org, made.fix_id, made.applied_at), **asdict(made)}
    try:
        dynamo.put(
            _table(),
            item,
            condition="looked_at = :before" if before else "attribute_not_exists(pk)",
            values={":before": before.looked_at} if before else {},
        )
    except ConditionFailed:
        return False
    return True
