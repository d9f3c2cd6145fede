"""What the tests over HTTP share: a clock that can be turned, and calls and reports to talk about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.http import Api


@dataclass
class Clock:
    """The time that the functions behind the API see, in seconds since 1970."""

    now: float = 1_776_709_511.002  # 2026-04-20T18:25:11.002Z

    def __call__(self) -> float:
        return self.now


def apis(cloud: Cloud) -> dict[str, Api]:
    """Every function that serves HTTP, by its name in the template."""
    handlers = {name: cloud.module(name).handler for name in cloud.functions()}
    return {name: handler for name, handler in handlers.items() if isinstance(handler, Api)}


@pytest.fixture
def clock(cloud: Cloud) -> Iterator[Clock]:
    """All functions' clock, to be set by the test."""
    turned = Clock()
    before = {name: api._clock for name, api in apis(cloud).items()}
    for api in apis(cloud).values():
        api._clock = turned
    yield turned
    for name, api in apis(cloud).items():
        api._clock = before[name]


@pytest.fixture
def called(caller: Client) -> Callable[..., int]:
    """Stores a call of the caller's organisation and gives its id."""

    def store(call_id: int = 987654321, **content: Any) -> int:
        answer = caller.put(f"/v1/calls/{call_id}", {"start_time": "2026-04-20T18:24:00Z", **content})
        assert answer.status in (200, 201), answer.text
        return call_id

    return store


@pytest.fixture
def reported(caller: Client, called: Callable[..., int]) -> Callable[..., dict[str, Any]]:
    """Files a report, on a call of its own unless one is named, and gives it as the API shows it."""

    def file(call_id: int | None = None, **content: Any) -> dict[str, Any]:
        call_id = called() if call_id is None else call_id
        answer = caller.post(f"/v1/calls/{call_id}/issue-reports", {"title": "Agent paused too long", **content})
        assert answer.status == 201, answer.text
        report: dict[str, Any] = answer.json()
        return report

    return file


@pytest.fixture
def quiet(cloud: Cloud) -> None:
    """Forgets what this test's other fixtures left to be delivered; what earlier tests left is forgotten anyway."""
    cloud.forget()
