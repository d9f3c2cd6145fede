"""What hangs on a triage issue: resources, flags on moments of calls, relations to other issues; and categories."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator
from typing_extensions import TypedDict

from fixloop.errors import Conflict
from fixloop.times import iso_ms
from fixloop.triage.wire import Ref

ResourceType = Literal["call", "sms_conversation", "file"]
RelationType = Literal["related_to", "blocks", "duplicate_of"]
Direction = Literal["outgoing", "incoming"]

RESOURCE_TYPES: tuple[ResourceType, ...] = ("call", "sms_conversation", "file")
BUILT_IN = ("Transcription", "Speech", "Dialogue", "Routing", "Tools", "Latency", "Telephony", "Bug")
_NAMES: dict[ResourceType, str] = {"call": "Call", "sms_conversation": "SMS conversation", "file": "File"}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GAP = re.compile(r"[\W_]+")


class CallNotAttached(Conflict):
    """A flag points at a call that is not evidence of the issue."""

    code = "call_not_attached"


class LinkIn(BaseModel):
    """One of `resource_links`, and the body of `POST /v1/triage/issues/{id}/resources`."""

    resource_type: ResourceType
    resource_id: Ref


class ShownLink(TypedDict):
    """A resource on the wire."""

    id: str
    issue_id: str
    org_id: str
    resource_type: ResourceType
    resource_id: str
    title: str
    status: Literal["available", "unavailable"]
    metadata: dict[str, Any] | None
    attached_by_id: str | None
    created_at: str


class Link(BaseModel):
    """A resource as it is kept. `started_at` is when the call began, null for what is not kept here."""

    id: str
    issue_id: str
    resource_type: ResourceType
    resource_id: str
    title: str
    started_at: int | None
    attached_by_id: str | None
    created_at: int

    def shown(self, org: str) -> ShownLink:
        """SMS conversations and files are not kept here: their links are, and say so."""
        return {
            "id": self.id,
            "issue_id": self.issue_id,
            "org_id": org,
            "resource_type": self.resource_type,
            "resource_id": self.resource_id,
            "title": self.title,
            "status": "available" if self.resource_type == "call" else "unavailable",
            "metadata": None if self.started_at is None else {"created_at": iso_ms(self.started_at)},
            "attached_by_id": self.attached_by_id,
            "created_at": iso_ms(self.created_at),
        }


def named(kind: ResourceType, resource_id: str) -> str:
    """What a resource is called when nothing more is known of it."""
    return f"{_NAMES[kind]} {resource_id}"


def distinct(links: list[LinkIn]) -> list[LinkIn]:
    """The links without those that name the same resource again."""
    return list({(link.resource_type, link.resource_id): link for link in links}.values())


class FlagIn(BaseModel):
    """The body of `POST /v1/triage/issues/{id}/flags`. The type is stored in lower_snake_case."""

    call_id: Ref
    type: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    note: Annotated[str, StringConstraints(max_length=4000)] = ""
    node_id: Ref | None = None
    node_name: Annotated[str, StringConstraints(max_length=255)] | None = None
    message_index: Annotated[int, Field(ge=0, le=10**9)] | None = None
    message_text: Annotated[str, StringConstraints(max_length=10_000)] | None = None

    @field_validator("type")
    @classmethod
    def _snake(cls, value: str) -> str:
        snake = _GAP.sub("_", _HUMP.sub("_", value)).strip("_").lower()
        if not snake:
            raise ValueError("must have a letter or a digit")
        return snake

    @field_validator("note", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("String should have at least 1 character")
        return "" if value is None else value


class ShownFlag(TypedDict):
    """A flag on the wire."""

    id: str
    org_id: str
    issue_id: str
    call_id: str
    type: str
    note: str
    node_id: str | None
    node_name: str | None
    message_index: int | None
    message_text: str | None
    author_id: str | None
    created_at: str


class Flag(BaseModel):
    """A flag as it is kept."""

    id: str
    issue_id: str
    call_id: str
    type: str
    note: str
    node_id: str | None
    node_name: str | None
    message_index: int | None
    message_text: str | None
    author_id: str | None
    created_at: int

    def shown(self, org: str) -> ShownFlag:
        return {
            "id": self.id,
            "org_id": org,
            "issue_id": self.issue_id,
            "call_id": self.call_id,
            "type": self.type,
            "note": self.note,
            "node_id": self.node_id,
            "node_name": self.node_name,
            "message_index": self.message_index,
            "message_text": self.message_text,
            "author_id": self.author_id,
            "created_at": iso_ms(self.created_at),
        }


class ShownFlagType(TypedDict):
    """A type of flag that the organisation has used: `description` is the newest note, `usage_count` the live flags."""

    type: str
    description: str
    usage_count: int
    last_used_at: str | None


class RelationIn(BaseModel):
    """The body of `POST /v1/triage/issues/{id}/relations`."""

    related_issue_id: Ref
    relation_type: RelationType


class ShownRelation(TypedDict):
    """A relation on the wire, seen from one of its two sides."""

    id: str
    org_id: str
    issue_id: str
    related_issue_id: str
    related_triage_id: str
    related_title: str
    relation_type: RelationType
    direction: Direction
    created_by_id: str | None
    created_at: str


class Relation(BaseModel):
    """One side of a relation as it is kept."""

    id: str
    issue_id: str
    related_issue_id: str
    relation_type: RelationType
    direction: Direction
    created_by_id: str | None
    created_at: int

    def other_side(self) -> Relation:
        opposite: Direction = "incoming" if self.direction == "outgoing" else "outgoing"
        sides = {"issue_id": self.related_issue_id, "related_issue_id": self.issue_id, "direction": opposite}
        return self.model_copy(update=sides)

    def shown(self, org: str, triage_id: str, title: str) -> ShownRelation:
        """`triage_id` and `title` are those of the issue on the other side as it is now."""
        return {
            "id": self.id,
            "org_id": org,
            "issue_id": self.issue_id,
            "related_issue_id": self.related_issue_id,
            "related_triage_id": triage_id,
            "related_title": title,
            "relation_type": self.relation_type,
            "direction": self.direction,
            "created_by_id": self.created_by_id,
            "created_at": iso_ms(self.created_at),
        }


class CategoryIn(BaseModel):
    """The body of `POST /v1/triage/categories`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ShownCategory(TypedDict):
    """A category on the wire; a built-in one has the id `built-in:<lower-case name>`."""

    id: str
    org_id: str
    name: str
    created_at: str


