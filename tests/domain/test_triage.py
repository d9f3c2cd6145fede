"""Triage without storage: ids, words, cursors, order, and what a change leaves in the timeline."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop.errors import Invalid
from fixloop.identity import User
from fixloop.triage.activity import SYSTEM, author, person
from fixloop.triage.evidence import FlagIn, LinkIn, Relation, distinct
from fixloop.triage.issues import SEVERITIES, STATUSES, Issue, IssueIn, differences, forward, made
from fixloop.triage.queries import IssueQuery, Place, moment
from fixloop.triage.wire import derived, first_at, identifier, is_identifier, list_cursor, list_key
from fixloop.triage.words import LONGEST, MOST, contain, indexed, words

TIMES = st.integers(min_value=0, max_value=2**48 - 1)
NOISE = st.integers(min_value=0, max_value=2**74 - 1)


def an_issue(**fields: Any) -> Issue:
    body = IssueIn(title="Agent skipped a step", severity="high", category="Routing")
    return made(identifier(1000, 7), 1001, body, "user_1", 1000).model_copy(update=fields)


@given(TIMES, TIMES, NOISE, NOISE)
def test_identifiers_sort_by_time(one: int, other: int, noise: int, other_noise: int) -> None:
    first, second = identifier(one, noise), identifier(other, other_noise)
    assert is_identifier(first)
    assert first[14] == "7"
    assert first[19] in "89ab"
    assert first >= first_at(one)
    if one < other:
        assert first < second


def test_a_derived_identifier_is_the_same_for_the_same_parts_alone() -> None:
    assert derived("a", "b") == derived("a", "b")
    assert derived("a", "b") != derived("ab") != derived("a,b")
    assert is_identifier(derived("a"))


@pytest.mark.parametrize("text", ["", "T-1001", "68007859", "68007859-4325-4EA2-BBD6-E7C8BE3A233A", "../../x"])
def test_only_a_uuid_in_lower_case_is_an_identifier(text: str) -> None:
    assert not is_identifier(text)


def test_words_are_distinct_without_case_and_those_of_the_title_come_first() -> None:
    assert words("Agent skipped: the AGENT's step!", "Straße, ﬁne") == [
        *("agent", "skipped", "the", "s", "step"),
        *("strasse", "fine"),
    ]


def test_scripts_without_spaces_have_a_word_per_character() -> None:
    assert words("返品 policy") == ["返", "品", "policy"]
    assert indexed("返")
    assert not indexed("a")


def test_endless_words_count_by_their_beginning_and_there_is_an_end_to_their_number() -> None:
    assert words("x" * 500) == ["x" * LONGEST]
    assert len(words(" ".join(map(str, range(5000))))) == MOST


def test_a_search_finds_the_beginnings_of_words_and_wants_all_of_them() -> None:
    text = words("Agent skipped the verification step")
    assert contain(text, words("verif AGENT"))
    assert not contain(text, words("verif agents"))
    assert not contain(text, words("erification"))


def test_a_flag_type_is_stored_in_lower_snake_case() -> None:
    said = {"Missed Handoff": "missed_handoff", "wrongPathwayNode": "wrong_pathway_node", "--A b/c--": "a_b_c"}
    for given_type, stored in said.items():
        assert FlagIn(call_id="1", type=given_type).type == stored
    with pytest.raises(ValueError, match="letter or a digit"):
        FlagIn(call_id="1", type="--")


def test_a_resource_named_twice_counts_once() -> None:
    one, other = LinkIn(resource_type="call", resource_id="1"), LinkIn(resource_type="file", resource_id="1")
    assert distinct([one, other, one.model_copy()]) == [one, other]


def test_a_relation_has_two_sides() -> None:
    sides = {"issue_id": "a", "related_issue_id": "b", "direction": "outgoing"}
    relation = Relation(id="r", relation_type="blocks", created_by_id=None, created_at=1, **sides)
    other = relation.other_side()
    assert (other.issue_id, other.related_issue_id, other.direction) == ("b", "a", "incoming")
    assert other.other_side() == relation


def test_every_change_that_has_a_kind_of_entry_leaves_one() -> None:
    issue = an_issue(assignee_id="user_2")
    fields = {"status": "done", "severity": "low", "category": "Tools", "assignee_id": None, "owner_id": "user_3"}
    entries = differences(issue, {**fields, "title": "Another", "description": "x"}, SYSTEM)
    assert [entry.type for entry in entries] == [
        *("status_changed", "severity_changed", "category_changed", "assignee_changed", "owner_changed")
    ]
    assert (entries[0].from_status, entries[0].to_status) == ("todo", "done")
    assert [entry.metadata for entry in entries[1:3]] == [
        {"from": "high", "to": "low"},
        {"from": "Routing", "to": "Tools"},
    ]
    assert entries[3].detail == "Removed assignee user_2."
    assert entries[4].detail == "Set owner to user_3."


def test_what_stays_the_same_leaves_no_entry() -> None:
    issue = an_issue()
    assert differences(issue, {"status": issue.status, "severity": issue.severity}, SYSTEM) == []


def test_times_of_an_issue_never_run_backwards() -> None:
    issue = an_issue().changed(5000)
    assert issue.changed(3000).last_activity_at == 5000
    assert issue.active(6000).updated_at == 5000
    assert issue.active(6000).last_activity_at == 6000


def test_an_issue_only_goes_forward_for_the_loop() -> None:
    issue = an_issue(status="in_review")
    assert [status for status in STATUSES if forward(issue, status)] == ["done", "closed"]


def test_only_people_are_authors() -> None:
    assert author(SYSTEM) is None
    assert author(person(User(id=7, name="Ada"))) == "user_7"
    assert person(User(id=7, email="ada@example.com"))["label"] == "ada@example.com"


def test_severity_and_status_have_an_order_of_meaning() -> None:
    assert SEVERITIES == ("low", "medium", "high", "critical")
    assert STATUSES == ("backlog", "todo", "in_progress", "in_review", "done", "closed")
    leaf = an_issue(severity="critical", status="backlog").leaf
    assert IssueQuery(sort="severity").group(leaf) == 3
    assert IssueQuery(sort="status").group(leaf) == 0


def test_a_leaf_tells_status_severity_and_types_of_resources() -> None:
    leaf = an_issue(resources={"call": 2, "file": 0, "sms_conversation": 1}).leaf
    assert IssueQuery(resource_type="call", status=["todo"], severity=["high"]).wants(leaf)
    assert not IssueQuery(resource_type="file").wants(leaf)
    assert not IssueQuery(status=["done", "closed"]).wants(leaf)


def test_scopes_are_every_way_of_taking_one_of_each() -> None:
    assert IssueQuery().scopes() == ("", [[]])
    query = IssueQuery(category=["Tools", "tools", "Bug"], assignee_id="user_1")
    assert query.scopes() == ("cs", [["bug", "user_1"], ["tools", "user_1"]])


def test_a_cursor_leads_back_to_its_place() -> None:
    for sort in ("last_activity_at", "created_at", "severity", "status"):
        query = IssueQuery(sort=sort, status=["todo"])
        issue = an_issue()
        place = query.place(issue)
        assert IssueQuery(sort=sort, status=["todo"], cursor=query.next(place), limit=3).after() == place


def test_a_cursor_of_another_list_is_refused() -> None:
    query = IssueQuery(status=["todo"])
    cursor = query.next(query.place(an_issue()))
    others: list[dict[str, Any]] = [{}, {"status": ["done"]}, {"status": ["todo"], "search": "x"}]
    others += [{"status": ["todo"], "sort": "created_at"}, {"status": ["todo"], "order": "asc"}]
    for other in others:
        with pytest.raises(Invalid) as refused:
            IssueQuery(**other, cursor=cursor).after()
        assert list(refused.value.fields) == ["cursor"]


@given(st.text(max_size=80))
def test_garbage_is_no_cursor(text: str) -> None:
    with pytest.raises(Invalid):
        IssueQuery(cursor=text).after()
    with pytest.raises(Invalid):
        list_key("a list", text)


def test_a_cursor_of_a_plain_list_names_the_list() -> None:
    assert list_key("issue act#", list_cursor("issue act#", "0001#000")) == "0001#000"
    assert list_key("issue act#", None) is None
    with pytest.raises(Invalid):
        list_key("issue link#", list_cursor("issue act#", "0001#000"))


def test_places_of_the_same_group_are_in_order_of_their_keys() -> None:
    older, newer = an_issue(last_activity_at=5), an_issue(last_activity_at=50_000)
    assert moment(older) < moment(newer)
    assert Place(0, "b") < Place(1, "a") < Place(1, "b")
