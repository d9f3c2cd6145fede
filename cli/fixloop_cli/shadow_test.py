"""`fixloop shadow-test run`: a shadow test as a step of a pipeline, with a bar that it must meet."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fixloop_cli.build import Failed
from fixloop_cli.caller import Caller
from fixloop_cli.gate import Bar, Report, junit, markdown, score
from fixloop_cli.side_by_side import STYLES
from fixloop_cli.target import Options, local_stack

shadow_tests = typer.Typer(help="Replay recorded traces against a fix.", no_args_is_help=True)
console = Console(highlight=False)

Url = Annotated[str | None, typer.Option(envvar="FIXLOOP_URL", help="Base URL of the API.")]
Reader = Annotated[str | None, typer.Option(envvar="FIXLOOP_API_KEY", help="A key that may read.")]
Writer = Annotated[str | None, typer.Option(envvar="FIXLOOP_API_KEY", help="A key that may write.")]

PAGE = 100
LOOK_EVERY = 0.5  # seconds


def caller_of(context: typer.Context, url: str | None, key: str | None) -> Caller:
    """The API that is meant: the one named, else with --local the local stack's."""
    options = context.find_object(Options) or Options()
    if options.use_local and not url:
        stack = local_stack()
        return Caller(stack.url, key or stack.api_key)
    if not url or not key:
        raise Failed("Name the API: set FIXLOOP_URL and FIXLOOP_API_KEY, or use the local stack: fixloop --local ...")
    return Caller(url, key)


@shadow_tests.command("run")
def run(
    context: typer.Context,
    fix: Annotated[str, typer.Option(help="The fix to test.")],
    traces: Annotated[
        str, typer.Option(help="Trace ids, separated by commas; or @FILE with one in each line. Else the issue's.")
    ] = "",
    model: Annotated[str | None, typer.Option(help="The model to ask instead of each trace's own.")] = None,
    mode: Annotated[str, typer.Option(help="side_by_side or automated.")] = "side_by_side",
    graders: Annotated[Path | None, typer.Option(help="A JSON file with the list of graders.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Difference of scores that counts.")] = None,
    repeat: Annotated[int | None, typer.Option(help="Replays of each trace.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Model calls in flight.")] = None,
    max_cost_usd: Annotated[float | None, typer.Option(help="End the test at this estimated cost.")] = None,
    watch: Annotated[bool, typer.Option(help="Wait for the result, and judge it.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most; the test is then ended.")] = 3600,
    min_improved: Annotated[float, typer.Option(min=0, max=1, help="Share of the traces that must improve.")] = 0.6,
    max_regressed: Annotated[float, typer.Option(min=0, max=1, help="Share of the traces that may regress.")] = 0.0,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write the results as JUnit XML.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write a summary in Markdown.")] = None,
    url: Url = None,
    api_key: Writer = None,
) -> None:
    """Run a shadow test. Exit code 1 when the bar is missed or the test fails, 0 when it is met."""
    caller = caller_of(context, url, api_key)
    config: dict[str, Any] = {"comparisonMode": mode}
    given = {
        "model": model,
        "threshold": threshold,
        "repeat": repeat,
        "concurrency": concurrency,
        "maxCostUsd": max_cost_usd,
        "graders": read_graders(graders),
    }
    config |= {name: value for name, value in given.items() if value is not None}
    body = {"fixId": fix, "traceIds": named_traces(caller, fix, traces), "config": config}
    test = caller.ok("POST", "/api/shadow-tests", body)["data"]
    console.print(f"shadow test [bold]{test['id']}[/] of fix {escape(fix)}: {test['traceCount']} traces")
    if not watch:
        return
    test = watched(caller, test, timeout)
    report = Report(test, all_results(caller, test), Bar(min_improved, max_regressed))
    show(report)
    for path, content in ((junit_file, junit), (markdown_file, markdown)):
        if path is not None:
            path.write_text(content(report))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as file:
            file.write(markdown(report))
    if report.misses():
        raise typer.Exit(1)


