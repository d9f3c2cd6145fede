"""`POST /v1/traces`: OpenTelemetry's own exporter, pointed at us, just works; and what other exporters may send."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cloud import Answer, Client, Cloud
from fixloop.storage import traces
from fixloop.storage.dynamo import Contended
from fixloop.traces import id_of_otlp

TRACE, OTHER = "5b8efff798038103d269b633813fc60c", "6b8efff798038103d269b633813fc60d"
AT = 1_776_709_511_000_000_000
JSON, PROTOBUF = "application/json", "application/x-protobuf"


def send(caller: Client, body: bytes, kind: str = JSON, encoding: str = "", *, text: bool = False) -> Answer:
    """As API Gateway hands a request over: in Base64 unless its type is text."""
    headers = {"authorization": f"Bearer {caller.key}", "content-type": kind}
    event = {
        "version": "2.0",
        "routeKey": "ANY /v1/traces",
        "rawPath": "/v1/traces",
        "rawQueryString": "",
        "headers": headers | ({"content-encoding": encoding} if encoding else {}),
        "requestContext": {"http": {"method": "POST", "path": "/v1/traces"}, "requestId": "r", "stage": "$default"},
        "body": body.decode() if text else base64.b64encode(body).decode(),
        "isBase64Encoded": not text,
    }
    answer = caller.cloud.invoke("TracesFunction", event)
    return Answer(answer["statusCode"], dict(answer.get("headers") or {}), answer.get("body") or "")


class Forward(BaseHTTPRequestHandler):
    """Hands what comes over the loopback to the cloud in this process."""

    caller: Client
    seen: list[tuple[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        kind, encoding = self.headers["content-type"], self.headers.get("content-encoding", "")
        self.seen.append((kind, encoding))
        bearer = self.headers["authorization"].removeprefix("Bearer ")
        answer = send(Client(self.caller.cloud, bearer), body, kind, encoding)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        content = answer.text.encode()
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint(caller: Client) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Where an exporter may send to, and what came there."""
    seen: list[tuple[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Forward,), {"caller": caller, "seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", seen
    server.shutdown()
    thread.join()
    server.server_close()


def conversation(processor: Any) -> str:
    """An agent's work as an instrumented program records it; its trace id."""
    provider = TracerProvider(resource=Resource.create({"service.name": "support-bot"}))
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("invoke_agent") as root:
        with tracer.start_as_current_span("retrieve") as span:
            span.set_attribute("gen_ai.operation.name", "retrieval")
            span.set_attribute("retrieval.documents.0.document.id", "policy")
            span.set_attribute("retrieval.documents.0.document.content", "Refunds are possible within 30 days.")
        with tracer.start_as_current_span("chat extractive") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.request.model", "extractive")
            span.set_attribute("gen_ai.request.temperature", 0.25)
            span.set_attribute("gen_ai.usage.input_tokens", 40)
            span.set_attribute("gen_ai.usage.output_tokens", 4)
            asked = [{"role": "user", "parts": [{"type": "text", "content": "How long do I have?"}]}]
            said = [{"role": "assistant", "parts": [{"type": "text", "content": "60 days."}], "finish_reason": "stop"}]
            rules = [{"type": "text", "content": "Use the knowledge base."}]
            span.set_attribute("gen_ai.system_instructions", json.dumps(rules))
            span.set_attribute("gen_ai.input.messages", json.dumps(asked))
            span.set_attribute("gen_ai.output.messages", json.dumps(said))
    provider.shutdown()
    return f"{root.get_span_context().trace_id:032x}"


def the_trace(caller: Client) -> dict[str, Any]:
    (listed,) = caller.get("/api/traces").json()["data"]
    trace: dict[str, Any] = caller.get(f"/api/traces/{listed['id']}").json()["data"]
    return trace


def exporter(caller: Client, url: str, compression: Compression = Compression.Gzip) -> OTLPSpanExporter:
    return OTLPSpanExporter(url, headers={"authorization": f"Bearer {caller.key}"}, compression=compression, timeout=20)


@pytest.mark.parametrize("compression", list(Compression))
def test_the_real_exporters_traces_can_be_replayed(caller: Client, endpoint: Any, compression: Compression) -> None:
    url, seen = endpoint
    trace_id = conversation(BatchSpanProcessor(exporter(caller, url, compression)))
    assert seen
    assert {kind for kind, _ in seen} == {PROTOBUF}
    assert {encoding for _, encoding in seen} <= {compression.value, ""}
    trace = the_trace(caller)
    assert trace["id"] == id_of_otlp(caller.org, trace_id)
    assert trace["agentId"] == "support-bot"
    assert (trace["userMessage"], trace["agentResponse"]) == ("How long do I have?", "60 days.")
    assert trace["systemPrompt"] == "Use the knowledge base."
    assert [document["text"] for document in trace["context"]] == ["Refunds are possible within 30 days."]
    assert (trace["model"], trace["parameters"], trace["tokenCount"]) == ("extractive", {"temperature": 0.25}, 44)
    assert trace["spanCount"] == 3


def recorded() -> tuple[str, tuple[ReadableSpan, ...]]:
    memory = InMemorySpanExporter()
    trace_id = conversation(SimpleSpanProcessor(memory))
    return trace_id, memory.get_finished_spans()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_batches_in_any_order_and_again_make_the_same_trace(caller: Client, endpoint: Any, order: Any) -> None:
    _, spans = recorded()
    sender = exporter(caller, endpoint[0])
    for at in (*order, order[0], order[2]):
        assert sender.export([spans[at]]) is SpanExportResult.SUCCESS
    trace = the_trace(caller)
    assert {span["name"] for span in trace["spans"]} == {"invoke_agent", "retrieve", "chat extractive"}
    assert trace["spanCount"] == 3
    assert len(trace["context"]) == 1


def test_the_same_batch_twice_changes_nothing(caller: Client, endpoint: Any) -> None:
    _, spans = recorded()
    sender = exporter(caller, endpoint[0])
    assert sender.export(spans) is SpanExportResult.SUCCESS
    before = the_trace(caller)
    assert sender.export(spans) is SpanExportResult.SUCCESS
    assert the_trace(caller) == before
    assert caller.get("/api/traces").json()["pagination"]["total"] == 1


def test_batches_at_the_same_time_lose_no_span(caller: Client, endpoint: Any) -> None:
    sends: Callable[[ReadableSpan], Any] = lambda span: exporter(caller, endpoint[0]).export([span])  # noqa: E731
    with ThreadPoolExecutor(6) as threads:
        for number in range(1, 5):
            _, spans = recorded()
            results = list(threads.map(sends, (*spans, *spans)))
            assert set(results) == {SpanExportResult.SUCCESS}
            found = caller.get("/api/traces").json()
            assert found["pagination"]["total"] == number
            trace = caller.get(f"/api/traces/{found['data'][0]['id']}").json()["data"]
            assert trace["spanCount"] == 3


def test_a_wrong_key_is_told_to_the_exporter(caller: Client, endpoint: Any) -> None:
    _, spans = recorded()
    stranger = Client(caller.cloud, "thk_wrong")
    assert exporter(stranger, endpoint[0]).export(spans) is SpanExportResult.FAILURE
    assert caller.get("/api/traces").json()["pagination"]["total"] == 0


# What others may send


def span(span_id: str, *, trace: str = TRACE, at: int = 0, **attributes: str) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": span_id * 16,
        "name": f"step {span_id}",
        "startTimeUnixNano": str(AT + at * 10**9),
        "endTimeUnixNano": str(AT + (at + 1) * 10**9),
        "attributes": [{"key": name, "value": {"stringValue": value}} for name, value in attributes.items()],
    }


def answered(span_id: str, **options: Any) -> dict[str, Any]:
    said = {"openinference.span.kind": "LLM", "input.value": "How long?", "output.value": "60 days."}
    return span(span_id, **said, **options)


def request(*spans: dict[str, Any], service: str = "bot") -> dict[str, Any]:
    named = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": named, "scopeSpans": [{"spans": list(spans)}]}]}


def test_json_is_taken_plain_and_packed(caller: Client) -> None:
    for number, encoding in enumerate(("", "gzip", "GZIP", "deflate"), 1):
        body = json.dumps(request(answered("a", trace=f"{number:032x}"))).encode()
        packed = {"": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}[encoding.lower()]
        answer = send(caller, packed, encoding=encoding, text=not encoding)
        assert (answer.status, answer.json()) == (200, {"partialSuccess": {}})
        assert caller.get("/api/traces").json()["pagination"]["total"] == number


def test_protobuf_is_answered_in_protobuf(caller: Client) -> None:
    answer = send(caller, b"", PROTOBUF)
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["Content-Type"] == PROTOBUF


def test_a_batch_may_hold_several_traces_of_several_services(caller: Client) -> None:
    both = (
        request(answered("a"))["resourceSpans"] + request(answered("b", trace=OTHER), service="sales")["resourceSpans"]
    )
    assert send(caller, json.dumps({"resourceSpans": both}).encode()).status == 200
    agents = {trace["agentId"] for trace in caller.get("/api/traces").json()["data"]}
    assert agents == {"bot", "sales"}
    assert caller.get("/api/traces", agentId="sales").json()["pagination"]["total"] == 1


def test_spans_without_an_answer_wait_for_it(caller: Client) -> None:
    tool = span("b", **{"openinference.span.kind": "TOOL", "output.value": "Refunds: 30 days"})
    assert send(caller, json.dumps(request(tool)).encode()).status == 200
    assert caller.get("/api/traces").json()["pagination"]["total"] == 0
    assert caller.get(f"/api/traces/{id_of_otlp(caller.org, TRACE)}").status == 404
    assert send(caller, json.dumps(request(answered("a", at=2))).encode()).status == 200
    assert [document["text"] for document in the_trace(caller)["context"]] == ["Refunds: 30 days"]


def test_the_same_trace_id_in_two_organisations_is_two_traces(cloud: Cloud, caller: Client) -> None:
    other, body = cloud.caller(), json.dumps(request(answered("a"))).encode()
    for one in (caller, other):
        assert send(one, body).status == 200
    assert the_trace(caller)["id"] != the_trace(other)["id"]


WHOLE = gzip.compress(json.dumps(request(answered("a"))).encode())


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "said"),
    [
        (b"\x0a\xff", PROTOBUF, "", "not an OTLP"),
        (b"\x0a\x05\x0a", PROTOBUF, "", "not an OTLP"),
        (b"hello", PROTOBUF, "", "not an OTLP"),
        (b"{", JSON, "", "not valid JSON"),
        (b"[]", JSON, "", "must be a JSON object"),
        (b"\xff\xfe", JSON, "", "not UTF-8"),
        (b"plain", JSON, "gzip", "not gzip"),
        (b"plain", JSON, "deflate", "not deflate"),
        (WHOLE[:-12], JSON, "gzip", "one whole gzip stream"),
        (WHOLE + WHOLE, JSON, "gzip", "one whole gzip stream"),
    ],
)
def test_a_broken_body_is_refused(caller: Client, body: bytes, kind: str, encoding: str, said: str) -> None:
    answer = send(caller, body, kind, encoding)
    assert answer.status == 400
    assert said in answer.json()["detail"]
    assert caller.get("/api/traces").json()["pagination"]["total"] == 0


def test_a_bad_id_is_named(caller: Client) -> None:
    answer = send(caller, json.dumps(request(answered("a", trace="12"))).encode())
    assert answer.status == 400
    assert list(answer.json()) == ["resourceSpans.0.scopeSpans.0.spans.0.traceId"]


def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(caller: Client) -> None:
    answer = send(caller, gzip.compress(b" " * 9 * 1024 * 1024), JSON, "gzip")
    assert answer.status == 413


def test_too_many_batches_of_one_trace_at_once_are_to_be_sent_again(
    caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exporters send a batch again after a 503; after a 409 they would drop it."""

    def contended(*_: object) -> None:
        raise Contended("the trace kept changing")

    body = json.dumps(request(answered("a"))).encode()
    with monkeypatch.context() as busy:
        busy.setattr(traces, "gather", contended)
        refused = send(caller, body)
        assert refused.status == 503
        assert "Send this one again" in refused.json()["detail"]
    assert send(caller, body).status == 200
    assert the_trace(caller)["id"]
