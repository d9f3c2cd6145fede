"""The template in this process on MiniStack's tables: AWS calls are counted, and the caller killed at any of them."""

from __future__ import annotations

import io
import json
import os
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from ministack.services import dynamodb

from cloud import ACCOUNT, REGION, Cloud, Failure, matches
from fixloop import aws
from fixloop.settings import settings

NOWHERE = "http://127.0.0.1:9"
ATTEMPTS = 3  # Lambda tries an asynchronous event so often before it goes to the failure destination


class Killed(BaseException):
    """The process is gone, before or right after one of its calls had its effect."""


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


@dataclass
class Inside(Cloud):
    """Serves DynamoDB and PutEvents to botocore itself, before a request is sent. Delivers again what failed."""

    steps: int = 0
    doomed: int = 0
    landed: bool = False
    operations: list[str] = field(default_factory=list)
    on_bus: list[dict[str, Any]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    _positions: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str) -> Any:
        return aws.client(service) if service == "dynamodb" else _Ignored()

    def build(self) -> Inside:
        super().build()
        os.environ["AWS_ENDPOINT_URL"] = NOWHERE
        aws.client.cache_clear()
        aws._session.cache_clear()
        aws._session().register("before-send", self._serve)
        aws._session().register("choose-signer", lambda **_: UNSIGNED)
        for name, resource in self.template["Resources"].items():
            if resource["Type"] == "AWS::DynamoDB::Table":
                dynamodb._delete_table({"TableName": name})
                super()._table(name, resource["Properties"])
        return self

    def _table(self, name: str, properties: dict[str, Any]) -> None:
        """Made once the calls are served here."""

    def _rules(self, function: str) -> None:
        """Events are handed on by `settle`."""

    def _machine(self, name: str, properties: dict[str, Any]) -> None:
        """None is started here."""

    # Serving

    def _serve(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse:
        _, service, operation = event_name.split(".")
        self._step(f"{service}.{operation}", before=True)
        with self._lock:
            headers = {key.lower(): _text(value) for key, value in request.headers.items()}
            if service == "dynamodb":
                status, _, body = _at_once(dynamodb.handle_request("POST", "/", headers, _bytes(request.body), {}))
            else:
                status, body = 200, self._put_events(json.loads(_bytes(request.body)))
        self._step(f"{service}.{operation}", before=False)
        answer = {"content-type": "application/x-amz-json-1.0"}
        return AWSResponse(request.url, status, answer, _Raw(body if isinstance(body, bytes) else body.encode()))

    def _put_events(self, request: dict[str, Any]) -> bytes:
        for entry in request["Entries"]:
            self.on_bus.append(
                {
                    "version": "0",
                    "id": f"delivery-{len(self.told) + len(self.on_bus)}",
                    "detail-type": entry["DetailType"],
                    "source": entry["Source"],
                    "account": ACCOUNT,
                    "region": REGION,
                    "detail": json.loads(entry["Detail"]),
                }
            )
        return json.dumps({"FailedEntryCount": 0, "Entries": [{"EventId": "e"} for _ in request["Entries"]]}).encode()

    def _step(self, operation: str, *, before: bool) -> None:
        if before:
            self.steps += 1
            self.operations.append(operation)
        if self.steps == self.doomed and before != self.landed:
            self.doomed = 0
            raise Killed(f"{'before' if before else 'after'} {operation}")

    @contextmanager
    def doom(self, step: int, *, landed: bool) -> Iterator[None]:
        """Kills whoever makes the `step`-th call from here: before it is made, or once it has `landed`."""
        self.steps, self.doomed, self.landed = 0, step, landed
        self.operations.clear()
        try:
            yield
        finally:
            self.doomed = 0

    # The asynchronous half

    def _pump_streams(self) -> int:
        seen = 0
        for function, properties in self.functions().items():
            for event in properties.get("Events", {}).values():
                if event["Type"] != "DynamoDB":
                    continue
                table = self.resolve(event["Properties"]["Stream"])
                place = f"{function}/{table}"
                records = dynamodb.stream_records_since(table, self._positions[place], 10_000)
                self._positions[place] += len(records)
                seen += len(records)
                patterns = [json.loads(f["Pattern"]) for f in event["Properties"]["FilterCriteria"]["Filters"]]
                arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}/stream/now"
                chosen = [r | {"eventSourceARN": arn} for r in records if any(matches(p, r) for p in patterns)]
                for start in range(0, len(chosen), 10):
                    self._try(function, {"Records": chosen[start : start + 10]})
        return seen

    def _pump_rules(self) -> int:
        arrived, self.on_bus = self.on_bus, []
        self.told += arrived
        for event in arrived:
            for function, properties in self.functions().items():
                for trigger in properties.get("Events", {}).values():
                    if trigger["Type"] == "EventBridgeRule" and matches(trigger["Properties"]["Pattern"], event):
                        self._try(function, event)
        return len(arrived)

    def _try(self, function: str, event: dict[str, Any]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                answer = self.invoke(function, event)
            except Exception as error:
                if attempt == ATTEMPTS - 1:
                    self.failures.append(Failure(function, event, error))
                continue
            failed = [failure["itemIdentifier"] for failure in (answer or {}).get("batchItemFailures", ())]
            if not failed:
                return
            numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
            event = {"Records": event["Records"][numbers.index(failed[0]) :]}


class _Ignored:
    """What making the template's other things would ask for."""

    def __getattr__(self, operation: str) -> Any:
        return lambda **_: {}


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that waits for nothing gives."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError(f"{work} waits")


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def inside() -> Iterator[Inside]:
    """An Inside that leaves the environment and the remembered clients as they were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", NOWHERE)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        try:
            yield Inside().build()
        finally:
            patch.undo()
            for remembered in (aws.client, aws._session, settings):
                remembered.cache_clear()
