"""Writes down each event; those named `bad…` it cannot take, those named `long…` take a while."""

import os
import time
from functools import cache

import botocore.session


@cache
def dynamodb():
    return botocore.session.get_session().create_client("dynamodb")


def handler(event, context):
    name = event["detail"]["name"]
    if name.startswith("bad"):
        raise ValueError(f"cannot take {name}")
    if name.startswith("long"):
        time.sleep(2)
    dynamodb().put_item(TableName=os.environ["TABLE"], Item={"pk": {"S": "consumed"}, "sk": {"S": name}})
