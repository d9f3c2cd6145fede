"""Last step of a shadow test's execution: sums up, and says whether it has completed or failed."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.rehearsal import conclude, reason_of


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    stopped = reason_of(event["error"]) if "error" in event else None
    test = conclude(event["org"], event["test"], int(time.time() * 1000), stopped)
    return {"test": test.id, "status": test.status}


boot.done()
