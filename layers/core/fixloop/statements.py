"""What a set of texts states, sentence by sentence, and which statements are no longer in force."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from fixloop.grounding import Value, is_question, sentences, topic, values
from fixloop.grounding.sources import agree, comparable
from fixloop.grounding.values import MONTHS

_SAME_SUBJECT = 0.7  # share of the smaller subject that two statements must have in common to be rivals
_SAID_OUTDATED = 0.5  # the same, where one of them is said to be outdated: somewhere there is what replaces it
_OUTDATED = re.compile(
    r"\b(?:out ?of ?date|outdated|obsolete|superseded|expired|archived?|deprecated|withdrawn|retired"
    r"|no longer (?:valid|in force|applies|apply|in effect|current)"
    r"|(?:old|former|previous|prior|legacy) (?:\w+ ){0,2}?(?:polic\w+|terms?|rules?|prices?|fees?|versions?|hours"
    r"|rates?|conditions?|plans?|documents?)"
    r"|replaced (?:by|in|on|from|as of)"
    r"|(?:valid|effective|in force|applied|applicable) (?:until|through|till|up to))\b",
    re.I,
)
_CURRENT = re.compile(
    r"\b(?:current(?:ly)?|up[- ]to[- ]date|latest|newest|in force|in effect|now (?:in|applies)|as of now)\b", re.I
)
_UNTIL = re.compile(
    r"\b(?:until|through|till|up to|replaced|expired|superseded|archived|withdrawn|retired)\b[^.;\n]{0,30}$", re.I
)
_DATED = re.compile(
    r"\b(?:effective|as of|updated|revised|since|from|version|valid from|in force|dated?|published|starting|policy"
    r"|terms|edition)\b[^.;\n]{0,40}$|[(\[]\s*$",
    re.I,
)
_DATE = re.compile(
    r"(?P<iso>(?P<y1>(?:19|20)\d\d)-(?P<m1>\d\d)(?:-(?P<d1>\d\d))?)(?!\d)"
    r"|\b(?P<named>(?P<m2>"
    + "|".join(sorted(MONTHS, key=len, reverse=True))
    + r")\.? (?:(?P<d2>\d{1,2})(?:st|nd|rd|th)?,? )?(?P<y2>(?:19|20)\d\d))\b"
    r"|\b(?P<y3>(?:19|20)\d\d)\b",
    re.I,
)
_NOTE = re.compile(
    r"\W{0,3}(?:last )?(?:updated|revised|effective|valid|published|as of|version|date)\b.{0,50}$", re.I | re.S
)
_INSTRUCTION = re.compile(
    r"^\W{0,10}(?:(?:please|also|and|but|then)\s+){0,3}"
    r"(?:you (?:are|must|should|may|can|will|have|never|always)|your|always|never|only|do not|don['\u2019]t|make sure"
    r"|ensure|verify|check|confirm|cite|answer|help|use|be|act|speak|say|tell|ask|offer|greet|keep|avoid|respond|reply|refer"
    r"|provide|describe|mention|include|follow|if|when|before|stay|remain|treat|assist|explain|end|start|begin"
    r"|apologi[sz]e|limit|prefer|base|ground)\b",
    re.I,
)


@dataclass(slots=True, eq=False)
class Statement:
    """One sentence. `source` is the position of its text, `order` its own among all; dates are (year, month, day).

    `about` is its topic with that of the `heading` it stands under.
    """

    text: str
    source: int
    order: int
    topic: frozenset[str]
    about: frozenset[str]
    found: tuple[Value, ...]
    heading: str
    is_heading: bool
    instruction: bool
    outdated: bool
    current: bool
    date: tuple[int, int, int] | None
    superseded_by: Statement | None = field(default=None, repr=False)


def read(texts: Sequence[str], *, instructions: Iterable[int] = (), withdrawn: Iterable[int] = ()) -> list[Statement]:
    """The statements of `texts`, each with what replaces it, if anything does.

    In the texts at the positions `instructions` (system prompts), sentences that tell the agent what to do are marked.
    Those at `withdrawn` count as outdated. A statement is superseded when another one on its subject gives another
    value and is marked as current, is dated later, or is not marked as outdated while it is. A mark or date holds for
    its own sentence; in a heading, for all below.
    """
    return list(_read(tuple(texts), frozenset(instructions), frozenset(withdrawn)))


@lru_cache(maxsize=32)
def _read(texts: tuple[str, ...], directing: frozenset[int], gone: frozenset[int]) -> tuple[Statement, ...]:
    out: list[Statement] = []
    for source, text in enumerate(texts):
        opened = len(out)
        whole = above = line = _Mark()
        heading = ""
        lasting, fresh, first = False, True, True
        for start, end in sentences(text):
            raw = text[start:end]
            sentence = raw.strip()
            own, stems, found, directs = _analysed(sentence)
            ended = raw[len(raw.rstrip()) :]
            headed = _is_heading(sentence, found, fresh and source not in directing, "\n" in ended)
            if headed:
                heading, above, lasting = sentence, own, sentence[0] in "#*"
                if first:
                    whole = own
            elif fresh:
                line = own if own.outdated else _Mark()
            mark = own if headed else own.over(line).over(above).over(whole)
            out.append(
                Statement(
                    text=sentence,
                    source=source,
                    order=len(out),
                    topic=stems,
                    about=stems | topic(heading),
                    found=found,
                    heading="" if headed else heading,
                    is_heading=headed,
                    instruction=source in directing and not headed and directs,
                    outdated=mark.outdated or source in gone,
                    current=mark.current,
                    date=mark.date,
                )
            )
            first = False
            fresh = "\n\n" in ended or ("\n" in ended and source in directing)
            if "\n\n" in ended and not headed and not lasting:
                heading, above = "", _Mark()
        if source not in directing:
            _date_all(out[opened:])
    _supersede(out)
    return tuple(out)


def _date_all(found: Sequence[Statement]) -> None:
    """A document's note of its own ("Last updated 2023-04-01.") dates every sentence that has no date."""
    noted = next((s.date for s in found if s.date and _NOTE.match(s.text) and all(map(_is_day, s.found))), None)
    for s in found if noted else ():
        s.date = s.date or noted


