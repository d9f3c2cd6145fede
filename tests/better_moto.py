"""moto for this product: transactions that undo their own writes alone, queries that walk one hash, nothing twice."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from typing import Any

import jsonpath_ng.ext
import pytest
from botocore.client import BaseClient
from moto import backend_index
from moto.core import responses
from moto.dynamodb.exceptions import ItemSizeTooLarge
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing import validators
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node, UpdateExpression
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.dynamodb.parsing.tokens import ExpressionTokenizer
from moto.sqs.models import sqs_backends

import shortcut

ASKED_MOST = ("dynamodb", "dynamodbstreams", "sqs", "events")
ITEM_BYTES = 405_000

_transact, _query, _all_items = DynamoDBBackend.transact_write_items, Table.query, Table.all_items
_project, _copied, _size = Item.project, Item.__deepcopy__, DynamoType.size
_cast: Any = DynamoType.cast_value
_asked = threading.local()


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


def _set_anew(attributes: LimitedSizeDict, name: str, value: Any) -> None:
    """What is replaced counts no more; moto adds the new to the old."""
    others = sum(len(other) + its.size() for other, its in attributes.items() if other != name)
    if others + len(name) + value.size() > ITEM_BYTES:
        raise ItemSizeTooLarge
    dict.__setitem__(attributes, name, value)


def _cast_scalar_first(value: DynamoType) -> Any:
    match value.type:
        case "S":
            return value.value
        case "N":
            return Decimal(value.value)
    return _cast.fget(value)


def _size_scalar_first(value: DynamoType) -> int:
    return len(value.value.encode()) if value.type == "S" else _size(value)


def _traverse(traverser: DepthFirstTraverser, root: Node) -> Node:
    """moto's walk over an expression, which asks every node for every class at every step, told what to do by class."""
    processors = traverser._processing_map()
    kinds = tuple(processors)

    def visit(node: Node, at: int) -> Node:
        parent = node.parent
        for number, child in enumerate(node.children or ()):
            traverser.pre_processing_of_child(node, number)
            if isinstance(child, Node):
                visit(child, number)
        kind = _kind(type(node), kinds)
        if kind is not None:
            node = processors[kind](node)
            node.parent = parent
            if parent is not None:
                parent.children[at] = node
        return node

    return visit(root, -1)


@cache
def _kind(node: type[Node], kinds: tuple[type[Node], ...]) -> type[Node] | None:
    return next((kind for kind in kinds if issubclass(node, kind)), None)


@cache
def _parsed(expression: str) -> UpdateExpression:
    """Who changes it takes a copy."""
    return UpdateExpressionParser(ExpressionTokenizer.make_list(expression)).parse()


@cache
def _pickled(expression: UpdateExpression) -> bytes:
    return pickle.dumps(expression)


@contextmanager
def better_moto() -> Iterator[None]:
    """Without this every request costs more the more tests went before, and a failed transaction undoes others."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 10)  # calls are so quick here that threads would hardly meet
    first = sorted(backend_index.backend_url_patterns, key=lambda pattern: pattern[0] not in ASKED_MOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DynamoDBBackend, "transact_write_items", _transact_cheaply)
        patch.setattr(BaseClient, "_make_api_call", shortcut.make_api_call)
        patch.setattr(Table, "query", _query_cheaply)
        patch.setattr(Table, "all_items", _asked_items)
        patch.setattr(Item, "__deepcopy__", _copied_or_asked)
        patch.setattr(Item, "__init__", _make)
        patch.setattr(LimitedSizeDict, "__setitem__", _set_anew)
        patch.setattr(Item, "project", _projected)
        patch.setattr(DynamoType, "cast_value", property(_cast_scalar_first))
        patch.setattr(DynamoType, "size", _size_scalar_first)
        patch.setattr(UpdateExpressionParser, "make", _parsed)
        patch.setattr(validators, "deepcopy", lambda expression: pickle.loads(_pickled(expression)))
        patch.setattr(DepthFirstTraverser, "traverse", _traverse)
        patch.setattr(jsonpath_ng.ext, "parse", cache(jsonpath_ng.ext.parse))
        patch.setattr(responses, "method_names_from_class", cache(responses.method_names_from_class))
        patch.setattr(backend_index, "backend_url_patterns", first)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)


# Deliveries


def forget_deliveries(account: str, region: str) -> None:
    """Leaves stream records and messages undelivered; tables stay as they are."""
    for table in dynamodb_backends[account][region].tables.values():
        if shard := table.stream_shard:
            shard.starting_sequence_number += len(shard.items)
            shard.items = []
    for queue in sqs_backends[account][region].queues.values():
        queue._messages = []


def taken_records(account: str, region: str, table: str) -> list[dict[str, Any]]:
    """The records of a table's stream that nobody took before."""
    shard = dynamodb_backends[account][region].tables[table].stream_shard
    with shortcut.one_at_a_time:
        records = [shortcut.copied(one.record) for one in shard.items]
        shard.starting_sequence_number += len(records)
        shard.items = []
    return records


def taken_messages(account: str, region: str, queue: str) -> list[str]:
    """The bodies of a queue's messages that nobody took before."""
    waiting = sqs_backends[account][region].queues[queue]
    messages, waiting._messages = waiting._messages, []
    return [message.body for message in messages]
