"""OpenAI-compatible model endpoints that administrators have set up: one secret each, by organisation and name."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from fixloop.aws import client
from fixloop.errors import Conflict, Invalid
from fixloop.models import Endpoint, well_named
from fixloop.models.openai import address
from fixloop.settings import settings

REMEMBERED = 60.0  # seconds that a process goes by what it has read

_held: dict[str, tuple[float, Endpoint | None]] = {}
_lock = threading.Lock()


def _secret(org: str, name: str) -> str:
    return f"fixloop/{settings().stage}/{org}/models/{name}"


def endpoint(org: str, name: str) -> Endpoint | None:
    """The endpoint of that name, or None; what was read is remembered for a minute.

    Raises Invalid naming `model` when the secret does not hold one.
    """
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
        held = secrets.get_secret_value(SecretId=secret)
    except secrets.exceptions.ResourceNotFoundException:
        return None
    except secrets.exceptions.InvalidRequestException:  # being deleted
        return None
    try:
        found: dict[str, Any] = json.loads(held["SecretString"])
        given = Endpoint(**found)
        _check(given)
    except (AttributeError, KeyError, TypeError, ValueError, Invalid):
        raise Invalid({"model": [f"the secret {secret} holds no model endpoint; set it up anew"]}) from None
    return given


def _check(given: Endpoint) -> None:
    """Raises Invalid naming `base_url`, `api_key` or `price`."""
    address(given.base_url)
    if given.api_key is not None and not (given.api_key and given.api_key.isascii() and given.api_key.isprintable()):
        raise Invalid({"api_key": ["must be one line of printable ASCII characters"]})
    prices = (given.input_price, given.output_price)
    known = [one for one in prices if one is not None]
    if len(known) == 1 or not all(0 <= one < 1_000_000 for one in known):
        raise Invalid({"price": ["must be given for both input and output, from 0, in US dollars per million tokens"]})


def put(org: str, name: str, given: Endpoint) -> None:
    """Sets an endpoint up, or anew. Raises Invalid naming what is wrong, and Conflict while one is being deleted."""
    if not well_named(name):
        raise Invalid({"name": ["must be 1 to 63 letters, digits, - and _, the first a letter or a digit"]})
    _check(given)
    secrets, secret = client("secretsmanager"), _secret(org, name)
    content = json.dumps({key: value for key, value in vars(given).items() if value is not None})
    try:
        try:
            secrets.put_secret_value(SecretId=secret, SecretString=content)
        except secrets.exceptions.ResourceNotFoundException:
            secrets.create_secret(Name=secret, SecretString=content)
    except secrets.exceptions.InvalidRequestException:
        raise Conflict(f"The secret {secret} is being deleted. Restore it, or try again when it is gone.") from None
    _held.pop(secret, None)


def delete(org: str, name: str) -> bool:
    """Whether there was one. It is gone at once; processes forget it within a minute."""
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
