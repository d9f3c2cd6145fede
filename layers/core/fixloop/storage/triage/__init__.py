"""Triage issues and all that hangs on them: the triage table."""

from fixloop.storage.triage.loop import attach, find_from, move_forward, open_from

__all__ = ["attach", "find_from", "move_forward", "open_from"]
