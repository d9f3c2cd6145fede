"""Organisations, keys and dead letters: the commands that manage a stack, on AWS or the local one."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fixloop import aws
from fixloop.errors import FixloopError
from fixloop.identity import DEFAULT_LIMIT, OrgSettings, Principal, Scope, User
from fixloop.models import well_formed
from fixloop.settings import settings
from fixloop.storage import platform
from fixloop_cli.build import Failed
from fixloop_cli.target import Target, resolve

NO_LIMIT = 10**9
LOCAL_ORG = "Local"
OWN = "own"

console = Console(highlight=False)
orgs = typer.Typer(help="Organisations: everything is kept apart by them.", no_args_is_help=True)
keys = typer.Typer(help="API keys: each belongs to a user of an organisation.", no_args_is_help=True)
dead_letters = typer.Typer(help="Events that no consumer could take.", no_args_is_help=True)
COMMANDS = {"orgs": orgs, "keys": keys, "dead-letters": dead_letters}

Org = Annotated[str, typer.Option("--org", help="The organisation's id, org_…")]


class Switch(StrEnum):
    """How a setting is switched on a command line."""

    ON = "on"
    OFF = "off"


@contextmanager
def working_on(outputs: Mapping[str, str], clients: Callable[[str], Any]) -> Iterator[None]:
    """The stack's tables and clients for the product's own storage code."""
    wanted = {
        "PLATFORM_TABLE": "PlatformTable",
        "CALLS_TABLE": "CallsTable",
        "ISSUE_REPORTS_TABLE": "IssueReportsTable",
        "AGENTS_TABLE": "AgentsTable",
        "TRACES_TABLE": "TracesTable",
        "ISSUES_TABLE": "IssuesTable",
        "FIXES_TABLE": "FixesTable",
        "SHADOW_TESTS_TABLE": "ShadowTestsTable",
        "SHADOW_TEST_MACHINE": "ShadowTestMachine",
        "APP_ISSUES_TABLE": "AppIssuesTable",
        "TRIAGE_TABLE": "TriageTable",
        "CALL_REPORTS_TABLE": "CallReportsTable",
        "BLOBS_BUCKET": "BlobsBucket",
        "BUS_NAME": "BusName",
        "STAGE": "Stage",
    }
    if lacking := sorted(set(wanted.values()) - set(outputs)):
        raise Failed(f"The stack is older than this command (it has no {', '.join(lacking)}): make up, or make deploy.")
    named = {name: outputs[output] for name, output in wanted.items()}
    named |= {"SILENCE_SECONDS": "4", "AWS_REGION": os.environ.get("AWS_REGION", "us-east-1")}
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    settings.cache_clear()
    try:
        with aws.clients_from(clients):
            yield
    except FixloopError as error:
        raise Failed(error.message) from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        settings.cache_clear()


@contextmanager
def working(context: typer.Context) -> Iterator[Target]:
    target = resolve(context)
    with working_on(target.outputs, target.clients):
        yield target


def now() -> int:
    return int(time.time() * 1000)


def ensure_local_admin(
    outputs: dict[str, str], session: dict[str, str], *, previous: tuple[str, str] | None = None
) -> tuple[str, str]:
    """The local organisation's id and an admin key of it; those of before, as long as they still work."""
    from fixloop_cli import local

    def clients(service: str) -> Any:
        return local.client(service, session["endpoint_url"], session["region_name"])

    with working_on(outputs, clients):
        if previous:
            principal = platform.find_key(previous[1])
            if principal and principal.org_id == previous[0] and principal.usable(now()):
                return previous
        org_id = platform.create_org(LOCAL_ORG, now())
        user = User(id=1, name="Local Admin", email="admin@localhost", roles=["AppOwner"], created_at=now())
        secret, _ = platform.create_key(
            org_id, now(), user=user, scope=Scope.ADMIN, limit=NO_LIMIT, label="made by fixloop up"
        )
        return org_id, secret


@orgs.command("create")
def create_org(context: typer.Context, name: Annotated[str, typer.Argument(help="What people call it.")]) -> None:
    """Make an organisation and show its id."""
    with working(context):
        org_id = platform.create_org(name, now())
    console.print(org_id)


