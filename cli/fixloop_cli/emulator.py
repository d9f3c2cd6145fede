"""Runs MiniStack, the local AWS, in this process, and adds what AWS does and it does not.

    python -m fixloop_cli.emulator DIRECTORY PORT RESERVATION

MiniStack is a dependency with a fixed version, and this module reaches into it; where its inside has changed, starting
fails and says so. What is added, each to be removed once MiniStack does it itself:

- Stream records that no function has processed yet are kept over a stop. MiniStack keeps only the readers' positions,
  so after a start the first writes would be skipped.
- Asynchronous invocations are retried and end at the function's failure destination also when EventBridge made them,
  and those not finished are kept over a stop.
- A stream batch is retried when the function reports failed items, and given up after the mapping's
  MaximumRetryAttempts.
- Templates may have an archive of an event bus.
- A stop first waits until everything under way has finished.
- Functions run on a Python that sees its layers only, not the packages installed beside MiniStack; a layer is unpacked
  once and not for every process; an invocation that logs nothing is not held up by waiting for its log.
"""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import hashlib
import io
import json
import os
import shlex
import signal
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypercorn.asyncio
import hypercorn.config
from ministack import app as gateway
from ministack.core import lambda_runtime, persistence, responses
from ministack.services import dynamodb, eventbridge, lambda_svc, stepfunctions
from ministack.services.cloudformation import provisioners

# How long a stop waits for what is under way; the rest goes on after the next start.
DRAIN_SECONDS = float(os.environ.get("FIXLOOP_DRAIN_SECONDS", "10"))
# State is also saved while running, so that a crash loses seconds; but saving takes at most this share of the time.
SAVE_EVERY_SECONDS = 15.0
SAVE_SHARE = 0.02

# Events handled at the same time: every one has a process of its own, and a backlog would start them all at once.
EVENTS_AT_ONCE = threading.BoundedSemaphore(4 * (os.cpu_count() or 1))

# For a line of log after an invocation: seconds to the first, to the next, and in all.
LOG_WAITS = (0.005, 0.005, 0.25)

Result = dict[str, Any]


@dataclass
class Invocation:
    """An asynchronous invocation that has not ended yet."""

    function_arn: str
    event: Any
    attempts: int = 0


pending: dict[str, Invocation] = {}
running: set[str] = set()
failed_batches: Counter[tuple[str, str]] = Counter()
requests_seen = 0


def main() -> None:
    directory, port, reservation = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.set_inheritable(reservation, False)  # functions that outlive this process do not keep the port
    lock = take_lock(directory / "emulator.lock", port)
    adapt(directory)
    asyncio.run(serve(port))
    os.close(reservation)
    lock.close()


def take_lock(path: Path, port: int) -> Any:
    """Held as long as this process lives, so that whether it lives needs no guess from a process id."""
    lock = path.open("a+")
    deadline = time.monotonic() + 1
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # somebody asking whether it runs holds it for a moment
            if time.monotonic() > deadline:
                raise SystemExit(f"the local AWS in {path.parent} is running already") from None
            time.sleep(0.05)
    lock.truncate(0)
    lock.write(json.dumps({"pid": os.getpid(), "port": port}))
    lock.flush()
    return lock


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, save)
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    config.accesslog = None
    saver = asyncio.create_task(save_now_and_then())
    await hypercorn.asyncio.serve(counted, config, shutdown_trigger=lambda: stopped(stop))
    saver.cancel()


async def counted(scope: Any, receive: Any, send: Any) -> None:
    global requests_seen
    if scope["type"] == "http" and not scope["path"].startswith("/_ministack/"):
        requests_seen += 1
    await gateway.app(scope, receive, send)


async def stopped(stop: asyncio.Event) -> None:
    """Returns when a stop was asked for and nothing is under way, or it has taken too long."""
    await stop.wait()
    deadline = time.monotonic() + DRAIN_SECONDS
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        quiet = 0 if under_way() else quiet + 1
        await asyncio.sleep(0.1)


def under_way() -> bool:
    return bool(running or pending or any(unread_records()) or any(running_executions()))


def running_executions() -> Iterator[bool]:
    return (execution.get("status") == "RUNNING" for execution in list(stepfunctions._executions.all_values()))


def save() -> None:
    persistence.save_all(gateway._build_persistence_save_dict())


