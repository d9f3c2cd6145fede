"""Answers what the agent of triage was asked, one prompt after the other."""

from fixloop import boot  # isort: skip
import time
from typing import Any

from fixloop import triage_agent
from fixloop.storage import dynamo
from fixloop.storage.triage import sessions


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    runs = [sessions.run_of(dynamo.unpack(record["dynamodb"]["NewImage"])) for record in event["Records"]]
    return {"answered": sum(triage_agent.answer(run, int(time.time() * 1000)) for run in runs)}


boot.done()
