"""Issues as ThinkHive describes them: related failures of one agent, with the traces that show them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, Field, StringConstraints, field_validator
from typing_extensions import TypedDict

from fixloop.leaves import Leaves
from fixloop.patch import Patch
from fixloop.shapes import Time
from fixloop.thinkhive import PageQuery, is_identifier, placed
from fixloop.times import iso_s

MAX_TRACES = 10_000

Severity = Literal["low", "medium", "high", "critical"]
Status = Literal["open", "proposed_fix", "testing", "closed"]

SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
STATUSES: tuple[Status, ...] = ("open", "proposed_fix", "testing", "closed")

Title = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
FixShape = TypeVar("FixShape")
AgentId = Annotated[str, StringConstraints(min_length=1, max_length=128)]


def _known_form(ids: list[str]) -> list[str]:
    for one in ids:
        if not is_identifier(one):
            raise ValueError(f"{one!r} is not a trace id")
    return list(dict.fromkeys(ids))


def id_of(key: str) -> str:
    """An issue's id: `case_…` is another name of `iss_…`."""
    return f"iss_{key.removeprefix('case_')}" if key.startswith("case_") else key


class IssueIn(BaseModel):
    """The body of `POST /api/v2/issues`; unknown keys are ignored. Trace ids given twice count once."""

    title: Title
    description: Text = ""
    agentId: AgentId  # noqa: N815 - the wire's name
    severity: Severity = "medium"
    traceIds: Annotated[list[str], Field(max_length=MAX_TRACES)] = []  # noqa: N815
    tags: Annotated[list[Tag], Field(max_length=50)] = []

    @field_validator("agentId")
    @classmethod
    def _agent(cls, value: str) -> str:
        if not is_identifier(value):
            raise ValueError("must have only letters, digits and . _ : -")
        return value

    @field_validator("traceIds")
    @classmethod
    def _traces(cls, value: list[str]) -> list[str]:
        return _known_form(value)


class IssuePatch(Patch):
    """The body of `PATCH /api/v2/issues/:id`; only what is given changes."""

    title: Title | None = None
    description: Text | None = None
    agentId: AgentId | None = None  # noqa: N815
    severity: Severity | None = None
    status: Status | None = None
    traceIds: Annotated[list[str], Field(max_length=MAX_TRACES)] | None = None  # noqa: N815
    tags: Annotated[list[Tag], Field(max_length=50)] | None = None

    @field_validator("traceIds")
    @classmethod
    def _traces(cls, value: list[str] | None) -> list[str] | None:
        return value if value is None else _known_form(value)


class IssueQuery(PageQuery):
    """The filters of `GET /api/v2/issues`."""

    agentId: AgentId | None = None  # noqa: N815
    status: Status | None = None
    severity: Severity | None = None
    sortBy: Literal["createdAt", "severity", "traceCount"] = "createdAt"  # noqa: N815
    sortOrder: Literal["asc", "desc"] = "desc"  # noqa: N815

    def wants(self, code: str) -> bool:
        """Whether issues in the leaf `code` pass the enum filters."""
        severity, status = LEAVES.values(code)
        return self.severity in (None, severity) and self.status in (None, status)


LEAVES = Leaves(SEVERITIES, STATUSES)


def leaf(severity: Severity, status: Status) -> str:
    return LEAVES.letter(severity, status)


class MetadataShown(TypedDict):
    firstSeenAt: Time | None
    lastSeenAt: Time | None
    affectedCustomers: int
    clusterConfidence: float | None
    affectedCost: float | None


class IssueCreated(TypedDict):
    id: str
    title: str
    description: str
    severity: Severity
    status: Status
    traceCount: int
    agentId: str
    tags: list[str]
    createdAt: Time
    updatedAt: Time


class IssueListed(IssueCreated):
    agentName: str | None


class IssueShown(IssueListed, Generic[FixShape]):
    traceIds: list[str]
    fixes: list[FixShape]
    metadata: MetadataShown


class IssuePatched(TypedDict):
    id: str
    title: str
    severity: Severity
    status: Status
    tags: list[str]
    updatedAt: Time


class Metadata(BaseModel):
    """What is known of the calls behind an issue. Times in ms; confidence 0 to 1, None for issues made by hand.

    `cost` is what those of the calls cost together whose cost is known, in the unit of their reports.
    """

    first_seen: int | None = None
    last_seen: int | None = None
    customers: int = 0
    confidence: float | None = None
    cost: Decimal | None = None

    def shown(self) -> MetadataShown:
        return {
            "firstSeenAt": iso_s(self.first_seen) if self.first_seen is not None else None,
            "lastSeenAt": iso_s(self.last_seen) if self.last_seen is not None else None,
            "affectedCustomers": self.customers,
            "clusterConfidence": self.confidence,
            "affectedCost": None if self.cost is None else float(self.cost),
        }


class Issue(BaseModel):
    """An issue as it is kept. Times in ms. Reports filed up to `resolved_through` are resolved: a fix was applied."""

    id: str
    n: int
    title: str
    description: str
    severity: Severity
    status: Status
    agent_id: str
    tags: list[str]
    trace_count: int = 0
    active_tests: int = 0
    metadata: Metadata = Metadata()
    group: str | None = None
    created_at: int
    updated_at: int
    closed_at: int | None = None
    resolved_through: int | None = None

    @property
    def leaf(self) -> str:
        return leaf(self.severity, self.status)

    def created(self) -> IssueCreated:
        """What `POST` answers: no agent's name and no trace ids."""
        return {
            "id": self.id,
            "title": self.title,
            "description": self.description,
            "severity": self.severity,
            "status": self.status,
            "traceCount": self.trace_count,
            "agentId": self.agent_id,
            "tags": self.tags,
            "createdAt": iso_s(self.created_at),
            "updatedAt": iso_s(self.updated_at),
        }

    def listed(self, agent_name: str | None) -> IssueListed:
        """What a list shows."""
        return cast(IssueListed, placed(self.created(), "tags", agentName=agent_name))

    def detailed(self, agent_name: str | None, trace_ids: list[str], fixes: list[FixShape]) -> IssueShown[FixShape]:
        """What `GET` shows."""
        metadata = self.metadata.shown()
        shown = placed(self.listed(agent_name), "createdAt", traceIds=trace_ids, fixes=fixes, metadata=metadata)
        return cast(IssueShown[FixShape], shown)

    def patched(self) -> IssuePatched:
        """What `PATCH` answers."""
        return {
            "id": self.id,
            "title": self.title,
            "severity": self.severity,
            "status": self.status,
            "tags": self.tags,
            "updatedAt": iso_s(self.updated_at),
        }
