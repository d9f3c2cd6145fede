"""Traces: one answer of an agent with everything that was frozen around it, so that it can be replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from fixloop import times
from fixloop.ranges import Offset, Since, Until, not_before, whole_second
from fixloop.shapes import Time
from fixloop.thinkhive import PageQuery

Outcome = Literal["success", "failure"]
Role = Literal["user", "assistant", "system", "tool"]
Flag = Literal["hallucination", "policy_violation", "tone_issue", "retrieval_miss", "error"]
SpanType = Literal["LLM", "Retrieval", "Tool", "Chain"]
Text = Annotated[str, StringConstraints(max_length=1_048_576)]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=255)]

MAX_SPANS = 5_000
MAX_CONTEXT = 1_000
_ALIASED = ConfigDict(alias_generator=to_camel, populate_by_name=True)
_OUTCOMES = {
    "resolved": "success",
    "partially_resolved": "success",
    "failed": "failure",
    "escalated": "failure",
    "abandoned": "failure",
    "pending": None,
}
_ROLES: dict[str, Role] = {
    "user": "user",
    "human": "user",
    "caller": "user",
    "customer": "user",
    "assistant": "assistant",
    "agent": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
}
_SPAN_TYPES: dict[str, SpanType] = {
    "llm": "LLM",
    "chat": "LLM",
    "completion": "LLM",
    "generation": "LLM",
    "retrieval": "Retrieval",
    "retriever": "Retrieval",
    "reranker": "Retrieval",
    "tool": "Tool",
    "function": "Tool",
}


def is_agent(role: Any) -> bool:
    """Whether a transcript's row of this role is a turn of the agent, by whatever name."""
    return _ROLES.get(str(role or "").lower()) == "assistant"


