"""From calls to issues: a trace for every agent turn, reports and app issues in groups, an issue from enough alike."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fixloop import grouping, thinkhive, traces
from fixloop.agents import Content
from fixloop.app_issues import AppIssue
from fixloop.errors import NotFound
from fixloop.grouping import Fingerprint, Member
from fixloop.issue_reports import Report
from fixloop.issues import Issue, Metadata
from fixloop.observe import count
from fixloop.settings import settings
from fixloop.storage import agents, app_issues, call_reports, calls, issue_reports, issues, platform
from fixloop.storage import traces as trace_store
from fixloop.storage.dynamo import ConditionFailed
from fixloop.traces import Trace

_OTLP_ID = re.compile(r"[0-9a-fA-F]{32}")


def record_traces(org: str, call_id: int, now: int) -> list[Trace]:
    """A trace for every agent turn of a call, under ids that stay the same. Raises NotFound."""
    row = calls.find(org, call_id)
    body = calls.body(row)
    agent_id, version, content = _agent(row, body, now)
    made = traces.of_call(
        org,
        row.call_id,
        body,
        agent_id=agent_id,
        created_at=row.place.t,
        agent_version=version,
        model=content.model if content else None,
        parameters=traces.Parameters.model_validate(content.parameters) if content else None,
    )
    for trace in made:
        trace_store.add(org, trace, now)
    return made


def _agent(row: calls.Row, body: dict[str, Any], now: int) -> tuple[str, int | None, Content | None]:
    if row.agent_id is None:
        return grouping.UNASSIGNED, None, None
    agent = agents.ensure(row.org, row.agent_id, body.get("prompt_snapshot", ""), now)
    return agent.id, agent.version, agent.content


@dataclass(frozen=True)
class Joining:
    """Something that joins a group: which one, what it brings, and when it was filed (ms)."""

    fingerprint: Fingerprint
    agent_id: str
    member: Member
    tags: Sequence[str]
    filed_at: int


def group_report(org: str, report: Report, now: int) -> Issue | None:
    """Puts a report in its group; the issue of that group, which enough alike open. Repeats change nothing."""
    joining = of_report(org, report, now)
    if joining is None:
        return None
    issue_reports.join_pattern(org, report)

    def resolve(issue: Issue) -> None:
        if report.created_at <= (issue.resolved_through or 0):  # filed before the fix, grouped after it
            issue_reports.set_status(org, report, "resolved", now)

    return _grouped(org, joining, resolve, now)


def of_report(org: str, report: Report, now: int) -> Joining | None:
    """What a report joins; None for one that stands alone. Raises NotFound when its call is gone."""
    row = calls.find(org, report.call_id)
    body = calls.body(row)
    agent_id, _, _ = _agent(row, body, now)
    fingerprint = grouping.fingerprint(report, agent_id)
    if fingerprint is None:
        return None
    tags = grouping.tags(report.said.detected_issue_ref or "")
    return Joining(fingerprint, agent_id, member_of(row, body, report), tags, report.created_at)


def member_of(row: calls.Row, body: dict[str, Any], report: Report) -> Member:
    said = report.said
    turn = grouping.failing_turn(body.get("transcripts", []), said.failing_turn_index, said.timestamp_seconds)
    outbound = row.record["direction"] == "outbound"
    return Member(
        report_id=report.id,
        call_id=row.call_id,
        trace_id=None if turn is None else traces.id_of_turn(row.org, row.call_id, turn),
        turn=turn,
        at=row.place.t,
        customer=row.record["to_number" if outbound else "from_number"],
        severity=grouping.severity(report),
        title=said.title,
        description=said.description or said.evidence,
    )


def group_app_issue(org: str, app_issue_id: str, now: int) -> Issue | None:
    """Puts an app issue about a recorded answer in its group, and makes it part of the group's issue.

    None as long as there is no issue, for a deleted one, and where nothing is known of the thread. Repeats change
    nothing.
    """
    app_issue = app_issues.look(org, app_issue_id)
    trace = reported_trace(org, app_issue) if app_issue else None
    if app_issue is None or trace is None:
        return None
    issues.about_app_issue(org, trace.id, app_issue.id)
    title, severity = grouping.complaint(app_issue)
    member = Member(
        app_issue_id=app_issue.id,
        call_id=trace.call_id,
        thread_id=app_issue.config.thread_id if app_issue.config else None,
        trace_id=trace.id,
        turn=trace.turn_index,
        at=trace.created_at,
        customer=app_issue.author.ref,
        severity=severity,
        title=title,
        description=app_issue.description,
    )
    fingerprint = grouping.fingerprint_of_app_issue(app_issue, trace.agent_id)
    tags = ["app-issue", app_issue.type]
    return _grouped(
        org,
        Joining(fingerprint, trace.agent_id, member, tags, app_issue.created_at),
        lambda issue: _bind(org, fingerprint.group, issue, app_issue.id, now),
        now,
    )


def reported_trace(org: str, app_issue: AppIssue) -> Trace | None:
    """The trace an app issue is about: the reported answer, else the thread, else the last one of that session."""
    if app_issue.config is None:
        return None
    named = [app_issue.config.reported_interaction_id, app_issue.config.thread_id]
    for one in filter(None, named):
        ids = [one, *([traces.id_of_otlp(org, one.lower())] if _OTLP_ID.fullmatch(one) else [])]
        for trace_id in ids:
            if found := trace_store.look(org, trace_id):
                return found
    latest = trace_store.last_of_session(org, app_issue.config.thread_id)
    return trace_store.look(org, latest) if latest else None


def _grouped(org: str, joining: Joining, join_issue: Callable[[Issue], None], now: int) -> Issue | None:
    """`join_issue` is what else makes the member part of the issue, once there is one."""
    group, member = joining.fingerprint.group, joining.member
    new = issues.join(
        org,
        group,
        joining.fingerprint.why,
        member.key,
        member.model_dump(exclude_none=True),
        member.at,
        member.customer,
    )
    if not new:
        known = issues.group(org, group).issue_id
        return issues.look(org, known) if known else None
    if member.call_id is not None:
        _count_cost(org, group, member.call_id)
    issue = _placed(org, joining, now)
    if issue is not None:
        join_issue(issue)
    issues.taken(org, group, member.key)
    return issue


def _placed(org: str, joining: Joining, now: int) -> Issue | None:
    group = issues.group(org, joining.fingerprint.group)
    if group.issue_id is None or issues.look(org, group.issue_id) is None:
        threshold = platform.org_settings(org, now).grouping_threshold or settings().grouping_threshold
        if group.members < threshold:
            return None
        opened = _open(org, joining, group, now)
        if opened is not None:
            return opened
        group = issues.group(org, joining.fingerprint.group)
    return _extend(org, joining, group.issue_id or "", now)


def _open(org: str, joining: Joining, group: issues.Group, now: int) -> Issue | None:
    """The new issue with all members' traces, or None when another run opened one first."""
    name, why = joining.fingerprint.group, joining.fingerprint.why
    everyone = [Member.model_validate(one) for one in issues.all_members(org, name)]
    n, at = issues.number(org, now)
    linked = list(dict.fromkeys(one.trace_id for one in everyone if one.trace_id))
    issue = Issue(
        id=thinkhive.identifier("iss", at, secrets.randbelow(36**4)),
        n=n,
        title=everyone[0].title,
        description=grouping.described(everyone, why),
        severity=grouping.worst([one.severity for one in everyone]),
        status="open",
        agent_id=joining.agent_id,
        tags=list(joining.tags),
        metadata=_metadata(group),
        group=name,
        created_at=at,
        updated_at=at,
    )
    try:
        opened = issues.add(org, issue, linked, issues.bind(org, name, issue.id, group.issue_id))
    except ConditionFailed:
        return None
    count("IssuesOpened")
    return opened


