"""The examples of Zylon's published page of issues: keys in their order, types, envelopes, statuses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from cloud import ROOT, Client, Cloud
from fixloop.app_issues import MAX_NAMED, MAX_PAGE_SIZE, AppIssueIn, AppIssuePatch, AppIssueQuery
from fixloop.identity import User
from fixloop.storage import app_issues

CREATE = """{
  "description": "Response missed the attached policy details.",
  "resource_type": "Thread",
  "type": "NoContextUsed",
  "anonymous": false
}"""
CREATED = """{
  "id": "issue_5c4b3a2d1e0f9a8b",
  "issue_number": 1842,
  "description": "Response missed the attached policy details.",
  "resource_type": "Thread",
  "type": "NoContextUsed",
  "state": "NotReviewed",
  "is_read": false,
  "created_at": "2026-02-08T14:55:10Z",
  "updated_at": "2026-02-08T14:55:10Z",
  "created_by": {
    "id": "user_4b7c2a1d9e5f3c8b",
    "org_id": "org_2f3a9d1c7b5e4a8f",
    "account_id": "acct_6c8a1f3b2d4e5f7a",
    "name": "Sasha Patel",
    "email": "sasha@auroralabs.com",
    "state": "Active",
    "roles": ["AppAdmin"],
    "created_at": "2026-02-08T14:12:45Z"
  }
}"""
LISTED = f'{{"data": [{CREATED}], "has_next_page": false, "has_previous_page": false, "total_count": 1}}'
SHORT = ("id", "issue_number", "description", "state")
CONFIG = {"thread_id": "thread_3f2a1c4d5b6e7f8a", "reported_interaction_id": "interaction_9b8a7c6d5e4f"}
PATH = "/api/v1/app/issue"


@pytest.fixture
def sasha(cloud: Cloud) -> Client:
    user = User(id=7, name="Sasha Patel", email="sasha@auroralabs.com", created_at=1_770_559_965_000)
    return cloud.caller(user=user)


def same_form(said: Any, published: Any) -> None:
    """The same keys in the same order, and values of the same types; ids and instants look alike."""
    assert type(said) is type(published)
    if isinstance(published, dict):
        assert list(said) == list(published)
        for name in published:
            same_form(said[name], published[name])
    elif isinstance(published, list):
        assert len(said) == len(published)
        for one, other in zip(said, published, strict=True):
            same_form(one, other)
    elif isinstance(published, str) and re.match(r"issue_|acct_|org_|\d{4}-", published):
        form = re.sub(
            r"[0-9a-f]{16}",
            "[0-9a-f]{16}",
            re.sub(r"\d{4}-.*", r"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ", published),
        )
        assert re.fullmatch(form, said), (said, published)


def test_a_created_issue_has_the_published_keys_in_their_order(sasha: Client) -> None:
    answer = sasha.post(PATH, json.loads(CREATE))
    assert answer.status == 200
    said, published = answer.json(), json.loads(CREATED)
    same_form(said, published)
    chosen = {"id", "issue_number", "created_at", "updated_at", "created_by"}
    assert {k: said[k] for k in published.keys() - chosen} == {k: published[k] for k in published.keys() - chosen}
    creator = said["created_by"]
    assert (creator["id"], creator["org_id"]) == ("user_7", sasha.org)
    named = ("name", "email", "state", "roles", "created_at")
    assert [creator[name] for name in named] == [published["created_by"][name] for name in named]


def test_a_list_is_a_page_with_the_published_keys(sasha: Client) -> None:
    made = sasha.post(PATH, json.loads(CREATE)).json()
    answer = sasha.get(PATH, page=1, page_size=20)
    assert answer.status == 200
    same_form(answer.json(), json.loads(LISTED))
    assert answer.json()["data"] == [made]
    empty = sasha.get(PATH, page=2).json()
    assert empty == {"data": [], "has_next_page": False, "has_previous_page": True, "total_count": 1}


def test_one_issue_has_the_four_published_keys_and_the_rest(sasha: Client) -> None:
    made = sasha.post(PATH, json.loads(CREATE)).json()
    shown = sasha.get(f"{PATH}/{made['id']}").json()
    assert {key: shown[key] for key in SHORT} == {key: made[key] for key in SHORT}
    assert shown == made


def test_an_update_answers_with_the_whole_issue(sasha: Client) -> None:
    made = sasha.post(PATH, {**json.loads(CREATE), "config": CONFIG}).json()
    told = {"description": "Reviewed by support.", "type": "NoContextUsed", "state": "InReview", "is_read": True}
    answer = sasha.put(f"{PATH}/{made['id']}", told)
    assert answer.status == 200
    assert list(answer.json()) == list(made)
    assert answer.json() == {**made, **told, "updated_at": answer.json()["updated_at"]}
    assert answer.json()["data"] == CONFIG


def test_a_deletion_says_nothing(sasha: Client) -> None:
    made = sasha.post(PATH, json.loads(CREATE)).json()
    answer = sasha("DELETE", f"{PATH}/{made['id']}")
    assert (answer.status, answer.text) == (204, "")


def test_an_error_is_a_message(sasha: Client) -> None:
    made = sasha.post(PATH, json.loads(CREATE)).json()
    for answer, status in (
        (sasha.get(f"{PATH}/issue_5c4b3a2d1e0f9a8b"), 404),
        (sasha.put(f"{PATH}/{made['id']}", {"state": "Solved"}), 400),
        (sasha.get(PATH, page_size=101), 400),
        (sasha.cloud.request("GET", PATH), 401),
        (sasha("DELETE", PATH), 405),
        (sasha.get("/api/v1/app/issues"), 404),
    ):
        assert answer.status == status
        assert list(answer.json()) == ["message"]
        assert answer.headers["Content-Type"] == "application/json"
    assert "state" in sasha.put(f"{PATH}/{made['id']}", {"state": "Solved"}).json()["message"]


@pytest.mark.parametrize("model", [AppIssueQuery, AppIssueIn, AppIssuePatch])
def test_every_filter_and_field_is_documented(model: type[BaseModel]) -> None:
    page = (ROOT / "docs/api-app-issues.md").read_text()
    for name in model.model_fields:
        assert f"`{name}`" in page, name
    for limit in (f"up to {MAX_NAMED} users", f"1 to {MAX_PAGE_SIZE}, default 20", f"{app_issues.MAX_LOOKED_AT:,}"):
        assert limit in page
