"""The view of two answers beside each other: what is marked, and what is shown of a trace that was not replayed."""

import io
from typing import Any

import pytest
from rich.console import Console

from fixloop_cli.demo import changes
from fixloop_cli.side_by_side import marked, side_by_side

RESULT: dict[str, Any] = {
    "verdict": "improved",
    "originalOutput": "Returns are accepted within 60 days [of purchase].",
    "fixedOutput": "Returns are accepted within 30 days [of purchase].",
    "originalScore": 0.5,
    "fixedScore": 1.0,
    "explanation": "Original says 60 days; the policy says 30 days.",
    "error": None,
}


def spans(original: str, fixed: str) -> list[list[tuple[str, str]]]:
    return [[(text.plain[s.start : s.end], str(s.style)) for s in text.spans] for text in marked(original, fixed)]


@pytest.mark.parametrize(
    ("original", "fixed", "left", "right"),
    [
        ("It takes 60 days.", "It takes 30 days.", [("60", "bold red")], [("30", "bold green")]),
        ("It costs $12.50.", "It costs $9.", [("$12.50", "bold red")], [("$9", "bold green")]),
        ("Yes, it is.", "it is", [("Yes", "red")], []),
        ("", "Hello", [], [("Hello", "green")]),
        ("The same words.", "the same Words", [], []),
    ],
)
def test_only_the_words_and_numbers_that_differ_are_marked(original, fixed, left, right):
    assert spans(original, fixed) == [left, right]


def drawn(result: dict[str, Any], question: str = "How long?") -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(side_by_side(result, question))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_both_answers_their_scores_the_verdict_and_the_explanation_are_shown():
    text = drawn(RESULT)
    for part in (
        "improved  How long?",
        "original answer  0.50",
        "fixed answer  1.00",
        "within 60 days [of purchase]",
        "within 30 days [of purchase]",
        "Original says 60 days; the policy says 30 days.",
    ):
        assert part in text


def test_a_trace_that_was_not_replayed_shows_why():
    nothing = dict.fromkeys(("verdict", "fixedOutput", "fixedScore", "originalScore", "explanation", "originalOutput"))
    text = drawn({**nothing, "error": "The model refused it."})
    assert "not replayed" in text
    assert "The model refused it." in text
    assert "–" in text


def test_a_changed_line_of_a_document_is_shown_beside_what_it_was():
    assert changes(["a", "b 1", "c 1", "d"], ["a", "b 2", "c 2", "d", "e"]) == [
        "- b 1",
        "+ b 2",
        "- c 1",
        "+ c 2",
        "+ e",
    ]
