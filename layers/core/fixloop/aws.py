"""AWS clients: made when first asked for, with budgets that fit behind a 30 s gateway."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.parsers import JSONParser, ResponseParserFactory

_CONFIG = Config(
    user_agent="fixloop",  # botocore's own is put together anew for every request, a tenth of its time
    connect_timeout=1,
    read_timeout=3,
    tcp_keepalive=True,
    max_pool_connections=128,
    retries={"mode": "standard", "total_max_attempts": 3},
)

# One attempt: who asks a model decides what a second one is worth. Workers have hundreds of questions under way.
_MODEL_CONFIG = _CONFIG.merge(
    Config(
        connect_timeout=2,
        read_timeout=28,
        max_pool_connections=500,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
)
_S3_CONFIG = _CONFIG.merge(Config(signature_version="s3v4"))  # or else addresses would be signed in the old way
_CONFIGS = {"bedrock-runtime": _MODEL_CONFIG, "s3": _S3_CONFIG}


class _JSONParser(JSONParser):  # type: ignore[misc]
    """Takes DynamoDB's items as they are. botocore asks every value for each type it could have: half a page's time."""

    def _handle_map(self, shape: Any, value: dict[str, Any]) -> dict[str, Any]:
        if shape.value.name == "AttributeValue":
            return {name: _attribute(given) for name, given in value.items()}
        parsed: dict[str, Any] = super()._handle_map(shape, value)
        return parsed


def _attribute(given: dict[str, Any]) -> dict[str, Any]:
    """An attribute's wire form, with its binary parts decoded, as botocore would give it."""
    ((kind, value),) = given.items()
    match kind:
        case "B":
            return {kind: base64.b64decode(value)}
        case "BS":
            return {kind: [base64.b64decode(member) for member in value]}
        case "M":
            return {kind: {name: _attribute(element) for name, element in value.items()}}
        case "L":
            return {kind: [_attribute(element) for element in value]}
    return given


class _Parsers(ResponseParserFactory):  # type: ignore[misc]
    def create_parser(self, protocol_name: str) -> Any:
        return _JSONParser(**self._defaults) if protocol_name == "json" else super().create_parser(protocol_name)


@cache
def _session() -> botocore.session.Session:
    session = botocore.session.get_session()
    session.register_component("response_parser_factory", _Parsers())
    return session


@cache
def client(service: str, read_timeout: int | None = None) -> Any:
    """The one low-level client of a service in this process; region and credentials come from the environment.

    `read_timeout` in seconds asks for one of its own, where the service's usual one does not fit.
    """
    maker = _makers[-1]
    return _made(service, read_timeout) if maker is _made else maker(service)


def _made(service: str, read_timeout: int | None = None) -> Any:
    config = _CONFIGS.get(service, _CONFIG)
    if read_timeout is not None:
        config = config.merge(Config(read_timeout=read_timeout))
    return _session().create_client(service, config=config)


_makers: list[Callable[[str], Any]] = [_made]


@contextmanager
def clients_from(maker: Callable[[str], Any]) -> Iterator[None]:
    """Lets `maker` make the clients inside the block: tools that work on a stack they were not deployed with."""
    _makers.append(maker)
    client.cache_clear()
    try:
        yield
    finally:
        _makers.pop()
        client.cache_clear()
