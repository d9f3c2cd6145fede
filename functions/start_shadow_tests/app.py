"""Starts the execution of a new shadow test when `shadow_test.created` comes over the bus, under the test's name."""

from fixloop import boot  # isort: skip
import json
from typing import Any

from fixloop.aws import client
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.rehearsal import execution_name
from fixloop.settings import settings
from fixloop.storage import shadow_tests


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, created = received(event, "shadow_test.created")
    test = shadow_tests.find(outer.org_id, created.shadow_test_id)
    if test.status != "pending":
        return
    machine = client("stepfunctions")
    try:
        machine.start_execution(
            stateMachineArn=settings().shadow_test_machine,
            name=execution_name(outer.org_id, test.id),
            input=json.dumps({"org": outer.org_id, "test": test.id}),
        )
    except machine.exceptions.ExecutionAlreadyExists:
        logger().info("started before", extra={"org_id": outer.org_id, "shadow_test_id": test.id})


boot.done()
