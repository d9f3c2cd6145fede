"""Source texts read once, and what an answer says beside them."""

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fixloop.grounding.values import MAY_HOLD_VALUE, Kind, Value, values
from fixloop.grounding.wording import NEGATION, SECONDS, is_question, sentences, topic

_HEADING = re.compile(r"^(?:#{1,6}\s+.{1,80}|.{1,80}:|\*\*.{1,80}\*\*:?)$")
_ARITHMETIC = re.compile(
    r"\b(?:total\w*|altogether|sum|comes? to|plus|add\w*|remaining|left|balance|differences?|after|sav(?:e|es|ing|ings)"
    r"|per|works? out|would be|for (?:both|two|three)|off|discount\w*|each|both|combined"
    r"|together|minus|owe|due|makes?|all in|apiece|tax)\b",
    re.I,
)
_FILLER = re.compile(
    r"\b(?:one|a|two|few|couple)(?: of)? (?:more )?(?:moments?|seconds?|secs?|minutes?|mins?)\b"
    r"|\b(?:give me|hold|hang on|bear with me|wait|shortly|momentarily)\b",
    re.I,
)
_SURELY = re.compile(r"\b(?:100|one hundred|a hundred)\s?(?:%|per ?cent)", re.I)
_CLAUSE = re.compile(r",\s|;|:\s|\b(?:and|but|while|whereas|or)\b", re.I)
_EMERGENCY = frozenset({"911", "112", "999", "988", "411", "311", "000"})
_INSTALMENTS = (2, 3, 4, 6, 12)
_FEW = 10.0  # a bare count below this is conversation ("two options") and is not held against the answer
_SAME_SUBJECT = 0.3  # cosine of topic words from which two sentences are taken to speak of one subject
_OF_KIND = frozenset({"cost", "pay", "total", "last"})  # stems that go with a kind of value, whatever the subject
_UNKNOWN = 0.25  # squared weight of a claim's words that no source uses: they tell little of which one is meant
_CANDIDATES = 200  # source sentences weighed per claim; bounds the work on very long sources


class UnsupportedClaim(NamedTuple):
    """A value the answer states and the sources do not.

    `claim` is the answer's sentence, `said` the words of the value in it. `source` is the source sentence on the same
    subject that gives another value of the same kind, and `supported_values` those values in its words; `None` and
    empty when no source speaks of the subject.
    """

    claim: str
    kind: Kind
    said: str
    source: str | None
    supported_values: list[str]


