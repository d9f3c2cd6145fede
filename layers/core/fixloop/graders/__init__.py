"""Graders: how good an answer is, 0 to 1, with an explanation that quotes the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fixloop.errors import Invalid
from fixloop.models import Model

Judges = Callable[[str | None], Model | None]
Shape = TypeVar("Shape", bound=BaseModel)

MAX_EXPLANATION = 2000
MAX_GRADERS = 20


@dataclass(frozen=True)
class Subject:
    """What is graded: an answer, and what it is held against. Tokens are those of the answer.

    `withdrawn` are the positions in `sources` of texts that a fix takes away: evidence only where nothing replaces
    them. The source at 0 is the system prompt.
    """

    question: str
    answer: str
    sources: Sequence[str] = ()
    withdrawn: frozenset[int] = frozenset()
    reference: str | None = None
    latency_ms: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Score:
    """A grader's finding; `score` is 0 to 1. The tokens are what a judging model used."""

    score: float
    explanation: str
    grader: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def passed(self) -> bool:
        return self.score >= 0.5


class Ungradable(Exception):
    """A grader can say nothing about this answer, and would not the next time. `message` is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Grader(Protocol):
    """Anything that scores an answer on its own."""

    @property
    def name(self) -> str: ...

    def grade(self, subject: Subject) -> Score:
        """Raises Ungradable, or what the judging model raises."""


class Comparing(Grader, Protocol):
    """A grader that, asked about two answers to one question, sees them side by side."""

    def compare(self, original: Subject, fixed: Subject) -> tuple[Score, Score]:
        """The scores of the original and of the fixed answer."""


class GraderIn(BaseModel):
    """One element of `config.graders`.

    `config` has the keys of its type: those of the rules (`graders.rules`), none for `grounded` and `reference`, and
    `{criteria?, model?}` for `llm_judge`.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal[
        "grounded",
        "reference",
        "llm_judge",
        "regex",
        "contains",
        "not_contains",
        "json_valid",
        "json_schema",
        "length",
        "pii_check",
        "latency",
        "token_count",
    ]
    name: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = None
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    config: dict[str, Any] = {}


@dataclass(frozen=True)
class Weighted:
    """A grader and how much it counts among others."""

    grader: Grader
    weight: float = 1.0


@dataclass(frozen=True)
class Panel:
    """Graders whose weighted mean is the score."""

    members: Sequence[Weighted] = field(default_factory=tuple)

    @property
    def compares(self) -> bool:
        """Whether one of them sees answers side by side, so that the original's score depends on the fixed one."""
        return any(hasattr(member.grader, "compare") for member in self.members)

    def grade(self, subject: Subject) -> Score:
        return self._mean([(m.grader.grade(subject), m.weight) for m in self.members])

    def compare(self, original: Subject, fixed: Subject) -> tuple[Score, Score]:
        before: list[tuple[Score, float]] = []
        after: list[tuple[Score, float]] = []
        for member in self.members:
            compare = getattr(member.grader, "compare", None)
            pair = compare(original, fixed) if compare else (member.grader.grade(original), member.grader.grade(fixed))
            before.append((pair[0], member.weight))
            after.append((pair[1], member.weight))
        return self._mean(before), self._mean(after)

    def _mean(self, scores: Sequence[tuple[Score, float]]) -> Score:
        if not scores:
            raise Ungradable("There is no grader.")
        whole = sum(weight for _, weight in scores)
        several = len(scores) > 1
        said = "; ".join(f"{s.grader} {s.score:.2f}: {s.explanation}" if several else s.explanation for s, _ in scores)
        return Score(
            score=round(sum(s.score * weight for s, weight in scores) / whole, 4),
            explanation=short(said, MAX_EXPLANATION),
            grader=", ".join(s.grader for s, _ in scores),
            input_tokens=sum(s.input_tokens for s, _ in scores),
            output_tokens=sum(s.output_tokens for s, _ in scores),
        )


def default(*, has_reference: bool) -> Panel:
    """What grades where nothing else is asked for: `grounded`, and `reference` for a trace with an expected answer."""
    from fixloop.graders.grounded import Grounded, Reference

    members = [Weighted(Grounded())]
    return Panel([*members, Weighted(Reference())] if has_reference else members)


def panel(given: Sequence[GraderIn], judge: Judges | None = None) -> Panel:
    """The graders that `given` describes; `judge` gives the model of an `llm_judge` by its name, or the one to take
    where none is named. Raises Invalid naming the fields.
    """
    if len(given) > MAX_GRADERS:
        raise Invalid({"graders": [f"must be at most {MAX_GRADERS}"]})
    members = []
    problems: dict[str, list[str]] = {}
    for at, one in enumerate(given):
        try:
            members.append(Weighted(_made(one, judge), one.weight))
        except Invalid as error:
            problems |= {f"graders.{at}.{name}": messages for name, messages in error.fields.items()}
    if problems:
        raise Invalid(problems)
    return Panel(members)


def _made(given: GraderIn, judge: Judges | None) -> Grader:
    if given.type in ("grounded", "reference"):
        from fixloop.graders.grounded import Grounded, Reference

        if given.config:
            raise Invalid({f"config.{next(iter(given.config))}": ["is not known here"]})
        return Grounded(given.name or given.type) if given.type == "grounded" else Reference(given.name or given.type)
    if given.type == "llm_judge":
        from fixloop.graders.judge import JudgeConfig, LlmJudge

        config = configured(JudgeConfig, given.config)
        model = judge(config.model) if judge else None
        if model is None:
            raise Invalid({"config.model": ["must name a model that can judge"]})
        return LlmJudge(model, config.criteria, given.name or given.type)
    from fixloop.graders.rules import rule

    return rule(given.model_dump(include={"type", "name", "config"}))


def configured(shape: type[Shape], config: dict[str, Any]) -> Shape:
    """`config` as `shape`. Raises Invalid naming `config.<key>`."""
    try:
        return shape.model_validate(config)
    except ValidationError as error:
        raise Invalid(problems(error, "config")) from None


def problems(error: ValidationError, under: str) -> dict[str, list[str]]:
    """Every bad field of a validation error, below a name, with unknown keys said plainly."""
    fields: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join([under, *(str(part) for part in problem["loc"])])
        said = (
            "is not known here"
            if problem["type"] == "extra_forbidden"
            else problem["msg"].removeprefix("Value error, ")
        )
        if said not in fields.setdefault(name, []):
            fields[name].append(said)
    return fields


def short(text: str, size: int = 200) -> str:
    """A text on one line, with its end left out where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= size else text[: size - 1].rstrip() + "…"
