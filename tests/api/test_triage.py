"""Triage issues over HTTP: making, changing and deleting them, and what readers have seen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud import Client, Cloud
from fixloop.identity import Scope
from fixloop.storage.triage import issues
from fixloop.triage.activity import SYSTEM

ROOT = "/v1/triage/issues"
BODY = {"title": "Agent skipped the verification step", "severity": "high", "category": "Routing"}
Opened = Callable[..., dict[str, Any]]


@pytest.fixture
def opened(caller: Client) -> Opened:
    def make(**fields: Any) -> dict[str, Any]:
        made = caller.post(ROOT, {**BODY, **fields})
        assert made.status == 201, made.text
        return dict(made.json()["data"])

    return make


def entries(caller: Client, issue: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    return list(caller.get(f"{ROOT}/{issue['id']}/activity", **query).json()["data"]["items"])


def errors(answer: Any) -> list[dict[str, str]]:
    assert answer.json()["data"] is None
    return list(answer.json()["errors"])


def test_numbers_run_from_1001_in_each_organisation(cloud: Cloud, opened: Opened) -> None:
    assert [opened()["triage_id"] for _ in range(3)] == ["T-1001", "T-1002", "T-1003"]
    assert cloud.caller().post(ROOT, BODY).json()["data"]["number"] == 1001


def test_issues_made_at_the_same_time_have_different_numbers(caller: Client, opened: Opened) -> None:
    with ThreadPoolExecutor(12) as threads:
        numbers = list(threads.map(lambda at: opened(title=f"Issue {at}")["number"], range(60)))
    assert sorted(numbers) == list(range(1001, 1061))


def test_an_unknown_call_is_404_and_nothing_is_made(caller: Client, called: Callable[..., int]) -> None:
    known = called(17)
    for unknown in ("18", "not a number", "99999999999999999999"):
        links = [{"resource_type": "call", "resource_id": one} for one in (str(known), unknown)]
        said = caller.post(ROOT, {**BODY, "resource_links": links})
        assert said.status == 404
        assert errors(said) == [{"error": "not_found", "message": "Resource not found"}]
    assert caller.get(ROOT).json()["data"]["items"] == []


def test_a_call_of_another_organisation_is_unknown(cloud: Cloud, caller: Client) -> None:
    assert cloud.caller().put("/v1/calls/17", {}).status == 201
    links = [{"resource_type": "call", "resource_id": "17"}]
    assert caller.post(ROOT, {**BODY, "resource_links": links}).status == 404


def test_a_resource_named_twice_is_attached_once(opened: Opened, called: Callable[..., int]) -> None:
    links = [{"resource_type": "call", "resource_id": called(17)}] * 2
    assert opened(resource_links=links)["resource_count"] == 1


def test_more_links_than_one_transaction_takes_are_refused_naming_the_field(caller: Client) -> None:
    links = [{"resource_type": "file", "resource_id": str(at)} for at in range(41)]
    assert caller.post(ROOT, {**BODY, "resource_links": links[:40]}).json()["data"]["resource_count"] == 40
    said = caller.post(ROOT, {**BODY, "resource_links": links})
    assert said.status == 400
    assert errors(said)[0]["message"].startswith("resource_links: ")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"title": ""}, "title"),
        ({"title": 5}, "title"),
        ({"severity": "urgent"}, "severity"),
        ({"category": None}, "category"),
        ({"status": "open"}, "status"),
        ({"source": "robot"}, "source"),
        ({"description": ["x"]}, "description"),
        ({"owner_id": {}}, "owner_id"),
        ({"resource_links": "call"}, "resource_links"),
        ({"resource_links": [{"resource_type": "fax", "resource_id": "1"}]}, "resource_links.0.resource_type"),
        ({"resource_links": [{"resource_type": "call"}]}, "resource_links.0.resource_id"),
    ],
)
def test_a_bad_field_is_named(caller: Client, fields: dict[str, Any], named: str) -> None:
    said = caller.post(ROOT, {**BODY, **fields})
    assert said.status == 400
    ((code, message),) = [tuple(one.values()) for one in errors(said)]
    assert code == "bad_request"
    assert message.startswith(f"{named}: ")


def test_every_bad_field_is_named_at_once(caller: Client) -> None:
    message = errors(caller.post(ROOT, {"severity": "urgent"}))[0]["message"]
    assert all(name in message for name in ("title", "severity", "category"))


def test_a_patch_changes_what_it_names_and_says_so_in_the_timeline(caller: Client, opened: Opened) -> None:
    issue = opened(description="Before", assignee_id="user_9")
    fields = {"status": "in_progress", "severity": "critical", "category": "Tools", "assignee_id": None}
    answer = caller.patch(f"{ROOT}/{issue['id']}", {**fields, "owner_id": "user_3", "title": "After"})
    assert answer.status == 200
    changed = answer.json()["data"]
    moved = {"updated_at", "last_activity_at", "has_unread_activity"}
    assert {key for key in issue if issue[key] != changed[key]} - moved == {*fields, "owner_id", "title"}
    assert changed["description"] == "Before"
    assert [entry["type"] for entry in entries(caller, issue)] == [
        *("owner_changed", "assignee_changed", "category_changed", "severity_changed", "status_changed", "created")
    ]
    status = entries(caller, issue)[4]
    assert (status["from_status"], status["to_status"]) == ("todo", "in_progress")
    assert status["actor"]["kind"] == "user"


def test_a_patch_that_changes_nothing_is_no_activity(caller: Client, opened: Opened) -> None:
    issue = opened()
    for body in ({}, {"status": "todo"}, {"source": "client", "unknown": 1}, {"owner_id": None}):
        answer = caller.patch(f"{ROOT}/{issue['id']}", body)
        assert (answer.status, answer.json()["data"]) == (200, issue)


@pytest.mark.parametrize("field", ["title", "description", "status", "severity", "category"])
def test_only_owner_and_assignee_can_be_null(caller: Client, opened: Opened, field: str) -> None:
    said = caller.patch(f"{ROOT}/{opened()['id']}", {field: None})
    assert said.status == 400
    assert errors(said)[0]["message"] == f"{field}: must not be null"


def test_patches_of_different_fields_at_the_same_time_are_all_kept(caller: Client, opened: Opened) -> None:
    issue = opened()
    fields = {"title": "T", "description": "D", "status": "done", "severity": "low", "category": "C"}
    fields |= {"owner_id": "user_1", "assignee_id": "user_2"}

    def patch(name: str) -> None:
        issues.patch(caller.org, issue["id"], {name: fields[name]}, SYSTEM, 1)

    with ThreadPoolExecutor(7) as threads:
        list(threads.map(patch, fields))
    now = caller.get(f"{ROOT}/{issue['id']}").json()["data"]
    assert {name: now[name] for name in fields} == fields
    assert len(entries(caller, issue)) == 6


def test_unread_is_what_happened_since_this_reader_looked(cloud: Cloud, caller: Client, opened: Opened) -> None:
    other = cloud.caller(caller.org)
    issue = opened()
    path = f"{ROOT}/{issue['id']}"

    def unread(reader: Client) -> bool:
        shown = reader.get(path).json()["data"]["has_unread_activity"]
        (listed,) = reader.get(ROOT).json()["data"]["items"]
        assert listed["has_unread_activity"] == shown
        return bool(shown)

    assert not unread(caller)
    assert unread(other)
    assert caller.patch(path, {"status": "done"}).json()["data"]["has_unread_activity"] is True
    assert caller.put(f"{path}/view").json()["data"]["issue_id"] == issue["id"]
    assert not unread(caller)
    assert unread(other)
    other.put(f"{path}/view")
    assert not unread(other)
    caller.post(f"{path}/comments", {"detail": "Look again"})
    assert unread(caller)
    assert unread(other)


def test_a_view_does_not_move_the_issue(caller: Client, opened: Opened) -> None:
    issue = opened()
    caller.put(f"{ROOT}/{issue['id']}/view")
    assert caller.get(f"{ROOT}/{issue['id']}").json()["data"] == issue


def test_a_deleted_issue_takes_with_it_what_hung_on_it(caller: Client, opened: Opened, called: Any) -> None:
    link = {"resource_type": "call", "resource_id": called(17)}
    issue, kept = opened(resource_links=[link]), opened(resource_links=[link])
    path = f"{ROOT}/{issue['id']}"
    for one in (issue, kept):
        caller.post(f"{ROOT}/{one['id']}/flags", {"call_id": "17", "type": "late"})
    caller.post(f"{path}/relations", {"related_issue_id": kept["id"], "relation_type": "blocks"})
    caller.post(f"{ROOT}/{kept['id']}/relations", {"related_issue_id": issue["id"], "relation_type": "related_to"})
    caller.post(f"{path}/comments", {"detail": "x"})
    assert caller("DELETE", path).status == 204
    for below in ("", "/resources", "/flags", "/relations", "/activity", "/affected"):
        assert caller.get(path + below).status == 404
    now = caller.get(f"{ROOT}/{kept['id']}").json()["data"]
    assert (now["relation_count"], now["flag_count"], now["resource_count"]) == (0, 1, 1)
    assert caller.get(f"{ROOT}/{kept['id']}/relations").json()["data"]["items"] == []
    assert caller.get("/v1/triage/flag-types").json()["data"]["items"][0]["usage_count"] == 1
    assert [item["id"] for item in caller.get(ROOT).json()["data"]["items"]] == [kept["id"]]
    assert caller.get("/v1/calls/17").status == 200
    assert caller("DELETE", path).status == 404


def test_an_issue_with_more_than_fits_a_transaction_is_deleted_all_the_same(
    caller: Client, opened: Opened, called: Any
) -> None:
    issue = opened(resource_links=[{"resource_type": "call", "resource_id": called(17)}])
    path = f"{ROOT}/{issue['id']}"
    others = [opened(title=f"Other {at}") for at in range(18)]
    for other in others:
        caller.post(f"{path}/relations", {"related_issue_id": other["id"], "relation_type": "blocks"})
    for at in range(33):
        assert caller.post(f"{path}/flags", {"call_id": "17", "type": f"type {at}"}).status == 201
    assert caller("DELETE", path).status == 204
    assert {item["relation_count"] for item in caller.get(ROOT).json()["data"]["items"]} == {0}
    types = caller.get("/v1/triage/flag-types", limit=100).json()["data"]["items"]
    assert [item["usage_count"] for item in types] == [0] * 33


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("issue_id", ["T-1001", "68007859-4325-4ea2-bbd6-e7c8be3a233a", "%00", "x" * 300])
def test_what_is_not_there_is_404(caller: Client, opened: Opened, method: str, issue_id: str) -> None:
    opened()
    said = caller(method, f"{ROOT}/{issue_id}", {} if method == "PATCH" else None)
    assert said.status == 404
    assert errors(said) == [{"error": "not_found", "message": "Issue not found"}]


def test_another_organisation_sees_nothing_of_it(cloud: Cloud, opened: Opened) -> None:
    path = f"{ROOT}/{opened()['id']}"
    stranger = cloud.caller()
    assert stranger.get(path).status == 404
    assert stranger.patch(path, {"title": "Mine"}).status == 404
    assert stranger("DELETE", path).status == 404
    assert stranger.put(f"{path}/view").status == 404
    assert stranger.get(ROOT).json()["data"]["items"] == []


def test_a_read_key_reads_and_writes_nothing(cloud: Cloud, caller: Client, opened: Opened) -> None:
    path = f"{ROOT}/{opened()['id']}"
    reader = cloud.caller(caller.org, scope=Scope.READ)
    assert reader.get(path).status == reader.get(ROOT).status == 200
    for answer in (reader.post(ROOT, BODY), reader.patch(path, {}), reader("DELETE", path), reader.put(f"{path}/view")):
        assert answer.status == 403
        assert errors(answer)[0]["error"] == "forbidden"


def test_a_method_that_is_not_served_is_405_in_this_dialect(caller: Client) -> None:
    said = caller.put(ROOT, {})
    assert said.status == 405
    assert errors(said)[0]["error"] == "method_not_allowed"
    assert errors(caller.get("/v1/triage/nothing"))[0]["error"] == "not_found"


def test_a_repeat_with_the_same_idempotency_key_makes_one_issue(caller: Client) -> None:
    headers = {"Idempotency-Key": "one"}
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: caller.post(ROOT, BODY, headers=headers), range(6)))
    made = [answer for answer in answers if answer.status == 201]
    assert made
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.json()["data"]["id"] for answer in made}) == 1
    assert len(caller.get(ROOT).json()["data"]["items"]) == 1
    assert caller.post(ROOT, {**BODY, "title": "Another"}, headers=headers).status == 409


def test_every_post_is_done_once_for_an_idempotency_key(caller: Client, opened: Opened, called: Any) -> None:
    issue, other = opened(resource_links=[{"resource_type": "call", "resource_id": called(17)}]), opened()
    bodies: dict[str, Any] = {
        "resources": {"resource_type": "file", "resource_id": "f"},
        "flags": {"call_id": "17", "type": "late"},
        "relations": {"related_issue_id": other["id"], "relation_type": "blocks"},
        "comments": {"detail": "Once"},
    }
    for at, (name, body) in enumerate(bodies.items()):
        headers = {"Idempotency-Key": f"key {at}"}
        first, second = (caller.post(f"{ROOT}/{issue['id']}/{name}", body, headers=headers) for _ in range(2))
        assert (first.status, first.json()) == (second.status, second.json())
        assert first.status == 201
        assert second.headers["Idempotency-Replayed"] == "true"
    now = caller.get(f"{ROOT}/{issue['id']}").json()["data"]
    assert (now["resource_count"], now["flag_count"], now["relation_count"]) == (2, 1, 1)
    assert [entry["type"] for entry in entries(caller, issue)].count("comment") == 1


def test_a_long_description_is_kept_whole_and_found_by_its_last_word(caller: Client, opened: Opened) -> None:
    text = " ".join(f"word{at}" for at in range(900)) + " needle"
    issue = opened(description=text)
    assert caller.get(f"{ROOT}/{issue['id']}").json()["data"]["description"] == text
    for word in ("needle", "word899", "verification"):
        assert [one["id"] for one in caller.get(ROOT, search=word).json()["data"]["items"]] == [issue["id"]]
    caller.patch(f"{ROOT}/{issue['id']}", {"description": "Short"})
    assert caller.get(ROOT, search="needle").json()["data"]["items"] == []
    assert len(caller.get(ROOT, search="short").json()["data"]["items"]) == 1
