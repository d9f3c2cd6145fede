"""OpenTelemetry's own exporter, pointed at the deployed stack."""

from __future__ import annotations

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.test_otlp import conversation
from deployed.world import Caller, World
from fixloop.traces import id_of_otlp

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]


def exporter(world: World, key: str, compression: Compression = Compression.Gzip) -> OTLPSpanExporter:
    session = requests.Session()
    session.trust_env = False
    url, headers = f"{world.stack.url}/v1/traces", {"authorization": f"Bearer {key}"}
    return OTLPSpanExporter(url, headers=headers, compression=compression, session=session, timeout=20)


@pytest.mark.parametrize("compression", [Compression.Gzip, Compression.NoCompression])
def test_what_the_real_exporter_sends_is_listed_as_a_trace(
    world: World, caller: Caller, compression: Compression
) -> None:
    otlp_id = conversation(BatchSpanProcessor(exporter(world, caller.key, compression)))
    page = caller.get("/api/traces", agentId="support-bot")
    assert page["pagination"]["total"] == 1
    (listed,) = page["data"]
    assert listed["id"] == id_of_otlp(caller.org, otlp_id)
    trace = caller.get(f"/api/traces/{listed['id']}")["data"]
    assert (trace["userMessage"], trace["agentResponse"]) == ("How long do I have?", "60 days.")
    assert trace["systemPrompt"] == "Use the knowledge base."
    assert [document["text"] for document in trace["context"]] == ["Refunds are possible within 30 days."]
    assert trace["spanCount"] == 3


def test_a_wrong_key_is_told_to_the_exporter_and_the_same_spans_again_are_one_trace(
    world: World, caller: Caller
) -> None:
    memory = InMemorySpanExporter()
    conversation(SimpleSpanProcessor(memory))
    spans = memory.get_finished_spans()
    assert exporter(world, "thk_wrong").export(spans) is SpanExportResult.FAILURE
    assert caller.get("/api/traces")["pagination"]["total"] == 0
    sender = exporter(world, caller.key)
    for part in (spans[:1], spans, spans):
        assert sender.export(part) is SpanExportResult.SUCCESS
    assert caller.get("/api/traces")["pagination"]["total"] == 1
