"""App issues: what is taken, who sees and changes what, and where a page lies."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop.app_issues import (
    SHOWN,
    STATES,
    TYPES,
    AppIssue,
    AppIssueIn,
    AppIssuePatch,
    AppIssueQuery,
    identifier,
    made,
    may_change,
    number_of,
    slug,
)
from fixloop.identity import Principal, Scope, User

SASHA = User(id=7, name="Sasha Patel", email="sasha@auroralabs.com", created_at=1_770_559_965_000)
AT = 1_770_562_510_000
SAID = {"description": "Response missed the attached policy details.", "resource_type": "Thread", "type": "Format"}


def issue(**content: Any) -> AppIssue:
    return made("org_1", AppIssueIn.model_validate({**SAID, **content}), SASHA, 1842, AT, 0xABCDEF)


def key(user: int, scope: Scope = Scope.WRITE, *roles: str) -> Principal:
    return Principal(key_id="k", org_id="org_1", user=User(id=user, roles=list(roles)), scope=scope)


def test_a_new_issue_is_not_reviewed_and_not_read() -> None:
    shown = issue().shown()
    assert (shown["state"], shown["is_read"], shown["issue_number"]) == ("NotReviewed", False, 1842)
    assert shown["created_by"]["name"] == "Sasha Patel"
    assert "data" not in shown
    assert "project" not in issue(project_id="p1").shown()


def test_the_config_comes_back_as_data_with_the_keys_that_were_given() -> None:
    assert issue(config={"thread_id": "t1"}).shown()["data"] == {"thread_id": "t1"}
    both = {"thread_id": "t1", "reported_interaction_id": "i1"}
    assert issue(config={**both, "more": 1}).shown()["data"] == both


def test_an_anonymous_issue_names_nobody_to_anybody() -> None:
    hidden = issue(anonymous=True)
    assert "created_by" not in hidden.shown(["User", "Project"])
    assert hidden.creator is None
    assert not AppIssueQuery(created_by=["user_7"]).chosen(hidden)
    for secret in ("Sasha", "sasha", "user_7", "acct_"):
        assert secret not in str(hidden.shown(["User"]))


@pytest.mark.parametrize("anonymous", [False, True])
def test_an_issue_is_changed_by_its_author_and_by_admins(anonymous: bool) -> None:
    filed = issue(anonymous=anonymous)
    assert may_change(filed, key(7, Scope.WRITE, "AppGuest"))
    assert may_change(filed, key(8, Scope.ADMIN, "AppGuest"))
    for role in ("AppAdmin", "AppOwner", "Admin", "SuperAdmin"):
        assert may_change(filed, key(8, Scope.WRITE, "AppMember", role))
    for role in ("AppGuest", "AppMember", "Basic", "Developer"):
        assert not may_change(filed, key(8, Scope.WRITE, role))
    assert not may_change(filed, key(8))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"resource_type": "Message"}, "resource_type"),
        ({"type": "noanswer"}, "type"),
        ({"type": None}, "type"),
        ({"description": "x" * 20_001}, "description"),
        ({"description": 5}, "description"),
        ({"anonymous": "yes"}, "anonymous"),
        ({"config": {}}, "config.thread_id"),
        ({"config": {"thread_id": ""}}, "config.thread_id"),
        ({"config": {"thread_id": "a#b"}}, "config.thread_id"),
        ({"config": []}, "config"),
        ({"project_id": "a b"}, "project_id"),
    ],
)
def test_a_bad_issue_is_refused_naming_the_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AppIssueIn.model_validate({**SAID, **wrong}, strict=True)
    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [field]


def test_only_the_kind_of_issue_has_to_be_said() -> None:
    least = AppIssueIn.model_validate({"resource_type": "Thread", "type": "Other"})
    assert (least.anonymous, least.config) == (False, None)
    assert made("org_1", least, SASHA, 1, AT, 0).description == ""


def test_a_put_marks_as_unread_what_it_does_not_call_read() -> None:
    assert AppIssuePatch(state="InReview").put() == {"is_read": False, "state": "InReview"}
    assert AppIssuePatch(is_read=True).put() == {"is_read": True}
    assert AppIssuePatch(state="InReview").sent() == {"state": "InReview"}
    assert AppIssuePatch().put() == {"is_read": False}


@pytest.mark.parametrize("field", list(AppIssuePatch.model_fields))
def test_nothing_is_set_to_null(field: str) -> None:
    with pytest.raises(ValidationError, match="must not be null"):
        AppIssuePatch.model_validate({field: None})


@pytest.mark.parametrize("state", ["Open", "closed", "Reviewed", ""])
def test_the_states_are_the_four(state: str) -> None:
    with pytest.raises(ValidationError):
        AppIssuePatch.model_validate({"state": state})
    if state:
        with pytest.raises(ValidationError):
            AppIssueQuery.model_validate({"states": f"NotReviewed,{state}"})


def test_every_type_and_state_is_a_leaf_of_its_own_that_the_filters_know() -> None:
    codes = {
        (kind, state): AppIssue.leaf.fget(issue(type=kind).model_copy(update={"state": state}))
        for kind in TYPES
        for state in STATES
    }  # type: ignore[attr-defined]
    assert len(set(codes.values())) == 20
    for kinds, states in itertools.product(((), TYPES[:1], TYPES[1:4]), ((), STATES[:1], STATES[2:])):
        query = AppIssueQuery(type=list(kinds), states=list(states))
        wanted = {pair for pair, code in codes.items() if query.wants(code)}
        assert wanted == {(k, s) for k, s in codes if (not kinds or k in kinds) and s in (states or SHOWN)}


def test_filters_of_several_values_are_separated_by_commas() -> None:
    query = AppIssueQuery.model_validate({"states": "InReview, Closed,InReview,", "created_by": "user_1,user_2"})
    assert query.states == ["InReview", "Closed"]
    assert query.created_by == ["user_1", "user_2"]


def test_an_end_in_whole_seconds_takes_in_its_second() -> None:
    query = AppIssueQuery.model_validate({"start_date": "5000", "end_date": "5000"})
    assert (query.start_date, query.end_date) == (5000, 5999)
    assert AppIssueQuery.model_validate({"end_date": "5001"}).end_date == 5001


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"page": "0"}, "page"),
        ({"page_size": "0"}, "page_size"),
        ({"page_size": "101"}, "page_size"),
        ({"page_size": "many"}, "page_size"),
        ({"page_order": "desc"}, "page_order"),
        ({"include": "User,Team"}, "include"),
        ({"type": "Format,Tone"}, "type"),
        ({"start_date": "2026-02-08"}, "start_date"),
        ({"start_date": "5001", "end_date": "4000"}, "end_date"),
        ({"start_date": str(10**30)}, "start_date"),
        ({"created_by": ",".join(f"user_{at}" for at in range(21))}, "created_by"),
        ({"projects": "a#b"}, "projects"),
        ({"filter_by_text": "x" * 201}, "filter_by_text"),
        ({"page": "2", "after": "issue_1"}, "after"),
        ({"after": "issue_1", "before": "issue_2"}, "before"),
    ],
)
def test_a_bad_query_is_refused_naming_the_parameter(query: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AppIssueQuery.model_validate(query)
    assert {str(error["loc"][0]) for error in refused.value.errors()} == {field}


@given(st.integers(1, 2**40 - 1), st.integers(0, 2**40))
def test_an_id_has_its_number_in_it(number: int, noise: int) -> None:
    made_up = identifier(number, noise)
    assert len(made_up) == len("issue_5c4b3a2d1e0f9a8b")
    assert number_of(made_up) == number
    assert number == 2**40 - 1 or identifier(number, noise) < identifier(number + 1, 0)


@given(st.text(max_size=30))
def test_what_is_no_id_has_no_number(text: str) -> None:
    assert number_of(text) is None
    assert number_of(f"issue_{text}") is None or len(text) == 16


@given(
    total=st.integers(0, 30),
    size=st.integers(1, 10),
    page=st.integers(1, 8),
    order=st.sampled_from(["ASC", "DESC"]),
    cursor=st.integers(0, 29) | st.none(),
    known=st.booleans(),
    forward=st.booleans(),
)
def test_a_page_is_the_slice_that_its_order_and_its_cursor_say(
    total: int, size: int, page: int, order: Any, cursor: int | None, known: bool, forward: bool
) -> None:
    """`cursor` stands at that row of the newest first, or between it and the one before when it is not `known`."""
    newest_first = list(range(total))
    asked = newest_first if order == "DESC" else newest_first[::-1]
    query = AppIssueQuery(page_size=size, page_order=order)
    newer = through = 0
    if cursor is None:
        query.page = page
        expected = asked[(page - 1) * size : page * size]
    else:
        cursor = min(cursor, total)
        known = known and cursor < total
        newer, through = cursor, cursor + known
        query.after, query.before = ("c", None) if forward else (None, "c")
        ahead = [row for row in asked if (row < newer if order == "DESC" else row >= through)]
        behind = [row for row in asked if (row >= through if order == "DESC" else row < newer)]
        expected = behind[:size] if forward else ahead[-size:]
    start, end = query.span(total, newer, through)
    assert newest_first[start:end] == (expected if order == "DESC" else expected[::-1])


def test_an_organisations_name_has_a_form_for_addresses() -> None:
    assert slug("Aurora Labs") == "aurora-labs"
    assert slug("  Müller & Söhne, GmbH ") == "müller-söhne-gmbh"
