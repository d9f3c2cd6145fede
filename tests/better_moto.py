"""moto for this product: transactions that undo their own writes alone, queries that walk one hash, nothing twice."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from moto import backend_index
from moto.core import responses
from moto.core.model import StructureShape
from moto.core.serialize import BaseJSONSerializer
from moto.dynamodb.exceptions import ItemSizeTooLarge
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.sqs.models import sqs_backends

ASKED_MOST = ("dynamodb", "dynamodbstreams", "sqs", "events")
ITEM_BYTES = 405_000

_transact, _query, _all_items = DynamoDBBackend.transact_write_items, Table.query, Table.all_items
_called, _structure = DynamoHandler.call_action, BaseJSONSerializer._serialize_type_structure
_project, _copied, _size = Item.project, Item.__deepcopy__, DynamoType.size
_cast: Any = DynamoType.cast_value
_asked = threading.local()
_one_at_a_time = threading.RLock()


# What is wrong without


def _transact_cheaply(backend: DynamoDBBackend, actions: list[dict[str, Any]]) -> None:
    """moto's transaction, which copies whole tables to undo a failed one, with copies of what it may touch alone."""
    touched = set()
    for action in actions:
        ((_, request),) = action.items()
        key = request.get("Key") or request["Item"]
        touched.add((DynamoType(key["pk"]), DynamoType(key["sk"])))
    twins: dict[str, Table] = {}

    def twin(table: Table, memo: dict[int, Any]) -> Table:
        if table.name in twins:
            return twins[table.name]
        made = twins[table.name] = copy.copy(table)
        made.items = copy.copy(table.items)
        for partition in {partition for partition, _ in touched if partition in table.items}:
            made.items[partition] = copy.copy(table.items[partition])
        for partition, place in touched:
            if partition in table.items and place in table.items[partition]:
                made.items[partition][place] = copy.deepcopy(table.items[partition][place])
        if made.stream_shard:
            made.stream_shard = copy.copy(made.stream_shard)
            made.stream_shard.table = made
            made.stream_shard.items = list(made.stream_shard.items)
        return made

    Table.__deepcopy__ = twin  # type: ignore[attr-defined]
    try:
        _transact(backend, actions)
    finally:
        del Table.__deepcopy__  # type: ignore[attr-defined]


def _call_alone(handler: DynamoHandler) -> Any:
    with _one_at_a_time:
        return _called(handler)


# What is slow without


def _query_cheaply(table: Table, *positional: Any, **named: Any) -> Any:
    """moto's query, whose walk over the table, which it sorts for every query, meets the asked hash alone."""
    _asked.hashes = named.get("hash_key_conditions")
    try:
        return _query(table, *positional, **named)
    finally:
        _asked.hashes = None


def _asked_items(table: Table) -> list[Any]:
    hashes = getattr(_asked, "hashes", None)
    if not hashes:
        return _all_items(table)
    ((name, wanted),) = hashes
    if name == table.hash_key_attr:
        return list(table.items.get(wanted, {}).values())
    rows = (row for rows in list(table.items.values()) for row in list(rows.values()))
    return [row for row in rows if name in row.attrs and row.attrs[name].value == wanted.value]


def _copied_or_asked(item: Item, memo: dict[int, Any]) -> Item:
    """What a query finds is written into its answer at once, and needs no copy."""
    return item if getattr(_asked, "hashes", None) else _copied(item, memo)


def _projected(item: Item, paths: list[list[str]]) -> Item:
    if any(len(path) > 1 or "[" in path[0] for path in paths):
        return _project(item, paths)
    return _made(item.hash_key, item.range_key, {name: item.attrs[name] for (name,) in paths if name in item.attrs})


def _made(hash_key: DynamoType, range_key: DynamoType | None, attributes: dict[str, DynamoType]) -> Item:
    made = Item.__new__(Item)
    made.hash_key, made.range_key, made.attrs = hash_key, range_key, LimitedSizeDict()
    dict.update(made.attrs, attributes)
    return made


