"""Two answers to one question beside each other in the terminal, with the words and numbers that differ marked."""

from __future__ import annotations

import difflib
import re
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fixloop_cli.gate import score

STYLES = {"improved": "green", "unchanged": "dim", "regressed": "bold red"}
LONGEST = 400  # characters of an explanation that are shown
_WORD = re.compile(r"[$€£]?\d+(?:[.,:]\d+)*%?|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


def marked(original: str, fixed: str) -> tuple[Text, Text]:
    """Both answers, what only the first says in red and what only the second says in green; numbers in bold."""
    before, after = list(_WORD.finditer(original)), list(_WORD.finditer(fixed))
    matcher = difflib.SequenceMatcher(
        None, [word[0].casefold() for word in before], [word[0].casefold() for word in after], autojunk=False
    )
    left, right = Text(original), Text(fixed)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            _mark(left, before[a:b], "red")
            _mark(right, after[c:d], "green")
    return left, right


def _mark(text: Text, words: list[re.Match[str]], style: str) -> None:
    for word in words:
        numeric = any(character.isdigit() for character in word[0])
        text.stylize(f"bold {style}" if numeric else style, word.start(), word.end())


def side_by_side(result: dict[str, Any], question: str) -> Table:
    """One replayed trace as `GET /api/shadow-tests/{id}/results` shows it: verdict, question, both answers, and why."""
    verdict = result["verdict"] or "not replayed"
    left, right = marked(result["originalOutput"] or "", result["fixedOutput"] or "")
    shown = Table(
        box=box.ROUNDED,
        title=Text.assemble((verdict, STYLES.get(verdict, "yellow")), "  ", (question, "bold")),
        title_justify="left",
        caption=_shortened(result["explanation"] or result["error"] or ""),
        caption_justify="left",
        expand=True,
    )
    for side in ("original", "fixed"):
        shown.add_column(f"{side} answer  [bold]{score(result[f'{side}Score'])}[/]", ratio=1, header_style="")
    shown.add_row(left, right)
    return shown


def _shortened(text: str) -> Text:
    return Text(text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…")
