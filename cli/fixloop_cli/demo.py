"""`fixloop demo`: the loop told on the local stack with sample calls, over HTTPS calls and the bus, as a user would."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fixloop_cli import local
from fixloop_cli.build import Failed
from fixloop_cli.caller import Caller
from fixloop_cli.gate import Bar, Report
from fixloop_cli.shadow_test import all_results, watched
from fixloop_cli.side_by_side import side_by_side

PATIENCE_SECONDS = 120.0
CONNECTIONS = 8
SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def run(stack: local.Stack, console: Console) -> None:
    """The whole story, on a fresh organisation so that it reads the same every time."""
    from fixloop.identity import Scope
    from fixloop.storage import platform
    from fixloop_cli.manage import NO_LIMIT, now, working_on

    with working_on(stack.outputs, stack.client):
        org = platform.create_org("Demo", now())
        platform.change_org(org, {"triage": True})
        key, _ = platform.create_key(org, now(), scope=Scope.ADMIN, limit=NO_LIMIT, label="fixloop demo")
    caller = Caller(stack.url, key)
    refunds(stack, org, caller, console)
    fix_id = abroad(caller, console)
    farewell(console, stack, org, fix_id, key)


def samples(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((local.find_root(Path.cwd()) / "samples" / f"{name}.json").read_text())
    return found


def refunds(stack: local.Stack, org: str, caller: Caller, console: Console) -> None:
    """Calls of a voice agent, from ingest to a tested and applied change of its prompt."""
    told = samples("refunds")
    console.print(
        Panel(f"[bold]{escape(told['title'])}[/]\nSix calls of one voice agent: from ingest to a tested, applied fix.")
    )

    heading(console, 1, "Calls come in", "PUT /v1/calls/{call_id}, with transcript and prompt snapshot")
    ingest(caller, told["calls"], console)

    heading(console, 2, "They are graded", "call.completed on the bus → grade_call → call.graded")
    grades = await_grades(caller, told["calls"])
    show_grades(console, told["calls"], grades)

    heading(
        console, 3, "What is wrong becomes issue reports", "call.graded → rule → file_reports → GET /v1/issue-reports"
    )
    expected = sum(len(grade["detected_issues"]) for grade in grades.values())
    reports = until(lambda: caller.ok("GET", "/v1/issue-reports"), lambda found: len(found) >= expected)
    show_reports(console, reports)
    console.print("\nThe newest one, as the API shows it:")
    console.print(JSON(json.dumps({name: reports[0][name] for name in list(reports[0])[:14]})))

    heading(
        console, 4, "The third alike opens an issue by itself", "issue.reported → group_reports → GET /api/v2/issues"
    )
    (opened,) = until(lambda: caller.ok("GET", "/api/v2/issues")["data"], lambda found: len(found) == 1)
    issue = until(
        lambda: caller.ok("GET", f"/api/v2/issues/{opened['id']}")["data"], lambda found: found["traceCount"] == 3
    )
    show_issue(console, issue)

    heading(console, 5, "A fix that cannot work is refused", "POST /api/fixes")
    refused = told["fixes"]["refused"]
    show_diff(console, refused["changes"]["promptDiff"].splitlines())
    status, said = caller("POST", "/api/fixes", {"issueId": issue["id"], **refused})
    console.print(f"  [red]{status}[/] {escape(said['error']['message'])}", soft_wrap=True)

    heading(console, 6, "A good one is proposed, and the issue follows", "POST /api/fixes, PATCH /api/fixes/{id}")
    fix = propose(caller, issue["id"], told["fixes"]["good"])
    show_diff(console, fix["changes"]["promptDiff"].splitlines())
    followed = caller.ok("GET", f"/api/v2/issues/{issue['id']}")["data"]
    console.print(f"  fix {fix['id']} is proposed, issue {issue['id']} is now [bold]{followed['status']}[/]")

    heading(
        console, 7, "A shadow test replays the failing turns against it", "POST /api/shadow-tests, GET …/{id}/results"
    )
    report = shadow_test(caller, fix["id"], issue["traceIds"], Bar(min_improved=0.6, max_regressed=0.0))
    show_answers(console, caller, report.results[:2])
    show_verdict(console, report)

    heading(
        console,
        8,
        "Applied: a new version of the agent, the issue closed, its reports resolved",
        "PATCH /api/fixes/{id}",
    )
    apply(caller, console, fix["id"], issue["id"])
    resolved = until(lambda: caller.ok("GET", "/v1/issue-reports?status=resolved"), lambda found: len(found) == 3)
    console.print(f"  {len(resolved)} reports are resolved")
    console.print(f"\nEverything tied to the issue, in all APIs  [dim]GET /v1/links/issue/{issue['id']}[/]")
    tied = until(
        lambda: caller.ok("GET", f"/v1/links/issue/{issue['id']}"),
        lambda found: any(link["kind"] == "triage_issue" for link in found["links"]),
    )
    show_links(console, tied["links"])

    heading(
        console,
        9,
        "A grade made elsewhere is treated alike",
        "call.graded put on the bus by your own grader, three times over",
    )
    foreign(stack, org, told["calls"][0]["call_id"])
    clean = f"/v1/calls/{told['calls'][0]['call_id']}/issue-reports"
    filed = until(lambda: caller.ok("GET", clean), lambda found: bool(found))
    console.print(f"  delivered 3 times, filed [bold]{len(filed)}[/] time: {escape(filed[0]['title'])}")
    left = caller.ok("GET", "/v1/issue-reports?status=open&severity=critical")
    console.print(f"  still open and critical: [bold]{len(left)}[/]")


def abroad(caller: Caller, console: Console) -> str:
    """Recorded answers of a chat agent, and two changes of a document it answers from, of which one is not enough.

    The answer is the id of the fix that was applied.
    """
    told = samples("shipping")
    failing = sum(trace["outcome"] == "failure" for trace in told["traces"])
    console.print()
    console.print(
        Panel(
            f"[bold]{escape(told['title'])}[/]\n{len(told['traces'])} recorded answers of a chat agent, "
            f"{failing} of them from a document that is out of date."
        )
    )

    heading(
        console, 10, "Its answers are recorded as traces", "POST /api/agents, POST /api/traces, POST /api/v2/issues"
    )
    agent = caller.ok("POST", "/api/agents", told["agent"])["data"]
    trace_ids = record(caller, console, agent["id"], told)
    wrong = [
        trace_id for trace_id, trace in zip(trace_ids, told["traces"], strict=True) if trace["outcome"] == "failure"
    ]
    issue = caller.ok("POST", "/api/v2/issues", {**told["issue"], "agentId": agent["id"], "traceIds": wrong})["data"]
    console.print(
        f"  [bold]{issue['id']}[/] {escape(issue['title'])}: {issue['traceCount']} of {len(trace_ids)} traces",
        soft_wrap=True,
    )

    bar = Bar(told["bar"]["minImproved"], told["bar"]["maxRegressed"])
    first, second = (retrieval_update(fix) for fix in told["fixes"])
    heading(
        console, 11, "The document is replaced, and all traces are replayed", "retrieval_update, POST /api/shadow-tests"
    )
    fix = propose(caller, issue["id"], first)
    now = first["changes"]["replace"]["transit-times"].splitlines()
    changed = changes(told["documents"]["transit-times"], now)
    show_diff(console, [*changed[:4], f"  … and {len(changed) - 4} lines more"])
    report = shadow_test(caller, fix["id"], trace_ids, bar)
    improved, regressed = of_verdict(report, "improved"), of_verdict(report, "regressed")
    show_answers(console, caller, [*improved[:1], *regressed])
    show_verdict(console, report)
    caller.ok("PATCH", f"/api/fixes/{fix['id']}", {"status": "rejected"})
    console.print(f"  fix {fix['id']} is rejected: it forgot what {len(regressed)} customers had asked for")

    heading(console, 12, "What was forgotten is added, and all traces are replayed again", "POST /api/shadow-tests")
    fix = propose(caller, issue["id"], second)
    show_diff(console, changes(now, second["changes"]["replace"]["transit-times"].splitlines()))
    report = shadow_test(caller, fix["id"], trace_ids, bar)
    before = [result["traceId"] for result in regressed]
    show_answers(console, caller, [result for result in report.results if result["traceId"] in before][:1])
    show_verdict(console, report)

    heading(console, 13, "Applied", "PATCH /api/fixes/{id}")
    apply(caller, console, fix["id"], issue["id"])
    return str(fix["id"])


def heading(console: Console, number: int, title: str, how: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/]  [dim]{escape(how)}[/]")


def ingest(caller: Caller, calls: list[dict[str, Any]], console: Console) -> None:
    columns = TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("calls", total=len(calls))
        for call in calls:
            caller.ok("PUT", f"/v1/calls/{call['call_id']}", call["call"])
            progress.advance(task)


def await_grades(caller: Caller, calls: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    def graded(call_id: int) -> dict[str, Any]:
        def ask() -> tuple[int, Any]:
            return caller("GET", f"/v1/calls/{call_id}/grade")

        _, grade = until(ask, lambda answer: answer[0] == 200 and answer[1]["status"] != "pending")
        return dict(grade)

    return {call["call_id"]: graded(call["call_id"]) for call in calls}


def until(ask: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
    """What `ask` says once it is `done`. Raises `Failed` when that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done(said := ask()):
        if time.monotonic() > deadline:
            raise Failed(f"Nothing more happened for {PATIENCE_SECONDS:.0f} s. Look at: fixloop --local logs")
        time.sleep(0.2)
    return said


