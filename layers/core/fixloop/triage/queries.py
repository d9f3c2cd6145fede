"""`GET /v1/triage/issues`: its filters, its sorts, and the cursor that keeps a reader's place."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from fixloop.triage.evidence import RESOURCE_TYPES, ResourceType
from fixloop.triage.issues import SEVERITIES, STATUSES, Category, Issue, Severity, Status
from fixloop.triage.wire import PageQuery, Ref, fingerprint, is_identifier, opened, sealed, stale
from fixloop.triage.words import contain, words

Sort = Literal["last_activity_at", "created_at", "severity", "status"]
REPEATED = ("status", "severity", "category")
_RANGES = {"24h": 1, "7d": 7, "30d": 30, "90d": 90}
_DAY_MS = 86_400_000
_FILTERS = (*REPEATED, "resource_type", "owner_id", "assignee_id", "search", "date_field", "date_range")


class IssueQuery(PageQuery):
    """The parameters of the list. `status`, `severity` and `category` may be repeated; any of the values matches."""

    sort: Sort = "last_activity_at"
    order: Literal["desc", "asc"] = "desc"
    search: Annotated[str, StringConstraints(max_length=200)] | None = None
    status: Annotated[list[Status], Field(max_length=20, default_factory=list)]
    severity: Annotated[list[Severity], Field(max_length=20, default_factory=list)]
    category: Annotated[list[Category], Field(max_length=20, default_factory=list)]
    resource_type: ResourceType | None = None
    owner_id: Ref | None = None
    assignee_id: Ref | None = None
    date_field: Literal["last_activity_at", "created_at"] = "last_activity_at"
    date_range: Literal["24h", "7d", "30d", "90d"] | None = None

    @property
    def words(self) -> list[str]:
        return words(self.search or "")

    @property
    def leafed(self) -> bool:
        """Whether it asks for a status, a severity or a type of resource."""
        return bool(self.status or self.severity or self.resource_type)

    @property
    def index_time(self) -> Literal["last_activity_at", "created_at"]:
        """The time that the indexes of this sort are in order of."""
        return "last_activity_at" if self.sort == "last_activity_at" else "created_at"

    @property
    def ascending(self) -> bool:
        return self.order == "asc"

    def wants(self, leaf: str) -> bool:
        """Whether issues in the leaf pass the filters on status, severity and type of resource."""
        return (
            (not self.status or STATUSES[int(leaf[0])] in self.status)
            and (not self.severity or SEVERITIES[int(leaf[1])] in self.severity)
            and (self.resource_type is None or bool(int(leaf[2]) & 1 << RESOURCE_TYPES.index(self.resource_type)))
        )

    def group(self, leaf: str) -> int:
        """Where the leaf comes in the sort; leaves of one group are merged."""
        return int(leaf[0]) if self.sort == "status" else int(leaf[1]) if self.sort == "severity" else 0

    def since(self, now: int) -> int | None:
        """The first ms of the date range."""
        return None if self.date_range is None else now - _RANGES[self.date_range] * _DAY_MS

    def scopes(self) -> tuple[str, list[list[str]]]:
        """Which of category, owner and assignee are asked for, by their letters, and the values wanted together."""
        given = {"c": sorted({name.casefold() for name in self.category}), "w": self.owner_id, "s": self.assignee_id}
        asked = {letter: [one] if isinstance(one, str) else one for letter, one in given.items() if one}
        return "".join(asked), [list(values) for values in itertools.product(*asked.values())]

    def matches(self, issue: Issue, now: int) -> bool:
        """Whether an issue, as it is now, passes every filter."""
        since = self.since(now)
        return (
            self.wants(issue.leaf)
            and (not self.category or issue.category.casefold() in {name.casefold() for name in self.category})
            and self.owner_id in (None, issue.owner_id)
            and self.assignee_id in (None, issue.assignee_id)
            and (since is None or getattr(issue, self.date_field) >= since)
            and (self.search is None or self._found(issue))
        )

    def _found(self, issue: Issue) -> bool:
        return bool(self.words) and contain(words(issue.title, issue.description), self.words)

    def place(self, issue: Issue) -> Place:
        return Place(self.group(issue.leaf), moment(issue) if self.sort == "last_activity_at" else issue.id)

    # The cursor

    def _fingerprint(self) -> str:
        return fingerprint([getattr(self, name) for name in _FILTERS])

    def next(self, place: Place) -> str:
        """The cursor of a page that ends at `place`."""
        end = {"s": self.sort, "o": self.order, "v": place.group, "k": place.key, "i": place.key[-36:]}
        return sealed({**end, "f": self._fingerprint()})

    def after(self) -> Place | None:
        """Where the page starts. Raises Invalid for a cursor of another list."""
        if self.cursor is None:
            return None
        end = opened(self.cursor, {"s": str, "o": str, "v": int, "k": str, "i": str, "f": str})
        given = (end["s"], end["o"], end["f"])
        key: str = end["k"]
        if given != (self.sort, self.order, self._fingerprint()) or not is_identifier(end["i"]):
            raise stale()
        stamp = key.removesuffix(end["i"])
        if not key.endswith(end["i"]) or (stamp and not stamp[:-1].isdigit()) or not 0 <= end["v"] < len(STATUSES):
            raise stale()
        return Place(end["v"], key)


@dataclass(frozen=True, order=True)
class Place:
    """Where an issue stands in a sorted list: its group's rank, then its key in the index that is read."""

    group: int
    key: str


def moment(issue: Issue) -> str:
    """The last activity as an index key: in order of time, ties by id."""
    return f"{issue.last_activity_at:015d}#{issue.id}"


def scope_values(issue: Issue) -> dict[str, Any]:
    """The issue's category, owner and assignee by the letters of `IssueQuery.scopes`; None where it has none."""
    return {"c": issue.category.casefold(), "w": issue.owner_id, "s": issue.assignee_id}
