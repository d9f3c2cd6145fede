"""`/api/v2/issues`, and `/api/v1/cases` beside it: every filter and order, refusals, and races."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import Answer, Client, Cloud
from fixloop.storage import dynamo, issues
from fixloop.storage.dynamo import ConditionFailed

Issue = dict[str, Any]
SEVERITIES = ("low", "medium", "high", "critical")
STATUSES = ("open", "proposed_fix", "testing", "closed")
CREATE = {
    "title": "Shipping estimate miscalculations",
    "description": "Agent provides incorrect delivery date estimates for international orders, consistently "
    "understating transit time by 3-5 days",
    "agentId": "agent_abc123",
    "severity": "medium",
    "traceIds": ["tr_x1y2z3", "tr_m4n5o6", "tr_p7q8r9"],
    "tags": ["shipping", "international", "estimates"],
}
CREATED = [
    "id",
    "title",
    "description",
    "severity",
    "status",
    "traceCount",
    "agentId",
    "tags",
    "createdAt",
    "updatedAt",
]
LISTED = [*CREATED[:7], "agentName", *CREATED[7:]]


def made(caller: Client, **content: Any) -> Issue:
    answer = caller.post("/api/v2/issues", {**CREATE, **content})
    assert answer.status == 201, answer.text
    issue: Issue = answer.json()["data"]
    return issue


def shown(caller: Client, issue_id: str) -> Issue:
    answer = caller.get(f"/api/v2/issues/{issue_id}")
    assert answer.status == 200, answer.text
    issue: Issue = answer.json()["data"]
    return issue


def refused(answer: Answer, *fields: str) -> None:
    assert answer.status == 400, answer.text
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == body["code"] == "VALIDATION_ERROR"
    assert body["error"]["message"] == body["message"]
    assert set(body["error"]["details"]) == set(fields)
    for field in fields:
        assert field in body["message"]


def test_only_title_and_agent_are_needed(caller: Client) -> None:
    answer = caller.post("/api/v2/issues", {"title": "Slow", "agentId": "agent_1", "mood": "ignored"})
    assert answer.status == 201
    issue = answer.json()["data"]
    assert [issue[name] for name in ("description", "severity", "traceCount", "tags")] == ["", "medium", 0, []]
    assert shown(caller, issue["id"])["metadata"]["affectedCustomers"] == 0


def test_traces_given_twice_count_once_and_keep_their_order(caller: Client) -> None:
    issue = made(caller, traceIds=["tr_c", "tr_a", "tr_c", "tr_b", "tr_a"])
    assert issue["traceCount"] == 3
    assert shown(caller, issue["id"])["traceIds"] == ["tr_c", "tr_a", "tr_b"]


def test_an_issue_may_have_more_traces_than_a_transaction_takes(caller: Client, clock: Any) -> None:  # in one ms
    ids = [f"tr_{number}" for number in range(250)]
    issue = made(caller, traceIds=ids)
    assert shown(caller, issue["id"])["traceIds"] == ids
    other = [f"tr_{number}" for number in range(100, 320)]
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"traceIds": other}).status == 200
    after = shown(caller, issue["id"])
    assert after["traceCount"] == 220
    assert after["traceIds"] == other
    assert caller("DELETE", f"/api/v2/issues/{issue['id']}").status == 200
    assert issues.trace_ids(caller.org, issue["id"]) == []


def test_changing_the_traces_alone_is_an_update_and_repeating_it_is_none(caller: Client, clock: Any) -> None:
    issue = made(caller)
    path = f"/api/v2/issues/{issue['id']}"
    clock.now += 60
    first = caller.patch(path, {"traceIds": ["tr_new"]}).json()["data"]
    assert first["updatedAt"] > issue["updatedAt"]
    clock.now += 60
    assert caller.patch(path, {"traceIds": ["tr_new"]}).json()["data"] == first
    assert caller.patch(path, {}).json()["data"] == first


def test_an_issue_moves_to_another_agent_with_all_its_lists(caller: Client) -> None:
    issue = made(caller)
    assert caller.patch(f"/api/v2/issues/{issue['id']}", {"agentId": "agent_other"}).status == 200
    assert caller.get("/api/v2/issues", agentId="agent_abc123").json()["pagination"]["total"] == 0
    for sort in ("createdAt", "severity", "traceCount"):
        (listed,) = caller.get("/api/v2/issues", agentId="agent_other", sortBy=sort).json()["data"]
        assert listed["id"] == issue["id"]


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({"title": ""}, ["title"]),
        ({"title": "x" * 501}, ["title"]),
        ({"title": None, "severity": "urgent"}, ["title", "severity"]),
        ({"agentId": 7}, ["agentId"]),
        ({"agentId": "a b"}, ["agentId"]),
        ({"traceIds": "tr_1"}, ["traceIds"]),
        ({"traceIds": ["tr_1", "not a trace"]}, ["traceIds"]),
        ({"traceIds": ["tr_1"] * 10_001}, ["traceIds"]),
        ({"traceIds": [1]}, ["traceIds.0"]),
        ({"tags": ["ok", ""]}, ["tags.1"]),
        ({"tags": ["t"] * 51}, ["tags"]),
        ({"description": "x" * 20_001}, ["description"]),
    ],
)
def test_a_bad_body_is_refused_by_the_names_of_its_fields(caller: Client, content: Any, fields: list[str]) -> None:
    refused(caller.post("/api/v2/issues", {**CREATE, **content}), *fields)
    assert caller.get("/api/v2/issues").json()["pagination"]["total"] == 0


def test_what_is_missing_is_named(caller: Client) -> None:
    refused(caller.post("/api/v2/issues", {}), "title", "agentId")


@pytest.mark.parametrize("body", ["", "[]", "nope", '"text"'])
def test_a_body_that_is_no_object_is_refused(caller: Client, body: str) -> None:
    answer = caller("POST", "/api/v2/issues", body=body)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("field", ["title", "description", "agentId", "severity", "status", "traceIds", "tags"])
def test_no_field_is_set_to_null(caller: Client, field: str) -> None:
    issue = made(caller)
    refused(caller.patch(f"/api/v2/issues/{issue['id']}", {field: None}), field)
    assert {**shown(caller, issue["id"])}.items() >= issue.items()


@pytest.mark.parametrize("status", ["resolved", "investigating", "OPEN", ""])
def test_other_apis_statuses_are_not_taken(caller: Client, status: str) -> None:
    issue = made(caller)
    refused(caller.patch(f"/api/v2/issues/{issue['id']}", {"status": status}), "status")
    if status:
        refused(caller.get("/api/v2/issues", status=status), "status")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 101}, ["limit"]),
        ({"limit": "abc"}, ["limit"]),
        ({"limit": "1.5"}, ["limit"]),
        ({"page": 0}, ["page"]),
        ({"page": -1}, ["page"]),
        ({"page": "two", "limit": "many"}, ["page", "limit"]),
        ({"severity": "urgent"}, ["severity"]),
        ({"sortBy": "updatedAt"}, ["sortBy"]),
        ({"sortOrder": "down"}, ["sortOrder"]),
    ],
)
def test_a_bad_query_is_refused_by_the_names_of_its_parameters(caller: Client, query: Any, fields: list[str]) -> None:
    for path in ("/api/v2/issues", "/api/v1/cases"):
        refused(caller.get(path, **query), *fields)


def test_the_default_page_has_twenty(caller: Client) -> None:
    answer = caller.get("/api/v2/issues", page="", limit="", status="").json()
    assert answer["pagination"] == {"page": 1, "limit": 20, "total": 0, "hasMore": False}


# Lists


@dataclass
class Stock:
    """A caller and every issue there is, oldest first, as a list shows it."""

    caller: Client
    agents: list[str]
    issues: list[Issue]

    def expected(self, query: dict[str, Any]) -> list[Issue]:
        """What the parameters mean, in the plainest way: ties of the sorted value are by age."""
        found = [
            (place, issue)
            for place, issue in enumerate(self.issues)
            if all(issue[name] == query[name] for name in ("agentId", "status", "severity") if name in query)
        ]
        ranks: dict[str, Any] = {
            "createdAt": lambda issue: 0,
            "severity": lambda issue: SEVERITIES.index(issue["severity"]),
            "traceCount": lambda issue: issue["traceCount"],
        }
        rank = ranks[query.get("sortBy", "createdAt")]
        found.sort(key=lambda pair: (rank(pair[1]), pair[0]), reverse=query.get("sortOrder", "desc") == "desc")
        return [issue for _, issue in found]


@pytest.fixture(scope="module")
def stock(cloud: Cloud) -> Stock:
    """70 issues, the first 64 of them sealed, half of them changed since."""
    caller, chance = cloud.caller(), random.Random(17)
    agents = [caller.post("/api/agents", {"name": name}).json()["data"]["id"] for name in ("Anna", "Ben")]
    ids = []
    for number in range(70):
        traces = [f"tr_{number}_{at}" for at in range(chance.choice((0, 1, 1, 2, 3)))]
        agent, severity = chance.choice([*agents, "agent_gone"]), chance.choice(SEVERITIES)
        ids.append(made(caller, title=str(number), traceIds=traces, agentId=agent, severity=severity)["id"])
    for one in chance.sample(ids, 40):
        change: dict[str, Any] = {"status": chance.choice(STATUSES)}
        if chance.random() < 0.4:
            change["severity"] = chance.choice(SEVERITIES)
        if chance.random() < 0.3:
            change["traceIds"] = [f"tr_{at}" for at in range(chance.randrange(4))]
        assert caller.patch(f"/api/v2/issues/{one}", change).status == 200
    everything = [shown(caller, one) for one in ids]
    return Stock(caller, agents, [{name: issue[name] for name in LISTED} for issue in everything])


def combinations() -> Iterator[dict[str, Any]]:
    """Every status with every severity, agents, orders and pages taking turns."""
    agents = itertools.cycle([None, "agent_gone", 0, None, "agent_none", 1, None])
    orders = itertools.cycle(itertools.product(("createdAt", "severity", "traceCount"), ("asc", "desc")))
    for status, severity, _ in itertools.product((None, *STATUSES), (None, *SEVERITIES), range(2)):
        sort, order = next(orders)
        yield {"status": status, "severity": severity, "agentId": next(agents), "sortBy": sort, "sortOrder": order}


def test_every_filter_in_every_order_on_every_page_shows_exactly_what_matches(stock: Stock) -> None:
    limits = itertools.cycle([100, 7, 1, 20, 3])
    pages = itertools.cycle([1, 2, 1, 3])
    for given in combinations():
        if isinstance(given["agentId"], int):
            given["agentId"] = stock.agents[given["agentId"]]
        query = {name: value for name, value in given.items() if value is not None}
        limit, page = next(limits), next(pages)
        answer = stock.caller.get("/api/v2/issues", **query, limit=limit, page=page).json()
        whole, start = stock.expected(query), (page - 1) * limit
        assert answer["data"] == whole[start : start + limit], query
        assert answer["pagination"] == {
            "page": page,
            "limit": limit,
            "total": len(whole),
            "hasMore": start + limit < len(whole),
        }, query


@pytest.mark.parametrize(("sort", "order"), [("createdAt", "asc"), ("severity", "desc"), ("traceCount", "asc")])
def test_pages_join_to_the_whole(stock: Stock, sort: str, order: str) -> None:
    query = {"sortBy": sort, "sortOrder": order}
    pages = [stock.caller.get("/api/v2/issues", **query, limit=24, page=page).json() for page in range(1, 5)]
    assert [issue for page in pages for issue in page["data"]] == stock.expected(query)
    assert [page["pagination"]["hasMore"] for page in pages] == [True, True, False, False]


def test_the_newest_come_first_unless_asked_otherwise(stock: Stock) -> None:
    shown = stock.caller.get("/api/v2/issues", limit=100).json()["data"]
    assert shown == stock.issues[::-1]
    assert {issue["agentName"] for issue in shown if issue["agentId"] == "agent_gone"} == {None}
    assert {issue["agentName"] for issue in shown} == {"Anna", "Ben", None}


# The older interface


def test_cases_are_the_same_rows(caller: Client) -> None:
    issue = made(caller)
    case_id = issue["id"].replace("iss_", "case_")
    assert caller.get("/api/v1/cases").json() == caller.get("/api/v2/issues").json()
    for key in (case_id, issue["id"]):
        for base in ("/api/v1/cases", "/api/v2/issues"):
            assert caller.get(f"{base}/{key}").json()["data"]["id"] == issue["id"]
    patched = caller.patch(f"/api/v1/cases/{case_id}", {"status": "closed"}).json()["data"]
    assert (patched["id"], patched["status"]) == (issue["id"], "closed")
    made_as_case = caller.post("/api/v1/cases", CREATE)
    assert (made_as_case.status, list(made_as_case.json()["data"])) == (201, CREATED)
    assert caller.get("/api/v1/cases", status="closed").json()["pagination"]["total"] == 1
    assert caller("DELETE", f"/api/v1/cases/{case_id}").status == 200
    gone = caller.get(f"/api/v1/cases/{case_id}")
    assert (gone.status, gone.json()["message"]) == (404, f"Issue {issue['id']} not found")


# Deleting


def test_deleting_unlinks_the_traces_and_leaves_them(caller: Client) -> None:
    trace = {"agentId": "agent_1", "userMessage": "Hello?", "agentResponse": "Hello."}
    trace_id = caller.post("/api/traces", trace).json()["data"]["id"]
    issue = made(caller, traceIds=[trace_id])
    assert caller("DELETE", f"/api/v2/issues/{issue['id']}").status == 200
    assert caller.get(f"/api/traces/{trace_id}").status == 200
    assert issues.trace_ids(caller.org, issue["id"]) == []


def test_an_issue_with_an_active_shadow_test_cannot_be_deleted(caller: Client) -> None:
    issue = made(caller)
    dynamo.write([issues.tested(caller.org, issue["id"], 1)])
    answer = caller("DELETE", f"/api/v2/issues/{issue['id']}")
    assert (answer.status, answer.json()["error"]["code"]) == (409, "CONFLICT")
    dynamo.write([issues.tested(caller.org, issue["id"], -1)])
    assert caller("DELETE", f"/api/v2/issues/{issue['id']}").status == 200
    with pytest.raises(ConditionFailed):
        dynamo.write([issues.tested(caller.org, issue["id"], 1)])


def test_a_test_that_starts_while_its_issue_is_being_deleted_wins_or_fails_but_never_both(caller: Client) -> None:
    def start(issue_id: str) -> bool:
        try:
            dynamo.write([issues.tested(caller.org, issue_id, 1)])
        except ConditionFailed:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        for _ in range(6):
            issue_id = made(caller)["id"]
            started = threads.submit(start, issue_id)
            deleted = threads.submit(caller, "DELETE", f"/api/v2/issues/{issue_id}")
            assert started.result() == (deleted.result().status == 409)


# Races and repeats


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_changes_of_different_fields_at_the_same_time_lose_nothing(caller: Client, threads: ThreadPoolExecutor) -> None:
    changes: list[dict[str, Any]] = [
        {"title": "New title"},
        {"description": "New description"},
        {"agentId": "agent_new"},
        {"severity": "critical"},
        {"status": "testing"},
        {"tags": ["new"]},
        {"traceIds": ["tr_new1", "tr_new2"]},
    ]
    for _ in range(2):
        issue = made(caller)
        path = f"/api/v2/issues/{issue['id']}"
        answers = list(threads.map(lambda change, path=path: caller.patch(path, change), changes))
        assert [answer.status for answer in answers] == [200] * len(changes)
        got = shown(caller, issue["id"])
        for change in changes:
            assert {name: got[name] for name in change} == change
        assert got["traceCount"] == 2
        found = caller.get("/api/v2/issues", status="testing", severity="critical", agentId="agent_new")
        assert issue["id"] in [one["id"] for one in found.json()["data"]]


def test_traces_linked_at_the_same_time_are_counted_once_each(caller: Client, threads: ThreadPoolExecutor) -> None:
    issue = made(caller, traceIds=[])
    ids = [f"tr_{number % 5}" for number in range(20)]
    fresh = list(threads.map(lambda one: issues.link(caller.org, issue["id"], one, 1), ids))
    assert sum(fresh) == 5
    assert shown(caller, issue["id"])["traceCount"] == len(shown(caller, issue["id"])["traceIds"]) == 5


def test_a_repeat_with_the_same_key_makes_no_second_issue(caller: Client, threads: ThreadPoolExecutor) -> None:
    def create(_: int) -> Answer:
        return caller.post("/api/v2/issues", CREATE, headers={"Idempotency-Key": "once"})

    first = create(0)
    answers = [*threads.map(create, range(4))]
    assert {answer.text for answer in answers} == {first.text}
    assert {answer.status for answer in answers} == {201}
    assert caller.get("/api/v2/issues").json()["pagination"]["total"] == 1
    other = caller.post("/api/v2/issues", {**CREATE, "title": "Other"}, headers={"Idempotency-Key": "once"})
    assert (other.status, other.json()["error"]["code"]) == (409, "CONFLICT")


def test_first_requests_with_the_same_key_at_the_same_time_make_one_issue(
    caller: Client, threads: ThreadPoolExecutor
) -> None:
    def create(_: int) -> Answer:
        return caller.post("/api/v2/issues", CREATE, headers={"Idempotency-Key": "race"})

    answers = list(threads.map(create, range(6)))
    assert len({answer.text for answer in answers if answer.status == 201}) == 1
    assert {answer.status for answer in answers} <= {201, 409}
    assert caller.get("/api/v2/issues").json()["pagination"]["total"] == 1


def test_another_organisations_issues_do_not_exist(cloud: Cloud, caller: Client) -> None:
    issue, other = made(caller), cloud.caller()
    path = f"/api/v2/issues/{issue['id']}"
    assert other.get(path).json()["message"] == f"Issue {issue['id']} not found"
    answers = [other.get(path), other.patch(path, {"title": "Mine"}), other("DELETE", path)]
    assert [answer.status for answer in answers] == [404, 404, 404]
    assert other.get("/api/v2/issues").json()["data"] == []
    assert other.get("/api/v2/issues", agentId=CREATE["agentId"]).json()["pagination"]["total"] == 0
    assert shown(caller, issue["id"])["title"] == CREATE["title"]


def test_a_key_that_may_only_read_changes_nothing(cloud: Cloud, caller: Client) -> None:
    from fixloop.identity import Scope

    issue, reader = made(caller), cloud.caller(caller.org, scope=Scope.READ)
    assert reader.get(f"/api/v2/issues/{issue['id']}").status == 200
    for answer in (
        reader.post("/api/v2/issues", CREATE),
        reader.patch(f"/api/v2/issues/{issue['id']}", {"title": "x"}),
        reader("DELETE", f"/api/v2/issues/{issue['id']}"),
    ):
        assert (answer.status, answer.json()["error"]["code"]) == (403, "PERMISSION_DENIED")
