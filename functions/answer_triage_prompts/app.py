"""Answers what the agent of triage was asked, one prompt after the other."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop import triage_agent
from fixloop.storage import dynamo
from fixloop.storage.triage import sessions

SPARE = 10.0  # seconds kept for drafting without a model, and for storing what came of it


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE
    runs = [sessions.run_of(dynamo.unpack(record["dynamodb"]["NewImage"])) for record in event["Records"]]
    return {"answered": sum(triage_agent.answer(run, int(time.time() * 1000), deadline) for run in runs)}


boot.done()
