"""The way around HTTP to moto's tables: everything that is asked there is answered as over HTTP."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

import shortcut
from cloud import Cloud

KEY = {"pk": {"S": "a"}, "sk": {"S": "1"}}
ITEM = {
    **KEY,
    "said": {"S": "grün"},
    "number": {"N": "17.50"},
    "bytes": {"B": b"\x00\xff"},
    "words": {"SS": ["a"]},
    "numbers": {"NS": ["1"]},
    "deep": {"M": {"parts": {"L": [{"S": "x"}, {"B": b"y"}, {"M": {}}]}, "no": {"NULL": True}, "yes": {"BOOL": True}}},
}
ABSENT = {"ConditionExpression": "attribute_not_exists(pk)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
CHANGE = {
    "Key": KEY,
    "UpdateExpression": "SET #t = :t, deep.parts[0] = :t REMOVE words ADD #n :n",
    "ExpressionAttributeNames": {"#t": "said", "#n": "number"},
    "ExpressionAttributeValues": {":t": {"S": "new"}, ":n": {"N": "1"}},
}
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("PutItem", {"Item": ITEM}),
    ("PutItem", {"Item": ITEM, "ReturnValues": "ALL_OLD"}),
    ("PutItem", {"Item": {**ITEM, "sk": {"S": "2"}}}),
    ("PutItem", {"Item": ITEM, **ABSENT}),
    ("PutItem", {"Item": {**ITEM, "number": {"N": "many"}}}),
    ("PutItem", {"Item": {"pk": {"S": "a"}}}),
    ("PutItem", {"Item": {**ITEM, "number": 17}}),
    ("GetItem", {"Key": KEY}),
    ("GetItem", {"Key": {**KEY, "sk": {"S": "none"}}}),
    ("GetItem", {"Key": KEY, "ProjectionExpression": "said, deep.parts[1]"}),
    ("GetItem", {"Key": {"pk": {"S": "a"}, "other": {"S": "1"}}}),
    ("UpdateItem", {**CHANGE, "ReturnValues": "ALL_NEW"}),
    ("UpdateItem", {**CHANGE, "ConditionExpression": "#n = :n", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}),
    ("UpdateItem", {**CHANGE, "UpdateExpression": "SET status = :t"}),
    ("Query", {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "a"}}, "Limit": 1}),
    ("Query", {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "b"}}}),
    ("Query", {"KeyConditionExpression": "nothing", "ExpressionAttributeValues": {":pk": {"S": "b"}}}),
    ("DeleteItem", {"Key": KEY, "ReturnValues": "ALL_OLD"}),
    ("DeleteItem", {"Key": KEY, "ConditionExpression": "attribute_exists(pk)"}),
]


@pytest.fixture(scope="module")
def table(cloud: Cloud) -> str:
    name = f"shortcut-{uuid.uuid4().hex}"
    kinds = {"pk": "HASH", "sk": "RANGE"}
    cloud.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in kinds],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in kinds.items()],
    )
    return name


def told(cloud: Cloud, way: Any, operation: str, request: dict[str, Any]) -> Any:
    try:
        said = way(cloud.client("dynamodb"), operation, request)
    except (ClientError, ParamValidationError) as error:
        said = {"type": type(error).__name__, "text": str(error), **getattr(error, "response", {})}
    return {name: value for name, value in said.items() if name not in ("ResponseMetadata", "ConsumedCapacity")}


def both(cloud: Cloud, operation: str, request: dict[str, Any], other: dict[str, Any]) -> Any:
    """The same asked of what either way has made for itself."""
    ours = told(cloud, shortcut.make_api_call, operation, request)
    theirs = told(cloud, shortcut.the_long_way, operation, other)
    assert ours == theirs, (operation, request)
    return ours


def test_every_answer_is_the_same(cloud: Cloud, table: str) -> None:
    other = table + "-long"
    described = cloud.client("dynamodb").describe_table(TableName=table)["Table"]
    cloud.client("dynamodb").create_table(
        TableName=other,
        BillingMode="PAY_PER_REQUEST",
        **{name: described[name] for name in ("AttributeDefinitions", "KeySchema")},
    )
    said = [both(cloud, name, {"TableName": table, **asked}, {"TableName": other, **asked}) for name, asked in ASKED]
    assert {name for name, _ in ASKED} == shortcut.METHODS.keys() - {"BatchGetItem", "TransactWriteItems"}
    assert sum("Error" in answer for answer in said) == 8
    assert "ParamValidationError" in {answer.get("type") for answer in said}


def test_batches_and_transactions_are_answered_the_same(cloud: Cloud, table: str) -> None:
    put = [{"Put": {"TableName": table, "Item": {**ITEM, "pk": {"S": "t"}, "sk": {"S": str(at)}}}} for at in range(2)]
    keys = [{"pk": {"S": "t"}, "sk": {"S": str(at)}} for at in range(3)]
    for request in ({"TransactItems": put}, {"TransactItems": [put[0], {"Put": {**put[1]["Put"], **ABSENT}}]}):
        said = both(cloud, "TransactWriteItems", request, request)
    assert [reason["Code"] for reason in said["CancellationReasons"]] == ["None", "ConditionalCheckFailed"]
    assert said["CancellationReasons"][1]["Item"] == put[1]["Put"]["Item"]
    batch = {"RequestItems": {table: {"Keys": keys}}}
    assert len(both(cloud, "BatchGetItem", batch, batch)["Responses"][table]) == 2