def _make(item: Item, hash_key: DynamoType, range_key: DynamoType | None, attrs: dict[str, Any]) -> None:
    """An item whose size is taken once, not at each of its attributes."""
    item.hash_key, item.range_key, item.attrs = hash_key, range_key, LimitedSizeDict()
    dict.update(item.attrs, {name: DynamoType(value) for name, value in attrs.items()})
    if item.size() > ITEM_BYTES:
        raise ItemSizeTooLarge


def _cast_scalar_first(value: DynamoType) -> Any:
    match value.type:
        case "S":
            return value.value
        case "N":
            return Decimal(value.value)
    return _cast.fget(value)


def _size_scalar_first(value: DynamoType) -> int:
    return len(value.value.encode()) if value.type == "S" else _size(value)


def _structure_cheaply(
    serializer: BaseJSONSerializer, serialized: Any, value: Any, shape: StructureShape, key: str
) -> None:
    """moto's serializer, which asks an attribute for every type by every name it could have, is told its one type."""
    if shape.name == "AttributeValue" and type(value) is dict and len(value) == 1:
        serializer._default_serialize(serialized, _wire(serializer, value), shape, key)
    else:
        _structure(serializer, serialized, value, shape, key)


def _wire(serializer: BaseJSONSerializer, value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind:
        case "S" | "N":
            return {kind: str(content)}
        case "SS" | "NS":
            return {kind: [str(member) for member in content]}
        case "B":
            return {kind: serializer._base64(content)}
        case "M":
            return {kind: {name: _wire(serializer, member) for name, member in content.items()}}
        case "L":
            return {kind: [_wire(serializer, member) for member in content]}
        case "BOOL" | "NULL":
            return {kind: content}
    raise NotImplementedError(f"an attribute of type {kind}")


@contextmanager
def better_moto() -> Iterator[None]:
    """Without this every request costs more the more tests went before, and a failed transaction undoes others."""
    first = sorted(backend_index.backend_url_patterns, key=lambda pattern: pattern[0] not in ASKED_MOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DynamoDBBackend, "transact_write_items", _transact_cheaply)
        patch.setattr(DynamoHandler, "call_action", _call_alone)
        patch.setattr(Table, "query", _query_cheaply)
        patch.setattr(Table, "all_items", _asked_items)
        patch.setattr(Item, "__deepcopy__", _copied_or_asked)
        patch.setattr(Item, "__init__", _make)
        patch.setattr(Item, "project", _projected)
        patch.setattr(DynamoType, "cast_value", property(_cast_scalar_first))
        patch.setattr(DynamoType, "size", _size_scalar_first)
        patch.setattr(BaseJSONSerializer, "_serialize_type_structure", _structure_cheaply)
        patch.setattr(responses, "method_names_from_class", cache(responses.method_names_from_class))
        patch.setattr(backend_index, "backend_url_patterns", first)
        yield


# Deliveries


def forget_deliveries(account: str, region: str) -> None:
    """Leaves stream records and messages undelivered; tables stay as they are."""
    for table in dynamodb_backends[account][region].tables.values():
        if shard := table.stream_shard:
            shard.starting_sequence_number += len(shard.items)
            shard.items = []
    for queue in sqs_backends[account][region].queues.values():
        queue._messages = []


def has_mail(account: str, region: str, queue: str) -> bool:
    """Whether it is worth asking the queue of this URL for messages."""
    return bool(sqs_backends[account][region].queues[queue.rpartition("/")[2]]._messages)


def last_written(account: str, region: str, table: str) -> str | None:
    """The sequence number of a table's last stream record that was not forgotten."""
    shard = dynamodb_backends[account][region].tables[table].stream_shard
    return str(shard.starting_sequence_number + len(shard.items) - 1) if shard and shard.items else None
