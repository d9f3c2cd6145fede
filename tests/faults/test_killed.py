"""Every handler is killed between any two of its calls on AWS, is called again by its source, and all is well."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import Answer, Client
from faults.inside import Inside, Killed
from fixloop.calls import CallQuery
from fixloop.issue_reports import ReportQuery
from fixloop.storage import calls, dynamo, issue_reports
from loop.stories import CALL_WITH_ISSUES

KEYED = {"idempotency-key": "once"}


@dataclass
class Scene:
    """One organisation in which one handler is killed."""

    stage: Inside
    caller: Client

    @property
    def org(self) -> str:
        return self.caller.org

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e["detail"] for e in self.stage.told if e["detail-type"] == kind and e["detail"]["org_id"] == self.org]

    def on_the_bus(self, kind: str) -> dict[str, Any]:
        """An event of this organisation that is there and was not handed on."""
        self.stage._pump_streams()
        mine = [e for e in self.stage.on_bus if e["detail-type"] == kind and e["detail"]["org_id"] == self.org]
        self.stage.on_bus = [event for event in self.stage.on_bus if event is not mine[0]]
        self.stage.told.append(mine[0])
        return mine[0]


def put_call(scene: Scene) -> Callable[[], Any]:
    return lambda: answered(scene.caller.put("/v1/calls/5", CALL_WITH_ISSUES), 200, 201)


def replace_call(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"agent_id": 3, "transcripts": [{"role": "user", "content": "Old."}]})
    return lambda: answered(scene.caller.put("/v1/calls/5", CALL_WITH_ISSUES), 200)


def post_call(scene: Scene) -> Callable[[], Any]:
    return lambda: answered(scene.caller.post("/v1/calls", CALL_WITH_ISSUES, headers=KEYED), 201)


def post_report(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"status": "in_progress", "agent_id": 3})
    said = {"title": "Rude", "severity": "critical"}
    return lambda: answered(scene.caller.post("/v1/calls/5/issue-reports", said, headers=KEYED), 201)


def patch_report(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"status": "in_progress"})
    trace = scene.caller.post("/v1/calls/5/issue-reports", {"title": "Rude"}).json()["trace_id"]
    scene.stage.settle()
    return lambda: answered(scene.caller.patch(f"/v1/issue-reports/{trace}", {"status": "resolved"}), 200)


def grade_call(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", CALL_WITH_ISSUES)
    event = scene.on_the_bus("call.completed")
    return lambda: scene.stage.invoke("GradeCallFunction", event)


def file_reports(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", CALL_WITH_ISSUES)
    scene.stage.invoke("GradeCallFunction", scene.on_the_bus("call.completed"))
    event = scene.on_the_bus("call.graded")
    return lambda: scene.stage.invoke("FileReportsFunction", event)


def file_foreign_reports(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"status": "in_progress"})
    grade = {"score": 0.5, "detected_issues": [{"ref": f"r{n}", "severity": "critical"} for n in range(5)]}
    data = {"call_id": 5, "grade": grade}
    event = {"source": "acme", "detail": {"type": "call.graded", "org_id": scene.org, "data": data}}
    return lambda: scene.stage.invoke("FileReportsFunction", event)


def group_reports(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"status": "in_progress"})
    said = {"title": "Rude", "detected_issue_ref": "rude"}
    scene.caller.post("/v1/calls/5/issue-reports", said)
    event = scene.on_the_bus("issue.reported")
    return lambda: scene.stage.invoke("GroupReportsFunction", event)


def relay_events(scene: Scene) -> Callable[[], Any]:
    stage = scene.stage
    scene.stage.settle()
    scene.caller.put("/v1/calls/5", {"status": "in_progress"})
    for title in ("Rude", "Late", "Loud"):
        scene.caller.post("/v1/calls/5/issue-reports", {"title": title})
    batches: list[dict[str, Any]] = []
    handed_on, stage._try = stage._try, lambda function, event: batches.append(event)  # type: ignore[method-assign]
    try:
        stage._pump_streams()
    finally:
        stage._try = handed_on  # type: ignore[method-assign]
    return lambda: [stage.invoke("RelayEventsFunction", batch) for batch in batches]


def seal_lists(scene: Scene) -> Callable[[], Any]:
    scene.caller.put("/v1/calls/5", {"status": "in_progress", "agent_id": 3})
    call = calls.find(scene.org, 5)
    said = [issue_reports.ReportIn(title="t", severity=level) for level in ("info", "warning") for _ in range(4)]
    for _ in range(2):
        issue_reports.add(scene.org, issue_reports.prepare(call, said, 1, 1_750_000_000_000))
    keys = dynamo.pack(issue_reports._key(scene.org, 16))
    arn = "arn:aws:dynamodb:us-east-1:1:table/IssueReportsTable/stream/now"
    event = {"Records": [{"eventSourceARN": arn, "dynamodb": {"Keys": keys}}]}

    def act() -> None:
        scene.stage.invoke("SealListsFunction", event)
        assert issue_reports.lists._mark(scene.org).sealed == 1

    return act


ACTS = (
    put_call,
    replace_call,
    post_call,
    post_report,
    patch_report,
    grade_call,
    file_reports,
    file_foreign_reports,
    group_reports,
    relay_events,
    seal_lists,
)


def answered(answer: Answer, *statuses: int) -> Answer:
    assert answer.status in statuses, answer.text
    return answer


def scene_of(stage: Inside) -> Scene:
    return Scene(stage, stage.caller())


def check(scene: Scene, act: str, first: Answer | None) -> None:
    """Nothing is lost, nothing is there twice, and every count says what is there."""
    shown = scene.caller.get("/v1/calls").json()
    assert [call["call_id"] for call in shown["results"]] == ([first.json()["call_id"]] if act == "post_call" else [5])
    assert shown["total"] == 1
    call = shown["results"][0]
    assert calls.page(scene.org, CallQuery(agent_id=call["agent_id"]))[1] == 1
    reports = issue_reports.page(scene.org, ReportQuery(limit=200))
    assert [report.id for report in issue_reports.of_call(calls.find(scene.org, call["call_id"]))] == [
        report.id for report in reports
    ]
    assert call["issue_count"] == len(reports)
    assert call["critical_issue_count"] == sum(report.said.severity == "critical" for report in reports)
    refs = Counter(r.said.detected_issue_ref for r in reports if r.said.source == "system")
    assert set(refs.values()) <= {1}
    for status in ("open", "acknowledged", "resolved"):
        total = issue_reports.lists.page(
            scene.org, issue_reports.Filter(wanted=ReportQuery(status=status).wants), offset=0, limit=1, total=True
        ).total
        assert total == sum(report.status == status for report in reports)
    if act != "seal_lists":
        told = scene.events("issue.reported")
        assert {event["data"]["issue_report"]["id"] for event in told} == {report.id for report in reports}
        assert len({event["id"] for event in told}) == len(reports)
        assert set(issue_reports.of_pattern(scene.org, "rude")) == {r.id for r in reports if act == "group_reports"}
    match act:
        case "put_call" | "replace_call" | "post_call" | "grade_call" | "file_reports":
            grade = answered(scene.caller.get(f"/v1/calls/{call['call_id']}/grade"), 200).json()
            assert grade["status"] == call["grade_status"] == "completed"
            assert call["grade_score"] == grade["score"]
            assert len(reports) == len(grade["detected_issues"]) > 0
            completed = scene.events("call.completed")
            assert len({event["id"] for event in completed}) == (2 if act == "replace_call" else 1)
            transcript = scene.caller.get(f"/v1/calls/{call['call_id']}/transcript").json()["transcripts"]
            assert transcript == CALL_WITH_ISSUES["transcripts"]
            assert len({event["id"] for event in scene.events("call.graded")}) in (1, 2)
        case "file_foreign_reports":
            assert len(reports) == 5
            assert call["grade_score"] == 0.5
        case "post_report" | "group_reports":
            assert len(reports) == 1
        case "patch_report":
            updated = scene.events("issue_report.updated")
            assert [report.status for report in reports] == ["resolved"]
            assert len({event["id"] for event in updated}) == 1
        case "relay_events":
            assert len(reports) == 3
        case "seal_lists":
            assert len(reports) == 16


def steps_of(stage: Inside, prepare: Callable[[Scene], Callable[[], Any]]) -> list[str]:
    act = prepare(scene_of(stage))
    with stage.doom(0, landed=False):
        act()
        operations = list(stage.operations)
    stage.settle()
    return operations


@pytest.mark.parametrize("prepare", ACTS, ids=lambda prepare: prepare.__name__)
def test_a_handler_killed_between_any_two_steps_loses_nothing_and_doubles_nothing(
    stage: Inside, prepare: Callable[[Scene], Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issue_reports, "AT_ONCE", 2)
    monkeypatch.setattr(issue_reports.lists, "chunk", 16)
    steps = steps_of(stage, prepare)
    assert steps
    for step in range(1, len(steps) + 1):
        for landed in (False, True):
            scene = scene_of(stage)
            act = prepare(scene)
            with pytest.raises(Killed), stage.doom(step, landed=landed):
                act()
            first = act()
            again = act() if prepare in (put_call, post_call, post_report, patch_report) else first
            if isinstance(first, Answer):
                assert json.loads(again.text) == json.loads(first.text), (step, landed, steps[step - 1])
            stage.settle()
            assert not stage.failures, (step, landed, steps[step - 1], stage.failures)
            check(scene, prepare.__name__, first)
