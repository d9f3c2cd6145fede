"""One stack for all deployed tests, started by the session and removed at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployed.world import Caller, World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("deployed"))
    yield made
    made.close()


@pytest.fixture
def caller(world: World) -> Caller:
    """A caller with a write key in an organisation of its own."""
    return world.caller()
