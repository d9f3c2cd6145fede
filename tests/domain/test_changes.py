"""What the four kinds of changes must look like, and what a diff and a guardrail do."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixloop.changes import (
    BLOCKED,
    DiffDoesNotApply,
    Guardrail,
    apply_to_prompt,
    guarded,
    new_context,
    new_parameters,
    new_prompt,
    parse_changes,
    unified,
    wire,
)
from fixloop.errors import Invalid
from fixloop.graders import Subject
from fixloop.traces import Document, Parameters

PUBLISHED = (
    "- Answer refund questions using the knowledge base.\n"
    "+ Answer refund questions using the knowledge base. Always verify the policy effective date matches the "
    "customer's purchase date before citing specific terms."
)
PROMPT = "You are Mia.\nAnswer refund questions.\n\n  Be kind.\nNever guess."
MAX = PROMPT.replace("Mia", "Max").replace("Never g", "G")


def fields(kind, changes):
    with pytest.raises(Invalid) as raised:
        parse_changes(kind, changes)
    return raised.value.fields


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("prompt_update", {"promptDiff": PUBLISHED}),
        ("prompt_update", {"prompt": "A new prompt."}),
        ("config_change", {"temperature": 0.2}),
        ("config_change", {"model": "openai:acme/gpt-4o", "topP": 0.9, "maxTokens": 200, "stop": ["END"]}),
        ("retrieval_update", {"documents": [{"id": "a", "text": "A."}], "replace": {"b": "B."}, "remove": ["c"]}),
        ("guardrail", {"rules": [{"contains": "60 days"}], "action": "block", "message": "No."}),
        ("guardrail", {"rules": [{"type": "pii_check", "config": {}}], "action": "rewrite"}),
    ],
)
def test_changes_come_back_as_they_were_sent(kind, changes):
    assert wire(parse_changes(kind, changes)) == changes


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("prompt_update", {}, "changes"),
        ("prompt_update", {"promptDiff": "+ a", "prompt": "b"}, "changes"),
        ("prompt_update", {"promptDiff": "only context"}, "changes.promptDiff"),
        ("prompt_update", {"promptDiff": 7}, "changes.promptDiff"),
        ("prompt_update", {"promptDiff": "+ a\n" * 2001}, "changes.promptDiff"),
        ("prompt_update", {"promptDiff": "+ " + "a" * 70_000}, "changes.promptDiff"),
        ("prompt_update", {"promptDiff": "+ a", "prompt_diff": "+ b"}, "changes.prompt_diff"),
        ("prompt_update", {"promptDiff": "+ a", "note": ""}, "changes.note"),
        ("config_change", {}, "changes"),
        ("config_change", {"temperature": 3}, "changes.temperature"),
        ("config_change", {"topP": 0}, "changes.topP"),
        ("config_change", {"maxTokens": 0}, "changes.maxTokens"),
        ("config_change", {"max_tokens": 5}, "changes.max_tokens"),
        ("config_change", {"model": "http://evil"}, "changes.model"),
        ("config_change", {"stop": [""]}, "changes.stop.0"),
        ("retrieval_update", {}, "changes"),
        ("retrieval_update", {"documents": [{"id": "a"}]}, "changes.documents.0.text"),
        ("retrieval_update", {"documents": [{"id": "a", "text": "", "score": 1}]}, "changes.documents.0.score"),
        ("retrieval_update", {"documents": [{"id": "a", "text": "x"}], "remove": ["a"]}, "changes"),
        ("guardrail", {"rules": [], "action": "block"}, "changes.rules"),
        ("guardrail", {"rules": [{"contains": "x"}], "action": "explode"}, "changes.action"),
        ("guardrail", {"rules": [{"contains": "x"}]}, "changes.action"),
        ("guardrail", {"rules": [{"type": "nope"}], "action": "flag"}, "changes.rules"),
        ("guardrail", {"rules": [{"pattern": "("}], "action": "flag"}, "changes.rules"),
        ("guardrail", {"rules": [{"contains": "x", "because": "y"}], "action": "flag"}, "changes.rules"),
        ("guardrail", {"rules": [{}], "action": "flag"}, "changes.rules"),
        ("retune", {}, "type"),
        ("prompt_update", [], "changes"),
        ("prompt_update", None, "changes"),
    ],
)
def test_bad_changes_are_refused_by_name(kind, changes, field):
    assert field in fields(kind, changes)


def test_the_published_diff_replaces_its_line_and_leaves_the_rest():
    prompt = "You are a support agent.\r\nAnswer refund questions using the knowledge base.\r\nBe kind.\r\n"
    fixed = apply_to_prompt(prompt, PUBLISHED)
    assert fixed.startswith(
        "You are a support agent.\r\nAnswer refund questions using the knowledge base. Always verify"
    )
    assert fixed.endswith("specific terms.\r\nBe kind.\r\n")


def test_a_part_of_a_line_is_replaced_in_place():
    assert apply_to_prompt("Hi. Answer refunds. Bye.", "- Answer refunds.\n+ Ask first.") == "Hi. Ask first. Bye."
    assert apply_to_prompt("Hi. Answer refunds. Bye.", "- Answer refunds.") == "Hi. Bye."
    assert apply_to_prompt("Hi. Answer refunds.\nBye.", "- Answer refunds.") == "Hi.\nBye."


@pytest.mark.parametrize(
    ("diff", "fixed"),
    [
        ("- Answer refund questions.\n+ Answer all questions.", PROMPT.replace("refund", "all")),
        ("- Be kind.\n+ Be brief.", PROMPT.replace("  Be kind.", "Be brief.")),
        ("- Never guess.", PROMPT.removesuffix("\nNever guess.")),
        ("- You are Mia.\n- Answer refund questions.\n+ You are Max.", "You are Max.\n\n  Be kind.\nNever guess."),
        ("- You are Mia.\n- Never guess.\n+ You are Max.\n+ Guess.", MAX),
        ("- Never guess.\n+ Guess.\n- You are Mia.\n+ You are Max.", MAX),
        ("+ Say thanks.", PROMPT + "\nSay thanks."),
        ("  You are Mia.\n+ Say hello.", PROMPT.replace("Mia.", "Mia.\nSay hello.")),
        ("You are Mia.\n+ Say hello.", PROMPT.replace("Mia.", "Mia.\nSay hello.")),
        ("+ First.\n  You are Mia.", "First.\n" + PROMPT),
        ("+ First.\n- You are Mia.", "First.\n" + PROMPT.removeprefix("You are Mia.\n")),
        ("@@ -2,1 +2,1 @@\n-Answer refund questions.\n+Answer all questions.", PROMPT.replace("refund", "all")),
        ("-\n+ ---", PROMPT.replace("\n\n", "\n---\n")),
    ],
)  # fmt: skip
def test_a_diff_changes_what_it_names(diff, fixed):
    assert apply_to_prompt(PROMPT, diff) == fixed


def test_later_lines_are_looked_for_behind_their_context_first():
    assert apply_to_prompt("A\nx\nB\nx", "  B\n- x\n+ y") == "A\nx\nB\ny"


def test_a_diff_that_does_not_apply_says_which_line_and_changes_nothing():
    with pytest.raises(DiffDoesNotApply) as raised:
        apply_to_prompt(PROMPT, "  You are Mia.\n- Answer shipping questions.\n+ x")
    assert (raised.value.line_number, raised.value.line) == (2, "- Answer shipping questions.")
    assert "not in the prompt" in raised.value.message
    assert raised.value.as_invalid().fields.keys() == {"changes.promptDiff"}
    assert raised.value.status == 409


def test_what_a_diff_adds_is_not_what_it_removes():
    with pytest.raises(DiffDoesNotApply):
        apply_to_prompt("a", "- a\n+ b\n- b\n+ c")


def test_an_empty_prompt_takes_only_additions():
    assert apply_to_prompt("", "+ a\n+ b") == "a\nb"
    with pytest.raises(DiffDoesNotApply):
        apply_to_prompt("", "- a")


@pytest.mark.parametrize("diff", [PUBLISHED, "+ Say thanks.", "  You are Mia.\n+ Say hello."])
def test_what_stands_there_already_is_not_added_twice(diff):
    prompt = "You are Mia.\nAnswer refund questions using the knowledge base.\n"
    once = apply_to_prompt(prompt, diff)
    assert once != prompt
    assert apply_to_prompt(once, diff) == once


LINE = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    str.strip
)


def _apart(lines):
    trimmed = [line.strip() for line in lines]
    return not any(a in b for i, a in enumerate(trimmed) for j, b in enumerate(trimmed) if i != j)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(LINE, min_size=2, max_size=8, unique=True).filter(_apart),
    st.data(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_every_other_line_stays_as_it_was(lines, data, end, closed):
    *kept, new = lines
    at = data.draw(st.integers(0, len(kept) - 1))
    prompt = end.join(kept) + (end if closed else "")
    wanted = end.join([*kept[:at], new, *kept[at + 1 :]]) + (end if closed else "")
    diff = f"- {kept[at]}\n+ {new}"
    assert apply_to_prompt(prompt, diff) == wanted
    assert apply_to_prompt(prompt, diff.replace("\n", "\r\n")) == wanted
    with pytest.raises(DiffDoesNotApply):
        apply_to_prompt(wanted, diff)
    removed = apply_to_prompt(prompt, f"- {kept[at]}")
    assert removed.split() == end.join([*kept[:at], *kept[at + 1 :]]).split()


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=6), LINE, st.sampled_from(["\n", "\r\n"]))
def test_an_addition_loses_nothing_and_is_made_once(lines, new, end):
    prompt = end.join(lines)
    added = apply_to_prompt(prompt, f"+ {new}")
    assert [line.strip("\r") for line in added.split("\n")][: len(lines)] == lines
    assert apply_to_prompt(added, f"+ {new}") == added


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_diff_applies_or_names_one_of_its_lines(prompt, diff):
    refused = None
    try:
        apply_to_prompt(prompt, diff)
    except DiffDoesNotApply as error:
        refused = error
    if refused:
        assert diff.split("\n")[refused.line_number - 1].removesuffix("\r") == refused.line


@settings(max_examples=200, deadline=None)
@given(st.text("ab \n-+", max_size=60), st.text("ab \n-+", max_size=60))
def test_the_shown_difference_has_every_changed_line(before, after):
    shown = unified(before, after).split("\n")
    if before == after:
        assert shown == [""]
    else:
        assert any(line[:1] in "+-" for line in shown)


def test_a_huge_diff_of_a_huge_prompt_takes_no_time_to_speak_of():
    prompt = "\n".join(f"line {n}." for n in range(20_000))
    diff = "\n".join(f"- line {n}.\n+ row {n}." for n in range(0, 10_000, 10))
    started = time.process_time()
    assert "row 9990." in apply_to_prompt(prompt, diff)
    assert time.process_time() - started < 5


def test_a_difference_is_shown_with_its_surroundings():
    before = "\n".join(["a", "b", "c", "d", "e", "f", "g"])
    assert unified(before, before.replace("g", "G")) == "…\n  d\n  e\n  f\n- g\n+ G"
    assert new_prompt(before, parse_changes("prompt_update", {"prompt": "x"})) == "x"


def test_a_config_change_leaves_what_it_does_not_name():
    changed = new_parameters(
        Parameters(temperature=0.5, max_tokens=9), parse_changes("config_change", {"maxTokens": 3})
    )
    assert (changed.temperature, changed.max_tokens) == (0.5, 3)


def test_documents_are_added_replaced_and_removed():
    context = [Document(id="a", text="A"), Document(id="b", text="B"), Document(id="c", text="C")]
    update = {
        "documents": [{"id": "d", "text": "D"}, {"id": "a", "text": "AA"}],
        "replace": {"b": "BB"},
        "remove": ["c", "z"],
    }
    fixed = new_context(context, parse_changes("retrieval_update", update))
    assert [(d.id, d.text) for d in fixed] == [("a", "AA"), ("b", "BB"), ("d", "D")]


def guard(answer, rules, action, message=None, sources=()):
    changes = {"rules": rules, "action": action, **({"message": message} if message else {})}
    guardrail = parse_changes("guardrail", changes)
    assert isinstance(guardrail, Guardrail)
    return guarded(guardrail, Subject("How long?", answer, sources))


ANSWER = "Thanks for asking. You have 60 days. Mail mia@example.com for more."


@pytest.mark.parametrize(
    ("rules", "action", "message", "text"),
    [
        ([{"contains": "90 days"}], "block", None, ANSWER),
        ([{"contains": "60 DAYS"}], "block", None, BLOCKED),
        ([{"pattern": r"\b60\s+days\b"}], "block", "Ask us.", "Ask us."),
        ([{"pattern": r"\b60\s+days\b"}], "flag", None, ANSWER),
        ([{"contains": ["60 days"]}], "rewrite", None, "Thanks for asking. Mail mia@example.com for more."),
        ([{"contains": "60 days"}], "rewrite", "You have 30 days.", ANSWER.replace("60", "30")),
        ([{"type": "not_contains", "config": {"values": ["60 days"]}}], "block", "No.", "No."),
        ([{"type": "pii_check"}], "rewrite", None, ANSWER.replace("mia@example.com", "[email]")),
        ([{"type": "length", "config": {"max": 40}}], "rewrite", None, "Thanks for asking. You have 60 days."),
        ([{"requires": "effective"}], "rewrite", "Effective 2025.", ANSWER + " Effective 2025."),
        ([{"requires": "effective"}], "rewrite", None, BLOCKED),
        ([{"type": "json_valid"}], "rewrite", "{}", "{}"),
        ([{"contains": "asking"}, {"contains": "60 days"}], "rewrite", None, "Mail mia@example.com for more."),
        ([{"pattern": "."}], "rewrite", None, BLOCKED),
    ],
)  # fmt: skip
def test_a_guardrail_acts_on_what_breaks_its_rules(rules, action, message, text):
    after = guard(ANSWER, rules, action, message)
    assert after.text == text
    assert bool(after.broken) == (text != ANSWER or action == "flag")


@settings(max_examples=200, deadline=None)
@given(st.text("60 days.\n!", max_size=60))
def test_after_a_rewrite_the_rule_is_kept(answer):
    assert "60" not in guard(answer, [{"contains": "60"}], "rewrite").text
