"""`/api/v2/issues` (ThinkHive), and the same rows as `/api/v1/cases` for clients of the older interface."""

from fixloop import boot  # isort: skip
import secrets

from fixloop.fixes import FixListed, FixQuery
from fixloop.http import Api, Reply, Request
from fixloop.issues import (
    IssueCreated,
    IssueIn,
    IssueListed,
    IssuePatch,
    IssuePatched,
    IssueQuery,
    IssueShown,
    id_of,
)
from fixloop.storage import agents, fixes, issues
from fixloop.thinkhive import Done, Many, One, identifier, many, one

handler = Api()


@handler.route("GET", "/api/v1/cases")
@handler.route("GET", "/api/v2/issues", query=IssueQuery, answers={200: Many[IssueListed]})
def list_issues(request: Request) -> Reply:
    query = request.parameters(IssueQuery)
    found, total = issues.page(request.org, query)
    names = agents.names(request.org, {issue.agent_id for issue in found})
    return Reply(200, many([issue.listed(names.get(issue.agent_id)) for issue in found], query, total))


@handler.route("POST", "/api/v1/cases")
@handler.route("POST", "/api/v2/issues", body=IssueIn, answers={201: One[IssueCreated]})
def create_issue(request: Request) -> Reply:
    given = request.model(IssueIn)
    n, at = issues.number(request.org, request.now)
    issue = issues.made(identifier("iss", at, secrets.randbelow(36**4)), n, at, given)
    reply = Reply(201, one(issue.created()))
    issues.add(request.org, issue, given.traceIds, *request.keep(reply))
    return reply


@handler.route("GET", "/api/v1/cases/<issue_id>")
@handler.route("GET", "/api/v2/issues/<issue_id>", answers={200: One[IssueShown[FixListed]]})
def get_issue(request: Request, issue_id: str) -> Reply:
    issue = issues.find(request.org, id_of(issue_id))
    names = agents.names(request.org, {issue.agent_id})
    linked = issues.trace_ids(request.org, issue.id)
    made = [fix.listed() for fix in fixes.of_issue(request.org, issue.id)]
    return Reply(200, one(issue.detailed(names.get(issue.agent_id), linked, made)))


@handler.route("GET", "/api/v1/cases/<issue_id>/fixes")
@handler.route("GET", "/api/v2/issues/<issue_id>/fixes", query=FixQuery, answers={200: Many[FixListed]})
def list_fixes(request: Request, issue_id: str) -> Reply:
    issue = issues.find(request.org, id_of(issue_id))
    query = request.parameters(FixQuery, issueId=issue.id)
    found, total = fixes.page(request.org, query)
    return Reply(200, many([fix.listed() for fix in found], query, total))


@handler.route("PATCH", "/api/v1/cases/<issue_id>")
@handler.route("PATCH", "/api/v2/issues/<issue_id>", body=IssuePatch, answers={200: One[IssuePatched]})
def update_issue(request: Request, issue_id: str) -> Reply:
    patch = request.model(IssuePatch)
    return Reply(200, one(issues.patch(request.org, id_of(issue_id), patch, request.now).patched()))


@handler.route("DELETE", "/api/v1/cases/<issue_id>")
@handler.route("DELETE", "/api/v2/issues/<issue_id>", answers={200: Done})
def delete_issue(request: Request, issue_id: str) -> Reply:
    removed = issues.remove(request.org, id_of(issue_id))
    for fix in fixes.of_issue(request.org, removed.id):
        fixes.change(request.org, fix.id, lambda _: ({"issue_id": None}, []), request.now)
    return Reply(200, {"success": True, "message": "Issue deleted successfully"})


boot.done()
