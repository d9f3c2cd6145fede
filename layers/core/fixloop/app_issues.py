"""App issues as Zylon's workspace describes them: what a person reports about a thread, and where that stands."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from typing_extensions import TypedDict

from fixloop.identity import Principal, Scope, User
from fixloop.leaves import Leaves
from fixloop.patch import Patch
from fixloop.ranges import not_before, whole_second
from fixloop.shapes import Time
from fixloop.times import FIRST, LAST, iso_s

ResourceType = Literal["Thread"]
Type = Literal["NoAnswer", "Inaccurate", "NoContextUsed", "Format", "Other"]
State = Literal["NotReviewed", "InReview", "Closed", "Deleted"]
Related = Literal["User", "Project"]

TYPES: tuple[Type, ...] = ("NoAnswer", "Inaccurate", "NoContextUsed", "Format", "Other")
STATES: tuple[State, ...] = ("NotReviewed", "InReview", "Closed", "Deleted")
SHOWN: tuple[State, ...] = ("NotReviewed", "InReview", "Closed")
LEAVES = Leaves(TYPES, STATES)
EDITORS = frozenset({"AppAdmin", "AppOwner", "Admin", "SuperAdmin"})

MAX_PAGE_SIZE = 100
MAX_NAMED = 20  # users or projects in one filter
_ID = re.compile(r"issue_([0-9a-f]{10})[0-9a-f]{6}")

Text = Annotated[str, StringConstraints(max_length=20_000)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[\w.:-]+$")]
Instant = Annotated[int, Field(ge=FIRST, le=LAST)]


class Config(BaseModel):
    """What an issue about a thread points at: the thread, and the answer in it that was reported."""

    thread_id: Key
    reported_interaction_id: Key | None = None


class AppIssueIn(BaseModel):
    """The body of `POST /api/v1/app/issue`; unknown keys are ignored."""

    project_id: Key | None = None
    description: Text | None = None
    resource_type: ResourceType
    type: Type
    config: Config | None = None
    anonymous: bool = False


class AppIssuePatch(Patch):
    """The body of `PUT` and `PATCH /api/v1/app/issue/{id}`; only what is given changes."""

    description: Text | None = None
    type: Type | None = None
    state: State | None = None
    is_read: bool | None = None

    def put(self) -> dict[str, Any]:
        """What a `PUT` changes: an omitted `is_read` is false, as published; what else is omitted stays."""
        return {"is_read": False, **self.sent()}


def _several(value: Any) -> Any:
    """`InReview,Closed` as a list; what is given twice counts once."""
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


class AppIssueQuery(BaseModel):
    """The filters of `GET /api/v1/app/issue`, those of several values separated by commas.

    Dates are on `created_at`, inclusive, in ms; as that is shown in whole seconds, an `end_date` in whole seconds takes
    in all of its second. `after` and `before` are ids of issues: the page is what follows or precedes them.
    """

    include: Annotated[list[Related], BeforeValidator(_several)] = []
    type: Annotated[list[Type], BeforeValidator(_several)] = []
    states: Annotated[list[State], BeforeValidator(_several)] = []
    start_date: Instant | None = None
    end_date: Annotated[Instant, AfterValidator(whole_second), not_before("start_date")] | None = None
    filter_by_text: Annotated[str, StringConstraints(max_length=200)] | None = None
    created_by: Annotated[list[Key], Field(max_length=MAX_NAMED), BeforeValidator(_several)] = []
    projects: Annotated[list[Key], Field(max_length=MAX_NAMED), BeforeValidator(_several)] = []
    page_order: Literal["ASC", "DESC"] = "DESC"
    page: Annotated[int, Field(ge=1, le=10**9)] = 1
    page_size: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE)] = 20
    after: Key | None = None
    before: Key | None = None

    @field_validator("after", "before")
    @classmethod
    def _placed_once(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and (info.data.get("page", 1) > 1 or info.data.get("after") is not None):
            raise ValueError("only one of page, after and before can say where the page lies")
        return value

    def wants(self, code: str) -> bool:
        """Whether issues in the leaf `code` pass the filters of enums. Deleted ones have to be asked for."""
        kind, state = LEAVES.values(code)
        return (not self.type or kind in self.type) and state in (self.states or SHOWN)

    def chosen(self, issue: AppIssue) -> bool:
        """Whether an issue passes the filters that need a look at it. An anonymous one was created by nobody."""
        return (
            (not self.created_by or issue.creator in self.created_by)
            and (not self.projects or issue.project_id in self.projects)
            and (self.filter_by_text is None or self.filter_by_text.casefold() in issue.description.casefold())
        )

    def span(self, total: int, newer: int, through: int) -> tuple[int, int]:
        """From which row to which, newest first, the page goes out of `total`.

        `newer` rows are newer than the one `after` or `before` names, `through` of them with that one.
        """
        ascending = self.page_order == "ASC"
        ahead, passed = (total - through, total - newer) if ascending else (newer, through)
        if self.before is not None:
            start, end = max(0, ahead - self.page_size), ahead
        else:
            start = passed if self.after is not None else (self.page - 1) * self.page_size
            start, end = min(start, total), min(start + self.page_size, total)
        return (total - end, total - start) if ascending else (start, end)


class CreatorShown(TypedDict):
    """Who reported an issue."""

    id: str
    org_id: str
    account_id: str
    name: str
    email: str
    state: Literal["Active"]
    roles: list[str]
    created_at: Time


class ProjectShown(TypedDict):
    """An issue's project. Projects are not kept here: their name is their id."""

    id: str
    name: str


