"""Whatever is sent to triage, the answer is a refusal in its dialect or the content is kept; never a server error."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud import Answer, Client, Cloud

ROOT = "/v1/triage/issues"
FUZZ = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LIKELY = VALUES | st.sampled_from(["high", "todo", "call", "17", "blocks", "late", 17, "x" * 300, "\x00", "😀"])
FIELDS = ["title", "severity", "category", "description", "status", "source", "owner_id", "assignee_id"]
FIELDS += ["resource_links", "resource_type", "resource_id", "call_id", "type", "note", "message_index", "detail"]
FIELDS += ["related_issue_id", "relation_type", "name", "resource_link_ids"]


def checked(answer: Answer) -> Answer:
    assert answer.status < 500, answer.text
    if answer.status == 204:
        return answer
    body = json.loads(answer.text)
    assert list(body) == ["data", "errors"]
    if answer.status >= 400:
        assert body["data"] is None
        assert all(error["error"] and error["message"] for error in body["errors"])
    else:
        assert body["errors"] is None
    return answer


@pytest.fixture(scope="module")
def sender(cloud: Cloud) -> Client:
    sender = cloud.caller()
    sender.put("/v1/calls/17", {})
    return sender


@pytest.fixture(scope="module")
def issue(sender: Client) -> str:
    links = [{"resource_type": "call", "resource_id": "17"}]
    body = {"title": "x", "severity": "low", "category": "Bug", "resource_links": links}
    return str(sender.post(ROOT, body).json()["data"]["id"])


WRITES = [
    ("POST", ""),
    ("PATCH", "/{id}"),
    ("POST", "/{id}/resources"),
    ("POST", "/{id}/flags"),
    ("POST", "/{id}/relations"),
    ("POST", "/{id}/comments"),
    ("POST", "/{id}/agent-sessions/x/prompts"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("body", ["", "not json", "[]", "null", "5", '"x"', "NaN", "{", '{"title": "\\ud800"}', "\x00"])
def test_a_body_that_is_no_json_object_is_refused(
    sender: Client, issue: str, method: str, path: str, body: str
) -> None:
    answer = checked(sender(method, ROOT + path.format(id=issue), body=body))
    assert answer.status == (200 if (method, body) == ("PATCH", "") else 400)


@FUZZ
@given(where=st.sampled_from(WRITES), body=st.dictionaries(st.sampled_from(FIELDS), LIKELY, max_size=8))
def test_no_body_is_a_server_error(sender: Client, issue: str, where: tuple[str, str], body: dict[str, Any]) -> None:
    checked(sender(where[0], ROOT + where[1].format(id=issue), body=json.dumps(body)))


@FUZZ
@given(
    title=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    description=st.text(st.characters(codec="utf-8"), max_size=300),
    category=st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
)
def test_any_text_is_kept_as_it_came_and_found_by_its_category(
    sender: Client, title: str, description: str, category: str
) -> None:
    body = {"title": title, "description": description, "category": category, "severity": "low"}
    made = checked(sender.post(ROOT, body))
    assert made.status == 201
    shown = made.json()["data"]
    assert {name: shown[name] for name in body} == body
    query = urlencode({"category": category, "sort": "created_at", "limit": 100})
    assert shown["id"] in [one["id"] for one in checked(sender("GET", f"{ROOT}?{query}")).json()["data"]["items"]]
    assert checked(sender.patch(f"{ROOT}/{shown['id']}", {"title": "Other", "description": ""})).status == 200
    assert checked(sender("DELETE", f"{ROOT}/{shown['id']}")).status == 204


NAMES = ["limit", "cursor", "sort", "order", "search", "status", "severity", "category", "resource_type", "owner_id"]
NAMES += ["assignee_id", "date_field", "date_range", "x"]
WORDS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["todo", "high", "asc", "24h", "created_at", "call", "1", "a#b", "\x00", "user_1", "e30", "eyJzIjoxfQ"]
)


@FUZZ
@given(query=st.lists(st.tuples(st.sampled_from(NAMES), WORDS), max_size=6))
def test_no_query_is_a_server_error(sender: Client, issue: str, query: list[tuple[str, str]]) -> None:
    for path in (ROOT, f"{ROOT}/{issue}/activity", "/v1/triage/categories", "/v1/triage/flag-types"):
        checked(sender("GET", f"{path}?{urlencode(query)}"))


@FUZZ
@given(parts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=3))
def test_no_path_is_a_server_error(sender: Client, issue: str, parts: list[str]) -> None:
    rest = "/".join(map(quote, parts))
    for method, root in (
        ("GET", ROOT),
        ("DELETE", f"{ROOT}/{issue}/flags"),
        ("DELETE", f"{ROOT}/{issue}/relations"),
        ("DELETE", f"{ROOT}/{issue}/resources"),
        ("PUT", f"{ROOT}/{issue}/calls"),
        ("GET", f"/v1/triage/{rest}"),
    ):
        checked(sender(method, f"{root}/{rest}".replace("\n", "").replace("\r", "").replace("\t", "")))
