"""App issues over HTTP: filing, filtering, paging, changing, deleting, and who may do what."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud import Client, Cloud
from fixloop.app_issues import AppIssueIn, AppIssuePatch, AppIssueQuery
from fixloop.identity import Scope, User
from fixloop.storage import app_issues

PATH = "/api/v1/app/issue"
SAID = {"description": "Response missed the policy.", "resource_type": "Thread", "type": "NoContextUsed"}
MINUTE = 60


def file(caller: Client, **content: Any) -> dict[str, Any]:
    made = caller.post(PATH, {**SAID, **content})
    assert made.status == 200, made.text
    return dict(made.json())


def listed(caller: Client, **query: Any) -> list[int]:
    """The numbers of the issues on a page."""
    answer = caller.get(PATH, **query)
    assert answer.status == 200, answer.text
    return [issue["issue_number"] for issue in answer.json()["data"]]


def member(cloud: Cloud, org: str, user: int, *roles: str, scope: Scope = Scope.WRITE) -> Client:
    return cloud.caller(org, user=User(id=user, name=f"User {user}", roles=list(roles), created_at=1), scope=scope)


# Filing


def test_issues_are_numbered_from_one_in_each_organisation(cloud: Cloud, caller: Client) -> None:
    assert [file(caller)["issue_number"] for _ in range(3)] == [1, 2, 3]
    assert file(cloud.caller())["issue_number"] == 1


def test_parallel_creation_gives_every_issue_a_number_of_its_own(caller: Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: file(caller), range(40)))
    assert len({issue["issue_number"] for issue in made}) == len({issue["id"] for issue in made}) == 40
    page = caller.get(PATH, page_size=100).json()
    assert page["total_count"] == 40
    assert [issue["issue_number"] for issue in page["data"]] == sorted(
        (one["issue_number"] for one in made), reverse=True
    )


def test_unknown_fields_are_ignored_and_null_is_as_good_as_nothing(caller: Client) -> None:
    made = file(caller, config=None, project_id=None, description=None, colour="blue", state="Closed")
    assert (made["description"], made["state"]) == ("", "NotReviewed")
    assert "data" not in made


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"type": "Rude"}, "type"),
        ({"resource_type": "Project"}, "resource_type"),
        ({"anonymous": 1}, "anonymous"),
        ({"config": {"reported_interaction_id": "i"}}, "config.thread_id"),
        ({"description": ["x"]}, "description"),
    ],
)
def test_a_bad_issue_is_refused_naming_the_field_and_leaves_nothing(
    caller: Client, content: dict[str, Any], field: str
) -> None:
    refused = caller.post(PATH, {**SAID, **content})
    assert refused.status == 400
    assert refused.json()["message"].startswith(f"{field}: ")
    assert caller.get(PATH).json()["total_count"] == 0


@pytest.mark.parametrize("body", ["", "[]", "{", "null", '{"type": NaN}'])
def test_a_body_that_is_no_object_is_refused(caller: Client, body: str) -> None:
    issue = file(caller)
    for method, path in (("POST", PATH), ("PUT", f"{PATH}/{issue['id']}"), ("PATCH", f"{PATH}/{issue['id']}")):
        answer = caller(method, path, body=body)
        assert (answer.status, list(answer.json())) == (400, ["message"])


def test_under_one_idempotency_key_one_issue_is_filed(caller: Client) -> None:
    def post(said: dict[str, Any]) -> Any:
        return caller.post(PATH, said, headers={"idempotency-key": "k1"})

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: post(SAID), range(6)))
    assert len({answer.text for answer in answers if answer.status == 200}) == 1
    assert {answer.status for answer in answers} <= {200, 409}
    assert post(SAID).headers["Idempotency-Replayed"] == "true"
    assert post({**SAID, "type": "Other"}).status == 409
    assert caller.get(PATH).json()["total_count"] == 1


# Lists


def test_every_filter_alone_and_together_has_its_page_and_its_total(cloud: Cloud, caller: Client, clock: Any) -> None:
    ann, bob = (member(cloud, caller.org, user, "AppAdmin") for user in (11, 12))
    start = int(clock.now) * 1000
    kinds = ["NoAnswer", "Inaccurate", "Format"]
    for at in range(12):
        clock.now += MINUTE
        file(
            (ann, bob)[at % 2],
            type=kinds[at % 3],
            description=f"Missed the {('Policy', 'price')[at % 4 == 0]} of {at}",
            project_id=f"proj_{at % 3}",
            anonymous=at == 5,
        )
    ids = {issue["issue_number"]: issue["id"] for issue in caller.get(PATH).json()["data"]}
    for number, state in ((1, "InReview"), (2, "Closed"), (3, "Deleted")):
        assert caller.patch(f"{PATH}/{ids[number]}", {"state": state}).status == 200
    shown = [number for number in range(12, 0, -1) if number != 3]
    minute = {number: start + number * MINUTE * 1000 for number in range(1, 13)}
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({}, shown),
        ({"states": "Deleted"}, [3]),
        ({"states": "InReview,Closed"}, [2, 1]),
        ({"states": ["InReview", "Closed"]}, [2, 1]),
        ({"states": "NotReviewed,InReview,Closed,Deleted"}, list(range(12, 0, -1))),
        ({"type": "NoAnswer"}, [10, 7, 4, 1]),
        ({"type": "NoAnswer,Format", "states": "NotReviewed"}, [12, 10, 9, 7, 6, 4]),
        ({"start_date": minute[4], "end_date": minute[6]}, [6, 5, 4]),
        ({"end_date": minute[2] - 1}, [1]),
        ({"start_date": minute[12] + 1000}, []),
        ({"created_by": "user_11"}, [11, 9, 7, 5, 1]),
        ({"created_by": "user_12"}, [12, 10, 8, 4, 2]),
        ({"created_by": "user_11,user_12"}, [number for number in shown if number != 6]),
        ({"created_by": "user_99"}, []),
        ({"projects": "proj_0"}, [10, 7, 4, 1]),
        ({"projects": "proj_0,proj_1"}, [11, 10, 8, 7, 5, 4, 2, 1]),
        ({"projects": "proj_0", "created_by": "user_11"}, [7, 1]),
        ({"filter_by_text": "PRICE"}, [9, 5, 1]),
        ({"filter_by_text": "of 1", "created_by": "user_12"}, [12, 2]),
        ({"filter_by_text": "policy", "type": "Format", "start_date": minute[7]}, [12]),
        ({"page_order": "ASC"}, shown[::-1]),
        ({"page_order": "ASC", "filter_by_text": "price"}, [1, 5, 9]),
        ({"colour": "blue", "total_count": "false"}, shown),
    ]
    for query, numbers in wanted:
        page = caller.get(PATH, **query).json()
        assert [issue["issue_number"] for issue in page["data"]] == numbers, query
        assert (page["total_count"], page["has_next_page"], page["has_previous_page"]) == (len(numbers), False, False)
        half = caller.get(PATH, page=2, page_size=2, **query).json()
        assert [issue["issue_number"] for issue in half["data"]] == numbers[2:4], query
        flags = (len(numbers), len(numbers) > 4, len(numbers) > 0)
        assert (half["total_count"], half["has_next_page"], half["has_previous_page"]) == flags


def test_a_list_is_walked_by_the_ids_on_it_in_both_directions_and_orders(caller: Client, clock: Any) -> None:
    """Some issues have one instant in common: then their numbers tell which is newer."""
    for at in range(9):
        clock.now += MINUTE * (at % 3 == 0)
        file(caller, type=("Format", "Other")[at % 2], description=f"number {at % 3}")
    ids = {issue["issue_number"]: issue["id"] for issue in caller.get(PATH).json()["data"]}
    caller("DELETE", f"{PATH}/{ids[5]}")
    for query in (
        {},
        {"type": "Format"},
        {"page_order": "ASC"},
        {"filter_by_text": "number"},
        {"created_by": "user_1"},
    ):
        whole = listed(caller, **query)
        assert len(whole) >= 4
        walked: list[int] = []
        while True:
            behind = {"after": ids[walked[-1]]} if walked else {}
            page = caller.get(PATH, page_size=3, **query, **behind).json()
            walked += [issue["issue_number"] for issue in page["data"]]
            assert page["total_count"] == len(whole)
            assert page["has_previous_page"] == (bool(behind))
            if not page["has_next_page"]:
                break
        assert walked == whole
        assert listed(caller, page_size=2, before=ids[whole[-1]], **query) == whole[-3:-1]
        assert listed(caller, page_size=2, before=ids[whole[1]], **query) == whole[:1]
        first = caller.get(PATH, before=ids[whole[0]], **query).json()
        assert (first["data"], first["has_next_page"], first["has_previous_page"]) == ([], True, False)
    assert listed(caller, after=ids[5]) == [4, 3, 2, 1]
    assert listed(caller, before=ids[5], states="Deleted") == []


def test_a_cursor_has_to_be_an_issue_of_the_organisation(cloud: Cloud, caller: Client) -> None:
    theirs = file(cloud.caller())["id"]
    file(caller)
    for name in ("after", "before"):
        for cursor in (theirs, "issue_5c4b3a2d1e0f9a8b", "2", "eyJwYWdlIjoyfQ"):
            refused = caller.get(PATH, **{name: cursor})
            assert (refused.status, refused.json()["message"].partition(":")[0]) == (400, name)


def test_projects_are_shown_where_they_are_asked_for(caller: Client) -> None:
    file(caller, project_id="proj_7a5c3e1b9d2f4a6c")
    (plain,) = caller.get(PATH, include="User").json()["data"]
    (whole,) = caller.get(PATH, include="User,Project").json()["data"]
    assert "project" not in plain
    assert whole["project"]["id"] == "proj_7a5c3e1b9d2f4a6c"
    assert plain["created_by"] == whole["created_by"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"page": 0}, "page"),
        ({"page": "x"}, "page"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"states": "Open"}, "states"),
        ({"type": "Format,Rude"}, "type"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"start_date": 5001, "end_date": 4000}, "end_date"),
        ({"page_order": "up"}, "page_order"),
        ({"include": "Everything"}, "include"),
    ],
)
def test_a_bad_query_is_refused_naming_the_parameter(caller: Client, query: dict[str, Any], field: str) -> None:
    refused = caller.get(PATH, **query)
    assert refused.status == 400
    assert refused.json()["message"].startswith(field)


def test_a_page_has_at_most_100_and_20_unless_said_otherwise(caller: Client) -> None:
    for _ in range(70):
        file(caller)
    first = caller.get(PATH).json()
    assert (len(first["data"]), first["has_next_page"], first["total_count"]) == (20, True, 70)
    assert listed(caller, page=4) == list(range(10, 0, -1))
    assert len(listed(caller, page_size=100)) == 70
    assert listed(caller, page=2, page_size=60, page_order="ASC") == list(range(61, 71))


def test_what_would_have_to_be_looked_at_is_bounded(caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_issues, "MAX_LOOKED_AT", 3)
    for at in range(4):
        file(caller, type=("Format", "Other")[at == 0], project_id="p1")
    refused = caller.get(PATH, filter_by_text="policy")
    assert (refused.status, refused.json()["message"].partition(":")[0]) == (400, "filter_by_text")
    assert caller.get(PATH, created_by="user_1", projects="p1").json()["message"].startswith("created_by: more than 3")
    assert listed(caller, filter_by_text="policy", type="Format") == [4, 3, 2]
    assert listed(caller, created_by="user_1") == [4, 3, 2, 1]


# Changing


def test_a_patch_changes_what_it_names_and_a_put_marks_as_unread_too(caller: Client, clock: Any) -> None:
    issue = file(caller)
    path = f"{PATH}/{issue['id']}"
    clock.now += MINUTE
    patched = caller.patch(path, {"state": "InReview", "is_read": True}).json()
    assert {key for key in issue if patched[key] != issue[key]} == {"state", "is_read", "updated_at"}
    assert caller.patch(path, {"description": "Other words"}).json()["is_read"] is True
    put = caller.put(path, {"type": "Other"}).json()
    assert (put["type"], put["is_read"], put["state"]) == ("Other", False, "InReview")
    assert put["description"] == "Other words"
    assert caller.get(path).json() == put


def test_a_change_that_changes_nothing_leaves_the_time_alone(caller: Client, clock: Any) -> None:
    issue = file(caller)
    clock.now += MINUTE
    for body in ({}, {"state": "NotReviewed"}, {"is_read": False, "type": SAID["type"]}):
        assert caller.patch(f"{PATH}/{issue['id']}", body).json() == issue
        assert caller.put(f"{PATH}/{issue['id']}", body).json() == issue


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    "body", [{"state": "Open"}, {"state": None}, {"type": ""}, {"is_read": "no"}, {"description": 1}]
)
def test_a_bad_change_is_refused_naming_the_field_and_changes_nothing(
    caller: Client, method: str, body: dict[str, Any]
) -> None:
    issue = file(caller)
    refused = caller(method, f"{PATH}/{issue['id']}", {"is_read": True, **body})
    assert refused.status == 400
    assert refused.json()["message"].startswith(next(iter(body)))
    assert caller.get(f"{PATH}/{issue['id']}").json() == issue


def test_changes_of_different_fields_at_the_same_time_all_arrive(caller: Client) -> None:
    path = f"{PATH}/{file(caller)['id']}"
    wanted: dict[str, Any] = {"description": "New", "type": "Format", "state": "Closed", "is_read": True}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda field: caller.patch(path, dict([field])), wanted.items()))
    assert [answer.status for answer in answers] == [200] * 4
    assert {key: caller.get(path).json()[key] for key in wanted} == wanted
    assert caller.get(PATH, type="Format", states="Closed").json()["total_count"] == 1
    assert caller.get(PATH).json()["total_count"] == 1


def test_any_state_may_follow_any_but_deleted_ends(caller: Client) -> None:
    path = f"{PATH}/{file(caller)['id']}"
    for state in ("Closed", "NotReviewed", "InReview", "NotReviewed", "Deleted"):
        assert caller.patch(path, {"state": state}).json()["state"] == state
    assert caller.patch(path, {"state": "NotReviewed"}).status == 404


# Deleting


def test_a_deleted_issue_is_gone_but_for_those_who_ask_for_deleted_ones(caller: Client) -> None:
    kept, gone = file(caller), file(caller)
    path = f"{PATH}/{gone['id']}"
    assert caller("DELETE", path).status == 204
    for method, body in (("GET", None), ("PUT", {}), ("PATCH", {}), ("DELETE", None)):
        answer = caller(method, path, body)
        assert (answer.status, answer.json()) == (404, {"message": f"Issue {gone['id']} not found"})
    assert caller.get(PATH).json()["data"] == [kept]
    (listed,) = caller.get(PATH, states="Deleted").json()["data"]
    assert (listed["id"], listed["state"]) == (gone["id"], "Deleted")


def test_of_deletions_at_the_same_time_one_counts(caller: Client) -> None:
    path = f"{PATH}/{file(caller)['id']}"
    file(caller)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: caller("DELETE", path), range(6)))
    assert {answer.status for answer in answers} == {204, 404} or {answer.status for answer in answers} == {204}
    assert caller.get(PATH).json()["total_count"] == 1
    assert caller.get(PATH, states="Deleted").json()["total_count"] == 1


def test_totals_are_exact_whoever_files_changes_and_deletes_meanwhile(caller: Client) -> None:
    """More than a chunk of issues, so that some move between leaves after they were counted into cells."""
    made = [file(caller, type=("Format", "Other")[at % 2]) for at in range(70)]

    def act(at: int) -> int:
        path = f"{PATH}/{made[at]['id']}"
        match at % 4:
            case 0:
                return caller("DELETE", path).status
            case 1:
                return caller.patch(path, {"state": "Closed"}).status
            case 2:
                return caller.put(path, {"type": "Inaccurate", "is_read": True}).status
        return file(caller, type="NoAnswer") and 200

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(act, range(40))) <= {200, 204}
    totals = {
        "NoAnswer": 10,
        "Inaccurate": 10,
        "Format": 35 - 20,
        "Other": 35,
    }
    assert {kind: caller.get(PATH, type=kind).json()["total_count"] for kind in totals} == totals
    assert caller.get(PATH, states="Closed").json()["total_count"] == 10
    assert caller.get(PATH, states="Deleted").json()["total_count"] == 10
    assert caller.get(PATH, created_by="user_1").json()["total_count"] == 70
    assert len({number for page in range(1, 6) for number in listed(caller, page=page)}) == 70


# Anything at all

FUZZ = settings(
    max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["Thread", "Other", "Closed"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=8), SCALARS, max_size=3)
BODY = st.dictionaries(st.sampled_from([*AppIssueIn.model_fields, *AppIssuePatch.model_fields]), VALUES)
WORDS = SCALARS.map(str).filter(lambda text: text.isprintable()) | st.sampled_from(
    ["1,2", ",", "2026-02-08", "-1", "9" * 40]
)
QUERY = st.dictionaries(st.sampled_from(list(AppIssueQuery.model_fields)), WORDS, max_size=4)


@FUZZ
@given(body=BODY, method=st.sampled_from(["POST", "PUT", "PATCH"]))
def test_no_body_is_a_server_error_and_none_is_half_taken(cloud: Cloud, body: dict[str, Any], method: str) -> None:
    caller = cloud.caller()
    issue = file(caller)
    answer = caller(method, PATH if method == "POST" else f"{PATH}/{issue['id']}", body)
    assert answer.status in (200, 400), answer.text
    total = caller.get(PATH, states="NotReviewed,InReview,Closed,Deleted").json()["total_count"]
    assert total == (2 if method == "POST" and answer.status == 200 else 1)
    if answer.status == 200:
        taken = (AppIssueIn if method == "POST" else AppIssuePatch).model_fields.keys() & answer.json().keys()
        said = {name: value for name, value in body.items() if name in taken and value is not None}
        assert {name: answer.json()[name] for name in said} == said
    elif method != "POST":
        assert caller.get(f"{PATH}/{issue['id']}").json() == issue


@FUZZ
@given(query=QUERY)
def test_no_query_is_a_server_error(caller: Client, query: dict[str, str]) -> None:
    answer = caller.get(PATH, **query)
    assert answer.status in (200, 400), answer.text
    if answer.status == 400:
        assert answer.json()["message"].partition(":")[0].partition(".")[0] in query


# Who


def test_an_anonymous_issue_hides_its_author_from_every_reader_who_can_change_it_still(
    cloud: Cloud, caller: Client
) -> None:
    author = member(cloud, caller.org, 21, "AppMember")
    issue = file(author, anonymous=True, description="Found by somebody")
    path = f"{PATH}/{issue['id']}"
    for reader in (author, caller, member(cloud, caller.org, 21, "AppOwner", scope=Scope.ADMIN)):
        for shown in (reader.get(path).json(), *reader.get(PATH, include="User").json()["data"]):
            assert shown == issue
            assert "created_by" not in shown
        assert listed(reader, created_by="user_21") == []
        assert listed(reader, created_by="user_21", filter_by_text="found") == []
    changed = author.patch(path, {"description": "Found"})
    assert changed.status == 200
    assert "created_by" not in changed.json()
    assert author("DELETE", path).status == 204


def test_members_change_their_own_issues_and_admins_all(cloud: Cloud, caller: Client) -> None:
    author, other = (member(cloud, caller.org, user, "AppMember") for user in (31, 32))
    path = f"{PATH}/{file(author)['id']}"
    for method, body in (("PUT", {"state": "Closed"}), ("PATCH", {"is_read": True}), ("DELETE", None)):
        refused = other(method, path, body)
        assert (refused.status, list(refused.json())) == (403, ["message"])
    assert other.get(path).status == 200
    assert author.patch(path, {"type": "Other"}).status == 200
    assert caller.put(path, {"state": "InReview", "is_read": True}).status == 200
    assert other.cloud.caller(caller.org, user=User(id=31, roles=["AppGuest"]))("DELETE", path).status == 204


def test_a_read_key_reads_and_no_more(cloud: Cloud, caller: Client) -> None:
    issue = file(caller)
    reader = member(cloud, caller.org, 1, "AppAdmin", scope=Scope.READ)
    assert reader.get(f"{PATH}/{issue['id']}").json() == issue
    calls: list[tuple[str, str, Any]] = [("POST", PATH, SAID)]
    calls += [(method, f"{PATH}/{issue['id']}", {}) for method in ("PUT", "PATCH", "DELETE")]
    for method, path, body in calls:
        assert reader(method, path, body).status == 403
    assert caller.get(PATH).json()["data"] == [issue]


def test_another_organisations_issue_is_not_found(cloud: Cloud, caller: Client) -> None:
    issue = file(caller)
    stranger = cloud.caller()
    file(stranger)
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        assert stranger(method, f"{PATH}/{issue['id']}", None if method == "GET" else {}).status == 404
    assert issue not in stranger.get(PATH).json()["data"]
    assert caller.get(f"{PATH}/{issue['id']}").json() == issue


def test_x_org_may_name_the_keys_organisation_and_no_other(cloud: Cloud) -> None:
    caller = cloud.caller(cloud.org("Aurora Labs"))
    issue = file(caller)
    for named in (caller.org, "aurora-labs", ""):
        assert caller("GET", PATH, headers={"X-Org": named}).json()["data"] == [issue]
    other = cloud.caller(cloud.org("Borealis"))
    for named in ("borealis", other.org, "aurora", "../x"):
        calls: list[tuple[str, str, Any]] = [("GET", PATH, None), ("POST", PATH, SAID)]
        calls += [(method, f"{PATH}/{issue['id']}", {}) for method in ("GET", "PUT", "PATCH", "DELETE")]
        for method, path, body in calls:
            refused = caller(method, path, body, headers={"x-org": named})
            assert (refused.status, list(refused.json())) == (403, ["message"])
    assert caller.get(PATH).json()["total_count"] == 1


@pytest.mark.parametrize(
    "part", ["issue_1", "ISSUE_5c4b3a2d1e0f9a8b", "%00", "é", "a b", "issue_" + "f" * 16, "1", ".."]
)
def test_what_is_no_issue_is_not_found(caller: Client, part: str) -> None:
    assert caller.get(f"{PATH}/{part}").status == 404


# The loop


def test_a_created_issue_is_an_event_once_and_a_changed_one_is_none(cloud: Cloud, caller: Client, quiet: None) -> None:
    seen = events(cloud, caller)
    config = {"thread_id": "thread_1", "reported_interaction_id": "interaction_1"}
    issue, hidden = file(caller, config=config), file(caller, anonymous=True)
    caller.patch(f"{PATH}/{issue['id']}", {"state": "InReview"})
    app_issues.bind(caller.org, issue["id"], "iss_1")
    caller("DELETE", f"{PATH}/{issue['id']}")
    cloud.settle()
    assert not cloud.failures
    assert [event["data"] for event in seen()] == [
        {"app_issue_id": issue["id"], **config, "app_issue": issue},
        {"app_issue_id": hidden["id"], "thread_id": None, "reported_interaction_id": None, "app_issue": hidden},
    ]
    assert "created_by" not in hidden


def events(cloud: Cloud, caller: Client) -> Any:
    """Listens on the bus; gives a function that tells what came about app issues of the caller's organisation."""
    queue = cloud.client("sqs").create_queue(QueueName=f"heard-{caller.org}")["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:123456789012:heard-{caller.org}"
    pattern = json.dumps({"detail-type": ["app_issue.created"], "detail": {"org_id": [caller.org]}})
    cloud.client("events").put_rule(Name=f"heard-{caller.org}", EventBusName="Bus", EventPattern=pattern)
    cloud.client("events").put_targets(
        Rule=f"heard-{caller.org}", EventBusName="Bus", Targets=[{"Id": "1", "Arn": arn}]
    )

    def heard() -> list[dict[str, Any]]:
        messages = cloud.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["detail"] for message in messages]

    return heard


