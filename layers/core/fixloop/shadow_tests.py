"""Shadow tests as ThinkHive describes them: recorded traces replayed against a fix, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from fixloop.changes import MODEL, FixType
from fixloop.errors import Conflict
from fixloop.graders import MAX_GRADERS, GraderIn, short
from fixloop.issues import MAX_TRACES
from fixloop.patch import Patch
from fixloop.replays import THRESHOLD, Mode, Result, Verdict, verdict_of
from fixloop.shapes import Time
from fixloop.thinkhive import PageQuery, Pagination, is_identifier, placed
from fixloop.times import iso_s

Status = Literal["pending", "running", "completed", "failed"]

STATUSES: tuple[Status, ...] = ("pending", "running", "completed", "failed")
ACTIVE = ("pending", "running")

MAX_CONCURRENCY = 500  # model calls in flight, over all workers of a test
MAX_REPEAT = 10
MAX_BATCH = 1000  # traces that one worker is given at a time
WORKERS = 8  # batches that are replayed at the same time, at most
MAX_ERROR = 2000
MAX_SHOWN = 1000  # results shown with a test at a time
_REASONS = 3

Key = Annotated[str, Field(min_length=1, max_length=128)]


class Config(BaseModel):
    """How a test is run. `comparisonMode` is the published option; the others are ours.

    `threshold` is the difference of scores from which an answer is better or worse (default 0.05), `graders` replace
    the default ones, `model` answers instead of each trace's own, `concurrency` is how many model calls are in flight
    and `batchSize` how many traces a worker is given at a time (by default what the stack's parameters say), `repeat`
    replays each trace several times and takes the mean, `maxCostUsd` ends the test when its estimated cost has come to
    that.
    """

    model_config = ConfigDict(extra="ignore")

    comparisonMode: Mode = "side_by_side"  # noqa: N815 - the wire's name
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    graders: Annotated[list[GraderIn], Field(min_length=1, max_length=MAX_GRADERS)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=300), MODEL] | None = None
    concurrency: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)] | None = None
    batchSize: Annotated[int, Field(ge=1, le=MAX_BATCH)] | None = None  # noqa: N815
    repeat: Annotated[int, Field(ge=1, le=MAX_REPEAT)] | None = None
    maxCostUsd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None  # noqa: N815

    def shown(self) -> dict[str, Any]:
        """What was asked for, with `comparisonMode` always."""
        return {"comparisonMode": self.comparisonMode, **self.model_dump(exclude_none=True)}

    @property
    def verdict_threshold(self) -> float:
        return THRESHOLD if self.threshold is None else self.threshold


class ShadowTestIn(BaseModel):
    """The body of `POST /api/shadow-tests`. Trace ids given twice count once."""

    fixId: Key  # noqa: N815
    traceIds: Annotated[list[str], Field(min_length=1, max_length=MAX_TRACES)]  # noqa: N815
    config: Config = Config()

    @field_validator("traceIds")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        for one in value:
            if not is_identifier(one):
                raise ValueError(f"{short(one, 60)!r} is not a trace id")
        return list(dict.fromkeys(value))


class ErrorIn(BaseModel):
    """The `results` of a `PATCH`: why a test has failed."""

    error: Annotated[str, Field(min_length=1, max_length=MAX_ERROR)]


class ShadowTestPatch(Patch):
    """The body of `PATCH /api/shadow-tests/:id`; only what is given changes."""

    status: Status | None = None
    results: ErrorIn | None = None


class ShadowTestQuery(PageQuery):
    """The filters of `GET /api/shadow-tests`."""

    fixId: Key | None = None  # noqa: N815
    status: Status | None = None

    def wants(self, code: str) -> bool:
        """Whether tests in the leaf `code` pass the enum filter."""
        return self.status is None or code == str(STATUSES.index(self.status))


class PageOfResults(PageQuery):
    """Which part of a test's `traceResults` is shown."""

    limit: Annotated[int, Field(ge=1, le=MAX_SHOWN)] = MAX_SHOWN


class ShadowExecutionIn(BaseModel):
    """The body of `POST /api/shadow-execution`; `config` is ours and as in a shadow test."""

    fixId: Key  # noqa: N815
    traceId: Key  # noqa: N815
    config: Config = Config()


class ResultsShown(TypedDict):
    """The counts of a test. `error` says why it failed, or which traces could not be replayed."""

    improved: NotRequired[int]
    unchanged: NotRequired[int]
    regressed: NotRequired[int]
    improvementRate: NotRequired[float]
    error: NotRequired[str]


class ProgressShown(TypedDict):
    done: int
    total: int


class UsageShown(TypedDict):
    """What the models used so far. `costEstimateUsd` is null where a price is not known."""

    inputTokens: int
    outputTokens: int
    costEstimateUsd: float | None


class ShadowTestShown(TypedDict):
    """A test in a list."""

    id: str
    fixId: str
    status: Status
    traceCount: int
    config: dict[str, Any]
    results: NotRequired[ResultsShown]
    progress: NotRequired[ProgressShown]
    usage: NotRequired[UsageShown]
    createdAt: Time
    startedAt: NotRequired[Time]
    completedAt: NotRequired[Time]


class TraceResultShown(TypedDict):
    """One trace of a test; from `latencyMs` on the keys are ours."""

    traceId: str
    verdict: Verdict
    originalScore: float
    fixedScore: float
    explanation: str
    latencyMs: int
    inputTokens: int
    outputTokens: int
    costEstimateUsd: float | None


class ShadowTestWhole(ShadowTestShown):
    """A test on its own."""

    traceResults: NotRequired[list[TraceResultShown]]


class OneShadowTest(TypedDict):
    """`pagination` is there when a part of `traceResults` was asked for or there are more of them."""

    success: Literal[True]
    data: ShadowTestWhole
    pagination: NotRequired[Pagination]


class ShadowTestPatched(TypedDict):
    id: str
    status: Status
    results: NotRequired[ResultsShown]
    completedAt: NotRequired[Time]


class ShadowExecutionShown(TypedDict):
    """What one replay came to; the keys from `latencyMs` on, but for `executedAt`, are ours."""

    traceId: str
    fixId: str
    originalOutput: str
    fixedOutput: str
    verdict: Verdict
    originalScore: float
    fixedScore: float
    explanation: str
    latencyMs: int
    executedAt: Time
    inputTokens: int
    outputTokens: int
    costEstimateUsd: float | None


class TraceResultWhole(TypedDict):
    """One trace of a test with both answers; `verdict` is null and `error` given where it could not be replayed."""

    traceId: str
    verdict: Verdict | None
    originalScore: float | None
    fixedScore: float | None
    explanation: str | None
    originalOutput: str | None
    fixedOutput: str | None
    latencyMs: int | None
    inputTokens: int
    outputTokens: int
    costEstimateUsd: float | None
    flags: list[str]
    error: str | None


class FixTestShown(TypedDict):
    """A test as a fix shows it."""

    id: str
    status: Status
    improvementRate: float | None


class Tally(BaseModel):
    """What a test, or one batch of it, has come to. `cost` in US dollars; `unpriced` results had no known price."""

    improved: int = 0
    unchanged: int = 0
    regressed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0

    @property
    def replayed(self) -> int:
        return self.improved + self.unchanged + self.regressed

    @property
    def done(self) -> int:
        return self.replayed + self.failed

    @property
    def improvement_rate(self) -> float:
        return round(self.improved / self.replayed, 4) if self.replayed else 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in Tally.model_fields})

    def with_outcome(self, outcome: Outcome) -> Tally:
        counted = outcome.verdict or "failed"
        return self.model_copy(
            update={
                counted: getattr(self, counted) + 1,
                "input_tokens": self.input_tokens + outcome.input_tokens,
                "output_tokens": self.output_tokens + outcome.output_tokens,
                "cost": self.cost + (outcome.cost or 0.0),
                "unpriced": self.unpriced + (outcome.cost is None),
            }
        )

    def counts(self) -> ResultsShown:
        return {
            "improved": self.improved,
            "unchanged": self.unchanged,
            "regressed": self.regressed,
            "improvementRate": self.improvement_rate,
        }

    def usage(self) -> UsageShown:
        return {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "costEstimateUsd": None if self.unpriced else round(self.cost, 6),
        }


