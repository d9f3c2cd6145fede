"""One stack for all deployed tests, started by the session and removed at its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from deployed.world import Caller, World
from fixloop_cli import local


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Its first stop waits for nothing: `test_processes` needs that, and to others it is all the same."""
    directory = tmp_path_factory.mktemp("deployed")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or else the stack would outlive who is told to end
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIXLOOP_DRAIN_SECONDS", "0")
            made = World(directory)
        yield made
        made.http.close()
    finally:
        local.remove(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The requests that are made for as long as there is time come last, when the other half is done or nearly so."""
    items.sort(key=lambda item: (item.path.parent.name, item.path.name) == ("deployed", "test_openapi.py"))


@pytest.fixture
def caller(world: World) -> Caller:
    """A caller with a write key in an organisation of its own."""
    return world.caller()