class DataShown(TypedDict):
    """What the issue was created with as `config`."""

    thread_id: str
    reported_interaction_id: NotRequired[str]


class AppIssueShown(TypedDict):
    """One issue: `created_by` unless it is anonymous, `data` if it has any, `project` where lists are asked for it."""

    id: str
    issue_number: int
    description: str
    resource_type: ResourceType
    type: Type
    state: State
    is_read: bool
    data: NotRequired[DataShown]
    created_at: Time
    updated_at: Time
    created_by: NotRequired[CreatorShown]
    project: NotRequired[ProjectShown]


class AppIssuePage(TypedDict):
    """What `GET /api/v1/app/issue` answers."""

    data: list[AppIssueShown]
    has_next_page: bool
    has_previous_page: bool
    total_count: int


class AppIssue(BaseModel):
    """An issue as it is kept; `number` is its row's, `issue_id` the loop's issue it belongs to. Times in ms.

    `followed` is the last closing of the loop's issue that this one has followed.
    """

    id: str
    number: int
    description: str
    resource_type: ResourceType
    type: Type
    state: State = "NotReviewed"
    is_read: bool = False
    anonymous: bool = False
    org_id: str
    author: User
    project_id: str | None = None
    config: Config | None = None
    issue_id: str | None = None
    followed: int | None = None
    created_at: int
    updated_at: int

    @property
    def leaf(self) -> str:
        return LEAVES.letter(self.type, self.state)

    @property
    def creator(self) -> str | None:
        """The id of who created it, as far as anyone may know."""
        return None if self.anonymous else self.author.ref

    def shown(self, include: list[Related] | None = None) -> AppIssueShown:
        shown: AppIssueShown = {
            "id": self.id,
            "issue_number": self.number,
            "description": self.description,
            "resource_type": self.resource_type,
            "type": self.type,
            "state": self.state,
            "is_read": self.is_read,
            "created_at": iso_s(self.created_at),
            "updated_at": iso_s(self.updated_at),
        }
        if not self.anonymous:
            shown["created_by"] = _creator(self.org_id, self.author)
        if self.config is not None:
            shown["data"] = _data(self.config)
        if self.project_id is not None and "Project" in (include or ()):
            shown["project"] = {"id": self.project_id, "name": self.project_id}
        return shown


def _data(config: Config) -> DataShown:
    shown: DataShown = {"thread_id": config.thread_id}
    if config.reported_interaction_id is not None:
        shown["reported_interaction_id"] = config.reported_interaction_id
    return shown


def _creator(org: str, user: User) -> CreatorShown:
    account = hashlib.sha256(f"{org}#{user.id}".encode()).hexdigest()[:16]
    return {
        "id": user.ref,
        "org_id": org,
        "account_id": f"acct_{account}",
        "name": user.name,
        "email": user.email,
        "state": "Active",
        "roles": user.roles,
        "created_at": iso_s(user.created_at),
    }


def made(org: str, given: AppIssueIn, author: User, number: int, at: int, noise: int) -> AppIssue:
    """A new issue, not reviewed and not read."""
    return AppIssue(
        id=identifier(number, noise),
        number=number,
        description=given.description or "",
        resource_type=given.resource_type,
        type=given.type,
        anonymous=given.anonymous,
        org_id=org,
        author=author,
        project_id=given.project_id,
        config=given.config,
        created_at=at,
        updated_at=at,
    )


def identifier(number: int, noise: int) -> str:
    """`issue_` and 16 hex digits: the number, which finds the row, and 24 bits of noise."""
    return f"issue_{number:010x}{noise % 2**24:06x}"


def number_of(issue_id: str) -> int | None:
    """The number in an id, or None for what is no id."""
    found = _ID.fullmatch(issue_id)
    return int(found[1], 16) if found else None


def may_change(issue: AppIssue, who: Principal) -> bool:
    """An issue is changed by its author, anonymous or not, and by those who administer the workspace."""
    return who.scope is Scope.ADMIN or who.user.id == issue.author.id or bool(EDITORS & set(who.user.roles))


def slug(name: str) -> str:
    """An organisation's name as it stands in addresses and in `x-org`: `Aurora Labs` is `aurora-labs`."""
    return "-".join(re.findall(r"\w+", name.casefold()))
