"""Running shadow tests: what each step of the state machine does, and one replay at once for a waiting caller."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from fixloop import models
from fixloop.aws import client
from fixloop.changes import Changes, DiffDoesNotApply, parse_changes
from fixloop.errors import Conflict, Invalid, TimedOut, UpstreamFailed
from fixloop.fixes import Fix
from fixloop.follow import follow_fix
from fixloop.graders import Panel, Score, Ungradable, panel
from fixloop.models import Model, ModelError, ModelRefused, ModelUnavailable, Price, Throttled
from fixloop.models.prices import price
from fixloop.observe import count, logger
from fixloop.patience import OutOfTime, Patient, Unpaced
from fixloop.replays import FAILURES, Result, model_for, original_key, replay
from fixloop.settings import settings
from fixloop.shadow_tests import Config, Outcome, ShadowTest, batches, concluded, outcome_of
from fixloop.storage import agents, endpoints, fixes, paces, traces
from fixloop.storage import shadow_tests as store
from fixloop.traces import Trace

READ = 100  # traces read at a time
GATHERED = 0.2  # seconds that a result waits for others to be stored with
LOOKED = 1.0  # seconds between looks at whether the test still runs
ORIGINALS_KEPT = 30 * 86_400  # seconds
LONGEST_EXECUTION = 28.0  # seconds; the gateway cuts at 30


class Unfinished(Exception):
    """A batch could not be finished in this run; what is missing is to be replayed by another one."""


class Batch(BaseModel):
    """What one worker is given: the traces at the positions from `first` on."""

    org: str
    test: str
    batch: int
    first: int
    traceIds: list[str]  # noqa: N815 - as in the machine's items
    inFlight: int  # noqa: N815


class Judging:
    """The models and graders of one piece of work: each model made once, behind its rate budget."""

    def __init__(self, org: str, changes: Changes, config: Config, in_flight: int, deadline: float, **patience: Any):
        self.changes, self.config = changes, config
        self._org, self._in_flight, self._deadline, self._patience = org, in_flight, deadline, patience
        self._models: dict[str, Model] = {}
        self._of_agents: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._judges: list[str] = []
        self.panel: Panel | None = panel(config.graders, self._judge) if config.graders else None

    def _judge(self, name: str | None) -> Model | None:
        spec = name or self.config.model
        if spec is None or spec == models.DEFAULT:
            return None
        self._judges.append(spec)
        return self.model(spec)

    def model(self, spec: str) -> Model:
        """Raises Invalid naming `model`."""
        with self._lock:
            if spec not in self._models:
                made = models.named(spec, lambda name: endpoints.endpoint(self._org, name))
                pace = Unpaced() if spec == models.DEFAULT else paces.Pace(self._org, spec, self._in_flight)
                self._models[spec] = Patient(made, pace, self._deadline, **self._patience)
            return self._models[spec]

    def _of_agent(self, agent_id: str) -> str | None:
        with self._lock:
            if agent_id not in self._of_agents:
                agent = agents.look(self._org, agent_id)
                self._of_agents[agent_id] = agent.content.model if agent else None
            return self._of_agents[agent_id]

    def price(self, spec: str) -> Price | None:
        return price(spec, lambda name: endpoints.endpoint(self._org, name))

    def replayed(self, trace: Trace) -> Result:
        """One replay. Raises those in `replays.FAILURES`, OutOfTime, Throttled, ModelUnavailable and Invalid."""
        spec = model_for(trace, self.changes, self.config.model, self._of_agent)
        answering = self.price(spec)
        judging = [self.price(judge) for judge in self._judges]
        if self.config.maxCostUsd is not None and (answering is None or None in judging):
            raise ModelRefused(f"The price of {spec} or of the judge is not known, so maxCostUsd cannot be kept.")
        judges = [known for known in judging if known is not None]
        judge_price = max(judges, key=lambda known: known.output) if judges and len(judges) == len(judging) else None
        known = self._original(trace)
        result = replay(
            trace,
            self.changes,
            self.model(spec),
            self.panel,
            self.config.comparisonMode,
            self.config.verdict_threshold,
            original=known,
            price=answering,
            judge_price=judge_price,
        )
        if known is None:
            self._keep_original(trace, result.original)
        return result

    def _original_name(self, trace: Trace) -> str | None:
        """Under what a judge's score of the recorded answer is kept; rules are quicker to ask than the table."""
        if not self._judges or self.config.comparisonMode != "automated":
            return None
        graders = [grader.model_dump(mode="json") for grader in self.config.graders or ()]
        return original_key(trace, self.changes, [graders, self._judges])

    def _original(self, trace: Trace) -> Score | None:
        name = self._original_name(trace)
        held = store.original(self._org, name) if name else None
        return Score(**held, input_tokens=0, output_tokens=0) if held else None

    def _keep_original(self, trace: Trace, score: Score) -> None:
        if name := self._original_name(trace):
            held = {"score": score.score, "explanation": score.explanation, "grader": score.grader}
            store.keep_original(self._org, name, held, int(time.time()) + ORIGINALS_KEPT)


