"""OpenTelemetry traces as exporters send them (OTLP over HTTP, JSON or protobuf), read into spans.

Understood: the GenAI semantic conventions, old (`gen_ai.prompt.0.content`, `gen_ai.user.message` events) and new
(`gen_ai.input.messages`), and OpenInference (`llm.input_messages.0.message.content`, `input.value`).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import TypedDict

from fixloop.errors import Invalid
from fixloop.traces import MAX_SPANS, Span, SpanType, Tokens

MAX_DEPTH = 32


class Export(TypedDict, total=False):
    """An `ExportTraceServiceRequest` of opentelemetry-proto 1.x."""

    resourceSpans: list[dict[str, Any]]


class Exported(TypedDict):
    """An `ExportTraceServiceResponse`; what cannot be taken is a 400, so there is no partial success."""

    partialSuccess: dict[str, Any]


@dataclass
class OtlpTrace:
    """The spans of one OpenTelemetry trace in one export: its id in 32 hex digits, the agent as its resource says."""

    trace_id: str
    agent: str
    spans: list[Span] = field(default_factory=list)


# What a message's fields are called and how they are read: another message, a string, bytes, or a kind of number.
# A `*` in front says that the field repeats. As in opentelemetry-proto 1.x.
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Request": {1: ("resourceSpans", "*ResourceSpans")},
    "ResourceSpans": {1: ("resource", "Resource"), 2: ("scopeSpans", "*ScopeSpans"), 3: ("schemaUrl", "string")},
    "Resource": {1: ("attributes", "*KeyValue"), 2: ("droppedAttributesCount", "uint")},
    "ScopeSpans": {1: ("scope", "Scope"), 2: ("spans", "*Span"), 3: ("schemaUrl", "string")},
    "Scope": {
        1: ("name", "string"),
        2: ("version", "string"),
        3: ("attributes", "*KeyValue"),
        4: ("droppedAttributesCount", "uint"),
    },
    "Span": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "string"),
        4: ("parentSpanId", "hex"),
        5: ("name", "string"),
        6: ("kind", "uint"),
        7: ("startTimeUnixNano", "fixed64"),
        8: ("endTimeUnixNano", "fixed64"),
        9: ("attributes", "*KeyValue"),
        10: ("droppedAttributesCount", "uint"),
        11: ("events", "*Event"),
        12: ("droppedEventsCount", "uint"),
        13: ("links", "*Link"),
        14: ("droppedLinksCount", "uint"),
        15: ("status", "Status"),
        16: ("flags", "fixed32"),
    },
    "Event": {
        1: ("timeUnixNano", "fixed64"),
        2: ("name", "string"),
        3: ("attributes", "*KeyValue"),
        4: ("droppedAttributesCount", "uint"),
    },
    "Link": {
        1: ("traceId", "hex"),
        2: ("spanId", "hex"),
        3: ("traceState", "string"),
        4: ("attributes", "*KeyValue"),
        5: ("droppedAttributesCount", "uint"),
        6: ("flags", "fixed32"),
    },
    "Status": {2: ("message", "string"), 3: ("code", "uint")},
    "KeyValue": {1: ("key", "string"), 2: ("value", "AnyValue")},
    "AnyValue": {
        1: ("stringValue", "string"),
        2: ("boolValue", "bool"),
        3: ("intValue", "int"),
        4: ("doubleValue", "double"),
        5: ("arrayValue", "ArrayValue"),
        6: ("kvlistValue", "KeyValueList"),
        7: ("bytesValue", "base64"),
    },
    "ArrayValue": {1: ("values", "*AnyValue")},
    "KeyValueList": {1: ("values", "*KeyValue")},
}
_WIRE = {"uint": 0, "int": 0, "bool": 0, "fixed64": 1, "double": 1, "fixed32": 5}


def decoded(body: bytes) -> dict[str, Any]:
    """A protobuf `ExportTraceServiceRequest` in its OTLP/JSON form. Raises Invalid if it is none."""
    try:
        return _message(memoryview(body), "Request", 0)
    except (ValueError, IndexError, struct.error) as error:
        raise Invalid(message=f"The body is not an OTLP ExportTraceServiceRequest: {error}.") from None


def partial_success(rejected: int, message: str) -> bytes:
    """A protobuf `ExportTraceServiceResponse` that says how many spans were refused, and why; none is an empty one."""
    if not rejected and not message:
        return b""
    text = message.encode("utf-8", "replace")
    inner = b"\x08" + _varint_bytes(rejected) + b"\x12" + _varint_bytes(len(text)) + text
    return b"\x0a" + _varint_bytes(len(inner)) + inner


def _varint_bytes(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _message(data: memoryview, name: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    shape = _MESSAGES[name]
    out: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        raw: Any
        if wire == 0:
            raw, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            raw, at = data[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(data, at)
            raw, at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire} is not in use")
        if at > len(data):
            raise ValueError("it ends in the middle of a field")
        if number not in shape:
            continue
        key, kind = shape[number]
        repeats, kind = kind[0] == "*", kind.lstrip("*")
        if wire != _WIRE.get(kind, 2):
            raise ValueError(f"{name}.{key} has the wrong wire type")
        value = _message(raw, kind, depth + 1) if kind in _MESSAGES else _scalar(raw, kind)
        if repeats:
            out.setdefault(key, []).append(value)
        elif kind in _MESSAGES and key in out and isinstance(value, dict):
            out[key] = {**out[key], **value}
        else:
            if name == "AnyValue":
                out.clear()
            out[key] = value
    return out


def _scalar(raw: Any, kind: str) -> Any:
    if kind == "string":
        return bytes(raw).decode("utf-8")
    if kind == "hex":
        return bytes(raw).hex()
    if kind == "base64":
        return base64.b64encode(raw).decode("ascii")
    if kind == "fixed64":
        return str(struct.unpack("<Q", raw)[0])
    if kind == "fixed32":
        return struct.unpack("<I", raw)[0]
    if kind == "double":
        number = struct.unpack("<d", raw)[0]
        return number if math.isfinite(number) else "NaN" if number != number else f"{'-' * (number < 0)}Infinity"
    if kind == "bool":
        return bool(raw)
    if kind == "int":
        return str(raw - (1 << 64) if raw >> 63 else raw)
    return raw & 0xFFFFFFFF


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    out = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[at]
        at += 1
        out |= (byte & 0x7F) << shift
        if byte < 0x80:
            return out & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def read(request: Any) -> list[OtlpTrace]:
    """The traces in an `ExportTraceServiceRequest` in its JSON form (camel or snake case, ids in hex or base64).

    Raises Invalid naming what does not fit.
    """
    if not isinstance(request, Mapping):
        raise Invalid(message="The body must be a JSON object.")
    found: dict[str, OtlpTrace] = {}
    count = 0
    for at, one in enumerate(_list(request, "resourceSpans", "resourceSpans")):
        where = f"resourceSpans.{at}"
        resource = _attributes(_mapping(one, "resource", where))
        for below, scope in enumerate(
            _list(one, "scopeSpans", where) or _list(one, "instrumentationLibrarySpans", where)
        ):
            for last, span in enumerate(_list(scope, "spans", where)):
                count += 1
                if count > MAX_SPANS:
                    raise Invalid({"resourceSpans": [f"must have at most {MAX_SPANS} spans"]})
                place = f"{where}.scopeSpans.{below}.spans.{last}"
                trace_id = _id(_get(span, "traceId"), 16, f"{place}.traceId")
                read_span, attributes = _span(span, place)
                agent = _agent(resource, attributes)
                trace = found.setdefault(trace_id, OtlpTrace(trace_id, agent))
                trace.agent = trace.agent if trace.agent != _UNNAMED else agent
                trace.spans.append(read_span)
    return list(found.values())


_UNNAMED = "unknown_service"


def _agent(resource: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    named = resource.get("gen_ai.agent.id") or attributes.get("gen_ai.agent.id") or resource.get("service.name")
    return str(named or _UNNAMED)[:255]


def _get(message: Mapping[str, Any], name: str) -> Any:
    """A field in either spelling that protobuf's JSON form allows."""
    if name in message:
        return message[name]
    return message.get("".join(f"_{c.lower()}" if c.isupper() else c for c in name))


