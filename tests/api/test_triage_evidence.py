"""What hangs on triage issues over HTTP: resources, flags, relations, comments, the timeline, and the catalogues."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud import Client, Cloud
from fixloop.errors import NotFound
from fixloop.storage.triage import evidence
from fixloop.triage.activity import SYSTEM
from fixloop.triage.evidence import CallNotAttached, FlagIn, LinkIn, RelationIn

ROOT = "/v1/triage/issues"
BODY = {"title": "Agent skipped the verification step", "severity": "high", "category": "Routing"}
KINDS = ("related_to", "blocks", "duplicate_of")
Issue = dict[str, Any]


@pytest.fixture
def issue(caller: Client, called: Callable[..., int]) -> Issue:
    """An issue with the call 17 attached."""
    links = [{"resource_type": "call", "resource_id": str(called(17, agent_id=5))}]
    return dict(caller.post(ROOT, {**BODY, "resource_links": links}).json()["data"])


def data(answer: Any, status: int = 200) -> Any:
    assert answer.status == status, answer.text
    return answer.json()["data"]


def now(caller: Client, issue: Issue) -> Issue:
    return dict(data(caller.get(f"{ROOT}/{issue['id']}")))


def timeline(caller: Client, issue: Issue) -> list[dict[str, Any]]:
    return list(data(caller.get(f"{ROOT}/{issue['id']}/activity", limit=100))["items"])


def below(issue: Issue, path: str) -> str:
    return f"{ROOT}/{issue['id']}/{path}"


# Resources


def test_attaching_twice_gives_the_same_link(caller: Client, issue: Issue, called: Callable[..., int]) -> None:
    body = {"resource_type": "call", "resource_id": str(called(18))}
    first = data(caller.post(below(issue, "resources"), body), 201)
    assert data(caller.post(below(issue, "resources"), body), 200) == first
    assert now(caller, issue)["resource_count"] == 2
    assert [entry["type"] for entry in timeline(caller, issue)] == ["resource_added", "created"]


def test_a_call_is_put_and_taken_by_its_id(caller: Client, issue: Issue, called: Callable[..., int]) -> None:
    called(18)
    for _ in range(2):
        assert data(caller.put(below(issue, "calls/18")))["resource_count"] == 2
    assert caller("DELETE", below(issue, "calls/18")).status == 204
    assert now(caller, issue)["resource_count"] == 1
    assert caller("DELETE", below(issue, "calls/18")).status == 404
    assert caller.put(below(issue, "calls/404")).status == 404
    kinds = [entry["type"] for entry in timeline(caller, issue)]
    assert kinds == ["resource_removed", "resource_added", "created"]


def test_a_link_is_removed_by_its_id_and_can_come_again(caller: Client, issue: Issue) -> None:
    (link,) = data(caller.get(below(issue, "resources")))["items"]
    assert caller("DELETE", below(issue, f"resources/{link['id']}")).status == 204
    said = caller("DELETE", below(issue, f"resources/{link['id']}"))
    assert (said.status, said.json()["errors"]) == (404, [{"error": "not_found", "message": "Resource not found"}])
    again = {"resource_type": "call", "resource_id": "17"}
    assert data(caller.post(below(issue, "resources"), again), 201)["id"] != link["id"]


def test_the_list_by_type_of_resource_follows_what_is_attached(caller: Client, issue: Issue) -> None:
    def having(kind: str) -> int:
        return len(data(caller.get(ROOT, resource_type=kind))["items"])

    assert (having("call"), having("file")) == (1, 0)
    data(caller.post(below(issue, "resources"), {"resource_type": "file", "resource_id": "f"}), 201)
    caller("DELETE", below(issue, "calls/17"))
    assert (having("call"), having("file")) == (0, 1)


def test_a_graded_call_is_titled_by_its_summary(caller: Client, issue: Issue) -> None:
    rows = [{"role": "user", "content": "How long can I return it?"}, {"role": "assistant", "content": "60 days."}]
    caller.put("/v1/calls/18", {"transcripts": rows, "prompt_snapshot": "Refunds within 30 days."})
    summary = caller.post("/v1/calls/18/grade").json()["summary"]
    assert summary
    link = data(caller.post(below(issue, "resources"), {"resource_type": "call", "resource_id": 18}), 201)
    assert link["title"] == summary


def test_resources_come_page_by_page_in_the_order_they_were_attached(caller: Client, issue: Issue, clock: Any) -> None:
    """Also when all of it happened in the same millisecond."""
    for at in range(6):
        data(caller.post(below(issue, "resources"), {"resource_type": "file", "resource_id": f"f{at}"}), 201)
    found, cursor = [], {}
    while True:
        page = data(caller.get(below(issue, "resources"), limit=3, **cursor))
        found += [item["resource_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == ["17", *(f"f{at}" for at in range(6))]
    assert caller.get(below(issue, "flags"), **cursor).status == 400
    assert caller.get(below(issue, "resources"), cursor="x").status == 400


def test_affected_groups_the_calls_by_the_agent_that_had_them(
    caller: Client, issue: Issue, called: Callable[..., int]
) -> None:
    agent = data(caller.post("/api/agents", {"name": "Aurora support", "number": 5}), 201)
    for call_id, fields in ((18, {"agent_id": 5}), (19, {"agent_id": 6}), (20, {})):
        caller.put(below(issue, f"calls/{called(call_id, **fields)}"))
    affected = data(caller.get(below(issue, "affected")))
    assert [call["call_id"] for call in affected["calls"]] == ["17", "18", "19", "20"]
    assert [(one["pathway_id"], one["pathway_name"], one["call_ids"]) for one in affected["pathways"]] == [
        (agent["id"], "Aurora support", ["17", "18"]),
        ("6", None, ["19"]),
    ]
    assert affected["calls"][3]["pathway_id"] is None
    assert affected["personas"] == []


# Flags


def test_a_flag_needs_its_call_attached(caller: Client, issue: Issue, called: Callable[..., int]) -> None:
    said = caller.post(below(issue, "flags"), {"call_id": str(called(18)), "type": "late"})
    assert said.status == 409
    assert said.json()["errors"][0]["error"] == "call_not_attached"
    assert now(caller, issue)["flag_count"] == 0


def test_flags_are_counted_and_leave_their_entries(caller: Client, issue: Issue) -> None:
    flag = data(caller.post(below(issue, "flags"), {"call_id": "17", "type": "Too late", "message_index": 3}), 201)
    assert (flag["type"], flag["note"], flag["message_index"]) == ("too_late", "", 3)
    assert now(caller, issue)["flag_count"] == 1
    assert data(caller.get(below(issue, "flags")))["items"] == [flag]
    added = timeline(caller, issue)[0]
    assert (added["type"], [one["resource_id"] for one in added["resources"]]) == ("flag_added", ["17"])
    assert caller("DELETE", below(issue, f"flags/{flag['id']}")).status == 204
    assert now(caller, issue)["flag_count"] == 0
    assert timeline(caller, issue)[0]["type"] == "flag_removed"
    said = caller("DELETE", below(issue, f"flags/{flag['id']}"))
    assert said.json()["errors"] == [{"error": "not_found", "message": "Flag not found"}]


def test_flags_of_a_detached_call_stay(caller: Client, issue: Issue) -> None:
    flag = data(caller.post(below(issue, "flags"), {"call_id": "17", "type": "late"}), 201)
    caller("DELETE", below(issue, "calls/17"))
    assert data(caller.get(below(issue, "flags")))["items"] == [flag]
    assert caller("DELETE", below(issue, f"flags/{flag['id']}")).status == 204


def test_types_of_flags_tell_their_use_and_the_newest_note(caller: Client, issue: Issue) -> None:
    flags = [
        data(caller.post(below(issue, "flags"), {"call_id": "17", "type": kind, **note}), 201)
        for kind, note in (("late", {"note": "First"}), ("late", {"note": "Second"}), ("Wrong node", {}))
    ]
    caller("DELETE", below(issue, f"flags/{flags[0]['id']}"))
    assert data(caller.get("/v1/triage/flag-types"))["items"] == [
        {"type": "late", "description": "Second", "usage_count": 1, "last_used_at": flags[1]["created_at"]},
        {"type": "wrong_node", "description": "", "usage_count": 1, "last_used_at": flags[2]["created_at"]},
    ]
    page = data(caller.get("/v1/triage/flag-types", limit=1))
    rest = data(caller.get("/v1/triage/flag-types", limit=1, cursor=page["next_cursor"]))
    assert [one["type"] for one in page["items"] + rest["items"]] == ["late", "wrong_node"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"type": "--"}, "type"),
        ({"type": None}, "type"),
        ({"call_id": None}, "call_id"),
        ({"note": ""}, "note"),
        ({"note": "x" * 4001}, "note"),
        ({"message_index": -1}, "message_index"),
        ({"message_index": "3"}, "message_index"),
    ],
)
def test_a_bad_flag_is_refused_naming_the_field(
    caller: Client, issue: Issue, fields: dict[str, Any], named: str
) -> None:
    said = caller.post(below(issue, "flags"), {"call_id": "17", "type": "late", **fields})
    assert said.status == 400
    assert said.json()["errors"][0]["message"].startswith(f"{named}: ")


# Relations


@pytest.fixture
def other(caller: Client) -> Issue:
    return dict(data(caller.post(ROOT, {**BODY, "title": "Caller transferred to wrong queue"}), 201))


def test_a_relation_is_seen_from_both_sides(caller: Client, issue: Issue, other: Issue) -> None:
    body = {"related_issue_id": other["id"], "relation_type": "blocks"}
    relation = data(caller.post(below(issue, "relations"), body), 201)
    assert (relation["direction"], relation["related_title"]) == ("outgoing", other["title"])
    assert data(caller.get(below(issue, "relations")))["items"] == [relation]
    (seen,) = data(caller.get(below(other, "relations")))["items"]
    assert seen == {
        **relation,
        "issue_id": other["id"],
        "related_issue_id": issue["id"],
        "related_triage_id": issue["triage_id"],
        "related_title": issue["title"],
        "direction": "incoming",
    }
    assert now(caller, issue)["relation_count"] == now(caller, other)["relation_count"] == 1
    for one, about in ((issue, other), (other, issue)):
        added = timeline(caller, one)[0]
        assert added["type"] == "relation_added"
        named = {key: about[key] for key in ("id", "triage_id", "title")}
        assert added["referenced_issues"] == [named]


@pytest.mark.parametrize("side", ["outgoing", "incoming"])
def test_a_relation_is_taken_away_from_either_side(caller: Client, issue: Issue, other: Issue, side: str) -> None:
    body = {"related_issue_id": other["id"], "relation_type": "duplicate_of"}
    relation = data(caller.post(below(issue, "relations"), body), 201)
    where = issue if side == "outgoing" else other
    assert caller("DELETE", below(where, f"relations/{relation['id']}")).status == 204
    for one in (issue, other):
        assert data(caller.get(below(one, "relations")))["items"] == []
        assert now(caller, one)["relation_count"] == 0
        assert timeline(caller, one)[0]["type"] == "relation_removed"
        said = caller("DELETE", below(one, f"relations/{relation['id']}"))
        assert said.json()["errors"] == [{"error": "not_found", "message": "Relation not found"}]
    assert data(caller.post(below(issue, "relations"), body), 201)["id"] != relation["id"]


def test_the_same_relation_again_is_the_one_there_is(caller: Client, issue: Issue, other: Issue) -> None:
    for kind in ("related_to", "blocks", "duplicate_of"):
        body = {"related_issue_id": other["id"], "relation_type": kind}
        first = data(caller.post(below(issue, "relations"), body), 201)
        assert data(caller.post(below(issue, "relations"), body), 200) == first
    assert now(caller, issue)["relation_count"] == 3
    back = {"related_issue_id": issue["id"]}
    assert data(caller.post(below(other, "relations"), {**back, "relation_type": "related_to"}), 200)["id"]
    assert data(caller.post(below(other, "relations"), {**back, "relation_type": "blocks"}), 201)["id"]
    assert now(caller, issue)["relation_count"] == now(caller, other)["relation_count"] == 4


def test_an_issue_is_not_related_to_itself_or_to_nothing(cloud: Cloud, caller: Client, issue: Issue) -> None:
    said = caller.post(below(issue, "relations"), {"related_issue_id": issue["id"], "relation_type": "blocks"})
    assert said.status == 400
    assert said.json()["errors"][0]["message"].startswith("related_issue_id: ")
    foreign = data(cloud.caller().post(ROOT, BODY), 201)
    for unknown in (foreign["id"], "68007859-4325-4ea2-bbd6-e7c8be3a233a", "T-1001"):
        body = {"related_issue_id": unknown, "relation_type": "blocks"}
        assert caller.post(below(issue, "relations"), body).status == 404


# Timeline


def test_a_comment_is_an_entry_that_shows_the_links_it_names(caller: Client, issue: Issue) -> None:
    (link,) = data(caller.get(below(issue, "resources")))["items"]
    said = {"detail": "Pinged the on-call engineer.", "resource_link_ids": [link["id"]]}
    comment = data(caller.post(below(issue, "comments"), said), 201)
    assert comment == timeline(caller, issue)[0]
    assert (comment["entry_kind"], comment["type"], comment["resources"]) == ("issue", "comment", [link])
    changed = now(caller, issue)
    assert changed["updated_at"] == issue["updated_at"]
    assert changed["last_activity_at"] == comment["created_at"]
    unknown = {"detail": "x", "resource_link_ids": ["68007859-4325-4ea2-bbd6-e7c8be3a233a"]}
    assert caller.post(below(issue, "comments"), unknown).status == 404
    for detail in ("", "x" * 4001, None):
        assert caller.post(below(issue, "comments"), {"detail": detail}).status == 400


def test_the_timeline_is_newest_first_page_by_page_and_holds_its_place(caller: Client, issue: Issue) -> None:
    for at in range(7):
        data(caller.post(below(issue, "comments"), {"detail": f"Comment {at}"}), 201)
    page = data(caller.get(below(issue, "activity"), limit=3))
    data(caller.post(below(issue, "comments"), {"detail": "Meanwhile"}), 201)
    rest = data(caller.get(below(issue, "activity"), limit=10, cursor=page["next_cursor"]))
    assert [one["detail"] for one in page["items"] + rest["items"]] == [
        *(f"Comment {at}" for at in reversed(range(7))),
        "Created the issue.",
    ]
    assert rest["next_cursor"] is None


# Counts


OPERATION = st.one_of(
    st.tuples(st.sampled_from(["attach", "detach"]), st.sampled_from(["17", "18", "19"])),
    st.tuples(st.just("flag"), st.tuples(st.sampled_from(["17", "18"]), st.sampled_from(["late", "rude"]))),
    st.tuples(st.just("relate"), st.tuples(st.integers(min_value=0, max_value=1), st.sampled_from(KINDS))),
    st.tuples(st.sampled_from(["remove_flag", "unrelate"]), st.integers(min_value=0, max_value=9)),
)


@settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(writers=st.lists(st.lists(OPERATION, max_size=6), min_size=3, max_size=3))
def test_counts_are_right_whatever_several_write_at_once(cloud: Cloud, writers: list[list[Any]]) -> None:
    caller = cloud.caller()
    for call_id in (17, 18, 19):
        caller.put(f"/v1/calls/{call_id}", {})
    links = [{"resource_type": "call", "resource_id": "17"}]
    issue = data(caller.post(ROOT, {**BODY, "resource_links": links}), 201)
    others = [data(caller.post(ROOT, {**BODY, "title": f"Other {at}"}), 201) for at in range(2)]
    at = (caller.org, issue["id"])

    def do(name: str, value: Any) -> None:
        match name:
            case "attach":
                evidence.attach(*at, LinkIn(resource_type="call", resource_id=value), SYSTEM, 1)
            case "detach":
                evidence.detach_call(*at, value, SYSTEM, 1)
            case "flag":
                evidence.flag(*at, FlagIn(call_id=value[0], type=value[1]), SYSTEM, 1)
            case "relate":
                related = RelationIn(related_issue_id=others[value[0]]["id"], relation_type=value[1])
                evidence.relate(*at, related, SYSTEM, 1)
            case "remove_flag" if flags := evidence.flags(*at, 100, None)[0]:
                evidence.remove_flag(*at, flags[value % len(flags)].id, SYSTEM, 1)
            case "unrelate" if relations := evidence.relations(*at, 100, None)[0]:
                evidence.unrelate(*at, relations[value % len(relations)]["id"], SYSTEM, 1)

    def write(operations: list[Any]) -> None:
        for name, value in operations:
            with contextlib.suppress(NotFound, CallNotAttached):
                do(name, value)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, writers))

    def listed(one: Issue, what: str) -> list[Any]:
        return list(data(caller.get(below(one, what), limit=100))["items"])

    counted, flags = now(caller, issue), listed(issue, "flags")
    assert counted["resource_count"] == len(listed(issue, "resources"))
    assert counted["flag_count"] == len(flags)
    assert counted["relation_count"] == len(listed(issue, "relations"))
    types = {one["type"]: one["usage_count"] for one in data(caller.get("/v1/triage/flag-types"))["items"]}
    assert types == {kind: sum(flag["type"] == kind for flag in flags) for kind in types}
    for other in others:
        assert now(caller, other)["relation_count"] == len(listed(other, "relations"))


# Categories


def test_own_categories_stand_among_the_built_in_ones_in_order(caller: Client) -> None:
    for name in ("Zone", "accent", "Latency spikes"):
        assert data(caller.post("/v1/triage/categories", {"name": name}), 201)["name"] == name
    expected = ["accent", "Bug", "Dialogue", "Latency", "Latency spikes", "Routing", "Speech", "Telephony", "Tools"]
    expected += ["Transcription", "Zone"]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = data(caller.get("/v1/triage/categories", limit=2, **cursor))
        found += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        assert page["next_cursor"] == found[-1]
        cursor = {"cursor": page["next_cursor"]}
    assert found == expected


def test_a_category_that_differs_in_case_alone_is_the_same(caller: Client) -> None:
    made = data(caller.post("/v1/triage/categories", {"name": "Accent"}), 201)
    assert data(caller.post("/v1/triage/categories", {"name": "ACCENT"}), 200) == made
    assert data(caller.post("/v1/triage/categories", {"name": "routing"}), 200)["id"] == "built-in:routing"
    assert len(data(caller.get("/v1/triage/categories"))["items"]) == 9


def test_an_issue_may_have_a_category_that_is_in_no_catalogue(caller: Client) -> None:
    data(caller.post(ROOT, {**BODY, "category": "Just once"}), 201)
    assert len(data(caller.get("/v1/triage/categories"))["items"]) == 8
    assert len(data(caller.get(ROOT, category="just ONCE"))["items"]) == 1
