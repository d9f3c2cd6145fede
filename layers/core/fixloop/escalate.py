"""From the loop to triage and back: issues opened for what the loop finds, and both sides closed together."""

from __future__ import annotations

from dataclasses import dataclass

from fixloop import gather
from fixloop.errors import NotFound
from fixloop.events import TriageIssueClosed
from fixloop.grouping import Member
from fixloop.issue_reports import Report
from fixloop.issues import Issue as LoopIssue
from fixloop.storage import app_issues, calls, issues, platform, traces, triage
from fixloop.triage.escalation import EVIDENCE, flag, of_issue, of_report
from fixloop.triage.evidence import FlagIn
from fixloop.triage.issues import ENDED, Issue, IssueIn


@dataclass(frozen=True)
class Found:
    """What an issue is opened with, or is added to one that is there: its text, and its evidence."""

    given: IssueIn
    call_ids: list[int]
    flags: list[FlagIn]

    def put(self, org: str, key: str, now: int, loop_issue_id: str | None = None) -> Issue | None:
        """None where somebody has deleted what was opened for this key."""
        return triage.open_from(
            org, key, self.given, now, call_ids=self.call_ids, flags=self.flags, loop_issue_id=loop_issue_id
        )


def open_for_issue(org: str, issue_id: str, now: int) -> Issue | None:
    """The triage issue for an issue that has opened, once, if the organisation wants it."""
    issue = issues.look(org, issue_id)
    mark = f"issue#{issue_id}"
    if issue is None or not platform.org_settings(org, now).triage or triage.handled(org, mark):
        return None
    members = _members_of(org, issue)
    flags = _flags(org, members, next(iter(issue.tags), None))
    call_ids = [one.call_id for one in members if one.call_id is not None]
    card = _of_issue(org, issue, Found(of_issue(issue), call_ids, flags), now)
    triage.note_handled(org, mark)
    return card


def open_for_report(org: str, report: Report, now: int) -> Issue | None:
    """The triage issue for a critical report, if the organisation wants it: that of its group, or one of its own."""
    mark = f"report#{report.trace_id}"
    if report.said.severity != "critical" or not platform.org_settings(org, now).triage or triage.handled(org, mark):
        return None
    row = calls.find(org, report.call_id)
    joining = gather.of_report(org, report, now)
    member = joining.member if joining else gather.member_of(row, calls.body(row), report)
    found = Found(of_report(report), [report.call_id], _flags(org, [member], report.said.detected_issue_ref))
    group = joining.fingerprint.group if joining else None
    known = issues.group(org, group).issue_id if group else None
    issue = issues.look(org, known) if known else None
    if issue:
        card = _of_issue(org, issue, found, now)
    else:
        waiting = triage.find_from(org, f"group#{group}") if group else None
        ended = waiting is not None and waiting.status in ENDED
        card = found.put(org, mark if group is None or ended else f"group#{group}", now)
    triage.note_handled(org, mark)
    return card


def _of_issue(org: str, issue: LoopIssue, found: Found, now: int) -> Issue | None:
    """The triage issue that stands for an issue of the loop, with what was found in it.

    When all that stood for it have ended and it has come back since, there is another one for each time it did.
    """
    cards = triage.of_loop_issue(org, issue.id)
    live = next((card for card in cards if card.status not in ENDED), None)
    if live is None and cards and issue.status == "closed":
        live = cards[-1]
    if live is not None and live.natural_key:
        card = found.put(org, live.natural_key, now)
    elif cards:
        card = found.put(org, f"issue#{issue.id}#{issue.closed_at or 0}", now, issue.id)
    else:
        card = _first_of_issue(org, issue, found, now)
    current = issues.look(org, issue.id)  # it may have been closed before there was anything to close with it
    if card and current and current.status == "closed":
        return triage.move_forward(org, card.id, "done", now, current.closed_at)
    return card


def _first_of_issue(org: str, issue: LoopIssue, found: Found, now: int) -> Issue | None:
    """That of the issue's group, which may have been opened before it, unless that one has ended or is another's."""
    if issue.group:
        key = f"group#{issue.group}"
        card = triage.find_from(org, key)
        if card is None or card.loop_issue_id == issue.id or (card.loop_issue_id is None and card.status not in ENDED):
            card = found.put(org, key, now, issue.id)
            card = card and triage.stand_for(org, card.id, issue.id)
            if card is None or card.loop_issue_id == issue.id:
                return card
    return found.put(org, f"issue#{issue.id}", now, issue.id)


def _members_of(org: str, issue: LoopIssue) -> list[Member]:
    """What the issue's group, or else its traces, tell of calls."""
    if issue.group:
        return [Member.model_validate(one) for one in issues.members(org, issue.group, EVIDENCE)]
    linked = traces.find_many(org, issues.trace_ids(org, issue.id)[:EVIDENCE])
    return [
        Member(
            call_id=trace.call_id,
            trace_id=trace.id,
            turn=trace.turn_index,
            at=trace.created_at,
            severity=issue.severity,
            title=issue.title,
            description="",
        )
        for trace in sorted(linked.values(), key=lambda trace: (trace.created_at, trace.id))
    ]


def _flags(org: str, members: list[Member], pattern: str | None) -> list[FlagIn]:
    found = []
    for member in members:
        if member.call_id is None or member.turn is None:
            continue
        try:
            rows = calls.body(calls.find(org, member.call_id)).get("transcripts", [])
        except NotFound:
            continue
        made = flag(member, pattern, rows)
        if made:
            found.append(made)
    return found


# Closing


def follow_issue(org: str, issue_id: str, now: int) -> int:
    """Closes what stands for a closed issue of the loop, or is part of it, and gives how many there are.

    Only what was there when the issue was closed; each closing counts once, so what people open again stays open.
    """
    issue = issues.look(org, issue_id)
    if issue is None or issue.status != "closed" or issue.closed_at is None:
        return 0
    cards = [card for card in triage.of_loop_issue(org, issue.id) if card.created_at <= issue.closed_at]
    for card in cards:
        triage.move_forward(org, card.id, "done", now, issue.closed_at)
    reported = [one for one in app_issues.of_issue(org, issue.id) if one.created_at <= issue.closed_at]
    for one in reported:
        app_issues.close(org, one.id, issue.closed_at, now)
    return len(cards) + len(reported)


def follow_triage_issue(org: str, told: TriageIssueClosed, now: int) -> LoopIssue | None:
    """Closes the loop's issue behind a triage issue that people have closed, unless it was closed since then."""
    if told.followed or told.issue_id is None:
        return None
    card = triage.look(org, told.triage_issue_id)
    if card and card.status not in ENDED:
        return None

    def closing(issue: LoopIssue) -> dict[str, str]:
        return {} if (issue.closed_at or 0) >= told.closed_at else {"status": "closed"}

    try:
        closed = issues.change(org, told.issue_id, closing, max(now, told.closed_at))
    except NotFound:
        return None
    if card and closed.status == "closed":
        triage.move_forward(org, card.id, card.status, now, closed.closed_at)
    return closed
