"""Everything that is tied to an object, across the five APIs: read from where it is kept, a bounded part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast
from urllib.parse import quote

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fixloop import gather, grouping, traces
from fixloop.call_reports import Kept
from fixloop.calls import CallQuery, number
from fixloop.errors import NotFound
from fixloop.fixes import Fix, FixQuery
from fixloop.grouping import Member
from fixloop.issue_reports import Report, ReportQuery
from fixloop.issues import IssueQuery, id_of
from fixloop.shadow_tests import ShadowTestQuery
from fixloop.storage import (
    agents,
    app_issues,
    call_reports,
    calls,
    fixes,
    issue_reports,
    issues,
    shadow_tests,
    triage,
)
from fixloop.storage import traces as trace_store
from fixloop.storage.lists import Filter
from fixloop.storage.triage import evidence, rows

Kind = Literal[
    "call",
    "report",
    "issue",
    "trace",
    "fix",
    "shadow_test",
    "agent",
    "triage_issue",
    "app_issue",
    "call_report",
    "job",
]
MOST = 100
FIXES = 10  # of an issue whose shadow tests are looked up

_URLS: dict[Kind, str] = {
    "call": "/v1/calls/{}",
    "report": "/v1/issue-reports/{}",
    "issue": "/api/v2/issues/{}",
    "trace": "/api/traces/{}",
    "fix": "/api/fixes/{}",
    "shadow_test": "/api/shadow-tests/{}",
    "agent": "/api/agents/{}",
    "triage_issue": "/v1/triage/issues/{}",
    "app_issue": "/api/v1/app/issue/{}",
    "call_report": "/call-report/call/{}",
    "job": "/call-report/{}",
}


class LinksQuery(BaseModel):
    """`limit` is how many links of each kind are shown."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 50


class Link(TypedDict):
    """Something tied to an object, and the path under which it is read."""

    kind: Kind
    id: str
    url: str


class Linked(Link):
    """An object with what is tied to it, kind by kind. `more` names the kinds of which there are others."""

    links: list[Link]
    more: list[Kind]


def link(kind: Kind, object_id: object) -> Link:
    return {"kind": kind, "id": str(object_id), "url": _URLS[kind].format(quote(str(object_id), safe=""))}


@dataclass
class Found:
    """What is tied to one object, in the order it was found; up to `limit` of each kind, and which have `more`."""

    org: str
    limit: int
    now: int
    ids: dict[Kind, dict[str, None]] = field(default_factory=dict)
    more: set[Kind] = field(default_factory=set)

    def add(self, kind: Kind, ids: Iterable[str | int | None], *, more: bool = False) -> None:
        """Takes what there is room for; None is nothing."""
        held = self.ids.setdefault(kind, {})
        for one in ids:
            if one is None or str(one) in held:
                continue
            if len(held) == self.limit:
                more = True
                break
            held[str(one)] = None
        if more:
            self.more.add(kind)

    def shown(self, kind: Kind, object_id: str) -> Linked:
        return {
            **link(kind, object_id),
            "links": [
                link(other, one)
                for other in _READERS
                for one in self.ids.get(other, ())
                if (other, one) != (kind, object_id)
            ],
            "more": [other for other in _READERS if other in self.more],
        }


def linked(org: str, kind: str, key: str, limit: int, now: int) -> Linked:
    """Raises NotFound, for an unknown kind too."""
    read = _READERS.get(cast(Kind, kind))
    if read is None:
        raise NotFound(f"There are no links of {kind}: the kinds are {', '.join(_READERS)}.")
    found = Found(org, limit, now)
    object_id = read(found, key)
    return found.shown(cast(Kind, kind), object_id)


# What each kind is tied to. A reader gives the object's own id, and raises NotFound.


