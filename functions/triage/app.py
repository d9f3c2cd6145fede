"""`/v1/triage` (Bland): issues, what is attached to them, and what happened to them."""

from fixloop import boot  # isort: skip
from collections.abc import Callable
from typing import Any, TypeVar

from fixloop.errors import NotFound
from fixloop.http import Api, Reply, Request, checked
from fixloop.settings import settings
from fixloop.storage.dynamo import Action
from fixloop.storage.triage import catalog, evidence, issues, lists, rows, sessions
from fixloop.times import iso_ms
from fixloop.triage.activity import CommentIn, SessionSummary, ShownEntry, person
from fixloop.triage.agent import Dispatched, PromptIn, Run, ShownAgent, profile
from fixloop.triage.evidence import (
    Affected,
    CategoryIn,
    FlagIn,
    LinkIn,
    RelationIn,
    ShownCategory,
    ShownFlag,
    ShownFlagType,
    ShownLink,
    ShownRelation,
)
from fixloop.triage.issues import Issue, IssueIn, IssuePatch, ShownIssue, Viewed
from fixloop.triage.queries import REPEATED, IssueQuery
from fixloop.triage.wire import Many, One, PageQuery, list_key, many, one

handler = Api()

Made = TypeVar("Made")


def shown(request: Request, found: list[Issue]) -> list[ShownIssue]:
    """Issues as this caller sees them."""
    unread = issues.unread(request.org, found, request.principal.user.ref)
    return [issue.shown(request.org, unread=unread[issue.id]) for issue in found]


def kept(request: Request, answer: Callable[[Made], Reply]) -> Callable[[Made], list[Action]]:
    """What to write with the thing made, so that a repeat of the request gets the same answer."""
    return lambda made: request.keep(answer(made))


# Issues


@handler.route("GET", "/v1/triage/issues", query=IssueQuery, answers={200: Many[ShownIssue]})
def list_issues(request: Request) -> Reply:
    given: dict[str, Any] = {name: values[-1] for name, values in request.query.items() if values[-1] != ""}
    for name in REPEATED:
        given[name] = [value for value in request.query.get(name, []) if value != ""]
    found, following = lists.page(request.org, checked(IssueQuery, given), request.now)
    return Reply(200, many(shown(request, found), following))


@handler.route("POST", "/v1/triage/issues", body=IssueIn, answers={201: One[ShownIssue]}, errors=(NotFound,))
def create_issue(request: Request) -> Reply:
    given = request.model(IssueIn)

    def answer(issue: Issue) -> Reply:
        return Reply(201, one(issue.shown(request.org, unread=False)))

    actor = person(request.principal.user)
    return answer(issues.add(request.org, given, actor, request.now, kept(request, answer)))


@handler.route("GET", "/v1/triage/issues/<issue_id>", answers={200: One[ShownIssue]})
def get_issue(request: Request, issue_id: str) -> Reply:
    return Reply(200, one(shown(request, [rows.find(request.org, issue_id)])[0]))


@handler.route("PATCH", "/v1/triage/issues/<issue_id>", body=IssuePatch, answers={200: One[ShownIssue]})
def update_issue(request: Request, issue_id: str) -> Reply:
    given = request.model(IssuePatch, default={})
    issue = issues.patch(request.org, issue_id, given.fields(), person(request.principal.user), request.now)
    return Reply(200, one(shown(request, [issue])[0]))


@handler.route("DELETE", "/v1/triage/issues/<issue_id>", answers={204: None})
def delete_issue(request: Request, issue_id: str) -> Reply:
    issues.remove(request.org, issue_id, person(request.principal.user), request.now)
    return Reply(204)


@handler.route("PUT", "/v1/triage/issues/<issue_id>/view", answers={200: One[Viewed]})
def view_issue(request: Request, issue_id: str) -> Reply:
    at = issues.view(request.org, issue_id, request.principal.user.ref, request.now)
    return Reply(200, one(Viewed(issue_id=issue_id, last_viewed_at=iso_ms(at))))