def _extend(org: str, joining: Joining, issue_id: str, now: int) -> Issue:
    """The issue with one more member in it; a closed one whose pattern has come back is open again."""
    if joining.member.trace_id:
        issues.link(org, issue_id, joining.member.trace_id, now)

    def grown(issue: Issue) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "metadata": _metadata(issues.group(org, joining.fingerprint.group)),
            "severity": grouping.worst([issue.severity, joining.member.severity]),
        }
        if issue.status == "closed" and joining.filed_at > (issue.closed_at or 0):
            fields["status"] = "open"
        return fields

    return issues.change(org, issue_id, grown, now)


def _metadata(group: issues.Group) -> Metadata:
    return Metadata(
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        customers=group.customers,
        confidence=1.0,
        cost=group.cost,
    )


def _bind(org: str, group: str, issue: Issue, app_issue_id: str, now: int) -> None:
    """Makes an app issue part of an issue, and with the first of them all that were in the group before."""
    waiting = [app_issue_id]
    if issues.group(org, group).bound != issue.id:
        waiting = [one["app_issue_id"] for one in issues.all_members(org, group) if "app_issue_id" in one]
    for one in waiting:
        app_issues.bind(org, one, issue.id)
    current = issues.look(org, issue.id)
    if current and current.status == "closed" and current.closed_at:
        for one in waiting:
            app_issues.close(org, one, current.closed_at, now)
    issues.bound(org, group, issue.id)


# Costs


def _count_cost(org: str, group: str, call_id: int) -> bool:
    cost = call_reports.cost_of_call(org, call_id)
    return cost is not None and issues.count_cost(org, group, call_id, cost)


def count_attempt(org: str, job_id: str, attempt: int, now: int) -> int:
    """Brings what an attempt's call cost into the issues that it is part of, and gives how many sums have changed.

    For a cost that is told, or told anew, after the call's reports were grouped. Repeats change nothing.
    """
    call_id = call_reports.attempt(org, job_id, attempt).joined
    if call_id is None:  # its reports are still to come, and its cost with them
        return 0
    try:
        row = calls.find(org, call_id)
    except NotFound:
        return 0
    groups = {
        joining.fingerprint.group
        for report in issue_reports.of_call(row)
        if (joining := of_report(org, report, now)) is not None
    }
    changed = [group for group in groups if issues.group(org, group).members and _count_cost(org, group, call_id)]
    for group in groups:
        _retell(org, group, now)
    return len(changed)


def _retell(org: str, group: str, now: int) -> None:
    """Brings what is known of a group's calls into its issue."""
    issue_id = issues.group(org, group).issue_id
    if issue_id and issues.look(org, issue_id):
        issues.change(org, issue_id, lambda _: {"metadata": _metadata(issues.group(org, group))}, now)