def _call(found: Found, key: str) -> str:
    call_id = number(key)
    if call_id is None:
        raise NotFound(f"Call {key} not found.")
    row = calls.find(found.org, call_id)
    body = calls.body(row)
    agent_id = _agent_of(found, row.agent_id)
    spoken = (at for at, said in enumerate(body.get("transcripts", [])) if traces.is_agent(said.get("role")))
    turns = [traces.id_of_turn(found.org, call_id, at) for at, _ in zip(spoken, range(found.limit + 1), strict=False)]
    found.add("trace", _there(found, turns))
    newest = sorted(row.report_ids, reverse=True)
    found.add("report", newest)
    _grouped(found, issue_reports.find_many(found.org, newest[: found.limit]), agent_id)
    _attempt_of(found, call_reports.of_loop_call(found.org, call_id))
    return str(call_id)


def _report(found: Found, key: str) -> str:
    report = issue_reports.find(found.org, key)
    row = calls.find(found.org, report.call_id)
    found.add("call", [report.call_id])
    member = gather.member_of(row, calls.body(row), report)
    found.add("trace", _there(found, [member.trace_id] if member.trace_id else []))
    _grouped(found, [report], _agent_of(found, row.agent_id))
    return str(report.id)


def _issue(found: Found, key: str) -> str:
    issue = issues.find(found.org, id_of(key))
    if issue.group:
        members = [Member.model_validate(one) for one in issues.members(found.org, issue.group, found.limit + 1)]
        found.add("report", (member.report_id for member in members))
        found.add("call", (member.call_id for member in members))
    found.add("trace", issues.some_trace_ids(found.org, issue.id, found.limit + 1))
    proposed, total = fixes.page(found.org, FixQuery(issueId=issue.id, limit=found.limit))
    found.add("fix", [fix.id for fix in proposed], more=total > found.limit)
    for fix in proposed[:FIXES]:
        _tests_of(found, fix)
    found.add("agent", [issue.agent_id] if agents.look(found.org, issue.agent_id) else [])
    _standing_for(found, issue.id)
    found.add("app_issue", (one.id for one in app_issues.of_issue(found.org, issue.id, found.limit + 1)))
    return issue.id


def _trace(found: Found, key: str) -> str:
    trace = trace_store.find(found.org, key)
    found.add("agent", [trace.agent_id] if agents.look(found.org, trace.agent_id) else [])
    found.add("issue", issues.of_trace(found.org, trace.id, "issue", found.limit + 1))
    found.add("app_issue", issues.of_trace(found.org, trace.id, "app_issue", found.limit + 1))
    if trace.call_id is not None:
        found.add("call", [trace.call_id])
        row = calls.find(found.org, trace.call_id)
        body = calls.body(row)
        newest = sorted(row.report_ids, reverse=True)[:MOST]
        reports = issue_reports.find_many(found.org, newest)
        found.add("report", (one.id for one in reports if gather.member_of(row, body, one).trace_id == trace.id))
    return trace.id


def _fix(found: Found, key: str) -> str:
    fix = fixes.find(found.org, key)
    _tests_of(found, fix)
    _issue_of(found, fix.issue_id)
    return fix.id


def _shadow_test(found: Found, key: str) -> str:
    test = shadow_tests.find(found.org, key)
    found.add("fix", [test.fix_id])
    found.add("trace", shadow_tests.trace_ids(found.org, test))
    _issue_of(found, test.issue_id)
    return test.id


def _agent(found: Found, key: str) -> str:
    agent = agents.find(found.org, key)
    about, total = issues.page(found.org, IssueQuery(agentId=agent.id, limit=found.limit))
    found.add("issue", [issue.id for issue in about], more=total > found.limit)
    answers, total = trace_store.page(found.org, Filter(f"agent#{agent.id}"), 0, found.limit)
    found.add("trace", [trace["id"] for trace in answers], more=total > found.limit)
    if agent.number is not None:
        handled, total = calls.page(found.org, CallQuery(agent_id=agent.number, limit=found.limit))
        found.add("call", [row.call_id for row in handled], more=total > found.limit)
        reported = issue_reports.page(found.org, ReportQuery(agent_id=agent.number, limit=found.limit + 1))
        found.add("report", (report.id for report in reported))
    return agent.id


