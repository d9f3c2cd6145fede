"""`fixloop models`: the model endpoints that an organisation's replays and judges may ask."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fixloop.errors import NotFound
from fixloop.models import Endpoint
from fixloop.storage import endpoints, platform
from fixloop_cli import manage
from fixloop_cli.build import Failed
from fixloop_cli.target import Options, local_stack

console = Console(highlight=False)
models = typer.Typer(help="OpenAI-compatible model endpoints, by name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the model names begin with: openai:NAME/MODEL")]
Org = Annotated[str, typer.Option("--org", help="The organisation's id, org_…; with --local its own if left out.")]


def chosen_org(context: typer.Context, org: str) -> str:
    """The organisation that is meant. Raises `Failed` when none is named, and NotFound for one that is not there."""
    if not org and (context.find_object(Options) or Options()).use_local:
        org = local_stack().org_id
    if not org:
        raise Failed("Name the organisation: --org org_…")
    if platform.org(org) is None:
        raise NotFound(f"Organisation {org} not found")
    return org


@models.command("add")
def add(
    context: typer.Context,
    name: Name,
    base_url: Annotated[str, typer.Option(help="As clients of the API take it: https://api.example.com/v1")],
    api_key_stdin: Annotated[bool, typer.Option("--api-key-stdin", help="Read the API key from stdin.")] = False,
    input_price: Annotated[float | None, typer.Option(help="US dollars per million input tokens.")] = None,
    output_price: Annotated[float | None, typer.Option(help="US dollars per million output tokens.")] = None,
    org: Org = "",
) -> None:
    """Set an endpoint up, or anew. Its key is kept in Secrets Manager and never shown."""
    key = sys.stdin.readline().strip() if api_key_stdin else None
    if key == "":
        raise Failed("There was no API key on stdin.")
    with manage.working(context):
        endpoints.put(chosen_org(context, org), name, Endpoint(base_url, key, input_price, output_price))
    console.print(f"openai:{escape(name)}/MODEL", soft_wrap=True)


@models.command("list")
def list_models(context: typer.Context, org: Org = "") -> None:
    """The organisation's endpoints, without their keys."""
    table = Table(box=None)
    for column in ("NAME", "BASE URL", "API KEY", "PRICE"):
        table.add_column(column, overflow="fold")
    with manage.working(context):
        org = chosen_org(context, org)
        for name in endpoints.names(org):
            if found := endpoints.endpoint(org, name):
                table.add_row(name, escape(found.base_url), "yes" if found.api_key else "no", priced(found))
    console.print(table)


@models.command("remove")
def remove(context: typer.Context, name: Name, org: Org = "") -> None:
    """Remove an endpoint; running processes forget it within a minute."""
    with manage.working(context):
        org = chosen_org(context, org)
        if not endpoints.delete(org, name):
            raise NotFound(f"Model endpoint {name} not found")
    console.print(f"{escape(name)} is removed.")


def priced(found: Endpoint) -> str:
    if found.input_price is None or found.output_price is None:
        return "unknown"
    return f"${found.input_price:g} / ${found.output_price:g}"