async def save_now_and_then() -> None:
    """Saves what was written since the last time, in the event loop's thread: requests wait for it, and see no half."""
    saved_at = -1
    while True:
        await asyncio.sleep(SAVE_EVERY_SECONDS)
        if saved_at == requests_seen:
            continue
        saved_at = requests_seen
        started = time.monotonic()
        save()
        await asyncio.sleep((time.monotonic() - started) / SAVE_SHARE)


def adapt(directory: Path) -> None:
    """Put our functions in the place of MiniStack's own."""
    try:
        keep_stream_records()
        keep_pending_invocations()
        watch_executions(lambda_svc._execute_function)
        lambda_svc.invoke_async_with_retry = invoke_later
        eventbridge._dispatch_to_lambda = dispatch_to_lambda
        provisioners._RESOURCE_HANDLERS.setdefault("AWS::Events::Archive", ARCHIVE_HANDLERS)
        run_functions_apart(directory, lambda_runtime._detect_runtime_binary)
        unpack_layers_once(directory / "tmp" / "layers", lambda_svc._resolve_layer_zip)
        lambda_runtime.Worker._drain_stderr_bounded.__defaults__ = LOG_WAITS
    except AttributeError as changed:
        raise SystemExit(f"this MiniStack is not the one fixloop_cli.emulator was written for: {changed}") from changed


# --- stream records ---------------------------------------------------------------------------------------------------


def keep_stream_records() -> None:
    state_of_tables: Callable[[], dict[str, Any]] = dynamodb.get_state
    restore_tables: Callable[[Any], None] = dynamodb.load_persisted_state
    restore_everything: Callable[[], None] = gateway._load_persisted_state

    def get_state() -> dict[str, Any]:
        return {**state_of_tables(), "fixloop_streams": unread_streams()}

    def load_persisted_state(data: Any) -> None:
        restore_tables(data)
        for stream in (data or {}).get("fixloop_streams", []):
            table = (stream["account"], stream["region"], stream["table"])
            dynamodb._stream_records.set_scoped(*table, stream["records"])
            dynamodb._stream_trimmed.set_scoped(*table, stream["trimmed"])

    def load_everything() -> None:
        restore_everything()
        no_reader_ahead_of_its_stream()
        resume_pending_invocations()

    dynamodb.get_state = get_state
    dynamodb.load_persisted_state = load_persisted_state
    gateway._load_persisted_state = load_everything


def unread_streams() -> list[dict[str, Any]]:
    """The records some mapping has still to read, and where in the stream they begin."""
    streams = []
    for (account, region, table), records in list(dynamodb._stream_records.all_items()):
        trimmed = dynamodb._stream_trimmed.get_scoped(account, region, table, 0)
        read_up_to = min(positions_of_readers(account, region, table), default=trimmed + len(records))
        begin = max(read_up_to, trimmed)
        streams.append(
            {
                "account": account,
                "region": region,
                "table": table,
                "trimmed": begin,
                "records": list(records[begin - trimmed :]),
            }
        )
    return streams


def stream_readers() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for account, region, mapping in lambda_svc._iter_all_esms():
        source = mapping.get("EventSourceArn", "")
        if ":dynamodb:" in source and "/stream/" in source:
            yield account, region, source.split("/stream/")[0].split("/")[-1], mapping


def positions_of_readers(account: str, region: str, table: str) -> list[int]:
    return [
        lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping["UUID"], 0)
        for reader_account, reader_region, read_table, mapping in stream_readers()
        if (reader_account, reader_region, read_table) == (account, region, table)
    ]


def unread_records() -> Iterator[bool]:
    for account, region, table, mapping in stream_readers():
        if mapping.get("Enabled", True):
            position = lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping["UUID"], 0)
            yield position < dynamodb.stream_end_position(table, account_id=account, region=region)


def no_reader_ahead_of_its_stream() -> None:
    """A crash between saving tables and saving functions may leave a position past the end: it would skip records."""
    for account, region, table, mapping in stream_readers():
        end = dynamodb.stream_end_position(table, account_id=account, region=region)
        position = lambda_svc._dynamodb_stream_positions.get_scoped(account, region, mapping["UUID"], 0)
        lambda_svc._dynamodb_stream_positions.set_scoped(account, region, mapping["UUID"], min(position, end))


# --- asynchronous invocations -----------------------------------------------------------------------------------------


