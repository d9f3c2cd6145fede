"""Lists a report under its pattern when `issue.reported` comes over the bus."""

from fixloop import boot  # isort: skip
from typing import Any

from fixloop.loop import received
from fixloop.observe import logger
from fixloop.storage import issue_reports


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, filed = received(event, "issue.reported")
    report = issue_reports.find(outer.org_id, str(filed.issue_report.get("id")))
    issue_reports.join_pattern(outer.org_id, report)


boot.done()
