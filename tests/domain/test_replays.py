"""One replay from end to end, its verdict, and what counts as evidence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixloop.changes import BLOCKED, DiffDoesNotApply, parse_changes
from fixloop.errors import Invalid
from fixloop.graders import GraderIn, Score, Ungradable, panel
from fixloop.models import Completion, Price
from fixloop.models.extractive import Extractive
from fixloop.replays import THRESHOLD, model_for, original_key, replay, summary, verdict_of
from fixloop.traces import Document, Parameters, Trace

DIFF = {
    "promptDiff": "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Always verify the policy effective date matches the "
    "customer's purchase date before citing specific terms."
}
OLD = "Refund policy 2023 (outdated, replaced in January 2025): our policy allows returns within 60 days of purchase."
NEW = "Refund policy (effective January 2025): our current refund policy allows returns within 30 days of purchase."


def trace(**changes):
    return Trace(
        **{
            "id": "tr_a1b2c3",
            "agent_id": "agent_abc123",
            "system_prompt": "Answer refund questions using the knowledge base.",
            "user_message": "How long do I have to return my bike for a refund?",
            "context": [Document(id="policy-2023", text=OLD), Document(id="policy-2025", text=NEW)],
            "recorded_response": "Our refund policy allows returns within 60 days of purchase.",
            "created_at": 0,
            **changes,
        }
    )


class Says:
    """A model that always says the same."""

    def __init__(self, text):
        self.text = text

    def complete(self, prompt, *, timeout=20.0):
        self.prompt = prompt
        return Completion(self.text, 10, 5, 42)


PROMPT_FIX = parse_changes("prompt_update", DIFF)


@pytest.mark.parametrize("mode", ["side_by_side", "automated"])
def test_the_published_example_improves_and_says_why(mode):
    result = replay(trace(), PROMPT_FIX, Extractive(), mode=mode)
    assert result.verdict == "improved"
    assert "60 days" in result.original_output
    assert "30 days" in result.fixed_output
    assert "60 days" not in result.fixed_output
    assert result.original_score < 0.6 < 0.85 < result.fixed_score
    assert "says 60 days" in result.explanation
    assert "the policy says 30 days" in result.explanation


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Refund policy (2022)\nReturns are accepted within 60 days of purchase.",
         "Refund policy (effective January 2025)\nReturns are accepted within 30 days of purchase."),
        ("Returns are accepted within 60 days of purchase. Last updated 2023-04-01.",
         "As of 2025-01-01, returns are accepted within 30 days of purchase."),
        ("Old refund policy: returns are accepted within 60 days of purchase.",
         "Returns are accepted within 30 days of purchase."),
        ("Returns are accepted within 60 days of purchase.",
         "Current policy: returns are accepted within 30 days of purchase."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reversed_", [False, True])
def test_it_improves_however_the_policies_are_written(old, new, reversed_):
    context = [Document(id="a", text=old), Document(id="b", text=new)]
    result = replay(trace(context=context[::-1] if reversed_ else context), PROMPT_FIX, Extractive())
    assert "30 days" in result.fixed_output
    assert result.verdict == "improved"


def test_policies_inside_the_prompt_work_too():
    prompt = f"Answer refund questions using the knowledge base.\n{OLD}\n{NEW}"
    result = replay(trace(system_prompt=prompt, context=[]), PROMPT_FIX, Extractive())
    assert (result.verdict, "30 days" in result.fixed_output) == ("improved", True)


def test_without_a_fix_nothing_changes():
    result = replay(trace(recorded_response=OLD), None, Extractive())
    assert result.fixed_output == OLD
    assert result.verdict == "unchanged"
    assert "the same as before" in result.explanation


def test_a_worse_answer_has_regressed():
    good = trace(recorded_response="Our current refund policy allows returns within 30 days of purchase.")
    result = replay(good, PROMPT_FIX, Says("You have 90 days to return it."))
    assert result.verdict == "regressed"
    assert "says 90 days; the policy says" in result.explanation


def test_an_overly_cautious_answer_has_regressed():
    good = trace(recorded_response="Our current refund policy allows returns within 30 days of purchase.")
    result = replay(good, PROMPT_FIX, Says("I'm not sure about that. Let me connect you with a specialist."))
    assert result.verdict == "regressed"
    assert "declines to answer; the policy says" in result.explanation


def test_declining_beats_inventing_where_nobody_knows():
    asked = trace(
        user_message="Does the planner support voice dictation?",
        recorded_response="Yes, it supports dictation in 40 languages.",
    )
    result = replay(asked, PROMPT_FIX, Says("I am not sure. I can connect you with a product specialist."))
    assert result.verdict == "improved"


def test_a_replaced_document_counts_against_the_recorded_answer():
    stale = trace(context=[Document(id="policy", text="Returns are accepted within 60 days of purchase.")])
    fix = parse_changes("retrieval_update", {"replace": {"policy": "Returns are accepted within 30 days of purchase."}})
    result = replay(stale, fix, Extractive())
    assert "30 days" in result.fixed_output
    assert result.verdict == "improved"


def test_taking_away_the_only_source_is_no_improvement():
    good = trace(
        context=[Document(id="policy", text="Returns are accepted within 30 days of purchase.")],
        recorded_response="Returns are accepted within 30 days of purchase.",
    )
    result = replay(good, parse_changes("retrieval_update", {"remove": ["policy"]}), Extractive())
    assert result.verdict == "regressed"


def test_removing_the_outdated_document_improves():
    fix = parse_changes("retrieval_update", {"remove": ["policy-2023"]})
    result = replay(trace(), fix, Extractive())
    assert result.verdict == "improved"


def test_a_fact_corrected_in_the_prompt_improves():
    wrong = trace(system_prompt="You are Mia.\nReturns are accepted within 60 days of purchase.", context=[])
    fix = parse_changes(
        "prompt_update",
        {"promptDiff": "- Returns are accepted within 60 days of purchase.\n+ Returns are accepted within 30 days."},
    )
    result = replay(wrong, fix, Extractive())
    assert "30 days" in result.fixed_output
    assert result.verdict == "improved"


def test_a_guardrail_is_applied_to_the_new_answer_and_noted():
    fix = parse_changes("guardrail", {"rules": [{"contains": "60 days"}], "action": "block"})
    result = replay(trace(), fix, Says("You have 60 days."))
    assert result.fixed_output == BLOCKED
    assert result.flags
    assert "Guardrail" in result.explanation
    flagged = replay(
        trace(), parse_changes("guardrail", {"rules": [{"contains": "60"}], "action": "flag"}), Says("60 days.")
    )
    assert (flagged.fixed_output, len(flagged.flags)) == ("60 days.", 1)


def test_a_config_change_reaches_the_model():
    model = Says("ok")
    replay(trace(parameters=Parameters(temperature=0.9)), parse_changes("config_change", {"maxTokens": 7}), model)
    assert model.prompt.parameters == Parameters(temperature=0.9, max_tokens=7)


def test_a_diff_that_does_not_apply_fails_the_trace():
    with pytest.raises(DiffDoesNotApply):
        replay(trace(system_prompt="Something else."), PROMPT_FIX, Extractive())


def test_a_stored_original_score_is_taken_as_it_is():
    result = replay(trace(), PROMPT_FIX, Extractive(), original=Score(0.99, "was graded before"))
    assert result.original_score == 0.99
    assert "was graded before" in result.explanation


def test_the_key_of_a_stored_score_moves_with_the_evidence_only():
    other = parse_changes("retrieval_update", {"remove": ["policy-2023"]})
    hotter = parse_changes("config_change", {"temperature": 1})
    assert original_key(trace(), None) == original_key(trace(), hotter)
    assert original_key(trace(), None) != original_key(trace(), other)
    assert original_key(trace(), None) != original_key(trace(recorded_response="x"), None)
    assert original_key(trace(), None) != original_key(trace(), None, [{"type": "grounded"}])


def test_an_expected_answer_counts():
    expecting = trace(reference="30 days from purchase.")
    result = replay(expecting, PROMPT_FIX, Extractive())
    assert result.verdict == "improved"
    assert "reference" in result.explanation


def test_tokens_and_cost_are_added_up():
    result = replay(trace(), PROMPT_FIX, Says("30 days"), price=Price(1.0, 2.0))
    assert (result.tokens, result.latency_ms, result.cost_estimate) == (15, 42, 0.00002)
    assert replay(trace(), PROMPT_FIX, Says("30 days")).cost_estimate is None


def test_what_a_rule_cannot_measure_fails_the_trace():
    graders = panel([GraderIn(type="latency", config={"max": 5})])
    with pytest.raises(Ungradable):
        replay(trace(), PROMPT_FIX, Extractive(), graders)
    assert (
        replay(
            trace(latency_ms=900), PROMPT_FIX, Says("x"), panel([GraderIn(type="latency", config={"max": 50})])
        ).verdict
        == "improved"
    )


def test_the_model_is_the_fixes_then_the_tests_then_the_traces_then_its_agents():
    change = parse_changes("config_change", {"model": "bedrock:amazon.nova-lite-v1:0"})
    assert model_for(trace(model="openai:a/b"), change, "extractive") == "bedrock:amazon.nova-lite-v1:0"
    assert model_for(trace(model="openai:a/b"), None, "extractive") == "extractive"
    assert model_for(trace(model="openai:a/b"), None) == "openai:a/b"
    assert model_for(trace(model="gpt-4o"), None) == "extractive"
    agents = {"agent_abc123": "openai:a/c"}
    assert model_for(trace(model="gpt-4o"), None, None, agents.get) == "openai:a/c"
    assert model_for(trace(), None, None, agents.get) == "openai:a/c"
    assert model_for(trace(model="openai:a/b"), None, None, agents.get) == "openai:a/b"
    assert model_for(trace(), None, None, {"agent_abc123": "gpt-4o"}.get) == "extractive"


@pytest.mark.parametrize(
    ("original", "fixed", "verdict"),
    [
        (0.35, 0.40, "improved"),
        (0.1, 0.15, "improved"),
        (0.7, 0.65, "regressed"),
        (0.3, 0.35, "improved"),
        (0.35, 0.3999, "unchanged"),
        (0.5, 0.5, "unchanged"),
        (1.0, 0.95, "regressed"),
    ],
)
def test_a_difference_of_exactly_the_threshold_counts(original, fixed, verdict):
    assert verdict_of(original, fixed) == verdict


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 20))
def test_verdicts_follow_whole_hundredths(original, fixed, threshold):
    difference = fixed - original
    expected = (
        "improved"
        if difference >= max(threshold, 1)
        else "regressed"
        if difference <= -max(threshold, 1)
        else "unchanged"
    )
    assert verdict_of(original / 100, fixed / 100, threshold / 100) == expected


@given(st.lists(st.sampled_from(["improved", "unchanged", "regressed"])), st.integers(0, 5))
def test_a_summary_adds_up(verdicts, failed):
    found = summary(verdicts, failed)
    assert found["improved"] + found["unchanged"] + found["regressed"] == len(verdicts)
    assert found["improvementRate"] == (round(found["improved"] / len(verdicts), 4) if verdicts else 0)


def test_the_published_rate():
    assert summary(["improved"] * 8 + ["unchanged", "regressed"]) == {
        "improved": 8, "unchanged": 1, "regressed": 1, "improvementRate": 0.8
    }  # fmt: skip
    assert THRESHOLD == 0.05


def test_graders_that_do_not_fit_are_named():
    with pytest.raises(Invalid) as raised:
        panel(
            [
                GraderIn(type="regex", config={"pattern": "("}),
                GraderIn(type="grounded", config={"x": 1}),
                GraderIn(type="llm_judge"),
            ]
        )
    assert set(raised.value.fields) == {"graders.0.config", "graders.1.config.x", "graders.2.config.model"}


def test_a_line_of_a_list_is_not_outdated_by_another_line_of_the_new_list():
    old = (
        "Germany: delivery takes 10 to 12 days and costs $21.90.\nNorway: delivery takes 6 to 8 days and costs $24.00."
    )
    asked = trace(
        system_prompt="Only state what is in your documents.",
        user_message="What does delivery to Norway cost?",
        context=[Document(id="d", text=old)],
        recorded_response="Delivery to Norway costs $24.00.",
    )
    forgetful = {"replace": {"d": "Germany: delivery takes 3 to 4 days and costs $14.90."}}
    result = replay(asked, parse_changes("retrieval_update", forgetful), Extractive())
    assert result.verdict != "improved"
    assert result.original_score > 0.9
    complete = {"replace": {"d": f"{forgetful['replace']['d']}\nNorway: delivery takes 4 to 5 days and costs $18.00."}}
    better = replay(asked, parse_changes("retrieval_update", complete), Extractive())
    assert better.verdict == "improved"
    assert "$18.00" in better.fixed_output
