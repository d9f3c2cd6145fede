"""`/api/traces` (ThinkHive) and `/v1/traces` (OTLP over HTTP): recorded answers come in."""

from fixloop import boot  # isort: skip
import secrets
import zlib

from fixloop.errors import Invalid, TooLarge, Unavailable
from fixloop.http import Api, Reply, Request, parsed
from fixloop.otlp import Export, Exported, decoded, read
from fixloop.storage import traces as store
from fixloop.storage.dynamo import Contended
from fixloop.storage.lists import ORG, Filter
from fixloop.thinkhive import Many, One, identifier, many, one
from fixloop.traces import (
    TraceCreated,
    TraceIn,
    TraceListed,
    TraceQuery,
    TraceShown,
    created,
    detailed,
    id_of_otlp,
    received,
)

MAX_INFLATED = 8 * 1024 * 1024

handler = Api()


@handler.route("GET", "/api/traces", query=TraceQuery, answers={200: Many[TraceListed]})
def list_traces(request: Request) -> Reply:
    query = request.parameters(TraceQuery)
    wanted = Filter(
        ORG if query.agentId is None else f"agent#{query.agentId}",
        lambda code: query.outcome is None or code == store.LEAVES[query.outcome],
        query.startDate,
        query.endDate,
    )
    found, total = store.page(request.org, wanted, query.start, query.limit)
    return Reply(200, many(found, query, total))


@handler.route("POST", "/api/traces", body=TraceIn, answers={201: One[TraceCreated]})
def create_trace(request: Request) -> Reply:
    given = request.model(TraceIn)
    trace = received(identifier("tr", request.now, secrets.randbelow(36**4)), given, request.now)
    reply = Reply(201, one(created(trace, request.org)))
    store.add(request.org, trace, request.now, *request.keep(reply))
    return reply


@handler.route("GET", "/api/traces/<trace_id>", answers={200: One[TraceShown]})
def get_trace(request: Request, trace_id: str) -> Reply:
    return Reply(200, one(detailed(store.find(request.org, trace_id), request.org)))


@handler.route(
    "POST",
    "/v1/traces",
    body=Export,
    answers={200: Exported},
    errors=(Unavailable,),
    media=("application/json", "application/x-protobuf"),
)
def export_traces(request: Request) -> Reply:
    """An `ExportTraceServiceRequest`, JSON or protobuf by its content type, plain or gzip."""
    content = _inflated(request)
    protobuf = "protobuf" in request.headers.get("content-type", "")
    found = read(decoded(content) if protobuf else parsed(_text(content)))
    try:
        for trace in found:
            store.gather(request.org, id_of_otlp(request.org, trace.trace_id), trace.agent, trace.spans, request.now)
    except Contended:  # exporters send a batch again after a 503, and give it up after a 409
        raise Unavailable("Too many batches of one trace at once. Send this one again.") from None
    if protobuf:
        return Reply(200, None, {"Content-Type": "application/x-protobuf"})
    return Reply(200, {"partialSuccess": {}})


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Invalid(message="The body is not UTF-8.") from None


def _inflated(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("gzip", "deflate"):
        return request.content
    try:
        inflater = zlib.decompressobj(wbits=31 if encoding == "gzip" else zlib.MAX_WBITS)
        content = inflater.decompress(request.content, MAX_INFLATED)
    except zlib.error:
        raise Invalid(message=f"The body is not {encoding}.") from None
    if inflater.unconsumed_tail:
        raise TooLarge(f"The body has more than {MAX_INFLATED} bytes unpacked.")
    if not inflater.eof or inflater.unused_data:
        raise Invalid(message=f"The body is not one whole {encoding} stream.")
    return content


boot.done()
