"""What the agent of triage understands, and what it drafts from traces, without storage."""

from __future__ import annotations

import pytest

from fixloop.agents import Content
from fixloop.changes import parse_changes
from fixloop.fixes import applied
from fixloop.traces import Document, Trace
from fixloop.triage.agent import Intent, intent_of, mentioned
from fixloop.triage.drafts import Finding, draft, findings

PROMPT = "You are Mia.\nRefunds are possible within 30 days of purchase."


def trace(response: str, **fields: object) -> Trace:
    given = {"id": "tr_1", "agent_id": "agent_1", "system_prompt": PROMPT, "created_at": 1, **fields}
    return Trace.model_validate(
        {"user_message": "How long can I return my lamp?", "recorded_response": response, **given}
    )


@pytest.mark.parametrize(
    ("detail", "intent", "rest"),
    [
        ("/fix the prompt", "fix", "the prompt"),
        ("VERIFY: it", "verify", "it"),
        ("status", "status", ""),
        ("  /debug\n", "fix", ""),
        ("fixing is hard", "fix", "fixing is hard"),
        ("Please have a status", "fix", "Please have a status"),
        ("", "fix", ""),
    ],
)
def test_the_first_word_is_the_intent(detail: str, intent: Intent, rest: str) -> None:
    assert intent_of(detail) == (intent, rest)


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("@norm status", "status"),
        ("Hey @Norm, verify this", "verify this"),
        ("@norm", ""),
        ("@normal people", None),
        ("mail ann@norm.example", None),
        ("norm, fix", None),
    ],
)
def test_the_agent_is_spoken_to_by_its_name(detail: str, told: str | None) -> None:
    assert mentioned(detail, "Norm") == told


def test_a_name_may_have_any_characters_that_a_pattern_has_meanings_for() -> None:
    assert mentioned("@a.b fix", "a.b") == "fix"
    assert mentioned("@axb fix", "a.b") is None


def test_a_claim_against_the_prompt_is_found_with_the_sentence_it_is_against() -> None:
    (found,) = findings(trace("You can return it within 60 days."))
    assert (found.said, found.stale) == ("60 days", None)
    assert found.source == "Refunds are possible within 30 days of purchase."


def test_what_the_sources_bear_out_is_no_finding() -> None:
    assert findings(trace("Refunds are possible within 30 days.")) == []


def test_a_claim_from_outdated_text_names_the_document_it_is_in() -> None:
    context = [
        Document(id="kb-1", text="The return window was 60 days until 2024-01-01 (outdated)."),
        Document(id="kb-2", text="The return window is 30 days, effective 2025-01-01."),
    ]
    said = trace("The return window is 60 days.", system_prompt="", context=context)
    (found,) = findings(said)
    assert (found.stale, found.outdated) == ("kb-1", context[0].text)
    drafted = draft([found], [said], "Norm", "")
    assert drafted
    assert (drafted.type, drafted.changes) == ("retrieval_update", {"remove": ["kb-1"]})


def test_a_draft_quotes_what_is_contradicted_most_and_applies_to_the_prompt() -> None:
    read = [trace("You can return it within 60 days.", id=f"tr_{at}") for at in range(3)]
    drafted = draft([one for each in read for one in findings(each)], read, "Norm", PROMPT)
    assert drafted
    content = Content(name="Mia", system_prompt=PROMPT)
    new = applied(content, parse_changes(drafted.type, drafted.changes)).system_prompt
    assert new.startswith(PROMPT)
    assert new.count("Refunds are possible within 30 days of purchase.") == 2
    assert "3 of the claims read" in drafted.description


def test_where_no_source_speaks_of_it_the_prompt_forbids_the_claim() -> None:
    found = Finding(trace_id="tr_1", said="$99", sentence="It costs $99.", source=None)
    drafted = draft([found], [trace("It costs $99.")], "Norm", PROMPT)
    assert drafted
    assert '"$99"' in drafted.changes["promptDiff"]
    assert drafted.changes["promptDiff"].startswith("+ ")


def test_quotes_and_line_ends_of_a_source_do_not_break_the_diff() -> None:
    found = Finding(trace_id="tr_1", said="60", sentence="x", source='Say "30\ndays"\n- not 60')
    drafted = draft([found], [], "Norm", PROMPT)
    assert drafted
    assert drafted.changes["promptDiff"].count("\n") == 0
    assert "Say '30 days' - not 60" in drafted.changes["promptDiff"]


def test_nothing_found_is_no_draft() -> None:
    assert draft([], [trace("Fine.")], "Norm", PROMPT) is None


# Outdated sentences of the prompt


def new_prompt(prompt: str, read: list[Trace]) -> str:
    """The agent's prompt after the fix that is drafted from these traces."""
    drafted = draft([one for each in read for one in findings(each)], read, "Norm", prompt)
    assert drafted
    assert drafted.type == "prompt_update"
    return applied(
        Content(name="Mia", system_prompt=prompt), parse_changes(drafted.type, drafted.changes)
    ).system_prompt


