"""Seals full chunks of the lists' numbers, every so many rows, so that deep pages and totals stay cheap."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.settings import settings
from fixloop.storage import calls, issue_reports, traces


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    due = {
        (record["eventSourceARN"].split("/")[1], record["dynamodb"]["Keys"]["pk"]["S"].partition("#")[0])
        for record in event["Records"]
    }
    families = {
        settings().calls_table: calls.lists,
        settings().issue_reports_table: issue_reports.lists,
        settings().traces_table: traces.lists,
    }
    now = int(time.time() * 1000)
    return {"sealed": sum(families[table].seal(org, now) for table, org in sorted(due))}


boot.done()
