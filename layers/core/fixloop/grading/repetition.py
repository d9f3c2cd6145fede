"""Detectors of things said again: by a caller who is not heard, by an agent that is stuck."""

import re
from collections.abc import Iterator

from fixloop.grading.conversation import Conversation, Row
from fixloop.grading.findings import GraderSettings
from fixloop.grading.occurrences import Occurrence, quoted

_SAID_BEFORE = re.compile(
    r"\b(?:i(?:['\u2019]ve| have)? (?:already|just) (?:told|said|gave|given|mentioned|explained|answered|provided)\b"
    r"|(?:as|like) i(?:['\u2019]ve| have)?(?: already| just)? (?:said|told|mentioned|explained)\b"
    r"|i(?:['\u2019]ve| have) told you\b|i told you (?:already|that|this|twice|before|three times)\b"
    r"|how many times (?:do|must|have)\b|(?:i(?:['\u2019]m| am) repeating|i (?:have|had) to repeat|stop asking me)\b"
    r"|i (?:said|told you)(?: that)? (?:twice|three times|before|again)\b|for the (?:second|third|fourth"
    r"|hundredth) time\b)",
    re.I,
)
STOCK = re.compile(
    r"\b(?:anything else|how (?:can|may) i (?:help|assist)|thank(?:s| you) for (?:calling|holding|waiting"
    r"|your patience)"
    r"|one moment|moment,? please|bear with me|hold on|(?:have a|good) (?:great|good|nice|wonderful|day"
    r"|morning|evening)"
    r"|are you still there|can you hear me|let me (?:check|look|see|pull)|welcome to)\b",
    re.I,
)
_ASKED_AGAIN = re.compile(
    r"\b(?:repeat|say (?:that|it) again|once more|one more time|again|pardon|come again"
    r"|didn['\u2019]?t (?:catch|hear|get)"
    r"|can(?:['\u2019]?t|not) hear|what(?:['\u2019]s that| was that| did you say)|hello|breaking up|slower"
    r"|slowly|excuse me)\b"
    r"|^\W*(?:what|sorry|huh|hm+|eh)\W*$",
    re.I,
)
_FIGURES = re.compile(r"\d+")


def _same(a: Row, b: Row, settings: GraderSettings) -> bool:
    one, two = set(a.words), set(b.words)
    small, large = sorted((len(one), len(two)))
    if small < settings.repeat_min_words or small < settings.repeat_likeness * large:
        return False
    if len(one & two) < settings.repeat_likeness * len(one | two):
        return False
    if {w for w in one ^ two if w.isdigit() or w in _COUNT}:
        return False
    return _FIGURES.findall(a.text[:4000]) == _FIGURES.findall(b.text[:4000])


_COUNT = frozenset(
    (  # noqa: SIM905
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
        "monday tuesday wednesday thursday friday saturday sunday first second third no not"
    ).split()
)


def caller_repeated(talk: Conversation, settings: GraderSettings) -> Iterator[Occurrence]:
    """The caller says the same thing twice, or says that they have said it before."""
    recent: list[Row] = []
    for row in talk.user:
        told = _SAID_BEFORE.search(row.text[:4000])
        before = next((r for r in reversed(recent) if _same(r, row, settings)), None)
        recent = [*recent, row][-settings.caller_repeat_window :]
        if not told and before is None:
            continue
        what = f'The caller said "{told[0]}".' if told else "The caller said the same thing again."
        yield Occurrence(
            "caller-repeated",
            "Caller had to repeat themselves",
            "warning",
            what,
            row,
            (*((quoted(before.text),) if before else ()), quoted(row.text, told.start() if told else 0)),
            (before,) if before else (),
        )


def agent_repeated(talk: Conversation, settings: GraderSettings) -> Iterator[Occurrence]:
    """The agent gives the same answer twice without being asked to."""
    recent: list[Row] = []
    for row in talk.agent:
        before = next((r for r in reversed(recent) if _same(r, row, settings)), None)
        recent = [*recent, row][-settings.agent_repeat_window :]
        if before is None or (len(row.words) <= 20 and STOCK.search(row.text)):
            continue
        caller = talk.user_before.get(row.position)
        if caller and caller.position > before.position and _ASKED_AGAIN.search(caller.text[:500]):
            continue
        yield Occurrence(
            "agent-repeated",
            "Agent repeated itself",
            "warning",
            "The agent gave the same answer again.",
            row,
            (quoted(before.text), quoted(row.text)),
            (before, *((caller,) if caller else ())),
        )
