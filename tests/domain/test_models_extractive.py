"""What the built-in model answers, and which instructions it obeys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixloop import statements
from fixloop.models import Prompt
from fixloop.models.extractive import Extractive
from fixloop.traces import Document, Message, Parameters

DOCS = [
    "Returns are accepted within 30 days of purchase. Refunds go to the original card.",
    "Standard shipping takes 3 to 5 business days and costs $4.99. Express shipping costs $12.50.",
    "The Summit frame has a warranty of two years.",
]
OLD = "Refund policy 2023 (outdated): returns are accepted within 60 days of purchase."
NEW = "Refund policy (effective January 2025): returns are accepted within 30 days of purchase."
VERIFY = "Always verify the policy effective date matches the customer's purchase date before citing specific terms."
PRODUCTS = "Help customers understand our product capabilities. The planner exports PDF reports and syncs with Outlook."
LISTED = (
    " Only describe features explicitly listed in the provided product documentation. If a customer asks about a "
    "feature not in your context, say you are not sure and offer to connect them with a product specialist."
)


def says(question, system="Answer the customer.", documents=DOCS, before=(), **parameters):
    context = [Document(id=f"d{at}", text=text) for at, text in enumerate(documents)]
    talk = [*before, Message(role="user", content=question)]
    return Extractive().complete(Prompt(system, talk, context, Parameters(**parameters))).text


@pytest.mark.parametrize(
    ("question", "evidence"),
    [
        ("How long do I have to return it?", "30 days"),
        ("What does express shipping cost?", "$12.50"),
        ("Is there a warranty on the Summit frame?", "two years"),
    ],
)
def test_it_answers_with_the_sentence_that_fits(question, evidence):
    assert evidence in says(question)


def test_a_follow_up_is_understood_from_the_turn_before():
    before = [Message(role="user", content="Do you offer express shipping?"), Message(role="assistant", content="Yes.")]
    assert "$12.50" in says("And what does that cost?", before=before)


def test_it_knows_nothing_that_nobody_told_it():
    assert says("Who won the match?") == "I do not have information about that."
    assert says("") == "I do not have information about that."


@pytest.mark.parametrize(
    "instruction",
    [
        VERIFY,
        "Only cite the current policy.",
        "Never quote outdated policies.",
        "Use the latest version of each document.",
        "Cite the most recent terms.",
    ],
)
def test_told_so_it_prefers_what_is_in_force(instruction):
    question = "How long do I have to return my bike?"
    assert "60 days" in says(question, documents=[OLD, NEW])
    told = says(question, f"Answer the customer. {instruction}", [OLD, NEW])
    assert "30 days" in told
    assert "60 days" not in told


def test_a_heading_dates_what_is_below_it_and_is_cited():
    documents = [
        "Refund policy (2022)\nReturns within 60 days.",
        "Refund policy (effective January 2025)\nReturns within 30 days.",
    ]
    assert says("How long for returns?", documents=documents) == "Returns within 60 days."
    told = says("How long for returns?", VERIFY, documents)
    assert told == "Refund policy (effective January 2025): Returns within 30 days."


def test_told_so_it_says_that_it_is_not_sure():
    question = "Does the planner support voice dictation?"
    assert "PDF" in says(question, PRODUCTS, [])
    assert says(question, PRODUCTS + LISTED, []) == "I am not sure. I can connect you with a product specialist."
    assert "PDF" in says("Does the planner export PDF reports?", PRODUCTS + LISTED, [])


def test_other_instructions_are_obeyed():
    question = "What does express shipping cost?"
    assert "$12.50" not in says(question, "Never mention express shipping.")
    assert says(question, 'End every answer with "Anything else?"').endswith("Anything else?")
    assert says(question, 'Start with "Good day!"').startswith("Good day!")
    assert says("Who won?", 'If you do not know, say "Please mail us."') == "Please mail us."
    long = says("Tell me about shipping costs and refunds to the card.")
    assert len(says("Tell me about shipping costs and refunds to the card.", "Answer in one sentence.")) < len(long)


def test_an_answer_ends_where_it_is_told_to():
    question = "What does shipping cost, standard and express?"
    whole = says(question)
    assert "$12.50" in whole
    asked = Prompt(
        "", [Message(role="user", content=question)], [Document(id="a", text=DOCS[1])], Parameters(max_tokens=17)
    )
    cut = Extractive().complete(asked)
    assert cut.text in (
        "Standard shipping takes 3 to 5 business days and costs $4.99.",
        "Express shipping costs $12.50.",
    )
    assert cut.output_tokens <= 17
    assert cut.finish_reason == "length"
    assert "costs" not in says(question, stop=["costs"])


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=120), st.lists(st.text(max_size=80), max_size=3), st.text(max_size=60), st.integers(1, 40))
def test_it_answers_anything_the_same_each_time(system, documents, question, room):
    first = says(question, system, documents, max_tokens=room)
    assert first == says(question, system, documents, max_tokens=room)
    assert len(first) <= 4 * room


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Updated 2023: returns within 60 days.", "Updated 2025: returns within 30 days."),
        ("Returns within 60 days.", "Currently, returns within 30 days."),
        ("Returns within 60 days (valid until December 2024).", "Returns within 30 days."),
        ("Returns within 60 days. Last updated March 2023.", "Returns within 30 days. Last updated March 2024."),
    ],
)
def test_a_statement_is_superseded_by_a_newer_one(old, new):
    for texts in ([old, new], [new, old]):
        found = {s.text.split("days")[0][-3:].strip(): s for s in statements.read(texts) if "days" in s.text}
        assert found["60"].superseded_by is found["30"]
        assert found["30"].superseded_by is None


@pytest.mark.parametrize(
    "texts",
    [
        ["Returns within 60 days.", "Returns within 30 days."],
        ["Updated 2023: shipping takes 5 days.", "Updated 2025: returns within 30 days."],
        ["Updated 2023: standard shipping costs $4.99.", "Updated 2025: express shipping costs $12.50."],
        ["Updated 2023: returns within 30 days.", "Updated 2025: returns within 30 days."],
        ["Open since 2001. Returns within 60 days.", "We moved in 2020. Returns are free."],
    ],
)
def test_nothing_else_is_superseded(texts):
    assert not any(s.superseded_by for s in statements.read(texts))


def test_hostile_prompts_take_no_time_to_speak_of():
    import time

    started = time.process_time()
    pieces = ("if a, ", "when x y z, ", "a", "old ", "only ", "never use ", "Effective 2025: 5 days. ", "if not, say ")
    for text in (piece * 3000 for piece in pieces):
        says("How long? " + text[:5000], text, [text])
    assert time.process_time() - started < 30
