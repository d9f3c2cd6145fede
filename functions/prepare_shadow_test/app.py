"""First step of a shadow test's execution: marks it as running and cuts its traces into batches."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.rehearsal import prepare


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return prepare(event["org"], event["test"], int(time.time() * 1000))


boot.done()
