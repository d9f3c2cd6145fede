"""DynamoDB's condition, key and update expressions, as far as the product writes them, compiled to closures."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

Wire = dict[str, Any]
Scope = tuple[dict[str, str], dict[str, Wire]]  # ExpressionAttributeNames and -Values
Check = Callable[[Wire, Scope], bool]
Operand = Callable[[Wire, Scope], Wire | None]

_TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),+-]|[#:]?\w+)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def plain(wire: Wire) -> Any:
    """A value to compare by: its type and the value."""
    ((kind, value),) = wire.items()
    if kind == "N":
        return kind, Decimal(value)
    return kind, frozenset(value) if kind in ("SS", "NS") else value


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if not found:
                raise ValueError(f"cannot read {text[position:]!r}")
            self.tokens.append(found[1])
            position = found.end()
        self.at = 0

    @property
    def ahead(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.ahead
        if wanted and token.upper() not in wanted:
            raise ValueError(f"expected {' or '.join(wanted)}, found {token!r}")
        self.at += 1
        return token

    def skips(self, word: str) -> bool:
        if self.ahead.upper() == word:
            self.at += 1
            return True
        return False

    # Conditions

    def disjunction(self) -> Check:
        parts = [self.conjunction()]
        while self.skips("OR"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else lambda item, scope: any(part(item, scope) for part in parts)

    def conjunction(self) -> Check:
        parts = [self.negation()]
        while self.skips("AND"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else lambda item, scope: all(part(item, scope) for part in parts)

    def negation(self) -> Check:
        if self.skips("NOT"):
            part = self.negation()
            return lambda item, scope: not part(item, scope)
        if self.skips("("):
            inside = self.disjunction()
            self.take(")")
            return inside
        return self.comparison()

    def comparison(self) -> Check:
        if self.ahead in ("attribute_exists", "attribute_not_exists"):
            wanted = self.take() == "attribute_exists"
            self.take("(")
            path = self.take()
            self.take(")")
            return lambda item, scope: (named(path, scope) in item) is wanted
        if self.skips("CONTAINS"):
            self.take("(")
            container = self.operand()
            self.take(",")
            member = self.operand()
            self.take(")")
            return lambda item, scope: _contains(container(item, scope), member(item, scope))
        left = self.operand()
        compare = _COMPARE[self.take(*_COMPARE)]
        right = self.operand()

        def compared(item: Wire, scope: Scope) -> bool:
            one, other = left(item, scope), right(item, scope)
            if one is None or other is None:
                return False
            (kind, value), (its_kind, its_value) = plain(one), plain(other)
            return bool(kind == its_kind and compare(value, its_value))

        return compared

    def operand(self) -> Operand:
        token = self.take()
        if token.startswith(":"):
            return lambda item, scope: scope[1][token]
        if token == "if_not_exists":  # noqa: S105 - a token of the language
            self.take("(")
            path = self.take()
            self.take(",")
            otherwise = self.operand()
            self.take(")")
            return lambda item, scope: item.get(named(path, scope)) or otherwise(item, scope)
        return lambda item, scope: item.get(named(token, scope))

    # Updates

    def updates(self) -> list[Callable[[Wire, Wire, Scope], None]]:
        steps: list[Callable[[Wire, Wire, Scope], None]] = []
        while self.ahead:
            clause = self.take("SET", "ADD", "REMOVE").upper()
            while True:
                steps.append({"SET": self.setting, "ADD": self.adding, "REMOVE": self.removing}[clause]())
                if not self.skips(","):
                    break
        return steps

    def setting(self) -> Callable[[Wire, Wire, Scope], None]:
        path = self.take()
        self.take("=")
        value, sign = self.operand(), 0
        if self.ahead in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
        other = self.operand() if sign else value

        def apply(old: Wire, new: Wire, scope: Scope) -> None:
            first, second = value(old, scope), other(old, scope)
            if first is None or second is None:
                raise ValueError(f"{path} is set from an attribute that is not there")
            new[named(path, scope)] = {"N": str(Decimal(first["N"]) + sign * Decimal(second["N"]))} if sign else first

        return apply

    def adding(self) -> Callable[[Wire, Wire, Scope], None]:
        path, value = self.take(), self.operand()

        def apply(old: Wire, new: Wire, scope: Scope) -> None:
            name, given = named(path, scope), value(old, scope)
            assert given is not None
            ((kind, content),) = given.items()
            held = old.get(name)
            if held is None:
                new[name] = given
            elif kind == "N":
                new[name] = {"N": str(Decimal(held["N"]) + Decimal(content))}
            else:
                new[name] = {kind: [*held[kind], *(one for one in content if one not in set(held[kind]))]}

        return apply

    def removing(self) -> Callable[[Wire, Wire, Scope], None]:
        path = self.take()
        return lambda old, new, scope: new.pop(named(path, scope), None) and None


def named(path: str, scope: Scope) -> str:
    return scope[0][path] if path.startswith("#") else path


def _contains(container: Wire | None, member: Wire | None) -> bool:
    if container is None or member is None:
        return False
    ((kind, content),) = container.items()
    ((_, sought),) = member.items()
    return (sought in content) if kind in ("S", "SS", "NS") else member in content


def _whole(parser: _Parser, compiled: Any) -> Any:
    if parser.ahead:
        raise ValueError(f"left over: {parser.tokens[parser.at :]}")
    return compiled


@lru_cache(maxsize=1000)
def condition(text: str) -> Check:
    """A ConditionExpression as a function of the item (empty if there is none)."""
    parser = _Parser(text)
    check: Check = _whole(parser, parser.disjunction())
    return check


@lru_cache(maxsize=1000)
def _steps(text: str) -> list[Callable[[Wire, Wire, Scope], None]]:
    parser = _Parser(text)
    steps: list[Callable[[Wire, Wire, Scope], None]] = _whole(parser, parser.updates())
    return steps


def updated(text: str, old: Wire, scope: Scope) -> Wire:
    """The item after an UpdateExpression."""
    new = dict(old)
    for step in _steps(text):
        step(old, new, scope)
    return new


@lru_cache(maxsize=100)
def key_condition(text: str) -> tuple[str, str, str, tuple[str, ...]]:
    """(hash attribute, its value's name, operation on the range key, its values' names)."""
    parser = _Parser(text)
    attribute = parser.take()
    parser.take("=")
    value = parser.take()
    operation, bounds = "", tuple[str, ...]()
    if parser.skips("AND"):
        if parser.skips("BEGINS_WITH"):
            parser.take("(")
            parser.take()
            parser.take(",")
            operation, bounds = "begins_with", (parser.take(),)
            parser.take(")")
        else:
            parser.take()
            parser.take("BETWEEN")
            low = parser.take()
            parser.take("AND")
            operation, bounds = "between", (low, parser.take())
    found: tuple[str, str, str, tuple[str, ...]] = _whole(parser, (attribute, value, operation, bounds))
    return found
