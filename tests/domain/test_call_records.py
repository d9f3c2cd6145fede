"""How a call's record is kept: nothing of it may be lost, whatever ingest learns to take."""

from __future__ import annotations

from fixloop.calls import _KEPT, CallIn, kept, received, record_of


def test_a_record_is_kept_whole() -> None:
    given = CallIn(agent_id=12, from_number="+1555", end_reason="agent_end", is_test_call=True, duration_seconds=1.5)
    record = received(7, given, 1_790_000_000_000).record
    assert set(record) == set(_KEPT)
    assert record_of(kept(record)) == record


def test_a_record_from_before_a_key_was_known_has_none_for_it() -> None:
    assert record_of("[7,12]")["recording_mode"] is None
