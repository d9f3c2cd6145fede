"""`/v1/calls` (ThunderPhone): finished calls come in, and are shown with their transcript and grade."""

from fixloop import boot  # isort: skip
from typing import Any

from fixloop.calls import CallIn, CallQuery, Standing, detailed, history, number, received, shown
from fixloop.errors import Conflict, Invalid, NotFound
from fixloop.http import AlreadyAnswered, Api, Reply, Request
from fixloop.observe import count
from fixloop.storage import calls
from fixloop.storage.dynamo import ConditionFailed

handler = Api()


def _found(request: Request, call_id: str) -> calls.Row:
    number_ = number(call_id)
    if number_ is None:
        raise NotFound(f"Call {call_id} not found.")
    return calls.find(request.org, number_)


def _shown(row: calls.Row) -> dict[str, Any]:
    return shown(row.record, row.standing)


@handler.route("GET", "/v1/calls")
def list_calls(request: Request) -> Reply:
    query = request.parameters(CallQuery)
    rows, total = calls.page(request.org, query)
    results = [_shown(row) for row in rows]
    return Reply(200, {"limit": query.limit, "offset": query.offset, "results": results, "total": total})


@handler.route("POST", "/v1/calls")
def create_call(request: Request) -> Reply:
    given = request.model(CallIn)
    call = received(calls.assign(request.org), given, request.now)
    reply = Reply(201, detailed(call.record, Standing(), call.body))
    try:
        calls.insert(request.org, call, request.now, *request.keep(reply))
    except ConditionFailed as refused:
        if refused.failed(1):
            raise AlreadyAnswered from None
        raise Conflict("That call id was taken meanwhile. Try again.") from None
    count("CallsIngested")
    return reply


@handler.route("PUT", "/v1/calls/<call_id>")
def put_call(request: Request, call_id: str) -> Reply:
    number_ = number(call_id)
    if number_ is None:
        raise Invalid({"call_id": ["must be an integer from 1 to 2^63 - 1"]})
    row, created = calls.put(request.org, number_, request.model(CallIn), request.now)
    if created:
        count("CallsIngested")
    return Reply(201 if created else 200, detailed(row.record, row.standing, calls.body(row)))


@handler.route("GET", "/v1/calls/<call_id>")
def get_call(request: Request, call_id: str) -> Reply:
    row = _found(request, call_id)
    return Reply(200, detailed(row.record, row.standing, calls.body(row)))


@handler.route("GET", "/v1/calls/<call_id>/transcript")
def get_transcript(request: Request, call_id: str) -> Reply:
    row = _found(request, call_id)
    return Reply(200, {"call_id": row.call_id, "transcripts": calls.body(row).get("transcripts", [])})


@handler.route("GET", "/v1/calls/<call_id>/history")
def get_history(request: Request, call_id: str) -> Reply:
    return Reply(200, history(calls.body(_found(request, call_id))))


@handler.route("GET", "/v1/calls/<call_id>/grade")
def get_grade(request: Request, call_id: str) -> Reply:
    row = _found(request, call_id)
    grade = calls.grade(request.org, row.call_id)
    if grade is None:
        raise NotFound(f"Call {row.call_id} has no grade.")
    return Reply(200, grade.shown())


@handler.route("POST", "/v1/calls/<call_id>/grade")
def post_grade(request: Request, call_id: str) -> Reply:
    row = _found(request, call_id)
    force = request.query.get("force", ["false"])[-1].lower()
    if force not in ("true", "false", "1", "0"):
        raise Invalid({"force": ["must be true or false"]})
    from fixloop.loop import grade_call  # what makes a grade takes longer to load than all else here

    grade, made = grade_call(request.org, row.call_id, force=force in ("true", "1"), now=request.now)
    return Reply(201 if made else 200, grade.shown())


boot.done()
