"""A call laid out for the detectors: rows in order of time, speech and tool rows apart, contents as text."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fixloop.grading.findings import GradedCall

Speaker = Literal["user", "agent", "tool_call", "tool_response", "system"]
_SPEAKERS: dict[str, Speaker] = {
    "user": "user",
    "assistant": "agent",
    "agent": "agent",
    "tool_call": "tool_call",
    "tool_response": "tool_response",
}
_MAX_JSON = 200_000  # characters of a tool row that are parsed; longer ones are judged by their beginning
_MAX_LEAVES = 5_000
_FOREVER = 1e9  # seconds; no call lasts that long, and a clock that says so is broken
_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name")
WORDS = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class Row:
    """A transcript row: `index` is its place in the call's turns, `position` its place in order of time."""

    index: int
    position: int
    speaker: Speaker
    text: str
    payload: Any
    start_ms: int | None
    end_ms: int | None

    @property
    def second(self) -> int | None:
        at = self.start_ms if self.start_ms is not None else self.end_ms
        return None if at is None else max(0, at // 1000)

    @cached_property
    def words(self) -> list[str]:
        """The first 400 words, lower case, with straight apostrophes."""
        return [w.lower().replace("\u2019", "'") for w in WORDS.findall(self.text[:4000])[:400]]

    @cached_property
    def tool(self) -> str | None:
        """The name of the tool a tool row is about, if it says."""
        name = self.payload if isinstance(self.payload, dict) else {}
        for key in _NAME_KEYS:
            found = name.get(key)
            if isinstance(found, dict):
                found = found.get("name")
            if isinstance(found, str) and found.strip():
                return found.strip()[:80]
        if self.speaker == "tool_call" and (called := re.match(r"\s*([A-Za-z_][\w.-]{1,79})\s*(?:\(|$)", self.text)):
            return called[1]
        return None


@dataclass(frozen=True)
class Conversation:
    """A call's rows by time. Rows without a time keep their place behind the row before them."""

    call: GradedCall
    rows: list[Row]

    @cached_property
    def speech(self) -> list[Row]:
        return [r for r in self.rows if r.speaker in ("user", "agent") and any(map(str.isalnum, r.text))]

    @cached_property
    def user(self) -> list[Row]:
        return [r for r in self.speech if r.speaker == "user"]

    @cached_property
    def agent(self) -> list[Row]:
        return [r for r in self.speech if r.speaker == "agent"]

    @cached_property
    def tools(self) -> list[Row]:
        return [r for r in self.rows if r.speaker in ("tool_call", "tool_response")]

    @cached_property
    def user_before(self) -> dict[int, Row]:
        """By position of each agent turn, the caller's last turn before it."""
        last: Row | None = None
        out: dict[int, Row] = {}
        for row in self.speech:
            if row.speaker == "user":
                last = row
            elif last is not None:
                out[row.position] = last
        return out

    @cached_property
    def user_after(self) -> dict[int, Row]:
        """By position of each agent turn, the caller's next turn."""
        nxt: Row | None = None
        out: dict[int, Row] = {}
        for row in reversed(self.speech):
            if row.speaker == "user":
                nxt = row
            elif nxt is not None:
                out[row.position] = nxt
        return out

    @cached_property
    def ended_ms(self) -> float | None:
        """When the call ended, from its duration or from a hang-up event."""
        duration = self.call.duration_seconds
        if duration is not None and 0 < duration < _FOREVER:
            return duration * 1000
        for event in reversed(self.call.events):
            kind, at = str(event.get("type", "")).lower(), event.get("at_ms")
            if (
                re.search(r"hang_?up|disconnect|call[._]?ended", kind)
                and isinstance(at, (int, float))
                and 0 <= at < _FOREVER * 1000
            ):
                return float(at)
        return None


def lay_out(call: GradedCall) -> Conversation:
    keyed: list[tuple[int, int]] = []
    last = -1
    for index, turn in enumerate(call.turns):
        if turn.start_ms is not None:
            last = turn.start_ms
        keyed.append((last, index))
    rows = []
    for position, (_, index) in enumerate(sorted(keyed)):
        turn = call.turns[index]
        speaker = _SPEAKERS.get(turn.role.strip().lower(), "system")
        tool = speaker in ("tool_call", "tool_response")
        payload = parsed(turn.content) if tool else None
        text = turn.content if isinstance(turn.content, str) else flattened(turn.content)
        rows.append(Row(index, position, speaker, text, payload, turn.start_ms, turn.end_ms))
    return Conversation(call, rows)


def parsed(content: str | dict[Any, Any] | list[Any]) -> Any:
    """The object a tool row carries, also when it came as JSON text; `None` when it is plain text."""
    if not isinstance(content, str):
        return content
    if len(content) > _MAX_JSON or content.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def flattened(content: Any) -> str:
    """An object as lines of "key words: value", without recursion and bounded in size."""
    lines: list[str] = []
    stack: list[tuple[str, Any]] = [("", content)]
    while stack and len(lines) < _MAX_LEAVES:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((str(k), v) for k, v in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((key, v) for v in reversed(value))
        elif value is not None:
            lines.append(f"{key.replace('_', ' ')}: {value}" if key else str(value))
    return "\n".join(lines)
