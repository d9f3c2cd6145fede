"""Puts an app issue about a recorded answer in its group when `app_issue.created` comes over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.gather import group_app_issue
from fixloop.loop import received
from fixloop.observe import logger


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, created = received(event, "app_issue.created")
    issue = group_app_issue(outer.org_id, created.app_issue_id, int(time.time() * 1000))
    logger().info(
        "grouped", extra={"org_id": outer.org_id, "app_issue": created.app_issue_id, "issue": issue and issue.id}
    )


boot.done()
