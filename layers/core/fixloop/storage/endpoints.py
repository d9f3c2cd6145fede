"""OpenAI-compatible model endpoints that administrators have set up: one secret each, by organisation and name."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from fixloop.aws import client
from fixloop.models import Endpoint
from fixloop.settings import settings

REMEMBERED = 60.0  # seconds that a process goes by what it has read

_held: dict[str, tuple[float, Endpoint | None]] = {}
_lock = threading.Lock()


def _secret(org: str, name: str) -> str:
    return f"fixloop/{settings().stage}/{org}/models/{name}"


def endpoint(org: str, name: str) -> Endpoint | None:
    """The endpoint of that name, or None; what was read is remembered for a minute."""
    secret = _secret(org, name)
    with _lock:
        read, known = _held.get(secret, (float("-inf"), None))
        if time.monotonic() - read > REMEMBERED:
            known = _read(secret)
            _held[secret] = (time.monotonic(), known)
        return known


def _read(secret: str) -> Endpoint | None:
    secrets = client("secretsmanager")
    try:
        held: dict[str, Any] = json.loads(secrets.get_secret_value(SecretId=secret)["SecretString"])
    except secrets.exceptions.ResourceNotFoundException:
        return None
    except secrets.exceptions.InvalidRequestException:  # being deleted
        return None
    return Endpoint(**held)


def put(org: str, name: str, given: Endpoint) -> None:
    """Sets an endpoint up, or anew."""
    secrets, secret = client("secretsmanager"), _secret(org, name)
    content = json.dumps({key: value for key, value in vars(given).items() if value is not None})
    try:
        secrets.put_secret_value(SecretId=secret, SecretString=content)
    except secrets.exceptions.ResourceNotFoundException:
        secrets.create_secret(Name=secret, SecretString=content)
    _held.pop(secret, None)


def delete(org: str, name: str) -> bool:
    """Whether there was one. It is gone at once, and the name is free again."""
    secrets, secret = client("secretsmanager"), _secret(org, name)
    try:
        secrets.describe_secret(SecretId=secret)
    except secrets.exceptions.ResourceNotFoundException:
        return False
    secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    _held.pop(secret, None)
    return True


def names(org: str) -> list[str]:
    """The names of an organisation's endpoints, sorted."""
    prefix = _secret(org, "")
    found: list[str] = []
    asked: dict[str, Any] = {"Filters": [{"Key": "name", "Values": [prefix]}]}
    while True:
        answer = client("secretsmanager").list_secrets(**asked)
        found += [one["Name"].removeprefix(prefix) for one in answer["SecretList"] if one["Name"].startswith(prefix)]
        if "NextToken" not in answer:
            return sorted(found)
        asked["NextToken"] = answer["NextToken"]