def built_in(org: str, created_at: int) -> list[ShownCategory]:
    """The categories that are always there; they are as old as the organisation."""
    at = iso_ms(created_at)
    return [{"id": f"built-in:{name.lower()}", "org_id": org, "name": name, "created_at": at} for name in BUILT_IN]


class AffectedCall(TypedDict):
    """An attached call and what it ran on: a pathway is the agent that had it."""

    call_id: str
    title: str
    started_at: str | None
    pathway_id: str | None
    pathway_name: str | None
    pathway_version_id: str | None
    version_number: int | None
    version_label: str | None
    persona_id: str | None
    persona_name: str | None


class AffectedPathway(TypedDict):
    """An agent and which of the attached calls it had."""

    pathway_id: str
    pathway_name: str | None
    pathway_version_id: str | None
    version_number: int | None
    version_label: str | None
    call_count: int
    call_ids: list[str]


class Affected(TypedDict):
    """What an issue is about. Agents here have no personas, so that list stays empty."""

    issue_id: str
    calls: list[AffectedCall]
    pathways: list[AffectedPathway]
    personas: list[Any]


def affected(issue_id: str, calls: list[tuple[Link, str | None, str | None]]) -> Affected:
    """From each attached call with its agent's id and name."""
    shown: list[AffectedCall] = []
    pathways: dict[str, AffectedPathway] = {}
    for link, agent_id, name in calls:
        shown.append(
            {
                "call_id": link.resource_id,
                "title": link.title,
                "started_at": None if link.started_at is None else iso_ms(link.started_at),
                "pathway_id": agent_id,
                "pathway_name": name,
                "pathway_version_id": None,
                "version_number": None,
                "version_label": None,
                "persona_id": None,
                "persona_name": None,
            }
        )
        if agent_id is not None:
            pathway = pathways.setdefault(
                agent_id,
                {
                    "pathway_id": agent_id,
                    "pathway_name": name,
                    "pathway_version_id": None,
                    "version_number": None,
                    "version_label": None,
                    "call_count": 0,
                    "call_ids": [],
                },
            )
            pathway["call_count"] += 1
            pathway["call_ids"].append(link.resource_id)
    return {"issue_id": issue_id, "calls": shown, "pathways": list(pathways.values()), "personas": []}
