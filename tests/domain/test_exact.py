"""JSON that keeps its digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop.exact import Exact, dumps, loads

NUMBERS = ["1.875075", "1.0", "1.50", "0.10", "-0", "-0.0", "1e5", "1E+2", "12345678901234567890123", "7", "0", "1e-7"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_written_as_it_was_read(number: str) -> None:
    assert dumps(loads(f'{{"a":[{number}]}}')) == f'{{"a":[{number}]}}'


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=9))
def test_any_decimal_is_written_as_it_was_read(number: object) -> None:
    assert dumps(loads(f"{number:f}")) == f"{number:f}"


def test_a_number_reckons_like_any_other() -> None:
    assert Exact("1.50") * 2 == 3
    assert isinstance(loads("7"), int)


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "9" * 5000])
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    with pytest.raises(ValueError):
        loads(number)


def test_text_stays_as_it_is_and_what_is_no_json_is_refused() -> None:
    assert dumps({"é": "\n\"'"}) == '{"é":"\\n\\"\'"}'
    for bad in ("\ud800", object(), {1, 2}):
        with pytest.raises(ValueError):
            dumps(bad)
