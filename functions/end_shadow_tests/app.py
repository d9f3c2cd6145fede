"""Stops the execution of a shadow test that was ended, and ends a test whose execution was stopped or has failed."""

from fixloop import boot  # isort: skip
import json
import time
from typing import Any

from fixloop.aws import client
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.rehearsal import conclude, execution_arn


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    if event.get("source") == "aws.states":
        _execution_ended(event["detail"])
        return
    outer, failed = received(event, "shadow_test.failed")
    _stop(outer.org_id, failed.shadow_test_id)


def _stop(org: str, test_id: str) -> None:
    """An execution that has ended, or never was, needs no stopping."""
    machine = client("stepfunctions")
    try:
        machine.stop_execution(executionArn=execution_arn(org, test_id), error="Cancelled")
    except machine.exceptions.ExecutionDoesNotExist:
        return
    except machine.exceptions.ClientError as refused:
        if refused.response["Error"]["Code"] != "ValidationException":
            raise


def _execution_ended(detail: dict[str, Any]) -> None:
    given = json.loads(detail["input"])
    said = {"ABORTED": "the execution was stopped", "TIMED_OUT": "the execution ran out of time"}
    why = said.get(detail["status"], f"the execution failed ({detail.get('error') or 'unknown error'})")
    conclude(given["org"], given["test"], int(time.time() * 1000), why)


boot.done()
