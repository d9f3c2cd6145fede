"""Occurrences, what a detector yields, and how those of one ref become one issue."""

import re
from dataclasses import dataclass, field
from typing import Any

from fixloop.grading.conversation import Row
from fixloop.grading.findings import DetectedIssue, Severity

QUOTE = 300  # characters of a turn that are quoted
_EVIDENCE = 20  # occurrences that are quoted
_TURNS = 200  # of them that are listed; `metadata.count` tells how many there were
_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True)
class Occurrence:
    """One place in a call where a problem shows.

    `quotes` are exact substrings of turns, or of the prompt that contradicts them.
    """

    ref: str
    title: str
    severity: Severity
    what: str
    row: Row | None
    quotes: tuple[str, ...] = ()
    others: tuple[Row, ...] = ()
    second: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def quoted(text: str, at: int = 0) -> str:
    """The part of a turn around a place that is short enough to show; an exact substring."""
    start = max(0, at - QUOTE // 3) if len(text) > QUOTE else 0
    return text[start : start + QUOTE].strip()


def slug(text: str | None) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text or "").lower()).strip("-")[:60]


def merged(ref: str, occurrences: list[Occurrence]) -> DetectedIssue:
    occurrences = sorted(occurrences, key=lambda o: (o.row is None, o.row.position if o.row else 0))
    first = occurrences[0]
    times = [t for o in occurrences if (t := _second(o)) is not None]
    quotes = list(dict.fromkeys(q for o in occurrences[:_EVIDENCE] for q in o.quotes if q))
    turns = sorted({r.index for o in occurrences for r in (o.row, *o.others) if r is not None})
    more = f" It happened {len(occurrences)} times in this call." if len(occurrences) > 1 else ""
    said = "\n".join(f"> {line}" for q in quotes[:6] for line in q.splitlines())
    return DetectedIssue(
        ref=ref,
        title=first.title[:255],
        description=f"{first.what}{more}\n\n{said}".strip(),
        severity=max((o.severity for o in occurrences), key=_RANK.__getitem__),
        timestamp_seconds=min(times, default=None),
        turn_index=first.row.index if first.row else None,
        relevant_turn_indices=turns[:_TURNS],
        evidence="\n".join(quotes),
        metadata={**first.metadata, "count": len(occurrences)},
    )


def _second(occurrence: Occurrence) -> int | None:
    if occurrence.second is not None:
        return occurrence.second
    return occurrence.row.second if occurrence.row else None
