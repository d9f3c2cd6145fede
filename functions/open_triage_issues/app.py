"""Opens a triage issue for `issue.opened`, and for an `issue.reported` that is critical, where that is wanted."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.escalate import open_for_issue, open_for_report
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.storage import issue_reports


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    now = int(time.time() * 1000)
    if event.get("detail-type") == "issue.opened":
        outer, opened = received(event, "issue.opened")
        card = open_for_issue(outer.org_id, opened.issue_id, now)
    else:
        outer, filed = received(event, "issue.reported")
        report = issue_reports.find(outer.org_id, str(filed.issue_report.get("id")))
        card = open_for_report(outer.org_id, report, now)
    logger().info("escalated", extra={"org_id": outer.org_id, "triage_issue": card and card.triage_id})


boot.done()
