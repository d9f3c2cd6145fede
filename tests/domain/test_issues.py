"""Issues: what each operation shows, what is taken, and how filters and lists agree on a leaf."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop.issues import SEVERITIES, STATUSES, Issue, IssueIn, IssuePatch, IssueQuery, Metadata, leaf
from fixloop.thinkhive import identifier, is_identifier
from wire.thinkhive import SHOWN_ISSUE

ISSUE = Issue(
    id="iss_8f3k2m",
    n=1,
    title="Incorrect refund policy citations",
    description="Agent cites outdated refund policy when customers ask about returns after 30 days",
    severity="high",
    status="open",
    agent_id="agent_abc123",
    tags=["retrieval", "policy", "refunds"],
    trace_count=47,
    metadata=Metadata(first_seen=1_754_824_920_000, last_seen=1_755_162_900_000, customers=38, confidence=0.92),
    created_at=1_755_009_000_000,
    updated_at=1_755_162_900_999,
)


def test_one_issue_is_shown_as_the_published_page_shows_it() -> None:
    shown = ISSUE.detailed("Customer Support Bot", ["tr_a1b2c3", "tr_d4e5f6", "tr_g7h8i9"], [])
    published = json.loads(SHOWN_ISSUE)["data"]
    published["metadata"]["affectedCost"] = None  # ours
    assert shown == published
    assert list(shown) == list(published)
    listed = ISSUE.listed("Customer Support Bot")
    assert list(listed) == [name for name in published if name not in ("traceIds", "fixes", "metadata")]
    created = ISSUE.created()
    assert list(created) == [name for name in listed if name != "agentName"]
    assert list(ISSUE.patched()) == ["id", "title", "severity", "status", "tags", "updatedAt"]


def test_every_status_and_severity_is_a_leaf_of_its_own_that_the_filters_know() -> None:
    codes = {(severity, status): leaf(severity, status) for severity in SEVERITIES for status in STATUSES}
    assert len(set(codes.values())) == 16
    for severity, status in itertools.product((None, *SEVERITIES), (None, *STATUSES)):
        query = IssueQuery(severity=severity, status=status)
        wanted = {pair for pair, code in codes.items() if query.wants(code)}
        assert wanted == {pair for pair in codes if severity in (None, pair[0]) and status in (None, pair[1])}


def test_traces_are_folded_in_their_order() -> None:
    given_ = IssueIn(title="t", agentId="a", traceIds=["tr_b", "tr_a", "tr_b"])
    assert given_.traceIds == ["tr_b", "tr_a"]
    assert IssuePatch(traceIds=["tr_b", "tr_b"]).traceIds == ["tr_b"]
    assert IssuePatch().traceIds is None


@pytest.mark.parametrize("status", ["resolved", "investigating", "fix_proposed", "Open"])
def test_the_statuses_are_the_pages_four(status: str) -> None:
    for shape in (IssuePatch, IssueQuery):
        with pytest.raises(ValidationError):
            shape.model_validate({"status": status})


@pytest.mark.parametrize("field", list(IssuePatch.model_fields))
def test_nothing_is_set_to_null(field: str) -> None:
    with pytest.raises(ValidationError, match="must not be null"):
        IssuePatch.model_validate({field: None})


@given(st.integers(0, 2**42), st.integers(0, 2**42), st.integers(0, 10**9), st.integers(0, 10**9))
def test_ids_sort_by_the_time_they_were_made(one: int, other: int, noise: int, more: int) -> None:
    first, second = identifier("iss", one, noise), identifier("iss", other, more)
    assert is_identifier(first)
    if one < other < 36**8:
        assert first < second


@given(st.text(max_size=6) | st.sampled_from(["tr_1", "a:b.c-d", "", "a b", "a#b", "a/b", "a\n", "x" * 129]))
def test_an_identifier_is_a_word(text: Any) -> None:
    said = is_identifier(text)
    assert said == (0 < len(text) <= 128 and all(c.isalnum() or c in "_.:-" for c in text)) or not text.isascii()
