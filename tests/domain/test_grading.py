"""What the grader finds in a call, what it lets pass, and how its score adds up."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixloop.grading import GRADER_MODEL, GRADER_VERSION, Grade, GradedCall, GraderSettings, Turn, grade
from fixloop.grading.rubric import RUBRIC

PROMPT = """You are Mia, the phone agent of Northwind Bikes.
Refunds are accepted within 30 days of purchase.
Standard shipping takes 3 to 5 business days and costs $4.99.
Express shipping takes 1 business day and costs $12.50.
We are open from 9 a.m. to 6 p.m., Monday to Saturday. Our number is 555-0134.
Members get 15% off. The Summit frame costs $1,200.50.
Frames carry a warranty of two years."""


def call(*rows: Any, prompt: str = PROMPT, pause: int = 800, **fields: Any) -> GradedCall:
    """A call from (role, content) rows, spoken one after the other."""
    turns, at = [], 1000
    for row in rows:
        role, content, *gap = row
        tool = role.startswith("tool")
        at += gap[0] if gap else 100 if tool else pause
        took = 100 if tool else 40 * len(str(content)) + 300
        turns.append(Turn(role=role, content=content, start_ms=at, end_ms=at + took))
        at += took
    return GradedCall(
        **{
            "call_id": 1,
            "turns": turns,
            "prompt_snapshot": prompt,
            "duration_seconds": at / 1000 + 2,
            "status": "completed",
        }
        | {"end_reason": "caller_hangup"}
        | fields
    )


DEFAULT = GraderSettings()


def refs(graded: GradedCall, thresholds: GraderSettings = DEFAULT) -> list[str]:
    return [issue.ref for issue in grade(graded, thresholds).detected_issues]


def only(graded: GradedCall, ref: str) -> Any:
    issues = grade(graded).detected_issues
    assert [i.ref for i in issues] == [ref]
    return issues[0]


HELLO = ("assistant", "Thanks for calling Northwind Bikes, this is Mia. How can I help?")
BYE = ("assistant", "You're welcome. Have a great day, goodbye!")
THANKS = ("user", "Great, thank you, bye.")

# ---- clean calls ----------------------------------------------------------------------------------------------------

CLEAN = {
    "refund in words": call(
        HELLO,
        ("user", "Hi, how long do I have to return a bike?"),
        ("assistant", "You have thirty days from the purchase to ask for a refund."),
        ("user", "And shipping?"),
        ("assistant", "Standard shipping takes three to five business days and is four ninety-nine."),
        THANKS,
        BYE,
    ),
    "order status by tool": call(
        HELLO,
        ("user", "Where is my order A-10234?"),
        ("assistant", "Let me look that up for you."),
        ("tool_call", {"name": "get_order", "arguments": {"order_id": "A-10234"}}),
        ("tool_response", {"status": "shipped", "eta": "2026-03-10", "carrier": "UPS", "total_cents": 124549}),
        ("assistant", "Order A-10234 was shipped with UPS and arrives on March 10th. The total was $1,245.49."),
        THANKS,
        BYE,
        end_reason="agent_end",
    ),
    "booking": call(
        HELLO,
        ("user", "Can I bring my bike in on Tuesday at half past two, so two thirty?"),
        ("tool_call", '{"name": "book", "arguments": {"at": "2026-03-10T14:30:00"}}'),
        ("tool_response", '{"success": true, "error": null, "confirmation": "77120", "at": "2026-03-10T14:30:00"}'),
        ("assistant", "You're booked for Tuesday, March tenth at 2:30 p.m. Your confirmation number is 7 7 1 2 0."),
        ("user", "Perfect, thanks."),
        ("assistant", "I'll send you a text with the details if you'd like."),
        ("user", "No need, bye"),
        BYE,
    ),
    "sum": call(
        HELLO,
        ("user", "I want the Summit frame with express shipping. What is that in total?"),
        ("assistant", "The frame is $1,200.50 and express shipping is $12.50, so the total comes to $1,213.00."),
        ("user", "And for a member?"),
        ("assistant", "With fifteen percent off the frame is $1,020.43, after the discount."),
        THANKS,
        BYE,
    ),
    "ordinals and counts": call(
        HELLO,
        ("user", "My frame broke."),
        (
            "assistant",
            "I'm sorry to hear that. There are two things to do. First, take a picture. Second, send it to us. "
            "This is the 1st step of three.",
        ),
        ("user", "How long is the warranty?"),
        ("assistant", "Twenty-four months for the frame."),
        THANKS,
        BYE,
    ),
    "phone number": call(
        HELLO,
        ("user", "My number is 415-555-0188, call me back please. It's been 45 days since I bought it."),
        ("assistant", "So that's four one five, five five five, oh one eight eight. Is that right?"),
        ("user", "Yes."),
        ("assistant", "Thank you. And as you said it was 45 days ago. You can reach us at 555-0134 too, from 9 to 6."),
        THANKS,
        BYE,
    ),
    "hold and apology": call(
        HELLO,
        ("user", "Is the Summit in stock?"),
        ("assistant", "One moment please, just a second."),
        ("tool_call", {"name": "stock"}),
        ("tool_response", {"in_stock": 4, "errors": []}),
        ("assistant", "Yes, we have four of them. I'm 100% sure. Is there anything else I can help you with?"),
        ("user", "Sorry, what?"),
        ("assistant", "Yes, we have four of them. Is there anything else I can help you with?"),
        ("user", "No, that's all."),
        BYE,
    ),
    "transfer": call(
        HELLO,
        ("user", "I would like to speak to a person please."),
        ("assistant", "Of course, I'll transfer you to a colleague now."),
        ("tool_call", {"name": "transfer_call", "arguments": {"to": "support"}}),
        end_reason="transfer",
    ),
    "conditional promise": call(
        HELLO,
        ("user", "What about a refund for a helmet?"),
        ("assistant", "If you give me the order number, I'll process it. I can also transfer you to the shop."),
        ("user", "I'll find it and call back, thanks."),
        ("assistant", "Sounds good, take care!"),
    ),
    "polite frustration words": call(
        HELLO,
        (
            "user",
            "I'm not angry at all, no worries, I wonder about opening times on Scunthorpe Street. Hell of a winter!",
        ),
        ("assistant", "We open at nine in the morning and close at six. We could see you at 10 a.m. for instance."),
        THANKS,
        BYE,
    ),
    "chat without times": GradedCall(
        call_id=2,
        prompt_snapshot=PROMPT,
        turns=[
            Turn(role="user", content="do you ship to norway"),
            Turn(role="agent", content="We do! Express takes one business day and costs $12.50."),
            Turn(role="user", content="thx 👍"),
        ],
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_good_call_has_no_issues(name):
    found = grade(CLEAN[name])
    assert [(i.ref, i.evidence) for i in found.detected_issues] == []
    assert found.score == 1.0
    assert found.summary.startswith("No issues found")
    assert found.caller_welfare_violation is False


def test_a_good_call_that_ends_in_thanks_is_a_success():
    found = grade(CLEAN["refund in words"])
    assert (found.status, found.call_outcome, found.goal_achievement) == ("completed", "success", "achieved")
    assert found.goal_reasoning
    assert found.outcome_reasoning


def test_the_grader_names_itself():
    assert (GRADER_MODEL, GRADER_VERSION) == ("fixloop-detectors", "1")


# ---- no conversation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [Turn(role="assistant", content="Hello?")],
        [Turn(role="user", content="  "), Turn(role="assistant", content="Hello?")],
        [Turn(role="user", content="..."), Turn(role="assistant", content="")],
        [Turn(role="tool_response", content={"error": "x"})],
    ],
)
def test_a_call_without_speech_is_no_conversation_and_no_failure(turns):
    found = grade(GradedCall(call_id=1, turns=turns, end_reason="error", prompt_snapshot=PROMPT))
    assert found.call_outcome == "no_conversation"
    assert (found.status, found.score, found.detected_issues) == ("completed", None, [])
    assert found.goal_achievement == "no_opportunity"


def test_a_caller_who_never_got_an_answer_is_a_failure():
    assert grade(call(("user", "Hello, is anybody there?"))).call_outcome == "failure"


# ---- silence --------------------------------------------------------------------------------------------------------


def test_a_long_silence_is_reported_at_the_second_it_began():
    issue = only(
        call(HELLO, ("user", "What do you have?"), ("agent", "All kinds of bikes.", 6500), THANKS, BYE), "long-silence"
    )
    assert issue.title == "Agent paused too long"
    assert issue.metadata["seconds"] == 6.5
    assert issue.turn_index == 2
    assert issue.timestamp_seconds == 6
    assert "What do you have?" in issue.evidence
    assert 1 in issue.relevant_turn_indices


def test_the_silence_threshold_is_inclusive_and_a_setting():
    slow = call(HELLO, ("user", "What do you have?"), ("agent", "All kinds of bikes.", 4000), THANKS, BYE)
    assert refs(slow) == ["long-silence"]
    assert refs(slow, GraderSettings(silence_seconds=4.001)) == []


def test_a_tool_call_does_not_excuse_a_silence_but_is_mentioned():
    rows = [HELLO, ("user", "Is it here?"), ("tool_call", {"name": "stock"}), ("tool_response", {"n": 1}, 5000)]
    issue = only(call(*rows, ("agent", "Yes, it is."), THANKS, BYE), "long-silence")
    assert "stock" in issue.description


def test_a_caller_who_speaks_again_restarts_the_wait():
    rows = [HELLO, ("user", "Hm."), ("user", "What do you have?", 9000), ("agent", "Bikes of all kinds.")]
    assert refs(call(*rows, THANKS, BYE)) == []


def test_a_call_that_ends_without_an_answer_is_a_silence():
    assert refs(call(HELLO, ("user", "What do you have?"), duration_seconds=30)) == ["long-silence"]


def test_without_times_no_detector_of_timing_speaks():
    timed = call(HELLO, ("user", "What do you have?"), ("agent", "Bikes and then some", 9000))
    bare = timed.model_copy(
        update={"turns": [t.model_copy(update={"start_ms": None, "end_ms": None}) for t in timed.turns]}
    )
    assert refs(bare) == []


# ---- said again -----------------------------------------------------------------------------------------------------


def test_a_caller_saying_the_same_thing_again_is_reported():
    again = ("user", "I need a new tire for my Summit bike please.")
    rows = [HELLO, again, ("agent", "Which colour would you like?"), again, ("agent", "Sure, we have tires.")]
    issue = only(call(*rows, THANKS, BYE), "caller-repeated")
    assert issue.turn_index == 3
    assert issue.relevant_turn_indices == [1, 3]


@pytest.mark.parametrize(
    "words",
    [
        "I already told you, it is red",
        "As I said, the red one",
        "I've just said that",
        "How many times do I have to say it",
    ],
)
def test_a_caller_saying_that_they_said_it_is_reported(words):
    assert refs(call(HELLO, ("user", words), ("agent", "My apologies, the red bike."), THANKS, BYE)) == [
        "caller-repeated"
    ]


def test_short_answers_said_twice_are_no_repetition():
    rows = [
        HELLO,
        ("user", "Yes please."),
        ("agent", "In red?"),
        ("user", "Yes please."),
        ("agent", "And a bell?"),
        ("user", "Yes please."),
    ]
    assert refs(call(*rows, BYE)) == []


def test_alike_words_with_another_number_are_no_repetition():
    one, two = (("user", f"Please add the item number {n} to my basket") for n in (41, 42))
    assert refs(call(HELLO, one, ("agent", "Done."), two, ("agent", "Added too."), THANKS, BYE)) == []


def test_an_agent_giving_the_same_answer_again_is_reported():
    answer = ("agent", "Our bikes are made of steel and painted by hand in the north.")
    issue = only(
        call(HELLO, ("user", "Is it light?"), answer, ("user", "But how heavy?"), answer, THANKS, BYE), "agent-repeated"
    )
    assert (issue.turn_index, issue.metadata["count"]) == (4, 1)


def test_an_agent_that_was_asked_to_repeat_may():
    answer = ("agent", "Our bikes are made of steel and painted by hand in the north.")
    assert (
        refs(call(HELLO, ("user", "Is it light?"), answer, ("user", "Could you repeat that?"), answer, THANKS, BYE))
        == []
    )


# ---- interruption and ends ------------------------------------------------------------------------------------------


def test_an_agent_that_talks_into_the_callers_turn_interrupts():
    rows = [HELLO, ("user", "I wanted to ask whether the bikes"), ("agent", "We sell bikes!", -900)]
    issue = only(call(*rows, THANKS, BYE), "agent-interrupted")
    assert issue.metadata["overlap_ms"] == 900
    assert "I wanted to ask" in issue.evidence


def test_a_small_overlap_and_a_listening_word_are_no_interruption():
    assert refs(call(HELLO, ("user", "I wanted to ask whether"), ("agent", "We sell bikes!", -300), THANKS, BYE)) == []
    assert refs(call(HELLO, ("user", "I wanted to ask whether"), ("agent", "Mm-hm, okay.", -900), THANKS, BYE)) == []


def test_a_caller_who_interrupts_the_agent_is_not_the_agents_fault():
    assert refs(call(HELLO, ("user", "Yes hello there", -900), ("agent", "We sell bikes!"), THANKS, BYE)) == []


@pytest.mark.parametrize("last", ["What is your order number?", "Your bike is", "We do not do that."])
def test_a_caller_hanging_up_right_after_the_agent_is_abrupt(last):
    issue = only(call(HELLO, ("user", "I want my money back."), ("agent", last)), "abrupt-end")
    assert last in issue.evidence
    assert issue.turn_index == 2


def test_a_caller_hanging_up_after_a_goodbye_or_much_later_is_not_abrupt():
    rows = [HELLO, ("user", "I want a bike."), ("agent", "They are in our shop.")]
    assert refs(call(*rows, THANKS, ("agent", "Sure."))) == []
    assert refs(call(*rows, duration_seconds=60)) == []
    assert refs(call(*rows, end_reason="agent_end")) == []
    assert refs(call(*rows, status="in_progress")) == []


def test_a_call_that_ends_in_an_error_or_a_timeout_is_abrupt():
    rows = [HELLO, ("user", "I want a bike."), ("agent", "Goodbye!")]
    assert refs(call(*rows, end_reason="error")) == ["abrupt-end.error"]
    assert refs(call(*rows, end_reason="timeout")) == ["abrupt-end.timeout"]
    assert refs(call(*rows, status="failed")) == ["abrupt-end.error"]
    assert grade(call(*rows, end_reason="error")).call_outcome == "failure"


def test_a_hang_up_event_tells_the_end_when_the_duration_is_missing():
    rows = [HELLO, ("user", "I want a bike."), ("agent", "Which one do you want?")]
    ended = call(*rows).turns[-1].end_ms + 1000
    assert refs(call(*rows, duration_seconds=None)) == []
    assert refs(call(*rows, duration_seconds=None, events=[{"type": "hangup", "at_ms": ended}])) == ["abrupt-end"]


# ---- promises and tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["Let me transfer you to billing.", "I'm going to connect you with a person.", "I'm transferring you now."]
)
def test_a_promised_transfer_that_never_happens_is_critical(words):
    issue = only(
        call(HELLO, ("user", "Billing please."), ("agent", words), ("user", "Okay, bye"), BYE),
        "promised-transfer-missing",
    )
    assert issue.severity == "critical"
    assert words in issue.evidence


def test_another_tool_does_not_make_a_transfer():
    rows = [HELLO, ("user", "Billing please."), ("agent", "Let me transfer you."), ("tool_call", {"name": "stock"})]
    assert refs(call(*rows, ("tool_response", {"n": 1}), THANKS, BYE)) == ["promised-transfer-missing"]


def test_a_transfer_event_or_tool_or_end_keeps_the_promise():
    rows = [HELLO, ("user", "Billing please."), ("agent", "Let me transfer you.")]
    assert refs(call(*rows, end_reason="transfer")) == []
    assert refs(call(*rows, THANKS, BYE, events=[{"type": "call.transferred"}])) == []
    assert refs(call(*rows, ("tool_call", {"function": {"name": "handoff"}}), THANKS, BYE)) == []


@pytest.mark.parametrize(
    "words", ["I'll send you an email with that.", "Let me look that up.", "I will now cancel the order."]
)
def test_a_promised_action_without_a_tool_call_is_reported(words):
    issue = only(call(HELLO, ("user", "My order please."), ("agent", words), THANKS, BYE), "promised-action-missing")
    assert (issue.severity, issue.turn_index) == ("warning", 2)


def test_a_tool_called_just_before_or_after_keeps_the_promise():
    tool = [("tool_call", {"name": "mail"}), ("tool_response", {"ok": True})]
    ask, promise = ("user", "Mail it please."), ("agent", "I'll send you an email with that.")
    assert refs(call(HELLO, ask, promise, *tool, THANKS, BYE)) == []
    assert refs(call(HELLO, ask, *tool, promise, THANKS, BYE)) == []


def test_a_declined_promise_need_not_be_kept():
    assert (
        refs(
            call(
                HELLO,
                ("user", "Hm."),
                ("agent", "I'll transfer you."),
                ("user", "No, don't."),
                ("agent", "Okay."),
                THANKS,
                BYE,
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"error": "order not found"}, "order not found"),
        ({"error": {"message": "no such row", "code": 7}}, "no such row"),
        ({"status": 503, "message": "unavailable"}, "503 unavailable"),
        ({"status_code": "404"}, "404"),
        ({"success": False, "reason": "locked"}, "locked"),
        ({"status": "failed"}, "failed"),
        ({"result": {"exception": "ValueError: x"}}, "ValueError: x"),
        ({"is_error": True, "content": [{"message": "boom"}]}, "boom"),
        ('{"errors": ["bad date"]}', "bad date"),
        ("Error: connection refused", "connection refused"),
        ("HTTP 502 Bad Gateway", "502"),
        ("TimeoutError: 10 s", "TimeoutError"),
    ],
)
def test_a_failed_tool_call_is_reported_with_its_error(reply, error):
    rows = [
        HELLO,
        ("user", "My order?"),
        ("tool_call", {"name": "getOrder"}),
        ("tool_response", reply),
        ("agent", "I cannot see it."),
    ]
    issue = only(call(*rows, THANKS, BYE), "failed-tool-call:get-order")
    assert error in issue.evidence
    assert issue.turn_index == 3


@pytest.mark.parametrize(
    "reply",
    [{"error": None}, {"errors": []}, {"status": 200}, {"success": True}, {"status": "shipped"}, "No errors found",
     "{", "",
     {"error": False, "code": 415}, [1, 2], {"data": {"status": "ok"}}, "404 Main Street"],
)  # fmt: skip
def test_a_tool_that_worked_is_not_reported(reply):
    rows = [HELLO, ("user", "My order?"), ("tool_call", {"name": "order"}), ("tool_response", reply)]
    assert refs(call(*rows, ("agent", "It is on its way."), THANKS, BYE)) == []


def test_a_tool_call_that_succeeds_on_retry_is_told_as_info():
    once = ("tool_call", {"name": "order"})
    rows = [
        HELLO,
        ("user", "My order?"),
        once,
        ("tool_response", {"error": "busy"}),
        once,
        ("tool_response", {"ok": True}),
    ]
    issue = only(call(*rows, ("agent", "It is on its way."), THANKS, BYE), "failed-tool-call:order")
    assert issue.severity == "info"


def test_a_failed_tool_event_is_reported_too():
    events = [{"type": "tool.failed", "at_ms": 4200, "data": {"name": "stock", "error": "no route"}}]
    issue = only(
        call(HELLO, ("user", "Any bikes?"), ("agent", "We have some."), THANKS, BYE, events=events),
        "failed-tool-call:stock",
    )
    assert (issue.timestamp_seconds, issue.turn_index) == (4, None)


def test_a_tool_call_with_no_name_has_the_plain_ref():
    rows = [HELLO, ("user", "My order?"), ("tool_response", {"error": "busy"}), ("agent", "It is not here.")]
    assert refs(call(*rows, THANKS, BYE)) == ["failed-tool-call"]


# ---- contradictions -------------------------------------------------------------------------------------------------


def wrong(answer: str, question: str = "What are your terms?", prompt: str = PROMPT, *rows: Any) -> GradedCall:
    return call(HELLO, ("user", question), *rows, ("agent", answer), THANKS, BYE, prompt=prompt)


def test_an_answer_that_the_prompt_contradicts_is_critical_and_quotes_both():
    issue = only(wrong("You have 60 days to get a refund."), "contradicts-prompt:refunds-accepted-purchase-days")
    assert issue.severity == "critical"
    assert "You have 60 days to get a refund." in issue.evidence
    assert "Refunds are accepted within 30 days of purchase." in issue.evidence
    assert "60 days" in issue.title
    assert "30 days" in issue.title


def test_the_ref_comes_from_the_prompt_and_not_from_the_calls_words():
    answers = [
        "You have 60 days to get a refund.",
        "Refunds? Sure, within ninety days.",
        "We take returns for 2 months.",
    ]
    assert len({tuple(refs(wrong(a))) for a in answers}) == 1


def test_the_ref_outlives_a_change_of_the_value_in_the_prompt():
    assert refs(wrong("You have 60 days to get a refund.")) == refs(
        wrong("You have 60 days to get a refund.", prompt=PROMPT.replace("30 days", "45 days"))
    )


def test_contradictions_of_different_sentences_have_different_refs():
    found = refs(wrong("You have 60 days to get a refund. Express shipping costs $25."))
    assert len(set(found)) == 2
    assert all(r.startswith("contradicts-prompt:") for r in found)
    twins = "The Basic plan costs $10.\nThe basic plan costs $20 abroad for two."
    assert len(set(refs(wrong("The Basic plan costs $15.", prompt=twins)))) == 1


def test_a_short_answer_is_read_with_the_callers_question():
    assert refs(wrong("It's sixty days.", "How long do I have to get a refund?")) == [
        "contradicts-prompt:refunds-accepted-purchase-days"
    ]


def test_a_caller_who_asks_for_it_does_not_make_it_true():
    assert (
        refs(wrong("Yes, you have 60 days for a refund.", "I have 60 days for a refund, right? Is it 60 days?")) != []
    )


def test_a_value_from_nowhere_is_a_warning():
    issue = only(wrong("The mechanic's inspection takes 45 minutes and costs $80."), "unsupported-answer")
    assert (issue.severity, issue.metadata["count"]) == ("warning", 2)


def test_a_value_from_the_caller_or_a_tool_is_supported():
    assert refs(wrong("You rode it for 77 days.", "I rode it for 77 days.")) == []
    assert refs(wrong("You paid $80.", "What did I pay?", PROMPT, ("tool_response", {"paid": 80}))) == []
    assert refs(wrong("You paid $80.", "What did I pay?", PROMPT, ("tool_response", '{"paid_cents": 8000}'))) == []


def test_without_a_prompt_nothing_is_unsupported():
    assert refs(wrong("You have 60 days to get a refund.", prompt="")) == []


# ---- anger and abuse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "This is ridiculous.",
        "I'm so fed up with this",
        "What the fuck is going on",
        "You're useless",
        "I WANT MY MONEY BACK NOW!",
    ],
)
def test_an_angry_caller_is_a_warning(words):
    issue = only(call(HELLO, ("user", words), ("agent", "I am sorry to hear it."), THANKS, BYE), "caller-anger")
    assert issue.severity == "warning"
    assert words in issue.evidence


def test_a_transcript_all_in_capitals_is_not_shouting():
    assert (
        refs(
            call(
                HELLO,
                ("user", "I WANT A BIKE FOR MY SON!"),
                ("agent", "Which one?"),
                ("user", "A RED ONE WITH A BELL!"),
                BYE,
            )
        )
        == []
    )


@pytest.mark.parametrize("words", ["You are an idiot.", "Oh shut up.", "That is bullshit, sir.", "Well damn."])
def test_an_abusive_agent_is_critical_and_violates_the_callers_welfare(words):
    found = grade(call(HELLO, ("user", "Where is my bike?"), ("agent", words), THANKS, BYE))
    assert [(i.ref, i.severity) for i in found.detected_issues] == [("agent-profanity", "critical")]
    assert found.caller_welfare_violation is True
    assert words in found.caller_welfare_reasoning


# ---- the grade ------------------------------------------------------------------------------------------------------


def test_occurrences_of_one_ref_are_one_issue_at_the_earliest():
    rows = [HELLO]
    for i in range(3):
        rows += [("user", f"Question about thing {'abc'[i]}?"), ("agent", f"Answer {'xyz'[i]}.", 6000)]
    issue = only(call(*rows, THANKS, BYE), "long-silence")
    assert issue.metadata["count"] == 3
    assert issue.turn_index == 2
    assert [line for line in issue.evidence.splitlines() if line.startswith("Answer")] == [
        "Answer x.",
        "Answer y.",
        "Answer z.",
    ]


def test_rows_out_of_order_are_read_by_their_time_and_keep_their_index():
    slow = call(HELLO, ("user", "What do you have?"), ("agent", "All kinds of bikes.", 6500), THANKS, BYE)
    mixed = slow.model_copy(update={"turns": slow.turns[::-1]})
    issue = only(mixed, "long-silence")
    assert mixed.turns[issue.turn_index].content == "All kinds of bikes."


def test_a_grade_is_the_same_every_time():
    bad = wrong("You have 60 days to get a refund. I'll send an email.")
    assert grade(bad) == grade(bad.model_copy(deep=True))


def test_the_weights_of_the_rubric_sum_to_one():
    assert sum(c.weight for c in RUBRIC) == pytest.approx(1)


def test_a_worse_call_scores_lower():
    clean = grade(CLEAN["refund in words"]).score
    slow = grade(call(HELLO, ("user", "Bikes?"), ("agent", "Yes, all kinds.", 9000), THANKS, BYE)).score
    false = grade(wrong("You have 60 days to get a refund.")).score
    assert clean > slow > false


WEIRD = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["", " ", "\x00", "🙂" * 30, "\u202eabc\u202c", "You have 60 days", "I already told you", "fuck",
         "I'll transfer you",
         "Let me check", "{", '{"error": "x"}', "HTTP 500", "It costs $5", "five five five", "a" * 3000]
    ),
    st.none(),
    st.integers(),
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=9)), max_size=3),
    st.lists(st.one_of(st.none(), st.booleans(), st.text(max_size=5)), max_size=3),
)  # fmt: skip
TURNS = st.builds(
    Turn,
    role=st.sampled_from(["user", "assistant", "agent", "tool_call", "tool_response", "system", "", "USER", "x"]),
    content=WEIRD,
    start_ms=st.one_of(st.none(), st.integers(-10, 100_000)),
    end_ms=st.one_of(st.none(), st.integers(-10, 100_000)),
)


@given(
    st.lists(TURNS, max_size=12),
    st.sampled_from(["", PROMPT, "\x00", "5 days"]),
    st.sampled_from([None, "caller_hangup", "error", "timeout", "transfer", "?"]),
    st.one_of(st.none(), st.floats()),
    st.lists(st.fixed_dictionaries({}, optional={"type": st.one_of(st.none(), st.just("tool.error"), st.just("hangup")),
                                                 "at_ms": st.one_of(st.none(), st.floats(), st.integers(0, 9999)),
                                                 "data": WEIRD}), max_size=3),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_call_gets_a_grade_that_adds_up(turns, prompt, end_reason, duration, events):
    graded = GradedCall(
        call_id=1, turns=turns, prompt_snapshot=prompt, end_reason=end_reason, duration_seconds=duration, events=events
    )
    found = grade(graded)
    assert Grade.model_validate_json(found.model_dump_json()) == found
    refs_ = [i.ref for i in found.detected_issues]
    assert len(refs_) == len(set(refs_))
    for issue in found.detected_issues:
        assert 1 <= len(issue.title) <= 255
        assert issue.metadata["count"] >= 1
        assert issue.timestamp_seconds is None or issue.timestamp_seconds >= 0
        assert issue.turn_index is None or issue.turn_index in issue.relevant_turn_indices
        assert all(0 <= i < len(turns) for i in issue.relevant_turn_indices)
    if found.call_outcome == "no_conversation":
        assert found.score is None
        return
    assert sum(item.weight for item in found.rubric_breakdown) == pytest.approx(1)
    assert all(0 <= item.score <= 1 for item in found.rubric_breakdown)
    assert found.score == round(sum(item.weight * item.score for item in found.rubric_breakdown), 4)


def test_nothing_instead_of_a_value_is_taken_as_empty():
    odd = GradedCall.model_validate(
        {"call_id": 1, "turns": [{"role": None, "content": None, "start_ms": 1.6, "end_ms": float("nan")}],
         "prompt_snapshot": None, "events": None}
    )  # fmt: skip
    assert odd.turns[0] == Turn(role="", content="", start_ms=2, end_ms=None)
    assert grade(odd).call_outcome == "no_conversation"
    assert grade(GradedCall.model_validate({"call_id": 1, "turns": None})).call_outcome == "no_conversation"


def test_a_deeply_nested_tool_reply_is_read():
    deep: Any = {"error": "x"}
    for _ in range(10_000):
        deep = {"a": deep}
    rows = [HELLO, ("user", "Bikes?"), ("agent", "Yes, all kinds."), THANKS, BYE]
    base = call(*rows)
    base.turns.insert(2, Turn(role="tool_response", content=deep))
    base.turns.insert(2, Turn(role="tool_response", content="[" * 10_000))
    assert refs(base) == []


def test_ten_thousand_turns_are_graded_in_seconds():
    rows = [
        Turn(role="user" if i % 2 == 0 else "agent", start_ms=i * 3000, end_ms=i * 3000 + 2500,
             content=f"Could you tell me about wheel {chr(97 + i % 26)} please, thing {i}?" if i % 2 == 0
             else f"The wheel costs ${i} and its refund takes {i} days, I'll send you an email.")
        for i in range(10_000)
    ]  # fmt: skip
    start = time.process_time()
    grade(GradedCall(call_id=1, turns=rows, prompt_snapshot=PROMPT))
    assert time.process_time() - start < 10