class Outcome(BaseModel):
    """What one trace came to: a verdict with its scores, or the `error` for which it could not be replayed."""

    trace_id: str
    verdict: Verdict | None = None
    original_score: float | None = None
    fixed_score: float | None = None
    explanation: str | None = None
    original_output: str | None = None
    fixed_output: str | None = None
    latency_ms: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    flags: list[str] = []
    error: str | None = None

    def shown(self) -> TraceResultShown | None:
        """Its line in a test; None where there is no verdict."""
        if self.verdict is None:
            return None
        return {
            "traceId": self.trace_id,
            "verdict": self.verdict,
            "originalScore": self.original_score or 0.0,
            "fixedScore": self.fixed_score or 0.0,
            "explanation": self.explanation or "",
            "latencyMs": self.latency_ms or 0,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "costEstimateUsd": self.cost,
        }

    def whole(self) -> TraceResultWhole:
        return {
            "traceId": self.trace_id,
            "verdict": self.verdict,
            "originalScore": self.original_score,
            "fixedScore": self.fixed_score,
            "explanation": self.explanation,
            "originalOutput": self.original_output,
            "fixedOutput": self.fixed_output,
            "latencyMs": self.latency_ms,
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "costEstimateUsd": self.cost,
            "flags": self.flags,
            "error": self.error,
        }