def check(org: str, config: Config) -> None:
    """Raises Invalid naming every field of a test's `config` that could not be carried out."""
    problems: dict[str, list[str]] = {}
    try:
        if config.model:
            models.named(config.model, lambda name: endpoints.endpoint(org, name))
    except Invalid as refused:
        problems |= refused.fields
    try:
        if config.graders:
            panel(config.graders, lambda name: _nameable(org, name or config.model))
    except Invalid as refused:
        problems |= refused.fields
    if problems:
        raise Invalid({f"config.{name}": messages for name, messages in problems.items()})


def _nameable(org: str, spec: str | None) -> Model | None:
    if spec is None or spec == models.DEFAULT:
        return None
    return models.named(spec, lambda name: endpoints.endpoint(org, name))


def execution_name(org: str, test_id: str) -> str:
    """What a test's execution is called, so that it is started once."""
    return f"{test_id}.{org}"


def execution_arn(org: str, test_id: str) -> str:
    machine = settings().shadow_test_machine
    return f"{machine.replace(':stateMachine:', ':execution:', 1)}:{execution_name(org, test_id)}"


# The machine's steps


def prepare(org: str, test_id: str, now: int) -> dict[str, Any]:
    """Marks a test as running and cuts its traces into batches, a list of which is written to the bucket.

    A test that has been ended meanwhile has no batches left.
    """

    def begun(test: ShadowTest) -> dict[str, Any]:
        return {"status": "running", "started_at": now} if test.status == "pending" else {}

    test = store.change(org, test_id, begun, now)
    cut: list[Batch] = []
    if test.status == "running":
        _begin_fix(org, test.fix_id, now)
        ids = store.trace_ids(org, test)
        size = test.config.batchSize or settings().replay_batch_size
        parts, in_flight = batches(ids, size, test.config.concurrency or settings().replay_concurrency)
        at = 0
        for number, part in enumerate(parts):
            cut.append(Batch(org=org, test=test_id, batch=number, first=at, traceIds=part, inFlight=in_flight))
            at += len(part)
    key = f"{org}/test/{test_id}/batches.json"
    content = json.dumps([batch.model_dump() for batch in cut]).encode()
    client("s3").put_object(Bucket=settings().blobs_bucket, Key=key, Body=content, ContentType="application/json")
    return {"org": org, "test": test_id, "bucket": settings().blobs_bucket, "key": key, "batches": len(cut)}


def _begin_fix(org: str, fix_id: str, now: int) -> None:
    def begun(fix: Fix) -> tuple[dict[str, Any], list[Any]]:
        return ({"status": "testing"} if fix.status in ("draft", "proposed") else {}), []

    follow_fix(org, fixes.change(org, fix_id, begun, now), now)


