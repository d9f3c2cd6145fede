"""Processor time of warm requests beside a bare boto3 handler that makes the very same DynamoDB requests.

Runs in a process of its own (`python -m bench.warm FILE`) and writes JSON there: the measured requests, and the answers
that cold ones need.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer

from bench.canned import Tape
from bench.world import NOW, ORG, REGION, ROOT, World, empty, environment, played
from bench.writes import call

ROUNDS = 25
ROWS = 2_000
CALL = 4_711
REPORT = {"title": "Agent promised the wrong refund period", "description": "Says 60 days.", "severity": "critical"}
REQUESTS: tuple[tuple[str, str, str, str, Any], ...] = (
    ("feed, first page", "issue_reports", "GET", "/v1/issue-reports", None),
    ("feed, one leaf", "issue_reports", "GET", "/v1/issue-reports?severity=info&status=open&source=system", None),
    ("feed, offset 1,000", "issue_reports", "GET", "/v1/issue-reports?offset=1000", None),
    ("file a report", "issue_reports", "POST", f"/v1/calls/{CALL}/issue-reports", REPORT),
    ("calls, first page", "calls", "GET", "/v1/calls", None),
    ("one call", "calls", "GET", f"/v1/calls/{CALL}", None),
    ("put a call", "calls", "PUT", f"/v1/calls/{CALL + 1}", call()),
)


def main() -> None:
    os.environ.update(environment())
    store, secret = _stored()
    os.environ["POWERTOOLS_METRICS_DISABLED"] = "false"  # their lines go to the output, as in Lambda
    found, tapes = [], {}
    for title, family, method, path, body in REQUESTS:
        event = _event(secret, method, path, body)
        measured, tape = _compared(store, family, event)
        found.append({"title": title, "request": f"{method} {path}", **measured})
        tapes[title] = {"family": family, "event": event, **tape.json()}
    Path(sys.argv[1]).write_text(json.dumps({"warm": found, "tapes": tapes}))


def _stored() -> tuple[Any, str]:
    """A store with both lists in it, a call, and a key to read them with."""
    from fixloop.calls import CallIn
    from fixloop.settings import settings
    from fixloop.storage import calls, dynamo, platform

    store = empty()
    with played(store):
        for family in ("calls", "issue_reports"):
            World(family, ROWS, store=store).build()
        dynamo.put(settings().platform_table, {"pk": f"org#{ORG}", "sk": "org", "name": "Bench", "members": 0})
        secret, _ = platform.create_key(ORG, NOW, limit=10**9)
        calls.put(ORG, CALL, CallIn.model_validate(call()), NOW)
    return store, secret


def _event(secret: str, method: str, path: str, body: Any) -> dict[str, Any]:
    raw, _, query = path.partition("?")
    return {
        "version": "2.0",
        "rawPath": raw,
        "rawQueryString": query,
        "headers": {"authorization": f"Bearer {secret}", "content-type": "application/json"},
        "requestContext": {
            "http": {"method": method, "path": raw, "sourceIp": "127.0.0.1"},
            "requestId": "bench",
            "stage": "$default",
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def _compared(store: Any, family: str, event: dict[str, Any]) -> tuple[dict[str, Any], Tape]:
    from fixloop import aws

    aws.client.cache_clear()
    tape = Tape()
    tape.record(aws.client("dynamodb"), store)
    ours = _loaded(family)
    answer = ours(event, None)
    if answer["statusCode"] >= 300:
        raise AssertionError(answer)
    aws.client.cache_clear()
    tape.play(aws.client("dynamodb"))
    ours(event, None)  # the key is known now, as in any warm process
    calls = tape.listen(aws.client("dynamodb"))
    ours(event, None)
    aws.client.cache_clear()
    tape.play(aws.client("dynamodb"))
    ours(event, None)
    payload = json.loads(answer["body"])
    bare, reading = _bare(tape, calls, payload, read=False), _bare(tape, calls, payload, read=True)
    times = _times([lambda: ours(event, None), lambda: bare(event, None), lambda: reading(event, None)])
    return {"requests": len(calls), "bytes": len(answer["body"]), **_summary(times)}, tape


def _loaded(family: str) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    spec = importlib.util.spec_from_file_location(f"bench_{family}", ROOT / "functions" / family / "app.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(family)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler: Callable[[dict[str, Any], Any], dict[str, Any]] = module.handler
    return handler


def _bare(
    tape: Tape, calls: list[tuple[str, dict[str, Any]]], payload: Any, *, read: bool
) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """A plain handler: the same requests one after the other, and an answer of the same size as JSON.

    With `read` it also turns the items into Python values with boto3's own deserialiser, as one that uses them must.
    """
    client = boto3.client("dynamodb", region_name=REGION)
    tape.play(client)
    deserialize = TypeDeserializer().deserialize

    def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
        for method, request in calls:
            answer = getattr(client, method)(**request)
            if read:
                items = answer.get("Items") or [one for got in answer.get("Responses", {}).values() for one in got]
                if "Item" in answer:
                    items = [answer["Item"]]
                _ = [{name: deserialize(value) for name, value in item.items()} for item in items]
        return {
            "statusCode": 200,
            "headers": {"content-type": "application/json"},
            "body": json.dumps(payload, ensure_ascii=False),
        }

    return lambda_handler


def _times(handlers: list[Callable[[], Any]]) -> list[list[float]]:
    """ms of processor time per request (all threads), the handlers by turns."""
    each = []
    for handler in handlers:
        began = time.process_time()
        for _ in range(5):
            handler()
        each.append(max(1, round(0.06 / max((time.process_time() - began) / 5, 1e-6))))
    times: list[list[float]] = [[] for _ in handlers]
    for _ in range(ROUNDS):
        for number, handler in enumerate(handlers):
            began = time.process_time()
            for _ in range(each[number]):
                handler()
            times[number].append((time.process_time() - began) * 1000 / each[number])
    return times


def _summary(times: list[list[float]]) -> dict[str, Any]:
    ours, bare, reading = times
    return {
        "ours_ms": statistics.median(ours),
        "bare_ms": statistics.median(bare),
        "reading_ms": statistics.median(reading),
        "ours_min_ms": min(ours),
        "bare_min_ms": min(bare),
        "ratio": statistics.median(one / its for one, its in zip(ours, bare, strict=True)),
        "ratio_of_minima": min(ours) / min(bare),
        "ratio_reading": statistics.median(one / its for one, its in zip(ours, reading, strict=True)),
    }


if __name__ == "__main__":
    main()