def test_app_issues_are_found_by_the_issue_they_are_bound_to(caller: Client) -> None:
    made = [file(caller) for _ in range(4)]
    org = caller.org
    for issue in made[:3]:
        bound = app_issues.bind(org, issue["id"], "iss_1")
        assert bound is not None
        assert bound.shown() == issue
    app_issues.bind(org, made[0]["id"], "iss_1")
    assert [one.id for one in app_issues.of_issue(org, "iss_1")] == [issue["id"] for issue in made[:3]]
    app_issues.bind(org, made[1]["id"], "iss_2")
    caller("DELETE", f"{PATH}/{made[2]['id']}")
    assert [one.id for one in app_issues.of_issue(org, "iss_1")] == [made[0]["id"]]
    assert [one.id for one in app_issues.of_issue(org, "iss_2")] == [made[1]["id"]]
    assert app_issues.of_issue(org, "iss_3") == []
    assert app_issues.bind(org, made[2]["id"], "iss_1") is None
    assert app_issues.bind(org, "issue_5c4b3a2d1e0f9a8b", "iss_1") is None
    assert caller.get(f"{PATH}/{made[1]['id']}").json() == made[1]


def test_an_issue_bound_from_many_sides_belongs_to_one(caller: Client) -> None:
    issue = file(caller)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda at: app_issues.bind(caller.org, issue["id"], f"iss_{at % 3}"), range(6)))
    owner = app_issues.find(caller.org, issue["id"]).issue_id
    found = {at: app_issues.of_issue(caller.org, f"iss_{at}") for at in range(3)}
    assert [f"iss_{at}" for at, bound in found.items() if bound] == [owner]