def _triage_issue(found: Found, key: str) -> str:
    card = rows.find(found.org, key)
    attached, following = evidence.links(found.org, card.id, found.limit, None)
    on_calls = [one.resource_id for one in attached if one.resource_type == "call"]
    found.add("call", on_calls, more=following is not None)
    related, following = evidence.relations(found.org, card.id, found.limit, None)
    found.add("triage_issue", [one["related_issue_id"] for one in related], more=following is not None)
    _issue_of(found, card.loop_issue_id)
    return card.id


def _app_issue(found: Found, key: str) -> str:
    app_issue = app_issues.find(found.org, key)
    trace = gather.reported_trace(found.org, app_issue)
    if trace is not None:
        found.add("trace", [trace.id])
        found.add("call", [trace.call_id])
    _issue_of(found, app_issue.issue_id)
    if trace is not None and agents.look(found.org, trace.agent_id):
        found.add("agent", [trace.agent_id])
    return app_issue.id


def _call_report(found: Found, key: str) -> str:
    kept = call_reports.of_call(found.org, key)
    found.add("job", [kept.job_id])
    found.add("call", [kept.joined])
    return kept.call_id


def _job(found: Found, key: str) -> str:
    job, attempts = call_reports.find(found.org, key, found.now)
    if job is None and not attempts:
        raise NotFound(f"Job {key} not found.")
    found.add("call_report", (kept.call_id for kept in attempts))
    found.add("call", (kept.joined for kept in attempts))
    return key


_READERS: dict[Kind, Callable[[Found, str], str]] = {
    "call": _call,
    "report": _report,
    "issue": _issue,
    "trace": _trace,
    "fix": _fix,
    "shadow_test": _shadow_test,
    "agent": _agent,
    "triage_issue": _triage_issue,
    "app_issue": _app_issue,
    "call_report": _call_report,
    "job": _job,
}


# What several of them have in common


def _there(found: Found, trace_ids: list[str]) -> list[str]:
    """Those of a call's traces that are recorded: they are shortly after the call."""
    lost = set(trace_store.missing(found.org, trace_ids))
    return [one for one in trace_ids if one not in lost]


def _agent_of(found: Found, agent_number: int | None) -> str:
    """The id under which a call's reports are grouped."""
    agent = None if agent_number is None else agents.of_number(found.org, agent_number)
    found.add("agent", [agent.id] if agent else [])
    return agent.id if agent else grouping.UNASSIGNED


def _grouped(found: Found, reports: Iterable[Report], agent_id: str) -> None:
    """The issues that reports of one call are part of, and the triage issues for either."""
    groups = set()
    for report in reports:
        if fingerprint := grouping.fingerprint(report, agent_id):
            groups.add(fingerprint.group)
        if report.said.severity == "critical":
            _opened(found, f"report#{report.trace_id}")
    for group in sorted(groups):
        issue_id = issues.group(found.org, group).issue_id
        if issue_id and issues.look(found.org, issue_id):
            found.add("issue", [issue_id])
            _standing_for(found, issue_id)
        _opened(found, f"group#{group}")


def _opened(found: Found, natural_key: str) -> None:
    card = triage.find_from(found.org, natural_key)
    found.add("triage_issue", [card.id] if card else [])


def _standing_for(found: Found, issue_id: str) -> None:
    found.add("triage_issue", (card.id for card in triage.of_loop_issue(found.org, issue_id)))


def _issue_of(found: Found, issue_id: str | None) -> None:
    """An issue, its agent and what stands for it in triage."""
    issue = issues.look(found.org, issue_id) if issue_id else None
    if issue is not None:
        found.add("issue", [issue.id])
        found.add("agent", [issue.agent_id] if agents.look(found.org, issue.agent_id) else [])
        _standing_for(found, issue.id)


def _tests_of(found: Found, fix: Fix) -> None:
    tests, total = shadow_tests.page(found.org, ShadowTestQuery(fixId=fix.id, limit=found.limit))
    found.add("shadow_test", [test.id for test in tests], more=total > found.limit)


def _attempt_of(found: Found, kept: Kept | None) -> None:
    if kept is not None:
        found.add("call_report", [kept.call_id])
        found.add("job", [kept.job_id])
