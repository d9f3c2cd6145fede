"""The outbox: puts the events that lie in the tables' streams on the bus, in order, each at least once."""

from fixloop import boot  # isort: skip
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fixloop.observe import logger
from fixloop.outbox import Undelivered, of_record, publish


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Records are relayed in order; from the first that fails on, they are left for the next try."""
    for record in event["Records"]:
        try:
            publish(of_record(record))
        except (Undelivered, ClientError, BotoCoreError) as error:
            logger().warning("not relayed", extra={"reason": str(error)})
            return {"batchItemFailures": [{"itemIdentifier": record["dynamodb"]["SequenceNumber"]}]}
    return {"batchItemFailures": []}


boot.done()
