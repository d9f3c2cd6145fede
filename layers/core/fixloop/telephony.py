"""From a telephony system to the loop: its attempts are stored, become calls, and are looked at for patterns."""

from __future__ import annotations

from pydantic import ValidationError

from fixloop import attempts, times
from fixloop.attempts import Finding, Sighting
from fixloop.call_reports import AttemptIn, CallAttemptReport, Kept, attempt, is_identifier, present
from fixloop.errors import Invalid
from fixloop.events import CallAttemptCompleted, CallRequestFailed, Envelope
from fixloop.issue_reports import Report
from fixloop.loop import Malformed
from fixloop.observe import count
from fixloop.storage import call_reports, calls, issue_reports


def record_attempt(outer: Envelope, told: CallAttemptCompleted, now: int) -> tuple[Kept, bool]:
    """Stores what an event tells, unless something newer is known. Raises Malformed and Conflict."""
    if not is_identifier(told.job_id):
        raise Malformed("data.job_id: must have 1 to 128 letters, digits and . _ : @ + -")
    given = present(told.report)
    try:
        number = AttemptIn.model_validate(given, strict=True).attempt
        if number is None:
            raise Malformed("data.report.attempt: Field required")
        return call_reports.put(outer.org_id, told.job_id, attempt(given, number), _told_at(outer, now), now)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, ('data.report', *p['loc'])))}: {p['msg']}" for p in error.errors())
        raise Malformed("; ".join(problems)) from None
    except Invalid as refused:
        raise Malformed(f"data.report: {refused.message}") from None


def fail_job(outer: Envelope, told: CallRequestFailed, now: int) -> None:
    call_reports.fail_job(outer.org_id, told.job_id, told.reason, now)


def _told_at(outer: Envelope, now: int) -> int:
    """When an event happened, which is never later than now."""
    try:
        return min(times.parse(outer.time), now) if outer.time else now
    except ValueError:
        raise Malformed("time: must be an ISO 8601 date") from None


def follow_attempt(org: str, job_id: str, number: int, now: int) -> list[Report]:
    """Stores the call behind an attempt that has ended, and files what it shows together with others.

    Raises NotFound. Doing it again changes nothing.
    """
    kept = call_reports.attempt(org, job_id, number)
    if kept.live:
        return []
    report = attempts.report_of(call_reports.text(org, kept))
    if kept.joined is not None or attempts.is_a_call(report):
        _joined(org, kept, report, now)
    seen = attempts.sighting(kept, report)
    call_reports.see(org, seen)
    of_number = call_reports.of_number(org, seen.number, attempts.LOOKED_AT)
    of_flow = call_reports.of_flow(org, seen.flow_id, attempts.LOOKED_AT) if seen.flow_id else []
    filed = [one for finding in attempts.found(seen, of_number, of_flow) for one in _file(org, seen, finding, now)]
    if filed:
        count("ReportsFiled", len(filed))
    return filed


def _joined(org: str, kept: Kept, report: CallAttemptReport, now: int) -> int:
    """The number of the attempt's call, stored as the report has it now."""
    number = kept.joined if kept.joined is not None else call_reports.join(org, kept, calls.assign(org))
    _, created = calls.put(org, number, attempts.call_of(report), now)
    if created:
        count("CallsIngested")
    return number


def _file(org: str, seen: Sighting, finding: Finding, now: int) -> list[Report]:
    members = finding.members
    if finding.key is not None:
        members = (call_reports.claim(org, finding.key, seen),)
    filed: list[Report] = []
    for member in members:
        kept = call_reports.attempt(org, member.job_id, member.attempt)
        number = kept.joined
        if number is None:
            number = _joined(org, kept, attempts.report_of(call_reports.text(org, kept)), now)
        filed += issue_reports.file_system(org, number, [finding.said], now)
    return filed