def dispatch_to_lambda(arn: str, payload: str) -> None:
    """A rule's target, invoked as EventBridge does it: asynchronously, with the function's own retries."""
    function, config, name = lambda_svc._get_func_record_for_ref(arn)
    if not function or not config:
        lambda_svc.logger.warning("EventBridge: function %s not found", name)
        return
    invoke_later(lambda_svc._execution_record_for_config(function, config), json.loads(payload))


def invoke_later(function: dict[str, Any], event: Any) -> None:
    config = function.get("config") or function
    start(str(uuid4()), Invocation(config["FunctionArn"], event), function)


def start(key: str, invocation: Invocation, function: dict[str, Any]) -> None:
    pending[key] = invocation
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run_to_the_end, key, invocation, function), daemon=True).start()


def run_to_the_end(key: str, invocation: Invocation, function: dict[str, Any]) -> None:
    config = function.get("config") or function
    set_scope(config["FunctionArn"])
    settings = function.get("event_invoke_config") or (function.get("event_invoke_configs") or {}).get("$LATEST") or {}
    retries = settings.get("MaximumRetryAttempts")
    destination = ((settings.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination") or (
        config.get("DeadLetterConfig") or {}
    ).get("TargetArn")
    result: Result = {}
    while invocation.attempts <= (2 if retries is None else int(retries)):
        if invocation.attempts:
            time.sleep(2.0 ** (invocation.attempts - 1))
        with EVENTS_AT_ONCE:
            result = lambda_svc._execute_function(function, invocation.event)
        if not result.get("error"):
            break
        invocation.attempts += 1
    else:
        if destination:
            lambda_svc._route_async_failure(destination, config["FunctionName"], invocation.event, result)
    pending.pop(key, None)


def set_scope(function_arn: str) -> None:
    account, region = lambda_svc._lambda_function_account_region_from_arn(function_arn)
    responses._request_account_id.set(account)
    responses._request_region.set(region)


def keep_pending_invocations() -> None:
    services_to_save: Callable[[], dict[str, Any]] = gateway._build_persistence_save_dict

    def build_persistence_save_dict() -> dict[str, Any]:
        return {
            **services_to_save(),
            "fixloop_invocations": lambda: {key: asdict(invocation) for key, invocation in list(pending.items())},
        }

    gateway._build_persistence_save_dict = build_persistence_save_dict


def resume_pending_invocations() -> None:
    for key, kept in (persistence.load_state("fixloop_invocations") or {}).items():
        invocation = Invocation(**kept)

        def resume(key: str = key, invocation: Invocation = invocation) -> None:
            set_scope(invocation.function_arn)
            function, config, _ = lambda_svc._get_func_record_for_ref(invocation.function_arn)
            if function and config:
                start(key, invocation, lambda_svc._execution_record_for_config(function, config))

        contextvars.copy_context().run(resume)


# --- archives ---------------------------------------------------------------------------------------------------------


def create_archive(logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, str]]:
    name = properties.get("ArchiveName") or provisioners._physical_name(stack_name, logical_id, max_len=48)
    status, _, body = eventbridge._create_archive(archive_request(name, properties))
    if status >= 400:
        raise ValueError(f"AWS::Events::Archive: {body!r}")
    return name, {"Arn": json.loads(body)["ArchiveArn"], "ArchiveName": name}


def update_archive(
    name: str, _: dict[str, Any], properties: dict[str, Any], stack_name: str, logical_id: str | None = None
) -> tuple[str, dict[str, str]]:
    if name not in eventbridge._archives:
        return create_archive(logical_id or name, {**properties, "ArchiveName": name}, stack_name)
    eventbridge._update_archive(archive_request(name, properties))
    return name, {"Arn": eventbridge._archives[name]["ArchiveArn"], "ArchiveName": name}


def delete_archive(name: str, _: dict[str, Any]) -> None:
    eventbridge._delete_archive({"ArchiveName": name})


