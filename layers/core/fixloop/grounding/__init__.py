"""How well a text is supported by source texts: its numbers, money, dates, durations, percentages and names."""

import re
from collections.abc import Iterator, Sequence

from fixloop.grounding.sources import Finding, Known, Sources, Sums, UnsupportedClaim, agree, comparable, findings
from fixloop.grounding.values import MONTHS, Kind, Value, values
from fixloop.grounding.wording import STOP, content_words, is_question, sentences, stem, topic

__all__ = [
    "Finding",
    "Kind",
    "Known",
    "Sources",
    "Sums",
    "UnsupportedClaim",
    "Value",
    "content_words",
    "findings",
    "is_question",
    "sentences",
    "support",
    "topic",
    "unsupported_claims",
    "values",
]


def unsupported_claims(answer: str, sources: Sequence[str] | Sources, question: str = "") -> list[UnsupportedClaim]:
    """The values and names of an answer that the sources (and the question) do not bear out, in reading order.

    Questions asked in the answer, bare counts under ten, and idioms ("one moment", "100 percent sure") are no claims.
    """
    read = sources if isinstance(sources, Sources) else Sources(sources)
    asked = Known()
    asked.add(
        v
        for start, end in sentences(question)
        if not is_question(question[start:end])
        for v in values(question[start:end])
    )
    found = [(f.offset, f.claim) for f in findings(answer, read, question, asserted=asked.close())]
    known = set(read.frequency) | topic(question)
    for start, end in sentences(answer):
        sentence = answer[start:end]
        for offset, name in _names(sentence):
            if not topic(name) <= known:
                found.append((start + offset, UnsupportedClaim(sentence.strip(), "name", name, None, [])))
    return [claim for _, claim in sorted(found, key=lambda pair: pair[0])]


_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][\w\u2019'-]*(?:\s+[A-ZÀ-ÖØ-Þ][\w\u2019'-]*)*")


def _names(sentence: str) -> Iterator[tuple[int, str]]:
    """Runs of capitalised words that are not merely the beginning of a sentence."""
    begin = len(sentence) - len(sentence.lstrip(" \t\n\"'\u201c\u2018(-*•"))
    for m in _NAME.finditer(sentence):
        opening = m.start() <= begin
        first, _, rest = m[0].partition(" ")
        if opening and (not rest or stem(first) in STOP or first.lower() in STOP):
            if rest:
                yield m.start() + len(first) + 1, rest
            continue
        if (
            m[0].lower().replace("'", "").replace("\u2019", "") not in STOP
            and m[0].lower() not in MONTHS
            and topic(m[0])
        ):
            yield m.start(), m[0]


def support(answer: str, sources: Sequence[str] | Sources, question: str = "") -> float:
    """The share of an answer's claims that the sources support, 0..1; an answer without claims has nothing against it.

    Every content word is a claim: values weigh most, then names, then other words by how telling they are; words that
    the question already used weigh little. The answer as a whole is one more claim: that its new words stand in the
    sources near what was asked.
    """
    read = sources if isinstance(sources, Sources) else Sources(sources)
    asked = topic(question)
    total = held = 0.0
    fresh: set[str] = set()
    names: set[str] = set()
    for start, end in sentences(answer):
        sentence = answer[start:end]
        for _, name in _names(sentence):
            names |= topic(name)
        for v in values(sentence):
            if v.vague:
                continue
            weight = 5.0
            total += weight
            held += weight * (read.known.has(v) or any(agree(v, q) for q in values(question) if comparable(v, q)))
        for s in topic(sentence):
            if s in asked:
                continue
            fresh.add(s)
            weight = 3.0 if s in names else 1.5
            total += weight
            held += weight * (s in read.frequency)
    whole = topic(answer)
    for s in whole & asked:
        total += 0.1
        held += 0.1 * (s in read.frequency)
    if whole and asked:
        total += 1.0
        held += _together(whole, asked, read)
    return round(held / total, 6) if total else 1.0


def _together(answer: frozenset[str], asked: frozenset[str], read: Sources) -> float:
    """How fully one source sentence holds the answer's words, and among such how much it speaks of what was asked."""
    weight = {s: read.weight(s) for s in answer | asked}
    whole = sum(weight[s] for s in answer)
    near = [sum(weight[s] for s in one.topic & asked) for one in read.sentences]
    nearest = max(near, default=0.0) or 1.0
    return max(
        (sum(weight[s] for s in one.topic & answer) / whole * (0.5 + 0.5 * n / nearest)
         for one, n in zip(read.sentences, near, strict=True)),
        default=0.0,
    )  # fmt: skip
