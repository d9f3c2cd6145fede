"""Triage issues: the object with its 23 keys, what makes and changes it, and what that leaves in its timeline."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator
from typing_extensions import TypedDict

from fixloop.times import iso_ms
from fixloop.triage.activity import Actor, Entry, IssueEvent, Referenced, SessionSummary
from fixloop.triage.evidence import RESOURCE_TYPES, LinkIn, ResourceType
from fixloop.triage.wire import Ref

Severity = Literal["low", "medium", "high", "critical"]
Status = Literal["backlog", "todo", "in_progress", "in_review", "done", "closed"]
Source = Literal["manual", "automated", "client"]

SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
STATUSES: tuple[Status, ...] = ("backlog", "todo", "in_progress", "in_review", "done", "closed")
ENDED: tuple[Status, ...] = ("done", "closed")
FIRST_NUMBER = 1001
MAX_LINKS = 40  # of one body: issue, links and their marks are written in one transaction

Title = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Description = Annotated[str, StringConstraints(max_length=10_000)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class IssueIn(BaseModel):
    """The body of `POST /v1/triage/issues`."""

    title: Title
    severity: Severity
    category: Category
    description: Description = ""
    status: Status = "todo"
    source: Source = "manual"
    owner_id: Ref | None = None
    assignee_id: Ref | None = None
    resource_links: Annotated[list[LinkIn], Field(max_length=MAX_LINKS)] = []

    @field_validator("description", "status", "source", "resource_links", mode="before")
    @classmethod
    def _left_out(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].get_default() if value is None else value


class IssuePatch(BaseModel):
    """The body of `PATCH /v1/triage/issues/{id}`; only what is given changes. Owner and assignee can be null."""

    title: Title | None = None
    description: Description | None = None
    status: Status | None = None
    severity: Severity | None = None
    category: Category | None = None
    owner_id: Ref | None = None
    assignee_id: Ref | None = None

    @field_validator("title", "description", "status", "severity", "category", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null")
        return value

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class ShownIssue(TypedDict):
    """An issue on the wire, always with all of its keys."""

    id: str
    triage_id: str
    org_id: str
    number: int
    title: str
    description: str
    status: Status
    severity: Severity
    source: Source
    category: str
    owner_id: str | None
    assignee_id: str | None
    author_id: str | None
    external_link: dict[str, Any] | None
    created_at: str
    updated_at: str
    last_activity_at: str
    resource_count: int
    flag_count: int
    relation_count: int
    latest_agent_session: SessionSummary | None
    is_processing: bool
    has_unread_activity: bool


class Viewed(TypedDict):
    """When the caller last looked at an issue."""

    issue_id: str
    last_viewed_at: str


class Issue(BaseModel):
    """An issue as it is kept. Times in ms. `version` counts every change, and so what a reader has seen of it.

    `loop_issue_id` is the loop's issue that it stands for, `natural_key` what a machine opened it for, `followed` the
    last closing of the loop's issue that it has followed.
    """

    id: str
    number: int
    version: int = 1
    title: str
    description: str
    status: Status
    severity: Severity
    source: Source
    category: str
    owner_id: str | None
    assignee_id: str | None
    author_id: str | None
    external_link: dict[str, Any] | None = None
    created_at: int
    updated_at: int
    last_activity_at: int
    resources: dict[ResourceType, int] = {}
    flag_count: int = 0
    relation_count: int = 0
    session: SessionSummary | None = None
    pending_runs: int = 0
    loop_issue_id: str | None = None
    natural_key: str | None = None
    followed: int | None = None

    @property
    def triage_id(self) -> str:
        return f"T-{self.number}"

    @property
    def leaf(self) -> str:
        """Status, severity and which types of resources it has, one digit each."""
        has = sum(1 << at for at, kind in enumerate(RESOURCE_TYPES) if self.resources.get(kind))
        return f"{STATUSES.index(self.status)}{SEVERITIES.index(self.severity)}{has}"

    @property
    def referenced(self) -> Referenced:
        return {"id": self.id, "triage_id": self.triage_id, "title": self.title}

    def active(self, now: int, **fields: Any) -> Issue:
        """As it is after something happened on it at `now`: never earlier than what happened before."""
        at = max(now, self.last_activity_at)
        return self.model_copy(update={"version": self.version + 1, "last_activity_at": at, **fields})

    def changed(self, now: int, **fields: Any) -> Issue:
        """As it is after it was changed itself."""
        return self.active(now, updated_at=max(now, self.last_activity_at), **fields)

    def counted(self, now: int, kind: ResourceType, step: int) -> Issue:
        return self.changed(now, resources={**self.resources, kind: self.resources.get(kind, 0) + step})

    def shown(self, org: str, *, unread: bool) -> ShownIssue:
        return {
            "id": self.id,
            "triage_id": self.triage_id,
            "org_id": org,
            "number": self.number,
            "title": self.title,
            "description": self.description,
            "status": self.status,
            "severity": self.severity,
            "source": self.source,
            "category": self.category,
            "owner_id": self.owner_id,
            "assignee_id": self.assignee_id,
            "author_id": self.author_id,
            "external_link": self.external_link,
            "created_at": iso_ms(self.created_at),
            "updated_at": iso_ms(self.updated_at),
            "last_activity_at": iso_ms(self.last_activity_at),
            "resource_count": sum(self.resources.values()),
            "flag_count": self.flag_count,
            "relation_count": self.relation_count,
            "latest_agent_session": self.session,
            "is_processing": self.pending_runs > 0,
            "has_unread_activity": unread,
        }


_KINDS: dict[str, IssueEvent] = {
    "status": "status_changed",
    "severity": "severity_changed",
    "category": "category_changed",
    "assignee_id": "assignee_changed",
    "owner_id": "owner_changed",
}


def made(issue_id: str, number: int, given: IssueIn, author_id: str | None, at: int) -> Issue:
    """The issue that a body describes, without its resources."""
    return Issue(
        id=issue_id,
        number=number,
        **given.model_dump(exclude={"resource_links"}),
        author_id=author_id,
        created_at=at,
        updated_at=at,
        last_activity_at=at,
    )


def differences(issue: Issue, fields: dict[str, Any], actor: Actor) -> list[Entry]:
    """The entries that setting `fields` leaves. Title and description have no kind of entry in this API."""
    entries: list[Entry] = []
    for name, kind in _KINDS.items():
        before, after = getattr(issue, name), fields.get(name, getattr(issue, name))
        if before == after:
            continue
        what = name.removesuffix("_id")
        said = f"Changed {what} from {before} to {after}."
        if before is None:
            said = f"Set {what} to {after}."
        elif after is None:
            said = f"Removed {what} {before}."
        entry = Entry(type=kind, actor=actor, detail=said, metadata={"from": before, "to": after})
        if name == "status":
            entry.from_status, entry.to_status = before, after
        entries.append(entry)
    return entries


def forward(issue: Issue, status: Status) -> bool:
    """Whether `status` lies ahead of where the issue is."""
    return STATUSES.index(status) > STATUSES.index(issue.status)
