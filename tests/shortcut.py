"""DynamoDB's calls go straight from botocore's client to moto's tables, not as HTTP."""

from __future__ import annotations

import threading
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ParamValidationError
from botocore.validate import ParamValidator
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.responses import DynamoHandler

METHODS = {
    "BatchGetItem": "batch_get_item",
    "DeleteItem": "delete_item",
    "GetItem": "get_item",
    "PutItem": "put_item",
    "Query": "query",
    "TransactWriteItems": "transact_write_items",
    "UpdateItem": "update_item",
}

the_long_way = BaseClient._make_api_call
_validator = ParamValidator()
one_at_a_time = threading.RLock()


def make_api_call(client: BaseClient, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """botocore's own, for a client of moto: requests are validated and errors raised as ever."""
    meta = client.meta
    if meta.service_model.service_name != "dynamodb" or not meta.endpoint_url.endswith(".amazonaws.com"):
        return the_long_way(client, operation, request)  # type: ignore[no-any-return]
    if operation not in METHODS:
        with one_at_a_time:
            return the_long_way(client, operation, request)  # type: ignore[no-any-return]
    model = meta.service_model.operation_model(operation)
    report = _validator.validate(request, model.input_shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())
    handler = _handler(meta.region_name, copied(request))
    with one_at_a_time:
        try:
            result = getattr(handler, METHODS[operation])().result
        except JsonRESTError as error:
            refused = error
        else:
            return _shown(model.output_shape, result) | {"ResponseMetadata": {"HTTPStatusCode": 200}}
    raise _refusal(client, model, refused)


def _handler(region: str, request: dict[str, Any]) -> DynamoHandler:
    """A handler as it is once it has read this request."""
    handler = DynamoHandler()
    handler.body = handler.params = request
    handler.current_account, handler.region = DEFAULT_ACCOUNT_ID, region
    return handler


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: copied(member) for name, member in value.items()}
    return [copied(member) for member in value] if isinstance(value, list | tuple) else value


def _shown(shape: Any, value: Any) -> Any:
    """An answer as botocore gives it: what its shape names, and nothing that is not there."""
    match shape.type_name:
        case "structure" if shape.name != "AttributeValue":
            members = shape.members.items()
            return {name: _shown(member, value[name]) for name, member in members if value.get(name) is not None}
        case "map":
            return {name: _shown(shape.value, member) for name, member in value.items()}
        case "list":
            return [_shown(shape.member, member) for member in value]
    return copied(value)


def _refusal(client: BaseClient, model: Any, refused: JsonRESTError) -> Exception:
    """What botocore raises for moto's answer."""
    said = {"status_code": refused.code, "headers": {}, "body": refused.get_body().encode(), "context": {}}
    parser = client._endpoint._response_parser_factory.create_parser("json")
    parsed = parser.parse(said, model.output_shape)
    client._endpoint._add_modeled_error_fields(said, parsed, model, parser)
    error: Exception = client.exceptions.from_code(parsed["Error"]["Code"])(parsed, model.name)
    return error
