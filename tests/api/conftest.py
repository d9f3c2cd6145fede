"""What the tests over HTTP share: a clock that can be turned, and calls and reports to talk about."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler

from cloud import ACCOUNT, REGION, Client, Cloud
from fixloop.http import Api

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


@pytest.fixture(scope="session", autouse=True)
def _better_moto() -> Iterator[None]:
    """Without this every request costs more the more tests went before, and a failed transaction undoes others."""
    DynamoHandler.call_action = _call_alone  # type: ignore[method-assign]
    DynamoDBBackend.transact_write_items = _transact_cheaply  # type: ignore[method-assign]
    Table.query, Table.all_items = _query_cheaply, _asked_items  # type: ignore[method-assign]
    yield
    DynamoHandler.call_action = _called  # type: ignore[method-assign]
    DynamoDBBackend.transact_write_items = _transact  # type: ignore[method-assign]
    Table.query, Table.all_items = _query, _all_items  # type: ignore[method-assign]


@dataclass
class Clock:
    """The time that the functions behind the API see, in seconds since 1970."""

    now: float = 1_776_709_511.002  # 2026-04-20T18:25:11.002Z

    def __call__(self) -> float:
        return self.now


def apis(cloud: Cloud) -> dict[str, Api]:
    """Every function that serves HTTP, by its name in the template."""
    handlers = {name: cloud.module(name).handler for name in cloud.functions()}
    return {name: handler for name, handler in handlers.items() if isinstance(handler, Api)}


@pytest.fixture
def clock(cloud: Cloud) -> Iterator[Clock]:
    """All functions' clock, to be set by the test."""
    turned = Clock()
    before = {name: api._clock for name, api in apis(cloud).items()}
    for api in apis(cloud).values():
        api._clock = turned
    yield turned
    for name, api in apis(cloud).items():
        api._clock = before[name]


@pytest.fixture
def called(caller: Client) -> Callable[..., int]:
    """Stores a call of the caller's organisation and gives its id."""

    def store(call_id: int = 987654321, **content: Any) -> int:
        answer = caller.put(f"/v1/calls/{call_id}", {"start_time": "2026-04-20T18:24:00Z", **content})
        assert answer.status in (200, 201), answer.text
        return call_id

    return store


@pytest.fixture
def reported(caller: Client, called: Callable[..., int]) -> Callable[..., dict[str, Any]]:
    """Files a report, on a call of its own unless one is named, and gives it as the API shows it."""

    def file(call_id: int | None = None, **content: Any) -> dict[str, Any]:
        call_id = called() if call_id is None else call_id
        answer = caller.post(f"/v1/calls/{call_id}/issue-reports", {"title": "Agent paused too long", **content})
        assert answer.status == 201, answer.text
        report: dict[str, Any] = answer.json()
        return report

    return file


@pytest.fixture
def quiet(cloud: Cloud) -> None:
    """Forgets what earlier tests left in the streams, so that `settle` is about this test alone."""
    for table, arn in cloud._streams.items():
        shard = dynamodb_backends[ACCOUNT][REGION].get_table(table).stream_shard
        assert shard
        if shard.items:
            cloud._read[f"{arn}{shard.id}"] = str(shard.starting_sequence_number + len(shard.items) - 1)
