"""Replays a batch of a shadow test's traces; or, with the `error` every try ended in, records the rest as failed."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop.rehearsal import Batch, give_up, reason_of, replay_batch

SPARE = 25.0  # seconds kept for calls in flight and for storing their results


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    batch = Batch.model_validate(event)
    if "error" in event:
        return {"failed": give_up(batch, reason_of(event["error"]))}
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE
    return {"replayed": replay_batch(batch, deadline)}


boot.done()
