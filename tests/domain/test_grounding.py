"""What counts as a value, what supports it and what contradicts it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixloop.grounding import support, unsupported_claims, values

POLICY = """You are Mia of Northwind Bikes.
Refunds are accepted within 30 days of purchase.
Standard shipping takes 3 to 5 business days and costs $4.99.
Express shipping takes 1 business day and costs $12.50.
We are open from 9 a.m. to 6 p.m., Monday to Saturday.
Members get 15% off. The Pro plan costs $1,200.50 a year.
Frames carry a warranty of two years."""


def said(answer, question="", policy=POLICY):
    return [claim.said for claim in unsupported_claims(answer, [policy], question) if claim.kind != "name"]


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("thirty days", "duration", 30 * 86400),
        ("a 30-day window", "duration", 30 * 86400),
        ("twenty-four hours", "duration", 86400),
        ("$1,200.50", "money", 1200.5),
        ("twelve hundred dollars", "money", 1200),
        ("one thousand two hundred dollars and fifty cents", "money", 1200.5),
        ("two hundred and fifty thousand dollars", "money", 250_000),
        ("$5 million", "money", 5_000_000),
        ("$3k", "money", 3000),
        ("forty-nine ninety-nine", "number", 4999),
        ("fifteen percent", "percent", 15),
        ("3.5 %", "percent", 3.5),
        ("three point five percent", "percent", 3.5),
        ("two forty-nine ninety-nine", "number", 249.99),
        ("ten thirty a.m.", "date", 630),
        ("10 a.m.", "date", 600),
        ("noon", "date", 720),
        ("17:45", "date", 1065),
        ("March 3rd", "date", 3),
        ("the third of March", "date", 0),
        ("half an hour", "duration", 1800),
    ],
)
def test_a_value_is_read_in_figures_and_in_words(text, kind, amount):
    found = values(text)
    if text.startswith("the third"):
        assert all(v.vague for v in found)
        return
    assert [v.kind for v in found] == [kind]
    assert amount in found[0].amounts


def test_a_price_read_without_its_point_has_both_readings():
    assert set(values("nineteen ninety-nine")[0].amounts) == {1999, 19.99}


def test_digits_read_one_by_one_are_one_code():
    assert values("five five five, oh one two three")[0].digits == "5550123"
    assert values("+1 (555) 010-4477")[0].digits == "15550104477"
    assert values("order A-10234")[0].digits == "10234"


def test_a_range_gives_its_unit_to_both_ends():
    first, second = values("three to five business days")
    assert first.kind == second.kind == "duration"
    assert second.low == first.amounts[0]


@pytest.mark.parametrize(
    "answer",
    [
        "You have 30 days to return it.",
        "You have thirty days to return it.",
        "It takes four business days with standard shipping.",
        "It takes three to five business days.",
        "The Pro plan is twelve hundred dollars and fifty cents a year.",
        "The Pro plan is $1,200.50 per year.",
        "We open at nine a.m. and close at 6 pm.",
        "Frames have a warranty of 24 months.",
        "Members save fifteen percent.",
        "Express shipping is twelve fifty.",
        "With standard shipping of $4.99 and express of $12.50 that is $17.49 in total.",
        "One moment, I need two minutes.",
        "I am 100% sure.",
        "There are two options for that.",
        "Did you buy it within the last 60 days?",
        "",
        "🙂 \x00 \u202eok",
    ],
)
def test_what_the_sources_say_is_supported(answer):
    assert said(answer) == []


@pytest.mark.parametrize(
    ("answer", "wrong", "right"),
    [
        ("You have 60 days to get a refund.", "60 days", "30 days"),
        ("Refunds are accepted for sixty days.", "sixty days", "30 days"),
        ("You can return it within two months.", "two months", "30 days"),
        ("Express shipping costs $25.", "$25", "$12.50"),
        ("Members get 20 percent off.", "20 percent", "15%"),
        ("We close at 8 p.m.", "8 p.m.", "9 a.m."),
        ("The warranty on frames is five years.", "five years", "two years"),
    ],
)
def test_another_value_on_the_same_subject_names_the_contradicted_sentence(answer, wrong, right):
    (claim,) = unsupported_claims(answer, [POLICY])
    assert claim.said == wrong
    assert claim.source is not None
    assert right in claim.supported_values


def test_the_question_gives_a_short_answer_its_subject():
    (claim,) = unsupported_claims("It's 60 days.", [POLICY], "How long do I have to get a refund?")
    assert claim.source == "Refunds are accepted within 30 days of purchase."


def test_words_that_no_source_uses_do_not_hide_the_subject():
    (claim,) = unsupported_claims(
        "So anyway, you have 60 days.",
        ["Refunds are accepted within 30 days of purchase."],
        "How long for a refund, mate?",
    )
    assert claim.supported_values == ["30 days"]


def test_a_value_of_another_subject_is_a_contradiction():
    policy = "The Basic plan costs $10 a month.\nThe Pro plan costs $25 a month."
    (claim,) = unsupported_claims("The Basic plan costs $25 a month.", [policy])
    assert claim.source == "The Basic plan costs $10 a month."
    assert said("The Pro plan costs $25 a month and the Basic plan $10.", policy=policy) == []


def test_a_value_from_nowhere_has_no_source():
    (claim,) = unsupported_claims("A technician charges $80.", ["We sell bicycles."])
    assert (claim.kind, claim.said, claim.source, claim.supported_values) == ("money", "$80", None, [])


def test_a_heading_is_the_subject_of_the_lines_below_it():
    policy = "## Refunds\n\n- Within 30 days\n\n## Exchanges\n\n- Within 90 days"
    (claim,) = unsupported_claims("Refunds are possible within 60 days.", [policy])
    assert claim.supported_values == ["30 days"]


def test_a_count_of_the_same_thing_is_compared():
    (claim,) = unsupported_claims("You may bring two carry-on bags.", ["Each passenger may bring one carry-on bag."])
    assert claim.said == "two"


def test_a_name_that_no_source_knows_is_unsupported():
    (claim,) = unsupported_claims("Please ask for Gregory at the desk.", ["Ask for Anna at the desk."])
    assert (claim.kind, claim.said) == ("name", "Gregory")


def test_the_first_word_of_a_sentence_is_not_taken_for_a_name():
    assert unsupported_claims("Bring it back. Repairs are free.", ["Repairs cost nothing, bring it back."]) == []


def test_support_is_whole_for_what_the_sources_say_and_less_for_what_they_do_not():
    good = support("Refunds are accepted within 30 days.", [POLICY], "How long for refunds?")
    wrong = support("Refunds are accepted within 60 days.", [POLICY], "How long for refunds?")
    invented = support("Nobody in Atlantis gets vouchers before 1955.", [POLICY], "How long for refunds?")
    assert good > 0.9 > wrong > invented
    assert support("", [POLICY]) == 1.0
    assert support("Refunds within 30 days.", []) == 0.0


def test_a_wrong_name_weighs_more_than_a_wrong_word():
    source = ["The stadium in Leeds was opened by Anna Lind."]
    name = support("The stadium was opened by Peter.", source)
    word = support("The arena was opened by Anna.", source)
    assert name < word


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_and_support_stays_a_share(answer, source, question):
    assert 0.0 <= support(answer, [source], question) <= 1.0
    unsupported_claims(answer, [source], question)


NUMBER_PARTS = (  # noqa: SIM905
    "one two five ten twenty ninety hundred thousand million and oh double - , . 12 007 3,000 $ € % a.m. st "
    "days May March of half an hour to 24/7 10:30 99:99 2024-01-31 2024-99-99T10:00Z 13/13/13 point "
    "cents K ٣ ²"
).split()


@given(
    st.lists(
        st.sampled_from(NUMBER_PARTS),
        max_size=25,
    )
)
@settings(max_examples=400, deadline=None)
def test_any_run_of_number_words_is_read(words):
    for text in (" ".join(words), "".join(words)):
        for v in values(text):
            assert text[v.start : v.end] == v.text
        unsupported_claims(text, [text])


@given(
    st.sampled_from([0, 1, 7, 19, 30, 99, 110, 250, 999, 1200, 20_015]), st.sampled_from(["days", "dollars", "percent"])
)
def test_a_source_always_supports_itself(n, unit):
    text = f"The limit is {n} {unit}."
    assert unsupported_claims(text, [text]) == []


@pytest.mark.parametrize("part", ["1 ", "$5 ", "five ", ". ", "...", "12:", "and ", "A ", "(555) ", "\n", "let me 5 "])
def test_reading_takes_time_in_proportion_to_length(part):
    took = []
    for size in (20_000, 80_000):
        text = part * (size // len(part))
        start = time.process_time()
        unsupported_claims(text, [POLICY])
        took.append(time.process_time() - start)
    assert took[1] < 10 * took[0] + 0.2
