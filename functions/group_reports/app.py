"""Puts a report in its group when `issue.reported` comes over the bus; the third alike opens an issue."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.gather import group_report
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.storage import issue_reports


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, filed = received(event, "issue.reported")
    report = issue_reports.find(outer.org_id, str(filed.issue_report.get("id")))
    issue = group_report(outer.org_id, report, int(time.time() * 1000))
    logger().info("grouped", extra={"org_id": outer.org_id, "report_id": report.id, "issue": issue and issue.id})


boot.done()
