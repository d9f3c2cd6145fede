"""What a fix changes: the four kinds of `changes`, and what each does to a prompt, a context, parameters or an answer.

`prompt_update`     {promptDiff} in the form that `apply_to_prompt` describes, or {prompt}, the whole new prompt
`config_change`     {model?, temperature?, topP?, maxTokens?, stop?}, at least one
`retrieval_update`  {documents?: [{id, text}], replace?: {id: text}, remove?: [id]}, at least one
`guardrail`         {rules: [...], action: block | rewrite | flag, message?}; see `Guardrail`
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from fixloop.errors import Conflict, Invalid
from fixloop.graders import Subject, problems
from fixloop.graders.rules import LengthConfig, Rule, personal, rule
from fixloop.grounding import sentences
from fixloop.models import well_formed
from fixloop.traces import Document, Parameters, Ref, Stop, Text

FixType = Literal["prompt_update", "config_change", "retrieval_update", "guardrail"]
Action = Literal["block", "rewrite", "flag"]

TYPES: tuple[FixType, ...] = ("prompt_update", "config_change", "retrieval_update", "guardrail")
MAX_STORED = 240_000  # bytes as JSON; with the rest of a fix, or of a shadow test, it has to fit a row
MAX_DIFF = 65_536
MAX_DIFF_LINES = 2_000
BLOCKED = "I'm sorry, I can't help with that. Let me connect you with a colleague."


def _well_formed(spec: str) -> str:
    if not well_formed(spec):
        raise ValueError('must be "extractive", "bedrock:<model id>" or "openai:<name>/<model>"')
    return spec


MODEL = AfterValidator(_well_formed)


class DiffDoesNotApply(Conflict):
    """A `promptDiff` asks for a line that the prompt does not have. `line_number` counts the diff's lines from 1."""

    def __init__(self, line_number: int, line: str, reason: str) -> None:
        super().__init__(f'promptDiff does not apply: line {line_number} ("{_short(line)}") {reason}.')
        self.line_number = line_number
        self.line = line
        self.reason = reason

    def as_invalid(self) -> Invalid:
        """The same for a fix that is being made: a 400 that names the field."""
        return Invalid({"changes.promptDiff": [f'line {self.line_number} ("{_short(self.line)}") {self.reason}']})


