"""Puts what was written on the bus; items named `unrelayable…` it reports as failed."""

import json
import os
import time
from functools import cache

import botocore.session


@cache
def events():
    return botocore.session.get_session().create_client("events")


def handler(event, context):
    failed = []
    for record in event["Records"]:
        name = record["dynamodb"]["Keys"]["sk"]["S"]
        if name.startswith("slow"):
            time.sleep(0.5)
        if name.startswith("unrelayable"):
            failed.append({"itemIdentifier": record["dynamodb"]["SequenceNumber"]})
            continue
        entry = {"Source": "test", "DetailType": "written", "Detail": json.dumps({"name": name})}
        events().put_events(Entries=[{**entry, "EventBusName": os.environ["BUS"]}])
    return {"batchItemFailures": failed}
