"""`/api/fixes` (ThinkHive): what is proposed against an issue, and applying it."""

from fixloop import boot  # isort: skip
import secrets
from typing import Any

from fixloop.changes import DiffDoesNotApply, PromptUpdate, parse_changes, wire
from fixloop.errors import Invalid
from fixloop.fixes import Fix, FixIn, FixPatch, FixQuery, applied
from fixloop.follow import follow_fix
from fixloop.http import AlreadyAnswered, Api, Reply, Request
from fixloop.storage import agents, fixes, issues
from fixloop.storage.dynamo import Action, ConditionFailed
from fixloop.thinkhive import identifier, many, one

handler = Api()


@handler.route("GET", "/api/fixes")
def list_fixes(request: Request) -> Reply:
    query = request.parameters(FixQuery)
    found, total = fixes.page(request.org, query)
    return Reply(200, many([fix.listed() for fix in found], query, total))


@handler.route("POST", "/api/fixes")
def create_fix(request: Request) -> Reply:
    given = request.model(FixIn)
    named = given.issueId or given.caseId
    if named is None:
        raise Invalid({"issueId": ["Field required"]})
    changes = parse_changes(given.type, given.changes)
    issue = issues.find(request.org, f"iss_{named.removeprefix('case_')}" if named.startswith("case_") else named)
    agent = agents.look(request.org, issue.agent_id)
    if agent is not None and isinstance(changes, PromptUpdate):
        try:
            applied(agent.content, changes)
        except DiffDoesNotApply as refused:
            raise refused.as_invalid() from None
    n, at = fixes.number(request.org, request.now)
    fix = Fix(
        id=identifier("fix", at, secrets.randbelow(36**4)),
        n=n,
        issue_id=issue.id,
        type=given.type,
        status="draft",
        description=given.description,
        changes=wire(changes),
        author=f"user_{request.principal.user.id}",
        created_at=at,
        updated_at=at,
    )
    reply = Reply(201, one(fix.created()))
    try:
        fixes.add(request.org, fix, *request.keep(reply))
    except ConditionFailed:
        raise AlreadyAnswered from None
    return reply


@handler.route("GET", "/api/fixes/<fix_id>")
def get_fix(request: Request, fix_id: str) -> Reply:
    return Reply(200, one(fixes.find(request.org, fix_id).detailed([])))


@handler.route("PATCH", "/api/fixes/<fix_id>")
def update_fix(request: Request, fix_id: str) -> Reply:
    given = request.model(FixPatch)
    author = f"user_{request.principal.user.id}"

    def asked(fix: Fix) -> tuple[dict[str, Any], list[Action]]:
        fields = {name: getattr(given, name) for name in given.model_fields_set}
        changes = parse_changes(fields.get("type", fix.type), fields.get("changes", fix.changes))
        if "changes" in fields:
            fields["changes"] = wire(changes)
        if given.status != "applied" or fix.status == "applied":
            return fields, []
        issue = issues.look(request.org, fix.issue_id) if fix.issue_id else None
        agent = agents.look(request.org, issue.agent_id) if issue else None
        if agent is None:
            return fields, []
        content = applied(agent.content, changes)
        changed, writes = agents.next_version(request.org, agent, content, f"fix {fix.id}", author, request.now)
        return {**fields, "applied_version": changed.version}, writes

    fix = fixes.change(request.org, fix_id, asked, request.now)
    if given.status is not None:
        follow_fix(request.org, fix, request.now)
    return Reply(200, one(fix.patched(given)))


boot.done()
