"""AWS clients: made when first asked for, with budgets that fit behind a 30 s gateway."""

from __future__ import annotations

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
    return _session().create_client(service, config=_CONFIG)