# Resources


@handler.route("GET", "/v1/triage/issues/<issue_id>/resources", query=PageQuery, answers={200: Many[ShownLink]})
def list_resources(request: Request, issue_id: str) -> Reply:
    query = request.parameters(PageQuery)
    found, following = evidence.links(request.org, issue_id, query.limit, query.cursor)
    return Reply(200, many([link.shown(request.org) for link in found], following))


@handler.route(
    "POST", "/v1/triage/issues/<issue_id>/resources", body=LinkIn, answers={201: One[ShownLink], 200: One[ShownLink]}
)
def attach_resource(request: Request, issue_id: str) -> Reply:
    given = request.model(LinkIn)
    actor = person(request.principal.user)
    also = kept(request, lambda link: Reply(201, one(link.shown(request.org))))
    link, new = evidence.attach(request.org, issue_id, given, actor, request.now, also)
    return Reply(201 if new else 200, one(link.shown(request.org)))


@handler.route("DELETE", "/v1/triage/issues/<issue_id>/resources/<link_id>", answers={204: None})
def detach_resource(request: Request, issue_id: str, link_id: str) -> Reply:
    evidence.detach_link(request.org, issue_id, link_id, person(request.principal.user), request.now)
    return Reply(204)


@handler.route("PUT", "/v1/triage/issues/<issue_id>/calls/<call_id>", answers={200: One[ShownIssue]})
def attach_call(request: Request, issue_id: str, call_id: str) -> Reply:
    given = checked(LinkIn, {"resource_type": "call", "resource_id": call_id})
    evidence.attach(request.org, issue_id, given, person(request.principal.user), request.now)
    return Reply(200, one(shown(request, [rows.find(request.org, issue_id)])[0]))


@handler.route("DELETE", "/v1/triage/issues/<issue_id>/calls/<call_id>", answers={204: None})
def detach_call(request: Request, issue_id: str, call_id: str) -> Reply:
    evidence.detach_call(request.org, issue_id, call_id, person(request.principal.user), request.now)
    return Reply(204)


@handler.route("GET", "/v1/triage/issues/<issue_id>/affected", answers={200: One[Affected]})
def get_affected(request: Request, issue_id: str) -> Reply:
    return Reply(200, one(evidence.what_is_affected(request.org, issue_id)))


# Flags


@handler.route("GET", "/v1/triage/issues/<issue_id>/flags", query=PageQuery, answers={200: Many[ShownFlag]})
def list_flags(request: Request, issue_id: str) -> Reply:
    query = request.parameters(PageQuery)
    found, following = evidence.flags(request.org, issue_id, query.limit, query.cursor)
    return Reply(200, many([flag.shown(request.org) for flag in found], following))


@handler.route("POST", "/v1/triage/issues/<issue_id>/flags", body=FlagIn, answers={201: One[ShownFlag]})
def add_flag(request: Request, issue_id: str) -> Reply:
    given = request.model(FlagIn)
    actor = person(request.principal.user)
    also = kept(request, lambda flag: Reply(201, one(flag.shown(request.org))))
    flag = evidence.flag(request.org, issue_id, given, actor, request.now, also)
    return Reply(201, one(flag.shown(request.org)))


@handler.route("DELETE", "/v1/triage/issues/<issue_id>/flags/<flag_id>", answers={204: None})
def delete_flag(request: Request, issue_id: str, flag_id: str) -> Reply:
    evidence.remove_flag(request.org, issue_id, flag_id, person(request.principal.user), request.now)
    return Reply(204)


@handler.route("GET", "/v1/triage/flag-types", query=PageQuery, answers={200: Many[ShownFlagType]})
def list_flag_types(request: Request) -> Reply:
    query = request.parameters(PageQuery)
    return Reply(200, many(*catalog.flag_types(request.org, query.limit, query.cursor)))


# Relations


