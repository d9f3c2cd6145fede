"""Detectors of broken promises and failed tool calls."""

import re
from collections.abc import Iterator
from typing import Any

from fixloop.grading.conversation import Conversation, Row
from fixloop.grading.findings import GraderSettings
from fixloop.grading.occurrences import QUOTE, Occurrence, quoted, slug
from fixloop.grading.repetition import STOCK
from fixloop.grounding import content_words, sentences

_I_WILL = (
    r"(?:i(?:['\u2019]ll| will|['\u2019]m going to|['\u2019]m gonna| am going to)|let me|allow me to)"
    r"(?: (?:now|just|quickly|go ahead and|gladly|happily|be happy to|also|then|have to|need to|try to|try and)){0,2} "
)
_TRANSFER = re.compile(
    r"\b(?:"
    + _I_WILL
    + r"(?:transfer|connect|forward|redirect|escalate|hand)(?:ring)?\b(?! (?:the|your) (?:money|funds|dots))"
    r"|" + _I_WILL + r"(?:put|patch) you (?:through|in touch)\b"
    r"|i(?:['\u2019]m| am) (?:now )?(?:transferring|connecting|forwarding|putting|escalating|patching) (?:you"
    r"|your|this|the)\b"
    r"|(?:transferring|connecting) you(?: now| to)\b|you (?:are|will) now be(?:ing)? (?:transferred|connected)\b)",
    re.I,
)
_ACTION = re.compile(
    r"\b"
    + _I_WILL
    + r"(?:(?:send|email|e-mail|text|sms|mail|forward|book|schedule|reschedule|reserve|cancel|update(?! you)|process"
    r"|create|submit|issue|refund|file|open a|place(?! you)|order|arrange|register|enroll|credit|apply|change)\b"
    r"|(?P<lookup>(?:look (?:it|that|this|them|those|you|your|up|into)|check|find|pull (?:it|that|this|up|your)|search"
    r"|verify|retrieve|fetch|bring up|get (?:those|your|that) (?:details|order|account|information))\b))",
    re.I,
)
_CONDITION = re.compile(
    r"\b(?:if|once|when|whenever|after|before i|as soon as|unless|in case|should you|would you like|shall i|do you want"
    r"|not|never|can['\u2019]t|cannot)\b",
    re.I,
)
_CONDITION_AFTER = re.compile(r"\b(?:if you(?:['\u2019]d| would)?|once|as soon as|when you|after you|unless)\b", re.I)
_WITH_CALLER = re.compile(
    r"\b(?:check|verify|find out|confirm)\b(?: your (?:details|identity|information|name|account)\b"
    r"|(?: that| if)?(?: i(?: have|['\u2019]ve)?| with you)\b)",
    re.I,
)
_DECLINED = re.compile(
    r"^\W*(?:no|nope|don['\u2019]?t|do not|wait|never ?mind|hold on|stop|actually no|please don['\u2019]?t)\b", re.I
)
_CLAUSE = 300  # characters after a promise in which its condition is looked for
_TRANSFER_TOOL = re.compile(r"transfer|hand_?-?off|escalat|connect|forward|dial|human|live|route|queue", re.I)


def broken_promise(talk: Conversation, _: GraderSettings) -> Iterator[Occurrence]:
    """The agent says it transfers, sends, books or looks up, and neither a tool call nor a transfer follows."""
    positions = [t.position for t in talk.tools]
    last_tool = positions[-1] if positions else -1
    calls = any(t.speaker == "tool_call" for t in talk.tools)
    transfers = [
        t.position
        for t in talk.tools
        if (_TRANSFER_TOOL.search(t.tool) if t.tool else t.speaker == "tool_call" or not calls)
    ]
    last_transfer = transfers[-1] if transfers else -1
    transferred = talk.call.end_reason == "transfer" or any(
        "transfer" in str(event.get("type", "")).lower() for event in talk.call.events
    )
    for row in talk.agent:
        text = row.text[:20_000]
        asked = talk.user_before.get(row.position)
        since = asked.position if asked else -1
        transfer = _promise(_TRANSFER, text)
        action = None if transfer else _promise(_ACTION, text)
        promise = transfer or action
        if promise is None:
            continue
        reply = talk.user_after.get(row.position)
        if reply and _DECLINED.search(reply.text):
            continue
        if transfer and not transferred and last_transfer <= since:
            yield Occurrence(
                "promised-transfer-missing",
                "Promised transfer never happened",
                "critical",
                f'The agent said "{promise[0]}", and no transfer followed.',
                row,
                (quoted(row.text, promise.start()),),
            )
        elif action and last_tool <= since and not _answers(text, action):
            yield Occurrence(
                "promised-action-missing",
                "Promised action never happened",
                "warning",
                f'The agent said "{promise[0]}", and no tool was called for it.',
                row,
                (quoted(row.text, promise.start()),),
            )


