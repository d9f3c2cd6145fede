"""Regular expressions that callers write, matched in bounded time.

Python's own matcher can take exponential time on a pattern such as `(a+)+$`. Here a pattern that could do so is matched
by simulating it as an automaton, whose time grows with the product of pattern and text; patterns that provably cannot
go to Python's matcher. Back-references and look-around, which no automaton has, are allowed only in the latter.
A pattern has at most 500 characters, and the first 20,000 characters of a text are searched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MAX_PATTERN = 500
MAX_TEXT = 20_000
_MAX_STATES = 4_000
_MAX_STEPS = 1_000_000  # of the automaton, for one search: about half a second
_MAX_TRIES = 3_000_000  # of Python's matcher, at worst, for one search
_FLAGS = {"i": re.I, "m": re.M, "s": re.S, "g": re.NOFLAG, "u": re.NOFLAG}


class TooExpensive(Exception):
    """The search was given up."""


Span = tuple[int, int]


@lru_cache(maxsize=256)
def pattern(text: str, flags: str = "") -> Pattern:
    """A pattern in Python's syntax; flags as in JavaScript ("gi"). Raises ValueError saying what is wrong with it."""
    return Pattern(text, flags)


class Pattern:
    """A compiled pattern; see `pattern`."""

    def __init__(self, text: str, flags: str = "") -> None:
        if not text:
            raise ValueError("must not be empty")
        if len(text) > MAX_PATTERN:
            raise ValueError(f"must have at most {MAX_PATTERN} characters")
        unknown = sorted(set(flags) - set(_FLAGS))
        if unknown:
            raise ValueError(f'has the unknown flag "{unknown[0]}"')
        self.text = text
        options = re.NOFLAG
        for flag in flags:
            options |= _FLAGS[flag]
        try:
            self._tree = parser.parse(text, options)
            self._flags = re.RegexFlag(self._tree.state.flags)
            self._re = re.compile(text, options)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        self._tries = _Tries()
        self._automaton: _Automaton | None = None
        if self._worst(MAX_TEXT) > _MAX_TRIES:
            self._automaton = _Automaton(self._tree, self._flags)

    def _worst(self, size: int) -> float:
        return self._tries.of(self._tree, size) * (size + 1)

    def search(self, text: str, start: int = 0) -> Span | None:
        """The leftmost match from `start` on. Raises TooExpensive."""
        text = text[:MAX_TEXT]
        if self._automaton is None or self._worst(len(text)) <= _MAX_TRIES:
            found = self._re.search(text, start)
            return found.span() if found else None
        return self._automaton.search(text, start)

    def all(self, text: str) -> Iterator[Span]:
        """Every match that holds something, none overlapping. Raises TooExpensive."""
        at = 0
        while found := self.search(text, at):
            if found[1] > found[0]:
                yield found
            at = max(found[1], found[0] + 1)
            if at > len(text):
                return


class _Tries:
    """An upper bound on the ways a backtracking matcher may try at one place of a text, and how long a match may be."""

    def of(self, sequence: Any, size: int) -> float:
        ways = 1.0
        for op, given in sequence:
            ways *= self._one(op, given, size)
            if ways > 1e30:
                return 1e30
        return ways

    def _one(self, op: Any, given: Any, size: int) -> float:
        if op is code.BRANCH:
            return sum(self.of(branch, size) for branch in given[1])
        if op is code.SUBPATTERN:
            return self.of(given[-1], size)
        if op in (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT):
            low, high, inner = given
            most = min(int(high), size) if high is not code.MAXREPEAT else size
            once = self.of(inner, size)
            ends = max(1, most - low + 1)
            if once <= 1:
                return float(ends)
            return ends * math.exp(most * math.log(once)) if most * math.log(once) < 60 else 1e30
        if op is code.ATOMIC_GROUP:
            return self.of(given, size)
        if op in (code.ASSERT, code.ASSERT_NOT):
            return max(1.0, self.of(given[1], size))
        if op is code.GROUPREF_EXISTS:
            return self.of(given[1], size) + (self.of(given[2], size) if given[2] else 1.0)
        return float(size) if op is code.GROUPREF else 1.0


Test = Callable[[str], bool]
_SPLIT, _CHAR, _AT, _END = range(4)