@handler.route("GET", "/v1/triage/issues/<issue_id>/relations", query=PageQuery, answers={200: Many[ShownRelation]})
def list_relations(request: Request, issue_id: str) -> Reply:
    query = request.parameters(PageQuery)
    return Reply(200, many(*evidence.relations(request.org, issue_id, query.limit, query.cursor)))


@handler.route(
    "POST",
    "/v1/triage/issues/<issue_id>/relations",
    body=RelationIn,
    answers={201: One[ShownRelation], 200: One[ShownRelation]},
)
def add_relation(request: Request, issue_id: str) -> Reply:
    given = request.model(RelationIn)
    actor = person(request.principal.user)
    also = kept(request, lambda relation: Reply(201, one(relation)))
    relation, new = evidence.relate(request.org, issue_id, given, actor, request.now, also)
    return Reply(201 if new else 200, one(relation))


@handler.route("DELETE", "/v1/triage/issues/<issue_id>/relations/<relation_id>", answers={204: None})
def delete_relation(request: Request, issue_id: str, relation_id: str) -> Reply:
    evidence.unrelate(request.org, issue_id, relation_id, person(request.principal.user), request.now)
    return Reply(204)


# Timeline


@handler.route("GET", "/v1/triage/issues/<issue_id>/activity", query=PageQuery, answers={200: Many[ShownEntry]})
def list_activity(request: Request, issue_id: str) -> Reply:
    query = request.parameters(PageQuery)
    return Reply(200, many(*evidence.activity(request.org, issue_id, query.limit, query.cursor)))


@handler.route("POST", "/v1/triage/issues/<issue_id>/comments", body=CommentIn, answers={201: One[ShownEntry]})
def add_comment(request: Request, issue_id: str) -> Reply:
    given = request.model(CommentIn)
    actor = person(request.principal.user)
    also = kept(request, lambda entries: Reply(201, one(entries[0])))
    name = settings().triage_agent_name
    return Reply(201, one(evidence.comment(request.org, issue_id, given, actor, request.now, also, name)))


# The agent


@handler.route("GET", "/v1/triage/agents", query=PageQuery, answers={200: Many[ShownAgent]})
def list_agents(request: Request) -> Reply:
    query = request.parameters(PageQuery)
    list_key("agents", query.cursor)
    return Reply(200, many([profile(request.org, settings().triage_agent_name)], None))


@handler.route("POST", "/v1/triage/issues/<issue_id>/agent-sessions", answers={201: One[SessionSummary]})
def start_session(request: Request, issue_id: str) -> Reply:
    actor = person(request.principal.user)
    also = kept(request, lambda session: Reply(201, one(session)))
    name = settings().triage_agent_name
    return Reply(201, one(sessions.start(request.org, issue_id, name, actor, request.now, also)))


@handler.route(
    "POST",
    "/v1/triage/issues/<issue_id>/agent-sessions/<session_id>/prompts",
    body=PromptIn,
    answers={202: One[Dispatched]},
)
def prompt_agent(request: Request, issue_id: str, session_id: str) -> Reply:
    given = request.model(PromptIn)

    def answer(run: Run) -> Reply:
        return Reply(202, one(Dispatched(session_id=run.session["id"], run_id=run.id, intent=run.intent)))

    actor = person(request.principal.user)
    also = kept(request, answer)
    return answer(sessions.prompt(request.org, issue_id, session_id, given.detail, actor, request.now, also))


# Categories


@handler.route("GET", "/v1/triage/categories", query=PageQuery, answers={200: Many[ShownCategory]})
def list_categories(request: Request) -> Reply:
    query = request.parameters(PageQuery)
    return Reply(200, many(*catalog.categories(request.org, query.limit, query.cursor)))


@handler.route(
    "POST", "/v1/triage/categories", body=CategoryIn, answers={201: One[ShownCategory], 200: One[ShownCategory]}
)
def create_category(request: Request) -> Reply:
    given = request.model(CategoryIn)
    also = kept(request, lambda category: Reply(201, one(category)))
    category, new = catalog.add_category(request.org, given.name, request.now, also)
    return Reply(201 if new else 200, one(category))


boot.done()
