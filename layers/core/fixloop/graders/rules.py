"""Rule graders: checks that need no model. A rule is `{type, name?, config}`, as ThinkHive's deterministic graders are.

| type | config | passes when |
|---|---|---|
| regex | pattern, flags? ("gi"), field? | the pattern matches |
| contains | values, caseSensitive? (false), field? | every one of the values is there |
| not_contains | values, caseSensitive? (false), field? | none of the values is there |
| json_valid | field? | the text is JSON (a ```json fence around it is allowed) |
| json_schema | schema, field? | it is JSON of that shape (`graders.schemas`) |
| length | min?, max?, unit? (characters, words, sentences), field? | the length is within the bounds |
| pii_check | kinds? (email, phone, card, ssn, iban, ip), field? | no personal data but what the system prompt holds |
| latency | max, min? (ms) | the answer took that long |
| token_count | min?, max? | the answer has that many tokens |

`field` is "output" (the answer, default) or "input" (the user's message).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from fixloop.errors import Invalid
from fixloop.graders import Score, Subject, Ungradable, configured, schemas, short
from fixloop.graders.patterns import MAX_TEXT, Span, TooExpensive, pattern
from fixloop.grounding import sentences
from fixloop.models import estimated_tokens

Kind = Literal["email", "phone", "card", "ssn", "iban", "ip"]
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _TextConfig(_Config):
    field: Literal["output", "input"] = "output"


class RegexConfig(_TextConfig):
    pattern: str
    flags: str = ""

    @model_validator(mode="after")
    def _compiles(self) -> RegexConfig:
        try:
            pattern(self.pattern, self.flags)
        except ValueError as error:
            raise ValueError(f"pattern {error}") from None
        return self


class ContainsConfig(_TextConfig):
    values: Annotated[list[Phrase], Field(min_length=1, max_length=100)]
    caseSensitive: bool = False  # noqa: N815 - the wire's spelling

    @field_validator("values", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class JsonConfig(_TextConfig):
    pass


class SchemaConfig(_TextConfig):
    schema_: Annotated[dict[str, Any], Field(alias="schema")]

    @field_validator("schema_")
    @classmethod
    def _understood(cls, value: dict[str, Any]) -> dict[str, Any]:
        schemas.check(value)
        return value


class _Bounds(_Config):
    min: Count | None = None
    max: Count | None = None

    @model_validator(mode="after")
    def _bounded(self) -> _Bounds:
        if self.min is None and self.max is None:
            raise ValueError("min or max must be given")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self


class LengthConfig(_Bounds):
    field: Literal["output", "input"] = "output"
    unit: Literal["characters", "words", "sentences"] = "characters"


class PiiConfig(_TextConfig):
    kinds: Annotated[list[Kind], Field(min_length=1)] = ["email", "phone", "card", "ssn", "iban", "ip"]


class LatencyConfig(_Bounds):
    pass


class TokenConfig(_Bounds):
    pass


_CONFIGS: dict[str, type[_Config]] = {
    "regex": RegexConfig,
    "contains": ContainsConfig,
    "not_contains": ContainsConfig,
    "json_valid": JsonConfig,
    "json_schema": SchemaConfig,
    "length": LengthConfig,
    "pii_check": PiiConfig,
    "latency": LatencyConfig,
    "token_count": TokenConfig,
}


@dataclass(frozen=True)
class Outcome:
    """Whether a text keeps a rule, why, and where in it the evidence stands."""

    passed: bool
    explanation: str
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class Rule:
    """One rule; as a grader it scores 1 where it is kept and 0 where it is not."""

    type: str
    name: str
    config: Any

    def grade(self, subject: Subject) -> Score:
        outcome = self.check(subject)
        return Score(1.0 if outcome.passed else 0.0, outcome.explanation, self.name)

    def check(self, subject: Subject) -> Outcome:
        """Raises Ungradable where a pattern takes too long or what is measured is not known."""
        outcome: Outcome = _CHECKS[self.type](self.config, subject)
        return outcome


def rule(given: dict[str, Any]) -> Rule:
    """The rule that `{type, name?, config}` describes. Raises Invalid naming `type` or `config.<key>`."""
    unknown = sorted(set(map(str, given)) - {"type", "name", "config"})
    if unknown:
        raise Invalid({name: ["is not known here"] for name in unknown})
    kind, name, config = given.get("type"), given.get("name"), given.get("config")
    if not isinstance(kind, str) or kind not in _CONFIGS:
        raise Invalid({"type": [f"must be one of {', '.join(_CONFIGS)}"]})
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= 255):
        raise Invalid({"name": ["must be a text of 1 to 255 characters"]})
    if config is not None and not isinstance(config, dict):
        raise Invalid({"config": ["must be an object"]})
    return Rule(kind, name or kind, configured(_CONFIGS[kind], config or {}))


def _text(config: Any, subject: Subject) -> str:
    return subject.question if config.field == "input" else subject.answer


def _regex(config: RegexConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    compiled = pattern(config.pattern, config.flags)
    try:
        found = list(_first(compiled.all(text), 20)) or [span for span in [compiled.search(text)] if span]
    except TooExpensive:
        raise Ungradable(f"The pattern /{short(config.pattern, 100)}/ takes too long on this answer.") from None
    if found:
        return Outcome(True, f'matches /{short(config.pattern, 100)}/: "{_around(text, found[0])}"', found)
    seen = f" in its first {MAX_TEXT} characters" if len(text) > MAX_TEXT else ""
    return Outcome(False, f"does not match /{short(config.pattern, 100)}/{seen}")


def _first(found: Iterator[Span], count: int) -> Iterator[Span]:
    for span, _ in zip(found, range(count), strict=False):
        yield span


def _where(value: str, text: str, sensitive: bool) -> Iterator[Span]:
    flags = re.NOFLAG if sensitive else re.I
    for found in re.finditer(re.escape(value), text, flags):
        yield found.span()


def _contains(config: ContainsConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    found = {value: next(_where(value, text, config.caseSensitive), None) for value in config.values}
    missing = [value for value, span in found.items() if span is None]
    if missing:
        return Outcome(False, "does not contain " + ", ".join(f'"{short(value, 80)}"' for value in missing[:5]))
    spans = [span for span in found.values() if span]
    return Outcome(True, "contains " + ", ".join(f'"{short(text[a:b], 80)}"' for a, b in spans[:5]), spans)


def _not_contains(config: ContainsConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    spans = sorted(span for value in config.values for span in _where(value, text, config.caseSensitive))
    if spans:
        return Outcome(False, f'contains "{short(text[slice(*spans[0])], 80)}": "{_around(text, spans[0])}"', spans)
    return Outcome(True, "contains none of " + ", ".join(f'"{short(value, 80)}"' for value in config.values[:5]))


_FENCE = re.compile(r"\A\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*\Z", re.S)


def parsed(text: str) -> Any:
    """The JSON in a text, with or without a fence around it. Raises ValueError."""
    fenced = _FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_valid(config: JsonConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    try:
        parsed(text)
    except ValueError as error:
        return Outcome(False, f'is not JSON ({error}): "{short(text, 80)}"')
    return Outcome(True, f'is JSON: "{short(text, 80)}"')


def _json_schema(config: SchemaConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    try:
        value = parsed(text)
    except ValueError as error:
        return Outcome(False, f'is not JSON ({error}): "{short(text, 80)}"')
    wrong = schemas.problem(value, config.schema_)
    return Outcome(
        wrong is None, f"does not fit the schema: {wrong}" if wrong else f'fits the schema: "{short(text, 80)}"'
    )


def _length(config: LengthConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    if config.unit == "characters":
        size = len(text)
    else:
        size = len(text.split()) if config.unit == "words" else sum(1 for _ in sentences(text))
    return _within(size, config, f"has {size} {config.unit}")


def _latency(config: LatencyConfig, subject: Subject) -> Outcome:
    if subject.latency_ms is None:
        raise Ungradable("How long the answer took is not known.")
    return _within(subject.latency_ms, config, f"took {subject.latency_ms} ms")


def _token_count(config: TokenConfig, subject: Subject) -> Outcome:
    tokens = subject.tokens if subject.tokens is not None else estimated_tokens(subject.answer)
    return _within(tokens, config, f"has {tokens} tokens")


def _within(size: int, bounds: _Bounds, said: str) -> Outcome:
    if bounds.min is not None and size < bounds.min:
        return Outcome(False, f"{said}, fewer than {bounds.min}")
    if bounds.max is not None and size > bounds.max:
        return Outcome(False, f"{said}, more than {bounds.max}")
    return Outcome(True, said)


_PII: dict[str, re.Pattern[str]] = {
    "email": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
    "card": re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"),
    "ssn": re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
    "ip": re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
    "phone": re.compile(
        r"(?<![\w-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){1,4}(?![\w-])"
        r"|(?<!\w)\+\d{8,15}(?!\w)"
    ),
}


def personal(text: str, kinds: Sequence[str], allowed: str = "") -> list[tuple[Kind, Span]]:
    """The personal data in a text, none overlapping, without what stands in `allowed` too."""
    found: list[tuple[Kind, Span]] = []
    for kind, shape in _PII.items():
        for m in shape.finditer(text) if kind in kinds else ():
            digits = re.sub(r"\D", "", m[0])
            if (kind == "card" and not _luhn(digits)) or (kind == "iban" and not _iban(m[0])):
                continue
            if kind == "phone" and (
                not 7 <= len(digits) <= 15 or re.fullmatch(r"\d{4}[ .-]\d\d[ .-]\d\d|\d\d?[ .-]\d\d?[ .-]\d{4}", m[0])
            ):
                continue
            if m[0] in allowed or any(a < m.end() and m.start() < b for _, (a, b) in found):
                continue
            found.append((kind, m.span()))  # type: ignore[arg-type]
    return sorted(found, key=lambda pair: pair[1])


def _luhn(digits: str) -> bool:
    doubled = [int(d) * (1 + at % 2) for at, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _iban(text: str) -> bool:
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _pii_check(config: PiiConfig, subject: Subject) -> Outcome:
    text = _text(config, subject)
    found = personal(text, config.kinds, subject.sources[0] if subject.sources else "")
    if not found:
        return Outcome(True, "holds no personal data")
    kinds = ", ".join(dict.fromkeys(kind for kind, _ in found))
    span = found[0][1]
    return Outcome(
        False, f'holds personal data ({kinds}): "{_masked(text[slice(*span)])}"', [span for _, span in found]
    )


def _masked(text: str) -> str:
    """Enough of it to be found again, not enough to leak it into a report."""
    return text[:2] + "*" * max(1, len(text) - 4) + text[-2:] if len(text) > 4 else "****"


def _around(text: str, span: Span, room: int = 60) -> str:
    start, end = max(0, span[0] - room), min(len(text), span[1] + room)
    return ("…" if start else "") + short(text[start:end], 300) + ("…" if end < len(text) else "")


_CHECKS: dict[str, Any] = {
    "regex": _regex,
    "contains": _contains,
    "not_contains": _not_contains,
    "json_valid": _json_valid,
    "json_schema": _json_schema,
    "length": _length,
    "pii_check": _pii_check,
    "latency": _latency,
    "token_count": _token_count,
}
