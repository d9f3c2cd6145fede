"""The built-in model: no network, no weights. It answers with sentences of prompt and context that fit the question.

It obeys the instructions that decide what it says, so that fixes show: to keep to what is in force ("verify the
effective date", "only cite current policy"), to keep to the context and say so where it is silent ("only describe
features listed …, say you are not sure"), not to mention something, to be brief, to say a quoted text, to apologise.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fixloop import statements
from fixloop.grounding import content_words, topic
from fixloop.grounding.wording import stem
from fixloop.models import TIMEOUT, Completion, Finish, Prompt, estimated_tokens
from fixloop.statements import Statement

_K1, _B = 1.2, 0.5  # BM25: how soon repeating a word stops counting, and how much long sentences lose
_FIT = 0.55  # share of the best sentence's score from which a further one is part of the answer
_COVERED = 0.5  # share of the question's telling words that an answer must hold for "only what is in the context"
_FIRST = 1.3  # how much better a later one of two conflicting statements must fit to be taken instead of the first
MAX_SENTENCES = 2
MAX_INSTRUCTION = 800  # characters of one instruction that are read
_UNKNOWN = "I do not have information about that."

_IN_FORCE = re.compile(
    r"\beffective dates?\b"
    r"|\b(?:current|currently|latest|newest|up[- ]to[- ]date|most recent|in force|valid)\b[^.]{0,60}"
    r"\b(?:polic\w+|versions?|terms?|prices?|rules?|documents?|information|conditions?|dates?|sources?|rates?|ones?|hours)\b"
    r"|\b(?:outdated|superseded|obsolete|expired|out of date|archived|old) \w+",
    re.I,
)
_GROUNDED = re.compile(
    r"\bonly\b[^.]{0,80}\b(?:listed|documented|stated|provided|given|found|contained|described|in (?:the|your)"
    r"|from (?:the|your))\b"
    r"|\bnot (?:in|covered by|part of|found in|listed in|mentioned in) (?:your|the)"
    r" (?:context|knowledge|documentation|prompt|sources?)"
    r"|\b(?:do not|don['\u2019]t|never) (?:guess|invent|make (?:things |anything |it )?up|speculate|assume)",
    re.I,
)
_SILENT = re.compile(
    r"\b(?:if|when|where)\b[^.]{0,160}?\b(?:not|no|unsure|n['\u2019]t|cannot|missing|unknown|unlisted)\b[^.]{0,120}?,\s*"
    r"(?:then )?(?P<do>say .+|tell .+)$",
    re.I | re.S,
)
_NOT_MENTION = re.compile(
    r"\b(?:never|do not|don['\u2019]t|avoid)\s+(?:ever )?(?:mention|discuss|disclos|quot|cit|reveal|shar|stat|giv|offer"
    r"|talk about|refer to|promis|us)\w*\s+(?P<what>[^.;]+)",
    re.I,
)
_BRIEF = re.compile(
    r"\b(?:one|a single) (?:short )?sentence\b|\bbrief(?:ly)?\b|\bconcise(?:ly)?\b|\bshort answers?\b", re.I
)
_QUOTED = r"[\"\u201c](?P<text>[^\"\u201d]{1,500})[\"\u201d]"
_START_WITH = re.compile(r"\b(?:start|begin|open|greet)\w*\b[^.\"\u201c]{0,60}" + _QUOTED, re.I)
_END_WITH = re.compile(
    r"\b(?:always (?:say|add|include|mention)|(?:end|close|finish)\w*\b[^.\"\u201c]{0,40}|add|append|include)"
    r"\s*(?:with|by saying)?:?\s*" + _QUOTED,
    re.I,
)
_SORRY = re.compile(r"\bapologi[sz]e\b", re.I)
_BULLET = re.compile(r"^(?:[-*•#>]+|\d+[.)])\s+")
_FILLER = frozenset(
    map(stem, ("know", "tell", "question", "help", "please", "hello", "wonder", "information", "details"))
)


@dataclass
class _Orders:
    """What the instructions demand of an answer."""

    in_force: bool = False
    grounded: bool = False
    silent: str = _UNKNOWN
    unmentioned: list[frozenset[str]] = field(default_factory=list)
    brief: bool = False
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


class Extractive:
    """Deterministic: the same prompt has the same answer, always."""

    def complete(self, prompt: Prompt, *, timeout: float = TIMEOUT) -> Completion:  # noqa: ARG002 - it never waits
        started = time.monotonic()
        text, finish = answer(prompt)
        asked = prompt.instructions() + "".join(message.content for message in prompt.messages)
        return Completion(
            text=text,
            input_tokens=estimated_tokens(asked),
            output_tokens=estimated_tokens(text),
            latency_ms=round((time.monotonic() - started) * 1000),
            finish_reason=finish,
        )


def answer(prompt: Prompt) -> tuple[str, Finish]:
    """The answer and why it ended: "stop" at its end or a stop text, "length" at `maxTokens` (4 characters each)."""
    texts = [prompt.system, *(document.text for document in prompt.context)]
    found = statements.read(texts, instructions=[0])
    orders = _orders([s for s in found if s.instruction])
    said = _chosen(prompt, [s for s in found if not s.instruction], orders)
    spoken = [_plain(_introduced(s, said[:at]) if orders.in_force else s.text) for at, s in enumerate(said)]
    return _cut(" ".join([*orders.before, *(spoken or [orders.silent]), *orders.after]), prompt)


def _introduced(one: Statement, before: Sequence[Statement]) -> str:
    """A sentence with the heading that dates it, if its source has been quoted for the first time."""
    told = one.heading and one.date and not any(s.heading == one.heading for s in before)
    return f"{one.heading.strip(' #*:')}: {one.text}" if told else one.text


def _orders(instructions: Sequence[Statement]) -> _Orders:
    orders = _Orders()
    for one in instructions:
        text = one.text[:MAX_INSTRUCTION]
        if barred := _NOT_MENTION.search(text):
            what = topic(barred["what"])
            if _IN_FORCE.search(barred["what"]):
                orders.in_force = True
            elif what:
                orders.unmentioned.append(what)
        else:
            orders.in_force |= bool(_IN_FORCE.search(text))
        orders.grounded |= bool(_GROUNDED.search(text))
        orders.brief |= bool(_BRIEF.search(text))
        if silent := _SILENT.search(text):
            orders.silent = _spoken(silent["do"])
            orders.grounded = True
        elif starts := _START_WITH.search(text):
            orders.before.append(starts["text"].strip())
        elif ends := _END_WITH.search(text):
            orders.after.append(ends["text"].strip())
        if _SORRY.search(text):
            orders.before.insert(0, "I am sorry for the trouble.")
    return orders


def _spoken(told: str) -> str:
    """What an agent that is told "say you are not sure and offer to connect them with X" says."""
    if quoted := re.search(_QUOTED, told):
        return quoted["text"].strip()
    told = re.sub(
        r"^(?:say|tell (?:them|him|her|the (?:customer|caller|user)))\s+(?:that\s+)?",
        "",
        told.strip().rstrip("."),
        flags=re.I,
    )
    told = re.sub(r"^(?:you are|you['\u2019]re)\b", "I am", told, flags=re.I)
    told = re.sub(r"^you\b", "I", told, flags=re.I)
    told = re.sub(r"\s+and offer to\s+", ". I can ", told, flags=re.I)
    told = re.sub(r"\b(?:them|the (?:customer|caller|user))\b", "you", told, flags=re.I)
    return told[:1].upper() + told[1:] + "."


def _chosen(prompt: Prompt, facts: list[Statement], orders: _Orders) -> list[Statement]:
    asked = _weights(prompt)
    if not asked or not facts:
        return []
    candidates = [
        s for s in facts if s.topic and not s.is_heading and not any(what <= s.about for what in orders.unmentioned)
    ]
    candidates = candidates or [s for s in facts if s.topic and s.is_heading]
    if orders.in_force:
        candidates = [s for s in candidates if s.superseded_by is None and not _only_outdated(s, candidates)]
        newest = {s.text: s for s in sorted(candidates, key=lambda s: s.date or (0, 0, 0))}
        candidates = [s for s in candidates if newest[s.text] is s]
    scores = _bm25(asked, candidates)
    ranked = sorted((s for s in candidates if scores[s.order] > 0), key=lambda s: (-scores[s.order], s.order))
    if not ranked:
        return []
    best = _first_of_rivals(ranked, scores)
    if orders.grounded and not _covers(best, asked, candidates):
        return []
    chosen = [best]
    if not orders.brief:
        for one in ranked:
            if len(chosen) == MAX_SENTENCES or scores[one.order] < _FIT * scores[best.order]:
                break
            said = frozenset[str]().union(*(s.topic for s in chosen))
            new = one.topic - said
            told = len(new) >= 2 or any(asked.get(word) == 1.0 for word in new)
            if one is not best and told and not any(statements.rivals(one, s) for s in chosen):
                chosen.append(one)
    return chosen


def _only_outdated(one: Statement, among: Sequence[Statement]) -> bool:
    """Marked as outdated, with something in force on its subject."""
    return one.outdated and any(not s.outdated and len(s.topic & one.topic) >= 2 for s in among)


def _first_of_rivals(ranked: Sequence[Statement], scores: dict[int, float]) -> Statement:
    """Of statements that contradict each other the one that was retrieved first, unless another fits much better."""
    best = ranked[0]
    for one in ranked[1:20]:
        if (
            one.order < best.order
            and scores[one.order] * _FIRST >= scores[ranked[0].order]
            and statements.rivals(one, best)
        ):
            best = one
    return best


def _weights(prompt: Prompt) -> dict[str, float]:
    """The stems of the question; those of the caller's turn before count a third, for "and how long is that?"."""
    asked: dict[str, float] = {}
    turns = [message.content for message in prompt.messages if message.role == "user"]
    for text, weight in ((turns[-2] if len(turns) > 1 else "", 0.3), (turns[-1] if turns else "", 1.0)):
        asked |= dict.fromkeys(sorted(topic(text[-2000:]) - _FILLER), weight)
    return asked


