"""`/call-report` and `/call-requests` (GoMobile): calls are asked for, and reported attempt by attempt."""

from fixloop import boot  # isort: skip
import json
import uuid

from fixloop.call_reports import (
    ANSWER_BYTES,
    MAX_ATTEMPTS,
    AttemptIn,
    CallAttemptReport,
    CallRequested,
    CallRequestIn,
    JobReport,
    ReportElsewhere,
    attempt,
    final_outcome,
    is_identifier,
    job,
    job_report,
    present,
    refused,
    status,
)
from fixloop.calls import number
from fixloop.errors import Conflict, Invalid, NotFound
from fixloop.exact import Written
from fixloop.http import Api, Reply, Request, checked, parsed
from fixloop.storage import call_reports

handler = Api()


@handler.route("GET", "/call-report/<job_id>", answers={200: JobReport, 307: ReportElsewhere}, errors=(NotFound,))
@handler.route("GET", "/api/call-report/<job_id>")
def get_job_report(request: Request, job_id: str) -> Reply:
    known, attempts = call_reports.find(request.org, job_id, request.now) if is_identifier(job_id) else (None, [])
    state = status(known, attempts)
    if state is None:
        raise NotFound(f"Job {job_id} not found.")
    report = job_report(job_id, state, final_outcome(attempts), call_reports.texts(request.org, attempts))
    if len(report) <= ANSWER_BYTES and len(json.dumps(report)) <= ANSWER_BYTES:
        return Reply(200, report)
    message = "The report is too large for one answer. It lies at Location for 15 minutes."
    elsewhere: ReportElsewhere = {"statusCode": 307, "message": message}
    return Reply(307, elsewhere, {"Location": call_reports.lend(request.org, job_id, report)})


@handler.route("GET", "/call-report/call/<call_id>", answers={200: CallAttemptReport}, errors=(NotFound,))
@handler.route("GET", "/api/call-report/call/<call_id>")
def get_call_report(request: Request, call_id: str) -> Reply:
    if not is_identifier(call_id):
        raise NotFound(f"Call {call_id} not found.")
    kept = call_reports.of_call(request.org, call_id)
    return Reply(200, Written(call_reports.text(request.org, kept)))


@handler.route(
    "PUT",
    "/call-report/<job_id>/attempts/<attempt_number>",
    body=AttemptIn,
    answers={200: CallAttemptReport, 201: CallAttemptReport},
    errors=(Conflict,),
)
@handler.route("PUT", "/api/call-report/<job_id>/attempts/<attempt_number>")
def put_attempt(request: Request, job_id: str, attempt_number: str) -> Reply:
    place = number(attempt_number)
    if not is_identifier(job_id):
        raise Invalid({"jobId": ["must have 1 to 128 letters, digits and . _ : @ + -"]})
    if place is None or place > MAX_ATTEMPTS:
        raise Invalid({"attempt": [f"must be an integer from 1 to {MAX_ATTEMPTS}"]})
    given = present(parsed(request.raw, exact=True))
    if not isinstance(given, dict):
        raise Invalid(message="The body must be a JSON object.")
    checked(AttemptIn, given, strict=True)
    kept, created = call_reports.put(request.org, job_id, attempt(given, place), request.now, request.now)
    return Reply(201 if created else 200, Written(call_reports.text(request.org, kept)))


@handler.route("POST", "/call-requests", body=CallRequestIn, answers={202: CallRequested})
@handler.route("POST", "/api/call-requests")
def request_call(request: Request) -> Reply:
    try:
        given = request.model(CallRequestIn)
    except Invalid as error:
        raise refused(error) from None
    asked = job(str(uuid.uuid4()), given, request.now)
    queued: CallRequested = {"jobId": asked.id, "status": "queued"}
    reply = Reply(202, queued)
    call_reports.add_job(request.org, asked, request.now, *request.keep(reply))
    return reply


@handler.route("DELETE", "/call-requests/<job_id>", answers={204: None}, errors=(NotFound,))
@handler.route("DELETE", "/api/call-requests/<job_id>")
def cancel_call_request(request: Request, job_id: str) -> Reply:
    if not is_identifier(job_id):
        raise NotFound(f"Job {job_id} not found.")
    call_reports.cancel_job(request.org, job_id, request.now)
    return Reply(204)


boot.done()