def _promise(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first unconditional promise of a turn."""
    for start, end in sentences(text):
        if text[start:end].rstrip().endswith("?"):
            continue
        condition = _CONDITION.search(text, start, end)
        for found in pattern.finditer(text, start, condition.start() if condition else end):
            stop = min(end, found.end() + _CLAUSE)
            if not _CONDITION_AFTER.search(text, found.end(), stop) and not _WITH_CALLER.search(
                text, found.start(), stop
            ):
                return found
    return None


def _answers(text: str, action: re.Match[str]) -> bool:
    """Whether a look-up is answered in the same breath, from what the agent already knew."""
    if not action["lookup"]:
        return False
    for start, end in sentences(text):
        if start > action.start() and len(content_words(text[start:end])) >= 3 and not STOCK.search(text, start, end):
            return True
    return False


_WRAPPERS = ("result", "response", "data", "body", "output", "content")
_STATUS_KEYS = ("status", "status_code", "statusCode", "http_status", "httpStatus")
_FAILED_TEXT = re.compile(
    r"\s*(?:[\w.]*(?:error|exception)\b|traceback\b|failed\b|failure\b|time(?:d)?[ -]?out\b"
    r"|http(?:/[\d.]+)?[ :]*[45]\d\d\b"
    r"|[45]\d\d[ :-]+(?:bad|un|forbidden|not|conflict|too many|internal|service|gateway|error))"
    r"|unhandled exception|could not connect|connection (?:refused|reset|timed out)",
    re.I,
)
_FAILED_STATUS = frozenset({"error", "failed", "failure", "timeout", "timed_out", "exception", "errored"})


def failed_tool_call(talk: Conversation, _: GraderSettings) -> Iterator[Occurrence]:
    """A tool answered with an error. One the agent got past, by a later success of the same tool, is told as info."""
    called: Row | None = None
    failures: list[tuple[str | None, str, Row, Row | None]] = []
    succeeded: dict[str | None, int] = {}
    for row in talk.tools:
        if row.speaker == "tool_call":
            called = row
            continue
        name = row.tool or (called.tool if called else None)
        error = _failure(row)
        if error is None:
            succeeded[name] = row.position
        else:
            failures.append((name, error, row, called))
    for name, error, row, call in failures:
        recovered = succeeded.get(name, -1) > row.position
        yield Occurrence(
            f"failed-tool-call:{slug(name)}" if name and slug(name) else "failed-tool-call",
            f"Tool call failed: {name}" if name else "Tool call failed",
            "info" if recovered else "warning",
            f"{name or 'A tool'} failed: {error}" + (" (it succeeded later)." if recovered else "."),
            row,
            (error,),
            (call,) if call else (),
            metadata={"tool": name, "recovered": recovered},
        )
    for event in talk.call.events:
        kind, data = str(event.get("type", "")).lower(), event.get("data")
        if "tool" in kind and (re.search(r"fail|error", kind) or _failed(data)):
            data = data if isinstance(data, dict) else {}
            name = next((data[k][:80] for k in ("name", "tool", "tool_name") if isinstance(data.get(k), str)), None)
            if any(f[0] == name for f in failures):
                continue
            at = event.get("at_ms")
            error = _failed(data) or kind
            yield Occurrence(
                f"failed-tool-call:{slug(name)}" if name and slug(name) else "failed-tool-call",
                f"Tool call failed: {name}" if name else "Tool call failed",
                "warning",
                f"{name or 'A tool'} failed: {error}.",
                None,
                (error,),
                second=int(at // 1000) if isinstance(at, (int, float)) and 0 <= at < 1e12 else None,
                metadata={"tool": name, "recovered": False},
            )


def _failure(row: Row) -> str | None:
    """What went wrong, in the tool's own words; `None` for a success."""
    if row.payload is not None:
        return _failed(row.payload)
    return quoted(row.text) if _FAILED_TEXT.match(row.text[:400]) else None


def _failed(payload: Any, depth: int = 0) -> str | None:
    if not isinstance(payload, dict):
        return None
    for key in ("error", "errors", "exception", "traceback", "error_message", "errorMessage"):
        value = payload.get(key)
        if value and str(value).strip().lower() not in ("none", "null", "false", "no", "0"):
            return _short(value if value is not True else payload.get("message") or f"{key}: true")
    for key in _STATUS_KEYS:
        value = payload.get(key)
        if isinstance(value, str) and value.strip().lower() in _FAILED_STATUS:
            return _short(payload.get("message") or f"{key}: {value}")
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return _short(f"{value} {payload['message']}" if payload.get("message") else f"{key}: {value}")
    for key in ("success", "ok"):
        if payload.get(key) is False:
            return _short(payload.get("message") or payload.get("reason") or f"{key}: false")
    if payload.get("is_error") is True or payload.get("isError") is True:
        return _short(payload.get("content") or payload.get("message") or "is_error: true")
    if depth < 2:
        for key in _WRAPPERS:
            if (inner := _failed(payload.get(key), depth + 1)) is not None:
                return inner
    return None


def _short(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("message") or value.get("detail") or value.get("code") or next(iter(value.values()), "")
    if isinstance(value, list):
        value = value[0] if value else ""
        return _short(value) if isinstance(value, dict) else str(value)[:QUOTE]
    return (value if isinstance(value, str) else repr(value) if isinstance(value, (int, float, bool)) else "error")[
        :QUOTE
    ]
