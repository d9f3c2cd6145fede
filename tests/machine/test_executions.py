"""Shadow tests from the request to the verdict: the template's state machine run for real, against real providers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from bench.model_server import ModelServer, completion

from cloud import Client, Cloud
from fixloop import rehearsal
from fixloop.rehearsal import Batch
from fixloop.storage import shadow_tests as store
from machine.scenes import RIGHT, WRONG, Scene

MODEL = "openai:acme/small"
Scenes = Callable[..., Scene]
Provider = Callable[..., Any]


def test_a_fix_that_helps_is_found_to_improve_every_trace(scene: Scenes) -> None:
    here = scene()
    made = here.test()
    assert made["status"] == "pending"
    here.cloud.settle()
    shown = here.shown(made["id"])
    assert shown["status"] == "completed"
    assert shown["results"] == {"improved": 3, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}
    assert shown["progress"] == {"done": 3, "total": 3}
    assert [line["traceId"] for line in shown["traceResults"]] == here.traces
    assert "30 days" in shown["traceResults"][0]["explanation"]
    assert here.cloud.failures == []


def test_while_a_test_runs_fix_and_issue_are_testing_and_afterwards_the_issue_can_be_deleted(scene: Scenes) -> None:
    here = scene()
    made = here.test()
    refused = here.caller("DELETE", f"/api/v2/issues/{here.issue}")
    assert refused.status == 409
    here.cloud.settle()
    assert here.caller.get(f"/api/fixes/{here.fix}").json()["data"]["status"] == "testing"
    assert here.caller.get(f"/api/v2/issues/{here.issue}").json()["data"]["status"] == "testing"
    assert here.caller.get(f"/api/fixes/{here.fix}").json()["data"]["shadowTests"] == [
        {"id": made["id"], "status": "completed", "improvementRate": 1.0}
    ]
    assert here.caller("DELETE", f"/api/v2/issues/{here.issue}").status == 200


def test_a_trace_whose_prompt_the_fix_does_not_fit_fails_alone_and_says_why(
    scene: Scenes, traced: Callable[..., str]
) -> None:
    here = scene(2)
    other = traced(here.agent, systemPrompt="You are Bob.")
    shown = here.ended(traceIds=[*here.traces, other])
    assert shown["status"] == "completed"
    assert shown["results"]["improved"] == 2
    assert shown["results"]["improvementRate"] == 1.0
    assert f"1 of 3 traces could not be replayed and are in no count. {other}: promptDiff" in shown["results"]["error"]
    assert other not in [line["traceId"] for line in shown["traceResults"]]
    whole = here.caller.get(f"/api/shadow-tests/{shown['id']}/results").json()["data"]
    assert whole[2]["verdict"] is None
    assert "promptDiff does not apply" in whole[2]["error"]
    assert whole[0]["originalOutput"] == WRONG
    assert "30 days" in whole[0]["fixedOutput"]


def test_a_test_without_one_replayed_trace_has_failed(scene: Scenes, traced: Callable[..., str]) -> None:
    here = scene(1)
    others = [traced(here.agent, systemPrompt=f"You are number {at}.") for at in range(2)]
    shown = here.ended(traceIds=others)
    assert shown["status"] == "failed"
    assert shown["results"]["error"].startswith("No trace could be replayed. ")
    assert "improved" not in shown["results"]
    assert here.caller("DELETE", f"/api/v2/issues/{here.issue}").status == 200  # counted out again


def test_a_throttling_provider_gets_every_trace_answered_in_the_end(scene: Scenes, provider: Provider) -> None:
    here = scene(12)
    with provider(lambda _: RIGHT, cap=8) as server:
        shown = here.ended(config={"model": MODEL})
    assert shown["results"] == {"improved": 12, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}
    assert server.asked - server.throttled == 12
    assert shown["usage"] == {"inputTokens": 1200, "outputTokens": 240, "costEstimateUsd": None}


def test_a_provider_that_is_down_fails_the_test_without_being_asked_for_ever(
    scene: Scenes, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixloop.patience._LONGEST", 0.01)
    here = scene(6)
    with provider(lambda _: (500, {}, b"{}")) as server:
        shown = here.ended(config={"model": MODEL})
    assert shown["status"] == "failed"
    assert "The model endpoint failed (500)." in shown["results"]["error"]
    assert server.asked <= 6 * 3 * 5  # traces, calls for an answer, runs of the batch


def test_what_a_provider_breaks_in_one_trace_leaves_the_others_alone(
    scene: Scenes, traced: Callable[..., str], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixloop.patience._LONGEST", 0.01)
    here = scene(3)
    cursed = traced(here.agent, userMessage="Please break")

    def answers(body: dict[str, Any]) -> Any:
        return (200, {}, b"{not json") if "break" in body["messages"][-1]["content"] else RIGHT

    with provider(answers):
        shown = here.ended(traceIds=[*here.traces, cursed], config={"model": MODEL})
    assert (shown["status"], shown["results"]["improved"]) == ("completed", 3)
    assert f"{cursed}: The model endpoint's answer is not JSON." in shown["results"]["error"]


def test_a_cancelled_test_stops_within_seconds_and_keeps_what_it_has(scene: Scenes, provider: Provider) -> None:
    here = scene(8)
    answered = threading.Event()

    def answers(_: dict[str, Any]) -> str:
        answered.set()
        return RIGHT

    with provider(answers, latency=0.4) as server:
        made = here.test(config={"model": MODEL, "concurrency": 1})
        background = threading.Thread(target=here.cloud.settle)
        background.start()
        assert answered.wait(60)
        said = here.caller.patch(
            f"/api/shadow-tests/{made['id']}", {"status": "failed", "results": {"error": "enough"}}
        )
        assert said.status == 200
        assert said.json()["data"]["status"] == "failed"
        started = time.monotonic()
        background.join(60)
        here.cloud.settle()
        assert time.monotonic() - started < 20
        asked = server.asked
    shown = here.shown(made["id"])
    assert asked < 8
    assert shown["status"] == "failed"
    assert shown["results"]["error"] == "enough"
    assert shown["progress"]["done"] == len(shown["traceResults"]) < 8
    assert here.caller("DELETE", f"/api/v2/issues/{here.issue}").status == 200
    again = here.caller.patch(f"/api/shadow-tests/{made['id']}", {"status": "running"})
    assert (again.status, again.json()["error"]["code"]) == (409, "CONFLICT")


def quiet(server: ModelServer) -> int:
    """How often a provider was asked, once whoever is asking still has come to an end."""
    before = -1
    while server.asked != before:
        before = server.asked
        time.sleep(0.3)
    return before


def test_a_worker_killed_on_the_way_loses_nothing_and_the_next_redoes_only_what_is_missing(
    scene: Scenes, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = scene(10)
    monkeypatch.setattr(store, "AT_ONCE", 2)
    stored, dying = store.record, {"at": 2}

    def dies(*given: Any) -> int:
        if dying["at"] == 0:
            dying["at"] = -1
            raise KeyboardInterrupt("killed")  # nothing catches it: the worker ends here and now
        dying["at"] -= 1
        return stored(*given)

    monkeypatch.setattr(store, "record", dies)
    with provider(lambda _: RIGHT) as server:
        made = here.test(config={"model": MODEL, "concurrency": 1})
        here.cloud._pump_streams()
        rehearsal.prepare(here.caller.org, made["id"], 1_776_709_512_000)
        batch = Batch(org=here.caller.org, test=made["id"], batch=0, first=0, traceIds=here.traces, inFlight=1)
        with pytest.raises(KeyboardInterrupt):
            rehearsal.replay_batch(batch, time.monotonic() + 60)
        before = here.shown(made["id"])
        assert before["progress"] == {"done": len(before["traceResults"]), "total": 10}
        done = before["progress"]["done"]
        assert 0 < done < 10
        asked = quiet(server)
        assert rehearsal.replay_batch(batch, time.monotonic() + 60) == 10 - done
        assert server.asked - asked == 10 - done
        assert rehearsal.replay_batch(batch, time.monotonic() + 60) == 0  # redriven once more: nothing is missing
    rehearsal.conclude(here.caller.org, made["id"], 1_776_709_513_000)
    shown = here.shown(made["id"])
    assert shown["results"] == {"improved": 10, "unchanged": 0, "regressed": 0, "improvementRate": 1.0}
    assert [line["traceId"] for line in shown["traceResults"]] == here.traces


def test_a_batch_run_twice_at_the_same_time_counts_every_trace_once(scene: Scenes, provider: Provider) -> None:
    here = scene(12)
    with provider(lambda _: RIGHT, latency=0.02):
        made = here.test(config={"model": MODEL})
        rehearsal.prepare(here.caller.org, made["id"], 1_776_709_512_000)
        batch = Batch(org=here.caller.org, test=made["id"], batch=0, first=0, traceIds=here.traces, inFlight=4)
        runs = [threading.Thread(target=rehearsal.replay_batch, args=(batch, time.monotonic() + 60)) for _ in range(3)]
        for run in runs:
            run.start()
        for run in runs:
            run.join(60)
    tally = store.sum_of_batches(here.caller.org, made["id"])
    assert (tally.improved, tally.done, tally.input_tokens) == (12, 12, 1200)


def test_an_execution_stopped_from_outside_ends_its_test(scene: Scenes, provider: Provider) -> None:
    here = scene(6)
    answered = threading.Event()

    def answers(_: dict[str, Any]) -> str:
        answered.set()
        return RIGHT

    with provider(answers, latency=0.5):
        made = here.test(config={"model": MODEL, "concurrency": 1})
        background = threading.Thread(target=here.cloud.settle)
        background.start()
        assert answered.wait(60)
        arn = rehearsal.execution_arn(here.caller.org, made["id"])
        here.cloud.client("stepfunctions").stop_execution(executionArn=arn)
        background.join(60)
        here.cloud.settle()
    shown = here.shown(made["id"])
    assert shown["status"] == "failed"
    assert "the execution was stopped" in shown["results"]["error"]


def test_the_event_of_a_new_test_starts_one_execution_however_often_it_comes(scene: Scenes) -> None:
    here = scene(2)
    made = here.test()
    event = {"source": "fixloop", "detail-type": "shadow_test.created", "id": "1", "detail": {
        "type": "shadow_test.created", "org_id": here.caller.org, "time": "2026-04-20T18:25:11.002Z",
        "data": {"shadow_test_id": made["id"], "fix_id": here.fix},
    }}  # fmt: skip
    for _ in range(3):
        here.cloud.invoke("StartShadowTestsFunction", event)
    here.cloud.settle()
    assert here.shown(made["id"])["results"]["improved"] == 2
    machine = here.cloud.client("stepfunctions")
    (arn,) = here.cloud._machines
    named = [run for run in machine.list_executions(stateMachineArn=arn)["executions"] if made["id"] in run["name"]]
    assert len(named) == 1


def test_a_test_that_costs_more_than_it_may_is_stopped_and_says_so(
    scene: Scenes, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fixloop.models import Price

    monkeypatch.setattr(rehearsal, "price", lambda spec, _=None: Price(10_000, 10_000))
    monkeypatch.setattr(store, "AT_ONCE", 1)
    here = scene(8)
    with provider(lambda _: RIGHT, latency=0.05):
        shown = here.ended(config={"model": MODEL, "concurrency": 1, "maxCostUsd": 2})
    assert shown["status"] == "failed"
    assert "maxCostUsd is 2" in shown["results"]["error"]
    assert 2 <= shown["usage"]["costEstimateUsd"] < 8 * 1.2
    assert shown["progress"]["done"] == len(shown["traceResults"]) < 8


def test_a_limit_on_the_cost_needs_a_known_price(scene: Scenes, provider: Provider) -> None:
    here = scene(1)
    with provider(lambda _: RIGHT) as server:
        shown = here.ended(config={"model": MODEL, "maxCostUsd": 2})
    assert shown["status"] == "failed"
    assert "maxCostUsd cannot be kept" in shown["results"]["error"]
    assert server.asked == 0


def test_repeated_replays_ask_as_often_and_count_once(scene: Scenes, provider: Provider) -> None:
    here = scene(2)
    with provider(lambda _: RIGHT) as server:
        shown = here.ended(config={"model": MODEL, "repeat": 3})
    assert server.asked == 6
    assert shown["results"]["improved"] == 2
    assert shown["traceResults"][0]["explanation"].startswith("Mean of 3 replays.")


def test_own_graders_decide_and_a_judge_scores_a_recorded_answer_once(scene: Scenes, provider: Provider) -> None:
    here = scene(2)

    def judge(body: dict[str, Any]) -> Any:
        asked = json.dumps(body)
        if "You grade answers" not in asked:
            return RIGHT
        system = body["messages"][0]["content"]
        nonce = system.split('"id": "')[1].split('"')[0]
        score = 0.2 if "60 days" in body["messages"][-1]["content"] else 0.9
        return completion(json.dumps({"id": nonce, "explanation": "it says so", "score": score}))

    config = {"model": MODEL, "comparisonMode": "automated", "graders": [{"type": "llm_judge"}]}
    with provider(judge) as server:
        shown = here.ended(config=config)
        first = server.asked
        again = here.ended(config=config)
    assert shown["results"]["improved"] == again["results"]["improved"] == 2
    assert (shown["traceResults"][0]["originalScore"], shown["traceResults"][0]["fixedScore"]) == (0.2, 0.9)
    assert server.asked - first < first  # the recorded answers' scores were kept


def test_an_agents_model_is_asked_where_a_trace_names_none(scene: Scenes, provider: Provider) -> None:
    here = scene(3)
    assert here.caller.patch(f"/api/agents/{here.agent}", {"model": MODEL}).status == 200
    with provider(lambda _: RIGHT) as server:
        shown = here.ended()
    assert server.asked == 3
    assert shown["results"]["improved"] == 3


def test_a_test_is_cut_into_batches_of_the_size_asked_for(scene: Scenes) -> None:
    here = scene(5)
    shown = here.ended(config={"batchSize": 2})
    assert shown["config"]["batchSize"] == 2
    assert shown["results"]["improved"] == 5
    assert [line["traceId"] for line in shown["traceResults"]] == here.traces
    (arn,) = here.cloud._machines
    machine = here.cloud.client("stepfunctions")
    (run,) = [one for one in machine.list_executions(stateMachineArn=arn)["executions"] if shown["id"] in one["name"]]
    prepared = machine.describe_execution(executionArn=run["executionArn"])["input"]
    key = f"{here.caller.org}/test/{shown['id']}/batches.json"
    assert json.loads(prepared)["test"] == shown["id"]
    bucket = here.cloud.environment()["BLOBS_BUCKET"]
    cut = json.loads(here.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert [len(batch["traceIds"]) for batch in cut] == [2, 2, 1]


def test_progress_shows_while_a_test_runs(scene: Scenes, provider: Provider) -> None:
    here = scene(6)
    seen: list[dict[str, int]] = []
    with provider(lambda _: RIGHT, latency=0.4):
        made = here.test(config={"model": MODEL, "concurrency": 1})
        background = threading.Thread(target=here.cloud.settle)
        background.start()
        while background.is_alive():
            shown = here.shown(made["id"])
            if shown["status"] == "running":
                seen.append(shown["progress"])
                listed = here.caller.get("/api/shadow-tests").json()["data"][0]
                counts = listed.get("results", {})
                assert sum(counts.get(name, 0) for name in ("improved", "unchanged", "regressed")) <= 6
            time.sleep(0.1)
        background.join()
    assert [one["done"] for one in seen] == sorted(one["done"] for one in seen)
    assert {one["total"] for one in seen} == {6}
    assert any(0 < one["done"] < 6 for one in seen)


def test_an_organisation_sees_only_its_own_tests(scene: Scenes, cloud: Cloud) -> None:
    here = scene(1)
    made = here.test()
    other: Client = cloud.caller()
    assert other.get(f"/api/shadow-tests/{made['id']}").status == 404
    assert other.get("/api/shadow-tests").json()["pagination"]["total"] == 0
    assert other.patch(f"/api/shadow-tests/{made['id']}", {"status": "failed"}).status == 404
    assert other.post("/api/shadow-tests", {"fixId": here.fix, "traceIds": here.traces}).status == 404
