"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.inside import Inside, inside


@pytest.fixture(scope="module")
def stage() -> Iterator[Inside]:
    with inside() as made:
        yield made
