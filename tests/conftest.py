"""What every test may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

if TYPE_CHECKING:
    from cloud import Client, Cloud

_clouds: list[Cloud] = []


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """The template in moto, one for the whole session: tests keep apart by their organisations."""
    # Who has no cloud, such as the deployed tests, has not to wait for moto either.
    from moto import mock_aws

    import executions
    from better_moto import better_moto
    from cloud import Cloud

    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}), better_moto():
        made = Cloud().build()
        _clouds.append(made)
        with executions.run_by(made.invoke):
            yield made
        _clouds.remove(made)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("deployed") and item.path.parent.name != "deployed":
        raise pytest.UsageError(f"{item.path} is deployed, and `make test` runs such tests of tests/deployed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What other tests left undelivered does not come to the next, which would pay for it and be told its failures."""
    for made in _clouds:
        made.forget()


@pytest.fixture
def caller(cloud: Cloud) -> Client:
    """A caller with a write key in an organisation of its own."""
    return cloud.caller()
