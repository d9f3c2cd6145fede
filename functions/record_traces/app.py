"""Records a trace for every agent turn when `call.completed` comes over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.gather import record_traces
from fixloop.loop import received
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, completed = received(event, "call.completed")
    record_traces(outer.org_id, completed.call_id, int(time.time() * 1000))


boot.done()
