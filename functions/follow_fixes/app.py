"""Closes an applied fix's issue and resolves its reports: at once what one run can do, the rest event by event."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.events import FixApplied, ReportsResolved
from fixloop.follow import follow_fix
from fixloop.loop import received
from fixloop.observe import logger
from fixloop.resolve import go_on, resolve_reports
from fixloop.storage import fixes
from fixloop.storage.issues import Resolving


def handler(event: dict[str, Any], context: Any) -> None:
    logger().set_correlation_id(str(event.get("id", "")))
    now = int(time.time() * 1000)
    if event.get("detail-type") == "reports.resolved":
        outer, resolved = received(event, "reports.resolved")
        made = _go_on(outer.org_id, resolved, now)
    else:
        outer, applied = received(event, "fix.applied")
        made = _applied(outer.org_id, applied, now)
    logger().info("followed", extra={"org_id": outer.org_id, "resolved": made and made.resolved})


def _applied(org: str, applied: FixApplied, now: int) -> Resolving | None:
    fix = fixes.find(org, applied.fix_id)
    issue = follow_fix(org, fix, now, applied.applied_at)
    return resolve_reports(org, issue, fix.id, applied.applied_at, now) if issue else None


def _go_on(org: str, told: ReportsResolved, now: int) -> Resolving | None:
    progress = Resolving(told.fix_id, told.issue_id, told.applied_at, looked_at=told.looked_at)
    return go_on(org, progress, now) if told.more else None


boot.done()
