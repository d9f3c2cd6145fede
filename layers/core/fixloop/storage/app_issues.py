"""App issues, and which of them belong to an issue of the loop: the app issues table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fixloop.app_issues import AppIssue, AppIssueQuery, number_of
from fixloop.errors import Invalid, NotFound
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.documents import Documents, updated
from fixloop.storage.dynamo import Action, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

MAX_LOOKED_AT = 10_000
_AT_ONCE = 1000


def _table() -> str:
    return settings().app_issues_table


def _key(org: str, number: int) -> Item:
    return {"pk": f"{org}#app_issue#{number}", "sk": "app_issue"}


def _link_key(org: str, issue_id: str, number: int) -> Item:
    return {"pk": f"{org}#issue#{issue_id}", "sk": f"app_issue#{number:015d}"}


_INDEXES = {ORG: ("by_leaf", "lf"), "user": ("by_user", "uf"), "project": ("by_project", "pf")}
lists = Lists(_table, chunk=64, indexes=_INDEXES, row_key=_key, whole=("by_org", "wf"))


def _place(org: str, issue: AppIssue) -> Place:
    scopes = (("user", issue.creator), ("project", issue.project_id))
    named = tuple((name, value) for name, value in scopes if value is not None)
    return Place(org, issue.number, issue.created_at, issue.leaf, named)


def _fields(issue: AppIssue) -> Item:
    return {"doc": issue.model_dump_json()}


def app_issue_of(item: Item) -> AppIssue:
    """The app issue in a stored item, also in one that came through the table's stream."""
    return AppIssue.model_validate_json(item["doc"])


def _key_of(org: str, app_issue_id: str) -> Item:
    return _key(org, number_of(app_issue_id) or 0)


_issues = Documents("Issue", _table, lists, _key_of, _place, _fields, app_issue_of)
number = lists.allocate


def add(org: str, issue: AppIssue, *also: Action) -> None:
    """Raises ConditionFailed when one of `also` is refused."""
    _issues.add(org, issue.id, issue, *also)


def look(org: str, app_issue_id: str) -> AppIssue | None:
    """The app issue, unless there is none or it was deleted."""
    issue = _stored(org, app_issue_id)
    return None if issue is None or issue.state == "Deleted" else issue


def _stored(org: str, app_issue_id: str) -> AppIssue | None:
    """Deleted ones too."""
    issue = _issues.look(org, app_issue_id)
    return issue if issue is not None and issue.id == app_issue_id else None


def find(org: str, app_issue_id: str) -> AppIssue:
    """Raises NotFound, also for a deleted one."""
    issue = look(org, app_issue_id)
    if issue is None:
        raise NotFound(f"Issue {app_issue_id} not found")
    return issue


# Lists


@dataclass(frozen=True)
class Found:
    """A page in the asked order, how many issues match, and whether some of them lie before and after it."""

    issues: list[AppIssue]
    total: int
    earlier: bool
    later: bool


def page(org: str, query: AppIssueQuery) -> Found:
    """Raises Invalid for a cursor that is no issue, and where more issues would have to be looked at than is allowed.

    A filter of types, states, dates and at most one user or project is read from an index. For the others the issues
    that pass those are looked at one by one.
    """
    cursor = _cursor(org, query)
    wanted = [Filter(scope, query.wants, query.start_date, query.end_date) for scope in _scopes(query)]
    if len(wanted) == 1 and query.filter_by_text is None and not (query.created_by and query.projects):
        return _counted(org, query, wanted[0], cursor)
    return _looked_at(org, query, wanted, cursor)


def _scopes(query: AppIssueQuery) -> list[str]:
    """Lists without a common row that together have every issue of the asked users, or else projects."""
    users, projects = (
        [f"{name}#{one}" for one in of] for name, of in (("user", query.created_by), ("project", query.projects))
    )
    return users or projects or [ORG]


def _cursor(org: str, query: AppIssueQuery) -> AppIssue | None:
    name = "after" if query.after is not None else "before"
    app_issue_id = query.after or query.before
    issue = _stored(org, app_issue_id) if app_issue_id else None
    if app_issue_id and issue is None:
        raise Invalid({name: ["must be the id of an issue"]})
    return issue


def _counted(org: str, query: AppIssueQuery, wanted: Filter, cursor: AppIssue | None) -> Found:
    """The common page, by number and newest first, is one read of the list; for others the total comes before it."""
    plain = cursor is None and query.page_order == "DESC"
    offset, limit = ((query.page - 1) * query.page_size, query.page_size) if plain else (0, 1)
    read = lists.page(org, wanted, offset=offset, limit=limit, total=True)
    total, rows = read.total or 0, read.rows
    newer, through = _passed(org, wanted, cursor) if cursor else (0, 0)
    start, end = query.span(total, newer, through)
    if not plain:
        rows = lists.page(org, wanted, offset=start, limit=end - start).rows if end > start else []
    return _found(query, _read(rows, consistent=True), start, end, total)


