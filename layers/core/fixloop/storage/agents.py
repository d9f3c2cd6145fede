"""Agents and their versions: the agents table."""

from __future__ import annotations

from collections.abc import Callable

from fixloop.agents import Agent, AgentIn, AgentPatch, Content, Version, fits
from fixloop.errors import Conflict, NotFound
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

LEAF = "0"
_ATTEMPTS = 6


def _table() -> str:
    return settings().agents_table


lists = Lists(_table, chunk=64, indexes={ORG: ("by_leaf", "lf")})


def _key(org: str, agent_id: str) -> Item:
    return {"pk": f"{org}#agent#{agent_id}", "sk": "agent"}


def _version_key(org: str, agent_id: str, version: int) -> Item:
    return {"pk": f"{org}#agent#{agent_id}", "sk": f"version#{version:09d}"}


def _number_key(org: str, number: int) -> Item:
    return {"pk": f"{org}#number#{number}", "sk": "number"}


def _gone_key(org: str, agent_id: str) -> Item:
    return {"pk": f"{org}#agent#{agent_id}", "sk": "gone"}


def _item(org: str, agent: Agent) -> Item:
    place = Place(org, agent.n, agent.created_at, LEAF)
    return {
        **_key(org, agent.id),
        **lists.attributes(place),
        "at": agent.created_at,
        "version": agent.version,
        "doc": agent.model_dump_json(),
    }


def _version_item(org: str, version: Version) -> Item:
    return {**_version_key(org, version.agent_id, version.version), "doc": version.model_dump_json()}


def _nothing_more(_: Agent) -> list[Action]:
    return []


def add(
    org: str,
    agent_id: str,
    given: AgentIn,
    author: str,
    now: int,
    also: Callable[[Agent], list[Action]] = _nothing_more,
) -> Agent:
    """`also` tells what to write in the same transaction. Raises Conflict when the id or the number is taken."""
    n, at = lists.allocate(org, now)
    content = Content(
        name=given.name, system_prompt=given.systemPrompt, model=given.model, parameters=given.parameters.given()
    )
    agent = Agent(
        id=agent_id,
        n=n,
        number=given.number,
        version=_versions_before(org, agent_id) + 1,
        content=content,
        created_at=at,
        updated_at=at,
    )
    first = Version(
        agent_id=agent_id, version=agent.version, content=content, reason="created", author=author, created_at=at
    )
    lists.announce(org, LEAF)
    actions = [
        dynamo.put_action(_table(), _item(org, agent), condition="attribute_not_exists(pk)"),
        dynamo.put_action(_table(), _version_item(org, first), condition="attribute_not_exists(pk)"),
    ]
    if given.number is not None:
        named = {**_number_key(org, given.number), "agent": agent_id}
        actions.append(dynamo.put_action(_table(), named, condition="attribute_not_exists(pk)"))
    more = also(agent)
    try:
        dynamo.write([*actions, *more])
    except ConditionFailed as refused:
        if any(refused.failed(len(actions) + at) for at in range(len(more))):
            raise
        if refused.failed(0):
            raise Conflict(f"Agent {agent_id} exists already.") from None
        if given.number is not None and refused.failed(2):
            raise Conflict(f"Another agent has the number {given.number}.") from None
        raise
    return agent


def _versions_before(org: str, agent_id: str) -> int:
    """How many versions an agent of this id had before it was deleted; they stay, so the count goes on."""
    held = dynamo.get(_table(), _gone_key(org, agent_id))
    return int(held["version"]) if held else 0


def look(org: str, agent_id: str) -> Agent | None:
    item = dynamo.get(_table(), _key(org, agent_id))
    return Agent.model_validate_json(item["doc"]) if item else None


def find(org: str, agent_id: str) -> Agent:
    """By its id, or by its number in digits. Raises NotFound."""
    agent = look(org, agent_id)
    if agent is None and agent_id.isascii() and agent_id.isdigit():
        agent = of_number(org, int(agent_id))
    if agent is None:
        raise NotFound(f"Agent {agent_id} not found")
    return agent


def of_number(org: str, number: int) -> Agent | None:
    held = dynamo.get(_table(), _number_key(org, number))
    return look(org, held["agent"]) if held else None