class _Automaton:
    """A pattern as a set of states, all of which are followed at once."""

    def __init__(self, tree: Any, flags: re.RegexFlag) -> None:
        self._flags = flags
        self._kind: list[int] = []
        self._next: list[tuple[int, ...]] = []
        self._given: list[Any] = []
        end = self._state(_END)
        self._start = self._sequence(tree, end)

    def _state(self, kind: int, following: tuple[int, ...] = (), given: Any = None) -> int:
        if len(self._kind) >= _MAX_STATES:
            raise ValueError("is too large: its repetitions unfold to too many parts")
        self._kind.append(kind)
        self._next.append(following)
        self._given.append(given)
        return len(self._kind) - 1

    def _sequence(self, sequence: Any, after: int) -> int:
        for op, given in reversed(list(sequence)):
            after = self._one(op, given, after)
        return after

    def _one(self, op: Any, given: Any, after: int) -> int:
        if op is code.BRANCH:
            return self._state(_SPLIT, tuple(self._sequence(branch, after) for branch in given[1]))
        if op is code.SUBPATTERN:
            if given[1] or given[2]:
                raise ValueError("is too open-ended for flags inside it")
            return self._sequence(given[-1], after)
        if op in (code.MAX_REPEAT, code.MIN_REPEAT):
            return self._repeat(given, after)
        if op is code.AT:
            return self._state(_AT, (after,), given)
        if op in (code.LITERAL, code.NOT_LITERAL, code.ANY, code.IN):
            return self._state(_CHAR, (after,), self._test(op, given))
        raise ValueError("is too open-ended for back-references, look-around, possessive and atomic groups")

    def _repeat(self, given: Any, after: int) -> int:
        low, high, inner = given
        if high is code.MAXREPEAT:
            loop = self._state(_SPLIT)
            self._next[loop] = (self._sequence(inner, loop), after)
            after = loop
        else:
            for _ in range(int(high) - low):
                after = self._state(_SPLIT, (self._sequence(inner, after), after))
        for _ in range(low):
            after = self._sequence(inner, after)
        return after

    def _test(self, op: Any, given: Any) -> Test:
        folded = bool(self._flags & re.I)
        if op is code.ANY:
            return (lambda _: True) if self._flags & re.S else (lambda c: c != "\n")
        if op is code.IN:
            return _member(given, folded, bool(self._flags & re.A))
        wanted = chr(given)
        forms = {wanted, wanted.lower(), wanted.upper()} if folded else {wanted}
        return (lambda c: c in forms) if op is code.LITERAL else (lambda c: c not in forms)

    def search(self, text: str, start: int) -> Span | None:
        """The leftmost match, and of those the longest."""
        active: dict[int, int] = {}
        best: Span | None = None
        steps = 0
        for at in range(start, len(text) + 1):
            if best is None:
                active.setdefault(self._start, at)
            elif not active:
                break
            reached: dict[int, int] = {}
            stack = sorted(active.items(), key=lambda pair: -pair[1])
            while stack:
                state, since = stack.pop()
                if state in reached and reached[state] <= since:
                    continue
                reached[state] = since
                steps += 1
                kind = self._kind[state]
                if kind == _SPLIT or (kind == _AT and self._holds(self._given[state], text, at)):
                    stack += [(following, since) for following in self._next[state]]
                elif kind == _END and (best is None or since < best[0] or (since == best[0] and at > best[1])):
                    best = (since, at)
            if steps > _MAX_STEPS:
                raise TooExpensive
            active = {}
            if at == len(text):
                break
            character = text[at]
            for state, since in reached.items():
                if self._kind[state] == _CHAR and (best is None or since <= best[0]) and self._given[state](character):
                    following = self._next[state][0]
                    active[following] = min(since, active.get(following, since))
        return best

    def _holds(self, given: Any, text: str, at: int) -> bool:
        lines = bool(self._flags & re.M)
        if given in (code.AT_BEGINNING, code.AT_BEGINNING_STRING):
            return at == 0 or (lines and given is code.AT_BEGINNING and text[at - 1] == "\n")
        if given is code.AT_END:
            return at == len(text) or (at == len(text) - 1 and text[at] == "\n") or (lines and text[at] == "\n")
        if given is code.AT_END_STRING:
            return at == len(text)
        before = at > 0 and _is_word(text[at - 1])
        behind = at < len(text) and _is_word(text[at])
        return (before != behind) == (given is code.AT_BOUNDARY)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _member(given: Any, folded: bool, ascii_only: bool) -> Test:
    negated = bool(given) and given[0][0] is code.NEGATE
    tests: list[Test] = [_part(op, value, ascii_only) for op, value in given if op is not code.NEGATE]

    def test(character: str) -> bool:
        forms = {character, character.lower(), character.upper()} if folded else {character}
        return any(one(form) for form in forms if len(form) == 1 for one in tests) != negated

    return test


def _part(op: Any, value: Any, ascii_only: bool) -> Test:
    if op is code.LITERAL:
        return lambda c: ord(c) == value
    if op is code.RANGE:
        return lambda c: value[0] <= ord(c) <= value[1]
    plain: dict[Any, Test] = {
        code.CATEGORY_DIGIT: str.isdecimal,
        code.CATEGORY_SPACE: str.isspace,
        code.CATEGORY_WORD: _is_word,
        code.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
        code.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
        code.CATEGORY_NOT_WORD: lambda c: not _is_word(c),
    }
    if op is not code.CATEGORY or value not in plain or ascii_only:
        raise ValueError("is too open-ended for that kind of character class")
    return plain[value]