def archive_request(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    pattern = properties.get("EventPattern", "")
    return {
        "ArchiveName": name,
        "EventSourceArn": properties["SourceArn"],
        "Description": properties.get("Description", ""),
        "EventPattern": json.dumps(pattern) if isinstance(pattern, dict) else pattern,
        "RetentionDays": int(properties.get("RetentionDays", 0)),
    }


ARCHIVE_HANDLERS = {"create": create_archive, "update": update_archive, "delete": delete_archive}


# --- every execution --------------------------------------------------------------------------------------------------


def watch_executions(execute: Callable[[dict[str, Any], Any], Result]) -> None:
    """Know what runs, and settle stream batches as AWS does."""

    def watched(function: dict[str, Any], event: Any) -> Result:
        execution = str(uuid4())
        running.add(execution)
        try:
            return settled(function, event, execute(function, event))
        finally:
            running.discard(execution)

    lambda_svc._execute_function = watched


def settled(function: dict[str, Any], event: Any, result: Result) -> Result:
    """The result of a stream batch: an error when items were reported as failed, until the retries are used up."""
    mapping = mapping_that_sent(function, event)
    if mapping is None:
        return result
    records = event["Records"]
    batch = (mapping["UUID"], records[0]["dynamodb"]["SequenceNumber"])
    failed = failed_records(records, mapping, result)
    if not failed:
        failed_batches.pop(batch, None)
        return result
    failed_batches[batch] += 1
    retries = int(mapping.get("MaximumRetryAttempts", -1))
    if retries < 0 or failed_batches[batch] <= retries:
        return {**result, "error": True, "body": error_body(result)}
    failed_batches.pop(batch, None)
    source = mapping["EventSourceArn"]
    lambda_svc._send_ddb_stream_failure_record(mapping, function, failed, source, result, "RetryAttemptsExhausted")
    return {**result, "error": False}


def mapping_that_sent(function: dict[str, Any], event: Any) -> dict[str, Any] | None:
    records = event.get("Records") if isinstance(event, dict) else None
    if not records or not isinstance(records[0], dict) or records[0].get("eventSource") != "aws:dynamodb":
        return None
    name = (function.get("config") or function).get("FunctionName")
    source = records[0].get("eventSourceARN")
    for _, _, _, mapping in stream_readers():
        if mapping["FunctionName"] == name and mapping["EventSourceArn"] == source:
            return mapping
    return None


def failed_records(records: list[Any], mapping: dict[str, Any], result: Result) -> list[Any]:
    if result.get("error"):
        return records
    if "ReportBatchItemFailures" not in (mapping.get("FunctionResponseTypes") or []):
        return []
    body = result.get("body")
    answer = json.loads(body) if isinstance(body, str) and body.startswith("{") else body
    reported = {
        item.get("itemIdentifier")
        for item in (answer.get("batchItemFailures") if isinstance(answer, dict) else []) or []
    }
    return [record for record in records if record["dynamodb"]["SequenceNumber"] in reported]


def error_body(result: Result) -> dict[str, Any]:
    if result.get("error"):
        return dict(result.get("body") or {})
    return {
        "errorType": "BatchItemFailures",
        "errorMessage": "the function reported failed items; the batch is retried",
    }


# --- functions --------------------------------------------------------------------------------------------------------


def run_functions_apart(directory: Path, detect: Callable[[str], tuple[str, str]]) -> None:
    """Functions get the plain interpreter: no site-packages, and no bytecode written, as in Lambda."""
    interpreter = directory / "python-for-functions"
    base = getattr(sys, "_base_executable", sys.executable)
    interpreter.write_text(f'#!/bin/sh\nexec {shlex.quote(base)} -S -B "$@"\n')
    interpreter.chmod(0o755)

    def detect_runtime_binary(runtime: str) -> tuple[str, str]:
        binary, script = detect(runtime)
        return (str(interpreter), script) if runtime.startswith("python") else (binary, script)

    lambda_runtime._detect_runtime_binary = detect_runtime_binary


def unpack_layers_once(folder: Path, resolve: Callable[[Any], bytes | None]) -> None:
    """Give MiniStack, which unpacks every layer for every process, a small layer that leads to the unpacked one."""
    one_at_a_time = threading.Lock()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def resolve_layer_zip(reference: Any) -> bytes | None:
        content = resolve(reference)
        if not content:
            return content
        unpacked = folder / hashlib.sha256(content).hexdigest()[:16]
        with one_at_a_time:
            if not unpacked.is_dir():
                unpack(content, unpacked)
        signpost = io.BytesIO()
        with zipfile.ZipFile(signpost, "w") as archive:
            line = f"import sys; sys.path.insert(1, {str(unpacked / 'python')!r})\n"
            archive.writestr(f"python/lib/python{version}/site-packages/layer.pth", line)
        return signpost.getvalue()

    lambda_svc._resolve_layer_zip = resolve_layer_zip


def unpack(content: bytes, target: Path) -> None:
    fresh = target.with_suffix(".new")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(fresh)
    fresh.replace(target)


if __name__ == "__main__":
    main()