def _passed(org: str, wanted: Filter, cursor: AppIssue) -> tuple[int, int]:
    """How many rows of a list are newer than the cursor, and how many are with it."""
    at = cursor.created_at
    since = at + 1 if wanted.since is None else max(at + 1, wanted.since)
    newer = lists.page(org, replace(wanted, since=since), offset=0, limit=1, total=True).total or 0
    if not wanted.covers(at):
        return newer, newer
    level = replace(wanted, since=at, until=at)
    offset = 0
    while True:
        rows = lists.page(org, level, offset=offset, limit=_AT_ONCE).rows
        newer += sum(row["n"] > cursor.number for row in rows)
        if len(rows) < _AT_ONCE or rows[-1]["n"] <= cursor.number:
            return newer, newer + any(row["n"] == cursor.number for row in rows)
        offset += _AT_ONCE


def _looked_at(org: str, query: AppIssueQuery, wanted: list[Filter], cursor: AppIssue | None) -> Found:
    candidates = sum(lists.page(org, one, offset=0, limit=1, total=True).total or 0 for one in wanted)
    if candidates > MAX_LOOKED_AT:
        name = next(name for name in ("filter_by_text", "created_by", "projects") if getattr(query, name))
        raise Invalid(
            {name: [f"more than {MAX_LOOKED_AT} issues pass the other filters; narrow type, states or dates"]}
        )
    rows = [row for one in wanted for row in lists.page(org, one, offset=0, limit=MAX_LOOKED_AT).rows]
    matching = [issue for issue in _read(rows, consistent=False) if query.chosen(issue)]
    newer = sum(issue.number > cursor.number for issue in matching) if cursor else 0
    through = sum(issue.number >= cursor.number for issue in matching) if cursor else 0
    start, end = query.span(len(matching), newer, through)
    return _found(query, matching[start:end], start, end, len(matching))


def _read(rows: list[Item], *, consistent: bool) -> list[AppIssue]:
    """The issues of rows in an index, newest first."""
    return sorted(_issues.behind(rows, consistent=consistent), key=lambda issue: -issue.number)


def _found(query: AppIssueQuery, issues: list[AppIssue], start: int, end: int, total: int) -> Found:
    newer, older = start > 0, end < total
    if query.page_order == "ASC":
        return Found(issues[::-1], total, earlier=older, later=newer)
    return Found(issues, total, earlier=newer, later=older)


# Changes


def change(
    org: str, app_issue_id: str, fields: dict[str, Any] | Callable[[AppIssue], dict[str, Any]], now: int
) -> AppIssue:
    """Sets the named fields, whoever else changes others at the same time; a function is asked anew on each attempt.

    Raises NotFound, and Contended when others keep getting in between.
    """
    return _changed(org, app_issue_id, lambda old: (updated(old, fields(old) if callable(fields) else fields, now), []))


def _changed(org: str, app_issue_id: str, ask: Callable[[AppIssue], tuple[AppIssue, list[Action]]]) -> AppIssue:
    """Raises NotFound, also for a deleted one, and Contended."""

    def asked(old: AppIssue) -> tuple[AppIssue, list[Action]]:
        if old.id != app_issue_id or old.state == "Deleted":
            raise NotFound(f"Issue {app_issue_id} not found")
        return ask(old)

    return _issues.change(org, app_issue_id, asked)


# The loop's issues


def bind(org: str, app_issue_id: str, issue_id: str) -> AppIssue | None:
    """Makes an app issue one of a loop's issue, and no longer of another; None when it is gone.

    Doing it again changes nothing, nor does it show: `updated_at` stays.
    """

    def bound(old: AppIssue) -> tuple[AppIssue, list[Action]]:
        if old.issue_id == issue_id:
            return old, []
        links = [dynamo.put_action(_table(), _link_key(org, issue_id, old.number))]
        if old.issue_id is not None:
            links.append(dynamo.delete_action(_table(), _link_key(org, old.issue_id, old.number)))
        return old.model_copy(update={"issue_id": issue_id}), links

    try:
        return _changed(org, app_issue_id, bound)
    except NotFound:
        return None


def of_issue(org: str, issue_id: str, limit: int | None = None) -> list[AppIssue]:
    """The app issues that are bound to a loop's issue, or the oldest of them; deleted ones are left out."""
    values = {":pk": f"{org}#issue#{issue_id}", ":app_issue": "app_issue#"}
    options = {"ConsistentRead": True, **({"Limit": limit} if limit else {})}
    links = dynamo.query(_table(), "pk = :pk AND begins_with(sk, :app_issue)", values, **options)
    keys = [_key(org, int(link["sk"].partition("#")[2])) for link in links]
    bound = map(app_issue_of, dynamo.get_many(_table(), keys, consistent=True))
    return sorted((issue for issue in bound if issue.state != "Deleted"), key=lambda issue: issue.number)


def close(org: str, app_issue_id: str, closing: int, now: int) -> AppIssue | None:
    """Closes an app issue as its loop's issue was closed at `closing`, once for each closing. None when it is gone.

    One that was reported only afterwards stays as it is, and so does one that somebody has opened again since.
    """

    def followed(issue: AppIssue) -> dict[str, Any]:
        if issue.created_at > closing or (issue.followed or 0) >= closing:
            return {}
        kept = {"updated_at": issue.updated_at} if issue.state == "Closed" else {}
        return {"state": "Closed", "followed": closing, **kept}

    try:
        return change(org, app_issue_id, followed, now)
    except NotFound:
        return None
