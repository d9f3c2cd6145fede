"""The shapes of Bland's published pages: keys in their order, types, statuses, and the envelope around them."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from cloud import Client, Cloud

SENT = """{
  "title": "Agent skipped the verification step",
  "severity": "high",
  "category": "Routing",
  "description": "On the Aug 12 demo flow the agent jumped to the closing node without asking for the email confirmation.",
  "assignee_id": "beed099d-e493-4142-a68b-af13bd72c035",
  "resource_links": [{"resource_type": "call", "resource_id": "987654321"}]
}"""  # noqa: E501
PUBLISHED = """{
  "data": {
    "id": "68007859-4325-4ea2-bbd6-e7c8be3a233a",
    "triage_id": "T-1001",
    "org_id": "685b69b7-b903-4d98-9755-af3c957df9e3",
    "number": 1001,
    "title": "Agent skipped the verification step",
    "description": "On the Aug 12 demo flow the agent jumped to the closing node without asking for the email confirmation.",
    "status": "todo",
    "severity": "high",
    "source": "manual",
    "category": "Routing",
    "owner_id": null,
    "assignee_id": "beed099d-e493-4142-a68b-af13bd72c035",
    "author_id": "4d5ac1b5-1f24-46d3-8355-5debfd029a65",
    "external_link": null,
    "created_at": "2026-05-06T21:09:57.081Z",
    "updated_at": "2026-05-06T21:09:57.081Z",
    "last_activity_at": "2026-05-06T21:09:57.081Z",
    "resource_count": 1,
    "flag_count": 0,
    "relation_count": 0,
    "latest_agent_session": null,
    "is_processing": false,
    "has_unread_activity": false
  },
  "errors": null
}"""  # noqa: E501
LINK = [
    "id",
    "issue_id",
    "org_id",
    "resource_type",
    "resource_id",
    "title",
    "status",
    "metadata",
    "attached_by_id",
    "created_at",
]
FLAG = [
    "id",
    "org_id",
    "issue_id",
    "call_id",
    "type",
    "note",
    "node_id",
    "node_name",
    "message_index",
    "message_text",
    "author_id",
    "created_at",
]
RELATION = [
    "id",
    "org_id",
    "issue_id",
    "related_issue_id",
    "related_triage_id",
    "related_title",
    "relation_type",
    "direction",
    "created_by_id",
    "created_at",
]
ENTRY = [
    "entry_kind",
    "id",
    "issue_id",
    "type",
    "actor",
    "detail",
    "from_status",
    "to_status",
    "metadata",
    "resources",
    "referenced_issues",
    "created_at",
]
PATHWAY = ["pathway_id", "pathway_name", "pathway_version_id", "version_number", "version_label"]
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROOT = "/v1/triage/issues"


@pytest.fixture(scope="module")
def reader(cloud: Cloud) -> Client:
    """A caller with the call 987654321, who presents the key bare as this API has it."""
    reader = cloud.caller()
    assert reader.put("/v1/calls/987654321", {"agent_id": 12, "start_time": "2026-04-30T14:11:08Z"}).status == 201
    return reader


@pytest.fixture(scope="module")
def issue(reader: Client) -> dict[str, Any]:
    made = reader.post(ROOT, json.loads(SENT), headers={"authorization": reader.key})
    assert made.status == 201, made.text
    assert list(made.json()) == ["data", "errors"]
    assert made.json()["errors"] is None
    return dict(made.json()["data"])


def test_an_issue_has_the_published_23_keys_in_their_order(reader: Client, issue: dict[str, Any]) -> None:
    published = json.loads(PUBLISHED)["data"]
    assert list(issue) == list(published)
    assert len(issue) == 23
    decided_here = {"id", "org_id", "author_id", "created_at", "updated_at", "last_activity_at"}
    assert {key: issue[key] for key in published.keys() - decided_here} == {
        key: published[key] for key in published.keys() - decided_here
    }
    assert {key: type(issue[key]) for key in issue} == {key: type(published[key]) for key in published}
    assert str(uuid.UUID(issue["id"])) == issue["id"]
    assert INSTANT.fullmatch(issue["created_at"])
    assert issue["created_at"] == issue["updated_at"] == issue["last_activity_at"]


def test_only_title_severity_and_category_are_needed(reader: Client) -> None:
    made = reader.post(ROOT, {"title": "x", "severity": "low", "category": "My own"}).json()["data"]
    expected = {"description": "", "status": "todo", "source": "manual", "owner_id": None, "assignee_id": None}
    assert {key: made[key] for key in expected} == expected


@pytest.mark.parametrize("field", ["title", "severity", "category"])
def test_what_is_required_is_named_when_it_lacks(reader: Client, field: str) -> None:
    body = {"title": "x", "severity": "low", "category": "Bug"}
    del body[field]
    said = reader.post(ROOT, body)
    assert said.status == 400
    assert said.json() == {"data": None, "errors": [{"error": "bad_request", "message": f"{field}: Field required"}]}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("severity", ["critical", "high", "medium", "low"]),
        ("status", ["backlog", "todo", "in_progress", "in_review", "done", "closed"]),
        ("source", ["manual", "automated", "client"]),
    ],
)
def test_every_published_value_is_taken_and_no_other(reader: Client, field: str, values: list[str]) -> None:
    body = {"title": "x", "severity": "low", "category": "Bug"}
    for value in values:
        assert reader.post(ROOT, {**body, field: value}).json()["data"][field] == value
    assert reader.post(ROOT, {**body, field: "other"}).status == 400


@pytest.mark.parametrize(
    ("field", "fits", "does_not"),
    [
        ("title", "x" * 200, "x" * 201),
        ("category", "x" * 64, "x" * 65),
        ("description", "x" * 10_000, "x" * 10_001),
        ("title", "x", ""),
        ("category", "x", ""),
    ],
)
def test_texts_have_the_published_lengths(reader: Client, field: str, fits: str, does_not: str) -> None:
    body = {"title": "x", "severity": "low", "category": "Bug"}
    assert reader.post(ROOT, {**body, field: fits}).json()["data"][field] == fits
    said = reader.post(ROOT, {**body, field: does_not})
    assert said.status == 400
    assert said.json()["errors"][0]["message"].startswith(f"{field}: ")


def test_the_published_resource_links_are_taken(reader: Client) -> None:
    links = [
        {"resource_type": "call", "resource_id": "987654321"},
        {"resource_type": "file", "resource_id": "54eaa506-8b68-4be7-8d14-1ff260899eee"},
        {"resource_type": "sms_conversation", "resource_id": "s-1"},
    ]
    body = {"title": "x", "severity": "low", "category": "Bug", "resource_links": links}
    made = reader.post(ROOT, body).json()["data"]
    assert made["resource_count"] == 3
    items = reader.get(f"{ROOT}/{made['id']}/resources").json()["data"]["items"]
    assert [{key: item[key] for key in ("resource_type", "resource_id")} for item in items] == links
    assert [item["status"] for item in items] == ["available", "unavailable", "unavailable"]


def test_one_issue_is_the_created_object_again(reader: Client, issue: dict[str, Any]) -> None:
    assert reader.get(f"{ROOT}/{issue['id']}").json() == {"data": issue, "errors": None}


def test_a_list_is_items_and_a_next_cursor(reader: Client, issue: dict[str, Any]) -> None:
    reader.post(ROOT, {"title": "Another", "severity": "low", "category": "Bug"})
    page = reader.get(ROOT, limit=1, sort="created_at", order="asc").json()
    assert list(page) == ["data", "errors"]
    assert list(page["data"]) == ["items", "next_cursor"]
    assert isinstance(page["data"]["next_cursor"], str)
    assert list(page["data"]["items"][0]) == list(issue)


def test_what_hangs_on_an_issue_has_the_published_keys(reader: Client, issue: dict[str, Any]) -> None:
    root = f"{ROOT}/{issue['id']}"
    (link,) = reader.get(f"{root}/resources").json()["data"]["items"]
    assert list(link) == LINK
    assert link["metadata"] == {"created_at": "2026-04-30T14:11:08.000Z"}
    said = {"call_id": "987654321", "type": "Missed handoff", "note": "Agent transferred.", "message_index": 12}
    flag = reader.post(f"{root}/flags", said)
    assert (flag.status, list(flag.json()["data"])) == (201, FLAG)
    assert flag.json()["data"]["type"] == "missed_handoff"
    other = reader.post(ROOT, {"title": "Other", "severity": "low", "category": "Bug"}).json()["data"]
    body = {"related_issue_id": other["id"], "relation_type": "duplicate_of"}
    relation = reader.post(f"{root}/relations", body)
    assert (relation.status, list(relation.json()["data"])) == (201, RELATION)
    assert relation.json()["data"]["related_triage_id"] == other["triage_id"]
    comment = reader.post(f"{root}/comments", {"detail": "Pinged the on-call engineer."})
    assert (comment.status, list(comment.json()["data"])) == (201, ENTRY)
    assert list(comment.json()["data"]["actor"]) == ["kind", "id", "label", "avatar_url"]
    affected = reader.get(f"{root}/affected").json()["data"]
    assert list(affected) == ["issue_id", "calls", "pathways", "personas"]
    assert list(affected["calls"][0]) == [
        *("call_id", "title", "started_at"),
        *PATHWAY,
        *("persona_id", "persona_name"),
    ]
    assert list(affected["pathways"][0]) == [*PATHWAY, "call_count", "call_ids"]
    types = reader.get("/v1/triage/flag-types").json()["data"]["items"]
    assert list(types[0]) == ["type", "description", "usage_count", "last_used_at"]
    viewed = reader.put(f"{root}/view").json()["data"]
    assert list(viewed) == ["issue_id", "last_viewed_at"]


def test_the_categories_that_are_always_there_have_published_ids(reader: Client) -> None:
    items = reader.get("/v1/triage/categories").json()["data"]["items"]
    assert [item["name"] for item in items] == sorted(
        ["Transcription", "Speech", "Dialogue", "Routing", "Tools", "Latency", "Telephony", "Bug"]
    )
    assert all(item["id"] == f"built-in:{item['name'].lower()}" for item in items)
    assert list(items[0]) == ["id", "org_id", "name", "created_at"]
    assert reader.get("/v1/triage/categories", limit=3).json()["data"]["next_cursor"] == "Latency"


def test_a_deleted_issue_leaves_an_empty_answer_and_then_a_published_error(reader: Client) -> None:
    made = reader.post(ROOT, {"title": "x", "severity": "low", "category": "Bug"}).json()["data"]
    gone = reader("DELETE", f"{ROOT}/{made['id']}")
    assert (gone.status, gone.text) == (204, "")
    missing = {"data": None, "errors": [{"error": "not_found", "message": "Issue not found"}]}
    assert reader.get(f"{ROOT}/{made['id']}").json() == missing


def test_a_bad_key_is_told_in_the_words_of_this_api(cloud: Cloud) -> None:
    said = cloud.request("GET", ROOT, headers={"authorization": "nobody"})
    assert said.status == 401
    assert said.json() == {"data": None, "errors": [{"error": "AUTH_FAILURE", "message": "Unauthorized"}]}
