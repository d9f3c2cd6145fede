"""What the loop does with triage issues: opens them once for what it found, adds evidence, moves them forward."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from fixloop.calls import number
from fixloop.errors import NotFound
from fixloop.storage import calls, dynamo
from fixloop.storage.dynamo import ConditionFailed, Item
from fixloop.storage.triage import evidence, issues, rows
from fixloop.storage.triage.rows import Change, Step
from fixloop.triage.activity import SYSTEM
from fixloop.triage.evidence import FlagIn, LinkIn
from fixloop.triage.issues import ENDED, MAX_LINKS, Issue, IssueIn, Status, differences, forward
from fixloop.triage.wire import derived


def _opened_key(org: str, natural_key: str) -> Item:
    return {"pk": f"{org}#opened#{natural_key}", "sk": "opened"}


def find_from(org: str, natural_key: str) -> Issue | None:
    """The issue that was opened for this key; None when there was none, or it has been deleted."""
    held = dynamo.get(rows.table(), _opened_key(org, natural_key))
    return rows.look(org, held["issue"]) if held else None


def _standing_key(org: str, loop_issue_id: str, issue_id: str) -> Item:
    return {"pk": f"{org}#loop#{loop_issue_id}", "sk": issue_id}


def of_loop_issue(org: str, loop_issue_id: str) -> list[Issue]:
    """The issues that stand for one of the loop's, oldest first."""
    values = {":pk": _standing_key(org, loop_issue_id, "")["pk"]}
    standing = [row["sk"] for row in dynamo.query(rows.table(), "pk = :pk", values, ConsistentRead=True)]
    found = rows.find_many(org, standing)
    return [found[one] for one in standing if one in found]


def _handled_key(org: str, natural_key: str) -> Item:
    return {"pk": f"{org}#handled#{natural_key}", "sk": "handled"}


def handled(org: str, natural_key: str) -> bool:
    """Whether all that something leads to in triage has been done."""
    return dynamo.get(rows.table(), _handled_key(org, natural_key)) is not None


def note_handled(org: str, natural_key: str) -> None:
    dynamo.put(rows.table(), _handled_key(org, natural_key))


def open_from(
    org: str,
    natural_key: str,
    given: IssueIn,
    now: int,
    *,
    call_ids: Sequence[int] = (),
    flags: Sequence[FlagIn] = (),
    loop_issue_id: str | None = None,
) -> Issue | None:
    """Opens an issue with source `automated` for a key, once; its calls and flags are added however often it is asked.

    Calls that are not kept here are left out, with their flags. None when somebody deleted the issue: it stays deleted.
    """
    links = [LinkIn(resource_type="call", resource_id=str(one)) for one in dict.fromkeys(call_ids) if _there(org, one)]
    if dynamo.get(rows.table(), _opened_key(org, natural_key)) is None:
        first = given.model_copy(update={"source": "automated", "resource_links": links[:MAX_LINKS]})
        mark = _opened_key(org, natural_key)
        with contextlib.suppress(ConditionFailed):  # another delivery was first
            issues.add(
                org,
                first,
                SYSTEM,
                now,
                lambda issue: [
                    rows.put({**mark, "issue": issue.id}, condition="attribute_not_exists(pk)"),
                    *([rows.put(_standing_key(org, loop_issue_id, issue.id))] if loop_issue_id else []),
                ],
                loop_issue_id=loop_issue_id,
                natural_key=natural_key,
            )
    issue = find_from(org, natural_key)
    if issue is None:
        return None
    try:
        for link in links:
            evidence.attach(org, issue.id, link, SYSTEM, now)
        there = {link.resource_id for link in links}
        for flag in flags:
            if flag.call_id in there:
                where = (natural_key, flag.call_id, flag.type, str(flag.message_index), flag.note)
                evidence.flag(org, issue.id, flag, SYSTEM, now, flag_id=derived(issue.id, *where))
    except NotFound:
        return None  # deleted meanwhile
    return rows.look(org, issue.id)


def _there(org: str, call_id: int) -> bool:
    try:
        return number(str(call_id)) is not None and bool(calls.find(org, call_id))
    except NotFound:
        return False


def attach(org: str, issue_id: str, call_id: int, now: int) -> bool:
    """Adds a call to an issue, and tells whether it was not there yet. Raises NotFound."""
    _, new = evidence.attach(org, issue_id, LinkIn(resource_type="call", resource_id=str(call_id)), SYSTEM, now)
    return new


def stand_for(org: str, issue_id: str, loop_issue_id: str) -> Issue | None:
    """Makes an issue stand for one of the loop's, unless it does for another or has ended. None when it is gone."""

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        if old.loop_issue_id is not None or old.status in ENDED:
            return None
        standing = rows.put(_standing_key(org, loop_issue_id, issue_id))
        return Change([Step(old, old.active(0, loop_issue_id=loop_issue_id))], [standing])

    try:
        rows.change(org, asked)
        return rows.find(org, issue_id)
    except NotFound:
        return None


def move_forward(org: str, issue_id: str, status: Status, now: int, closing: int | None = None) -> Issue | None:
    """Moves an issue to `status` if that lies ahead of where it is. None when the issue is gone.

    `closing` is when the loop's issue was closed: each closing moves it once, so one that somebody has moved back since
    stays there.
    """
    current: list[Issue] = []
    mark = None if closing is None else rows.key(org, issue_id, f"followed#{closing}")

    def asked() -> Change | None:
        old = rows.find(org, issue_id)
        current[:] = [old]
        if mark and dynamo.get(rows.table(), mark):
            return None
        marking = [rows.put(mark)] if mark else []
        if not forward(old, status):
            return Change([], marking) if marking else None
        fields = {"status": status}
        new = old.changed(now, **fields, **({} if closing is None else {"followed": closing}))
        current[:] = [new]
        return Change([Step(old, new, differences(old, fields, SYSTEM))], marking)

    try:
        rows.change(org, asked)
    except NotFound:
        return None
    return current[0]
