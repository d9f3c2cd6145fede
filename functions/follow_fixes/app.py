"""Closes an applied fix's issue and resolves its reports when `fix.applied` comes over the bus."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.follow import follow_fix, resolve_reports
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.storage import fixes


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    outer, applied = received(event, "fix.applied")
    now = int(time.time() * 1000)
    fix = fixes.find(outer.org_id, applied.fix_id)
    issue = follow_fix(outer.org_id, fix, now)
    resolved = resolve_reports(outer.org_id, issue, applied.applied_at, now) if issue else 0
    logger().info("followed", extra={"org_id": outer.org_id, "fix_id": fix.id, "resolved": resolved})


boot.done()
