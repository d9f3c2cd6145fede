"""MiniStack behind microburst, a proxy that makes DynamoDB throttle, fail, hang and lose its answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from cloud import REGION, Cloud
from fixloop import aws
from fixloop.settings import settings

PATIENCE = 60
_loading = threading.Lock()
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


def throttled(probability: float, **more: Any) -> list[dict[str, Any]]:
    error = {"code": "ProvisionedThroughputExceededException"}
    return [{"service": "dynamodb", "probability": probability, "error": error, **more}]


def failing(probability: float) -> list[dict[str, Any]]:
    return [
        {"service": "dynamodb", "probability": probability, "error": {"code": "InternalServerError", "status": 500}}
    ]


def resetting(probability: float) -> list[dict[str, Any]]:
    return [{"service": "dynamodb", "probability": probability, "reset": True}]


def losing_answers(probability: float) -> list[dict[str, Any]]:
    """Writes land, and whoever made them never hears of it."""
    return [
        {"service": "dynamodb", "operation": one, "probability": probability, "response": {"abort_bytes": 0}}
        for one in WRITES
    ]


@dataclass
class Weather(Cloud):
    """The template's tables behind the proxy; functions run in this process, each thread with its own, as in Lambda."""

    proxy: str = ""
    _loaded: threading.local = field(default_factory=threading.local)

    def module(self, function: str) -> ModuleType:
        with _loading:
            self._modules = vars(self._loaded).setdefault("modules", {})
            return super().module(function)

    def build(self) -> Weather:
        super().build()
        os.environ["AWS_ENDPOINT_URL"] = self.proxy
        aws.client.cache_clear()
        for name, resource in self.template["Resources"].items():
            if resource["Type"] == "AWS::DynamoDB::Table":
                super()._table(name, resource["Properties"])
        return self

    def _table(self, name: str, properties: dict[str, Any]) -> None:
        """Made once the clients lead to the proxy."""

    _bucket = _bus = _machine = _table

    def _rules(self, function: str) -> None:
        """Nothing is handed on here: tests call the functions themselves."""

    def control(self, path: str, method: str = "GET", content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.proxy}/_microburst/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    @contextmanager
    def storm(self, *rules: dict[str, Any]) -> Iterator[None]:
        """These faults, until the end of the block. They must have struck at least once."""
        self.control("fired", "DELETE")
        self.control("rules", "POST", list(rules))
        try:
            yield
        finally:
            self.control("rules", "POST", [])
        assert self.control("fired?limit=1"), "no fault has struck"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE).close()
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, f"{process.args} has ended"
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)
        else:
            return


@contextmanager
def running(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, env=kept | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def weather() -> Iterator[Weather]:
    """A proxy with its own emulator. Leaves the environment and the remembered clients as they were."""
    upstream, port = free_port(), free_port()
    options = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(upstream), "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}
    with (
        pytest.MonkeyPatch.context() as patch,
        running("ministack", **options, LOG_LEVEL="WARNING", MINISTACK_REGION=REGION) as emulator,
        running("microburst", "--upstream", f"http://127.0.0.1:{upstream}", "--port", str(port)) as proxy,
    ):
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        wait_for(f"http://127.0.0.1:{upstream}/_ministack/health", emulator)
        wait_for(f"http://127.0.0.1:{port}/_microburst/health", proxy)
        wait_for(f"http://127.0.0.1:{port}/_ministack/health", proxy)
        try:
            yield Weather(proxy=f"http://127.0.0.1:{port}").build()
        finally:
            patch.undo()
            for remembered in (aws.client, aws._session, settings):
                remembered.cache_clear()
