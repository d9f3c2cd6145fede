"""AWS clients: made when first asked for, with budgets that fit behind a 30 s gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config

_CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    tcp_keepalive=True,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 3},
)


@cache
def _session() -> botocore.session.Session:
    return botocore.session.get_session()


@cache
def client(service: str) -> Any:
    """The one low-level client of a service in this process; region and credentials come from the environment."""
    return _makers[-1](service)


def _made(service: str) -> Any:
    return _session().create_client(service, config=_CONFIG)


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
