"""Files a system issue report for every issue that a `call.graded` event detected."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.loop import file_reports
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    file_reports(event, int(time.time() * 1000))


boot.done()
