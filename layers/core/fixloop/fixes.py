"""Fixes as ThinkHive describes them: a proposed change to an agent, and where it stands."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar, cast

from pydantic import BaseModel, ConfigDict, StringConstraints
from typing_extensions import TypedDict

from fixloop.agents import Content
from fixloop.changes import TYPES, Changes, ConfigChange, FixType, PromptUpdate, new_prompt, wire
from fixloop.issues import Status as IssueStatus
from fixloop.leaves import Leaves
from fixloop.patch import Patch
from fixloop.shapes import Like, Time
from fixloop.thinkhive import PageQuery, placed
from fixloop.times import iso_s

Status = Literal["draft", "proposed", "testing", "applied", "rejected"]

STATUSES: tuple[Status, ...] = ("draft", "proposed", "testing", "applied", "rejected")
LEAVES = Leaves(TYPES, STATUSES)

Description = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=128)]
TestShape = TypeVar("TestShape")
ChangesIn = Annotated[dict[str, Any], Like(Changes)]

_ISSUE_FOLLOWS: dict[Status, IssueStatus] = {"proposed": "proposed_fix", "testing": "testing", "applied": "closed"}
_ISSUE_ORDER: tuple[IssueStatus, ...] = ("open", "proposed_fix", "testing", "closed")


class FixIn(BaseModel):
    """The body of `POST /api/fixes`; `caseId` is the older name of `issueId`, `changes` depends on `type`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["issueId"]}, {"required": ["caseId"]}]})

    issueId: Key | None = None  # noqa: N815 - the wire's name
    caseId: Key | None = None  # noqa: N815
    type: FixType
    description: Description
    changes: ChangesIn


class FixPatch(Patch):
    """The body of `PATCH /api/fixes/:id`; only what is given changes."""

    type: FixType | None = None
    status: Status | None = None
    description: Description | None = None
    changes: ChangesIn | None = None


class FixQuery(PageQuery):
    """The filters of `GET /api/fixes`."""

    issueId: Key | None = None  # noqa: N815
    status: Status | None = None
    type: FixType | None = None

    def wants(self, code: str) -> bool:
        """Whether fixes in the leaf `code` pass the enum filters."""
        kind, status = LEAVES.values(code)
        return self.type in (None, kind) and self.status in (None, status)


class FixCreated(TypedDict):
    id: str
    issueId: str | None
    type: FixType
    status: Status
    description: str
    changes: ChangesIn
    createdAt: Time
    updatedAt: Time


class FixListed(FixCreated):
    author: str


class FixShown(FixListed, Generic[TestShape]):
    shadowTests: list[TestShape]


class FixPatched(TypedDict):
    """The id, what was sent, and when."""

    id: str
    type: NotRequired[FixType]
    status: NotRequired[Status]
    description: NotRequired[str]
    changes: NotRequired[ChangesIn]
    updatedAt: Time


class Fix(BaseModel):
    """A fix as it is kept. Times in ms; `applied_version` is the agent's version that it made."""

    id: str
    n: int
    issue_id: str | None
    type: FixType
    status: Status
    description: str
    changes: dict[str, Any]
    author: str
    created_at: int
    updated_at: int
    applied_version: int | None = None

    @property
    def leaf(self) -> str:
        return LEAVES.letter(self.type, self.status)

    def created(self) -> FixCreated:
        """What `POST` answers: no author."""
        return {
            "id": self.id,
            "issueId": self.issue_id,
            "type": self.type,
            "status": self.status,
            "description": self.description,
            "changes": self.changes,
            "createdAt": iso_s(self.created_at),
            "updatedAt": iso_s(self.updated_at),
        }

    def listed(self) -> FixListed:
        return cast(FixListed, placed(self.created(), "createdAt", author=self.author))

    def detailed(self, shadow_tests: list[TestShape]) -> FixShown[TestShape]:
        return cast(FixShown[TestShape], placed(self.listed(), "author", shadowTests=shadow_tests))

    def patched(self, given: FixPatch) -> FixPatched:
        """What `PATCH` answers."""
        sent = {name: getattr(self, name) for name in given.sent()}
        return cast(FixPatched, {"id": self.id, **sent, "updatedAt": iso_s(self.updated_at)})


def followed(status: Status, issue: IssueStatus) -> IssueStatus | None:
    """Where an issue goes when a fix of it comes to `status`, or None where it stays: it only ever goes forward."""
    target = _ISSUE_FOLLOWS.get(status)
    if target is None or _ISSUE_ORDER.index(target) <= _ISSUE_ORDER.index(issue):
        return None
    return target


def applied(content: Content, changes: Changes) -> Content:
    """An agent's content with a fix in it. Raises DiffDoesNotApply.

    Retrieval updates and guardrails are kept on the agent in their wire form, for whoever serves it to honour.
    """
    if isinstance(changes, PromptUpdate):
        return content.model_copy(update={"system_prompt": new_prompt(content.system_prompt, changes)})
    sent = wire(changes)
    if isinstance(changes, ConfigChange):
        named = {name: value for name, value in sent.items() if name != "model"}
        update: dict[str, Any] = {"parameters": {**content.parameters, **named}}
        if changes.model:
            update["model"] = changes.model
        return content.model_copy(update=update)
    kind = "guardrails" if "rules" in sent else "retrieval"
    return content.model_copy(update={kind: [*getattr(content, kind), sent]})
