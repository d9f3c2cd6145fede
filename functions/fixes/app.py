"""`/api/fixes` (ThinkHive): what is proposed against an issue, and applying it."""

from fixloop import boot  # isort: skip
import secrets
from typing import Any

from fixloop.changes import DiffDoesNotApply, PromptUpdate, parse_changes, wire
from fixloop.errors import Invalid, NotFound
from fixloop.fixes import Fix, FixCreated, FixIn, FixListed, FixPatch, FixPatched, FixQuery, FixShown, applied
from fixloop.follow import follow_fix
from fixloop.http import Api, Reply, Request
from fixloop.issues import id_of
from fixloop.shadow_tests import FixTestShown, ShadowTestQuery, ShadowTestShown
from fixloop.storage import agents, fixes, issues, shadow_tests
from fixloop.storage.dynamo import Action
from fixloop.thinkhive import Many, One, identifier, many, one

handler = Api()


@handler.route("GET", "/api/fixes", query=FixQuery, answers={200: Many[FixListed]})
def list_fixes(request: Request) -> Reply:
    query = request.parameters(FixQuery)
    found, total = fixes.page(request.org, query)
    return Reply(200, many([fix.listed() for fix in found], query, total))


@handler.route("POST", "/api/fixes", body=FixIn, answers={201: One[FixCreated]}, errors=(NotFound,))
def create_fix(request: Request) -> Reply:
    given = request.model(FixIn)
    named = given.issueId or given.caseId
    if named is None:
        raise Invalid({"issueId": ["Field required"]})
    changes = parse_changes(given.type, given.changes)
    issue = issues.find(request.org, id_of(named))
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
        author=request.principal.user.ref,
        created_at=at,
        updated_at=at,
    )
    reply = Reply(201, one(fix.created()))
    fixes.add(request.org, fix, *request.keep(reply))
    return reply


@handler.route("GET", "/api/fixes/<fix_id>", answers={200: One[FixShown[FixTestShown]]})
def get_fix(request: Request, fix_id: str) -> Reply:
    fix = fixes.find(request.org, fix_id)
    tests = shadow_tests.of_fix(request.org, fix.id)
    tallies = shadow_tests.tallies(request.org, tests)
    shown = [test.of_fix(tally) for test, tally in zip(tests, tallies, strict=True)]
    return Reply(200, one(fix.detailed(shown)))


@handler.route("GET", "/api/fixes/<fix_id>/shadow-tests", query=ShadowTestQuery, answers={200: Many[ShadowTestShown]})
def list_shadow_tests(request: Request, fix_id: str) -> Reply:
    fix = fixes.find(request.org, fix_id)
    query = request.parameters(ShadowTestQuery, fixId=fix.id)
    found, total = shadow_tests.page(request.org, query)
    tallies = shadow_tests.tallies(request.org, found)
    return Reply(200, many([test.listed(tally) for test, tally in zip(found, tallies, strict=True)], query, total))


@handler.route("PATCH", "/api/fixes/<fix_id>", body=FixPatch, answers={200: One[FixPatched]})
def update_fix(request: Request, fix_id: str) -> Reply:
    given = request.model(FixPatch)
    author = request.principal.user.ref

    def asked(fix: Fix) -> tuple[dict[str, Any], list[Action]]:
        fields = given.sent()
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
