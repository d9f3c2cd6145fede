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
    drafted = draft([found], [said], "Norm")
    assert drafted
    assert (drafted.type, drafted.changes) == ("retrieval_update", {"remove": ["kb-1"]})


def test_a_draft_quotes_what_is_contradicted_most_and_applies_to_the_prompt() -> None:
    read = [trace("You can return it within 60 days.", id=f"tr_{at}") for at in range(3)]
    drafted = draft([one for each in read for one in findings(each)], read, "Norm")
    assert drafted
    content = Content(name="Mia", system_prompt=PROMPT)
    new = applied(content, parse_changes(drafted.type, drafted.changes)).system_prompt
    assert new.startswith(PROMPT)
    assert new.count("Refunds are possible within 30 days of purchase.") == 2
    assert "3 of the claims read" in drafted.description


def test_where_no_source_speaks_of_it_the_prompt_forbids_the_claim() -> None:
    found = Finding(trace_id="tr_1", said="$99", sentence="It costs $99.", source=None)
    drafted = draft([found], [trace("It costs $99.")], "Norm")
    assert drafted
    assert '"$99"' in drafted.changes["promptDiff"]
    assert drafted.changes["promptDiff"].startswith("+ ")


def test_quotes_and_line_ends_of_a_source_do_not_break_the_diff() -> None:
    found = Finding(trace_id="tr_1", said="60", sentence="x", source='Say "30\ndays"\n- not 60')
    drafted = draft([found], [], "Norm")
    assert drafted
    assert drafted.changes["promptDiff"].count("\n") == 0
    assert "Say '30 days' - not 60" in drafted.changes["promptDiff"]


def test_nothing_found_is_no_draft() -> None:
    assert draft([], [trace("Fine.")], "Norm") is None