@lru_cache(maxsize=4096)
def _analysed(sentence: str) -> tuple[_Mark, frozenset[str], tuple[Value, ...], bool]:
    """What a sentence says by itself: remembered, because the traces of one agent repeat its prompt."""
    found = () if is_question(sentence) else tuple(v for v in values(sentence) if not v.vague)
    return _Mark.of(sentence), topic(sentence), found, bool(_INSTRUCTION.match(sentence))


def _is_heading(sentence: str, found: Sequence[Value], opening: bool, broken: bool) -> bool:
    """A line that names what is below it: marked as a heading, ending in a colon, or a bare first line."""
    if len(sentence) > 120 or not broken:
        return False
    if sentence[0] == "#" or sentence[-1] == ":" or (sentence[:2] == "**" and sentence.rstrip(":")[-2:] == "**"):
        return True
    return opening and sentence[-1] not in ".!?" and sentence[0] not in "-*•" and all(map(_is_day, found))


@dataclass(frozen=True, slots=True)
class _Mark:
    outdated: bool = False
    current: bool = False
    date: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, sentence: str) -> _Mark:
        outdated = bool(_OUTDATED.search(sentence))
        date = _date(sentence)
        return cls(outdated, not outdated and bool(_CURRENT.search(sentence)), date)

    def over(self, below: _Mark) -> _Mark:
        if self.outdated or self.current:
            return _Mark(self.outdated, self.current, self.date or below.date)
        return _Mark(below.outdated, below.current, self.date or below.date)


def _date(sentence: str) -> tuple[int, int, int] | None:
    """The date from which a sentence says it holds: "effective January 2025", "(2023)", "as of 2025-01-01"."""
    if "19" not in sentence and "20" not in sentence:
        return None
    best: tuple[int, int, int] | None = None
    for m in _DATE.finditer(sentence):
        before = sentence[max(0, m.start() - 60) : m.start()]
        if _UNTIL.search(before) or not _DATED.search(before):
            continue
        if m["iso"]:
            date = (int(m["y1"]), int(m["m1"]), int(m["d1"] or 1))
        elif m["named"]:
            date = (int(m["y2"]), MONTHS[m["m2"].lower()], int(m["d2"] or 1))
        else:
            date = (int(m["y3"]), 1, 1)
        best = max(best, date) if best else date
    return best


def rivals(a: Statement, b: Statement, share: float = _SAME_SUBJECT) -> bool:
    """Whether two statements give different values for the same thing."""
    smaller = min(len((s.topic - _marking()) or (s.about - _marking())) for s in (a, b))
    if not smaller or len((a.about & b.about) - _marking()) < max(1.0, share * smaller):
        return False
    pairs = [(v, w) for v in a.found if not _is_day(v) for w in b.found if not _is_day(w) and comparable(v, w)]
    return bool(pairs) and not any(agree(v, w) or agree(w, v) for v, w in pairs)


@cache
def _marking() -> frozenset[str]:
    """Stems that say how valid a statement is, what kind of text it stands in, or nothing, and not what it is about."""
    return topic(
        "updated effective revised version current currently latest newest old new former previous outdated obsolete"
        " replaced superseded expired archived withdrawn valid published starting last date force policy policies terms"
        " rule rules customer customers accepted allows offers grants gives provides receive possible eligible"
        " costs charges takes business"
    )


def _is_day(v: Value) -> bool:
    """A calendar date or a year: it dates a statement rather than being what it states."""
    return v.kind == "date" and v.unit != "clock"


def _supersede(found: list[Statement]) -> None:
    marked = [s for s in found if s.outdated or s.current or s.date]
    if not marked:
        return
    telling = [s for s in found if any(not _is_day(v) for v in s.found)]
    if len(telling) > 400:
        telling = sorted(telling, key=lambda s: not (s.outdated or s.current or s.date))[:400]
    for old in telling:
        share = _SAID_OUTDATED if old.outdated else _SAME_SUBJECT
        better = [new for new in telling if new is not old and _newer(new, old) and rivals(old, new, share)]
        if better and (own := _own(old, telling)):
            better = [new for new in better if own & new.about]
        if better:
            old.superseded_by = max(
                better, key=lambda s: (len(s.about & old.about), s.current, s.date or (0, 0, 0), -s.order)
            )


def _own(one: Statement, found: Sequence[Statement]) -> frozenset[str]:
    """What tells a line of a list from the others in it: "Norway" in a price list. Nothing where there is no list.

    What gives the other lines new values says nothing of this one.
    """
    others = [
        s
        for s in found
        if s is not one
        and s.source == one.source
        and not _newer(s, one)
        and not _newer(one, s)
        and rivals(one, s, _SAID_OUTDATED)
    ]
    if not others:
        return frozenset()
    return one.topic.difference(_marking(), *(s.topic for s in others))


def _newer(new: Statement, old: Statement) -> bool:
    if old.outdated != new.outdated:
        return old.outdated
    if new.date and old.date:
        return new.date > old.date
    return new.current and not old.current
