"""Values read from text, in figures or in words: numbers, money, dates, clock times, durations, percentages."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fixloop.grounding.wording import DURATION, NUMBER_WORDS, ONES, SCALES, SECONDS, SMALL, STOP, TENS, stem

Kind = Literal["number", "money", "date", "duration", "percent", "name"]


@dataclass(frozen=True, slots=True)
class Value:
    """A value read from text: `amounts` are its possible readings ("nineteen ninety-nine" is 1999 and 19.99).

    Durations are in seconds, clock times in minutes of the day, money in the main unit. `low` is the lower end of a
    range that this value closes. `unit` is a currency, "clock", "day" (calendar date), "year", "code", or for a number
    the stems of the words after it. `plain` is the number as written, before any unit.
    """

    kind: Kind
    unit: str
    amounts: tuple[float, ...]
    text: str
    start: int
    end: int
    plain: float
    low: float | None = None
    day: tuple[int | None, int, int | None] | None = None
    digits: str = ""
    vague: bool = False


_ORDINALS = {
    w: i
    for i, w in enumerate(
        (  # noqa: SIM905
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
            "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
        ).split(),
        start=1,
    )
} | {"thirtieth": 30}
MONTHS = {
    name[:size]: i
    for i, name in enumerate(
        [
            "january",
            "february",
            "march",
            "april",
            "may",
            "june",
            "july",
            "august",
            "september",
            "october",
            "november",
            "december",
        ],
        start=1,
    )
    for size in (3, 4, len(name))
    if size != 4 or name == "september"
}
_DURATION_ADJECTIVES = frozenset(
    ["business", "working", "calendar", "full", "consecutive", "more", "additional", "extra", "whole", "straight"]
)
_CURRENCY = {
    "$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "usd": "dollar", "dollar": "dollar",
    "dollars": "dollar", "bucks": "dollar", "eur": "euro", "euro": "euro", "euros": "euro", "gbp": "pound",
    "pound": "pound", "pounds": "pound", "quid": "pound", "yen": "yen", "rupees": "rupee", "inr": "rupee",
    "cents": "dollar", "cent": "dollar", "pence": "pound",
}  # fmt: skip
_TOKEN = re.compile(
    r"(?P<iso>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d))"
    r"|(?P<slash>\d{1,2}/\d{1,2}/(?:\d{4}|\d\d)(?!\d))"
    r"|(?P<always>24/7)"
    r"|(?P<clock>\d{1,2}:\d\d(?!\d))"
    r"|(?P<num>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?)"
    r"|(?P<half>[aApP]\.?[mM]\b\.?)"
    r"|(?P<word>[^\W\d_]+(?:['\u2019][^\W\d_]+)?)"
    r"|(?P<sign>[$€£¥₹%])"
    r"|(?P<other>[^\w\s])"
)
MAY_HOLD_VALUE = re.compile(
    r"\d|\b(?:" + "|".join(sorted({*NUMBER_WORDS, "noon", "midnight", "half", "hour", "week", "month", "year"}))
    + r")\b", re.I,
)  # fmt: skip


class _Token(NamedTuple):
    type: str
    text: str
    low: str
    start: int
    end: int


def values(text: str) -> list[Value]:
    """Every value stated in a text, in order, whether in figures or in words."""
    if not MAY_HOLD_VALUE.search(text):
        return []
    tokens = [_Token(m.lastgroup or "", m[0], m[0].lower(), m.start(), m.end()) for m in _TOKEN.finditer(text)]
    return _with_ranges(_Reader(text, tokens).read(), text)


class _Reader:
    """One left-to-right pass over the tokens of a text."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text, self.tokens, self.found = text, tokens, list[Value]()

    def low(self, i: int) -> str:
        return self.tokens[i].low if 0 <= i < len(self.tokens) else ""

    def type(self, i: int) -> str:
        return self.tokens[i].type if 0 <= i < len(self.tokens) else ""

    def gap(self, i: int) -> str:
        """The characters between token i and the next."""
        return self.text[self.tokens[i].end : self.tokens[i + 1].start] if i + 1 < len(self.tokens) else "\n"

    def add(
        self,
        kind: Kind,
        unit: str,
        amounts: Sequence[float],
        first: int,
        last: int,
        plain: float,
        *,
        day: tuple[int | None, int, int | None] | None = None,
        digits: str = "",
        vague: bool = False,
    ) -> int:
        start, end = self.tokens[first].start, self.tokens[last].end
        self.found.append(
            Value(kind, unit, tuple(amounts), self.text[start:end], start, end, plain, None, day, digits, vague)
        )
        return last + 1

    def read(self) -> list[Value]:
        i = 0
        while i < len(self.tokens):
            i = self._at(i)
        return self.found

    def _at(self, i: int) -> int:
        token = self.tokens[i]
        if token.type == "iso":
            return self._timestamp(i)
        if token.type == "slash":
            a, b, year = (int(part) for part in token.text.split("/"))
            if 1 <= a <= 12 and 1 <= b <= 31:
                return self.add("date", "day", [b], i, i, b, day=(year if year > 99 else 2000 + year, a, b))
            return i + 1
        if token.type == "clock":
            hour, minute = (int(part) for part in token.text.split(":"))
            return self._clock(i, i, hour, minute) if hour < 25 and minute < 60 else i + 1
        if token.type == "num":
            return self._figures(i)
        if token.type != "word":
            return i + 1
        if token.low in ("noon", "midday", "midnight"):
            return self.add("date", "clock", [0.0 if token.low == "midnight" else 720.0], i, i, 12)
        if token.low in MONTHS and (token.text[0].isupper() or self.type(i + 1) == "num"):
            return self._month_first(i)
        if token.low == "half" and self.low(i + 1) in ("a", "an") and self.low(i + 2) in DURATION:
            return self.add("duration", "second", [SECONDS[DURATION[self.low(i + 2)]] / 2], i, i + 2, 0.5)
        if token.low in NUMBER_WORDS:
            return self._words(i)
        if token.low in ("a", "an") and self.low(i + 1) in ("hundred", "thousand", "million", "dozen"):
            return self._words(i + 1)
        if token.low in ("a", "an", "per") and self.low(i + 1) in DURATION and self.type(i + 1) == "word":
            unit = DURATION[self.low(i + 1)]
            return self.add("duration", unit, [float(SECONDS[unit])], i, i + 1, 1, vague=True)
        return i + 1

    def _timestamp(self, i: int) -> int:
        text = self.tokens[i].text
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        if 1 <= month <= 12 and 1 <= day <= 31:
            self.add("date", "day", [day], i, i, day, day=(year, month, day))
        if len(text) > 10:
            minutes = float(int(text[11:13]) * 60 + int(text[14:16]))
            zoned = text[-1] == "Z" or text[-6:-5] in ("+", "-") or text[-5:-4] in ("+", "-")
            hours = range(24) if zoned else [0]  # spoken in the caller's own zone, whichever it is
            self.add("date", "clock", [(minutes + 60 * h) % 1440 for h in hours], i, i, minutes // 60)
        return i + 1

    def _clock(self, first: int, last: int, hour: float, minute: float) -> int:
        if self.type(last + 1) == "half":
            hour = hour % 12 + (12 if self.low(last + 1)[0] == "p" else 0)
            return self.add("date", "clock", [hour * 60 + minute], first, last + 1, hour)
        at = (hour % 24) * 60 + minute
        return self.add("date", "clock", [at, (at + 720) % 1440] if hour <= 12 else [at], first, last, hour)

    def _month_first(self, i: int) -> int:
        month, j = MONTHS[self.low(i)], i + 1
        if self.low(j) == ".":
            j += 1
        if self.low(j) == "the":
            j += 1
        day, last = self._day(j)
        if day is None:
            if self.type(j) == "num" and len(self.low(j)) == 4:
                return self.add("date", "day", [month], i, j, month, day=(int(self.low(j)), month, None))
            return i + 1
        year, last = self._year_after(last)
        return self.add("date", "day", [day], i, last, day, day=(year, month, day))

    def _day(self, i: int) -> tuple[int | None, int]:
        """A day of the month at token i, in figures or words, and its last token."""
        low = self.low(i)
        if self.type(i) == "num" and low.isdigit() and len(low) <= 2 and 1 <= int(low) <= 31:
            return int(low), i + 1 if self.low(i + 1) in ("st", "nd", "rd", "th") and self.gap(i) == "" else i
        if low in _ORDINALS:
            return _ORDINALS[low], i
        if low in ("twenty", "thirty"):
            j = i + 2 if self.low(i + 1) == "-" else i + 1
            small = _ORDINALS.get(self.low(j)) or ONES.get(self.low(j))
            return (TENS[low] + small, j) if small and small < 10 else (TENS[low], i)
        return (SMALL[low], i) if low in SMALL and 1 <= SMALL[low] <= 19 else (None, i)

    def _year_after(self, last: int) -> tuple[int | None, int]:
        j = last + 2 if self.low(last + 1) == "," else last + 1
        return (
            (int(self.low(j)), j) if self.type(j) == "num" and re.fullmatch(r"[12]\d{3}", self.low(j)) else (None, last)
        )

    def _figures(self, i: int) -> int:
        token = self.tokens[i]
        j, digits = i, token.text
        if token.text.isdigit():  # a telephone number or a reference read in groups
            groups = [token.text]
            k = i
            while k + 1 < len(self.tokens):
                nxt = k + 1
                while nxt < len(self.tokens) and self.tokens[nxt].text in "-.()+" and nxt - k <= 3:
                    nxt += 1
                if self.type(nxt) != "num" or not self.low(nxt).isdigit():
                    break
                between = self.text[self.tokens[k].end : self.tokens[nxt].start]
                if len(between) > 3 or "\n" in between:
                    break
                groups.append(self.low(nxt))
                k = nxt
            joined = "".join(groups)
            if len(groups) > 1 and (len(joined) >= 7 or (len(groups) >= 3 and len(joined) == len(groups))):
                j, digits = k, joined
        before = self.text[token.start - 1 : token.start]
        lettered = before.isalpha() or (
            before in ("-", "_", "#")
            and self.type(i - 1) == "other"
            and (before == "#" or self.text[token.start - 2 : token.start - 1].isalpha())
            and len(digits) > 2
        )
        if j > i or lettered or (digits.isdigit() and (len(digits) >= 7 or (digits[0] == "0" and len(digits) > 2))):
            return self.add("number", "code", [], i, j, math.nan, digits=digits.replace(",", ""))
        try:
            amount = float(digits.replace(",", ""))
        except ValueError:  # figures of a script that str.isdigit knows and float does not
            return i + 1
        return self._unit(i, i, [amount], digits.replace(",", "").replace(".", ""))

    def _words(self, i: int) -> int:
        """A run of number words: one number, groups ("nineteen ninety-nine"), or digits read one by one."""
        groups: list[float] = []
        scale_open = tens_open = False
        j, last, singles = i, i, True
        total = 0.0
        while j < len(self.tokens):
            low, kind = self.low(j), self.type(j)
            if kind == "word" and low in SMALL:
                n = SMALL[low]
                if groups and (scale_open or (tens_open and 0 < n < 10)):
                    groups[-1] += n
                else:
                    groups.append(float(n))
                    total = 0.0
                singles = singles and n < 10 and not tens_open
                tens_open, scale_open = n >= 20, False
            elif kind == "word" and low == "hundred":
                groups = groups or [1.0]
                whole = groups[-1] - groups[-1] % 1000
                groups[-1] = whole + (groups[-1] - whole) * 100
                scale_open, tens_open, singles = True, False, False
            elif kind == "word" and low in SCALES:
                groups = groups or [1.0]
                part = groups[-1] - total
                groups[-1] = total = total + part * SCALES[low]
                scale_open, tens_open, singles = True, False, False
            elif kind == "word" and low in ("oh", "o") and groups and singles and self.low(j + 1) in SMALL:
                groups.append(0.0)
            elif kind == "word" and low in ("double", "triple") and groups and self.low(j + 1) in ONES:
                groups += [float(ONES[self.low(j + 1)])] * (1 if low == "double" else 2)
            elif (
                (low == "and" and scale_open and self.low(j + 1) in SMALL)
                or (
                    low == "-"
                    and self.low(j + 1) in NUMBER_WORDS
                    and self.gap(j) == ""
                    and self.low(j - 1) in NUMBER_WORDS
                )
                or (low == "," and singles and len(groups) > 1 and self.low(j + 1) in (*ONES, "oh", "o"))
            ):
                pass
            else:
                break
            if low != "and" and low not in "-,":
                last = j
            j += 1
        if self.low(last + 1) == "point" and self.low(last + 2) in ONES and len(groups) == 1:
            digits, k = "", last + 2
            while self.low(k) in ONES:
                digits, k = digits + str(ONES[self.low(k)]), k + 1
            return self._unit(i, k - 1, [float(f"{groups[0]:.0f}.{digits[:12]}")], "")
        joined = "".join(f"{g:.0f}" for g in groups)
        if len(groups) == 3 and not singles and groups[1] < 100 and groups[2] < 100:  # "two forty-nine ninety-nine"
            return self._unit(i, last, [float(joined), float(joined[:-2] + "." + joined[-2:])], joined)
        if len(groups) > 2:
            return self.add("number", "code", [], i, last, math.nan, digits=joined)
        if len(groups) == 2:
            amounts = [float(joined)]
            if groups[1] < 100:
                amounts.append(groups[0] + groups[1] / 100)
            if groups[0] <= 24 and groups[1] < 60 and self.type(last + 1) == "half":
                return self._clock(i, last, groups[0], groups[1])
            return self._unit(i, last, amounts, joined)
        return self._unit(i, last, groups, joined)

    def _unit(self, first: int, last: int, amounts: list[float], digits: str) -> int:
        """What the words around a number make of it."""
        nxt, sign = self.low(last + 1), self.low(first - 1)
        scale = SCALES.get(nxt) or ({"k": 1_000, "m": 1_000_000}.get(nxt) if self.gap(last) == "" else None)
        if scale and self.type(first) == "num":
            amounts, last = [a * scale for a in amounts], last + 1
            nxt = self.low(last + 1)
        plain = amounts[0]
        if sign in _CURRENCY and (self.type(first - 1) == "sign" or sign in ("usd", "eur", "gbp")):
            return self.add("money", _CURRENCY[sign], amounts, first - 1, last, plain)
        if nxt in _CURRENCY:
            if nxt in ("cents", "cent", "pence"):
                amounts = [a / 100 for a in amounts]
                before = self.found[-1] if self.found else None
                if before and before.kind == "money" and self.tokens[first].start - before.end <= 6 and amounts[0] < 1:
                    whole = replace(
                        before, amounts=(before.amounts[0] + amounts[0],), plain=before.plain + amounts[0],
                        end=self.tokens[last + 1].end, text=self.text[before.start : self.tokens[last + 1].end],
                    )  # fmt: skip
                    self.found[-1] = whole
                    return last + 2
            return self.add("money", _CURRENCY[nxt], amounts, first, last + 1, plain)
        if nxt in ("%", "percent") or (nxt == "per" and self.low(last + 2) == "cent"):
            return self.add("percent", "%", amounts, first, last + (2 if nxt == "per" else 1), plain)
        if self.type(last + 1) == "half" and plain <= 12:
            return self._clock(first, last, plain, 0)
        if nxt in ("o'clock", "o\u2019clock") and plain <= 12:
            return self.add("date", "clock", [plain * 60 % 1440, (plain * 60 + 720) % 1440], first, last + 1, plain)
        if nxt in ("st", "nd", "rd", "th") and self.gap(last) == "":
            return self._ordinal(first, last + 1, plain)
        if nxt in MONTHS and plain <= 31 and plain == int(plain) >= 1:
            year, end = self._year_after(last + 1)
            return self.add("date", "day", [plain], first, end, plain, day=(year, MONTHS[nxt], int(plain)))
        j = last + 1
        while self.low(j) == "-" or self.low(j) in _DURATION_ADJECTIVES:
            j += 1
        if self.low(j) in DURATION and j - last <= 4:
            unit = DURATION[self.low(j)]
            return self.add("duration", unit, [a * SECONDS[unit] for a in amounts], first, j, plain)
        if (
            self.type(first) == "num"
            and re.fullmatch(r"(?:1[0-9]|20)\d\d", digits)
            and "." not in self.tokens[first].text
        ):
            return self.add("date", "year", [plain], first, last, plain, digits=digits)
        nouns = " ".join(
            stem(self.low(k)) for k in range(last + 1, min(last + 5, len(self.tokens)))
            if self.type(k) == "word" and self.low(k) not in STOP and self.low(k) not in NUMBER_WORDS
        ) if self.type(last + 1) == "word" and self.low(last + 1) not in STOP else ""  # fmt: skip
        alone = digits == "1" and self.type(first) == "word" and not nouns
        return self.add("number", nouns, amounts, first, last, plain, digits=digits, vague=alone)

    def _ordinal(self, first: int, last: int, amount: float) -> int:
        j = last + 2 if self.low(last + 1) == "of" else last + 1
        if self.low(j) in MONTHS and 1 <= amount <= 31:
            year, end = self._year_after(j)
            return self.add("date", "day", [amount], first, end, amount, day=(year, MONTHS[self.low(j)], int(amount)))
        return self.add("number", "ordinal", [amount], first, last, amount, vague=True)


_RANGE = re.compile(r"\s*(?:-|\u2013|\u2014|to|through|until|till|and|or)\s*(?:[$€£]\s*)?", re.I)


def _with_ranges(found: list[Value], text: str) -> list[Value]:
    """Gives the first number of "3 to 5 days" the unit of the second, and the second the range it closes."""
    out = list(found)
    for i in range(len(out) - 2, -1, -1):
        a, b = out[i], out[i + 1]
        between = _RANGE.fullmatch(text, a.end, b.start)
        if not between or not a.amounts or not b.amounts or "code" in (a.unit, b.unit):
            continue
        if a.kind == "number" and a.unit != "ordinal" and b.kind != "date":
            factor = b.amounts[0] / b.plain if b.plain else 1.0
            a = replace(a, kind=b.kind, unit=b.unit, amounts=tuple(x * factor for x in a.amounts), vague=False)
        elif a.kind == "number" and b.unit == "clock" and a.plain <= 12:
            a = replace(a, kind="date", unit="clock", amounts=(a.plain * 60 % 1440, (a.plain * 60 + 720) % 1440))
        out[i] = a
        joins = between[0].strip().lower()
        spans = joins != "or" and (joins != "and" or "between" in text[max(0, a.start - 12) : a.start])
        if spans and a.kind == b.kind and a.amounts[0] <= b.amounts[0]:
            out[i + 1] = replace(b, low=a.amounts[0])
    return out
