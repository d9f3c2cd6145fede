"""State machines of the template run for real in moto: their tasks call the functions in this process."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

PATIENCE = 120.0  # seconds for all executions to end
_sleep = time.sleep


class _Lambda:
    """As much of a Lambda client as a task needs. What a function raises comes back as Lambda would say it."""

    def __init__(self, invoke: Callable[[str, dict[str, Any]], Any]) -> None:
        self._invoke = invoke

    def invoke(self, FunctionName: str, Payload: bytes | str, **_: Any) -> dict[str, Any]:  # noqa: N803
        function = FunctionName.rpartition(":")[2]
        try:
            answer, failed = self._invoke(function, json.loads(Payload)), {}
        except Exception as error:
            answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
            failed = {"FunctionError": "Unhandled"}
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode()), **failed}


@contextmanager
def run_by(invoke: Callable[[str, dict[str, Any]], Any]) -> Iterator[None]:
    """Tasks call `invoke(function's name, payload)`; what waits between retries does not wait."""
    made = lambda_eval_utils.boto_client_for
    lambda_eval_utils.boto_client_for = lambda **_: _Lambda(invoke)
    retrier_decl.time = _NoWaiting()
    try:
        yield
    finally:
        lambda_eval_utils.boto_client_for = made
        retrier_decl.time = time


class _NoWaiting:
    @staticmethod
    def sleep(_: float) -> None:
        _sleep(0.01)


def started(account: str, region: str, machine: str) -> set[str]:
    """The ARNs of all executions of a machine, however they stand."""
    machines = stepfunctions_parser_backends[account][region].state_machines
    return {execution.execution_arn for one in machines if one.arn == machine for execution in one.executions}


def ended(client: Any, machine: str) -> list[dict[str, Any]]:
    """All executions of a machine, once none of them runs any more."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        executions: list[dict[str, Any]] = client.list_executions(stateMachineArn=machine)["executions"]
        if all(execution["status"] != "RUNNING" for execution in executions):
            return executions
        _sleep(0.02)
    raise AssertionError(f"executions of {machine} still run after {PATIENCE} s")
