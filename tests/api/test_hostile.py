"""Whatever is sent, the answer is a clear refusal or the content is kept as it came; never a server error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud import Answer, Client, Cloud

WRITES = [
    ("POST", "/v1/calls"),
    ("PUT", "/v1/calls/7"),
    ("POST", "/v1/calls/7/issue-reports"),
    ("PATCH", "/v1/issue-reports"),
    ("PATCH", "/v1/issue-reports/1"),
]


def checked(answer: Answer) -> Answer:
    """Every answer is JSON of today's standard and no server error."""
    assert answer.status < 500, answer.text
    json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} in an answer"))
    answer.text.encode()
    return answer


@pytest.fixture(scope="module")
def sender(cloud: Cloud) -> Client:
    """A caller with a call 7 and a report 1."""
    sender = cloud.caller()
    sender.put("/v1/calls/7", {"agent_id": 1})
    sender.post("/v1/calls/7/issue-reports", {"title": "x", "detected_issue_ref": "r"})
    return sender


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize(
    "body",
    [
        "",
        "   ",
        "not json",
        "{",
        '{"title": "x",}',
        "{'title': 'x'}",
        "[]",
        '[{"title": "x"}]',
        '"text"',
        "5",
        "null",
        "true",
        "NaN",
        '{"title": "x", "metadata": {"a": NaN}}',
        '{"title": "x", "metadata": {"a": Infinity}}',
        '{"title": "x", "metadata": {"a": -Infinity}}',
        '{"title": "x", "metadata": {"a": 1e999}}',
        '{"title": "x", "metadata": {"a": -1E400}}',
        f'{{"title": "x", "metadata": {{"a": {"9" * 5000}}}}}',
        '{"title": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"title": "x", "metadata": {"a": ["\\ud83d"]}}',
        '{"title": "\ud800"}',
        '{"title": "a\tb"}',
        "\ufeff{}",
        "[" * 10_000,
        "[" * 10_000 + "]" * 10_000,
        '{"metadata": ' * 10_000 + "1" + "}" * 10_000,
        '{"title": "x", "metadata": ' + '{"a":' * 100 + "1" + "}" * 101,
        '{"title": "x", "metadata": {"a": ' + "[" * 65 + "]" * 65 + "}}",
        "title=x&severity=info",
        "\x00",
    ],
    ids=lambda body: repr(body[:24]) if isinstance(body, str) else None,
)
def test_a_body_that_is_no_json_object_is_refused(sender: Client, method: str, path: str, body: str) -> None:
    answer = checked(sender(method, path, body=body))
    assert answer.status == 400
    assert list(answer.json()) == ["detail"]


def test_a_body_of_reasonable_depth_is_kept(sender: Client) -> None:
    deep: Any = {"a": 1}
    for _ in range(60):
        deep = {"a": deep}
    report = checked(sender.post("/v1/calls/7/issue-reports", {"title": "x", "metadata": deep}))
    assert (report.status, report.json()["metadata"]) == (201, deep)


def test_a_pair_of_surrogates_is_a_character(sender: Client) -> None:
    report = checked(sender.post("/v1/calls/7/issue-reports", body='{"title": "\\ud83d\\ude00 \\\\ud800"}'))
    assert report.json()["title"] == "😀 \\ud800"


def test_of_a_key_given_twice_the_last_counts(sender: Client) -> None:
    report = checked(sender.post("/v1/calls/7/issue-reports", body='{"title": "a", "title": "b"}'))
    assert report.json()["title"] == "b"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "\x00"]
)
def test_the_content_type_does_not_matter_the_content_does(sender: Client, kind: str) -> None:
    assert checked(sender.put("/v1/calls/8", {}, headers={"content-type": kind})).status in (200, 201)
    assert checked(sender.put("/v1/calls/8", body="a=b", headers={"content-type": kind})).status == 400


@pytest.mark.parametrize("path", ["/v1/calls", "/v1/issue-reports", "/v1/calls/7/issue-reports", "/v1/calls/7"])
@pytest.mark.parametrize(
    "query",
    [
        "&" * 5000,
        "a=" + "x" * 100_000,
        "limit=5&" * 5000,
        "%",
        "%zz=%ff",
        "=",
        "limit[]=5",
        "a=%00",
        "%F0%9F%98%80=%ED%A0%80",
        "?",
    ],
    ids=lambda query: query[:12],
)
def test_a_query_that_says_nothing_known_does_no_harm(sender: Client, path: str, query: str) -> None:
    assert checked(sender("GET", f"{path}?{query}")).status == 200


@pytest.mark.parametrize("value", ["\x00", "😀", "\u202e", "x" * 64, "#", "+1#call", "' OR 1=1", "%", "\ud7ff\ue000"])
def test_a_number_may_be_any_text_and_finds_itself_alone(cloud: Cloud, value: str) -> None:
    caller = cloud.caller()
    caller.put("/v1/calls/1", {"from_number": value})
    caller.put("/v1/calls/2", {"from_number": value + "." if len(value) < 64 else "x"})
    page = checked(caller.get("/v1/calls", from_number=value)).json()
    assert [call["call_id"] for call in page["results"]] == [1]


