"""The command `fixloop`: the local AWS, deployments to AWS, and management of either."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from fixloop_cli import build, local, manage
from fixloop_cli.build import Failed
from fixloop_cli.models import models
from fixloop_cli.shadow_test import shadow_tests
from fixloop_cli.target import Options, Target, resolve

app = typer.Typer(
    name="fixloop",
    help="The quality loop for voice and chat AI agents, on your own AWS or on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(highlight=False)
problems = Console(stderr=True, highlight=False)


def main() -> None:
    """Runs the command; a failure that has a remedy is said in words, without a stack trace."""
    try:
        app()
    except Failed as failure:
        problems.print(f"[bold red]fixloop:[/] {escape(str(failure))}", soft_wrap=True)
        sys.exit(1)


@app.callback()
def options(
    context: typer.Context,
    local_stack: Annotated[bool, typer.Option("--local", help="Work on the local stack in .local.")] = False,
    stack_name: Annotated[str, typer.Option(envvar="FIXLOOP_STACK_NAME", help="The stack on AWS.")] = local.STACK_NAME,
    region: Annotated[str | None, typer.Option(help="The AWS region; your own default if left out.")] = None,
) -> None:
    context.obj = Options(use_local=local_stack, stack_name=stack_name, region=region)


@app.command()
def up() -> None:
    """Start the local AWS and deploy to it; quick when nothing has changed."""
    stack = bring_up()
    console.print(f"\n[bold]{stack.url}[/]")
    if stack.api_key:
        console.print(
            f"  curl -H 'Authorization: Bearer {stack.api_key}' '{stack.url}/v1/issue-reports'", soft_wrap=True
        )
        console.print('  or: eval "$(.venv/bin/fixloop env)" sets FIXLOOP_URL and FIXLOOP_API_KEY')


@app.command()
def down() -> None:
    """Stop the local AWS; what it holds is there again after the next up."""
    with steps() as say:
        say("Stopping the local AWS when everything under way has finished")
        stopped = local.down(directory())
    console.print("Stopped; make up goes on where it was." if stopped else "Nothing was running.")


@app.command()
def demo() -> None:
    """Tell the whole loop on the local stack: from calls that come in to fixes that are tested and applied."""
    stack = bring_up()
    importlib.import_module("fixloop_cli.demo").run(stack, console)


@app.command()
def status(context: typer.Context) -> None:
    """Whether the stack is there, and where: the local one, or with --stack-name or --region the one on AWS."""
    if context.find_object(Options) in (Options(), Options(use_local=True)):
        show_local()
        return
    target = resolve(context)
    for name, value in sorted(target.outputs.items()):
        console.print(f"{name:<24} {escape(value)}", soft_wrap=True)


@app.command()
def env() -> None:
    """Shell lines that set FIXLOOP_URL and FIXLOOP_API_KEY to the local stack's."""
    stack = local.read(directory())
    if stack is None:
        raise Failed("There is no local stack here. Start one with: make up")
    sys.stdout.write(
        f"export FIXLOOP_URL={shlex.quote(stack.url)}\nexport FIXLOOP_API_KEY={shlex.quote(stack.api_key)}\n"
    )


