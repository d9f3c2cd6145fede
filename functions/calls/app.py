"""`/v1/calls` (ThunderPhone): finished calls come in, and are shown with their transcript and grade."""

from fixloop import boot  # isort: skip
from typing import Any

from fixloop.calls import (
    CallIn,
    CallListed,
    CallPage,
    CallQuery,
    CallShown,
    GradeQuery,
    PathId,
    Standing,
    TranscriptShown,
    detailed,
    history,
    number,
    received,
    shown,
)
from fixloop.errors import Conflict, Invalid, NotFound
from fixloop.grades import GradeShown
from fixloop.http import Api, Reply, Request
from fixloop.observe import count
from fixloop.storage import calls
from fixloop.storage.dynamo import ConditionFailed

handler = Api()


def _found(request: Request, call_id: PathId) -> calls.Row:
    number_ = number(call_id)
    if number_ is None:
        raise NotFound(f"Call {call_id} not found.")
    return calls.find(request.org, number_)


def _shown(row: calls.Row) -> CallListed:
    return shown(row.record, row.standing)


@handler.route("GET", "/v1/calls", query=CallQuery, answers={200: CallPage})
def list_calls(request: Request) -> Reply:
    query = request.parameters(CallQuery)
    rows, total = calls.page(request.org, query)
    results = [_shown(row) for row in rows]
    return Reply(200, {"limit": query.limit, "offset": query.offset, "results": results, "total": total})


@handler.route("POST", "/v1/calls", body=CallIn, answers={201: CallShown})
def create_call(request: Request) -> Reply:
    given = request.model(CallIn)
    call_id, n = calls.numbered(request.org, request.now)
    call = received(call_id, given, request.now)
    reply = Reply(201, detailed(call.record, Standing(), call.body))
    try:
        calls.insert(request.org, call, request.now, *request.keep(reply), n=n)
    except ConditionFailed as refused:
        if refused.failed(1):
            raise
        raise Conflict("That call id was taken meanwhile. Try again.") from None
    count("CallsIngested")
    return reply


@handler.route("PUT", "/v1/calls/<call_id>", body=CallIn, answers={200: CallShown, 201: CallShown})
def put_call(request: Request, call_id: PathId) -> Reply:
    number_ = number(call_id)
    if number_ is None:
        raise Invalid({"call_id": ["must be an integer from 1 to 2^63 - 1"]})
    row, created = calls.put(request.org, number_, request.model(CallIn), request.now)
    if created:
        count("CallsIngested")
    return Reply(201 if created else 200, detailed(row.record, row.standing, calls.body(row)))


@handler.route("GET", "/v1/calls/<call_id>", answers={200: CallShown})
def get_call(request: Request, call_id: PathId) -> Reply:
    row = _found(request, call_id)
    return Reply(200, detailed(row.record, row.standing, calls.body(row)))


@handler.route("GET", "/v1/calls/<call_id>/transcript", answers={200: TranscriptShown})
def get_transcript(request: Request, call_id: PathId) -> Reply:
    row = _found(request, call_id)
    return Reply(200, {"call_id": row.call_id, "transcripts": calls.body(row).get("transcripts", [])})


@handler.route("GET", "/v1/calls/<call_id>/history", answers={200: list[dict[str, Any]]})
def get_history(request: Request, call_id: PathId) -> Reply:
    return Reply(200, history(calls.body(_found(request, call_id))))


@handler.route("GET", "/v1/calls/<call_id>/grade", answers={200: GradeShown})
def get_grade(request: Request, call_id: PathId) -> Reply:
    row = _found(request, call_id)
    grade = calls.grade(request.org, row.call_id)
    if grade is None:
        raise NotFound(f"Call {row.call_id} has no grade.")
    return Reply(200, grade.shown())


@handler.route("POST", "/v1/calls/<call_id>/grade", query=GradeQuery, answers={200: GradeShown, 201: GradeShown})
def post_grade(request: Request, call_id: PathId) -> Reply:
    row = _found(request, call_id)
    query = request.parameters(GradeQuery)
    from fixloop.loop import grade_call  # what makes a grade takes longer to load than all else here

    grade, made = grade_call(request.org, row.call_id, force=query.force, now=request.now)
    return Reply(201 if made else 200, grade.shown())


boot.done()
