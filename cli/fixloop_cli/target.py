"""Which stack a command works on: the local one, or one on AWS with the caller's own credentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session
import typer

from fixloop_cli import local
from fixloop_cli.build import Failed


@dataclass(frozen=True)
class Options:
    """The options before the command: `fixloop --local keys list`."""

    use_local: bool = False
    stack_name: str = local.STACK_NAME
    region: str | None = None


@dataclass(frozen=True)
class Target:
    """A deployed stack: what its template put out, and botocore clients to work on it with."""

    outputs: dict[str, str]
    clients: Callable[[str], Any]
    stack_name: str = local.STACK_NAME


def resolve(context: typer.Context) -> Target:
    """The stack that the options name. Raises `Failed` with what to do when there is none."""
    options = context.find_object(Options) or Options()
    return local_target() if options.use_local else aws_target(options)


def local_stack() -> local.Stack:
    """The local stack that belongs to the folder where the command is run. Raises `Failed`."""
    directory = local.find_directory(Path.cwd())
    stack = local.read(directory) if directory else None
    if stack is None:
        raise Failed("There is no local stack here. Start one with: make up")
    return stack


def local_target() -> Target:
    stack = local_stack()
    if local.running(stack.directory)[0] is None:
        raise Failed(f"The local stack in {stack.directory} is not running. Start it with: make up")
    return Target(stack.outputs, stack.client, stack.stack_name)


def aws_target(options: Options) -> Target:
    session = botocore.session.get_session()
    region = options.region or session.get_config_variable("region")
    if not region:
        raise Failed("No region is set. Name one (fixloop --region eu-west-1 ...), or use the local stack: --local")

    def clients(service: str) -> Any:
        return session.create_client(service, region)

    return Target(aws_outputs(clients("cloudformation"), options.stack_name, region), clients, options.stack_name)


def aws_outputs(cloudformation: Any, stack_name: str, region: str) -> dict[str, str]:
    try:
        described = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
        raise Failed("No AWS credentials were found. Sign in, or use the local stack: fixloop --local ...") from None
    except botocore.exceptions.ClientError as error:
        if "does not exist" in str(error):
            raise Failed(
                f"There is no stack {stack_name} in {region}. Name it (fixloop --stack-name ... --region ...), "
                "deploy it (make deploy), or use the local stack: --local"
            ) from None
        raise Failed(f"CloudFormation did not answer for {stack_name} in {region}: {error}") from None
    except botocore.exceptions.BotoCoreError as error:
        raise Failed(f"CloudFormation in {region} could not be asked for {stack_name}: {error}") from None
    return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