class _Changes(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class PromptUpdate(_Changes):
    """Either a diff or the whole new prompt (the form that older clients send)."""

    prompt_diff: Annotated[str, StringConstraints(max_length=MAX_DIFF)] | None = None
    prompt: Text | None = None

    @field_validator("prompt_diff")
    @classmethod
    def _changes_something(cls, value: str | None) -> str | None:
        if value is not None:
            if value.count("\n") >= MAX_DIFF_LINES:
                raise ValueError(f"must have at most {MAX_DIFF_LINES} lines")
            if not any(one.sign in "+-" for one in _lines(value)):
                raise ValueError('must have a line that starts with "- " or "+ "')
        return value

    @model_validator(mode="after")
    def _one(self) -> PromptUpdate:
        if (self.prompt_diff is None) == (self.prompt is None):
            raise ValueError("must have promptDiff, or prompt instead of it")
        return self


class ConfigChange(_Changes):
    """Another model, or other parameters."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=512), MODEL] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some(self) -> ConfigChange:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("must have at least one of model, temperature, topP, maxTokens and stop")
        return self


class AddedDocument(_Changes):
    """A document that the agent is to have as well."""

    id: Ref
    text: Text


class RetrievalUpdate(_Changes):
    """Documents added (or put in the place of those with their id), replaced by id, and removed by id."""

    documents: Annotated[list[AddedDocument], Field(max_length=1000)] = []
    replace: Annotated[dict[Ref, Text], Field(max_length=1000)] = {}
    remove: Annotated[list[Ref], Field(max_length=1000)] = []

    @model_validator(mode="after")
    def _some(self) -> RetrievalUpdate:
        if not (self.documents or self.replace or self.remove):
            raise ValueError("must have at least one of documents, replace and remove")
        named = [*(document.id for document in self.documents), *self.replace, *self.remove]
        twice = (
            next((one for at, one in enumerate(named) if one in named[:at]), None)
            if len(set(named)) < len(named)
            else None
        )
        if twice is not None:
            raise ValueError(f'must name the document "{_short(twice)}" only once')
        return self


class Guardrail(_Changes):
    """Rules that an answer is held against before it goes out, and what happens to one that breaks them.

    A rule is one of the rule graders' shape, `{type, name?, config}`, and broken when the grader would not pass; or, in
    short, one of `{pattern, flags?}`, `{contains: text or [text], caseSensitive?}`: what must not be in the answer, and
    `{requires: text or [text], caseSensitive?}`: what must be. Either may have a `name`.

    block     the answer is replaced by `message`
    rewrite   personal data is masked as "[email]"; sentences that hold something else forbidden are left out, and
              `message`, if there is one, stands in the first one's place; a length above `max` is cut at a sentence's
              end; a missing text is made good by `message`, and by blocking where there is none, as for all else
    flag      the answer stays as it is; the break is noted
    """

    rules: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=50)]
    action: Action
    message: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None

    @field_validator("rules")
    @classmethod
    def _understood(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for at, given in enumerate(value):
            try:
                _held(given)
            except Invalid as error:
                said = "; ".join(f"{name}: {' '.join(messages)}" for name, messages in error.fields.items())
                raise ValueError(f"{at}.{said}") from None
        return value

    @cached_property
    def held(self) -> list[_Held]:
        return [_held(given) for given in self.rules]


Changes = PromptUpdate | ConfigChange | RetrievalUpdate | Guardrail
_SHAPES: dict[FixType, type[Changes]] = {
    "prompt_update": PromptUpdate,
    "config_change": ConfigChange,
    "retrieval_update": RetrievalUpdate,
    "guardrail": Guardrail,
}


def parse_changes(type: FixType, changes: Any) -> Changes:  # noqa: A002 - as on the wire
    """`changes` as the model of its type. Raises Invalid naming fields such as `changes.promptDiff`."""
    if type not in _SHAPES:
        raise Invalid({"type": [f"must be one of {', '.join(TYPES)}"]})
    if not isinstance(changes, Mapping):
        raise Invalid({"changes": ["must be an object"]})
    if len(json.dumps(changes, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_STORED:
        raise Invalid({"changes": [f"must come to at most {MAX_STORED} bytes as JSON"]})
    try:
        return _SHAPES[type].model_validate(changes)
    except ValidationError as error:
        raise Invalid(problems(error, "changes")) from None


def wire(changes: Changes) -> dict[str, Any]:
    """The changes as they were sent."""
    return changes.model_dump(by_alias=True, exclude_unset=True)


# Prompts


@dataclass(frozen=True)
class _Line:
    """A line of a diff: `sign` is "-", "+", " " for context, or "" for what says nothing."""

    number: int
    sign: str
    text: str
    raw: str


_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")
_HEADER = re.compile(
    r"(?:diff --git |index [0-9a-f]+\.\.|--- (?:a/|prompt|/dev/null)|\+\+\+ (?:b/|prompt|/dev/null)|\\ No newline)"
)


def _lines(diff: str) -> list[_Line]:
    raw = [line.removesuffix("\r") for line in diff.split("\n")]
    strict = any(_HUNK.match(line) for line in raw)
    found = []
    for number, line in enumerate(raw, start=1):
        if _HUNK.match(line) or (strict and _HEADER.match(line)):
            sign, text = "", ""
        elif strict:
            sign, text = (line[:1], line[1:]) if line[:1] in "+- " and line else ("", "")
        elif line in ("-", "+") or line[:2] in ("- ", "+ "):
            sign, text = line[0], line[2:]
        else:
            sign, text = (" ", line[2:] if line[:2] == "  " else line) if line.strip() else ("", "")
        if sign == " " and not text.strip():
            sign = ""
        found.append(_Line(number, sign, text, line))
    return found


@dataclass
class _Entry:
    """A line of the prompt being changed. Lines that the diff has put there are not `found` by it again."""

    text: str
    end: str
    original: bool = True


@dataclass
class _Hunk:
    removed: list[_Line]
    added: list[_Line]


def apply_to_prompt(prompt: str, diff: str) -> str:
    """The prompt with a diff applied. Raises DiffDoesNotApply naming the first line that is not found.

    Lines that start with "- " are taken out and the "+ " lines behind them put in their place; such a block is a hunk.
    All other lines are context, indented by two spaces or not at all: they must be found too, and later lines of the
    diff are looked for behind them first. Blank lines say nothing. A diff with `@@ -1,2 +1,2 @@` headers is read as a
    unified one, with one sign and no space. What is looked for is a line that is the same; else one that is the same
    but for space at its ends; else one that contains it, of which then only that part is replaced. "+ " lines without
    "- " lines go behind the context before them, else before what follows them, else to the end.

    Every other line stays as it is, line ends included. Applied to its own result a diff changes nothing where what it
    adds stands there already (a longer line in a part's place, an addition behind its context or at the end), fails
    where what it removes is gone, and otherwise changes the next occurrence.
    """
    entries = [_Entry(line.removesuffix("\r"), "\r" if line.endswith("\r") else "") for line in prompt.split("\n")]
    page = _Page([] if prompt == "" else entries)
    steps = _steps(_lines(diff))
    for at, step in enumerate(steps):
        if isinstance(step, _Line):
            page.pass_by(step)
        elif step.removed:
            page.replace(step)
        else:
            page.insert(step, steps[at + 1] if at + 1 < len(steps) else None)
    return page.text()


def _steps(lines: Sequence[_Line]) -> list[_Line | _Hunk]:
    steps: list[_Line | _Hunk] = []
    before = ""
    for line in lines:
        if line.sign == " ":
            steps.append(line)
        elif line.sign:
            last = steps[-1] if steps else None
            if not isinstance(last, _Hunk) or before not in "+-" or not before or (before == "+" and line.sign == "-"):
                last = _Hunk([], [])
                steps.append(last)
            (last.removed if line.sign == "-" else last.added).append(line)
        before = line.sign
    return steps


class _Page:
    """A prompt's lines while a diff is applied; `cursor` is the line behind the last one that was found."""

    def __init__(self, entries: list[_Entry]) -> None:
        self.entries = entries
        self.cursor = 0
        self.anchored = False

    def text(self) -> str:
        return "\n".join(entry.text + entry.end for entry in self.entries)

    def pass_by(self, line: _Line) -> None:
        self.cursor = self._place(line, "context")[0] + 1
        self.anchored = True

    def _ahead(self, end: int) -> Iterator[int]:
        """Positions below `end`: from the cursor on, then those before it."""
        yield from range(self.cursor, end)
        yield from range(min(self.cursor, end))

    def _place(self, line: _Line, kind: str) -> tuple[int, bool]:
        """Where a line is, and whether it is only a part of what stands there."""
        wanted, trimmed = line.text, line.text.strip()
        for at in self._ahead(len(self.entries)):
            if self.entries[at].text == wanted and self.entries[at].original:
                return at, False
        for at in self._ahead(len(self.entries)):
            if self.entries[at].text.strip() == trimmed and self.entries[at].original:
                return at, False
        for at in self._ahead(len(self.entries)) if trimmed else ():
            if trimmed in self.entries[at].text and self.entries[at].original:
                return at, True
        what = "is not in the prompt"
        if kind == "context":
            what = f'is context ("- " and "+ " start changes) and {what}'
        raise DiffDoesNotApply(line.number, line.raw, what)

    def _block(self, removed: Sequence[_Line]) -> int | None:
        """Where removed lines stand one behind the other."""
        last = len(self.entries) - len(removed)
        wanted, trimmed = [line.text for line in removed], [line.text.strip() for line in removed]
        for strip, lines in ((False, wanted), (True, trimmed)):
            for at in self._ahead(last + 1):
                here = self.entries[at : at + len(lines)]
                first = here[0].text.strip() if strip else here[0].text
                if first == lines[0] and all(
                    entry.original and (entry.text.strip() if strip else entry.text) == text
                    for entry, text in zip(here, lines, strict=True)
                ):
                    return at
        return None

    def replace(self, hunk: _Hunk) -> None:
        self.anchored = True
        added = [line.text for line in hunk.added]
        at = self._block(hunk.removed)
        if at is not None:
            old = self.entries[at : at + len(hunk.removed)]
            self._put(at, len(old), added, old[-1].end)
            return
        pairs = len(added) == len(hunk.removed)
        for number, line in enumerate(hunk.removed):
            at, partly = self._place(line, "removed")
            new = [added[number]] if pairs else added if number == 0 else []
            if partly:
                self._put_part(at, line.text.strip(), new)
            else:
                self._put(at, 1, new, self.entries[at].end)

    def _put(self, at: int, count: int, lines: Sequence[str], end: str) -> None:
        last = at + count >= len(self.entries)
        new = [_Entry(text, end, original=False) for text in lines]
        if new and last:
            ends = self.entries[-2].end if len(self.entries) > 1 else end
            for entry in new[:-1]:
                entry.end = entry.end or ends
        self.entries[at : at + count] = new
        self.cursor = at + len(new)
        if not new and last and self.entries and at == len(self.entries):
            self.entries[-1].end = end

    def _put_part(self, at: int, part: str, lines: Sequence[str]) -> None:
        entry = self.entries[at]
        new = "\n".join(lines).strip() if lines else ""
        self.cursor = at + 1
        if new and part in new and new in entry.text:
            entry.original = False
            return  # it has been done already
        before, after = entry.text.split(part, 1)
        if not new and before[-1:].isspace() and (not after or after[:1].isspace()):
            before = before[:-1]
        text = before + new + after if new or before.strip() else after.lstrip()
        if not text.strip():
            self._put(at, 1, [], entry.end)
            return
        parts = text.split("\n")
        self.entries[at : at + 1] = [_Entry(one, entry.end, original=False) for one in parts]
        self.cursor = at + len(parts)

    def insert(self, hunk: _Hunk, following: _Line | _Hunk | None) -> None:
        new = [line.text for line in hunk.added]
        if self.anchored:
            at = self.cursor
        elif following is not None:
            line = following if isinstance(following, _Line) else following.removed[0]
            at = self._place(line, "context" if isinstance(following, _Line) else "removed")[0]
            if [entry.text for entry in self.entries[max(0, at - len(new)) : at]] == new:
                return
        else:
            at = len(self.entries)
            while at and not self.entries[at - 1].text.strip():
                at -= 1
            if [entry.text for entry in self.entries[max(0, at - len(new)) : at]] == new:
                return
        if self.anchored and [entry.text for entry in self.entries[at : at + len(new)]] == new:
            self.cursor = at + len(new)
            return
        around = self.entries[at - 1].end if at else self.entries[0].end if self.entries else ""
        if at and at == len(self.entries):
            around = self.entries[-2].end if len(self.entries) > 1 else ""
            self.entries[-1].end, tail = around, self.entries[-1].end
            made = [_Entry(text, around, original=False) for text in new]
            made[-1].end = tail
        else:
            made = [_Entry(text, around, original=False) for text in new]
        self.entries[at:at] = made
        self.cursor = at + len(new)
        self.anchored = self.anchored or following is None


def new_prompt(prompt: str, changes: PromptUpdate) -> str:
    """The prompt after a prompt update. Raises DiffDoesNotApply."""
    return changes.prompt if changes.prompt is not None else apply_to_prompt(prompt, changes.prompt_diff or "")


def unified(before: str, after: str, *, context: int = 3) -> str:
    """The difference of two prompts for people: lines with "- ", "+ " or two spaces, "…" where some are left out."""
    old, new = before.split("\n"), after.split("\n")
    matcher = difflib.SequenceMatcher(None, old, new)
    out: list[str] = []
    for group in matcher.get_grouped_opcodes(context):
        if out or group[0][1] > 0:
            out.append("…")
        for tag, a, b, c, d in group:
            if tag == "equal":
                out += [f"  {line}".rstrip("\r") for line in old[a:b]]
            else:
                out += [f"- {line}".rstrip("\r") for line in old[a:b]] + [f"+ {line}".rstrip("\r") for line in new[c:d]]
    if out and matcher.get_opcodes()[-1][0] == "equal" and group[-1][2] < len(old):
        out.append("…")
    return "\n".join(out)


# Parameters and context


def new_parameters(parameters: Parameters, changes: ConfigChange) -> Parameters:
    """The parameters after a config change; what it does not name stays."""
    named = {
        name: value
        for name in ("temperature", "top_p", "max_tokens", "stop")
        if (value := getattr(changes, name)) is not None
    }
    return parameters.model_copy(update=named)


def new_context(context: Sequence[Document], changes: RetrievalUpdate) -> list[Document]:
    """The context after a retrieval update. To replace or remove a document that is not there changes nothing."""
    texts = {**changes.replace, **{document.id: document.text for document in changes.documents}}
    kept = [
        document.model_copy(update={"text": texts[document.id]}) if document.id in texts else document
        for document in context
        if document.id not in changes.remove
    ]
    there = {document.id for document in context}
    return kept + [Document(id=d.id, text=d.text) for d in changes.documents if d.id not in there]


# Answers


@dataclass(frozen=True)
class _Held:
    """A guardrail's rule, and whether passing the grader's check keeps it (`wanted`) or breaks it."""

    rule: Rule
    wanted: bool


@dataclass(frozen=True)
class Guarded:
    """An answer after a guardrail: what goes out, and which rules it broke and how."""

    text: str
    broken: Sequence[str] = ()


_SHORT_FORMS = {
    "pattern": {"pattern", "flags", "name"},
    "contains": {"contains", "caseSensitive", "name"},
    "requires": {"requires", "caseSensitive", "name"},
}


def _held(given: Mapping[str, Any]) -> _Held:
    """Raises Invalid naming the rule's fields."""
    if "type" in given:
        return _Held(rule(dict(given)), wanted=True)
    form = next((name for name in _SHORT_FORMS if name in given), None)
    if form is None:
        raise Invalid({"rule": ["must have a type with a config, or one of pattern, contains and requires"]})
    unknown = sorted(set(map(str, given)) - _SHORT_FORMS[form])
    if unknown:
        raise Invalid({name: ["is not known here"] for name in unknown})
    if form == "pattern":
        kind, config = "regex", {"pattern": given["pattern"], "flags": given.get("flags", "i")}
    else:
        kind = "not_contains" if form == "contains" else "contains"
        config = {"values": given[form], "caseSensitive": given.get("caseSensitive", False)}
    try:
        made = rule({"type": kind, "config": config, **({"name": given["name"]} if "name" in given else {})})
    except Invalid as error:
        raise Invalid(
            {name.replace("config.values", form).removeprefix("config."): said for name, said in error.fields.items()}
        ) from None
    return _Held(made, wanted=form != "pattern")


def guarded(guardrail: Guardrail, subject: Subject) -> Guarded:
    """The answer of `subject` after the guardrail. Raises graders.Ungradable where a rule cannot be checked."""
    text = subject.answer
    broken: list[str] = []
    for held in guardrail.held:
        now = replace(subject, answer=text)
        outcome = held.rule.check(now)
        if outcome.passed == held.wanted:
            continue
        broken.append(f"{held.rule.name}: {outcome.explanation}")
        if guardrail.action == "block":
            return Guarded(guardrail.message or BLOCKED, broken)
        if guardrail.action == "rewrite":
            rewritten = _rewritten(text, held, outcome.spans, guardrail.message, now)
            if rewritten is None:
                return Guarded(guardrail.message or BLOCKED, broken)
            text = rewritten
    return Guarded(text, broken)


def _rewritten(
    text: str, held: _Held, spans: Iterable[tuple[int, int]], message: str | None, subject: Subject
) -> str | None:
    """The text without what breaks the rule, or None where that cannot be."""
    config = held.rule.config
    if getattr(config, "field", "output") != "output":
        return None
    if held.rule.type == "pii_check":
        for kind, (start, end) in reversed(personal(text, config.kinds, subject.sources[0] if subject.sources else "")):
            text = f"{text[:start]}[{kind}]{text[end:]}"
        return text
    if isinstance(config, LengthConfig) and config.max is not None:
        return _shortened(text, config)
    if held.rule.type == "contains" and held.wanted:
        return (
            f"{text.rstrip()} {message}".lstrip()
            if message and _would_hold(f"{text} {message}", held, subject)
            else None
        )
    if held.rule.type not in ("regex", "not_contains") or (held.rule.type == "regex" and held.wanted):
        return None
    marks = list(spans)
    out: list[str] = []
    placed = False
    for start, end in sentences(text):
        if any(a < end and start < b for a, b in marks):
            if message and not placed:
                out.append(message + (text[start:end][len(text[start:end].rstrip()) :] or " "))
            placed = True
        else:
            out.append(text[start:end])
    new = "".join(out).strip()
    return new if new and (new == message or _would_hold(new.replace(message or "\0", ""), held, subject)) else None


def _would_hold(text: str, held: _Held, subject: Subject) -> bool:
    return held.rule.check(replace(subject, answer=text)).passed == held.wanted


def _shortened(text: str, config: LengthConfig) -> str | None:
    out = ""
    for _, end in sentences(text):
        candidate = text[:end].rstrip()
        size = {"characters": len(candidate), "words": len(candidate.split())}.get(config.unit)
        size = size if size is not None else sum(1 for _ in sentences(candidate))
        if config.max is None or size > config.max:
            break
        out = candidate
    return out if out and (config.min is None or len(out) >= config.min) else None


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"