class Known:
    """The values that a set of texts states, for asking whether one of them is among these."""

    def __init__(self) -> None:
        self.typed: dict[str, set[float]] = defaultdict(set)
        self.ranges: dict[str, set[tuple[float, float]]] = defaultdict(set)
        self.days: set[tuple[int | None, int | None, int | None]] = set()
        self.undated_years: set[tuple[int | None, int | None, int | None]] = set()
        self.digits = ""
        self._parts: list[str] = []
        self._durations: list[float] | None = None

    def add(self, found: Iterable[Value]) -> None:
        for v in found:
            name = v.unit if v.kind == "date" else v.kind
            self.typed[name].update(round(a, 4) for a in v.amounts)
            if v.low is not None and len(self.ranges[name]) < _CANDIDATES:
                self.ranges[name].add((v.low, v.amounts[0]))
            if v.day:
                year, month, day = v.day
                self.days |= {(year, month, day), (None, month, day), (year, month, None), (year, None, None)}
                if year is None:
                    self.undated_years.add((None, month, day))
            if v.digits or v.kind == "number":
                self._parts.append(v.digits or f"{v.plain:.0f}")
        self._durations = None

    def close(self) -> "Known":
        """Makes the digits of all codes searchable; call after the last `add`."""
        self.digits = " ".join(self._parts)
        return self

    def has(self, v: Value) -> bool:
        """Whether a value is stated: the same amount of the same kind, or the bare number."""
        bare = self.typed["number"]
        if v.unit == "code":
            return v.digits in self.digits or (v.digits.strip("0") != "" and v.digits.lstrip("0") in self.digits)
        if v.kind == "date":
            return self._has_date(v)
        if any(round(a, 4) in self.typed[v.kind] for a in v.amounts) or round(v.plain, 4) in bare:
            return True
        if any(low <= a <= high for low, high in self.ranges[v.kind] for a in v.amounts):
            return True
        if v.kind == "money":
            return any(round(a * 100, 4) in bare and (a >= 10 or a % 1 != 0) for a in v.amounts)  # stated in cents
        if v.kind == "percent":
            return any(round(a / 100, 4) in bare for a in v.amounts)
        if v.kind == "duration":
            return any(self._lasts(a) for a in v.amounts)
        stated = any(round(a, 4) in self.typed[k] for k in ("money", "percent", "year") for a in v.amounts)
        minutes = v.plain * 60
        return (
            stated
            or (v.plain <= 24 and ({minutes % 1440, (minutes + 720) % 1440} & self.typed["clock"] != set()))
            or (len(v.digits) >= 3 and v.digits in self.digits)
            or any(round(v.plain * s) in self.typed["duration"] for s in SECONDS.values())
            or v.plain in self.typed["day"]
        )

    def _lasts(self, seconds: float) -> bool:
        """Months and years are of uneven length: 12 months are a year, 30 or 31 days a month."""
        if self._durations is None:
            self._durations = sorted(self.typed["duration"])
        i = bisect_left(self._durations, seconds * 0.965) if seconds >= 27 * 86400 else len(self._durations)
        near = self._durations[i : i + 1]
        return (
            bool(near)
            and near[0] <= seconds * 1.035
            and (near[0] % 2592000 == 0 or near[0] % 31536000 == 0 or seconds % 2592000 == 0 or seconds % 31536000 == 0)
        )

    def _has_date(self, v: Value) -> bool:
        if v.unit == "clock":
            stated = any(a in self.typed["clock"] for a in v.amounts)
            return stated or (v.plain in self.typed["number"] and all(a % 60 == 0 for a in v.amounts))
        if v.unit == "year":
            return v.plain in self.typed["year"] or (int(v.plain), None, None) in self.days or v.digits in self.digits
        if v.day is None:
            return False
        year, month, day = v.day
        return (
            v.day in self.days
            or ((None, month, day) in self.days and year is None)
            or (year is not None and (None, month, day) in self.undated_years)
        )


class Sums:
    """Amounts of money and bare numbers from which another amount may follow; the 200 smallest are looked at."""

    def __init__(self, *known: Known | None) -> None:
        self.percents: set[float] = set()
        stated: set[float] = set()
        for one in known:
            if one is not None:
                stated |= one.typed["money"] | {n for n in one.typed["number"] if n > 1}
                self.percents |= one.typed["percent"]
        self.stated = sorted(stated)[:200]

    def reach(self, v: Value, beside: Iterable[Value]) -> bool:
        """Whether an amount is a sum, a difference, a multiple or a percentage of the stated ones and those beside."""
        stated = self.stated + [o.amounts[0] for o in beside if o is not v and o.kind == "money"][:20]
        known = set(stated)
        return any(self._is_reached(amount, stated, known) for amount in v.amounts)

    def _is_reached(self, amount: float, stated: list[float], known: set[float]) -> bool:
        for one in stated:
            if round(amount - one, 4) in known or round(amount + one, 4) in known:
                return True
            if any(abs(one / parts - amount) < 0.01 for parts in _INSTALMENTS):
                return True
            times = amount / one if one else 0.0
            if 2 <= times <= 100 and times == int(times) and (times <= 12 or times in known):
                return True
            for percent in self.percents:
                parts = (one * percent / 100, one * (1 - percent / 100), one * (1 + percent / 100))
                if any(abs(amount - part) < 0.01 for part in parts):
                    return True
        return len(stated) <= 40 and any(round(amount - a - b, 4) in known for a in stated for b in stated)


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    topic: frozenset[str]
    values: tuple[Value, ...]
    negative: bool


@lru_cache(maxsize=8192)
def _analysed(sentence: str) -> tuple[frozenset[str], tuple[Value, ...], bool]:
    """What a sentence says by itself: remembered, because calls and traces of one agent repeat its prompt."""
    return topic(sentence), tuple(values(sentence)), bool(NEGATION.search(sentence))


