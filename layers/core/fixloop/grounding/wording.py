"""The words of a text: its sentences, the words that carry its subject, and whether a sentence asks."""

import re
from collections.abc import Iterator
from functools import lru_cache

STOP = frozenset(
    (  # noqa: SIM905
        "a about above after again all also am an and any are as at be because been before being but by can "
        "could did do does doing done for from further get gets getting go going got had has have having he "
        "her here him his how i if in into is it its itself just let lets like may me might more most much "
        "must my of off oh ok okay on once only or other our out over own per please same shall she should so "
        "some such than that the their them then there these they this those through to too under until up "
        "upon us very was we were what when where which while who whom whose why will with within would yes "
        "you your yours im ill ive id youre youll youve were weve well thats its theres heres no not never "
        "dont doesnt didnt isnt arent wasnt cant wont actually really sure right thank thanks sorry hello hi "
        "long far want need know tell ask take takes took taking"
    ).split()
)
_SYNONYMS = {
    "return": "refund",
    "deliver": "ship",
    "arriv": "ship",
    "price": "cost",
    "fee": "cost",
    "charg": "cost",
    "hour": "open",
    "clos": "open",
    "guarante": "warrant",
    "terminat": "cancel",
}
_SUFFIXES = (
    "ational", "ations", "ation", "ments", "ment", "ables", "able", "ingly", "ings", "ing", "edly", "ies", "ied",
    "ness", "ally", "ers", "ions", "ion", "er", "ed", "es", "ly", "al", "ity", "ery", "y", "e", "s",
)  # fmt: skip
NEGATION = re.compile(r"\b(?:not|no|never|none|neither|nor|without|except|cannot|unable|closed)\b|n['\u2019]t\b", re.I)

ONES = {w: i for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])}
TEENS = {
    w: i
    for i, w in enumerate(
        ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
        start=10,
    )
}
TENS = {
    w: 10 * i
    for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}
SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
SMALL = {**ONES, **TEENS, **TENS, "dozen": 12}
NUMBER_WORDS = frozenset({*SMALL, *SCALES, "hundred"})
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31536000}
DURATION = {
    **{unit + ending: unit for unit in SECONDS for ending in ("", "s")},
    "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour",
    "wk": "week", "wks": "week", "yr": "year", "yrs": "year", "night": "day", "nights": "day",
}  # fmt: skip

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_BREAK = re.compile(r"\n+|;\s+|(?<![.!?…])[.!?…]++[\"'\u201d\u2019)\]]*(?:\s+(?=\S)|(?=[A-Z][a-z])|$)")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|vs|no|inc|ltd|co|jr|sr|approx|e\.g|i\.e|etc)|\b[a-z])\.$", re.I)
_QUESTION = re.compile(
    r"^(?:(?:and|so|but|okay|ok|alright|great|sure|well|hi|hello|um|uh|sorry|yes|then)\b[\s,.]*){0,3}"
    r"(?:what|when|where|who|whom|whose|which|why|how|is|are|was|were|am|do|does|did|can|could|will|would|shall|should"
    r"|may|might|have|has|had|isn['\u2019]t|aren['\u2019]t|don['\u2019]t|doesn['\u2019]t|didn['\u2019]t"
    r"|can['\u2019]t|won['\u2019]t)\b",
    re.I,
)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a text; a line break, a semicolon before a space, and a full stop end one."""
    start = 0
    for found in _BREAK.finditer(text):
        dotted = found[0][0] == "." and found.end() < len(text)
        if dotted and _ABBREVIATION.search(text, max(start, found.start() - 8), found.start() + 1):
            continue
        if text[start : found.end()].strip():
            yield start, found.end()
        start = found.end()
    if text[start:].strip():
        yield start, len(text)


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """The word without its English endings, folded with the words that customer service uses for the same thing."""
    word = word.lower().replace("\u2019", "'").removesuffix("'s").replace("'", "")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        word = word[:-1]
    return _SYNONYMS.get(word, word)


def content_words(text: str) -> list[str]:
    """The words of a text that carry its subject, as written, in order; no numbers, no function words, no units.

    "Hours" are a unit after a number and a subject elsewhere ("Opening hours").
    """
    out: list[str] = []
    before = ""
    for word in _WORD.findall(text):
        low = word.lower().replace("'", "").replace("\u2019", "")
        unit = low in DURATION and (low != "hours" or before[:1].isdigit() or before in NUMBER_WORDS)
        before = low
        if len(word) > 1 and not unit and not word[0].isdigit() and low not in STOP and low not in NUMBER_WORDS:
            out.append(word)
    return out


def topic(text: str) -> frozenset[str]:
    """The stems of a text's content words."""
    return frozenset(map(stem, content_words(text)))


def is_question(sentence: str) -> bool:
    """Whether a sentence asks: a leading question word or auxiliary, with or without its mark."""
    stripped = sentence.strip()
    return bool(_QUESTION.match(stripped)) and (stripped.endswith("?") or stripped[-1:] not in ".!")