class Message(BaseModel):
    """One turn of a conversation. Roles in other spellings ("agent", "human", "developer") are taken as these four."""

    role: Role
    content: str

    @field_validator("role", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return _ROLES.get(value.lower(), value) if isinstance(value, str) else value

    @field_validator("content", mode="before")
    @classmethod
    def _said(cls, value: Any) -> Any:
        return value if isinstance(value, str) else said(value)


class Document(BaseModel):
    """A piece of what the agent was given to answer from: a retrieved text, or what a tool returned."""

    id: Ref
    text: Text
    kind: Literal["retrieval", "tool"] = "retrieval"


class Parameters(BaseModel):
    """How a model was, or is to be, asked; None leaves it to the model."""

    model_config = _ALIASED

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Tokens(BaseModel):
    """Token counts of a span; `total` is the sum when it is not given."""

    input: Annotated[int, Field(ge=0)] = 0
    output: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _summed(self) -> Tokens:
        self.total = self.total or self.input + self.output
        return self


class Span(BaseModel):
    """One step of an agent's work, as ThinkHive's bodies and (once read) OTLP spans describe it. Times in ms.

    `input` and `output` hold text, messages or documents in the shape they came in; `id` is set where the source has
    one.
    """

    model_config = _ALIASED

    id: str | None = None
    parent_id: str | None = None
    name: Annotated[str, StringConstraints(max_length=1024)] = ""
    type: SpanType = "Chain"
    start_time: int | None = None
    end_time: int | None = None
    input: Any = None
    output: Any = None
    model: Annotated[str, StringConstraints(max_length=512)] | None = None
    tokens: Tokens | None = None
    metadata: dict[str, Any] = {}

    @field_validator("type", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return _SPAN_TYPES.get(value.lower(), "Chain") if isinstance(value, str) else value

    @field_validator("start_time", "end_time", mode="before")
    @classmethod
    def _at(cls, value: Any) -> Any:
        return instant(value)

    @field_validator("metadata", mode="before")
    @classmethod
    def _noted(cls, value: Any) -> Any:
        return {} if value is None else value


class Trace(BaseModel):
    """What a replay needs of one recorded answer. Times in ms; `turn_index` counts the rows of the transcript."""

    id: str
    agent_id: str
    agent_version: int | None = None
    system_prompt: str = ""
    history: list[Message] = []
    user_message: str
    context: list[Document] = []
    model: str | None = None
    parameters: Parameters = Parameters()
    recorded_response: str
    reference: str | None = None
    outcome: Outcome | None = None
    latency_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    token_count: int | None = None
    metadata: dict[str, Any] = {}
    created_at: int
    call_id: int | None = None
    turn_index: int | None = None
    session_id: str | None = None
    user_intent: str | None = None
    custom_flags: list[Flag] = []
    business_context: Any = None
    spans: list[Span] = []


class TraceIn(BaseModel):
    """The body of `POST /api/traces` in either published form, and fixloop's own keys; unknown keys are ignored.

    The SDK form has `userMessage` and `agentResponse`; the spans form has `spans`, of which the last LLM span that
    answered is the answer. Where both are there the SDK's fields win and the spans fill in what they leave open.
    """

    model_config = ConfigDict(
        **_ALIASED,
        json_schema_extra={
            "anyOf": [
                {"required": ["userMessage", "agentResponse"]},
                {"required": ["spans"], "properties": {"spans": {"minItems": 1}}},
            ]
        },
    )

    agent_id: Ref
    user_message: Text | None = None
    agent_response: Text | None = None
    user_intent: Annotated[str, StringConstraints(max_length=1024)] | None = None
    outcome: Outcome | None = None
    custom_flags: Annotated[list[Flag], Field(max_length=5)] = []
    duration: Annotated[float, Field(ge=0, le=10**12, allow_inf_nan=False)] | None = None
    session_id: Annotated[str, StringConstraints(max_length=255)] | None = None
    conversation_history: Annotated[list[Message], Field(max_length=MAX_SPANS)] = []
    spans: Annotated[list[Span], Field(max_length=MAX_SPANS)] = []
    business_context: Any = None
    metadata: dict[str, Any] = {}
    run_evaluation: bool | None = None
    system_prompt: Text | None = None
    context: Annotated[list[Document], Field(max_length=MAX_CONTEXT)] = []
    model: Annotated[str, StringConstraints(max_length=512)] | None = None
    parameters: Parameters = Parameters()
    reference: Text | None = None
    agent_version: Annotated[int, Field(ge=1)] | None = None

    @field_validator("outcome", mode="before")
    @classmethod
    def _ended(cls, value: Any) -> Any:
        return _OUTCOMES.get(value, value) if isinstance(value, str) else value

    @field_validator("metadata", "parameters", mode="before")
    @classmethod
    def _or_nothing(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("custom_flags", "conversation_history", "spans", "context", mode="before")
    @classmethod
    def _or_none(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("context")
    @classmethod
    def _told_apart(cls, value: list[Document]) -> list[Document]:
        if len({document.id for document in value}) < len(value):
            raise ValueError("must have a different id for each document")
        return value

    @model_validator(mode="after")
    def _answered(self) -> TraceIn:
        if self.spans and (self.user_message is None or self.agent_response is None):
            read = _read(self.spans)
            if self.agent_response is None and not read.response:
                raise ValueError("spans must have one of type LLM with an output, unless there is an agentResponse")
            if self.user_message is None and not read.question:
                raise ValueError("spans must have one of type LLM with an input, unless there is a userMessage")
            return self
        missing = [name for name in ("userMessage", "agentResponse") if getattr(self, _SNAKE[name]) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)} must be given, unless there are spans")
        return self


class TraceQuery(PageQuery):
    """The filters of `GET /api/traces`; `limit` and `offset` are taken as well as `page`. Dates are on `createdAt`,
    which is shown in whole seconds: an `endDate` in whole seconds takes in all of its second.
    """

    agentId: Ref | None = None  # noqa: N815 - the wire's name
    outcome: Outcome | None = None
    startDate: Since = None  # noqa: N815
    endDate: Annotated[Until, AfterValidator(whole_second), not_before("startDate")] = None  # noqa: N815
    offset: Offset | None = None

    @property
    def start(self) -> int:
        return super().start if self.offset is None else self.offset


_SNAKE = {"userMessage": "user_message", "agentResponse": "agent_response"}


def received(trace_id: str, given: TraceIn, now: int) -> Trace:
    """The trace that the body of `POST /api/traces` describes."""
    read = _read(given.spans)
    question = given.user_message if given.user_message is not None else read.question
    instructions = [m.content for m in given.conversation_history if m.role == "system"]
    history = [m for m in given.conversation_history if m.role != "system"]
    if history and history[-1].role == "user" and history[-1].content.strip() == question.strip():
        history.pop()
    latency = round(given.duration) if given.duration is not None else read.latency_ms
    return Trace(
        id=trace_id,
        agent_id=given.agent_id,
        agent_version=given.agent_version,
        system_prompt=given.system_prompt
        if given.system_prompt is not None
        else "\n\n".join(instructions) or read.system,
        history=history if given.conversation_history else read.history,
        user_message=question,
        context=_numbered([*given.context, *read.context]),
        model=given.model or read.model,
        parameters=given.parameters if given.parameters != Parameters() else read.parameters,
        recorded_response=given.agent_response if given.agent_response is not None else read.response,
        reference=given.reference,
        outcome=given.outcome,
        latency_ms=latency,
        input_tokens=read.input_tokens,
        output_tokens=read.output_tokens,
        token_count=read.total_tokens,
        metadata=given.metadata,
        created_at=now,
        session_id=given.session_id,
        user_intent=given.user_intent,
        custom_flags=given.custom_flags,
        business_context=given.business_context,
        spans=given.spans,
    )


def of_spans(
    trace_id: str, agent_id: str, spans: Sequence[Span], now: int, metadata: Mapping[str, Any] | None = None
) -> Trace | None:
    """The trace that a set of spans amounts to, or None as long as no span holds an answer.

    An exporter may send a trace in several batches: hand in those of `trace.spans` and the new ones `joined`.
    """
    read = _read(spans)
    if not read.response:
        return None
    return Trace(
        id=trace_id,
        agent_id=agent_id,
        system_prompt=read.system,
        history=read.history,
        user_message=read.question,
        context=_numbered(read.context),
        model=read.model,
        parameters=read.parameters,
        recorded_response=read.response,
        latency_ms=read.latency_ms,
        input_tokens=read.input_tokens,
        output_tokens=read.output_tokens,
        token_count=read.total_tokens,
        outcome="failure" if any(span.metadata.get("error") for span in spans if span.parent_id is None) else None,
        metadata=dict(metadata or {}),
        created_at=min((span.start_time for span in spans if span.start_time is not None), default=now),
        session_id=next(
            (
                str(s)
                for span in spans
                if (s := span.metadata.get("session.id") or span.metadata.get("gen_ai.conversation.id"))
            ),
            None,
        ),
        spans=list(spans),
    )


def joined(before: Iterable[Span], new: Iterable[Span]) -> list[Span]:
    """Two batches of one trace's spans as one, each span once, in the order of their start."""
    by_id: dict[str, Span] = {}
    for at, span in enumerate([*before, *new]):
        by_id[span.id or f"#{at}"] = span
    return sorted(by_id.values(), key=lambda span: (span.start_time or 0, span.id or ""))


def id_of_turn(org: str, call_id: int, turn_index: int) -> str:
    """The id of the trace of one agent turn: the same whenever, and however often, it is asked for."""
    return _derived("call", org, str(call_id), str(turn_index))


def id_of_otlp(org: str, otlp_trace_id: str) -> str:
    """The id of the trace that an OpenTelemetry trace id (32 hex digits) becomes."""
    return _derived("otlp", org, otlp_trace_id)


def _derived(*parts: str) -> str:
    return "tr_" + hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def of_call(
    org: str,
    call_id: int,
    body: Mapping[str, Any],
    *,
    agent_id: str,
    created_at: int,
    agent_version: int | None = None,
    model: str | None = None,
    parameters: Parameters | None = None,
    outcome: Outcome | None = None,
) -> list[Trace]:
    """A trace for every agent turn of a call's transcript; `body` as `calls.Call` keeps it, `created_at` its start.

    The user message is what the caller said last before the turn; everything said earlier (and what the agent put in
    between, such as "let me check") is the history. What tools returned before the turn is context. A turn before the
    caller said anything has an empty user message.
    """
    rows = [row for row in body.get("transcripts") or [] if isinstance(row, Mapping)]
    prompt = str(body.get("prompt_snapshot") or "")
    traces: list[Trace] = []
    talk: list[Message] = []
    tools: list[Document] = []
    for index, row in enumerate(rows):
        role = _ROLES.get(str(row.get("role") or "").lower())
        content = row.get("content")
        if role == "tool":
            name = (
                row.get("name")
                or row.get("tool_name")
                or (content.get("name") if isinstance(content, Mapping) else None)
            )
            tools.append(
                Document(
                    id=f"tool:{str(name)[:200]}:{index}" if name else f"tool:{index}", text=said(content), kind="tool"
                )
            )
        if role not in ("user", "assistant"):
            continue
        text = said(content)
        if role == "assistant":
            asked = _last_asked(talk)
            started, ended = row.get("start_ms"), row.get("end_ms")
            traces.append(
                Trace(
                    id=id_of_turn(org, call_id, index),
                    agent_id=agent_id,
                    agent_version=agent_version,
                    system_prompt=prompt,
                    history=[m for at, m in enumerate(talk) if at not in asked],
                    user_message="\n".join(talk[at].content for at in asked),
                    context=_numbered(tools),
                    model=model,
                    parameters=parameters or Parameters(),
                    recorded_response=text,
                    outcome=outcome,
                    latency_ms=_waited(rows, index),
                    created_at=created_at + (ended or started or 0),
                    call_id=call_id,
                    turn_index=index,
                )
            )
        talk.append(Message(role=role, content=text))
    return traces


def _last_asked(talk: Sequence[Message]) -> list[int]:
    """The positions of the caller's last words: of the last run of user messages."""
    end = len(talk)
    while end and talk[end - 1].role != "user":
        end -= 1
    start = end
    while start and talk[start - 1].role == "user":
        start -= 1
    return list(range(start, end))


def _waited(rows: Sequence[Mapping[str, Any]], index: int) -> int | None:
    """How long the caller waited for the turn at `index`, in ms, where the transcript has times."""
    started = rows[index].get("start_ms")
    before = next(
        (row.get("end_ms") for row in reversed(rows[:index]) if _ROLES.get(str(row.get("role")).lower()) == "user"),
        None,
    )
    return max(0, started - before) if isinstance(started, int) and isinstance(before, int) else None


def instant(value: Any) -> int | None:
    """ISO 8601 text, or a number of seconds, ms, µs or ns since 1970 (told apart by size), in ms. Raises ValueError."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and not value.isdigit():
        try:
            return times.parse(value)
        except ValueError:
            raise ValueError("must be an ISO 8601 date or a number of ms") from None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be an ISO 8601 date or a number of ms")
    number = float(value)
    if not 0 <= number < 1e20:
        raise ValueError("must be an ISO 8601 date or a number of ms")
    for over, scale in ((1e17, 1e6), (1e14, 1e3), (1e11, 1.0)):
        if number >= over:
            return int(int(value) // int(scale))
    return int(number * 1000)


def said(value: Any) -> str:
    """What a value of unknown shape says: text as it is, content parts joined, anything else as compact JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for key in ("content", "text", "output", "response", "answer", "message", "parts"):
            inner = value.get(key)
            if isinstance(inner, str) or (
                isinstance(inner, Mapping | list) and inner and key in ("content", "message", "parts")
            ):
                return said(inner)
    if isinstance(value, list) and value and all(isinstance(part, str) or _is_part(part) for part in value):
        return "\n".join(text for part in value if (text := said(part)))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(part.get(key), str) for key in ("content", "text"))


class _Reading(BaseModel):
    """What a set of spans tells of one answer."""

    system: str = ""
    history: list[Message] = []
    question: str = ""
    response: str = ""
    context: list[Document] = []
    model: str | None = None
    parameters: Parameters = Parameters()
    latency_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


def _read(spans: Sequence[Span]) -> _Reading:
    read = _Reading()
    if not spans:
        return read
    timed = sorted(enumerate(spans), key=lambda pair: (pair[1].end_time or pair[1].start_time or 0, pair[0]))
    ordered = [span for _, span in timed]
    asked = [span for span in ordered if span.type == "LLM"]
    answers = [span for span in asked if answer_of(span.output)]
    roots = [span for span in ordered if span.type == "Chain" and span.parent_id is None]
    answer = answers[-1] if answers else next((root for root in reversed(roots) if answer_of(root.output)), None)
    if answer is not None:
        read.response = answer_of(answer.output)
        read.model = answer.model
        messages = messages_of(answer.input)
        read.system = "\n\n".join(m.content for m in messages if m.role == "system")
        talk = [m for m in messages if m.role in ("user", "assistant") and m.content]
        positions = _last_asked(talk)
        read.question = "\n".join(talk[at].content for at in positions)
        read.history = [m for at, m in enumerate(talk) if at not in positions]
        read.context = [
            Document(id=f"tool:{at}", text=m.content, kind="tool")
            for at, m in enumerate(messages)
            if m.role == "tool" and m.content
        ]
        given = answer.metadata.get("parameters")
        if isinstance(given, Mapping):
            read.parameters = _parameters(given)
    if not read.question:
        read.question = next((q for root in roots if (q := _asked(root.input))), "")
    latest = answer.end_time or answer.start_time if answer else None
    for span in ordered:
        if span is answer or span.type not in ("Retrieval", "Tool"):
            continue
        if latest is not None and span.start_time is not None and span.start_time > latest:
            continue
        known = {document.text for document in read.context}
        read.context += [d for d in documents_of(span) if d.text not in known]
    starts = [span.start_time for span in spans if span.start_time is not None]
    ends = [span.end_time for span in spans if span.end_time is not None]
    if starts and ends:
        read.latency_ms = max(0, max(ends) - min(starts))
    counted = [span.tokens for span in asked if span.tokens]
    if counted:
        read.input_tokens = sum(tokens.input for tokens in counted)
        read.output_tokens = sum(tokens.output for tokens in counted)
        read.total_tokens = sum(tokens.total for tokens in counted)
    return read


def _parameters(given: Mapping[str, Any]) -> Parameters:
    """Those of the recorded parameters that make sense; a recording is not refused for an odd one."""
    kept: dict[str, Any] = {}
    for name, value in given.items():
        try:
            Parameters.model_validate({name: value})
        except ValueError:
            continue
        kept[name] = value
    return Parameters.model_validate(kept)


def _asked(value: Any) -> str:
    messages = [m for m in messages_of(value) if m.role == "user" and m.content]
    return messages[-1].content if messages else ""


def messages_of(value: Any) -> list[Message]:
    """The messages in a span's input, whatever its shape: text is one user message."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in "[{":
            try:
                return messages_of(json.loads(text))
            except (ValueError, RecursionError):
                pass
        return [Message(role="user", content=value)] if text else []
    if isinstance(value, Mapping):
        if "role" in value:
            return messages_of([value])
        for key in ("messages", "conversation", "input", "prompt", "question", "query"):
            if value.get(key):
                system = value.get("system")
                return [*([Message(role="system", content=said(system))] if system else []), *messages_of(value[key])]
        return [Message(role="user", content=said(value))] if value else []
    if not isinstance(value, list):
        return []
    return [message for entry in value for message in _messages(entry)]


_UNSPOKEN = frozenset({"tool_call", "tool_use", "reasoning", "thinking"})


def _messages(entry: Any) -> list[Message]:
    """What one element of a list of messages says: nothing for a mere tool call, a tool's words for its response."""
    if isinstance(entry, str):
        return [Message(role="user", content=entry)]
    if not isinstance(entry, Mapping):
        return []
    inner = entry.get("message")
    message = inner if isinstance(inner, Mapping) else entry
    role: Role = _ROLES.get(str(message.get("role", "user")).lower(), "user")
    content = message.get("content", message.get("parts", message.get("text")))
    if not isinstance(content, list):
        return [Message(role=role, content=said(content))]
    parts = [part for part in content if not (isinstance(part, Mapping) and part.get("type") in _UNSPOKEN)]
    returned = [p for p in parts if isinstance(p, Mapping) and p.get("type") == "tool_call_response"]
    if returned:
        return [Message(role="tool", content=said(part.get("response", part.get("result")))) for part in returned]
    return [Message(role=role, content=said(parts))] if parts else []


def answer_of(value: Any) -> str:
    """The answer in an LLM span's output: text, a message, messages, or a provider's `choices`."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("choices"), list):
        value = value["choices"]
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list):
        spoken = [m.content for m in messages_of(value) if m.role != "tool" and m.content]
        return spoken[-1] if spoken else ""
    return said(value) if value else ""


def documents_of(span: Span) -> list[Document]:
    """What a Retrieval or Tool span brought, as context."""
    kind: Literal["retrieval", "tool"] = "tool" if span.type == "Tool" else "retrieval"
    name = (span.name or span.type.lower())[:200]
    output = span.output
    if isinstance(output, str) and output.strip()[:1] in "[{":
        try:
            output = json.loads(output)
        except (ValueError, RecursionError):
            output = span.output
    if isinstance(output, Mapping) and isinstance(output.get("documents"), list):
        output = output["documents"]
    if kind == "retrieval" and isinstance(output, list):
        return [found for at, entry in enumerate(output[:MAX_CONTEXT]) if (found := _document(entry, f"{name}:{at}"))]
    text = span.output if isinstance(span.output, str) else said(output)
    return [Document(id=name, text=text, kind=kind)] if text else []


def _document(entry: Any, name: str) -> Document | None:
    """One retrieved document, by whatever names a retriever gives its parts."""
    if isinstance(entry, Mapping) and isinstance(entry.get("document"), Mapping | str):
        entry = entry["document"]
    ref, text = None, None
    if isinstance(entry, Mapping):
        ref = next(
            (entry[key] for key in ("id", "document_id", "documentId") if entry.get(key) not in (None, "")), None
        )
        told = (entry.get(key) for key in ("text", "content", "page_content", "body"))
        text = next((one for one in told if isinstance(one, str)), None)
    text = said(entry) if text is None else text
    return Document(id=str(name if ref is None else ref)[:255], text=text) if text else None


def _numbered(documents: Iterable[Document]) -> list[Document]:
    """Documents with ids that differ: a second one of a name gets a number behind it."""
    seen: set[str] = set()
    out: list[Document] = []
    for document in documents:
        name, number = document.id, 2
        while name in seen:
            name, number = f"{document.id[:240]}#{number}", number + 1
        seen.add(name)
        out.append(document if name == document.id else document.model_copy(update={"id": name}))
    return out


class TraceListed(TypedDict):
    id: str
    agentId: str
    outcome: Outcome | None
    userMessage: str
    agentResponse: str
    latencyMs: int | None
    tokenCount: int | None
    createdAt: Time


class _Shown(TraceListed):
    traceId: str
    companyId: str | None
    spanCount: int
    userIntent: str | None
    customFlags: list[Flag]
    duration: int | None
    sessionId: str | None
    businessContext: Any
    metadata: dict[str, Any]


class TraceCreated(_Shown):
    """The union of what the two published ways of creating a trace answer."""

    ingested: bool
    _evaluationQueued: bool


class SpanShown(TypedDict):
    id: NotRequired[str]
    parentId: NotRequired[str]
    name: str
    type: SpanType
    startTime: NotRequired[Time]
    endTime: NotRequired[Time]
    input: NotRequired[Any]
    output: NotRequired[Any]
    model: NotRequired[str]
    tokens: NotRequired[dict[str, int]]
    metadata: dict[str, Any]


class MessageShown(TypedDict):
    role: Role
    content: str


class DocumentShown(TypedDict):
    id: str
    text: str
    kind: Literal["retrieval", "tool"]


class TraceShown(_Shown):
    """As in a list, then what today's clients read, then what is ours."""

    conversationHistory: list[MessageShown]
    spans: list[SpanShown]
    systemPrompt: str
    context: list[DocumentShown]
    model: str | None
    parameters: dict[str, Any]
    reference: str | None
    agentVersion: int | None
    callId: int | None
    turnIndex: int | None


def created(trace: Trace, company_id: str | None = None, *, evaluation_queued: bool = False) -> TraceCreated:
    told = {
        "id": trace.id,
        "traceId": trace.id,
        "agentId": trace.agent_id,
        "companyId": company_id,
        "spanCount": len(trace.spans),
        "ingested": True,
        **{key: value for key, value in _body(trace).items() if key not in ("id", "agentId", "spans")},
        "_evaluationQueued": evaluation_queued,
    }
    return cast(TraceCreated, told)


def listed(trace: Trace) -> TraceListed:
    """The trace in a list."""
    return {
        "id": trace.id,
        "agentId": trace.agent_id,
        "outcome": trace.outcome,
        "userMessage": trace.user_message,
        "agentResponse": trace.recorded_response,
        "latencyMs": trace.latency_ms,
        "tokenCount": trace.token_count,
        "createdAt": times.iso_s(trace.created_at),
    }


def detailed(trace: Trace, company_id: str | None = None) -> TraceShown:
    told = {
        **_body(trace),
        "traceId": trace.id,
        "companyId": company_id,
        "spanCount": len(trace.spans),
        "conversationHistory": [message.model_dump() for message in trace.history],
        "spans": [_shown(span) for span in trace.spans],
        "systemPrompt": trace.system_prompt,
        "context": [document.model_dump() for document in trace.context],
        "model": trace.model,
        "parameters": trace.parameters.model_dump(by_alias=True, exclude_none=True),
        "reference": trace.reference,
        "agentVersion": trace.agent_version,
        "callId": trace.call_id,
        "turnIndex": trace.turn_index,
    }
    return cast(TraceShown, told)


def _body(trace: Trace) -> dict[str, Any]:
    return {
        **listed(trace),
        "userIntent": trace.user_intent,
        "customFlags": trace.custom_flags,
        "duration": trace.latency_ms,
        "sessionId": trace.session_id,
        "businessContext": trace.business_context,
        "metadata": trace.metadata,
    }


def _shown(span: Span) -> dict[str, Any]:
    shown = span.model_dump(by_alias=True, exclude_none=True)
    for name in ("startTime", "endTime"):
        if name in shown:
            shown[name] = times.iso_ms(shown[name])
    return shown
