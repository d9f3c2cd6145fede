"""Puts a report in its group on `issue.reported`, and on `attempt.recorded` what a call cost into its groups."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.gather import count_attempt, group_report
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.storage import issue_reports


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    now = int(time.time() * 1000)
    if event.get("detail-type") == "attempt.recorded":
        outer, recorded = received(event, "attempt.recorded")
        changed = count_attempt(outer.org_id, recorded.job_id, recorded.attempt, now)
        logger().info("counted", extra={"org_id": outer.org_id, "job_id": recorded.job_id, "groups": changed})
        return
    outer, filed = received(event, "issue.reported")
    report = issue_reports.find(outer.org_id, str(filed.issue_report.get("id")))
    issue = group_report(outer.org_id, report, now)
    logger().info("grouped", extra={"org_id": outer.org_id, "report_id": report.id, "issue": issue and issue.id})


boot.done()
