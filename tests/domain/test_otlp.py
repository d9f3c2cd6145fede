"""OpenTelemetry exports as agents send them: JSON and protobuf, and three ways of naming things."""

import base64
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixloop import otlp
from fixloop.errors import Invalid
from fixloop.traces import of_spans

TRACE = bytes(range(1, 17)).hex()
START = 1_755_266_400_000_000_000
ASKED = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "How long?"}]
OLD_NAMES = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Answer.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "How long?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "30 days.",
    "gen_ai.usage.prompt_tokens": 10,
    "gen_ai.usage.completion_tokens": 2,
}
NEW_NAMES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Answer."}]),
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "How long?"}]}]),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "30 days."}]}]),
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 2,
}
OPEN_INFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o",
    "llm.invocation_parameters": json.dumps({"temperature": 0.5}),
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Answer.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.content": "How long?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "30 days.",
    "input.value": "ignored",
    "output.value": "ignored",
    "llm.token_count.prompt": 10,
    "llm.token_count.completion": 2,
    "llm.token_count.total": 12,
}
EVENTS = [
    ("gen_ai.system.message", {"content": "Answer."}),
    ("gen_ai.user.message", {"content": "How long?"}),
    (
        "gen_ai.choice",
        {"index": 0, "finish_reason": "stop", "message": json.dumps({"role": "assistant", "content": "30 days."})},
    ),
]
TOKENS = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2, "gen_ai.request.model": "gpt-4o",
          "gen_ai.request.temperature": 0.5, "gen_ai.operation.name": "chat"}  # fmt: skip


def any_value(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": value}


def attributes(given):
    return [{"key": key, "value": any_value(value)} for key, value in given.items()]


def span(name, given, number=1, after=0, parent="", events=(), **more):
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "parentSpanId": parent,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(START + after * 1_000_000),
        "endTimeUnixNano": str(START + (after + 100) * 1_000_000),
        "attributes": attributes(given),
        "events": [{"timeUnixNano": str(START), "name": n, "attributes": attributes(a)} for n, a in events],
        **more,
    }


def request(*spans, service="shop-bot"):
    resource = {"attributes": attributes({"service.name": service})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


def one(body):
    found = otlp.read(body)
    assert len(found) == 1
    assert found[0].trace_id == TRACE
    made = of_spans("tr_1", found[0].agent, found[0].spans, 0)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("given", "events"),
    [(OLD_NAMES, ()), (NEW_NAMES, ()), (OPEN_INFERENCE, ()), (TOKENS, EVENTS)],
    ids=["old", "new", "openinference", "events"],
)
def test_every_way_of_naming_says_the_same(given, events):
    made = one(request(span("chat", given, events=events)))
    assert (made.agent_id, made.model, made.system_prompt) == ("shop-bot", "gpt-4o", "Answer.")
    assert (made.user_message, made.recorded_response) == ("How long?", "30 days.")
    assert (made.input_tokens, made.output_tokens, made.token_count) == (10, 2, 12)
    assert (made.parameters.temperature, made.latency_ms, made.created_at) == (0.5, 100, START // 1_000_000)


def test_retrievals_and_tools_are_context():
    retrieval = {
        "openinference.span.kind": "RETRIEVER",
        "input.value": "refund",
        "retrieval.documents.0.document.id": "p1",
        "retrieval.documents.0.document.content": "Returns within 30 days.",
        "retrieval.documents.1.document.content": "Open daily.",
    }
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get_order",
        "gen_ai.tool.call.result": '{"ships": "Tuesday"}',
    }
    late = {"openinference.span.kind": "TOOL", "output.value": "too late"}
    made = one(
        request(
            span("agent", {"openinference.span.kind": "AGENT", "input.value": "How long?"}, 1),
            span("retrieve", retrieval, 2, 10, parent=f"{1:016x}"),
            span("tool", tool, 3, 20, parent=f"{1:016x}"),
            span("chat", NEW_NAMES, 4, 200, parent=f"{1:016x}"),
            span("after", late, 5, 900, parent=f"{1:016x}"),
        )
    )
    assert [(d.id, d.text, d.kind) for d in made.context] == [
        ("p1", "Returns within 30 days.", "retrieval"),
        ("retrieve:1", "Open daily.", "retrieval"),
        ("tool", '{"ships": "Tuesday"}', "tool"),
    ]
    assert len(made.spans) == 5


def test_tool_results_among_the_messages_are_context():
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "get_order", "arguments": {}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "ships Tuesday"}]},
    ]
    made = one(request(span("chat", {**NEW_NAMES, "gen_ai.input.messages": json.dumps(messages)})))
    assert (made.user_message, made.history) == ("Where is it?", [])
    assert [d.text for d in made.context] == ["ships Tuesday"]


def test_structured_attributes_need_not_be_text():
    given = {**NEW_NAMES}
    for name in ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"):
        given[name] = json.loads(given[name])
    assert one(request(span("chat", given))).recorded_response == "30 days."


def test_a_plain_chain_will_do():
    made = one(
        request(
            span("chain", {"input.value": "How long?", "output.value": "30 days.", "openinference.span.kind": "CHAIN"})
        )
    )
    assert (made.user_message, made.recorded_response) == ("How long?", "30 days.")


