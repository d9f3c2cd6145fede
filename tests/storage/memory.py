"""DynamoDB in this process without HTTP and botocore, one watched call at a time."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from ministack.services import dynamodb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.store import Store

READS = ("get_item", "query", "batch_get_item")
WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")


@dataclass
class Memory:
    """Stands in for botocore's client. `before` and `after` are told every call; what they raise reaches the caller.

    The tables are those of the bench, which `tests/bench/test_store.py` holds against moto.
    """

    before: Callable[[str], None] = lambda operation: None
    after: Callable[[str], None] = lambda operation: None
    scanned: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    _tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    _store: Store = field(default_factory=lambda: Store({}))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        if operation not in READS + WRITES:
            raise AttributeError(operation)

        def call(**request: Any) -> dict[str, Any]:
            self.before(operation)
            try:
                with self._lock:
                    self.calls[operation] = self.calls.get(operation, 0) + 1
                    answer = self.answer(operation, request)
                    self.scanned += answer.get("ScannedCount", 0)
            finally:
                self.after(operation)
            return answer

        return call

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._store, operation)(**request)
        return answer

    def table(self, name: str, *indexes: tuple[str, str]) -> None:
        """A table with `pk` and `sk`, and for each (index, hash attribute) an index sorted by `n`."""
        typed = {"pk": "S", "sk": "S", "n": "N", **{attribute: "S" for _, attribute in indexes}}
        self.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=_keys("pk", "sk"),
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in typed.items()],
            GlobalSecondaryIndexes=[
                {"IndexName": index, "KeySchema": _keys(attribute, "n"), "Projection": {"ProjectionType": "ALL"}}
                for index, attribute in indexes
            ],
        )

    def create_table(self, *, TableName: str, **properties: Any) -> None:  # noqa: N803 - AWS's names
        """All tables are empty from then on."""
        self._tables[TableName] = properties
        self._store = Store(self._tables)

    def delete_table(self, *, TableName: str) -> None:  # noqa: N803
        self._tables.pop(TableName, None)


def _keys(first: str, second: str) -> list[dict[str, str]]:
    return [{"AttributeName": first, "KeyType": "HASH"}, {"AttributeName": second, "KeyType": "RANGE"}]


class Twin(Memory):
    """Asks MiniStack's tables the same, and holds their answers against each other."""

    def create_table(self, **asked: Any) -> None:
        super().create_table(**asked)
        dynamodb._delete_table({"TableName": asked["TableName"]})
        status, _, said = dynamodb._create_table(asked)
        assert status == 200, said

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        asked = json.loads(json.dumps(request))
        try:
            ours: dict[str, Any] | ClientError = super().answer(operation, request)
        except ClientError as error:
            ours = error
        status, _, body = getattr(dynamodb, f"_{operation}")(asked)
        theirs = json.loads(body)
        if isinstance(ours, ClientError):
            assert status == 400, (operation, request, theirs)
            said = ours.response
            assert theirs["__type"].rpartition("#")[2] == said["Error"]["Code"]
            assert _reasons(theirs) == _reasons(said)
            raise ours
        for name in ("Item", "Items", "Attributes", "Responses", "Count", "ScannedCount", "LastEvaluatedKey"):
            assert _sets(ours.get(name)) == _sets(theirs.get(name)), (operation, request, name)
        return ours


def _reasons(said: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(reason["Code"], _sets(reason.get("Item"))) for reason in said.get("CancellationReasons", ())]


def _sets(value: Any) -> Any:
    """Sets in one order."""
    if isinstance(value, dict):
        return {key: sorted(part) if key in ("SS", "NS") else _sets(part) for key, part in value.items()}
    return [_sets(part) for part in value] if isinstance(value, list) else value
