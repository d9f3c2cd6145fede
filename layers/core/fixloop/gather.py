"""From calls to issues: a trace for every agent turn, reports in groups, an issue from the third alike on."""

from __future__ import annotations

import secrets
from typing import Any

from fixloop import grouping, thinkhive, traces
from fixloop.agents import Content
from fixloop.grouping import Fingerprint, Member
from fixloop.issue_reports import Report
from fixloop.issues import Issue, Metadata
from fixloop.observe import count
from fixloop.storage import agents, calls, issue_reports, issues
from fixloop.storage import traces as trace_store
from fixloop.storage.dynamo import ConditionFailed
from fixloop.traces import Trace


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


def group_report(org: str, report: Report, now: int) -> Issue | None:
    """Puts a report in its group; the issue of that group, which the third alike opens. Repeats change nothing."""
    row = calls.find(org, report.call_id)
    body = calls.body(row)
    agent_id, _, _ = _agent(row, body, now)
    fingerprint = grouping.fingerprint(report, agent_id)
    if fingerprint is None:
        return None
    issue_reports.join_pattern(org, report)
    member = _member(row, body, report)
    joined = issues.join(
        org, fingerprint.group, fingerprint.why, report.id, member.model_dump(), row.place.t, member.customer
    )
    if not joined:
        bound = issues.group(org, fingerprint.group).issue_id
        return issues.look(org, bound) if bound else None
    issue = _placed(org, fingerprint, agent_id, member, report, now)
    issues.taken(org, fingerprint.group, report.id)
    return issue


def _placed(
    org: str, fingerprint: Fingerprint, agent_id: str, member: Member, report: Report, now: int
) -> Issue | None:
    group = issues.group(org, fingerprint.group)
    if group.issue_id is None or issues.look(org, group.issue_id) is None:
        if group.members < grouping.THRESHOLD:
            return None
        opened = _open(org, fingerprint, group, agent_id, report, now)
        if opened is not None:
            return opened
        group = issues.group(org, fingerprint.group)
    return _extend(org, fingerprint, group.issue_id or "", member, report, now)


def _member(row: calls.Row, body: dict[str, Any], report: Report) -> Member:
    said = report.said
    turn = grouping.failing_turn(body.get("transcripts", []), said.failing_turn_index, said.timestamp_seconds)
    outbound = row.record["direction"] == "outbound"
    return Member(
        report_id=report.id,
        call_id=row.call_id,
        trace_id=None if turn is None else traces.id_of_turn(row.org, row.call_id, turn),
        at=row.place.t,
        customer=row.record["to_number" if outbound else "from_number"],
        severity=grouping.severity(report),
        title=said.title,
        description=said.description or said.evidence,
    )


def _open(
    org: str, fingerprint: Fingerprint, group: issues.Group, agent_id: str, report: Report, now: int
) -> Issue | None:
    """The new issue, or None when another run opened one first."""
    members = [Member.model_validate(one) for one in issues.members(org, fingerprint.group, 100)]
    n, at = issues.number(org, now)
    linked = list(dict.fromkeys(one.trace_id for one in members if one.trace_id))
    issue = Issue(
        id=thinkhive.identifier("iss", at, secrets.randbelow(36**4)),
        n=n,
        title=members[0].title,
        description=grouping.described(members, fingerprint.why),
        severity=grouping.worst([one.severity for one in members]),
        status="open",
        agent_id=agent_id,
        tags=grouping.tags(report.said.detected_issue_ref or ""),
        metadata=_metadata(group),
        group=fingerprint.group,
        created_at=at,
        updated_at=at,
    )
    try:
        opened = issues.add(org, issue, linked, issues.bind(org, fingerprint.group, issue.id, group.issue_id))
    except ConditionFailed:
        return None
    count("IssuesOpened")
    return opened


def _extend(org: str, fingerprint: Fingerprint, issue_id: str, member: Member, report: Report, now: int) -> Issue:
    """The issue with one more report in it; a closed one whose pattern has come back is open again."""
    if member.trace_id:
        issues.link(org, issue_id, member.trace_id, now)

    def grown(issue: Issue) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "metadata": _metadata(issues.group(org, fingerprint.group)),
            "severity": grouping.worst([issue.severity, member.severity]),
        }
        if issue.status == "closed" and report.created_at > (issue.closed_at or 0):
            fields["status"] = "open"
        return fields

    return issues.change(org, issue_id, grown, now)


def _metadata(group: issues.Group) -> Metadata:
    return Metadata(first_seen=group.first_seen, last_seen=group.last_seen, customers=group.customers, confidence=1.0)
