"""Agents: what is being improved. Every change of prompt, model or parameters is a new version."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from typing_extensions import TypedDict

from fixloop.calls import Id
from fixloop.patch import Patch
from fixloop.shapes import Said, Time
from fixloop.times import iso_s

MAX_PROMPT = 200_000  # characters
MAX_STORED = 300_000  # bytes as JSON; a version has to fit a row

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


def fits(prompt: str) -> bool:
    """Whether an agent can have this prompt."""
    stored = len(json.dumps(prompt, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return len(prompt) <= MAX_PROMPT and stored <= MAX_STORED


def _fitting(prompt: str) -> str:
    if not fits(prompt):
        raise ValueError(f"must have at most {MAX_PROMPT} characters, and at most {MAX_STORED} bytes as JSON")
    return prompt


Prompt = Annotated[str, AfterValidator(_fitting)]
VersionNumber = Annotated[int, Field(ge=1, le=10**9)]
PathVersion = Annotated[str, Said({"type": "integer", "minimum": 1, "maximum": 10**9 - 1})]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Parameters(BaseModel):
    """How the model is asked. Names as in fixes of type `config_change`."""

    model_config = {"extra": "forbid"}

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    topP: Annotated[float, Field(gt=0, le=1)] | None = None  # noqa: N815
    maxTokens: Annotated[int, Field(ge=1, le=200_000)] | None = None  # noqa: N815
    stop: Annotated[list[Stop], Field(max_length=16)] | None = None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class Content(BaseModel):
    """What a version holds."""

    name: str
    system_prompt: str = ""
    model: str = "extractive"
    parameters: dict[str, Any] = {}
    retrieval: list[dict[str, Any]] = []
    guardrails: list[dict[str, Any]] = []


class AgentIn(BaseModel):
    """The body of `POST /api/agents`. `number` is the integer id that ThunderPhone's calls name the agent by."""

    name: Name
    number: Id | None = None
    systemPrompt: Prompt = ""  # noqa: N815
    model: ModelName = "extractive"
    parameters: Parameters = Parameters()


class AgentPatch(Patch):
    """The body of `PATCH /api/agents/:id`; only what is given changes."""

    name: Name | None = None
    systemPrompt: Prompt | None = None  # noqa: N815
    model: ModelName | None = None
    parameters: Parameters | None = None

    def onto(self, content: Content) -> Content:
        changed: dict[str, Any] = {}
        if self.name is not None:
            changed["name"] = self.name
        if self.systemPrompt is not None:
            changed["system_prompt"] = self.systemPrompt
        if self.model is not None:
            changed["model"] = self.model
        if self.parameters is not None:
            changed["parameters"] = self.parameters.given()
        return content.model_copy(update=changed)


class ContentShown(TypedDict):
    name: str
    systemPrompt: str
    model: str
    parameters: dict[str, Any]
    retrieval: list[dict[str, Any]]
    guardrails: list[dict[str, Any]]


class AgentShown(ContentShown):
    id: str
    number: int | None
    version: int
    createdAt: Time
    updatedAt: Time


class VersionShown(ContentShown):
    agentId: str
    version: int
    reason: str
    author: str | None
    createdAt: Time


Change = TypedDict("Change", {"from": Any, "to": Any})
Diff = TypedDict(
    "Diff",
    {
        "agentId": str,
        "from": int,
        "to": int,
        "changed": list[str],
        "promptDiff": str,
        "model": Change,
        "parameters": Change,
        "retrieval": Change,
        "guardrails": Change,
    },
)


class DiffQuery(BaseModel):
    """The parameters of `GET /api/agents/:id/diff`: the newest version and the one before it unless they are given."""

    since: VersionNumber | None = Field(default=None, alias="from")
    to: VersionNumber | None = None


class Agent(BaseModel):
    """An agent as it is kept: its two ids, its newest version and what that holds. Times in ms."""

    id: str
    n: int
    number: int | None = None
    version: int = 1
    content: Content
    created_at: int
    updated_at: int

    def shown(self) -> AgentShown:
        return {
            "id": self.id,
            "number": self.number,
            "version": self.version,
            **_content(self.content),
            "createdAt": iso_s(self.created_at),
            "updatedAt": iso_s(self.updated_at),
        }


class Version(BaseModel):
    """One version of an agent, and what made it: `created`, `updated`, `rolled back to 1`, `fix fix_…`."""

    agent_id: str
    version: int
    content: Content
    reason: str
    author: str | None = None
    created_at: int

    def shown(self) -> VersionShown:
        return {
            "agentId": self.agent_id,
            "version": self.version,
            **_content(self.content),
            "reason": self.reason,
            "author": self.author,
            "createdAt": iso_s(self.created_at),
        }


def _content(content: Content) -> ContentShown:
    return {
        "name": content.name,
        "systemPrompt": content.system_prompt,
        "model": content.model,
        "parameters": content.parameters,
        "retrieval": content.retrieval,
        "guardrails": content.guardrails,
    }


class Rollback(BaseModel):
    """The body of `POST /api/agents/:id/rollback`."""

    version: VersionNumber
