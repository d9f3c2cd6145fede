"""Stores the attempts, and the jobs' failures, that a telephony system tells of over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.loop import received
from fixloop.observe import logger
from fixloop.telephony import fail_job, record_attempt


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    now = int(time.time() * 1000)
    if event.get("detail-type") == "call_request.failed":
        fail_job(*received(event, "call_request.failed"), now)
        return
    outer, told = received(event, "call.attempt.completed")
    kept, created = record_attempt(outer, told, now)
    logger().info(
        "recorded",
        extra={"org_id": outer.org_id, "job_id": kept.job_id, "attempt": kept.number, "new": created},
    )


boot.done()