# Anything at all

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ENUMS = st.sampled_from(
    ["open", "resolved", "info", "critical", "user", "system", "inbound", "completed", "failed", "error"]
)
DATES = st.sampled_from(
    ["2026-04-20", "0001-01-01", "9999-12-31", "2026-04-20T18:25:11.002+14:00", "9999-12-31T23:59:59-14:00"]
)
LIKELY = st.one_of(SCALARS, ENUMS, DATES, st.integers(0, 100), st.just([]), st.just({}), VALUES)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool_call", "tool_response"]) | st.text(max_size=5)},
        optional=dict.fromkeys(("content", "start_ms", "end_ms", "content_type", "x"), LIKELY),
    ),
    max_size=5,
)
REPORT = st.fixed_dictionaries(
    {"title": st.text(min_size=1, max_size=20)},
    optional={
        **dict.fromkeys(("description", "severity", "source", "timestamp_seconds", "failing_turn_index"), LIKELY),
        **dict.fromkeys(("relevant_turn_indices", "detected_issue_ref", "metadata", "evidence"), LIKELY),
    },
)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "transcripts": ROWS | VALUES,
        **dict.fromkeys(("agent_id", "direction", "from_number", "start_time", "end_time", "status"), LIKELY),
        "end_reason": LIKELY,
        **dict.fromkeys(("duration_seconds", "is_test_call", "billable_minutes", "billed_at", "steps_trace"), LIKELY),
        **dict.fromkeys(("variables", "tool_snapshot", "prompt_snapshot", "transcript"), LIKELY),
        "events": st.lists(
            st.dictionaries(st.sampled_from(["type", "at_ms", "data", "x"]), LIKELY, max_size=3), max_size=3
        )
        | VALUES,
    },
)
CHANGE = st.dictionaries(
    st.sampled_from(["status", "trace_ids", "pattern_key"]), LIKELY | st.lists(st.text(max_size=40), max_size=3)
)
FUZZ = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@FUZZ
@given(body=VALUES, where=st.sampled_from(WRITES))
def test_no_json_is_a_server_error(sender: Client, body: Any, where: tuple[str, str]) -> None:
    checked(sender(*where, body=json.dumps(body)))


@FUZZ
@given(body=st.text(max_size=200), where=st.sampled_from(WRITES))
def test_no_text_is_a_server_error(sender: Client, body: str, where: tuple[str, str]) -> None:
    checked(sender(*where, body=body))


@FUZZ
@given(said=REPORT)
def test_a_report_is_refused_or_kept_as_it_was_said(sender: Client, said: dict[str, Any]) -> None:
    answer = checked(sender.post("/v1/calls/7/issue-reports", body=json.dumps(said)))
    assert answer.status in (200, 201, 400)
    if answer.status == 201:
        report = answer.json()
        assert {key: report[key] for key in said} == said
        assert checked(sender.get(f"/v1/issue-reports/{report['id']}")).json() == report


@FUZZ
@given(body=CALL)
def test_a_call_is_refused_or_kept_and_can_be_read_and_graded(sender: Client, body: dict[str, Any]) -> None:
    answer = checked(sender.post("/v1/calls", body=json.dumps(body)))
    assert answer.status in (201, 400), answer.text
    if answer.status == 201:
        path = f"/v1/calls/{answer.json()['call_id']}"
        assert checked(sender.get(path)).json() == answer.json()
        rows = checked(sender.get(f"{path}/transcript")).json()["transcripts"]
        assert rows == body.get("transcripts", body.get("transcript", []))
        assert len(checked(sender.get(f"{path}/history")).json()) == len(rows) + len(body.get("events", []))
        assert checked(sender.post(f"{path}/grade")).status == 201


@FUZZ
@given(body=CHANGE)
def test_no_change_of_status_is_a_server_error(sender: Client, body: dict[str, Any]) -> None:
    for path in ("/v1/issue-reports", "/v1/issue-reports/1"):
        checked(sender.patch(path, body=json.dumps(body)))


NAMES = ["severity", "status", "source", "agent_id", "start_date", "end_date", "limit", "offset", "direction"]
NAMES += ["from_number", "to_number", "phone_number", "exclude_test_calls", "force"]
WORDS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20), DATES, ENUMS, st.integers().map(str), st.floats().map(str)
)


@FUZZ
@given(
    query=st.lists(st.tuples(st.sampled_from(NAMES), WORDS), max_size=5),
    path=st.sampled_from(["/v1/calls", "/v1/issue-reports", "/v1/calls/7/grade", "/v1/calls/7/history"]),
)
def test_no_query_is_a_server_error(sender: Client, query: list[tuple[str, str]], path: str) -> None:
    checked(sender("GET", f"{path}?{urlencode(query)}"))


@FUZZ
@given(
    parts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=3),
    raw=st.booleans(),
)
def test_no_path_is_a_server_error(sender: Client, parts: list[str], raw: bool) -> None:
    rest = "/".join(parts).replace("?", "").replace("#", "") if raw else "/".join(map(quote, parts))
    for method, root in (
        ("GET", "/v1/calls"),
        ("PATCH", "/v1/issue-reports"),
        ("GET", "/api"),
        ("POST", "/v1/calls/7"),
    ):
        checked(sender(method, f"{root}/{rest}".replace("\n", "").replace("\r", "").replace("\t", ""), body="{}"))


def test_the_count_on_the_call_is_right_after_all_of_that(
    sender: Client, cloud: Cloud, called: Callable[..., int]
) -> None:
    reports = sender.get("/v1/calls/7/issue-reports").json()
    call = sender.get("/v1/calls/7").json()
    assert call["issue_count"] == len(reports)
    assert call["critical_issue_count"] == sum(report["severity"] == "critical" for report in reports)
