"""The local AWS, with a small stack deployed to it: nothing acknowledged is lost, whenever it is stopped."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixloop_cli import local

STACK = Path(__file__).parent / "stack"


@pytest.fixture(scope="module", autouse=True)
def no_admin() -> Iterator[None]:
    """This stack has no organisations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "admin", lambda *_: ("org", "key"))
        patch.setattr(local, "PARAMETERS", {})
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, no_admin: None) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("local")
    yield directory
    local.remove(directory)


@pytest.fixture
def stack(directory: Path) -> local.Stack:
    return local.up(STACK, directory)


def call(stack: local.Stack, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(f"{stack.url}{path}", method=method, data=body)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def write(stack: local.Stack, *names: str) -> None:
    for name in names:
        assert call(stack, f"/v1/items/{name}", "PUT")[0] == 201


def consumed(stack: local.Stack) -> set[str]:
    return set(json.loads(call(stack, "/v1/consumed")[1]))


def failures(stack: local.Stack) -> list[dict[str, object]]:
    sqs = stack.client("sqs")
    found = []
    while messages := sqs.receive_message(QueueUrl=stack.outputs["Failures"], MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=stack.outputs["Failures"], ReceiptHandle=message["ReceiptHandle"])
    return found


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.2)
    return holds()


def test_what_was_written_before_a_stop_arrives_though_the_stop_did_not_wait(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    local.down(directory)
    monkeypatch.setenv("FIXLOOP_DRAIN_SECONDS", "0.1")
    stack = local.up(STACK, directory)
    names = {"slow1", "slow2", "slow3", "long1", "plain1"}
    write(stack, *sorted(names))
    local.down(directory)
    monkeypatch.delenv("FIXLOOP_DRAIN_SECONDS")
    stack = local.up(STACK, directory)
    write(stack, "after1")
    assert eventually(lambda: consumed(stack) >= names | {"after1"})


def test_a_stop_waits_for_what_is_under_way(stack: local.Stack, directory: Path):
    write(stack, "slow4", "long2")
    local.down(directory)
    assert consumed(local.up(STACK, directory)) >= {"slow4", "long2"}


def test_an_event_that_cannot_be_taken_ends_in_the_queue_with_its_reason(stack: local.Stack):
    failures(stack)
    write(stack, "bad1", "good1")
    found: list[dict[str, object]] = []
    assert eventually(lambda: bool(found.extend(failures(stack)) or found))
    assert found[0]["requestPayload"]["detail"] == {"name": "bad1"}  # type: ignore[index]
    assert "cannot take bad1" in found[0]["responsePayload"]["errorMessage"]  # type: ignore[index]
    assert "good1" in consumed(stack)


def test_a_record_reported_as_failed_is_retried_then_given_up_and_holds_up_no_other(stack: local.Stack):
    failures(stack)
    write(stack, "unrelayable1", "fine1")
    found: list[dict[str, object]] = []
    assert eventually(lambda: bool(found.extend(failures(stack)) or found))
    assert found[0]["requestContext"]["condition"] == "RetryAttemptsExhausted"  # type: ignore[index]
    assert found[0]["DDBStreamBatchInfo"]["batchSize"] == 1  # type: ignore[index]
    write(stack, "fine2")
    assert eventually(lambda: consumed(stack) >= {"fine1", "fine2"})


def test_after_a_crash_what_was_deployed_is_still_there_and_works(stack: local.Stack, directory: Path):
    os.kill(stack.pid, signal.SIGKILL)
    assert eventually(lambda: local.running(directory)[0] is None)
    steps: list[str] = []
    again = local.up(STACK, directory, say=steps.append)
    assert steps == ["Starting the local AWS"]
    assert (again.port, again.url) == (stack.port, stack.url)
    write(again, "crashed1")
    assert eventually(lambda: "crashed1" in consumed(again))


def test_a_second_up_does_nothing(stack: local.Stack, directory: Path):
    steps: list[str] = []
    started = time.monotonic()
    assert local.up(STACK, directory, say=steps.append) == stack
    assert steps == []
    assert time.monotonic() - started < 1


def test_another_directory_is_another_aws(stack: local.Stack, tmp_path: Path):
    _, port, started = local.start(tmp_path, stack.port, lambda _: None)
    try:
        assert started
        assert port != stack.port
        assert not local.stack_exists(f"http://127.0.0.1:{port}")
        assert local.stack_exists(stack.endpoint_url)
    finally:
        local.down(tmp_path)


def test_a_function_may_do_only_what_its_policy_says(stack: local.Stack):
    status, body = call(stack, "/v1/forbidden")
    assert status >= 500
    assert "not authorized to perform: dynamodb:DeleteItem" in body


@pytest.mark.parametrize("body", [b"x" * 2_000_000, "å∂ך🙂".encode(), b"\xff\xfe\x00"], ids=["2 MB", "text", "binary"])
def test_bodies_of_any_size_and_kind_arrive_whole(stack: local.Stack, body: bytes):
    status, answer = call(stack, "/v1/echo", "POST", body)
    told = json.loads(answer)
    text = body.decode(errors="ignore")
    assert status == 200
    assert told["length"] == (4 * -(-len(body) // 3) if told["base64"] else len(text))
