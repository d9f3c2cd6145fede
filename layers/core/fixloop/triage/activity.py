"""The timeline of a triage issue: what happened to it, who did it, and what an agent thought, did and made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fixloop.identity import User
from fixloop.times import iso_ms
from fixloop.triage.wire import Detail, Ref

IssueEvent = Literal[
    "created",
    "status_changed",
    "severity_changed",
    "category_changed",
    "assignee_changed",
    "owner_changed",
    "comment",
    "resource_added",
    "resource_removed",
    "flag_added",
    "flag_removed",
    "relation_added",
    "relation_removed",
]
AgentEvent = Literal[
    "session_started", "prompt", "thought", "action", "response", "artifact", "error", "session_stopped"
]


class Actor(TypedDict):
    """Who did it."""

    kind: Literal["user", "system", "agent"]
    id: str
    label: str
    avatar_url: str | None


class Referenced(TypedDict):
    """Another issue that an entry speaks of."""

    id: str
    triage_id: str
    title: str


class Artifact(TypedDict):
    """Something that an agent made."""

    id: str
    type: str
    title: str
    renderer: str
    status: Literal["pending", "ready", "error"]
    payload: dict[str, Any]
    external_urls: list[str]


class SessionSummary(TypedDict):
    """The session an agent's entry belongs to."""

    id: str
    agent_profile_id: str
    agent_name: str
    status: str


class ShownEntry(TypedDict):
    """An entry on the wire. `agent_session` and `artifact` are there on an agent's entries only."""

    entry_kind: Literal["issue", "agent"]
    id: str
    issue_id: str
    type: str
    actor: Actor | None
    detail: str
    from_status: str | None
    to_status: str | None
    metadata: dict[str, Any] | None
    resources: list[Any]
    referenced_issues: list[Referenced]
    created_at: str
    agent_session: NotRequired[SessionSummary]
    artifact: NotRequired[Artifact | None]


class Entry(BaseModel):
    """An entry before it is placed on an issue: no id and no time yet."""

    type: IssueEvent | AgentEvent
    actor: Actor | None
    detail: str
    from_status: str | None = None
    to_status: str | None = None
    metadata: dict[str, Any] | None = None
    resources: list[dict[str, Any]] = []
    referenced_issues: list[Referenced] = []
    session: SessionSummary | None = None
    artifact: Artifact | None = None

    def shown(self, entry_id: str, issue_id: str, at: int) -> ShownEntry:
        entry: ShownEntry = {
            "entry_kind": "issue" if self.session is None else "agent",
            "id": entry_id,
            "issue_id": issue_id,
            "type": self.type,
            "actor": self.actor,
            "detail": self.detail,
            "from_status": self.from_status,
            "to_status": self.to_status,
            "metadata": self.metadata,
            "resources": list(self.resources),
            "referenced_issues": self.referenced_issues,
            "created_at": iso_ms(at),
        }
        if self.session is not None:
            entry["agent_session"] = self.session
            entry["artifact"] = self.artifact
        return entry


class CommentIn(BaseModel):
    """The body of `POST /v1/triage/issues/{id}/comments`; the links named are shown with the comment."""

    detail: Detail
    resource_link_ids: Annotated[list[Ref], Field(max_length=50)] = []


SYSTEM: Actor = {"kind": "system", "id": "fixloop", "label": "fixloop", "avatar_url": None}


def person(user: User) -> Actor:
    return {"kind": "user", "id": user.ref, "label": user.name or user.email or user.ref, "avatar_url": None}


def author(actor: Actor) -> str | None:
    """What `author_id`, `attached_by_id` and `created_by_id` say of an actor: null unless a person did it."""
    return actor["id"] if actor["kind"] == "user" else None
