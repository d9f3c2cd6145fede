"""Instants: read from any ISO 8601 form, written in two."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop import times

PUBLISHED = 1_776_709_511_002


def test_thunderphone_writes_milliseconds() -> None:
    assert times.iso_ms(PUBLISHED) == "2026-04-20T18:25:11.002Z"


def test_thinkhive_writes_seconds() -> None:
    assert times.iso_s(PUBLISHED) == "2026-04-20T18:25:11Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-20T18:25:11.002Z",
        "2026-04-20T18:25:11.002",
        "2026-04-20 18:25:11.002",
        "2026-04-20T20:25:11.002+02:00",
        "2026-04-20T18:25:11.002999Z",
        "  2026-04-20T18:25:11.002Z ",
    ],
)
def test_one_instant_has_many_spellings(text: str) -> None:
    assert times.parse(text) == PUBLISHED


def test_a_bare_date_is_its_first_or_its_last_millisecond() -> None:
    assert times.iso_ms(times.parse("2026-04-20")) == "2026-04-20T00:00:00.000Z"
    assert times.iso_ms(times.parse("2026-04-20", end_of_day=True)) == "2026-04-20T23:59:59.999Z"


def test_the_end_of_the_day_is_meant_for_bare_dates_only() -> None:
    assert times.parse("2026-04-20T00:00:00", end_of_day=True) == times.parse("2026-04-20")


def test_the_first_and_the_last_instant_can_be_said() -> None:
    assert times.parse("0001-01-01") == times.FIRST
    assert times.iso_ms(times.FIRST) == "0001-01-01T00:00:00.000Z"
    assert times.parse("9999-12-31", end_of_day=True) == times.LAST
    assert times.iso_ms(times.LAST) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026",
        "2026-04",
        "20260420",
        "2026-02-30",
        "2026-04-20T25:00:00",
        "1776709511",
        "2026-04-20T18:25:11 02:00",
        "٢٠٢٦-٠٤-٢٠",
    ],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        times.parse(text)


@given(st.integers(times.FIRST, times.LAST))
def test_what_is_written_is_read_as_the_same_instant(at: int) -> None:
    assert times.parse(times.iso_ms(at)) == at
    assert times.parse(times.iso_s(at)) == at // 1000 * 1000


@given(st.text(max_size=40))
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert times.FIRST <= times.parse(text) <= times.LAST
