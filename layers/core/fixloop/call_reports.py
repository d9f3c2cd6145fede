"""Call reports as GoMobile describes them: the attempts of a call job, what each did and cost, where the job stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    with_config,
)
from typing_extensions import TypedDict

from fixloop import times
from fixloop.calls import Number
from fixloop.errors import Invalid
from fixloop.exact import Exact, Written, dumps
from fixloop.ranges import instant
from fixloop.shapes import Time

MAX_ATTEMPTS = 200
MAX_RETRIES = 100
MAX_DELAY_MS = 30 * 24 * 3600 * 1000
KEPT_MS = 7 * 24 * 3600 * 1000  # how long a job is known after its last planned attempt; its attempts stay
ANSWER_BYTES = 5_500_000  # of an answer as Lambda sends it, which has 6 MB in all

JobStatus = Literal["queued", "active", "completed", "failed"]
Unit = Literal["second", "minute", "flat"]

_IDENTIFIER = r"^[A-Za-z0-9_.:@+-]{1,128}$"
_TAG = re.compile(r"^retry\.(none|fixed-delay|scheduled)\.")
_CLOSED = ConfigDict(extra="forbid")
_MILLIONTH = Decimal("0.000001")
_PRECISION = Context(prec=60)
_UNIT_MS: dict[Unit, int] = {"second": 1000, "minute": 60_000}

FINAL = frozenset({"completed", "voicemail", "no_answer", "busy", "rejected", "failed", "cancelled"})
RETRIED = frozenset({"no_answer", "busy", "rejected", "failed"})
_LIVE = frozenset(
    {"queued", "initiated", "dialing", "dialling", "ringing", "answered", "in_progress", "active", "pending"}
)


def is_identifier(text: str) -> bool:
    """Whether `text` can be the id of a job or a call: a UUID, or what else telephony systems use."""
    return re.fullmatch(_IDENTIFIER, text) is not None


def _dated(value: str) -> str:
    instant(value)
    return value


Id = Annotated[str, StringConstraints(pattern=_IDENTIFIER)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Label = Annotated[str, StringConstraints(max_length=1000)]
Moment = Annotated[Time, AfterValidator(_dated)]
Amount = Annotated[float, Field(ge=0, le=10**12)]
Milliseconds = Annotated[float, Field(ge=0, le=10**12)]
Whole = Annotated[int, Field(ge=0, le=2**53)]

_Numbers = TypedDict("_Numbers", {"from": Number, "to": Number})


@with_config(_CLOSED)
class CallDetails(_Numbers):
    status: Word
    direction: Literal["inbound", "outbound"]
    createdAt: Moment  # noqa: N815 - the wire's names, here and below
    dialedAt: NotRequired[Moment]  # noqa: N815
    answeredAt: NotRequired[Moment]  # noqa: N815
    terminatedAt: NotRequired[Moment]  # noqa: N815
    durationMs: NotRequired[Milliseconds]  # noqa: N815


@with_config(_CLOSED)
class NodeExecution(TypedDict):
    """One step of the flow; `outputPath` is the way out it took."""

    nodeId: Key
    nodeType: Word
    nodeLabel: NotRequired[Label]
    outputPath: NotRequired[Key]
    timestamp: Moment


@with_config(_CLOSED)
class FlowExecution(TypedDict):
    flowId: Key
    flowName: Label
    flowVersion: Whole
    executionPath: list[NodeExecution]
    finalVariables: dict[str, str | int | float | bool | None]
    nodeExecutionCount: Whole
    flowStartedAt: NotRequired[Moment]
    flowCompletedAt: NotRequired[Moment]


@with_config(_CLOSED)
class CallEvent(TypedDict):
    """One entry of the timeline. `data` is whatever belongs to the type, `nodeContext` among it."""

    type: Word
    timestamp: Moment
    data: dict[str, Any]


class _NodeCost(TypedDict):
    nodeId: Key
    nodeType: Word
    durationMs: Milliseconds | None
    costPerUnit: Amount
    unit: Unit
    minDurationMs: Milliseconds | None


@with_config(_CLOSED)
class NodeCostIn(_NodeCost):
    """What a node cost; `cost` is worked out where it is not given."""

    cost: NotRequired[Amount]


class NodeCost(_NodeCost):
    cost: float


@with_config(_CLOSED)
class BillingIn(TypedDict):
    nodes: list[NodeCostIn]
    totalCost: NotRequired[Amount]


class Billing(TypedDict):
    nodes: list[NodeCost]
    totalCost: float


class AttemptIn(BaseModel):
    """The body of `PUT /call-report/{jobId}/attempts/{attempt}`, which is fixloop's own: a report as it will be shown.

    Other keys are refused. Null stands for an absent optional key.
    """

    model_config = _CLOSED

    callId: Id  # noqa: N815
    attempt: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    programId: Key | None = None  # noqa: N815
    programExecutionId: Key | None = None  # noqa: N815
    contactId: Key | None = None  # noqa: N815
    call: CallDetails
    outcome: Word | None = None
    outcomeReason: Annotated[str, StringConstraints(max_length=20_000)] | None = None  # noqa: N815
    flowExecution: FlowExecution | None = None  # noqa: N815
    billing: BillingIn | None = None
    events: list[CallEvent] = []


class CallAttemptReport(TypedDict):
    """One attempt: `GET /call-report/call/{callId}`. Optional keys are absent, never null."""

    callId: str
    attempt: int
    programId: NotRequired[str]
    programExecutionId: NotRequired[str]
    contactId: NotRequired[str]
    call: CallDetails
    outcome: str
    outcomeReason: NotRequired[str]
    flowExecution: NotRequired[FlowExecution]
    billing: NotRequired[Billing]
    events: list[CallEvent]


class JobReport(TypedDict):
    """All attempts of a job: `GET /call-report/{jobId}`."""

    jobId: str
    status: JobStatus
    finalOutcome: NotRequired[str]
    attempts: list[CallAttemptReport]


class ReportElsewhere(TypedDict):
    """What stands in for a report that is too large for one answer: `Location` says where it lies."""

    statusCode: int
    message: str


_OPTIONAL = frozenset(name for name, field in AttemptIn.model_fields.items() if not field.is_required())
_REPORTED = tuple(CallAttemptReport.__annotations__)
_NODE_COST = ("nodeId", "nodeType", "durationMs", "cost", "costPerUnit", "unit", "minDurationMs")


def present(given: Any) -> Any:
    """A report without the nulls of its optional keys. What is not of the form stays, for the model to refuse."""

    def without(some: Any, optional: frozenset[str], **parts: Any) -> Any:
        if not isinstance(some, dict):
            return some
        left = {name: value for name, value in some.items() if value is not None or name not in optional}
        return left | {name: clean(left[name]) for name, clean in parts.items() if name in left}

    def each(some: Any, optional: frozenset[str]) -> Any:
        return [without(one, optional) for one in some] if isinstance(some, list) else some

    return without(
        given,
        _OPTIONAL,
        call=lambda call: without(call, CallDetails.__optional_keys__),
        flowExecution=lambda flow: without(
            flow,
            FlowExecution.__optional_keys__,
            executionPath=lambda path: each(path, NodeExecution.__optional_keys__),
        ),
        billing=lambda billing: without(
            billing, BillingIn.__optional_keys__, nodes=lambda nodes: each(nodes, NodeCostIn.__optional_keys__)
        ),
    )


@dataclass(frozen=True)
class Attempt:
    """An attempt as it came. `at` is when its call was made, in ms; `text` the report as JSON, with its digits."""

    number: int
    call_id: str
    outcome: str
    live: bool
    at: int
    cost: str | None
    text: str


def attempt(given: dict[str, Any], number: int) -> Attempt:
    """The attempt in a report that `AttemptIn` has passed, without nulls in optional keys. Raises Invalid."""
    call = given["call"]
    if given.get("attempt", number) != number:
        raise Invalid({"attempt": [f"must be {number}, as in the path"]})
    outcome = given.get("outcome") or call["status"]
    live = is_live(call, outcome)
    if "outcome" not in given and not live:
        raise Invalid({"outcome": ["Field required"]})
    report = {**given, "attempt": number, "outcome": outcome, "events": given.get("events", [])}
    if "billing" in given:
        if "completed" not in (plain(outcome), plain(call["status"])):
            raise Invalid({"billing": ["must be there for completed calls only"]})
        report["billing"] = billed(given["billing"])
    try:
        text = dumps({name: report[name] for name in _REPORTED if name in report})
    except ValueError as error:
        raise Invalid(message=f"The report is not valid JSON: {error}.") from None
    return Attempt(
        number=number,
        call_id=given["callId"],
        outcome=outcome,
        live=live,
        at=times.parse(call["createdAt"]),
        cost=_written(report["billing"]["totalCost"]) if "billing" in report else None,
        text=text,
    )


def plain(word: str) -> str:
    """A status or an outcome in one spelling: `no-answer` is `no_answer`."""
    return word.strip().lower().replace("-", "_").replace(" ", "_")


def is_live(call: CallDetails, outcome: str) -> bool:
    """Whether an attempt is still going on: it has no end, no final outcome, and a status that says so."""
    if "terminatedAt" in call or plain(outcome) in FINAL or plain(call["status"]) in FINAL:
        return False
    return plain(call["status"]) in _LIVE or plain(outcome) in _LIVE


# What it cost


def billed(given: BillingIn) -> dict[str, Any]:
    """The billing with every cost in it. Raises Invalid where a given cost is not the one that was to be paid."""
    with localcontext(_PRECISION):
        nodes, total = [], Decimal(0)
        for index, one in enumerate(given["nodes"]):
            node: dict[str, Any] = {**one}
            due = _due(one)
            if "cost" not in node:
                node["cost"] = Exact(_rounded(due))
            elif abs(_decimal(node["cost"]) - due) * 2 > _MILLIONTH:
                raise Invalid({f"billing.nodes.{index}.cost": [f"must be {_rounded(due)}: {_reckoned(one)}"]})
            total += _decimal(node["cost"])
            nodes.append({name: node[name] for name in _NODE_COST if name in node})
        if "totalCost" not in given:
            return {"nodes": nodes, "totalCost": Exact(_rounded(total))}
        if abs(_decimal(given["totalCost"]) - total) * 2 > _MILLIONTH * max(1, len(nodes)):
            raise Invalid({"billing.totalCost": [f"must be {_rounded(total)}, the sum of the nodes' costs"]})
        return {"nodes": nodes, "totalCost": given["totalCost"]}


def _due(node: NodeCostIn) -> Decimal:
    price = _decimal(node["costPerUnit"])
    return price if node["unit"] == "flat" else price * _billed_ms(node) / _UNIT_MS[node["unit"]]


def _billed_ms(node: NodeCostIn) -> Decimal:
    return max(_decimal(node["durationMs"] or 0), _decimal(node["minDurationMs"] or 0))


def _reckoned(node: NodeCostIn) -> str:
    price = f"{_written(node['costPerUnit'])} a {node['unit']}"
    return "a flat price" if node["unit"] == "flat" else f"{price} for {_billed_ms(node):f} ms"


def _written(number: float) -> str:
    return number.text if isinstance(number, Exact) else repr(number)


def _decimal(number: float) -> Decimal:
    return Decimal(_written(number))


def _rounded(amount: Decimal) -> str:
    """To a millionth, without noughts at its end."""
    text = f"{amount.quantize(_MILLIONTH, ROUND_HALF_UP):f}"
    return text.rstrip("0").rstrip(".")


# Where a job stands


@dataclass(frozen=True)
class Kept:
    """An attempt as it is kept, without its report. `revision` changes with the report; times in ms.

    `joined` is the number of the call that the loop has made of it.
    """

    job_id: str
    number: int
    call_id: str
    outcome: str
    live: bool
    at: int
    cost: str | None
    revision: str
    reported: int
    joined: int | None = None

    def outdates(self, given: Attempt, reported: int) -> bool:
        """Whether what is kept is newer than `given`: an end is newer than what came before it, else time tells."""
        return (not self.live, self.reported) > (not given.live, reported)


@dataclass(frozen=True)
class Job:
    """What was asked for by `POST /call-requests`. `most` attempts are planned; `expires` in ms."""

    id: str
    state: Literal["queued", "cancelled", "failed"]
    most: int
    expires: int
    started: bool
    request: dict[str, Any]
    reason: str | None = None


def status(job: Job | None, attempts: Sequence[Kept]) -> JobStatus | None:
    """A job's status from its row, if there is one still, and its attempts in order; None when nothing is known of it.

    Attempts count for more than the row. While the row tells of retries to come the job is active.
    """
    failed = job is not None and job.state == "failed"
    if not attempts:
        return None if job is None or job.state == "cancelled" else "failed" if failed else "queued"
    last = attempts[-1]
    if any(one.live for one in attempts):
        return "active"
    if failed:
        return "failed"
    if job and job.state == "queued" and plain(last.outcome) in RETRIED and last.number < job.most:
        return "active"
    return "completed"


def final_outcome(attempts: Sequence[Kept]) -> str | None:
    """The outcome of the last attempt, once that has ended."""
    return attempts[-1].outcome if attempts and not attempts[-1].live else None


def job_report(job_id: str, state: JobStatus, outcome: str | None, texts: Sequence[str]) -> Written:
    """A `JobReport` as JSON, of attempts that are JSON already."""
    head: dict[str, Any] = {"jobId": job_id, "status": state}
    if outcome is not None:
        head["finalOutcome"] = outcome
    return Written(f'{dumps(head)[:-1]},"attempts":[{",".join(texts)}]}}')


# Asking for calls


class NoRetry(BaseModel):
    model_config = _CLOSED

    type: Literal["none"]


class FixedDelay(BaseModel):
    """`delay` in ms between attempts."""

    model_config = _CLOSED

    type: Literal["fixed-delay"]
    delay: Annotated[int, Field(ge=1, le=MAX_DELAY_MS)]
    maxRetries: Annotated[int, Field(ge=1, le=MAX_RETRIES)]  # noqa: N815


class Scheduled(BaseModel):
    """An attempt more at each of the dates, as long as none has succeeded."""

    model_config = _CLOSED

    type: Literal["scheduled"]
    dates: Annotated[list[Moment], Field(min_length=1, max_length=MAX_RETRIES)]


Retry = Annotated[NoRetry | FixedDelay | Scheduled, Field(discriminator="type")]


class CallRequestIn(BaseModel):
    """The body of `POST /call-requests`; other keys are refused. The caller's number is named in one of two ways."""

    model_config = _CLOSED

    didId: Key | None = None  # noqa: N815
    fromNumber: Annotated[Number, StringConstraints(min_length=1)] | None = Field(default=None, validate_default=True)  # noqa: N815
    contactId: Key  # noqa: N815
    flowId: Key  # noqa: N815
    retry: Retry
    startAt: Moment | None = None  # noqa: N815

    @field_validator("fromNumber")
    @classmethod
    def _named_once(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("didId", "") is None:
            raise ValueError("Field required, unless there is a didId")
        if value is not None and info.data.get("didId") is not None:
            raise ValueError("must not be there together with a didId")
        return value


class CallRequested(TypedDict):
    jobId: str
    status: Literal["queued"]


class InvalidCallRequest(Invalid):
    """A missing field, or one of the wrong form."""

    code = "invalid_call_request"


class InvalidRetryStrategy(Invalid):
    """A retry strategy that cannot be followed."""

    code = "invalid_retry_strategy"


class InvalidStartTime(Invalid):
    """A start that is in the past."""

    code = "invalid_start_time"


def refused(error: Invalid) -> Invalid:
    """The error by the name that this API has for it."""
    fields = {_TAG.sub("retry.", name): messages for name, messages in error.fields.items()}
    if fields and all(_of_strategy(name, messages) for name, messages in fields.items()):
        return InvalidRetryStrategy(fields)
    return InvalidCallRequest(fields, None if fields else error.message)


def _of_strategy(name: str, messages: list[str]) -> bool:
    return name.startswith("retry.") or (name == "retry" and messages != ["Field required"])


def job(job_id: str, given: CallRequestIn, now: int) -> Job:
    """The job that was asked for. Raises InvalidStartTime and InvalidRetryStrategy for what lies in the past."""
    start = times.parse(given.startAt) if given.startAt else now
    if start < now:
        raise InvalidStartTime({"startAt": ["must not be in the past"]})
    most, end = _planned(given.retry, start)
    return Job(
        id=job_id,
        state="queued",
        most=most,
        expires=min(end + KEPT_MS, times.LAST),
        started=False,
        request=given.model_dump(exclude_none=True),
    )


def _planned(retry: NoRetry | FixedDelay | Scheduled, start: int) -> tuple[int, int]:
    """How many attempts there are at most, and when the last one is due."""
    match retry:
        case NoRetry():
            return 1, start
        case FixedDelay():
            return 1 + retry.maxRetries, start + retry.maxRetries * retry.delay
    due = [times.parse(date) for date in retry.dates]
    for index, at in enumerate(due):
        if at <= start:
            raise InvalidRetryStrategy({f"retry.dates.{index}": ["must be after the first attempt"]})
        if at in due[:index]:
            raise InvalidRetryStrategy({f"retry.dates.{index}": ["must not be there twice"]})
    return 1 + len(due), max(due)
