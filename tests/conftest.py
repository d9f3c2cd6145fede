"""What every test may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

sys.path.insert(0, str(Path(__file__).resolve().parent))

import executions
from better_moto import better_moto
from cloud import Client, Cloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """The template in moto, one for the whole session: tests keep apart by their organisations."""
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}), better_moto():
        made = Cloud().build()
        with executions.run_by(made.invoke):
            yield made


@pytest.fixture(autouse=True)
def _forgetful(request: pytest.FixtureRequest) -> None:
    """What other tests left undelivered does not come to this one, which would pay for it and be told its failures."""
    if "cloud" in request.fixturenames:
        request.getfixturevalue("cloud").forget()


@pytest.fixture
def caller(cloud: Cloud) -> Client:
    """A caller with a write key in an organisation of its own."""
    return cloud.caller()
