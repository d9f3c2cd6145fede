"""The loop on the deployed stack: a call comes in, is graded, and what is wrong with it is worked off in the feed."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from typer.testing import CliRunner

from deployed.world import SAMPLES, Caller, World, eventually
from fixloop_cli import manage
from fixloop_cli.main import app

pytestmark = [pytest.mark.deployed, pytest.mark.xdist_group("deployed")]

PUBLISHED = [
    "id",
    "call_id",
    "source",
    "severity",
    "status",
    "title",
    "description",
    "reported_by_id",
    "timestamp_seconds",
    "detected_issue_ref",
    "metadata",
    "trace_id",
    "created_at",
    "updated_at",
]
CLEAN, OUTDATED, SLOW, ANGRY, AGAIN, SILENT = (sample["call_id"] for sample in SAMPLES)


def graded_elsewhere(org: str, call_id: Any, ref: str, **issue: Any) -> dict[str, Any]:
    found = {"ref": ref, "title": "Answer was curt", "severity": "info", "timestamp_seconds": 6, **issue}
    data = {"call_id": call_id, "grade": {"score": 0.7, "detected_issues": [found]}}
    return {"type": "call.graded", "org_id": org, "data": data}


def test_graded_calls_become_reports_that_are_worked_off(world: World, caller: Caller):
    for sample in SAMPLES:
        assert caller("PUT", f"/v1/calls/{sample['call_id']}", sample["call"]).status_code == 201
    grades = caller.ended(*(sample["call_id"] for sample in SAMPLES))
    reports = caller.filed(grades)

    # One system report for each issue that a grade detected, and nothing for a call that went well or without speech.
    for call_id, found in reports.items():
        refs = sorted(issue["ref"] for issue in grades[call_id]["detected_issues"])
        assert sorted(report["detected_issue_ref"] for report in found) == refs
    assert reports[CLEAN] == reports[SILENT] == []
    assert grades[SILENT]["call_outcome"] == "no_conversation"
    assert any("60 days" in report["evidence"] for report in reports[OUTDATED])
    assert "long-silence" in {report["detected_issue_ref"] for report in reports[SLOW]}
    assert len(reports[ANGRY]) >= 2

    # The feed has them all, newest first, in the published form.
    feed = caller.get("/v1/issue-reports")
    assert sorted(report["id"] for report in feed) == sorted(one["id"] for found in reports.values() for one in found)
    assert [report["id"] for report in feed] == sorted((report["id"] for report in feed), reverse=True)
    for report in feed:
        assert list(report)[:14] == PUBLISHED
        assert report["source"] == "system"
        assert report["status"] == "open"
        assert report["reported_by_id"] is None
        assert report["detected_issue_ref"]
        assert isinstance(report["timestamp_seconds"], int)

    # A person adds one; the call counts them.
    said = {
        "title": "Promised what we do not do",
        "severity": "critical",
        "timestamp_seconds": 8,
        "metadata": {"qa": 1},
    }
    mine = caller.ok("POST", f"/v1/calls/{OUTDATED}/issue-reports", said)
    assert mine | said == mine
    assert mine["source"] == "user"
    assert isinstance(mine["reported_by_id"], int)
    for call_id in reports:
        of_call = caller.get(f"/v1/calls/{call_id}/issue-reports")
        call = caller.get(f"/v1/calls/{call_id}")
        assert call["issue_count"] == len(of_call) == len(reports[call_id]) + (call_id == OUTDATED)
        assert call["critical_issue_count"] == sum(report["severity"] == "critical" for report in of_call)
        assert call["grade_score"] == grades[call_id]["score"]

    # Someone works it off, under either form of its id; the filters follow.
    seen = caller.ok("PATCH", f"/v1/issue-reports/{mine['trace_id']}", {"status": "acknowledged"})
    assert seen["status"] == "acknowledged"
    done = caller.ok("PATCH", f"/v1/issue-reports/{mine['id']}", {"status": "resolved"})
    assert done | {"status": "open", "updated_at": mine["updated_at"]} == mine
    everything = caller.get("/v1/issue-reports")
    assert len(everything) == len(feed) + 1
    for name, values in {
        "status": ("open", "acknowledged", "resolved"),
        "severity": ("info", "warning", "critical"),
        "source": ("user", "system"),
    }.items():
        for value in values:
            assert caller.get("/v1/issue-reports", **{name: value}) == [one for one in everything if one[name] == value]
    assert caller.get("/v1/issue-reports", status="resolved", severity="critical", source="user", agent_id=12) == [done]
    assert caller.get("/v1/issue-reports", agent_id=13) == []
    assert caller.get("/v1/issue-reports", start_date=done["created_at"], limit=1) == [done]
    bulk = {"trace_ids": [report["trace_id"] for report in feed], "status": "acknowledged"}
    assert caller.ok("PATCH", "/v1/issue-reports", bulk) == {"updated": len(feed)}
    assert caller.get("/v1/issue-reports", status="open") == []


def test_a_grade_made_elsewhere_is_filed_once_however_often_it_comes(world: World, caller: Caller):
    caller.ok("PUT", f"/v1/calls/{CLEAN}", SAMPLES[0]["call"])
    caller.ended(CLEAN)
    world.put_event("call.graded", graded_elsewhere(caller.org, CLEAN, "tone.curt"), times=3)
    world.put_event("call.graded", graded_elsewhere(caller.org, CLEAN, "tone.cold", severity="error"))
    reports = eventually(lambda: caller.get("/v1/issue-reports"), lambda found: len(found) >= 2)
    assert sorted((one["detected_issue_ref"], one["severity"]) for one in reports) == [
        ("tone.cold", "critical"),
        ("tone.curt", "info"),
    ]
    # Reports are listed under their pattern, so that all alike are worked off together.
    pattern = {"pattern_key": "tone.curt", "status": "resolved"}
    assert eventually(lambda: caller.ok("PATCH", "/v1/issue-reports", pattern)["updated"]) == 1
    call = caller.get(f"/v1/calls/{CLEAN}")
    assert (call["issue_count"], call["critical_issue_count"]) == (2, 1)


def test_what_cannot_be_filed_ends_in_the_queue_with_its_reason_and_holds_up_no_other(
    world: World, caller: Caller, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIXLOOP_DIRECTORY", str(world.directory))

    def reasons() -> list[str]:
        return [letter.reason for letter in manage.letters(world.target, hidden_seconds=0)]

    caller.ok("PUT", f"/v1/calls/{CLEAN}", SAMPLES[0]["call"])
    before = len(reasons())
    world.put_event("call.graded", graded_elsewhere(caller.org, "not-a-call", "tone.curt"))
    world.put_event("call.graded", graded_elsewhere(caller.org, 1234567, "tone.curt"))
    world.put_event("call.graded", graded_elsewhere(caller.org, CLEAN, "tone.curt"))
    assert len(eventually(lambda: caller.get("/v1/issue-reports"))) == 1
    said = eventually(reasons, lambda found: len(found) >= before + 2)
    assert any("call_id: Input should be a valid integer" in reason for reason in said)
    assert any("Call 1234567 not found" in reason for reason in said)

    shown = CliRunner().invoke(app, ["--local", "dead-letters", "list"])
    assert shown.exit_code == 0, shown.output
    assert "call.graded" in shown.output
    assert "Call 1234567 not found" in shown.output
    assert f"{before + 2} dead letters" in shown.output

    # What was missing is there now: playing the letters again files it; the malformed one comes back.
    caller.ok("PUT", "/v1/calls/1234567", SAMPLES[0]["call"])
    assert CliRunner().invoke(app, ["--local", "dead-letters", "redrive"]).exit_code == 0
    assert len(eventually(lambda: caller.get("/v1/calls/1234567/issue-reports"))) == 1
    left = eventually(reasons, bool)
    assert not any("1234567" in reason for reason in left)


def test_a_transcript_too_large_for_an_item_is_kept_whole_and_graded(world: World, caller: Caller):
    noise = random.Random(5)
    turns = [
        {
            "role": ("user", "assistant")[index % 2],
            "content": base64.b64encode(noise.randbytes(9_000)).decode() + " שלום 🙂",
            "start_ms": index * 10_000,
            "end_ms": index * 10_000 + 9_000,
        }
        for index in range(60)
    ]
    call = {**SAMPLES[0]["call"], "transcripts": turns}
    assert caller("PUT", "/v1/calls/77", call).status_code == 201
    assert caller.get("/v1/calls/77/transcript") == {"call_id": 77, "transcripts": turns}
    prefix = f"{caller.org}/call/77/"  # beside it come the traces of its turns
    stored = world.client("s3").list_objects_v2(Bucket=world.stack.outputs["BlobsBucket"], Prefix=prefix)
    assert stored["KeyCount"] == 1
    assert caller.ended(77)[77]["status"] == "completed"
    assert caller("PUT", "/v1/calls/77", {**call, "transcripts": turns[:1]}).status_code == 200
    assert caller.get("/v1/calls/77/transcript")["transcripts"] == turns[:1]
