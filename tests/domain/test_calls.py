"""What a call is made of: its times, its leaf, its history, its query."""

from typing import Any

import pytest
from pydantic import ValidationError

from fixloop.calls import MAX_ID, CallIn, CallQuery, Standing, detailed, history, leaf, number, received, shown

NOW = 1_776_709_511_002


def times_of(**given: Any) -> tuple[Any, ...]:
    record = received(1, CallIn(**given), NOW).record
    return record["start_time"], record["end_time"], record["duration_seconds"]


def test_a_call_that_only_ended_began_its_duration_earlier() -> None:
    assert times_of(end_time="2026-04-20T10:00:10Z", duration_seconds=10)[0] == "2026-04-20T10:00:00.000Z"


def test_a_call_that_says_no_time_began_now_less_its_duration() -> None:
    assert times_of(duration_seconds=11.002) == ("2026-04-20T18:25:00.000Z", "2026-04-20T18:25:11.002Z", 11.002)


def test_a_call_in_progress_has_no_end() -> None:
    assert times_of(start_time="2026-04-20T10:00:00Z", duration_seconds=9, status="in_progress")[1] is None


def test_a_call_sent_again_keeps_the_start_it_was_given_first() -> None:
    assert received(1, CallIn(), NOW + 99, started=NOW).start == NOW


def test_whole_amounts_are_integers() -> None:
    record = received(1, CallIn(duration_seconds=70.0, billable_minutes=2.0, billing_total_cents=1.5), NOW).record
    assert [record[key] for key in ("duration_seconds", "billable_minutes", "billing_total_cents")] == [70, 2, 1.5]
    assert isinstance(record["duration_seconds"], int)


def test_a_duration_must_stay_within_the_calendar() -> None:
    for given in (
        {"start_time": "9999-12-31T23:59:59Z", "duration_seconds": 1},
        {"end_time": "0001-01-01T00:00:00Z", "duration_seconds": 1},
    ):
        with pytest.raises(ValidationError) as refused:
            CallIn(**given)  # type: ignore[arg-type]
        assert [problem["loc"] for problem in refused.value.errors()] == [("duration_seconds",)]


def test_a_call_is_shown_with_every_key_however_little_is_known() -> None:
    call = received(1, CallIn(), NOW)
    listed, alone = shown(call.record, Standing()), detailed(call.record, Standing(), call.body)
    assert list(alone)[: len(listed)] == list(listed)
    assert listed["issue_count"] == 0
    assert alone["prompt_snapshot"] == ""
    assert alone["steps_trace"] is None


def test_a_leaf_tells_direction_status_and_test_calls_apart() -> None:
    codes = {leaf(d, s, t) for d in ("inbound", "web") for s in ("completed", "failed") for t in (False, True)}
    assert len(codes) == 8


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, {"inbound", "web", "test"}),
        ({"direction": "web"}, {"web"}),
        ({"status": "failed"}, {"web"}),
        ({"exclude_test_calls": True}, {"inbound", "web"}),
        ({"direction": "inbound", "status": "failed"}, set()),
    ],
)
def test_a_query_wants_the_leaves_that_pass_all_its_filters(query: dict[str, Any], wanted: set[str]) -> None:
    leaves = {
        "inbound": leaf("inbound", "completed", False),
        "web": leaf("web", "failed", False),
        "test": leaf("inbound", "completed", True),
    }
    assert {name for name, code in leaves.items() if CallQuery(**query).wants(code)} == wanted


def test_events_without_a_time_come_last_in_the_history() -> None:
    body = {"transcripts": [{"role": "user", "start_ms": 5}], "events": [{"type": "x"}, {"type": "y", "at_ms": 0}]}
    assert [entry.get("event", "turn") for entry in history(body)] == ["y", "turn", "x"]


def test_turns_keep_their_order_when_nothing_is_to_be_put_between_them() -> None:
    body = {"transcripts": [{"role": "user", "start_ms": 9}, {"role": "user", "start_ms": 5}]}
    assert [entry["index"] for entry in history(body)] == [0, 1]


@pytest.mark.parametrize("text", ["0", "-1", "", "1.0", "+1", "a", " 1", "1_0", "٣", str(MAX_ID + 1), "9" * 400])
def test_what_is_no_id_is_no_number(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize("value", [1, 42, MAX_ID])
def test_an_id_of_64_bits_is_a_number(value: int) -> None:
    assert number(str(value)) == value
