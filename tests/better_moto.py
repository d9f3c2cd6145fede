"""moto as this product needs it: transactions that undo their own writes alone, queries that walk one hash."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

_transact, _query, _all_items = DynamoDBBackend.transact_write_items, Table.query, Table.all_items
_called = DynamoHandler.call_action
_asked = threading.local()
_one_at_a_time = threading.RLock()


def _transact_cheaply(backend: DynamoDBBackend, actions: list[dict[str, Any]]) -> None:
    """moto's transaction, which copies whole tables to undo a failed one, with copies of what it may touch alone."""
    touched = set()
    for action in actions:
        ((_, request),) = action.items()
        touched.add(DynamoType((request.get("Key") or request["Item"])["pk"]))

    def twin(table: Table, memo: dict[int, Any]) -> Table:
        made = copy.copy(table)
        made.items = copy.copy(table.items)
        for key in touched & table.items.keys():
            made.items[key] = copy.deepcopy(table.items[key])
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
    rows = (row for rows in list(table.items.values()) for row in list(rows.values()))
    return [row for row in rows if name in row.attrs and row.attrs[name].value == wanted.value]


def _call_alone(handler: DynamoHandler) -> Any:
    with _one_at_a_time:
        return _called(handler)


@contextmanager
def better_moto() -> Iterator[None]:
    """Without this every request costs more the more tests went before, and a failed transaction undoes others."""
    DynamoHandler.call_action = _call_alone  # type: ignore[method-assign]
    DynamoDBBackend.transact_write_items = _transact_cheaply  # type: ignore[method-assign]
    Table.query, Table.all_items = _query_cheaply, _asked_items  # type: ignore[method-assign]
    yield
    DynamoHandler.call_action = _called  # type: ignore[method-assign]
    DynamoDBBackend.transact_write_items = _transact  # type: ignore[method-assign]
    Table.query, Table.all_items = _query, _all_items  # type: ignore[method-assign]
