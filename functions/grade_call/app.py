"""Grades a call when `call.completed` comes over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.loop import grade_call, received
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, completed = received(event, "call.completed")
    grade, made = grade_call(outer.org_id, completed.call_id, force=False, now=int(time.time() * 1000))
    logger().info("graded", extra={"org_id": outer.org_id, "call_id": completed.call_id, "made": made, "score": grade.score})


boot.done()
