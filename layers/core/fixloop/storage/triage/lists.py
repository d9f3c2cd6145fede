"""Pages of triage issues: sorted, filtered and searched, read behind a key and never from the start.

The indexes of the table hold every issue by (scope, leaf), sorted by id (and so by time of creation) and by last
activity. A scope is a category, an owner, an assignee or any of those together; a leaf is a status, a severity and
which types of resources there are. A filter is a set of (scope, leaf) streams, merged while they are read.

What no index is sorted by, words and a date range on the other of the two times, is looked at issue by issue: where a
word, or the range, has no more than `FEW` issues all of them are, and otherwise a page looks at `LOOKED_AT` at most and
may then hold fewer issues than it could.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, islice

from fixloop.storage import dynamo
from fixloop.storage.triage import rows
from fixloop.triage.issues import Issue
from fixloop.triage.queries import IssueQuery, Place
from fixloop.triage.wire import first_at
from fixloop.triage.words import indexed

FEW = 1000
LOOKED_AT = 1000
_CALM = 4  # times a page is read at most for one that no issue moved under
_FIRST, _LAST = "0", "~"  # before and behind every index key
_SCOPE_NAMES = {"c": "category", "w": "owner", "s": "assignee"}


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=16)


def page(org: str, query: IssueQuery, now: int) -> tuple[list[Issue], str | None]:
    """The issues behind the cursor, and the next cursor. Raises Invalid for a cursor of another list.

    Streams are read one beside the other, so an issue that goes from one to another meanwhile could be missed; every
    such move is counted, and when there was one the page is read again, as often as is sensible.
    """
    after = query.after()
    found: list[Issue] = []
    end: Place | None = None
    for _ in range(_CALM):
        leaves, rev = rows.mark(org)
        found, end = _read(org, query, after, sorted(filter(query.wants, leaves)), now)
        if rows.mark(org)[1] == rev:
            break
    return found, None if end is None else query.next(end)


def _read(
    org: str, query: IssueQuery, after: Place | None, leaves: list[str], now: int
) -> tuple[list[Issue], Place | None]:
    since = None if query.date_field == query.index_time else query.since(now)
    if query.search is None and since is None:
        return _walked(org, query, after, leaves, now, whole=True)
    candidates = _candidates(org, query, leaves, since)
    if candidates is not None:
        return _chosen(org, query, after, candidates, now)
    return _walked(org, query, after, leaves, now, whole=False)


def _walked(
    org: str, query: IssueQuery, after: Place | None, leaves: list[str], now: int, *, whole: bool
) -> tuple[list[Issue], Place | None]:
    """Issues in the order of the index; `whole` says that it serves every filter, so that only the page is read."""
    since = query.since(now) if query.date_field == query.index_time else None
    places = _places(org, query, after, leaves, since, query.limit)
    found: list[Issue] = []
    met: set[str] = set()
    last: Place | None = None
    looked_at = 0
    while chunk := list(islice(places, query.limit + 1 - len(found) if whole else min(100, query.limit * 2))):
        issues = rows.find_many(org, [place.key[-36:] for place in chunk])
        for place in chunk:
            issue = issues.get(place.key[-36:])
            again = issue is None or issue.id in met  # it went from one leaf to another while they were read
            if issue is not None and not again and query.matches(issue, now) and not _ahead(query, issue, place):
                if len(found) == query.limit:
                    return found, last
                found.append(issue)
                met.add(issue.id)
            last = place
        looked_at += len(chunk)
        if not whole and looked_at >= LOOKED_AT:
            return found, last
    return found, None


def _ahead(query: IssueQuery, issue: Issue, place: Place) -> bool:
    """Whether the issue has gone on since the index was read, to where the reader will meet it again."""
    now_at = query.place(issue)
    return now_at > place if query.ascending else now_at < place


def _chosen(
    org: str, query: IssueQuery, after: Place | None, ids: Iterable[str], now: int
) -> tuple[list[Issue], Place | None]:
    """Those of few issues that match, sorted here."""
    matching = [issue for issue in rows.find_many(org, list(ids)).values() if query.matches(issue, now)]
    matching.sort(key=query.place, reverse=not query.ascending)
    if after is not None:
        matching = [
            one for one in matching if (query.place(one) > after if query.ascending else query.place(one) < after)
        ]
    found = matching[: query.limit]
    return found, query.place(found[-1]) if len(matching) > query.limit else None


def _candidates(org: str, query: IssueQuery, leaves: list[str], since: int | None) -> set[str] | None:
    """Ids of issues among which all that match are, when they are few; None where only a walk will do."""
    if query.search is not None and not query.words:
        return set()
    sources: list[set[str] | None] = list(
        _threads().map(lambda word: _with_word(org, word), filter(indexed, query.words[:8]))
    )
    if since is not None:
        recent = query.model_copy(update={"sort": query.date_field, "order": "desc"})
        found = {place.key[-36:] for place in islice(_places(org, recent, None, leaves, since, FEW + 1), FEW + 1)}
        sources.append(found if len(found) <= FEW else None)
    few = [source for source in sources if source is not None]
    return set.intersection(*few) if few else None


def _with_word(org: str, beginning: str) -> set[str] | None:
    """Ids of the issues that have a word with this beginning; None when they are many."""
    values = {":pk": rows.word_key(org, beginning, "")["pk"], ":word": beginning}
    found, _ = dynamo.some(rows.table(), "pk = :pk AND begins_with(sk, :word)", values, FEW + 1)
    return {one["sk"].rpartition("#")[2] for one in found} if len(found) <= FEW else None


# Streams


def _places(
    org: str, query: IssueQuery, after: Place | None, leaves: list[str], since: int | None, expected: int
) -> Iterator[Place]:
    """Where the issues of the list stand behind `after`, as the indexes know them; `since` is on the index's time."""
    scopes, wanted = query.scopes()
    order = "activity" if query.index_time == "last_activity_at" else "created"
    name = "_".join(_SCOPE_NAMES[letter] for letter in scopes) or "leaf"
    least = _FIRST if since is None else f"{since:015d}" if order == "activity" else first_at(max(0, since))
    if not scopes and not query.leafed and query.sort == query.index_time:
        low, high = _bounds(query, after, 0, least)
        yield from _Stream(0, f"all_{order}", "g", org, low, high, query.ascending, expected + 1).places()
        return
    ranked = sorted(leaves, key=query.group, reverse=not query.ascending)
    for group, some in groupby(ranked, key=query.group):
        if after is not None and (group < after.group if query.ascending else group > after.group):
            continue
        low, high = _bounds(query, after, group, least)
        hashes = [rows.hashes(org, scopes, values, leaf) for leaf in some for values in wanted]
        share = -(-expected // max(1, len(hashes))) + 1
        streams = [
            _Stream(group, f"{name}_{order}", f"h{scopes}", one, low, high, query.ascending, share) for one in hashes
        ]
        list(_threads().map(_Stream.fill, streams))
        yield from heapq.merge(*(stream.places() for stream in streams), reverse=not query.ascending)


def _bounds(query: IssueQuery, after: Place | None, group: int, least: str) -> tuple[str, str]:
    """The first and the last index key that a group's part of the page can have."""
    if after is None or after.group != group:
        return least, _LAST
    return (max(least, _behind(after.key)), _LAST) if query.ascending else (least, _before(after.key))


def _behind(key: str) -> str:
    """Greater than the key, and less than every greater one of its length."""
    return key + " "


def _before(key: str) -> str:
    """Less than the key, and greater than every lesser one of its length."""
    return f"{key[:-1]}{chr(ord(key[-1]) - 1)}~"


@dataclass
class _Stream:
    """One hash of an index, read in growing shares as it is consumed."""

    group: int
    index: str
    attribute: str
    hash: str
    low: str
    high: str
    ascending: bool
    share: int
    _ready: list[str] = field(default_factory=list)
    _more: bool = True

    def fill(self) -> None:
        """Reads the next share."""
        if self.low > self.high:
            self._more = False
            return
        sort_key = "act" if self.index.endswith("_activity") else "id"
        condition = f"{self.attribute} = :hash AND {sort_key} BETWEEN :low AND :high"
        values = {":hash": self.hash, ":low": self.low, ":high": self.high}
        options = {"IndexName": self.index, "ScanIndexForward": self.ascending}
        found, self._more = dynamo.some(rows.table(), condition, values, self.share, **options)
        self._ready = [one[sort_key] for one in found]
        if found:
            end = self._ready[-1]
            self.low, self.high = (_behind(end), self.high) if self.ascending else (self.low, _before(end))
            self.share = min(self.share * 2, 200)

    def places(self) -> Iterator[Place]:
        while True:
            if not self._ready and self._more:
                self.fill()
                continue
            if not self._ready:
                return
            ready, self._ready = self._ready, []
            for key in ready:
                yield Place(self.group, key)
