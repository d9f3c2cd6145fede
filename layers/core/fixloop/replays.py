"""One replay: a recorded trace against a fix, what the model answers now, and whether that is better."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fixloop import models
from fixloop.changes import (
    Changes,
    ConfigChange,
    DiffDoesNotApply,
    Guardrail,
    PromptUpdate,
    RetrievalUpdate,
    guarded,
    new_context,
    new_parameters,
    new_prompt,
)
from fixloop.graders import Panel, Score, Subject, Ungradable, default, short
from fixloop.models import Model, ModelRefused, Price, Prompt
from fixloop.traces import Message, Trace

Verdict = Literal["improved", "unchanged", "regressed"]
Mode = Literal["side_by_side", "automated"]

VERDICTS: tuple[Verdict, ...] = ("improved", "unchanged", "regressed")
THRESHOLD = 0.05
MAX_EXPLANATION = 2000

FAILURES = (DiffDoesNotApply, ModelRefused, Ungradable)
"""What makes one trace fail for good. Throttled and ModelUnavailable are worth another try."""


@dataclass(frozen=True)
class Result:
    """What a replay found. Scores are 0 to 1; tokens are those of the answering and the judging model together.

    `latency_ms` is the answering model's. `cost_estimate` is in US dollars, None where no price is known. `original`
    can be stored under `original_key` and handed in again. `flags` are the rules of a guardrail that the answer broke.
    """

    trace_id: str
    original_output: str
    fixed_output: str
    original_score: float
    fixed_score: float
    verdict: Verdict
    explanation: str
    latency_ms: int
    input_tokens: int
    output_tokens: int
    cost_estimate: float | None
    original: Score
    flags: Sequence[str] = field(default_factory=tuple)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def replay(
    trace: Trace,
    changes: Changes | None,
    model: Model,
    graders: Panel | None = None,
    mode: Mode = "side_by_side",
    threshold: float = THRESHOLD,
    *,
    original: Score | None = None,
    price: Price | None = None,
    judge_price: Price | None = None,
    timeout: float = models.TIMEOUT,
) -> Result:
    """Asks `model` again with the fix applied, and compares with what was recorded.

    Both answers are held against the same evidence: prompt and context after the fix, and what the fix took away, as
    far as nothing has come in its place. A guardrail is applied to the new answer. `original` is the recorded answer's
    score from an earlier replay with the same `original_key`; it is not used where a grader sees both answers at once.
    Without `graders` the default ones grade. Raises those in `FAILURES`, Throttled and ModelUnavailable.
    """
    prompt = prompt_for(trace, changes)
    panel = graders or default(has_reference=bool(trace.reference))
    answered = model.complete(prompt, timeout=timeout)
    sources, withdrawn = _evidence(trace, prompt)
    before = Subject(
        question=trace.user_message,
        answer=trace.recorded_response,
        sources=sources,
        withdrawn=withdrawn,
        reference=trace.reference,
        latency_ms=trace.latency_ms,
        tokens=trace.output_tokens,
    )
    after = replace(before, answer=answered.text, latency_ms=answered.latency_ms, tokens=answered.output_tokens)
    flags: Sequence[str] = ()
    if isinstance(changes, Guardrail):
        kept = guarded(changes, after)
        flags = kept.broken
        if kept.text != after.answer:
            after = replace(after, answer=kept.text, tokens=None)
    judged = 0, 0
    if mode == "side_by_side" and panel.compares:
        first, second = panel.compare(before, after)
        judged = first.input_tokens + second.input_tokens, first.output_tokens + second.output_tokens
    else:
        first = original or panel.grade(before)
        second = panel.grade(after)
        new = (second,) if original else (first, second)
        judged = sum(s.input_tokens for s in new), sum(s.output_tokens for s in new)
    verdict = verdict_of(first.score, second.score, threshold)
    return Result(
        trace_id=trace.id,
        original_output=trace.recorded_response,
        fixed_output=after.answer,
        original_score=first.score,
        fixed_score=second.score,
        verdict=verdict,
        explanation=_explained(before.answer, after.answer, first, second, flags),
        latency_ms=answered.latency_ms,
        input_tokens=answered.input_tokens + judged[0],
        output_tokens=answered.output_tokens + judged[1],
        cost_estimate=_cost(answered.input_tokens, answered.output_tokens, price, judged, judge_price),
        original=first,
        flags=flags,
    )


def prompt_for(trace: Trace, changes: Changes | None) -> Prompt:
    """What the model is asked in a replay of `trace` with a fix, or without one. Raises DiffDoesNotApply."""
    return Prompt(
        system=new_prompt(trace.system_prompt, changes) if isinstance(changes, PromptUpdate) else trace.system_prompt,
        messages=[*trace.history, Message(role="user", content=trace.user_message)],
        context=new_context(trace.context, changes) if isinstance(changes, RetrievalUpdate) else trace.context,
        parameters=new_parameters(trace.parameters, changes) if isinstance(changes, ConfigChange) else trace.parameters,
    )


def model_for(
    trace: Trace,
    changes: Changes | None,
    wanted: str | None = None,
    of_agent: Callable[[str], str | None] = lambda _: None,
) -> str:
    """The name of the model to ask: the fix's, else the test's (`wanted`), else the trace's, else its agent's.

    `of_agent` gives the model of an agent by its id. A model that is not one of ours by its form ("gpt-4o") cannot be
    asked and does not count; where none counts, it is the default.
    """
    if isinstance(changes, ConfigChange) and changes.model:
        return changes.model
    if wanted:
        return wanted
    if trace.model and models.well_formed(trace.model):
        return trace.model
    own = of_agent(trace.agent_id)
    return own if own and models.well_formed(own) else models.DEFAULT


def _evidence(trace: Trace, prompt: Prompt) -> tuple[list[str], frozenset[int]]:
    """The texts that both answers are held against, and the positions of those that the fix has withdrawn."""
    sources = [prompt.system, *(document.text for document in prompt.context)]
    kept = set(sources)
    gone = [document.text for document in trace.context if document.text not in kept]
    if trace.system_prompt != prompt.system:
        lines = set(prompt.system.split("\n"))
        gone = ["\n".join(line for line in trace.system_prompt.split("\n") if line not in lines), *gone]
    gone = [text for text in gone if text.strip()]
    said = [m.content for m in trace.history if m.role == "tool"]
    sources += said
    return [*sources, *gone], frozenset(range(len(sources), len(sources) + len(gone)))


def original_key(trace: Trace, changes: Changes | None, graders: Any = None) -> str:
    """A key under which a recorded answer's score may be stored: the same as long as answer, evidence and graders are.

    `graders` is anything JSON can say that tells graders apart, such as a test's `config.graders`. Raises
    DiffDoesNotApply.
    """
    sources, withdrawn = _evidence(trace, prompt_for(trace, changes))
    about = [trace.user_message, trace.recorded_response, trace.reference, sources, sorted(withdrawn), trace.latency_ms]
    content = json.dumps([*about, graders], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def verdict_of(original: float, fixed: float, threshold: float = THRESHOLD) -> Verdict:
    """By the difference of two scores; a difference of exactly the threshold counts."""
    difference = round(fixed - original, 6)
    if difference >= round(threshold, 6) and difference > 0:
        return "improved"
    if difference <= -round(threshold, 6) and difference < 0:
        return "regressed"
    return "unchanged"


def summary(verdicts: Iterable[str], failed: int = 0) -> dict[str, Any]:
    """`{improved, unchanged, regressed, improvementRate}`; failed traces are in no count and not in the rate."""
    del failed
    counts: dict[str, Any] = dict.fromkeys(VERDICTS, 0)
    for verdict in verdicts:
        counts[verdict] += 1
    total = sum(counts.values())
    return {**counts, "improvementRate": round(counts["improved"] / total, 4) if total else 0}


def _explained(was: str, now: str, first: Score, second: Score, flags: Sequence[str]) -> str:
    noted = f" Guardrail: {'; '.join(flags)}." if flags else ""
    if was.strip() == now.strip():
        return short(f"The answer is the same as before: it {first.explanation}.{noted}", MAX_EXPLANATION)
    if first.explanation == second.explanation:
        return short(f"Both answers: {first.explanation}.{noted}", MAX_EXPLANATION)
    return short(f"Original {first.explanation}. Fixed {second.explanation}.{noted}", MAX_EXPLANATION)


def _cost(
    input_tokens: int, output_tokens: int, price: Price | None, judged: tuple[int, int], judge_price: Price | None
) -> float | None:
    if price is None or (any(judged) and judge_price is None):
        return None
    return round(price.of(input_tokens, output_tokens) + (judge_price.of(*judged) if judge_price else 0.0), 8)