def show_grades(console: Console, calls: list[dict[str, Any]], grades: dict[int, dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("call", "what happens in it", "score", "outcome", "issues"):
        table.add_column(column)
    for call in calls:
        grade = grades[call["call_id"]]
        score = grade["score"]
        shown = "–" if score is None else f"[{'green' if score >= 0.8 else 'red'}]{score:.2f}[/]"
        table.add_row(
            str(call["call_id"]), escape(call["name"]), shown, grade["call_outcome"], str(len(grade["detected_issues"]))
        )
    console.print(table)


def show_reports(console: Console, reports: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("id", "call", "at", "severity", "report", "evidence"):
        table.add_column(column, overflow="fold")
    for report in reports:
        at = report["timestamp_seconds"]
        style = SEVERITY_STYLE[report["severity"]]
        table.add_row(
            str(report["id"]),
            str(report["call_id"]),
            "" if at is None else f"{at} s",
            f"[{style}]{report['severity']}[/]",
            escape(report["title"]),
            escape(report["evidence"][:120]),
        )
    console.print(table)


def show_links(console: Console, links: list[dict[str, Any]]) -> None:
    """The first of each kind, and how many there are."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("kind", "how many", "for example"):
        table.add_column(column)
    for kind in dict.fromkeys(link["kind"] for link in links):
        same = [link for link in links if link["kind"] == kind]
        table.add_row(kind, str(len(same)), escape(same[0]["url"]))
    console.print(table)


def show_issue(console: Console, issue: dict[str, Any]) -> None:
    found = issue["metadata"]
    console.print(f"  [bold]{issue['id']}[/] {escape(issue['title'])}", soft_wrap=True)
    console.print(
        f"  {issue['severity']}, agent {escape(str(issue['agentName']))}, {issue['traceCount']} traces, "
        f"{found['affectedCustomers']} customers, first seen {found['firstSeenAt']}",
        soft_wrap=True,
    )


def propose(caller: Caller, issue_id: str, fix: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = caller.ok("POST", "/api/fixes", {"issueId": issue_id, **fix})["data"]
    caller.ok("PATCH", f"/api/fixes/{made['id']}", {"status": "proposed"})
    return made


def retrieval_update(fix: dict[str, Any]) -> dict[str, Any]:
    """A fix of the samples, which hold documents as lists of lines, as the API takes it."""
    replaced = {name: "\n".join(lines) for name, lines in fix["replace"].items()}
    return {"type": fix["type"], "description": fix["description"], "changes": {"replace": replaced}}


def record(caller: Caller, console: Console, agent_id: str, told: dict[str, Any]) -> list[str]:
    """The ids of the samples' traces, stored over several connections at once, in their order."""
    context = [{"id": name, "text": "\n".join(lines)} for name, lines in told["documents"].items()]
    frozen = {"agentId": agent_id, "systemPrompt": told["agent"]["systemPrompt"], "context": context}
    columns = TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")
    ids: list[str] = []
    with ThreadPoolExecutor(CONNECTIONS) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task("traces", total=len(told["traces"]))
        bodies = ({**frozen, **trace} for trace in told["traces"])
        for answer in pool.map(lambda body: caller.ok("POST", "/api/traces", body), bodies):
            ids.append(answer["data"]["id"])
            progress.advance(task)
    return ids


def shadow_test(caller: Caller, fix_id: str, trace_ids: list[str], bar: Bar) -> Report:
    """What a test comes to, shown while it runs."""
    test = caller.ok("POST", "/api/shadow-tests", {"fixId": fix_id, "traceIds": trace_ids})["data"]
    test = watched(caller, test, PATIENCE_SECONDS)
    return Report(test, all_results(caller, test), bar)


def of_verdict(report: Report, verdict: str) -> list[dict[str, Any]]:
    return [result for result in report.results if result["verdict"] == verdict]


def show_answers(console: Console, caller: Caller, results: Iterable[dict[str, Any]]) -> None:
    for result in results:
        trace = caller.ok("GET", f"/api/traces/{result['traceId']}")["data"]
        console.print()
        console.print(side_by_side(result, trace["userMessage"]))


def show_verdict(console: Console, report: Report) -> None:
    rate = (report.test.get("results") or {}).get("improvementRate", 0)
    console.print(f"\n  {report.summary()}; improvementRate [bold]{rate}[/]")
    misses = report.misses()
    for miss in misses:
        console.print(f"  [bold red]✗ the bar is missed:[/] {escape(miss)}", soft_wrap=True)
    if not misses:
        console.print(
            f"  [bold green]✓ the bar is met[/]: at least {report.bar.min_improved:.0%} improved, "
            f"at most {report.bar.max_regressed:.0%} regressed"
        )


def apply(caller: Caller, console: Console, fix_id: str, issue_id: str) -> None:
    caller.ok("PATCH", f"/api/fixes/{fix_id}", {"status": "applied"})
    issue = caller.ok("GET", f"/api/v2/issues/{issue_id}")["data"]
    agent = caller.ok("GET", f"/api/agents/{issue['agentId']}")["data"]
    console.print(f"  {escape(agent['name'])} is at [bold]version {agent['version']}[/]")
    console.print(f"  issue {issue_id} is [bold]{issue['status']}[/]")


def changes(before: list[str], after: list[str]) -> list[str]:
    """The lines that are not in both, each behind "- " or "+ ", a changed line beside what it was."""
    lines: list[str] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            lines += [line for at in range(max(b - a, d - c)) for line in _pair(before[a:b], after[c:d], at)]
    return lines


def _pair(old: list[str], new: list[str], at: int) -> list[str]:
    return [f"- {line}" for line in old[at : at + 1]] + [f"+ {line}" for line in new[at : at + 1]]


def show_diff(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        style = {"-": "red", "+": "green"}.get(line[:1], "dim")
        console.print(f"  [{style}]{escape(line)}[/]", soft_wrap=True)


def foreign(stack: local.Stack, org: str, call_id: int) -> None:
    issue = {
        "ref": "tone.too-brief",
        "title": "Answer was curt",
        "severity": "info",
        "timestamp_seconds": 6,
        "description": "Our own grader found the answer curt.",
    }
    detail = {
        "type": "call.graded",
        "org_id": org,
        "data": {"call_id": call_id, "grade": {"score": 0.7, "detected_issues": [issue]}},
    }
    entry = {
        "Source": "acme.grader",
        "DetailType": "call.graded",
        "Detail": json.dumps(detail),
        "EventBusName": stack.outputs["BusName"],
    }
    stack.client("events").put_events(Entries=[entry] * 3)


def farewell(console: Console, stack: local.Stack, org: str, fix_id: str, key: str) -> None:
    console.print("\n[bold green]The stack is running[/]")
    console.print(f"  [bold]URL[/]  {stack.url}", soft_wrap=True)
    console.print(f"  [bold]key[/]  {key}", soft_wrap=True)
    console.print(
        f"       [dim]an admin key of {org}, the organisation that this story was told in[/]\n", soft_wrap=True
    )
    console.print("[bold]Try next[/]")
    for told, command in (
        ("what was found in the calls", f"curl -H 'Authorization: Bearer {key}' '{stack.url}/v1/issue-reports'"),
        (
            "the last test again, on its issue's traces, as a step of a pipeline: with an exit code",
            f".venv/bin/fixloop --local shadow-test run --fix {fix_id} --api-key {key}",
        ),
        ("a key that may only read", f".venv/bin/fixloop --local keys create --org {org} --scope read"),
        (
            f"URL and key of {stack.org_id}, for calls of your own: the tour in README.md",
            'eval "$(.venv/bin/fixloop env)"',
        ),
        ("what the functions say", ".venv/bin/fixloop --local logs file"),
        ("stop it and keep its data", "make down"),
    ):
        console.print(f"  [dim]{told}[/]", soft_wrap=True)
        console.print(f"  {command}", soft_wrap=True, highlight=False)
