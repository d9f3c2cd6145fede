"""Closes what belongs together: on `issue.closed` its triage and app issues, on `triage_issue.closed` the issue."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.escalate import follow_issue, follow_triage_issue
from fixloop.loop import received
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    now = int(time.time() * 1000)
    if event.get("detail-type") == "triage_issue.closed":
        outer, ended = received(event, "triage_issue.closed")
        issue = follow_triage_issue(outer.org_id, ended, now)
        logger().info("followed", extra={"org_id": outer.org_id, "issue": issue and issue.id})
        return
    outer, closed = received(event, "issue.closed")
    count = follow_issue(outer.org_id, closed.issue_id, now)
    logger().info("followed", extra={"org_id": outer.org_id, "issue": closed.issue_id, "closed": count})


boot.done()