class ShadowTest(BaseModel):
    """A test as it is kept. Times in ms. `changes` are the fix's as they were when the test was made.

    `issue_id` is the issue that counts the test among its active ones. `tally` is there once the test has completed;
    until then the batches' tallies are summed. `halted` says why no further trace is to be replayed.
    """

    id: str
    n: int
    fix_id: str
    fix_type: FixType
    changes: dict[str, Any]
    issue_id: str | None = None
    status: Status = "pending"
    trace_count: int
    config: Config
    traces: str
    author: str
    error: str | None = None
    halted: str | None = None
    tally: Tally | None = None
    created_at: int
    updated_at: int
    started_at: int | None = None
    completed_at: int | None = None

    @property
    def leaf(self) -> str:
        return str(STATUSES.index(self.status))

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    def results(self, tally: Tally) -> ResultsShown | None:
        """What is known so far; None as long as nothing is."""
        results: ResultsShown = {}
        if tally.replayed or self.status == "completed":
            results = tally.counts()
        if self.error:
            results["error"] = self.error
        return results or None

    def created(self) -> ShadowTestShown:
        """What `POST` answers."""
        return {
            "id": self.id,
            "fixId": self.fix_id,
            "status": self.status,
            "traceCount": self.trace_count,
            "config": self.config.shown(),
            "createdAt": iso_s(self.created_at),
        }

    def listed(self, tally: Tally) -> ShadowTestShown:
        found: dict[str, Any] = {}
        if (results := self.results(tally)) is not None:
            found["results"] = results
        if self.status != "pending":
            found["progress"] = {"done": tally.done, "total": self.trace_count}
            found["usage"] = tally.usage()
        shown = cast(ShadowTestShown, placed(self.created(), "createdAt", **found))
        if self.started_at is not None:
            shown["startedAt"] = iso_s(self.started_at)
        if self.completed_at is not None:
            shown["completedAt"] = iso_s(self.completed_at)
        return shown

    def patched(self, tally: Tally) -> ShadowTestPatched:
        """What `PATCH` answers."""
        shown: ShadowTestPatched = {"id": self.id, "status": self.status}
        if (results := self.results(tally)) is not None:
            shown["results"] = results
        if self.completed_at is not None:
            shown["completedAt"] = iso_s(self.completed_at)
        return shown

    def of_fix(self, tally: Tally) -> FixTestShown:
        rate = tally.improvement_rate if tally.replayed else None
        return {"id": self.id, "status": self.status, "improvementRate": rate}