DATED = (
    "You are Mia.\n\nValid until December 2024:\nCustomers can return items within 60 days of purchase.\n\n"
    "Refund policy (effective January 2025):\nCustomers can return items within 30 days of purchase.\n\nBe brief."
)


def test_a_sentence_marked_as_outdated_goes_with_its_heading() -> None:
    said = trace("You can return it within 60 days.", system_prompt=DATED)
    kept = "Refund policy (effective January 2025):\nCustomers can return items within 30 days of purchase."
    assert new_prompt(DATED, [said]) == f"You are Mia.\n\n{kept}\n\nBe brief."


def test_a_heading_stays_while_something_else_is_below_it() -> None:
    prompt = DATED.replace("60 days of purchase.\n", "60 days of purchase.\nShipping costs $5.\n")
    said = trace("You can return it within 60 days.", system_prompt=prompt)
    assert "Valid until December 2024:\nShipping costs $5." in new_prompt(prompt, [said])


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("- Refunds are possible within 60 days.", "- Refunds are possible within 30 days of purchase."),
        ("2. Refunds are possible within 60 days.", "2. Refunds are possible within 30 days of purchase."),
        ("Be kind. Returns: 60 days. Ok.", "Be kind. Refunds are possible within 30 days of purchase. Ok."),
    ],
)
def test_a_sentence_that_contradicts_what_holds_is_replaced_where_it_stands(line: str, instead: str) -> None:
    prompt = f"You are Mia.\n{line}\n- Exchanges are possible within 60 days.\nBe brief."
    for read in (
        trace("You can return it within 60 days."),  # the prompt was another one then
        trace("You can return it within 60 days.", system_prompt=prompt, reference=PROMPT.splitlines()[1]),
    ):
        assert new_prompt(prompt, [read]) == prompt.replace(line, instead)


def test_one_that_stands_beside_what_holds_only_goes() -> None:
    prompt = f"{PROMPT}\n- Returns are possible within 60 days."
    assert new_prompt(prompt, [trace("You can return it within 60 days.")]) == PROMPT


@pytest.mark.parametrize(
    "line",
    [
        "Never say that refunds are possible within 60 days.",
        "Exchanges are possible within 60 days of purchase.",
        "Exchanges of items are possible within 60 days of purchase.",
        "The warranty lasts 60 days.",
    ],
)
def test_the_same_figure_about_something_else_stays(line: str) -> None:
    after = new_prompt(f"You are Mia.\n{line}", [trace("You can return it within 60 days.")])
    assert after.startswith(f"You are Mia.\n{line}\n")
    assert "Refunds are possible within 30 days of purchase." in after


def test_what_holds_and_is_not_in_the_prompt_is_added_behind_what_was_taken_out() -> None:
    old = "You are Mia.\nCustomers could return items within 60 days of purchase until 2024 (outdated).\nBe brief."
    context = [Document(id="kb", text="Customers can return items within 30 days of purchase, effective 2025-01-01.")]
    said = trace("You can return it within 60 days.", system_prompt=old, context=context)
    after = new_prompt(old, [said])
    assert after.startswith("You are Mia.\nBe brief.\n")
    assert context[0].text in after
    assert "60 days" not in after


def test_line_ends_and_all_other_lines_stay() -> None:
    prompt = "You are Mia.\r\n\r\n- Refunds are possible within 60 days.\r\n\r\nBe brief.\r\n"
    after = new_prompt(prompt, [trace("You can return it within 60 days.")])
    assert after == prompt.replace("60 days.", "30 days of purchase.")


def test_an_answer_against_the_expected_one_is_found_though_the_sources_say_the_same() -> None:
    context = [Document(id="kb", text="Shipping is free. Returns are possible within 60 days.")]
    said = trace(
        "You can return it within 60 days.",
        system_prompt="You are Mia.",
        context=context,
        reference="Returns are possible within 30 days.",
    )
    (found,) = findings(said)
    assert (found.said, found.source, found.stale) == ("60 days", said.reference, "kb")
    drafted = draft([found], [said], "Norm", "You are Mia.")
    assert drafted
    assert drafted.changes == {"replace": {"kb": "Shipping is free. Returns are possible within 30 days."}}


def test_what_an_expected_answer_does_not_speak_of_is_no_finding() -> None:
    said = trace("Refunds are possible within 30 days. Call 800 555 1234.", reference="Sure, gladly.")
    assert [one.said for one in findings(said)] == ["800 555 1234"]


def test_a_prompt_that_says_it_on_every_line_or_on_one_endless_line_still_gets_a_diff_that_applies() -> None:
    line = "- Refunds are possible within 60 days."
    read = [trace("You can return it within 60 days.")]
    many = new_prompt("\n".join([line] * 3000), read)
    assert 0 < many.count("30 days") < many.count("60 days") < 3000
    endless = f"{line} {'Be kind. ' * 10_000}"
    assert new_prompt(endless, read).startswith(endless.rstrip())
