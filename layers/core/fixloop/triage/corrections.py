"""A prompt whose outdated sentences give way to what holds, and the diff that makes it so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fixloop import statements
from fixloop.changes import MAX_DIFF, DiffDoesNotApply, apply_to_prompt
from fixloop.grounding import topic, values
from fixloop.grounding.sources import agree, comparable
from fixloop.grounding.wording import NEGATION
from fixloop.statements import Statement, rivals

MOST = 20  # sentences taken out by one diff
_ALIKE = 0.6  # part of an unmarked sentence's topic that what holds must share
_MARK = re.compile(r"(?:[-*\u2022]|\d{1,3}[.)])\s+")


@dataclass(frozen=True)
class Fact:
    """What an answer said, in which sentence, and the sentence that holds instead."""

    said: str
    sentence: str
    holds: str


@dataclass(frozen=True)
class Correction:
    """A diff, the sentences that it takes out, and what holds and is in the prompt once it is applied."""

    diff: str
    outdated: list[str] = field(default_factory=list)
    stated: frozenset[str] = frozenset()


def states(one: Statement, said: str) -> bool:
    """Whether a statement gives the value that was said."""
    return any(comparable(w, v) and agree(w, v) for v in values(said) for w in one.found)


def contradicts(one: Statement, held: Statement, claim: str) -> bool:
    """Whether a statement that nothing marks as outdated speaks of what `held` speaks of, and gives another value.

    To be sure of the subject, it has no word of its own, or else all the words that tie the claim to `held`.
    """
    if NEGATION.search(one.text) or not rivals(one, held):
        return False
    tie = topic(claim) & held.about
    if one.topic <= held.about:
        return True
    return bool(tie) and tie <= one.about and len(one.topic & held.about) >= _ALIKE * len(one.topic)


def corrected(prompt: str, facts: Sequence[Fact], added: Sequence[str] = ()) -> Correction | None:
    """The diff that takes out of a prompt what contradicts the facts; `added` are lines for its end.

    A sentence that is marked as outdated goes, with its heading when nothing else is below it; one that is not is
    replaced where it stands, unless what holds stands elsewhere. None where there is none, or no diff can say it.
    """
    page = _Page(prompt)
    stated: set[str] = set()
    outdated: list[str] = []
    for one, fact in _outdated(prompt, facts):
        held = _MARK.sub("", fact.holds, count=1) if _MARK.match(fact.holds) else fact.holds
        there = held in prompt
        here = not there and one.superseded_by is None
        if page.change(one.text, held if here else None):
            outdated.append(one.text)
            if not here:
                page.gone.append(one)
            if there or here:
                stated.add(fact.holds)
    if not outdated:
        return None
    page.clear_headings(statements.read([prompt], instructions=[0]))
    page.close_gaps()
    page.end(added)
    diff = page.diff()
    try:
        right = apply_to_prompt(prompt, diff).replace("\r\n", "\n") == page.text()
    except DiffDoesNotApply:
        right = False
    return Correction(diff, outdated, frozenset(stated)) if right and len(diff) <= MAX_DIFF else None


def _outdated(prompt: str, facts: Sequence[Fact]) -> list[tuple[Statement, Fact]]:
    """The prompt's statements that give what was said, each with the fact that holds instead."""
    holding = list(dict.fromkeys(fact.holds for fact in facts))
    read = statements.read([prompt, *holding], instructions=[0])
    found = []
    for one in read:
        if one.source or one.is_heading or "\n" in one.text:
            continue
        for fact in facts:
            if fact.holds == one.text or not states(one, fact.said):
                continue
            held = [other for other in read if other.source == 1 + holding.index(fact.holds)]
            if one.superseded_by is not None or any(contradicts(one, other, fact.sentence) for other in held):
                found.append((one, fact))
                break
    return found[:MOST]


class _Page:
    """A prompt's lines while sentences are taken out: what becomes of each, None where the line goes."""

    def __init__(self, prompt: str) -> None:
        self.old = [line.removesuffix("\r") for line in prompt.split("\n")]
        self.new: list[str | None] = list(self.old)
        self.more: list[str] = []
        self.gone: list[Statement] = []

    def change(self, sentence: str, instead: str | None) -> bool:
        """Puts `instead` in the sentence's place; whether the sentence was found in a line."""
        for at, line in enumerate(self.new):
            if line is None or sentence not in line:
                continue
            mark = _MARK.match(sentence)
            before, after = line.split(sentence, 1)
            if instead is not None:
                self.new[at] = f"{before}{mark[0] if mark else ''}{instead}{after}"
            else:
                left = f"{before.rstrip()} {after.lstrip()}".strip()
                self.new[at] = left or None
            return True
        return False

    def clear_headings(self, read: Sequence[Statement]) -> None:
        """Takes out headings below which nothing is left."""
        for heading in {one.heading for one in self.gone if one.heading}:
            below = [one.text for one in read if one.heading == heading and not one.is_heading]
            if len(below) == sum(one.heading == heading for one in self.gone) and heading in self.new:
                self.new[self.new.index(heading)] = None

    def close_gaps(self) -> None:
        """Where lines went between two blank ones, one of these goes too."""
        for at, line in enumerate(self.new):
            if line is None or line.strip() or not at or self.new[at - 1] is not None:
                continue
            before = next((one for one in reversed(self.new[:at]) if one is not None), "")
            if not before.strip():
                self.new[at] = None

    def end(self, added: Sequence[str]) -> None:
        self.more = list(added)

    def text(self) -> str:
        kept = [line for line in self.new if line is not None]
        at = len(kept)
        while at and not kept[at - 1].strip():
            at -= 1
        return "\n".join([*kept[:at], *self.more, *kept[at:]])

    def diff(self) -> str:
        """Hunks with a blank line between them; what is added at the end is behind the line that it follows."""
        hunks: list[tuple[list[str], list[str]]] = []
        last = -2
        for at, (old, new) in enumerate(zip(self.old, self.new, strict=True)):
            if old == new:
                continue
            if at > last + 1:
                hunks.append(([], []))
            hunks[-1][0].append(f"- {old}" if old else "-")
            hunks[-1][1].extend([f"+ {new}"] if new is not None else [])
            last = at
        written = ["\n".join(removed + added) for removed, added in hunks]
        if self.more:
            end = max((at for at, line in enumerate(self.new) if line and line.strip()), default=None)
            if end is not None and self.old[end] == self.new[end]:
                written.append(f"  {self.old[end]}")
            written[-1] = "\n".join([written[-1], *(f"+ {line}" for line in self.more)])
        return "\n\n".join(written)
