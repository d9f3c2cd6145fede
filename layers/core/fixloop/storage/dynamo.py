"""DynamoDB's wire form of plain Python values, and the calls every store makes."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from fixloop.aws import client

Item = dict[str, Any]
Action = dict[str, Any]
"""One element of TransactWriteItems, its values already in wire form."""

_ATTEMPTS = 8
_BATCH = 100


class ConditionFailed(Exception):
    """A write's condition did not hold. `reasons` has one code per action of a transaction; `items` what was there."""

    def __init__(self, reasons: list[str], items: list[Item | None]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons
        self.items = items

    def failed(self, index: int) -> bool:
        """Whether it was the action at `index` whose condition failed."""
        return index < len(self.reasons) and self.reasons[index] == "ConditionalCheckFailed"


class Contended(Exception):
    """Other writers kept getting in between, for as long as it was worth trying."""


def to_wire(value: Any) -> Item:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case Decimal():
            return {"N": f"{value:f}"}
        case float():
            return {"N": repr(value)}
        case None:
            return {"NULL": True}
        case bytes():
            return {"B": value}
        case set() | frozenset():
            if all(isinstance(member, str) for member in value):
                return {"SS": sorted(value)}
            return {"NS": [str(member) for member in sorted(value)]}
        case list() | tuple():
            return {"L": [to_wire(element) for element in value]}
        case Mapping():
            return {"M": {key: to_wire(element) for key, element in value.items()}}
    raise TypeError(f"{type(value).__name__} has no DynamoDB form")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def from_wire(wire: Mapping[str, Any]) -> Any:
    ((kind, value),) = wire.items()
    match kind:
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "M":
            return {key: from_wire(element) for key, element in value.items()}
        case "L":
            return [from_wire(element) for element in value]
        case "SS":
            return set(value)
        case "NS":
            return {_number(member) for member in value}
    return value


def pack(item: Mapping[str, Any]) -> Item:
    return {name: to_wire(value) for name, value in item.items()}


def unpack(item: Mapping[str, Any]) -> Item:
    return {name: from_wire(value) for name, value in item.items()}


def get(table: str, key: Item, *, consistent: bool = True) -> Item | None:
    found = client("dynamodb").get_item(TableName=table, Key=pack(key), ConsistentRead=consistent).get("Item")
    return unpack(found) if found else None


def get_many(table: str, keys: Iterable[Item], *, consistent: bool = False) -> list[Item]:
    """All items that exist, in no order, each once. Throttled leftovers are asked for again."""
    waiting = [pack(key) for key in {tuple(key.items()): key for key in keys}.values()]
    found: list[Item] = []
    for attempt in range(_ATTEMPTS):
        if not waiting:
            return found
        if attempt:
            _pause(attempt)
        leftover: list[Item] = []
        for start in range(0, len(waiting), _BATCH):
            request = {table: {"Keys": waiting[start : start + _BATCH], "ConsistentRead": consistent}}
            answer = client("dynamodb").batch_get_item(RequestItems=request)
            found += [unpack(item) for item in answer["Responses"].get(table, [])]
            leftover += answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
        waiting = leftover
    if waiting:
        raise Contended(f"{len(waiting)} reads of {table} stayed throttled")
    return found


def get_rows(table: str, rows: Iterable[Item], *, consistent: bool = False) -> list[Item]:
    """The whole items of rows as an index gives them, in their order; without those that are gone."""
    wanted = list(dict.fromkeys((row["pk"], row["sk"]) for row in rows))
    items = get_many(table, ({"pk": pk, "sk": sk} for pk, sk in wanted), consistent=consistent)
    found = {(item["pk"], item["sk"]): item for item in items}
    return [found[key] for key in wanted if key in found]


def query(table: str, condition: str, values: Item, **options: Any) -> Iterator[Item]:
    """Every item of a key condition, page by page. `options` are Query's own."""
    request = {
        "TableName": table,
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": pack(values),
        **options,
    }
    while True:
        answer = client("dynamodb").query(**request)
        yield from map(unpack, answer["Items"])
        if "Limit" in request or "LastEvaluatedKey" not in answer:
            return
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def some(table: str, condition: str, values: Item, count: int, **options: Any) -> tuple[list[Item], bool]:
    """The first `count` items of a key condition, and whether there may be more. `options` are Query's own."""
    request = {
        "TableName": table,
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": pack(values),
        **options,
    }
    found: list[Item] = []
    while True:
        answer = client("dynamodb").query(**request, Limit=count - len(found))
        found += map(unpack, answer["Items"])
        if len(found) >= count or "LastEvaluatedKey" not in answer:
            return found, "LastEvaluatedKey" in answer
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def put_action(table: str, item: Item, **options: Any) -> Action:
    return {"Put": {"TableName": table, "Item": pack(item), **_wired(options)}}


def update_action(table: str, key: Item, expression: str, **options: Any) -> Action:
    return {"Update": {"TableName": table, "Key": pack(key), "UpdateExpression": expression, **_wired(options)}}


def delete_action(table: str, key: Item, **options: Any) -> Action:
    return {"Delete": {"TableName": table, "Key": pack(key), **_wired(options)}}


def set_action(
    table: str, key: Item, fields: Mapping[str, Any], *, remove: Iterable[str] = (), **options: Any
) -> Action:
    """Sets the named attributes of an item and removes others; what is not named stays as it is."""
    expression = "SET " + ", ".join(f"#f{at} = :f{at}" for at in range(len(fields)))
    names = {f"#f{at}": name for at, name in enumerate(fields)}
    for at, name in enumerate(remove):
        expression += f"{',' if at else ' REMOVE'} #r{at}"
        names[f"#r{at}"] = name
    values = {f":f{at}": value for at, value in enumerate(fields.values())}
    options["names"] = {**names, **options.get("names", {})}
    options["values"] = {**values, **options.get("values", {})}
    return update_action(table, key, expression, **options)


def _wired(options: dict[str, Any]) -> dict[str, Any]:
    """`values`, `names` and `condition` under DynamoDB's own long names; the old item comes with a refusal."""
    wired: dict[str, Any] = {}
    if options.get("values"):
        wired["ExpressionAttributeValues"] = pack(options["values"])
    if options.get("names"):
        wired["ExpressionAttributeNames"] = options["names"]
    if options.get("condition"):
        wired["ConditionExpression"] = options["condition"]
        wired["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return wired


def put(table: str, item: Item, **options: Any) -> None:
    """Raises ConditionFailed."""
    write([put_action(table, item, **options)])


def update(table: str, key: Item, expression: str, **options: Any) -> Item:
    """The item as it is afterwards. Raises ConditionFailed."""
    action = update_action(table, key, expression, **options)["Update"]
    return unpack(_guarded("update_item", **action, ReturnValues="ALL_NEW")["Attributes"])


def delete(table: str, key: Item, **options: Any) -> None:
    """Raises ConditionFailed."""
    write([delete_action(table, key, **options)])


def write(actions: list[Action]) -> None:
    """All of the actions or none. One alone is a plain write at half a transaction's price.

    A retry after a lost answer carries the same token, so it is applied once. Transactions that meet others on the
    same item are tried again with full jitter; Contended is raised when that does not end.
    """
    if len(actions) == 1:
        ((verb, request),) = actions[0].items()
        if verb == "Put":
            _put_once(request)
        else:
            _guarded({"Update": "update_item", "Delete": "delete_item"}[verb], **request)
        return
    token = uuid.uuid4().hex
    for attempt in range(_ATTEMPTS):
        if attempt:
            _pause(attempt)
        try:
            client("dynamodb").transact_write_items(TransactItems=actions, ClientRequestToken=token)
        except ClientError as error:
            if error.response["Error"]["Code"] == "TransactionInProgressException":
                continue
            if error.response["Error"]["Code"] != "TransactionCanceledException":
                raise
            reasons = error.response.get("CancellationReasons", [])
            codes = [reason.get("Code", "None") for reason in reasons]
            if "ConditionalCheckFailed" in codes:
                olds = [unpack(reason["Item"]) if reason.get("Item") else None for reason in reasons]
                raise ConditionFailed(codes, olds) from None
            if not {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"} & set(codes):
                raise
            token = uuid.uuid4().hex
        else:
            return
    raise Contended(f"a transaction of {len(actions)} writes met others {_ATTEMPTS} times")


def _put_once(request: Item) -> None:
    """A conditional put that knows its own hand: when the answer was lost and the retry is refused, it did land."""
    stamp = uuid.uuid4().hex
    request["Item"]["w"] = {"S": stamp}
    try:
        _guarded("put_item", **request)
    except ConditionFailed as refused:
        if not refused.items[0] or refused.items[0].get("w") != stamp:
            raise


def _guarded(operation: str, **request: Any) -> Item:
    for attempt in range(_ATTEMPTS):
        if attempt:
            _pause(attempt)
        try:
            return getattr(client("dynamodb"), operation)(**request)  # type: ignore[no-any-return]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                old = error.response.get("Item")
                raise ConditionFailed(["ConditionalCheckFailed"], [unpack(old) if old else None]) from None
            if code != "TransactionConflictException":
                raise
    raise Contended(f"{operation} met transactions {_ATTEMPTS} times")


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(0.02 * 2**attempt, 0.5)))