class Sources:
    """Source texts read once, to hold many answers against.

    A line under a heading ("Refunds:" or "## Refunds") also speaks of the heading's subject.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.sentences: list[_Sentence] = []
        self.known = Known()
        for text in texts:
            heading, lasting = frozenset[str](), False
            for start, end in sentences(text):
                sentence = text[start:end].strip()
                if headed := bool(_HEADING.match(sentence)):
                    heading, lasting = topic(sentence), sentence[0] in "#*"
                subject, found, negative = _analysed(sentence)
                self.known.add(found)
                self.sentences.append(_Sentence(sentence, subject | heading, found, negative))
                if text[end - 2 : end] == "\n\n" and not headed and not lasting:
                    heading = frozenset()
        self.known.close()
        self.frequency = Counter(s for sentence in self.sentences for s in sentence.topic)
        self._weights: dict[str, float] = {}
        self._holding: dict[tuple[Kind, str], list[int]] = defaultdict(list)
        for i, one in enumerate(self.sentences):
            for kind in {v.kind for v in one.values}:
                for s in one.topic:
                    self._holding[kind, s].append(i)

        self._sizes = [self._size(one.topic) for one in self.sentences]

    def weight(self, word: str) -> float:
        """How telling a stem is: the rarer among the source sentences, the more."""
        if word not in self._weights:
            self._weights[word] = math.log(1 + (len(self.sentences) + 1) / (1 + self.frequency[word]))
        return self._weights[word]

    def contradicting(
        self, v: Value, said: frozenset[str], asked: frozenset[str], beside: Sequence[Value]
    ) -> _Sentence | None:
        """The source sentence on the subject of a claim that gives another value of its kind and unit."""
        if v.unit in ("", "code", "ordinal"):
            return None
        best: _Sentence | None = None
        agreeing: _Sentence | None = None
        best_likeness = agreeing_likeness = 0.0
        for likeness, i in self._alike(v.kind, said, asked):
            if likeness < (best_likeness / 2 if best else _SAME_SUBJECT):
                break
            sentence = self.sentences[i]
            rivals = [r for r in sentence.values if comparable(v, r)]
            if not rivals:
                continue
            if any(agree(v, r) for r in rivals):
                if agreeing is None:
                    agreeing, agreeing_likeness = sentence, likeness
            elif best is None and not (v.kind == "date" and sentence.negative):
                others = [o for o in beside if o is not v]
                if not any(agree(o, r) for o in others for r in rivals if comparable(o, r)):
                    best, best_likeness = sentence, likeness
            if best and agreeing:
                break
        if best is None:
            return None
        if agreeing is not None or self.known.has(v):
            mine = (said | asked) & (agreeing.topic if agreeing else frozenset())
            if best_likeness < 1.3 * agreeing_likeness or not mine < (said | asked) & best.topic:
                return None
        return best

    def _alike(self, kind: Kind, said: frozenset[str], asked: frozenset[str]) -> list[tuple[float, int]]:
        """Sentences that hold a value of a kind, by the cosine of their topic with a claim's, the likest first.

        Stems are weighted by how telling they are. What was asked counts as said, at a tenth less.
        """
        own: dict[int, float] = defaultdict(float)
        both: dict[int, float] = defaultdict(float)
        held = [(self._holding[kind, s], s) for s in said | asked if (kind, s) in self._holding]
        room = _CANDIDATES
        for indices, s in sorted(held, key=lambda pair: (pair[1] in _OF_KIND, len(pair[0]), pair[1])):
            squared = self.weight(s) ** 2
            for i in indices[:room]:
                if s in _OF_KIND and i not in both:
                    continue
                both[i] += squared
                if s in said:
                    own[i] += squared
            room = max(20, room - len(indices))
        own_size, both_size = self._size(said), self._size(said | asked)
        return sorted(
            ((max(own[i] / (own_size or 1.0), 0.9 * dot / both_size) / self._sizes[i], i) for i, dot in both.items()),
            key=lambda pair: (-pair[0], pair[1]),
        )

    def _size(self, stems: frozenset[str]) -> float:
        return math.sqrt(sum(self.weight(s) ** 2 if s in self.frequency else _UNKNOWN for s in sorted(stems)))


def comparable(a: Value, b: Value) -> bool:
    """Whether two values answer the same question: one kind, one unit."""
    if a.kind != b.kind or "code" in (a.unit, b.unit) or b.vague:
        return False
    if a.kind == "duration":
        return (a.amounts[0] >= 86400) == (b.amounts[0] >= 86400)
    if a.kind == "number":
        return bool(set(a.unit.split()) & set(b.unit.split()))
    return a.unit == b.unit


def agree(a: Value, b: Value) -> bool:
    if a.day and b.day:
        return a.day[1:] == b.day[1:] and (not a.day[0] or not b.day[0] or a.day[0] == b.day[0])
    close = 0.035 if a.kind == "duration" and a.unit != b.unit else 1e-6
    if any(abs(x - y) <= close * max(abs(x), abs(y)) for x in a.amounts for y in b.amounts):
        return True
    return b.low is not None and any(b.low <= x <= b.amounts[0] for x in a.amounts)


class Finding(NamedTuple):
    """An unsupported claim with what is needed to point at it: where in the answer, and the value's unit."""

    claim: UnsupportedClaim
    value: Value
    offset: int