@orgs.command("set")
def set_org(
    context: typer.Context,
    org: Annotated[str, typer.Argument(help="The organisation's id, org_…")],
    triage: Annotated[
        Switch | None, typer.Option(help="Whether a triage issue is opened for each issue and each critical report.")
    ] = None,
    grouping_threshold: Annotated[
        int | None, typer.Option(min=0, help="So many reports alike open an issue; 0 for the stack's own number.")
    ] = None,
    triage_model: Annotated[
        str | None,
        typer.Option(
            help="What drafts fixes for triage issues: a model, extractive for rules alone, or own: the agent's."
        ),
    ] = None,
) -> None:
    """Change what is named of an organisation's settings; running functions take it up within a minute."""
    changes: dict[str, Any] = {}
    if triage is not None:
        changes["triage"] = triage is Switch.ON
    if grouping_threshold is not None:
        changes["grouping_threshold"] = grouping_threshold or None
    if triage_model is not None:
        if triage_model != OWN and not well_formed(triage_model):
            raise Failed('--triage-model takes "bedrock:<model id>", "openai:<name>/<model>", "extractive" or "own".')
        changes["triage_model"] = None if triage_model == OWN else triage_model
    if not changes:
        raise Failed("Nothing to set: name --triage, --grouping-threshold or --triage-model.")
    with working(context):
        chosen = platform.change_org(org, changes)
    show_settings(chosen)


@orgs.command("show")
def show_org(context: typer.Context, org: Annotated[str, typer.Argument(help="The organisation's id, org_…")]) -> None:
    """Show an organisation's name and settings."""
    with working(context):
        held = platform.org(org)
        if held is None:
            raise Failed(f"There is no organisation {org}. Make one: fixloop orgs create NAME")
        chosen = platform.org_settings(org, now())
    console.print(f"[bold]{escape(held['name'])}[/] {org}, since {date(held['created_at'])}")
    show_settings(chosen)


def show_settings(chosen: OrgSettings) -> None:
    console.print(f"triage: {'on' if chosen.triage else 'off'}")
    console.print(f"grouping threshold: {chosen.grouping_threshold or 'the parameter GroupingThreshold'}")
    console.print(f"triage model: {escape(chosen.triage_model or 'the own model of each agent')}")


