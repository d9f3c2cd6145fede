"""`/api/agents` (ours, in ThinkHive's dialect): what is being improved, and every version of it."""

from fixloop import boot  # isort: skip
import difflib
import secrets

from fixloop.agents import AgentIn, AgentPatch, AgentShown, Diff, DiffQuery, PathVersion, Rollback, VersionShown
from fixloop.errors import Invalid
from fixloop.http import Api, Reply, Request
from fixloop.storage import agents
from fixloop.thinkhive import Done, Many, One, PageQuery, identifier, many, one

handler = Api()


@handler.route("GET", "/api/agents", query=PageQuery, answers={200: Many[AgentShown]})
def list_agents(request: Request) -> Reply:
    query = request.parameters(PageQuery)
    found, total = agents.page(request.org, query.start, query.limit)
    return Reply(200, many([agent.shown() for agent in found], query, total))


@handler.route("POST", "/api/agents", body=AgentIn, answers={201: One[AgentShown]})
def create_agent(request: Request) -> Reply:
    given = request.model(AgentIn)
    agent_id = identifier("agent", request.now, secrets.randbelow(36**4))
    agent = agents.add(
        request.org,
        agent_id,
        given,
        request.principal.user.ref,
        request.now,
        lambda made: request.keep(Reply(201, one(made.shown()))),
    )
    return Reply(201, one(agent.shown()))


@handler.route("GET", "/api/agents/<agent_id>", answers={200: One[AgentShown]})
def get_agent(request: Request, agent_id: str) -> Reply:
    return Reply(200, one(agents.find(request.org, agent_id).shown()))


@handler.route("PATCH", "/api/agents/<agent_id>", body=AgentPatch, answers={200: One[AgentShown]})
def update_agent(request: Request, agent_id: str) -> Reply:
    patch = request.model(AgentPatch)
    return Reply(200, one(agents.change(request.org, agent_id, patch, request.principal.user.ref, request.now).shown()))


@handler.route("DELETE", "/api/agents/<agent_id>", answers={200: Done})
def delete_agent(request: Request, agent_id: str) -> Reply:
    agents.remove(request.org, agent_id)
    return Reply(200, {"success": True, "message": "Agent deleted successfully"})


@handler.route("GET", "/api/agents/<agent_id>/versions", query=PageQuery, answers={200: Many[VersionShown]})
def list_versions(request: Request, agent_id: str) -> Reply:
    query = request.parameters(PageQuery)
    found = agents.versions(request.org, agent_id)
    page = found[query.start : query.start + query.limit]
    return Reply(200, many([version.shown() for version in page], query, len(found)))


@handler.route("GET", "/api/agents/<agent_id>/versions/<version>", answers={200: One[VersionShown]})
def get_version(request: Request, agent_id: str, version: PathVersion) -> Reply:
    agent = agents.find(request.org, agent_id)
    return Reply(200, one(agents.version_of(request.org, agent.id, _number(version)).shown()))


@handler.route("GET", "/api/agents/<agent_id>/diff", query=DiffQuery, answers={200: One[Diff]})
def get_diff(request: Request, agent_id: str) -> Reply:
    """What changed between two versions."""
    query = request.parameters(DiffQuery)
    agent = agents.find(request.org, agent_id)
    to = query.to or agent.version
    since = query.since or max(1, to - 1)
    old, new = (agents.version_of(request.org, agent.id, one_).content for one_ in (since, to))
    lines = difflib.unified_diff(
        old.system_prompt.splitlines(),
        new.system_prompt.splitlines(),
        f"version {since}",
        f"version {to}",
        lineterm="",
    )
    changed = [name for name in type(old).model_fields if getattr(old, name) != getattr(new, name)]
    wire = {"system_prompt": "systemPrompt"}
    return Reply(
        200,
        one(
            {
                "agentId": agent.id,
                "from": since,
                "to": to,
                "changed": [wire.get(name, name) for name in changed],
                "promptDiff": "\n".join(lines),
                "model": {"from": old.model, "to": new.model},
                "parameters": {"from": old.parameters, "to": new.parameters},
                "retrieval": {"from": old.retrieval, "to": new.retrieval},
                "guardrails": {"from": old.guardrails, "to": new.guardrails},
            }
        ),
    )


@handler.route("POST", "/api/agents/<agent_id>/rollback", body=Rollback, answers={200: One[AgentShown]})
def roll_back(request: Request, agent_id: str) -> Reply:
    wanted = request.model(Rollback)
    agent = agents.roll_back(request.org, agent_id, wanted.version, request.principal.user.ref, request.now)
    return Reply(200, one(agent.shown()))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise Invalid({"version": ["must be the number of a version"]})
    return int(text)


boot.done()