def findings(
    answer: str,
    sources: Sources,
    question: str = "",
    given: Known | None = None,
    asserted: Known | None = None,
    sums: Sums | None = None,
) -> list[Finding]:
    """The unsupported claims of an answer.

    `given` are values stated as fact outside the sources (tool results); they excuse a value altogether. `asserted`
    are values that may be echoed (the caller's own words). `sums` are those of the sources, `given` and `asserted`
    together, for a caller that checks many answers.
    """
    if not MAY_HOLD_VALUE.search(answer):
        return []
    asked: frozenset[str] | None = None
    out: list[Finding] = []
    before = start_before = 0
    for start, end in sentences(answer):
        sentence = answer[start:end]
        start_before, before = before, start
        found = values(sentence)
        if not found or is_question(sentence):
            continue
        said = topic(sentence)
        asked = topic(question[-1000:]) if asked is None else asked
        around = asked | topic(answer[max(start_before, start - 300) : start])
        whole, idle = sentence.strip(), bool(_FILLER.search(sentence) or _SURELY.search(sentence))
        arithmetic = bool(_ARITHMETIC.search(sentence))
        for at, v in enumerate(found):
            beside = found[max(0, at - 10) : at + 10]
            if not _is_claim(v, idle) or (given and given.has(v)) or (asserted and asserted.has(v)):
                continue
            if arithmetic and v.kind == "money" and (sums or Sums(sources.known, given, asserted)).reach(v, beside):
                continue
            known = sources.known.has(v)
            clause = topic(_clause(sentence, v)) or said if known else said
            source = sources.contradicting(v, clause, around, beside)
            if source is None:
                few = v.kind == "number" and (not v.amounts or v.plain < _FEW) and len(v.digits) < 4
                if known or few:
                    continue
                within = (
                    v.unit == "clock"
                    and "open" not in said
                    and any(low <= a <= high for low, high in sources.known.ranges["clock"] for a in v.amounts)
                )
                if within:
                    continue
            elif v.kind == "duration" and re.match(r"\s*(?:ago|old|earlier|late)\b", sentence[v.end : v.end + 30]):
                continue
            others = [r.text for r in source.values if comparable(v, r)] if source else []
            claim = UnsupportedClaim(whole, v.kind, v.text, source.text if source else None, others)
            out.append(Finding(claim, v, start + v.start))
    return out


def _clause(sentence: str, v: Value) -> str:
    """The part of a sentence around a value, between the nearest commas and conjunctions."""
    begin, stop = max(0, v.start - 300), min(len(sentence), v.end + 300)
    left = max((m.end() for m in _CLAUSE.finditer(sentence, begin, v.start)), default=begin)
    right = _CLAUSE.search(sentence, v.end, stop)
    return sentence[left : right.start() if right else stop]


def _is_claim(v: Value, idle: bool) -> bool:
    if v.vague:
        return False
    if v.kind == "duration" and v.amounts[0] < 3600 and idle:
        return False
    if v.kind == "percent" and v.plain == 100 and idle:
        return False
    if v.unit == "code":
        return len(v.digits) >= 4
    return v.digits not in _EMERGENCY
