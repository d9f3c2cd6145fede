"""`/api/shadow-tests` and `/api/shadow-execution` (ThinkHive): replaying recorded traces against a fix."""

from fixloop import boot  # isort: skip
import secrets

from fixloop.errors import Invalid, NotFound, TimedOut, UpstreamFailed
from fixloop.http import Api, Reply, Request
from fixloop.rehearsal import LONGEST_EXECUTION, check, execute
from fixloop.shadow_tests import (
    MAX_SHOWN,
    OneShadowTest,
    PageOfResults,
    ShadowExecutionIn,
    ShadowExecutionShown,
    ShadowTest,
    ShadowTestIn,
    ShadowTestPatch,
    ShadowTestPatched,
    ShadowTestQuery,
    ShadowTestShown,
    TraceResultWhole,
    patch,
)
from fixloop.storage import fixes, traces
from fixloop.storage import shadow_tests as store
from fixloop.thinkhive import Many, One, PageQuery, identifier, many, one, placed
from fixloop.times import iso_s

handler = Api()


@handler.route("GET", "/api/shadow-tests", query=ShadowTestQuery, answers={200: Many[ShadowTestShown]})
def list_shadow_tests(request: Request) -> Reply:
    query = request.parameters(ShadowTestQuery)
    found, total = store.page(request.org, query)
    tallies = store.tallies(request.org, found)
    return Reply(200, many([test.listed(tally) for test, tally in zip(found, tallies, strict=True)], query, total))


@handler.route("POST", "/api/shadow-tests", body=ShadowTestIn, answers={201: One[ShadowTestShown]}, errors=(NotFound,))
def create_shadow_test(request: Request) -> Reply:
    given = request.model(ShadowTestIn)
    fix = fixes.find(request.org, given.fixId)
    check(request.org, given.config)
    if unknown := traces.missing(request.org, given.traceIds):
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise Invalid({"traceIds": [f"unknown: {', '.join(unknown[:20])}{more}"]})
    n, at = store.number(request.org, request.now)
    test_id = identifier("st", at, secrets.randbelow(36**4))
    test = ShadowTest(
        id=test_id,
        n=n,
        fix_id=fix.id,
        fix_type=fix.type,
        changes=fix.changes,
        issue_id=fix.issue_id,
        trace_count=len(given.traceIds),
        config=given.config,
        traces=store.keep_traces(request.org, test_id, given.traceIds),
        author=request.principal.user.ref,
        created_at=at,
        updated_at=at,
    )
    reply = Reply(201, one(test.created()))
    store.add(request.org, test, *request.keep(reply))
    return reply


@handler.route("GET", "/api/shadow-tests/<test_id>", query=PageOfResults, answers={200: OneShadowTest})
def get_shadow_test(request: Request, test_id: str) -> Reply:
    """The traces' results are shown a thousand at a time; `pagination` says whether there are more."""
    query = request.parameters(PageOfResults)
    test = store.find(request.org, test_id)
    shown = test.listed(store.tally(request.org, test))
    if test.status == "pending":
        return Reply(200, one(shown))
    found = store.results(request.org, test.id, query.start, query.start + query.limit - 1)
    lines = [line for outcome in found if (line := outcome.shown()) is not None]
    body = one(placed(shown, "createdAt", traceResults=lines))
    if test.trace_count > MAX_SHOWN or query.model_fields_set:
        body["pagination"] = many([None] * query.limit, query, test.trace_count)["pagination"]
    return Reply(200, body)


@handler.route("GET", "/api/shadow-tests/<test_id>/results", query=PageQuery, answers={200: Many[TraceResultWhole]})
def list_results(request: Request, test_id: str) -> Reply:
    """Every trace that has come to something, in the order asked for, with both answers."""
    query = request.parameters(PageQuery)
    test = store.find(request.org, test_id)
    found = store.results(request.org, test.id, query.start, query.start + query.limit - 1)
    body = many([outcome.whole() for outcome in found], query, test.trace_count)
    body["pagination"]["hasMore"] = query.start + query.limit < test.trace_count
    return Reply(200, body)


@handler.route("PATCH", "/api/shadow-tests/<test_id>", body=ShadowTestPatch, answers={200: One[ShadowTestPatched]})
def update_shadow_test(request: Request, test_id: str) -> Reply:
    given = request.model(ShadowTestPatch)
    test = store.change(request.org, test_id, lambda current: patch(current, given), request.now)
    return Reply(200, one(test.patched(store.tally(request.org, test))))


@handler.route(
    "POST",
    "/api/shadow-execution",
    body=ShadowExecutionIn,
    answers={200: One[ShadowExecutionShown]},
    errors=(NotFound, UpstreamFailed, TimedOut),
)
def execute_shadow(request: Request) -> Reply:
    given = request.model(ShadowExecutionIn)
    fix = fixes.find(request.org, given.fixId)
    trace = traces.find(request.org, given.traceId)
    check(request.org, given.config)
    result, took = execute(request.org, fix, trace, given.config, LONGEST_EXECUTION)
    return Reply(
        200,
        one(
            {
                "traceId": trace.id,
                "fixId": fix.id,
                "originalOutput": result.original_output,
                "fixedOutput": result.fixed_output,
                "verdict": result.verdict,
                "originalScore": result.original_score,
                "fixedScore": result.fixed_score,
                "explanation": result.explanation,
                "latencyMs": took,
                "executedAt": iso_s(request.now + took),
                "inputTokens": result.input_tokens,
                "outputTokens": result.output_tokens,
                "costEstimateUsd": result.cost_estimate,
            }
        ),
    )


boot.done()
