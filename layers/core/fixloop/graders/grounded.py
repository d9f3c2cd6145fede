"""Graders that hold an answer's claims against what the agent had to go by, or against an expected answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fixloop import statements
from fixloop.graders import Score, Subject, short
from fixloop.grounding import Sources, UnsupportedClaim, support, topic, unsupported_claims, values
from fixloop.grounding.sources import comparable
from fixloop.statements import Statement

DECLINED_THOUGH_KNOWN = 0.4  # the most an answer gets that declines although the sources answer
DECLINED = 0.9  # an answer that declines what the sources do not answer
_DECLINES = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:not sure|unable|not able|afraid)|i(?:['\u2019]m| am) sorry,? (?:but )?i (?:can|do|am)"
    r"|i (?:do not|don['\u2019]t) (?:know|have)|no information (?:about|on)|let me (?:connect|transfer) you"
    r"|i (?:cannot|can['\u2019]t|am unable to) (?:help|answer|say|assist|provide|discuss|share|find)"
    r"|unable to (?:help|answer|assist))",
    re.I,
)


@dataclass(frozen=True)
class Grounded:
    """How far prompt and context bear an answer out; what is superseded there does not count.

    An answer that declines scores low where the sources do answer, and high where they do not.
    """

    name: str = "grounded"

    def grade(self, subject: Subject) -> Score:
        answer = subject.answer.strip()
        if not answer:
            return Score(0.0 if subject.question.strip() else 1.0, "says nothing", self.name)
        found = statements.read(
            subject.sources, instructions=[0] if subject.sources else [], withdrawn=subject.withdrawn
        )
        valid = [s for s in found if s.superseded_by is None]
        texts = _texts(valid, len(subject.sources))
        evidence = Sources(texts)
        wrong = unsupported_claims(answer, evidence, subject.question)
        score = support(answer, evidence, subject.question)
        stale = {v.text: s for s in found if s.superseded_by for v in s.found}
        if _declines(answer, texts):
            known = _answering(subject.question, valid)
            if known is not None:
                said = f'declines to answer; the {_noun(known)} says "{short(known.text, 160)}"'
                return Score(round(min(score, DECLINED_THOUGH_KNOWN), 4), said, self.name)
            return Score(
                max(DECLINED, round(score, 4)) if not wrong else round(score, 4),
                "declines, and the sources do not say",
                self.name,
            )
        return Score(round(score, 4), _explained(answer, wrong, found, stale, subject, score), self.name)


def _texts(valid: Sequence[Statement], count: int) -> list[str]:
    """The sources again, without what is no longer in force."""
    lines: list[list[str]] = [[] for _ in range(count)]
    for s in valid:
        lines[s.source].append(f"{s.heading.rstrip(':')}: {s.text}" if s.heading and not s.is_heading else s.text)
    return ["\n".join(one) for one in lines]


def _declines(answer: str, texts: Sequence[str]) -> bool:
    if not _DECLINES.search(answer):
        return False
    told = [v for v in values(answer) if not v.vague]
    return not told and len(answer) < 400 and not any(answer in text for text in texts)


def _answering(question: str, valid: Sequence[Statement]) -> Statement | None:
    """The statement in force that answers the question best, if one does."""
    asked = topic(question)
    if not asked:
        return None
    facts = [s for s in valid if not s.instruction and not s.is_heading and s.topic]
    best = max(facts, key=lambda s: (len(s.about & asked), bool(s.found), -s.order), default=None)
    return best if best and len(best.about & asked) >= max(1.0, 0.5 * len(asked)) else None


def _noun(statement: Statement) -> str:
    if re.search(r"\bpolic(?:y|ies)\b", f"{statement.heading} {statement.text}", re.I):
        return "policy"
    return "prompt" if statement.source == 0 else "context"


def _explained(
    answer: str,
    wrong: Sequence[UnsupportedClaim],
    found: Sequence[Statement],
    stale: dict[str, Statement],
    subject: Subject,
    score: float,
) -> str:
    said = []
    for claim in wrong[:3]:
        nearest = _nearest(claim, found, subject)
        if nearest is not None:
            statement, right = nearest
            old = ", which is outdated" if claim.said in stale else ""
            noun, quote = _noun(statement), short(statement.text, 160)
            said.append(f'says {claim.said}{old}; the {noun} says {", ".join(right)} ("{quote}")')
        elif claim.said in stale and (newer := stale[claim.said].superseded_by):
            said.append(f'says {claim.said}, which is outdated; the {_noun(newer)} says "{short(newer.text, 160)}"')
        else:
            said.append(f"says {claim.said}, which neither prompt nor context says")
    if said:
        return "; ".join(said)
    best = _supporting(answer, found)
    if best is not None and score >= 0.5:
        return f'is supported: the {_noun(best)} says "{short(best.text, 160)}"'
    if best is not None:
        return f'is only partly supported; nearest is "{short(best.text, 160)}"'
    return "has no support in prompt or context" if score < 0.5 else "claims nothing that prompt and context do not say"


def _nearest(
    claim: UnsupportedClaim, found: Sequence[Statement], subject: Subject
) -> tuple[Statement, Sequence[str]] | None:
    """The statement in force that gives another value for what is claimed, or for what was asked."""
    valid = [s for s in found if s.superseded_by is None]
    if claim.source is not None:
        holder = next((s for s in valid if s.text in claim.source or claim.source in s.text), None)
        return (holder, claim.supported_values) if holder and claim.supported_values else None
    told = values(claim.said)
    if len(told) != 1:
        return None
    about = (topic(subject.question) | topic(claim.claim)) & frozenset[str]().union(*(s.about for s in valid))
    alike = [s for s in valid if s.about & about and 2 * len(s.about & about) >= len(about)]
    near = [(s, [w.text for w in s.found if comparable(told[0], w)]) for s in alike]
    return max(
        (pair for pair in near if pair[1]), key=lambda pair: (len(pair[0].about & about), -pair[0].order), default=None
    )


def _supporting(answer: str, found: Sequence[Statement]) -> Statement | None:
    whole = topic(answer)
    figures = {v.text for v in values(answer)}
    facts = [s for s in found if s.superseded_by is None and not s.is_heading and not s.instruction and s.topic & whole]
    return max(
        facts, key=lambda s: (len({v.text for v in s.found} & figures), len(s.topic & whole), -s.order), default=None
    )


@dataclass(frozen=True)
class Reference:
    """How far an answer says what an expected answer says: the mean of what it leaves out and what it adds."""

    name: str = "reference"

    def grade(self, subject: Subject) -> Score:
        expected = (subject.reference or "").strip()
        answer = subject.answer.strip()
        if not expected:
            return Score(1.0, "there is no expected answer", self.name)
        if not answer:
            return Score(0.0, f'says nothing; expected "{short(expected, 160)}"', self.name)
        told, added = support(expected, [answer]), support(answer, [expected])
        score = round(2 * told * added / (told + added), 4) if told + added else 0.0
        wrong = [claim for claim in unsupported_claims(answer, [expected], subject.question) if claim.supported_values]
        if wrong:
            said = f"says {wrong[0].said}; expected {', '.join(wrong[0].supported_values)}"
        elif score >= 0.5:
            said = f'agrees with the expected answer "{short(expected, 160)}"'
        else:
            said = f'differs from the expected answer "{short(expected, 160)}"'
        return Score(score, said, self.name)
