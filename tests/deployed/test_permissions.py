"""What each function's role may do on the deployed stack: its own job, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from cloud import template
from deployed.world import World

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

NAMES = {
    "PlatformTable": "platform",
    "CallsTable": "calls",
    "IssueReportsTable": "reports",
    "BlobsBucket": "blobs",
    "Bus": "bus",
}
NOBODY_MAY = {
    *(f"{table}.{verb}" for table in ("platform", "calls", "reports") for verb in ("Scan", "DeleteTable")),
    "blobs.ListBucket",
    "other_bus.PutEvents",
    "letters.ReceiveMessage",
    "rules_letters.SendMessage",
}
# What would hurt most, said here once more than in the template.
MAY_NOT = {
    "CallsFunction": {"reports.PutItem", "reports.GetItem", "bus.PutEvents"},
    "IssueReportsFunction": {"calls.PutItem", "calls.DeleteItem", "reports.DeleteItem", "blobs.PutObject"},
    "UnroutedFunction": {"calls.GetItem", "reports.GetItem", "blobs.GetObject"},
    "GradeCallFunction": {"platform.GetItem", "reports.PutItem", "blobs.PutObject", "calls.DeleteItem"},
    "FileReportsFunction": {"platform.GetItem", "blobs.GetObject", "reports.DeleteItem"},
    "GroupReportsFunction": {"calls.PutItem", "blobs.PutObject"},
    "RelayEventsFunction": {"platform.GetItem", "calls.GetItem", "reports.GetItem"},
    "SealListsFunction": {"platform.GetItem", "calls.DeleteItem", "reports.DeleteItem", "bus.PutEvents"},
}


def granted(function: dict[str, Any]) -> set[str]:
    """What the function's policies in the template say, as `table.Action`; of what is tried here."""
    found = set()
    for statement in (one for policy in function.get("Policies", []) for one in policy["Statement"]):
        resources, actions = (
            value if isinstance(value, list) else [value] for value in (statement["Resource"], statement["Action"])
        )
        for resource in resources:
            (target,) = resource.values()
            name = NAMES.get(target.strip("${").partition(".")[0])
            if name and "/index" not in target:
                found |= {f"{name}.{action.partition(':')[2]}" for action in actions}
    return found


@cache
def _session() -> botocore.session.Session:
    """One for all roles: it remembers what it has read of AWS's services."""
    maker = botocore.session.Session()
    maker.set_config_variable("config_file", os.devnull)
    maker.set_config_variable("credentials_file", os.devnull)
    return maker


def session_of(world: World, role: str) -> Callable[[str], Any]:
    """Makes clients with the role's rights."""
    session = world.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    credentials = {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
    maker = _session()

    def client(service: str) -> Any:
        return maker.create_client(service, world.stack.region, endpoint_url=world.stack.endpoint_url, **credentials)

    return client


def attempts(world: World, client: Callable[[str], Any]) -> dict[str, Callable[[], Any]]:
    """Everything a function might do with what the stack holds, none of which changes anything that is there."""
    outputs = world.stack.outputs
    tables = {
        "platform": outputs["PlatformTable"],
        "calls": outputs["CallsTable"],
        "reports": outputs["IssueReportsTable"],
    }
    dynamodb, s3, events, sqs = (client(service) for service in ("dynamodb", "s3", "events", "sqs"))
    nobody = {"pk": {"S": "nobody"}, "sk": {"S": "nothing"}}
    never = {"ConditionExpression": "attribute_exists(pk)"}
    query = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "nobody"}}}
    update = {"UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": {"S": "a"}}, **never}
    made: dict[str, Callable[[], Any]] = {}
    for name, table in tables.items():
        at: dict[str, Any] = {"TableName": table}
        made |= {
            f"{name}.GetItem": lambda at=at: dynamodb.get_item(**at, Key=nobody),
            f"{name}.BatchGetItem": lambda table=table: dynamodb.batch_get_item(
                RequestItems={table: {"Keys": [nobody]}}
            ),
            f"{name}.PutItem": lambda at=at: dynamodb.put_item(**at, Item=nobody, **never),
            f"{name}.UpdateItem": lambda at=at: dynamodb.update_item(**at, Key=nobody, **update),
            f"{name}.DeleteItem": lambda at=at: dynamodb.delete_item(**at, Key=nobody, **never),
            f"{name}.Query": lambda at=at: dynamodb.query(**at, **query),
            f"{name}.Scan": lambda at=at: dynamodb.scan(**at, Limit=1),
            f"{name}.DeleteTable": lambda at=at: dynamodb.delete_table(**at),
        }
    blob = {"Bucket": outputs["BlobsBucket"], "Key": "nobody/nothing"}
    entry = {"Source": "test", "DetailType": "nothing", "Detail": "{}"}
    return made | {
        "blobs.GetObject": lambda: s3.get_object(**blob),
        "blobs.PutObject": lambda: s3.put_object(**blob, Body=b""),
        "blobs.DeleteObject": lambda: s3.delete_object(**blob),
        "blobs.ListBucket": lambda: s3.list_objects_v2(Bucket=blob["Bucket"]),
        "bus.PutEvents": lambda: events.put_events(Entries=[{**entry, "EventBusName": outputs["BusName"]}]),
        "other_bus.PutEvents": lambda: events.put_events(Entries=[{**entry, "EventBusName": "default"}]),
        "letters.ReceiveMessage": lambda: sqs.receive_message(QueueUrl=outputs["EventsDeadLetters"]),
        "rules_letters.SendMessage": lambda: sqs.send_message(QueueUrl=outputs["RulesDeadLetters"], MessageBody="{}"),
    }


def allowed(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except ClientError as error:
        return error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException")
    return True


def test_each_function_may_do_what_the_template_says_and_nothing_else(world: World):
    functions = world.client("lambda").list_functions()["Functions"]
    roles = {function["FunctionName"].split("-")[1]: function["Role"] for function in functions}
    resources = template()["Resources"]
    says = {name: granted(resources[name]["Properties"]) for name in roles}
    assert set(roles) >= set(MAY_NOT)
    assert len(set(roles.values())) == len(roles)
    may = {
        name: {what for what, attempt in attempts(world, session_of(world, role)).items() if allowed(attempt)}
        for name, role in roles.items()
    }
    assert may == says
    assert not {name: what & NOBODY_MAY for name, what in may.items() if what & NOBODY_MAY}
    assert not {name: may[name] & forbidden for name, forbidden in MAY_NOT.items() if may[name] & forbidden}
