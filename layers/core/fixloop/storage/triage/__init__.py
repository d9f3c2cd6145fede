"""Triage issues and all that hangs on them: the triage table."""

from fixloop.storage.triage.loop import (
    attach,
    find_from,
    handled,
    move_forward,
    note_handled,
    of_loop_issue,
    open_from,
    stand_for,
)
from fixloop.storage.triage.rows import look

__all__ = [
    "attach",
    "find_from",
    "handled",
    "look",
    "move_forward",
    "note_handled",
    "of_loop_issue",
    "open_from",
    "stand_for",
]
