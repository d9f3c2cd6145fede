"""`fixloop demo`: the loop told on the local stack with sample calls, over HTTPS calls and the bus, as a user would."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fixloop_cli import local
from fixloop_cli.build import Failed

PATIENCE_SECONDS = 120.0
PROMPT_DIFF = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. "
    "Always cite the number of days that the policy states, and nothing else."
)
SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


class Caller:
    """HTTP as any client of the API speaks it."""

    def __init__(self, url: str, key: str) -> None:
        split = urlsplit(url)
        self._host, self._port, self._path = split.hostname or "", split.port, split.path
        self._key = key

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.request(
                method,
                self._path + path,
                None if body is None else json.dumps(body),
                {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The body of an answer that must be a success. Raises `Failed` with what came instead."""
        status, said = self(method, path, body)
        if status >= 300:
            raise Failed(f"{method} {path} was answered {status}: {json.dumps(said)}")
        return said


def run(stack: local.Stack, console: Console) -> None:
    """The whole story, on a fresh organisation so that it reads the same every time."""
    from fixloop.identity import Scope
    from fixloop.storage import platform
    from fixloop_cli.manage import NO_LIMIT, now, working_on

    with working_on(stack.outputs, stack.client):
        org = platform.create_org("Demo", now())
        key, _ = platform.create_key(org, now(), scope=Scope.ADMIN, limit=NO_LIMIT, label="fixloop demo")
    caller = Caller(stack.url, key)
    samples = json.loads((local.find_root(Path.cwd()) / "samples" / "refunds.json").read_text())
    console.print(
        Panel(f"[bold]{escape(samples['title'])}[/]\nSix calls of one voice agent: from ingest to an applied fix.")
    )

    heading(console, 1, "Calls come in", "PUT /v1/calls/{call_id}, with transcript and prompt snapshot")
    ingest(caller, samples["calls"], console)

    heading(console, 2, "They are graded", "call.completed on the bus → grade_call → call.graded")
    grades = await_grades(caller, samples["calls"])
    show_grades(console, samples["calls"], grades)

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
    status, said = caller("POST", "/api/fixes", proposal(issue["id"], "- Answer refunds as you like.\n+ Do better."))
    console.print(f"  [red]{status}[/] {escape(said['error']['message'])}", soft_wrap=True)

    heading(console, 6, "A good one is proposed, and the issue follows", "POST /api/fixes, PATCH /api/fixes/{id}")
    fix = caller.ok("POST", "/api/fixes", proposal(issue["id"], PROMPT_DIFF))["data"]
    caller.ok("PATCH", f"/api/fixes/{fix['id']}", {"status": "proposed"})
    show_diff(console, PROMPT_DIFF)
    followed = caller.ok("GET", f"/api/v2/issues/{issue['id']}")["data"]
    console.print(f"  fix {fix['id']} is proposed, issue {issue['id']} is now [bold]{followed['status']}[/]")

    heading(
        console,
        7,
        "Applied: a new version of the agent, the issue closed, its reports resolved",
        "PATCH /api/fixes/{id}",
    )
    caller.ok("PATCH", f"/api/fixes/{fix['id']}", {"status": "applied"})
    agent = caller.ok("GET", f"/api/agents/{issue['agentId']}")["data"]
    closed = caller.ok("GET", f"/api/v2/issues/{issue['id']}")["data"]
    resolved = until(lambda: caller.ok("GET", "/v1/issue-reports?status=resolved"), lambda found: len(found) == 3)
    console.print(f"  {escape(agent['name'])} is at [bold]version {agent['version']}[/]")
    console.print(f"  issue {issue['id']} is [bold]{closed['status']}[/], {len(resolved)} reports are resolved")

    heading(
        console,
        8,
        "A grade made elsewhere is treated alike",
        "call.graded put on the bus by your own grader, three times over",
    )
    foreign(stack, org, samples["calls"][0]["call_id"])
    clean = f"/v1/calls/{samples['calls'][0]['call_id']}/issue-reports"
    filed = until(lambda: caller.ok("GET", clean), lambda found: bool(found))
    console.print(f"  delivered 3 times, filed [bold]{len(filed)}[/] time: {escape(filed[0]['title'])}")
    left = caller.ok("GET", "/v1/issue-reports?status=open&severity=critical")
    console.print(f"  still open and critical: [bold]{len(left)}[/]")
    farewell(console, stack)


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


def show_issue(console: Console, issue: dict[str, Any]) -> None:
    found = issue["metadata"]
    console.print(f"  [bold]{issue['id']}[/] {escape(issue['title'])}", soft_wrap=True)
    console.print(
        f"  {issue['severity']}, agent {escape(str(issue['agentName']))}, {issue['traceCount']} traces, "
        f"{found['affectedCustomers']} customers, first seen {found['firstSeenAt']}",
        soft_wrap=True,
    )


def proposal(issue_id: str, diff: str) -> dict[str, Any]:
    return {
        "issueId": issue_id,
        "type": "prompt_update",
        "description": "Cite only the refund policy that is in force",
        "changes": {"promptDiff": diff},
    }


def show_diff(console: Console, diff: str) -> None:
    for line in diff.splitlines():
        console.print(f"  [{'red' if line.startswith('-') else 'green'}]{escape(line)}[/]", soft_wrap=True)


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


def farewell(console: Console, stack: local.Stack) -> None:
    console.print("\n[bold green]The stack is running[/]")
    console.print(f"  [bold]URL[/]  {stack.url}", soft_wrap=True)
    console.print(f"  [bold]key[/]  {stack.api_key}", soft_wrap=True)
    console.print(f"       [dim]an admin key of the organisation {stack.org_id}[/]\n", soft_wrap=True)
    console.print("[bold]Try next[/]")
    console.print('  eval "$(.venv/bin/fixloop env)"', soft_wrap=True)
    console.print('  curl -H "Authorization: Bearer $FIXLOOP_API_KEY" "$FIXLOOP_URL/v1/calls"', soft_wrap=True)
    console.print("  .venv/bin/fixloop --local keys create --org " + stack.org_id + " --scope read", soft_wrap=True)
    console.print("  .venv/bin/fixloop --local logs file")
    console.print("  make down")
