"""Traces from both published bodies, from a call, and what they look like on the wire."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fixloop.calls import CallIn
from fixloop.calls import received as call_received
from fixloop.traces import (
    Parameters,
    Span,
    TraceIn,
    answer_of,
    created,
    detailed,
    id_of_otlp,
    id_of_turn,
    instant,
    joined,
    listed,
    messages_of,
    of_call,
    of_spans,
    received,
)

NOW = 1_755_266_400_000
SPANS = {
    "agentId": "agent_abc123",
    "spans": [
        {
            "name": "search",
            "type": "Retrieval",
            "startTime": "2025-08-15T14:00:00Z",
            "endTime": "2025-08-15T14:00:00.200Z",
            "input": "refund",
            "output": [{"id": "policy", "text": "Returns within 30 days."}, {"page_content": "Open daily."}],
        },
        {
            "name": "get_order",
            "type": "tool",
            "startTime": 1755266400300,
            "endTime": 1755266400400,
            "output": {"order": 7},
        },
        {
            "name": "chat",
            "type": "LLM",
            "startTime": "2025-08-15T14:00:00.500Z",
            "endTime": "2025-08-15T14:00:02.400Z",
            "input": [
                {"role": "system", "content": "Answer."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "How long?"},
            ],
            "output": "30 days.",
            "model": "gpt-4o",
            "tokens": {"input": 100, "output": 20},
            "metadata": {"parameters": {"temperature": 0.2, "maxTokens": -5}},
        },
    ],
    "outcome": "failure",
}
SDK = {
    "agentId": "agent_abc123",
    "userMessage": "How long?",
    "agentResponse": "60 days.",
    "userIntent": "refund",
    "outcome": "success",
    "customFlags": ["retrieval_miss"],
    "duration": 1234.5,
    "sessionId": "s1",
    "conversationHistory": [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "Hi"},
        {"role": "agent", "content": "Hello"},
        {"role": "user", "content": "How long?"},
    ],
    "metadata": {"a": 1},
    "runEvaluation": True,
    "somethingNew": 1,
}


def trace(body):
    return received("tr_1", TraceIn.model_validate(body), NOW)


def test_spans_become_a_trace():
    made = trace(SPANS)
    assert (made.system_prompt, made.user_message, made.recorded_response) == ("Answer.", "How long?", "30 days.")
    assert [(m.role, m.content) for m in made.history] == [("user", "Hi"), ("assistant", "Hello")]
    assert [(d.id, d.text, d.kind) for d in made.context] == [
        ("policy", "Returns within 30 days.", "retrieval"),
        ("search:1", "Open daily.", "retrieval"),
        ("get_order", '{"order":7}', "tool"),
    ]
    assert (made.model, made.latency_ms, made.token_count, made.outcome) == ("gpt-4o", 2400, 120, "failure")
    assert made.parameters == Parameters(temperature=0.2)


def test_the_sdks_body_becomes_a_trace():
    made = trace(SDK)
    assert (made.system_prompt, made.user_message, made.recorded_response) == ("Answer.", "How long?", "60 days.")
    assert [(m.role, m.content) for m in made.history] == [("user", "Hi"), ("assistant", "Hello")]
    assert (made.latency_ms, made.session_id, made.custom_flags) == (1234, "s1", ["retrieval_miss"])


def test_our_own_keys_and_spans_add_to_the_sdks():
    more = {
        "systemPrompt": "Be kind.",
        "context": [{"id": "a", "text": "A"}],
        "model": "openai:acme/m",
        "parameters": {"maxTokens": 5, "topP": 0.5, "stop": "X"},
        "reference": "30 days.",
        "agentVersion": 3,
        "spans": SPANS["spans"],
    }
    made = trace({**SDK, **more})
    assert (made.system_prompt, made.recorded_response, made.reference) == ("Be kind.", "60 days.", "30 days.")
    assert [d.id for d in made.context] == ["a", "policy", "search:1", "get_order"]
    assert made.parameters == Parameters(max_tokens=5, top_p=0.5, stop=["X"])
    assert (made.model, made.agent_version) == ("openai:acme/m", 3)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "agentId"),
        ({"agentId": "a"}, ""),
        ({"agentId": "a", "userMessage": "x"}, ""),
        ({"agentId": "a", "spans": []}, ""),
        ({"agentId": "a", "spans": [{"type": "LLM", "input": "x"}]}, ""),
        ({**SDK, "outcome": "great"}, "outcome"),
        ({**SDK, "customFlags": ["rude"]}, "customFlags.0"),
        ({**SDK, "duration": -1}, "duration"),
        ({**SDK, "conversationHistory": [{"role": "ghost", "content": "x"}]}, "conversationHistory.0.role"),
        ({**SDK, "context": [{"id": "a"}]}, "context.0.text"),
        ({**SDK, "context": [{"id": "a", "text": "A"}, {"id": "a", "text": "B"}]}, "context"),
        ({**SDK, "parameters": {"topP": 7}}, "parameters.topP"),
        ({**SDK, "spans": [{"startTime": "yesterday"}]}, "spans.0.startTime"),
        ({**SDK, "spans": [{"tokens": {"input": -1}}]}, "spans.0.tokens.input"),
    ],
)
def test_bad_bodies_are_refused_by_name(body, field):
    with pytest.raises(ValidationError) as raised:
        TraceIn.model_validate(body)
    assert field in [".".join(map(str, problem["loc"])) for problem in raised.value.errors()]


def test_newer_outcomes_are_understood():
    assert trace({**SDK, "outcome": "resolved"}).outcome == "success"
    assert trace({**SDK, "outcome": "abandoned"}).outcome == "failure"
    assert trace({**SDK, "outcome": "pending"}).outcome is None


def test_a_created_trace_answers_both_kinds_of_client():
    answer = created(trace(SPANS), "org_1", evaluation_queued=True)
    assert answer["id"] == answer["traceId"] == "tr_1"
    assert (answer["spanCount"], answer["ingested"], answer["companyId"]) == (3, True, "org_1")
    assert (answer["agentId"], answer["_evaluationQueued"]) == ("agent_abc123", True)


def test_a_listed_trace_has_the_published_keys():
    assert listed(trace(SPANS)) == {
        "id": "tr_1",
        "agentId": "agent_abc123",
        "outcome": "failure",
        "userMessage": "How long?",
        "agentResponse": "30 days.",
        "latencyMs": 2400,
        "tokenCount": 120,
        "createdAt": "2025-08-15T14:00:00Z",
    }


def test_a_detail_can_be_sent_in_again():
    made = trace({**SDK, "spans": SPANS["spans"], "reference": "r", "context": [{"id": "a", "text": "A"}]})
    again = detailed(made)
    back = received("tr_1", TraceIn.model_validate({**again, "spans": []}), NOW)
    for name in (
        "system_prompt",
        "history",
        "user_message",
        "recorded_response",
        "context",
        "reference",
        "parameters",
        "model",
    ):
        assert getattr(back, name) == getattr(made, name)
    assert again["spans"][0]["startTime"] == "2025-08-15T14:00:00.000Z"


CALL = {
    "agent_id": 1,
    "prompt_snapshot": "You are Mia.",
    "transcripts": [
        {"role": "assistant", "content": "Hello!", "start_ms": 0, "end_ms": 900},
        {"role": "user", "content": "Where is", "start_ms": 1000, "end_ms": 1500},
        {"role": "user", "content": "my order?", "start_ms": 1500, "end_ms": 2000},
        {"role": "agent", "content": "Let me check.", "start_ms": 2600, "end_ms": 3000},
        {"role": "tool_call", "content": {"name": "get_order"}},
        {"role": "tool_response", "content": {"name": "get_order", "result": {"ships": "Tuesday"}}},
        {"role": "assistant", "content": "It ships Tuesday.", "start_ms": 4000, "end_ms": 5000},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye!"},
    ],
}


def test_a_call_becomes_a_trace_per_agent_turn():
    call = call_received(7, CallIn.model_validate(CALL), NOW)
    made = of_call("org_1", 7, call.body, agent_id="agent_1", created_at=NOW, agent_version=2, outcome="failure")
    assert [t.turn_index for t in made] == [0, 3, 6, 8]
    assert [t.user_message for t in made] == ["", "Where is\nmy order?", "Where is\nmy order?", "Thanks"]
    assert [m.content for m in made[2].history] == ["Hello!", "Let me check."]
    assert [m.content for m in made[3].history] == [
        "Hello!",
        "Where is",
        "my order?",
        "Let me check.",
        "It ships Tuesday.",
    ]
    assert [len(t.context) for t in made] == [0, 0, 1, 1]
    assert (made[2].context[0].id, made[2].context[0].kind) == ("tool:get_order:5", "tool")
    assert "Tuesday" in made[2].context[0].text
    assert (made[1].latency_ms, made[1].created_at, made[1].system_prompt) == (600, NOW + 3000, "You are Mia.")
    again = of_call("org_1", 7, call.body, agent_id="agent_1", created_at=NOW + 1)
    assert [t.id for t in again] == [t.id for t in made]
    assert made[1].id == id_of_turn("org_1", 7, 3)


def test_ids_differ_between_organisations_calls_and_turns():
    ids = {id_of_turn(org, call, turn) for org in "ab" for call in (1, 11) for turn in (1, 11)} | {
        id_of_otlp("a", "1" * 32)
    }
    assert len(ids) == 9
    assert all(one.startswith("tr_") and len(one) == 27 for one in ids)


def test_spans_that_come_later_complete_a_trace():
    spans = [Span.model_validate({**span, "id": str(at)}) for at, span in enumerate(SPANS["spans"])]
    assert of_spans("tr_1", "a", spans[:2], NOW) is None
    both = joined(joined(spans[2:], spans[:2]), spans[1:])
    assert [span.id for span in both] == ["0", "1", "2"]
    made = of_spans("tr_1", "a", both, NOW)
    assert made is not None
    assert (made.recorded_response, len(made.context)) == ("30 days.", 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ({"role": "assistant", "content": "a"}, "a"),
        ([{"role": "assistant", "parts": [{"type": "text", "content": "a"}]}], "a"),
        ({"choices": [{"message": {"role": "assistant", "content": "a"}}]}, "a"),
        ({"content": [{"type": "text", "text": "a"}]}, "a"),
        ({"answer": "a"}, "a"),
        (None, ""),
        ([], ""),
    ],
)
def test_answers_of_many_shapes_are_read(value, text):
    assert answer_of(value) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "messages", "parts", "type", "text", "message", "choices"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_shape_of_input_or_output_breaks_the_reader(value):
    messages_of(value)
    answer_of(value)
    for kind in ("LLM", "Retrieval", "Tool", "Chain"):
        of_spans("tr_1", "a", [Span(type=kind, input=value, output=value), Span(type="LLM", output="x")], NOW)


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2025-08-15T14:00:00Z", NOW),
        (NOW, NOW),
        (NOW // 1000, NOW),
        (NOW * 1000, NOW),
        (str(NOW * 1_000_000), NOW),
        (None, None),
    ],
)
def test_instants_are_read_in_any_unit(value, at):
    assert instant(value) == at
