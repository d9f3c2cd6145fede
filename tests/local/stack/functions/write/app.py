"""PUT /v1/items/{name} writes an item; GET /v1/consumed lists what came out at the other end."""

import json
import os
from functools import cache

import botocore.session


@cache
def dynamodb():
    return botocore.session.get_session().create_client("dynamodb")


def handler(event, context):
    path = event["rawPath"]
    if path == "/v1/consumed":
        query = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "consumed"}}}
        items = dynamodb().query(TableName=os.environ["TABLE"], **query)["Items"]
        return {"statusCode": 200, "body": json.dumps([item["sk"]["S"] for item in items])}
    if path.startswith("/v1/forbidden"):
        dynamodb().delete_item(TableName=os.environ["TABLE"], Key={"pk": {"S": "x"}, "sk": {"S": "x"}})
    if path.startswith("/v1/echo"):
        sent = {"length": len(event.get("body") or ""), "base64": event["isBase64Encoded"], "path": path}
        return {"statusCode": 200, "body": json.dumps(sent)}
    name = path.rsplit("/", 1)[1]
    dynamodb().put_item(TableName=os.environ["TABLE"], Item={"pk": {"S": "written"}, "sk": {"S": name}})
    return {"statusCode": 201, "body": name}