@app.command()
def logs(
    context: typer.Context,
    function: Annotated[str, typer.Argument(help="Part of a function's name; all functions if left out.")] = "",
    minutes: Annotated[int, typer.Option(help="How far back.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """What the functions logged."""
    target = resolve(context)
    since = int((time.time() - minutes * 60) * 1000)
    seen: set[tuple[str, int, str]] = set()
    while True:
        for event in log_events(target, function, since):
            identity = (event.get("logStreamName", ""), event["timestamp"], event["message"])
            if identity not in seen:
                seen.add(identity)
                when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
                console.print(f"[dim]{when}[/] {escape(event['message'].rstrip())}", soft_wrap=True)
        if not follow:
            return
        time.sleep(2)


@app.command("build")
def build_for_aws(
    architecture: Annotated[str, typer.Option(help="arm64 or x86_64.")] = "arm64",
) -> None:
    """Build for AWS into .aws-sam/build, with bytecode for the runtime's version."""
    with steps() as say:
        build_project(local.find_root(Path.cwd()), architecture, say)


@app.command()
def deploy(
    context: typer.Context,
    parameters: Annotated[list[str] | None, typer.Argument(help="Template parameters: LogLevel=DEBUG ...")] = None,
    architecture: Annotated[str, typer.Option(help="arm64 or x86_64.")] = "arm64",
) -> None:
    """Build, and deploy to AWS with your own credentials."""
    chosen = context.find_object(Options) or Options()
    if chosen.use_local:
        raise Failed("`fixloop deploy` is for AWS; the local stack is brought up to date by: make up")
    root = local.find_root(Path.cwd())
    given = pairs(parameters or [])
    with steps() as say:
        runtime = build_project(root, architecture, say)
    build.deploy(
        root / ".aws-sam" / "build",
        chosen.stack_name,
        {**runtime.parameters, **given},
        arguments=["--resolve-s3", *(["--region", chosen.region] if chosen.region else [])],
        environment=build.callers_environment(),
        log=None,
    )
    target = resolve(context)
    ours = f"fixloop --stack-name {chosen.stack_name}" + (f" --region {chosen.region}" if chosen.region else "")
    console.print(f"\n[bold]{target.outputs.get('ApiUrl', '')}[/]\n\nThe first organisation and its key:")
    console.print(f"  {ours} orgs create 'Acme'\n  {ours} keys create --org ORG_ID --scope admin", soft_wrap=True)


def bring_up() -> local.Stack:
    root = local.find_root(Path.cwd())
    with steps() as say:
        return local.up(root, local_directory(root), say=say)


def build_project(root: Path, architecture: str, say: build.Say) -> build.Runtime:
    if architecture not in {"arm64", "x86_64"}:
        raise Failed(f"Lambda has no architecture {architecture}: use arm64 or x86_64")
    runtime = build.aws_runtime(architecture, lambda text: problems.print(text, soft_wrap=True))
    say(f"Building for python{runtime.version} on {architecture}")
    build.build(
        root,
        root / ".aws-sam" / "build",
        runtime,
        environment=build.callers_environment(),
        log=root / ".aws-sam" / "build.log",
    )
    return runtime


def local_directory(root: Path) -> Path:
    named = os.environ.get("FIXLOOP_DIRECTORY")
    return Path(named).resolve() if named else root / local.DEFAULT_DIRECTORY


def directory() -> Path:
    return local.find_directory(Path.cwd()) or local_directory(local.find_root(Path.cwd()))


def show_local() -> None:
    where = directory()
    stack, (pid, _) = local.read(where), local.running(where)
    state = f"running, process {pid}" if pid else "not running; start it with: make up"
    console.print(f"local stack in {where}: {state}", soft_wrap=True)
    if stack is not None:
        for name, value in sorted({**stack.outputs, "OrgId": stack.org_id}.items()):
            console.print(f"  {name:<22} {escape(value)}", soft_wrap=True)


def log_events(target: Target, function: str, since: int) -> list[dict[str, Any]]:
    """The functions' log events since a time in milliseconds, oldest first."""
    resources = target.clients("cloudformation").describe_stack_resources(StackName=target.stack_name)["StackResources"]
    client = target.clients("logs")
    events: list[dict[str, Any]] = []
    for resource in resources:
        is_log = resource["ResourceType"] == "AWS::Logs::LogGroup"
        if is_log and function.lower() in resource["LogicalResourceId"].lower():
            pages = client.get_paginator("filter_log_events").paginate(
                logGroupName=resource["PhysicalResourceId"], startTime=since
            )
            events += [event for page in pages for event in page["events"]]
    return sorted(events, key=lambda event: int(event["timestamp"]))


def pairs(parameters: list[str]) -> dict[str, str]:
    found = dict(parameter.partition("=")[::2] for parameter in parameters)
    if not all(found) or any("=" not in parameter for parameter in parameters):
        raise Failed("Template parameters are given as Name=Value, separated by spaces.")
    return found


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Shows one step at a time with a spinner, and each finished one with the seconds it took."""
    shown: list[tuple[str, float]] = []
    with Status("", console=problems) as spinner:

        def finish(mark: str) -> None:
            if shown:
                text, started = shown.pop()
                problems.print(f"{mark} {escape(text)} [dim]{time.monotonic() - started:.1f} s[/]", soft_wrap=True)

        def say(text: str) -> None:
            finish("[green]✓[/]")
            shown.append((text, time.monotonic()))
            spinner.update(f"{escape(text)} ...")

        try:
            yield say
        except BaseException:
            finish("[red]✗[/]")
            raise
        finish("[green]✓[/]")


for command, commands in {**manage.COMMANDS, "models": models, "shadow-test": shadow_tests}.items():
    app.add_typer(commands, name=command)
