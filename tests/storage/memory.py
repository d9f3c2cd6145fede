"""DynamoDB in this process: MiniStack's own tables without HTTP and botocore, one watched call at a time."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from ministack.services import dynamodb

WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")
_HANDLERS: dict[str, Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes | str]]] = {
    "create_table": dynamodb._create_table,
    "delete_table": dynamodb._delete_table,
    "put_item": dynamodb._put_item,
    "get_item": dynamodb._get_item,
    "update_item": dynamodb._update_item,
    "delete_item": dynamodb._delete_item,
    "query": dynamodb._query,
    "batch_get_item": dynamodb._batch_get_item,
    "transact_write_items": dynamodb._transact_write_items,
}


@dataclass
class Memory:
    """Stands in for botocore's client. `before` and `after` are told every call; what they raise reaches the caller."""

    before: Callable[[str], None] = lambda operation: None
    after: Callable[[str], None] = lambda operation: None
    scanned: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        handler = _HANDLERS.get(operation)
        if handler is None:
            raise AttributeError(operation)

        def call(**request: Any) -> dict[str, Any]:
            self.before(operation)
            with self._lock:
                status, _, body = handler(json.loads(json.dumps(request, default=_base64)))
                answer: dict[str, Any] = json.loads(body)
                self.scanned += answer.get("ScannedCount", 0)
                self.calls[operation] = self.calls.get(operation, 0) + 1
            self.after(operation)
            if status >= 400:
                raise ClientError(_error(answer), operation)
            return answer

        return call

    def table(self, name: str, *indexes: tuple[str, str]) -> None:
        """An empty table with `pk` and `sk`, and for each (index, hash attribute) an index sorted by `n`."""
        dynamodb._delete_table({"TableName": name})
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


def _base64(binary: bytes) -> str:
    return base64.b64encode(binary).decode()


def _keys(first: str, second: str) -> list[dict[str, str]]:
    return [{"AttributeName": first, "KeyType": "HASH"}, {"AttributeName": second, "KeyType": "RANGE"}]


def _error(answer: dict[str, Any]) -> dict[str, Any]:
    code = answer.pop("__type").rpartition("#")[2]
    return {**answer, "Error": {"Code": code, "Message": answer.get("message") or answer.get("Message", "")}}