def _list(message: Any, name: str, where: str) -> list[Any]:
    value = _get(message, name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise Invalid({where if where == name else f"{where}.{name}": ["must be a list of objects"]})
    return value


def _mapping(message: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = _get(message, name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid({f"{where}.{name}": ["must be an object"]})
    return value


def _id(value: Any, size: int, where: str) -> str:
    """An id in hex (OTLP's JSON) or base64 (protobuf's own JSON), as hex."""
    if isinstance(value, str):
        try:
            if len(value) == 2 * size:
                return bytes.fromhex(value).hex()
            raw = base64.b64decode(value, validate=True)
            if len(raw) == size:
                return raw.hex()
        except (ValueError, binascii.Error):
            pass
    raise Invalid({where: [f"must be {size} bytes in hex or base64"]})


def _attributes(message: Mapping[str, Any]) -> dict[str, Any]:
    entries = _get(message, "attributes")
    if not isinstance(entries, list):
        return {}
    return {
        entry["key"]: _value(entry.get("value"), 0)
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("key"), str)
    }


def _value(value: Any, depth: int) -> Any:
    """An AnyValue as the plain value it stands for."""
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return None
    for name in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        if (plain := _get(value, name)) is not None:
            return plain
    if (number := _get(value, "intValue")) is not None:
        try:
            return int(number)
        except (TypeError, ValueError):
            return None
    if isinstance(several := _get(value, "arrayValue"), Mapping):
        entries = several.get("values")
        return [_value(entry, depth + 1) for entry in entries] if isinstance(entries, list) else []
    if isinstance(pairs := _get(value, "kvlistValue"), Mapping):
        entries = pairs.get("values")
        return {
            str(entry.get("key") or ""): _value(entry.get("value"), depth + 1)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, Mapping)
        }
    return None


_OPERATIONS: dict[str, SpanType] = {
    "chat": "LLM",
    "text_completion": "LLM",
    "generate_content": "LLM",
    "completion": "LLM",
    "execute_tool": "Tool",
    "retrieval": "Retrieval",
    "retrieve": "Retrieval",
}
_KINDS: dict[str, SpanType] = {"LLM": "LLM", "RETRIEVER": "Retrieval", "RERANKER": "Retrieval", "TOOL": "Tool"}
_TRACELOOP: dict[str, SpanType] = {"tool": "Tool"}


def _span(span: Mapping[str, Any], place: str) -> tuple[Span, dict[str, Any]]:
    attributes = _attributes(span)
    nested = _nested(attributes)
    events = [(str(_get(e, "name") or ""), _attributes(e)) for e in _list(span, "events", place)]
    kind = _type(attributes, nested, events)
    status = _mapping(span, "status", place)
    notes = {k: v for k, v in attributes.items() if not k.startswith(_BULKY) and not isinstance(v, dict | list)}
    if status.get("code") in (2, "2", "STATUS_CODE_ERROR"):
        notes["error"] = str(status.get("message") or "error")[:1024]
    if asked := _asked_with(attributes):
        notes["parameters"] = asked
    parent = _get(span, "parentSpanId")
    return (
        Span(
            id=_id(_get(span, "spanId"), 8, f"{place}.spanId"),
            parent_id=_id(parent, 8, f"{place}.parentSpanId") if parent and set(str(parent)) != {"0"} else None,
            name=str(_get(span, "name") or "")[:1024],
            type=kind,
            start_time=_milliseconds(_get(span, "startTimeUnixNano")),
            end_time=_milliseconds(_get(span, "endTimeUnixNano")),
            input=_input(attributes, nested, events),
            output=_output(kind, attributes, nested, events),
            model=_text(
                attributes, "gen_ai.request.model", "gen_ai.response.model", "llm.model_name", "embedding.model_name"
            ),
            tokens=_tokens(attributes),
            metadata=notes,
        ),
        attributes,
    )


_BULKY = (
    "gen_ai.input",
    "gen_ai.output",
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.",
    "gen_ai.retrieval.documents",
    "llm.input_messages",
    "llm.output_messages",
    "llm.invocation_parameters",
    "llm.prompts",
    "llm.completions",
    "input.value",
    "output.value",
    "retrieval.documents",
    "reranker.",
    "traceloop.entity.input",
    "traceloop.entity.output",
)


def _milliseconds(value: Any) -> int | None:
    try:
        nanoseconds = int(value)
    except (TypeError, ValueError):
        return None
    return nanoseconds // 1_000_000 if 0 < nanoseconds < 2**64 else None


def _type(
    attributes: Mapping[str, Any], nested: Mapping[str, Any], events: list[tuple[str, dict[str, Any]]]
) -> SpanType:
    given = str(attributes.get("openinference.span.kind") or "").upper()
    if given:
        return _KINDS.get(given, "Chain")
    operation = str(attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type") or "").lower()
    if operation:
        return _OPERATIONS.get(operation, "Chain")
    if loop := str(attributes.get("traceloop.span.kind") or "").lower():
        return _TRACELOOP.get(loop, "Chain")
    if "gen_ai.tool.name" in attributes:
        return "Tool"
    if _under(nested, "retrieval.documents"):
        return "Retrieval"
    spoken = any(name.startswith("gen_ai.") for name, _ in events)
    if spoken or any(
        k.startswith(("gen_ai.prompt", "gen_ai.completion", "gen_ai.request.", "llm.")) for k in attributes
    ):
        return "LLM"
    return "Chain"


def _nested(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with an index in their name (`llm.input_messages.0.message.role`) as a tree."""
    root: dict[str, Any] = {}
    for key, value in attributes.items():
        parts = key.split(".")
        if not any(part.isdigit() for part in parts) or len(parts) > MAX_DEPTH:
            continue
        node = root
        for part in parts[:-1]:
            below = node.setdefault(part, {})
            node = below if isinstance(below, dict) else {}
        node[parts[-1]] = value
    return root


def _under(nested: Mapping[str, Any], path: str) -> list[Any]:
    """The entries of an indexed attribute, in the order of their index."""
    node: Any = nested
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return []
    indices = sorted((key for key in node if isinstance(key, str) and key.isdigit()), key=int)
    return [node[key] for key in indices]


def _text(attributes: Mapping[str, Any], *names: str) -> str | None:
    return next((str(attributes[name])[:512] for name in names if attributes.get(name)), None)


def _structured(value: Any) -> Any:
    """Structured attributes come as values or, where an SDK cannot, as JSON text."""
    if isinstance(value, str) and value.strip()[:1] in "[{":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _openinference(nested: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in _under(nested, path):
        message = entry.get("message") if isinstance(entry, Mapping) else None
        if not isinstance(message, Mapping):
            continue
        content = message.get("content")
        if content is None:
            parts = [
                part.get("message_content", {}) for part in _under(message, "contents") if isinstance(part, Mapping)
            ]
            content = [str(p["text"]) for p in parts if isinstance(p, Mapping) and p.get("text") is not None] or None
        if content is not None:
            found.append({"role": message.get("role", "user"), "content": content})
    return found


def _input(attributes: Mapping[str, Any], nested: Mapping[str, Any], events: list[tuple[str, dict[str, Any]]]) -> Any:
    newest = dict(attributes)
    for name, said in events:
        if name == "gen_ai.client.inference.operation.details":
            newest |= said
    if messages := _structured(newest.get("gen_ai.input.messages")):
        return _instructed(newest.get("gen_ai.system_instructions"), messages)
    if messages := [m for m in _under(nested, "gen_ai.prompt") if isinstance(m, Mapping)]:
        return _instructed(None, [dict(m) for m in messages])
    if messages := _openinference(nested, "llm.input_messages"):
        return messages
    heard = []
    for name, said in events:
        role = name.removeprefix("gen_ai.").removesuffix(".message")
        if name.startswith("gen_ai.") and role in ("system", "user", "assistant", "tool"):
            body = _structured(said.get("gen_ai.event.content")) or said
            if isinstance(body, Mapping) and body.get("content") is not None:
                heard.append({"role": role, "content": _structured(body["content"])})
            elif isinstance(body, str):
                heard.append({"role": role, "content": body})
        elif name == "gen_ai.content.prompt":
            heard += _as_list(_structured(said.get("gen_ai.prompt")))
    if heard:
        return heard
    for name in ("input.value", "gen_ai.prompt", "gen_ai.tool.call.arguments", "traceloop.entity.input"):
        if attributes.get(name) is not None:
            return _instructed(attributes.get("gen_ai.system_instructions"), _structured(attributes[name]))
    return None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value is not None else []


def _instructed(instructions: Any, messages: Any) -> Any:
    instructions = _structured(instructions)
    if not instructions:
        return messages
    before = [{"role": "system", "content": instructions if isinstance(instructions, str) else _as_list(instructions)}]
    return before + (messages if isinstance(messages, list) else [{"role": "user", "content": messages}])


def _output(
    kind: SpanType, attributes: Mapping[str, Any], nested: Mapping[str, Any], events: list[tuple[str, dict[str, Any]]]
) -> Any:
    newest = dict(attributes)
    for name, said in events:
        if name == "gen_ai.client.inference.operation.details":
            newest |= said
    if messages := _structured(newest.get("gen_ai.output.messages")):
        return messages
    if messages := [dict(m) for m in _under(nested, "gen_ai.completion") if isinstance(m, Mapping)]:
        return messages
    if messages := _openinference(nested, "llm.output_messages"):
        return messages
    spoken = []
    for name, said in events:
        if name == "gen_ai.choice":
            body = _structured(said.get("gen_ai.event.content")) or said
            message = _structured(body.get("message")) if isinstance(body, Mapping) else body
            content = message if message is not None else body.get("content") if isinstance(body, Mapping) else None
            if content is not None:
                spoken.append(content if isinstance(content, Mapping) else {"role": "assistant", "content": content})
        elif name == "gen_ai.content.completion":
            spoken += _as_list(_structured(said.get("gen_ai.completion")))
    if spoken:
        return spoken
    for path in ("retrieval.documents", "reranker.output_documents"):
        documents = [e.get("document", e) for e in _under(nested, path) if isinstance(e, Mapping)]
        if documents:
            return [dict(document) for document in documents if isinstance(document, Mapping)]
    if kind == "Retrieval" and (documents := _structured(attributes.get("gen_ai.retrieval.documents"))):
        return documents
    names = (
        "gen_ai.tool.call.result",
        "output.value",
        "gen_ai.completion",
        "traceloop.entity.output",
        "gen_ai.tool.message",
    )
    for name in names:
        if attributes.get(name) is not None:
            return attributes[name] if kind == "Tool" else _structured(attributes[name])
    return None


def _tokens(attributes: Mapping[str, Any]) -> Tokens | None:
    def first(*names: str) -> int:
        return next(
            (v for n in names if isinstance(v := attributes.get(n), int) and not isinstance(v, bool) and v >= 0), 0
        )

    counted = Tokens(
        input=first("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
        output=first("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
        total=first("llm.token_count.total", "llm.usage.total_tokens", "gen_ai.usage.total_tokens"),
    )
    return counted if counted.total else None


def _asked_with(attributes: Mapping[str, Any]) -> dict[str, Any]:
    given = _structured(attributes.get("llm.invocation_parameters"))
    given = given if isinstance(given, Mapping) else {}
    found = {}
    for name, old, new in (
        ("temperature", "temperature", "gen_ai.request.temperature"),
        ("topP", "top_p", "gen_ai.request.top_p"),
        ("maxTokens", "max_tokens", "gen_ai.request.max_tokens"),
        ("stop", "stop", "gen_ai.request.stop_sequences"),
    ):
        value = attributes.get(new, given.get(old))
        if value is not None:
            found[name] = value
    return found