@dataclass
class _Run:
    """A batch while it is replayed: what comes in, and what is to be stored."""

    batch: Batch
    test: ShadowTest
    judging: Judging
    missing: list[int]
    deadline: float
    arrived: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = field(default_factory=queue.SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)

    def one(self, position: int, trace: Trace | None) -> None:
        if self.stopped.is_set():
            return
        if time.monotonic() >= self.deadline:
            self.arrived.put((position, OutOfTime("The batch took longer than one worker may run.")))
            return
        try:
            self.arrived.put((position, self._outcome(position, trace)))
        except Exception as error:  # whatever it is, the other traces go on
            self.arrived.put((position, error))

    def _outcome(self, position: int, trace: Trace | None) -> Outcome:
        trace_id = self.batch.traceIds[position - self.batch.first]
        if trace is None:
            return Outcome(trace_id=trace_id, error="The trace does not exist any more.")
        try:
            runs = [self.judging.replayed(trace) for _ in range(self.test.config.repeat or 1)]
        except FAILURES as refused:
            return Outcome(trace_id=trace_id, error=getattr(refused, "message", str(refused)))
        except Invalid as refused:
            return Outcome(trace_id=trace_id, error=refused.message)
        return outcome_of(runs, self.test.config.verdict_threshold)


def replay_batch(batch: Batch, deadline: float) -> int:
    """Replays what a batch's traces have no result for yet, storing each as it comes; how many results are new.

    `deadline` is one of `time.monotonic`. Raises Throttled, ModelUnavailable or Unfinished when traces are left that
    another run may succeed with.
    """
    test = store.find(batch.org, batch.test)
    last = batch.first + len(batch.traceIds) - 1
    there = store.stored(batch.org, batch.test, batch.first, last)
    missing = [at for at in range(batch.first, last + 1) if at not in there]
    if test.status != "running" or test.halted or not missing:
        return 0
    changes = parse_changes(test.fix_type, test.changes)
    judging = Judging(batch.org, changes, test.config, batch.inFlight, deadline)
    run = _Run(batch, test, judging, missing, deadline)
    pool = ThreadPoolExecutor(max_workers=min(batch.inFlight, len(missing)))
    try:
        for start in range(0, len(missing), READ):  # the first are replayed while the others are read
            ids = {at: batch.traceIds[at - batch.first] for at in missing[start : start + READ]}
            found = traces.find_many(batch.org, ids.values())
            for at, trace_id in ids.items():
                pool.submit(run.one, at, found.get(trace_id))
        return _stored(run)
    finally:
        run.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _stored(run: _Run) -> int:
    """Stores results as they arrive, several at once, until all have or the test is over."""
    batch = run.batch
    new, outstanding = 0, len(run.missing)
    waiting: dict[int, Outcome] = {}
    unresolved: list[BaseException] = []
    due = looked = time.monotonic()
    while outstanding or waiting:
        if outstanding:
            patience = max(0.0, due - time.monotonic()) if waiting else LOOKED
            try:
                position, came = run.arrived.get(timeout=patience)
            except queue.Empty:
                pass
            else:
                outstanding -= 1
                if isinstance(came, Outcome):
                    if not waiting:
                        due = time.monotonic() + GATHERED
                    waiting[position] = came
                else:
                    unresolved.append(came)
        now = time.monotonic()
        if waiting and (len(waiting) >= store.AT_ONCE or now >= due or not outstanding):
            new += store.record(batch.org, batch.test, batch.batch, waiting)
            waiting = {}
            looked = looked if run.test.config.maxCostUsd is None else 0.0
        if now - looked >= LOOKED and outstanding:
            looked = now
            if not _goes_on(run.test, batch):
                return new
    if unresolved:
        raise _reason(unresolved)
    return new