def test_an_error_is_a_failure_and_ids_may_be_base64_and_names_in_snake_case():
    failed = span("chat", NEW_NAMES, status={"code": 2, "message": "boom"})
    assert one(request(failed)).outcome == "failure"
    snake = json.loads(
        json.dumps(request(failed)).replace("resourceSpans", "resource_spans").replace("scopeSpans", "scope_spans")
    )
    read = snake["resource_spans"][0]["scope_spans"][0]["spans"][0]
    read["trace_id"] = base64.b64encode(bytes.fromhex(read.pop("traceId"))).decode()
    read["span_id"] = base64.b64encode(bytes.fromhex(read.pop("spanId"))).decode()
    assert one(snake).spans[0].id == f"{1:016x}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({"resourceSpans": 5}, "resourceSpans"),
        ({"resourceSpans": [{"scopeSpans": [5]}]}, "resourceSpans.0.scopeSpans"),
        (request({**span("x", {}), "traceId": "zz"}), "resourceSpans.0.scopeSpans.0.spans.0.traceId"),
        (request({**span("x", {}), "spanId": None}), "resourceSpans.0.scopeSpans.0.spans.0.spanId"),
        (request({**span("x", {}), "events": 1}), "resourceSpans.0.scopeSpans.0.spans.0.events"),
    ],
)
def test_what_is_no_export_is_refused_by_name(body, field):
    with pytest.raises(Invalid) as raised:
        otlp.read(body)
    assert field is None or list(raised.value.fields) == [field]


def test_an_empty_export_has_no_traces():
    assert otlp.read({}) == []
    assert otlp.read(otlp.decoded(b"")) == []


def protobuf(body):
    trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    json_format = pytest.importorskip("google.protobuf.json_format")
    body = json.loads(json.dumps(body))
    for resource in body["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for one in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    one[key] = base64.b64encode(bytes.fromhex(one[key])).decode()
    return json_format.ParseDict(body, trace_service.ExportTraceServiceRequest()).SerializeToString()


def test_protobuf_says_what_json_says():
    everything = {"text": "é", "whole": -5, "big": 2**62, "real": 0.25, "yes": True, "no": False, "raw": b"\x00\xff"}
    everything |= {"list": [1, "a", [2.5]], "map": {"a": {"b": [True]}}}
    more = {"status": {"code": 2, "message": "boom"}, "traceState": "a=b", "flags": 257, "droppedAttributesCount": 3}
    tool = span("tool", {"gen_ai.tool.name": "t", "gen_ai.tool.call.result": "x"}, 2, parent=f"{1:016x}")
    body = request(span("chat", {**NEW_NAMES, **everything}, events=EVENTS, **more), tool)
    decoded = otlp.decoded(protobuf(body))
    assert otlp.read(decoded) == otlp.read(body)
    first = decoded["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert (first["flags"], first["traceState"], first["droppedAttributesCount"]) == (257, "a=b", 3)
    plain = {e["key"]: otlp._value(e["value"], 0) for e in first["attributes"]}
    assert {name: plain[name] for name in everything if name != "raw"} == {
        n: v for n, v in everything.items() if n != "raw"
    }
    assert base64.b64decode(plain["raw"]) == b"\x00\xff"


VALUE = st.recursive(
    st.text(max_size=4)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), VALUE, max_size=4), st.text(max_size=5))
def test_any_attributes_survive_protobuf(given, name):
    body = request(span(name, given))
    found = otlp.decoded(protobuf(body))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    sent = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert otlp._attributes(found) == otlp._attributes(sent)
    assert found.get("name", "") == name


def test_the_real_exporters_encoding_is_read():
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    exporters = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    resources = pytest.importorskip("opentelemetry.sdk.resources")
    kept = exporters.InMemorySpanExporter()
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": "shop-bot"}))
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("agent"), tracer.start_as_current_span("chat") as current:
        current.set_attributes(NEW_NAMES)
    raw = encoder.encode_spans(kept.get_finished_spans()).SerializeToString()
    found = otlp.read(otlp.decoded(raw))
    assert len(found) == 1
    made = of_spans("tr_1", found[0].agent, found[0].spans, 0)
    assert made is not None
    assert (made.agent_id, made.recorded_response, len(made.spans)) == ("shop-bot", "30 days.", 2)


@pytest.mark.parametrize(
    "raw", [b"\x0a", b"\x0a\x05ab", b"\xff" * 20, b"\x08\x01", b"\x00", b"\x0b", b"{}", b"\x0a\x02\x08\x01"]
)
def test_broken_protobuf_is_refused(raw):
    with pytest.raises(Invalid):
        otlp.read(otlp.decoded(raw))


def test_bottomless_protobuf_is_refused():
    value = b""
    for _ in range(60):
        inner = b"\x0a" + otlp._varint_bytes(len(value)) + value
        value = b"\x2a" + otlp._varint_bytes(len(inner)) + inner
    pair = b"\x12" + otlp._varint_bytes(len(value)) + value
    for field in (1, 1, 1):
        pair = bytes([field << 3 | 2]) + otlp._varint_bytes(len(pair)) + pair
    with pytest.raises(Invalid, match="deeply"):
        otlp.decoded(pair)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw):
    try:
        decoded = otlp.decoded(raw)
    except Invalid:
        return
    assert isinstance(decoded, dict)


def test_unknown_fields_are_passed_over():
    assert otlp.decoded(b"\xa2\x06\x01a" + b"\xad\x06" + struct.pack("<I", 7)) == {}


def test_a_partial_success_says_how_much_and_why():
    assert otlp.partial_success(0, "") == b""
    response = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
    ).ExportTraceServiceResponse()
    response.ParseFromString(otlp.partial_success(300, "no agent"))
    assert (response.partial_success.rejected_spans, response.partial_success.error_message) == (300, "no agent")
