"""`/api/v1/app/issue` (Zylon): what people report about threads, to be reviewed and closed."""

from fixloop import boot  # isort: skip
import secrets
from typing import Any

from fixloop.app_issues import (
    AppIssue,
    AppIssueIn,
    AppIssuePage,
    AppIssuePatch,
    AppIssueQuery,
    AppIssueShown,
    made,
    may_change,
    slug,
)
from fixloop.errors import Forbidden
from fixloop.http import Api, Reply, Request, checked
from fixloop.storage import app_issues, platform

handler = Api()

SEVERAL = ("include", "type", "states", "created_by", "projects")


def _org(request: Request) -> str:
    """The key's organisation. Raises Forbidden when `x-org` names another, by its id or its name."""
    named = str(request.headers.get("x-org") or "").strip()
    if named and named != request.org:
        held = platform.org(request.org)
        if held is None or slug(held["name"]) != named:
            raise Forbidden(f"This key does not belong to the organisation {named[:64]}.")
    return request.org


def _changed(request: Request, org: str, issue_id: str, fields: dict[str, Any]) -> AppIssue:
    """Raises NotFound and Forbidden."""
    issue = app_issues.find(org, issue_id)
    if not may_change(issue, request.principal):
        raise Forbidden(f"Issue {issue_id} can be changed by its author and by admins only.")
    return app_issues.change(org, issue.id, fields, request.now)


@handler.route("GET", "/api/v1/app/issue", query=AppIssueQuery, answers={200: AppIssuePage})
def list_app_issues(request: Request) -> Reply:
    org = _org(request)
    given = {name: ",".join(values) if name in SEVERAL else values[-1] for name, values in request.query.items()}
    query = checked(AppIssueQuery, {name: value for name, value in given.items() if value != ""})
    found = app_issues.page(org, query)
    page: AppIssuePage = {
        "data": [issue.shown(query.include) for issue in found.issues],
        "has_next_page": found.later,
        "has_previous_page": found.earlier,
        "total_count": found.total,
    }
    return Reply(200, page)


@handler.route("POST", "/api/v1/app/issue", body=AppIssueIn, answers={200: AppIssueShown})
def create_app_issue(request: Request) -> Reply:
    org = _org(request)
    given = request.model(AppIssueIn)
    number, at = app_issues.number(org, request.now)
    issue = made(org, given, request.principal.user, number, at, secrets.randbelow(2**24))
    reply = Reply(200, issue.shown())
    app_issues.add(org, issue, *request.keep(reply))
    return reply


@handler.route("GET", "/api/v1/app/issue/<issue_id>", answers={200: AppIssueShown})
def get_app_issue(request: Request, issue_id: str) -> Reply:
    return Reply(200, app_issues.find(_org(request), issue_id).shown())


@handler.route("PUT", "/api/v1/app/issue/<issue_id>", body=AppIssuePatch, answers={200: AppIssueShown})
def put_app_issue(request: Request, issue_id: str) -> Reply:
    org = _org(request)
    given = request.model(AppIssuePatch)
    return Reply(200, _changed(request, org, issue_id, given.put()).shown())


@handler.route("PATCH", "/api/v1/app/issue/<issue_id>", body=AppIssuePatch, answers={200: AppIssueShown})
def update_app_issue(request: Request, issue_id: str) -> Reply:
    org = _org(request)
    given = request.model(AppIssuePatch)
    return Reply(200, _changed(request, org, issue_id, given.sent()).shown())


@handler.route("DELETE", "/api/v1/app/issue/<issue_id>", answers={204: None})
def delete_app_issue(request: Request, issue_id: str) -> Reply:
    _changed(request, _org(request), issue_id, {"state": "Deleted"})
    return Reply(204)


boot.done()