def test_closing_goes_forward_only(caller: Client, clock: Any) -> None:
    now = int(clock.now * 1000) + 5000
    issue, reviewed, gone = (file(caller) for _ in range(3))
    caller.patch(f"{PATH}/{reviewed['id']}", {"state": "InReview", "is_read": True})
    caller("DELETE", f"{PATH}/{gone['id']}")
    for one in (issue, reviewed):
        closed = app_issues.close(caller.org, one["id"], now, now)
        assert closed is not None
        assert (closed.state, closed.updated_at) == ("Closed", now)
        assert app_issues.close(caller.org, one["id"], now, now + 1) == closed
    assert app_issues.close(caller.org, gone["id"], now, now) is None
    assert app_issues.close(caller.org, "issue_5c4b3a2d1e0f9a8b", now, now) is None
    assert listed(caller, states="Closed") == [2, 1]
    assert listed(caller, states="Deleted") == [3]
    assert caller.get(f"{PATH}/{reviewed['id']}").json()["is_read"] is True


def test_a_closing_is_followed_once_so_that_what_people_open_again_stays_open(caller: Client, clock: Any) -> None:
    filed = int(clock.now * 1000)
    issue = file(caller)
    before = app_issues.close(caller.org, issue["id"], filed - 1, filed + 5)
    assert before is not None
    assert before.state == "NotReviewed"
    app_issues.close(caller.org, issue["id"], filed + 10, filed + 11)
    assert caller.patch(f"{PATH}/{issue['id']}", {"state": "InReview"}).status == 200
    for closing, state in ((filed + 10, "InReview"), (filed + 20, "Closed")):
        again = app_issues.close(caller.org, issue["id"], closing, filed + 30)
        assert again is not None
        assert again.state == state