def ensure(org: str, number: int, prompt: str, now: int) -> Agent:
    """The agent that calls name by `number`; made from the prompt its calls ran on when nobody has described it yet.

    A prompt too long for an agent is left to the traces, which hold it whole.
    """
    known = of_number(org, number)
    if known:
        return known
    given = AgentIn(name=f"Agent {number}", number=number, systemPrompt=prompt if fits(prompt) else "")
    try:
        return add(org, f"agent_{number}", given, "system", now)
    except Conflict:
        return of_number(org, number) or find(org, f"agent_{number}")


def names(org: str, agent_ids: set[str]) -> dict[str, str]:
    items = dynamo.get_many(_table(), (_key(org, agent_id) for agent_id in agent_ids))
    agents = (Agent.model_validate_json(item["doc"]) for item in items)
    return {agent.id: agent.content.name for agent in agents}


def page(org: str, offset: int, limit: int) -> tuple[list[Agent], int]:
    found = lists.page(org, Filter(), offset=offset, limit=limit, total=True)
    items = dynamo.get_rows(_table(), found.rows)
    return [Agent.model_validate_json(item["doc"]) for item in items], found.total or 0


def next_version(
    org: str, agent: Agent, content: Content, reason: str, author: str, now: int
) -> tuple[Agent, list[Action]]:
    """The agent with `content`, and the writes that make it so. Their condition fails when it changed meanwhile."""
    changed = agent.model_copy(
        update={"version": agent.version + 1, "content": content, "updated_at": max(now, agent.updated_at)}
    )
    made = Version(
        agent_id=agent.id,
        version=changed.version,
        content=content,
        reason=reason,
        author=author,
        created_at=changed.updated_at,
    )
    return changed, [
        dynamo.put_action(
            _table(),
            _item(org, changed),
            condition="version = :version",
            values={":version": agent.version},
        ),
        dynamo.put_action(_table(), _version_item(org, made), condition="attribute_not_exists(pk)"),
    ]


def change(org: str, agent_id: str, patch: AgentPatch, author: str, now: int) -> Agent:
    """A change that changes nothing makes no version. Raises NotFound."""

    def patched(agent: Agent) -> Content:
        return patch.onto(agent.content)

    return _changed(org, agent_id, patched, "updated", author, now)


def roll_back(org: str, agent_id: str, version: int, author: str, now: int) -> Agent:
    """A new version with the content of an old one. Raises NotFound for either."""
    old = version_of(org, find(org, agent_id).id, version)
    return _changed(org, agent_id, lambda _: old.content, f"rolled back to {version}", author, now)


def _changed(org: str, agent_id: str, content: Callable[[Agent], Content], reason: str, author: str, now: int) -> Agent:
    for _ in range(_ATTEMPTS):
        agent = find(org, agent_id)
        wanted = content(agent)
        if wanted == agent.content:
            return agent
        changed, actions = next_version(org, agent, wanted, reason, author, now)
        try:
            dynamo.write(actions)
        except ConditionFailed:
            continue
        return changed
    raise Contended(f"agent {agent_id} kept changing")


def remove(org: str, agent_id: str) -> None:
    """Its versions stay, so that what ran on it can be explained. Raises NotFound."""
    for _ in range(_ATTEMPTS):
        agent = find(org, agent_id)
        actions = [
            dynamo.delete_action(
                _table(),
                _key(org, agent.id),
                condition="version = :version",
                values={":version": agent.version},
            ),
            dynamo.put_action(_table(), {**_gone_key(org, agent.id), "version": agent.version}),
        ]
        if agent.number is not None:
            actions.append(dynamo.delete_action(_table(), _number_key(org, agent.number)))
        try:
            lists.move(Place(org, agent.n, agent.created_at, LEAF), None, *actions)
        except ConditionFailed:
            continue
        return
    raise Contended(f"agent {agent_id} kept changing")


def versions(org: str, agent_id: str) -> list[Version]:
    """Newest first. Raises NotFound."""
    agent = find(org, agent_id)
    values = {":pk": _key(org, agent.id)["pk"], ":version": "version#"}
    items = dynamo.query(
        _table(), "pk = :pk AND begins_with(sk, :version)", values, ScanIndexForward=False, ConsistentRead=True
    )
    return [Version.model_validate_json(item["doc"]) for item in items]


def version_of(org: str, agent_id: str, version: int) -> Version:
    """Raises NotFound."""
    item = dynamo.get(_table(), _version_key(org, agent_id, version))
    if item is None:
        raise NotFound(f"Agent {agent_id} has no version {version}")
    return Version.model_validate_json(item["doc"])