@shadow_tests.command("show")
def show_one(
    context: typer.Context,
    test_id: Annotated[str, typer.Argument(help="st_…")],
    url: Url = None,
    api_key: Reader = None,
) -> None:
    """Show a shadow test, with every trace's verdict."""
    caller = caller_of(context, url, api_key)
    test = caller.ok("GET", f"/api/shadow-tests/{test_id}")["data"]
    console.print(f"{test['id']} is [bold]{test['status']}[/]")
    table(Report(test, all_results(caller, test), Bar(0, 1)))


@shadow_tests.command("cancel")
def cancel(
    context: typer.Context,
    test_id: Annotated[str, typer.Argument(help="st_…")],
    reason: Annotated[str, typer.Option(help="What is noted as the error.")] = "Cancelled",
    url: Url = None,
    api_key: Writer = None,
) -> None:
    """End a shadow test that waits or runs; what it has found stays."""
    caller = caller_of(context, url, api_key)
    body = {"status": "failed", "results": {"error": reason}}
    ended = caller.ok("PATCH", f"/api/shadow-tests/{test_id}", body)["data"]
    console.print(f"{ended['id']} is [bold]{ended['status']}[/]")


def read_graders(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"{path} is no JSON file: {error}") from None


def named_traces(caller: Caller, fix: str, given: str) -> list[str]:
    """The traces that are meant. Raises `Failed` where there are none."""
    if given.startswith("@"):
        try:
            ids = Path(given[1:]).read_text().split()
        except OSError as error:
            raise Failed(f"{given[1:]} cannot be read: {error.strerror}") from None
    elif given:
        ids = [one.strip() for one in given.split(",") if one.strip()]
    else:
        issue = caller.ok("GET", f"/api/fixes/{fix}")["data"]["issueId"]
        ids = caller.ok("GET", f"/api/v2/issues/{issue}")["data"]["traceIds"] if issue else []
    if not ids:
        raise Failed("There are no traces to replay. Name them: --traces tr_1,tr_2 or --traces @FILE")
    return ids


def watched(caller: Caller, test: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The test once it has ended; one that takes too long is ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    path, deadline = f"/api/shadow-tests/{test['id']}", time.monotonic() + timeout
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("replaying", total=test["traceCount"])
        while test["status"] in ("pending", "running"):
            if time.monotonic() > deadline:
                error = f"no result within {timeout:.0f} s"
                caller("PATCH", path, {"status": "failed", "results": {"error": error}})
            else:
                time.sleep(LOOK_EVERY)
            test = caller.ok("GET", f"{path}?limit=1")["data"]
            progress.update(task, completed=(test.get("progress") or {}).get("done", 0))
    return test


def all_results(caller: Caller, test: dict[str, Any]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    pages = -(-test["traceCount"] // PAGE)
    for page in range(1, pages + 1):
        results += caller.ok("GET", f"/api/shadow-tests/{test['id']}/results?page={page}&limit={PAGE}")["data"]
    return results


def show(report: Report) -> None:
    table(report)
    console.print(f"\n{report.summary()}")
    if misses := report.misses():
        for miss in misses:
            console.print(f"[bold red]✗[/] {escape(miss)}", soft_wrap=True)
    else:
        console.print(f"[bold green]✓[/] improved {report.share('improved'):.1%}; the bar is met")


def table(report: Report) -> None:
    shown = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("trace", "verdict", "original", "fixed", "why"):
        shown.add_column(column, overflow="fold")
    for one in report.results:
        verdict = one["verdict"] or "not replayed"
        scores = [score(one["originalScore"]), score(one["fixedScore"])]
        why = escape((one["explanation"] or one["error"] or "")[:200])
        shown.add_row(one["traceId"], f"[{STYLES.get(verdict, 'yellow')}]{verdict}[/]", *scores, why)
    console.print(shown)