@keys.command("create")
def create_key(
    context: typer.Context,
    org: Org,
    scope: Annotated[Scope, typer.Option(help="read, write (includes read) or admin (includes both).")] = Scope.WRITE,
    name: Annotated[str, typer.Option(help="The user's name.")] = "",
    email: Annotated[str, typer.Option(help="The user's e-mail.")] = "",
    role: Annotated[
        list[str] | None, typer.Option(help="A role of the user's, such as AppAdmin or AppUser; may be said again.")
    ] = None,
    user_id: Annotated[int | None, typer.Option(help="An existing user's id; a new one if left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Requests per minute.")] = DEFAULT_LIMIT,
    expires: Annotated[
        str, typer.Option(help="A date (2027-01-31) or a time from now (90d, 12h); never if left out.")
    ] = "",
    prefix: Annotated[str, typer.Option(help="What the key begins with, as your clients expect it.")] = "sk_live_",
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a key and show it, this once."""
    if not re.fullmatch(r"\w{0,20}", prefix):
        raise Failed("A prefix has at most 20 letters, digits and underscores.")
    for one in role or []:
        if not re.fullmatch(r"\w{1,64}", one):
            raise Failed("A role has 1 to 64 letters, digits and underscores.")
    roles = {"roles": list(dict.fromkeys(role))} if role else {}
    until = expiry(expires) if expires else None
    with working(context):
        held = platform.org(org)
        if held is None:
            raise Failed(f"There is no organisation {org}. Make one: fixloop orgs create NAME")
        user = User(id=user_id or held["members"] + 1, name=name, email=email, created_at=now(), **roles)
        secret, principal = platform.create_key(
            org, now(), user=user, scope=scope, limit=limit, expires_at=until, prefix=prefix, label=label
        )
    console.print(secret, soft_wrap=True)
    Console(stderr=True, highlight=False).print(f"[dim]{principal.key_id}; it is stored hashed and not shown again.[/]")


@keys.command("list")
def list_keys(context: typer.Context, org: Org) -> None:
    """All keys of an organisation, without their secrets."""
    with working(context):
        found = platform.list_keys(org)
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("id", "key", "user", "scope", "per min", "state"):
        table.add_column(column, no_wrap=column in ("id", "key", "scope"), overflow="fold")
    for key in found:
        named = escape(f"{key.user.id} {key.user.name}".strip())
        table.add_row(key.key_id, key.hint, named, key.scope.value, f"{key.limit:,}", state(key))
    console.print(table)


@keys.command("revoke")
def revoke_key(context: typer.Context, org: Org, key_id: Annotated[str, typer.Argument(help="key_…")]) -> None:
    """Stop a key from working; running functions forget it within a minute."""
    with working(context):
        platform.revoke_key(org, key_id, now())
    console.print(f"{key_id} is revoked; it stops working everywhere within 60 s.")


@dead_letters.command("list")
def list_dead_letters(context: typer.Context) -> None:
    """What lies in the dead-letter queues, and why."""
    with working(context) as target:
        found = list(letters(target, hidden_seconds=0))
    for letter in found:
        console.print(f"[bold]{letter.kind}[/] {escape(letter.reason)}", soft_wrap=True)
    console.print(f"{len(found)} dead letters")


@dead_letters.command("redrive")
def redrive(context: typer.Context) -> None:
    """Play every dead letter again. Consumers tolerate repeats; what fails once more comes back here."""
    with working(context) as target:
        played = [letter.play(target) for letter in letters(target, hidden_seconds=120)]
    console.print(f"{played.count(True)} dead letters played again")
    if lost := played.count(False):
        console.print(f"{lost} left: what they point at is no longer in its table's stream", style="yellow")


class Letter:
    """One message in a dead-letter queue: an event, or where its records lie in a stream, and what went wrong."""

    def __init__(self, queue: str, message: dict[str, Any]) -> None:
        self._queue = queue
        self._receipt = message["ReceiptHandle"]
        body = json.loads(message["Body"])
        self._function = body.get("requestContext", {}).get("functionArn")
        self._event = body.get("requestPayload", body if "detail" in body else None)
        self._records = body.get("DDBStreamBatchInfo")
        self.kind = str((self._event or {}).get("detail-type", "stream records"))
        answer = body.get("responsePayload") or {}
        said = f"{answer.get('errorType', '')}: {answer.get('errorMessage', '')}".strip(": ")
        self.reason = said or str(body.get("requestContext", {}).get("condition", "not delivered by EventBridge"))

    def play(self, target: Target) -> bool:
        """Gives the event to the function that failed, or to the bus when it never came that far.

        False when the stream's records are gone: it keeps them for 24 hours.
        """
        event = self._event if self._records is None else stream_batch(target, self._records)
        if event is None:
            return False
        if self._function:
            target.clients("lambda").invoke(
                FunctionName=self._function.removesuffix(":$LATEST"),
                InvocationType="Event",
                Payload=json.dumps(event, default=encoded).encode(),
            )
        else:
            entry = {
                "Source": event["source"],
                "DetailType": event["detail-type"],
                "Detail": json.dumps(event["detail"]),
                "EventBusName": target.outputs["BusName"],
            }
            target.clients("events").put_events(Entries=[entry])
        target.clients("sqs").delete_message(QueueUrl=self._queue, ReceiptHandle=self._receipt)
        return True


def stream_batch(target: Target, where: dict[str, Any]) -> dict[str, Any] | None:
    """The records of a failed batch, read from the table's stream once more, as the function gets them."""
    streams = target.clients("dynamodbstreams")
    last = int(where["endSequenceNumber"])
    records: list[dict[str, Any]] = []
    try:
        iterator = streams.get_shard_iterator(
            StreamArn=where["streamArn"],
            ShardId=where["shardId"],
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            SequenceNumber=where["startSequenceNumber"],
        )["ShardIterator"]
        while iterator:
            page = streams.get_records(ShardIterator=iterator)
            records += [one for one in page["Records"] if int(one["dynamodb"]["SequenceNumber"]) <= last]
            past = not page["Records"] or int(page["Records"][-1]["dynamodb"]["SequenceNumber"]) >= last
            iterator = None if past else page.get("NextShardIterator")
    except streams.exceptions.ClientError:
        return None
    return {"Records": [{**one, "eventSourceARN": where["streamArn"]} for one in records]} if records else None


def encoded(value: Any) -> Any:
    """Bytes and times in the form that Lambda's own stream events have them."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value.timestamp()


def letters(target: Target, *, hidden_seconds: int) -> Iterator[Letter]:
    """Every message of both queues once; each is hidden from other readers for a while."""
    seen: set[str] = set()
    for output in ("EventsDeadLetters", "RulesDeadLetters"):
        queue = target.outputs[output]
        while True:
            received = target.clients("sqs").receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=hidden_seconds
            )
            fresh = [message for message in received.get("Messages", []) if message["MessageId"] not in seen]
            if not fresh:
                break
            for message in fresh:
                seen.add(message["MessageId"])
                yield Letter(queue, message)


def expiry(text: str) -> int:
    """`90d`, `12h` or a date, in ms."""
    if found := re.fullmatch(r"(\d{1,5})([dh])", text):
        return now() + int(found[1]) * (86_400_000 if found[2] == "d" else 3_600_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failed("--expires takes a date (2027-01-31) or a time from now (90d, 12h).") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def date(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def state(key: Principal) -> str:
    label = f" ({escape(key.label)})" if key.label else ""
    if key.revoked_at is not None:
        return f"[red]revoked {date(key.revoked_at)}[/]{label}"
    if key.expires_at is None:
        return f"works{label}"
    return f"works until {date(key.expires_at)}{label}" if key.usable(now()) else f"[yellow]expired[/]{label}"
