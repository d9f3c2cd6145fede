"""The words of a text, as issues are searched by them: case and accents' encoding aside, found by their beginnings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

LONGEST = 32  # characters of a word that count
MOST = 1000  # distinct words of an issue that are indexed, those of the title first
_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # scripts without spaces: every character is a word
_WORD = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+")


def words(*texts: str) -> list[str]:
    """Distinct words in the order they come, at most `MOST`."""
    found: dict[str, None] = {}
    for text in texts:
        for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
            found.setdefault(match[0][:LONGEST])
            if len(found) == MOST:
                return list(found)
    return list(found)


def indexed(word: str) -> bool:
    """Whether issues can be looked up by the beginning `word`: one letter alone is no help."""
    return len(word) > 1 or re.match(f"[{_SINGLE}]", word) is not None


def contain(text: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether each wanted word is the beginning of a word of the text."""
    held = list(text)
    return all(any(word.startswith(one) for word in held) for one in wanted)
