"""`/v1/issue-reports` and `/v1/calls/{call_id}/issue-reports` (ThunderPhone): the feed, filing, and working it off."""

from fixloop import boot  # isort: skip

from fixloop.calls import PathId, number
from fixloop.errors import NotFound
from fixloop.http import Api, Reply, Request
from fixloop.issue_reports import BulkStatusChange, ReportIn, ReportQuery, ReportShown, StatusChange, Updated
from fixloop.observe import count
from fixloop.storage import calls, issue_reports
from fixloop.storage.dynamo import ConditionFailed

handler = Api()


def _call(request: Request, call_id: str) -> calls.Row:
    number_ = number(call_id)
    if number_ is None:
        raise NotFound(f"Call {call_id} not found.")
    return calls.find(request.org, number_)


@handler.route("GET", "/v1/issue-reports", query=ReportQuery, answers={200: list[ReportShown]})
def list_reports(request: Request) -> Reply:
    query = request.parameters(ReportQuery)
    return Reply(200, [report.shown() for report in issue_reports.page(request.org, query)])


@handler.route("PATCH", "/v1/issue-reports", body=BulkStatusChange, answers={200: Updated}, errors=(NotFound,))
def update_reports(request: Request) -> Reply:
    change = request.model(BulkStatusChange)
    reports = {report.id: report for report in (issue_reports.find(request.org, one) for one in change.trace_ids)}
    if change.pattern_key is not None:
        for number_ in issue_reports.of_pattern(request.org, change.pattern_key):
            if number_ not in reports:
                reports[number_] = issue_reports.find(request.org, str(number_))
    for report in reports.values():
        issue_reports.set_status(request.org, report, change.status, request.now)
    return Reply(200, {"updated": len(reports)})


@handler.route("GET", "/v1/issue-reports/<key>", answers={200: ReportShown})
def get_report(request: Request, key: str) -> Reply:
    return Reply(200, issue_reports.find(request.org, key).shown())


@handler.route("PATCH", "/v1/issue-reports/<key>", body=StatusChange, answers={200: ReportShown})
def update_report(request: Request, key: str) -> Reply:
    change = request.model(StatusChange)
    report = issue_reports.find(request.org, key)
    return Reply(200, issue_reports.set_status(request.org, report, change.status, request.now).shown())


@handler.route("GET", "/v1/calls/<call_id>/issue-reports", answers={200: list[ReportShown]})
def list_reports_of_call(request: Request, call_id: PathId) -> Reply:
    return Reply(200, [report.shown() for report in issue_reports.of_call(_call(request, call_id))])


@handler.route("POST", "/v1/calls/<call_id>/issue-reports", body=ReportIn, answers={200: ReportShown, 201: ReportShown})
def create_report(request: Request, call_id: PathId) -> Reply:
    said = request.model(ReportIn)
    call = _call(request, call_id)
    if said.source == "system" and said.detected_issue_ref in call.refs:
        alike = (one for one in issue_reports.of_call(call) if one.said.detected_issue_ref == said.detected_issue_ref)
        return Reply(200, next(one for one in alike if one.said.source == "system").shown())
    reports = issue_reports.prepare(call, [said], request.principal.user.id, request.now)
    reply = Reply(201, reports[0].shown())
    try:
        issue_reports.add(request.org, reports, *request.keep(reply))
    except ConditionFailed as refused:
        if request.kept and refused.failed(2):
            raise
        request.kept = False
        return create_report(request, call_id)
    count("ReportsFiled")
    return reply


boot.done()