def patch(test: ShadowTest, given: ShadowTestPatch) -> dict[str, Any]:
    """The fields that a `PATCH` sets on a test as it stands. Raises Conflict.

    A running test can be ended (`failed`), which also stops its execution. Its other moves are made by the replay
    itself, and what has ended stays ended.
    """
    fields: dict[str, Any] = {}
    wanted = given.status or test.status
    if wanted != test.status:
        if wanted != "failed" or not test.active:
            raise Conflict(f"Shadow test {test.id} is {test.status} and cannot become {wanted}")
        fields["status"] = "failed"
        fields["error"] = "Cancelled"
    if given.results is not None:
        if wanted != "failed":
            raise Conflict(f"Shadow test {test.id} is {wanted}; an error belongs to one that has failed")
        fields["error"] = given.results.error
    return fields


def concluded(trace_count: int, tally: Tally, failures: Iterable[Outcome], halted: str | None) -> dict[str, Any]:
    """The status and error of a test whose replays have ended. `halted` says why they ended before the last trace."""
    reasons: dict[str, list[str]] = {}
    for one in failures:
        reasons.setdefault(one.error or "", []).append(one.trace_id)
    said = [f"{', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}: {reason}" for reason, ids in reasons.items()]
    more = "" if len(said) <= _REASONS else f"; and {len(said) - _REASONS} more reasons"
    why = "; ".join(said[:_REASONS]) + more
    missing = trace_count - tally.done
    if halted or missing:
        stopped = halted or "the replay ended early"
        return {"status": "failed", "error": short(f"Stopped after {tally.done} of {trace_count} traces: {stopped}")}
    if not tally.replayed:
        return {"status": "failed", "error": short(f"No trace could be replayed. {why}", MAX_ERROR)}
    if tally.failed:
        noted = f"{tally.failed} of {trace_count} traces could not be replayed and are in no count. {why}"
        return {"status": "completed", "error": short(noted, MAX_ERROR)}
    return {"status": "completed", "error": None}


def outcome_of(runs: list[Result], threshold: float) -> Outcome:
    """What the replays of one trace came to; of several the mean score counts, and the run nearest to it is shown."""
    before = sum(run.original_score for run in runs) / len(runs)
    after = sum(run.fixed_score for run in runs) / len(runs)
    typical = min(runs, key=lambda run: abs(run.fixed_score - after))
    costs = [run.cost_estimate for run in runs]
    known = [cost for cost in costs if cost is not None]
    several = f"Mean of {len(runs)} replays. " if len(runs) > 1 else ""
    return Outcome(
        trace_id=typical.trace_id,
        verdict=verdict_of(before, after, threshold),
        original_score=round(before, 4),
        fixed_score=round(after, 4),
        explanation=several + typical.explanation,
        original_output=typical.original_output,
        fixed_output=typical.fixed_output,
        latency_ms=round(sum(run.latency_ms for run in runs) / len(runs)),
        input_tokens=sum(run.input_tokens for run in runs),
        output_tokens=sum(run.output_tokens for run in runs),
        cost=round(sum(known), 8) if len(known) == len(costs) else None,
        flags=list(dict.fromkeys(flag for run in runs for flag in run.flags)),
    )


def batches(trace_ids: list[str], most: int, in_flight: int) -> tuple[list[list[str]], int]:
    """The traces cut into even batches of up to `most`, and how many calls each worker keeps in flight.

    `in_flight` is how many there are together while `WORKERS` run.
    """
    count = -(-len(trace_ids) // most)
    size = -(-len(trace_ids) // count)
    cut = [trace_ids[start : start + size] for start in range(0, len(trace_ids), size)]
    return cut, max(1, in_flight // min(len(cut), WORKERS))
