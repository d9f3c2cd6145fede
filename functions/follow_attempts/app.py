"""Makes a call of an attempt when `attempt.recorded` comes over the bus, and reports what it shows with others."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.loop import received
from fixloop.observe import logger
from fixloop.telephony import follow_attempt


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, recorded = received(event, "attempt.recorded")
    filed = follow_attempt(outer.org_id, recorded.job_id, recorded.attempt, int(time.time() * 1000))
    logger().info(
        "followed",
        extra={"org_id": outer.org_id, "job_id": recorded.job_id, "attempt": recorded.attempt, "filed": len(filed)},
    )


boot.done()