def _goes_on(test: ShadowTest, batch: Batch) -> bool:
    """Whether the test still runs and its cost is below what it may be; one that costs too much is halted."""
    limit = test.config.maxCostUsd
    if limit is not None:
        spent = store.sum_of_batches(batch.org, batch.test).cost
        if spent >= limit:
            said = f"the estimated cost came to {spent:.4f} US dollars; maxCostUsd is {limit:g}"
            store.change(batch.org, batch.test, lambda _: {"halted": said}, int(time.time() * 1000))
            return False
    current = store.find(batch.org, batch.test)
    return current.status == "running" and not current.halted


def _reason(errors: list[BaseException]) -> BaseException:
    """Of all that kept traces from being replayed, what tells most about when to try again."""
    for kind in (Throttled, ModelUnavailable):
        for error in errors:
            if isinstance(error, kind):
                return error
    for error in errors:
        if not isinstance(error, OutOfTime):
            return error
    return Unfinished(str(errors[0]))


def give_up(batch: Batch, reason: str) -> int:
    """Records the traces of a batch that no run got a result for as failed; how many they were."""
    if store.find(batch.org, batch.test).status != "running":
        return 0
    last = batch.first + len(batch.traceIds) - 1
    there = store.stored(batch.org, batch.test, batch.first, last)
    missing = [at for at in range(batch.first, last + 1) if at not in there]
    count("ReplaysFailed", len(missing))
    given = {at: Outcome(trace_id=batch.traceIds[at - batch.first], error=reason) for at in missing}
    new = 0
    for start in range(0, len(missing), store.AT_ONCE):
        part = missing[start : start + store.AT_ONCE]
        new += store.record(batch.org, batch.test, batch.batch, {at: given[at] for at in part})
    return new


def reason_of(error: dict[str, Any]) -> str:
    """What may be shown of a failed step's error, as the machine hands it on (`Error`, and `Cause` as JSON)."""
    try:
        cause = json.loads(error.get("Cause") or "{}")
    except ValueError:
        cause = {}
    kind = str(cause.get("errorType") or error.get("Error") or "unknown error")
    if kind in ("Throttled", "ModelUnavailable", "Unfinished"):
        return str(cause.get("errorMessage") or kind)
    return f"the replay broke off ({kind})"


def conclude(org: str, test_id: str, now: int, stopped: str | None = None) -> ShadowTest:
    """Ends a test whose replays have ended, or were `stopped` for a reason. Doing it again changes nothing."""
    test = store.find(org, test_id)
    if not test.active:
        return test
    tally = store.sum_of_batches(org, test_id)
    failed = list(store.failures(org, test_id, test.trace_count)) if tally.failed else []
    ended = concluded(test.trace_count, tally, failed, test.halted or stopped)

    def close(current: ShadowTest) -> dict[str, Any]:
        return {**ended, "tally": tally} if current.active else {}

    test = store.change(org, test_id, close, now)
    logger().info("concluded", extra={"org_id": org, "shadow_test_id": test_id, "status": test.status})
    return test


# One replay at once


def execute(org: str, fix: Fix, trace: Trace, config: Config, budget: float) -> tuple[Result, int]:
    """Replays one trace within `budget` seconds; the result and how many ms it took.

    Raises TimedOut, UpstreamFailed for a model that does not answer, Conflict for a fix that does not fit the trace.
    """
    started = time.monotonic()
    deadline = started + budget
    judging = Judging(org, parse_changes(fix.type, fix.changes), config, 1, deadline)
    result = _within(budget, lambda: judging.replayed(trace))
    return result, round((time.monotonic() - started) * 1000)


def _within(budget: float, work: Callable[[], Result]) -> Result:
    late = TimedOut(
        f"The replay took longer than {budget:.0f} s. To replay slow models or many traces, use /api/shadow-tests."
    )
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(work).result(timeout=budget)
    except (TimeoutError, OutOfTime):
        raise late from None
    except DiffDoesNotApply:
        raise
    except Ungradable as refused:
        raise Conflict(refused.message) from None
    except ModelError as refused:
        if isinstance(refused, ModelUnavailable) and refused.slow:
            raise late from None
        raise UpstreamFailed(refused.message) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
