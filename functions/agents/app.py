"""`/api/agents` (ours, in ThinkHive's dialect): what is being improved, and every version of it."""

from fixloop import boot  # isort: skip
import difflib
import secrets

from fixloop.agents import AgentIn, AgentPatch, Rollback
from fixloop.errors import Invalid
from fixloop.http import AlreadyAnswered, Api, Reply, Request
from fixloop.storage import agents
from fixloop.storage.dynamo import ConditionFailed
from fixloop.thinkhive import PageQuery, identifier, many, one

handler = Api()


def _author(request: Request) -> str:
    return f"user_{request.principal.user.id}"


@handler.route("GET", "/api/agents")
def list_agents(request: Request) -> Reply:
    query = request.parameters(PageQuery)
    found, total = agents.page(request.org, query.start, query.limit)
    return Reply(200, many([agent.shown() for agent in found], query, total))


@handler.route("POST", "/api/agents")
def create_agent(request: Request) -> Reply:
    given = request.model(AgentIn)
    agent_id = identifier("agent", request.now, secrets.randbelow(36**4))
    try:
        agent = agents.add(
            request.org,
            agent_id,
            given,
            _author(request),
            request.now,
            lambda made: request.keep(Reply(201, one(made.shown()))),
        )
    except ConditionFailed:
        raise AlreadyAnswered from None
    return Reply(201, one(agent.shown()))


@handler.route("GET", "/api/agents/<agent_id>")
def get_agent(request: Request, agent_id: str) -> Reply:
    return Reply(200, one(agents.find(request.org, agent_id).shown()))


@handler.route("PATCH", "/api/agents/<agent_id>")
def update_agent(request: Request, agent_id: str) -> Reply:
    patch = request.model(AgentPatch)
    return Reply(200, one(agents.change(request.org, agent_id, patch, _author(request), request.now).shown()))


@handler.route("DELETE", "/api/agents/<agent_id>")
def delete_agent(request: Request, agent_id: str) -> Reply:
    agents.remove(request.org, agent_id)
    return Reply(200, {"success": True, "message": "Agent deleted successfully"})


@handler.route("GET", "/api/agents/<agent_id>/versions")
def list_versions(request: Request, agent_id: str) -> Reply:
    query = request.parameters(PageQuery)
    found = agents.versions(request.org, agent_id)
    page = found[query.start : query.start + query.limit]
    return Reply(200, many([version.shown() for version in page], query, len(found)))


@handler.route("GET", "/api/agents/<agent_id>/versions/<version>")
def get_version(request: Request, agent_id: str, version: str) -> Reply:
    agent = agents.find(request.org, agent_id)
    return Reply(200, one(agents.version_of(request.org, agent.id, _number("version", version)).shown()))


@handler.route("GET", "/api/agents/<agent_id>/diff")
def get_diff(request: Request, agent_id: str) -> Reply:
    """What changed between two versions; `to` is the newest and `from` the one before it unless they are given."""
    agent = agents.find(request.org, agent_id)
    to = _number("to", request.query.get("to", [str(agent.version)])[-1])
    since = _number("from", request.query.get("from", [str(max(1, to - 1))])[-1])
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


@handler.route("POST", "/api/agents/<agent_id>/rollback")
def roll_back(request: Request, agent_id: str) -> Reply:
    wanted = request.model(Rollback)
    agent = agents.roll_back(request.org, agent_id, wanted.version, _author(request), request.now)
    return Reply(200, one(agent.shown()))


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise Invalid({name: ["must be the number of a version"]})
    return int(text)


boot.done()