def _bm25(asked: dict[str, float], facts: Sequence[Statement]) -> dict[int, float]:
    words = {s.order: Counter(map(stem, content_words(s.text))) for s in facts}
    length = {order: sum(count.values()) or 1 for order, count in words.items()}
    mean = sum(length.values()) / len(length) if length else 1.0
    holding = Counter(word for s in facts for word in s.about if word in asked)
    scores: dict[int, float] = {}
    for s in facts:
        score = 0.0
        for word, weight in asked.items():
            times = words[s.order][word] or (0.5 if word in s.about else 0.0)
            if times:
                rarity = math.log(1 + (len(facts) - holding[word] + 0.5) / (holding[word] + 0.5))
                score += weight * rarity * times * (_K1 + 1) / (times + _K1 * (1 - _B + _B * length[s.order] / mean))
        if score and s.found:
            score *= 1.1
        scores[s.order] = round(score, 9)
    return scores


def _covers(best: Statement, asked: dict[str, float], facts: Sequence[Statement]) -> bool:
    """Whether the best sentence and its surroundings speak of what was asked, and not merely share a common word."""
    common = Counter(word for s in facts for word in s.about)
    weight = {w: share / (1 + math.log1p(common[w])) for w, share in asked.items() if share == 1.0}
    whole = sum(weight.values())
    return not whole or sum(share for word, share in weight.items() if word in best.about) >= _COVERED * whole


def _plain(sentence: str) -> str:
    text = _BULLET.sub("", " ".join(sentence.split())).strip("*# ")
    return text if text[-1:] in '.!?:"\u201d)' else f"{text}."


def _cut(text: str, prompt: Prompt) -> tuple[str, Finish]:
    """At the first stop text, then at the last sentence (or else word) that `maxTokens` leaves room for."""
    wanted = prompt.parameters
    stops = [at for stop in wanted.stop or [] if (at := text.find(stop)) >= 0]
    if stops:
        text = text[: min(stops)].rstrip()
    if wanted.max_tokens is None or estimated_tokens(text) <= wanted.max_tokens:
        return text, "stop"
    room = text[: wanted.max_tokens * 4]
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)", text) if m.end() <= len(room)]
    if ends:
        return text[: ends[-1]], "length"
    return (
        room.rsplit(None, 1)[0] if len(room.split()) > 1 and not text[len(room)].isspace() else room
    ).rstrip(), "length"
