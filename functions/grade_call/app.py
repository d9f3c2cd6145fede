"""Grades a call when `call.completed` comes over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.loop import Busy, grade_call, received
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, completed = received(event, "call.completed")
    now = int(time.time() * 1000)
    grade, made = grade_call(outer.org_id, completed.call_id, force=False, now=now, run=outer.id)
    if not made and grade.status in ("pending", "failed"):
        raise Busy(f"another run has the grade of call {completed.call_id}, which is {grade.status}")
    logger().info(
        "graded", extra={"org_id": outer.org_id, "call_id": completed.call_id, "made": made, "score": grade.score}
    )


boot.done()
