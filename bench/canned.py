"""A botocore transport without a network: a store answers the first time, its recorded answers every time after."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

HEADERS = {"Content-Type": "application/x-amz-json-1.0"}
_METHODS = {
    "GetItem": "get_item",
    "BatchGetItem": "batch_get_item",
    "Query": "query",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "TransactWriteItems": "transact_write_items",
}


@dataclass
class Tape:
    """Answers by operation and body, and for requests with random parts in them by what they are about."""

    exact: dict[str, tuple[int, str]] = field(default_factory=dict)
    loose: dict[str, tuple[int, str]] = field(default_factory=dict)

    def record(self, client: Any, store: Any) -> None:
        """From now on `store` answers the client's requests, and all of it is kept."""

        def answer(request: Any, **_: Any) -> AWSResponse:
            operation, body = _asked(request)
            status, text = answered(store, operation, body)
            self.exact[f"{operation} {body}"] = (status, text)
            self.loose.setdefault(_about(operation, body), (status, text))
            return response(text, status)

        client.meta.events.register("before-send.dynamodb", answer)

    def play(self, client: Any) -> None:
        """From now on the client's requests are answered from the tape."""
        client.meta.events.register("before-send.dynamodb", self.answer)

    def listen(self, client: Any) -> list[tuple[str, dict[str, Any]]]:
        """A list that grows with every call of the client: its method and the arguments."""
        calls: list[tuple[str, dict[str, Any]]] = []

        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            calls.append((_METHODS[model.name], dict(params)))

        client.meta.events.register("provide-client-params.dynamodb", note)
        return calls

    def answer(self, request: Any, **_: Any) -> AWSResponse:
        operation, body = _asked(request)
        status, text = self.exact.get(f"{operation} {body}") or self.loose[_about(operation, body)]
        return response(text, status)

    def json(self) -> dict[str, Any]:
        return {"exact": self.exact, "loose": self.loose}


def _about(operation: str, body: str) -> str:
    asked = json.loads(body)
    key = asked.get("Key") or asked.get("Item", {})
    kind = key.get("sk", {}).get("S", "").partition("#")[0]
    return f"{operation} {asked.get('TableName')} {key.get('pk')} {kind} {asked.get('UpdateExpression')}"


def _asked(request: Any) -> tuple[str, str]:
    target = request.headers["X-Amz-Target"]
    name = (target.decode() if isinstance(target, bytes) else target).partition(".")[2]
    return name, request.body.decode() if isinstance(request.body, bytes) else request.body


def response(text: str, status: int) -> AWSResponse:
    answer = AWSResponse("http://dynamodb.invalid/", status, HEADERS, None)
    answer._content = text.encode()
    return answer


def answered(store: Any, operation: str, body: str) -> tuple[int, str]:
    """What DynamoDB's HTTP API would say, from `store`."""
    asked = json.loads(body, object_hook=_bytes)
    try:
        return 200, json.dumps(getattr(store, _METHODS[operation])(**asked), default=_base64)
    except ClientError as error:
        said = {key: value for key, value in error.response.items() if key not in ("Error", "ResponseMetadata")}
        kind = f"com.amazonaws.dynamodb.v20120810#{error.response['Error']['Code']}"
        return 400, json.dumps({"__type": kind, "message": error.response["Error"]["Message"], **said}, default=_base64)


def _bytes(value: dict[str, Any]) -> dict[str, Any]:
    return {"B": base64.b64decode(value["B"])} if set(value) == {"B"} and isinstance(value["B"], str) else value


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()
