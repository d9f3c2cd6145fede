"""Detectors of bad timing: silence, interruption, and calls that end abruptly."""

import re
from collections.abc import Iterator

from fixloop.grading.conversation import Conversation, Row
from fixloop.grading.findings import GraderSettings
from fixloop.grading.occurrences import Occurrence, quoted
from fixloop.grounding import is_question, sentences


def long_silence(talk: Conversation, settings: GraderSettings) -> Iterator[Occurrence]:
    """The caller waits for an answer; a tool call in between explains the silence but does not excuse it."""
    waiting: Row | None = None
    tools: list[Row] = []
    for row in talk.rows:
        if row.speaker in ("tool_call", "tool_response"):
            tools.append(row)
        elif not row.text.strip() or row.speaker == "system":
            continue
        elif row.speaker == "user":
            waiting, tools = row, []
        else:
            if waiting is not None and waiting.end_ms is not None and row.start_ms is not None:
                yield from _silence(waiting, row, row.start_ms - waiting.end_ms, tools, settings)
            waiting = None
    ended = talk.ended_ms
    if waiting is not None and waiting.end_ms is not None and ended is not None and talk.agent:
        left = talk.call.end_reason not in ("agent_end", "transfer")
        if left and not _GOODBYE.search(waiting.text):
            yield from _silence(waiting, None, ended - waiting.end_ms, tools, settings)


def _silence(
    waiting: Row, answer: Row | None, gap_ms: float, tools: list[Row], settings: GraderSettings
) -> Iterator[Occurrence]:
    if gap_ms < settings.silence_seconds * 1000:
        return
    seconds = gap_ms / 1000
    names = sorted({t.tool for t in tools if t.tool})
    during = f", while it called {', '.join(names)}" if names else ", during a tool call" if tools else ""
    until = "before the agent answered" if answer else "and the call ended without an answer"
    yield Occurrence(
        "long-silence",
        "Agent paused too long",
        "warning",
        f"{seconds:.1f} seconds of silence {until}{during}.",
        answer or waiting,
        (quoted(waiting.text), *((quoted(answer.text),) if answer else ())),
        (waiting, *tools[:10]),
        second=max(0, (waiting.end_ms or 0) // 1000),
        metadata={"seconds": round(seconds, 1), "tool_call": bool(tools)},
    )


def agent_interrupted(talk: Conversation, settings: GraderSettings) -> Iterator[Occurrence]:
    """The agent starts to speak while the caller still does; a short "okay" or "mm-hm" is listening, not talking."""
    caller: Row | None = None
    for row in talk.speech:
        if row.speaker == "user":
            if caller is None or caller.end_ms is None or (row.end_ms or 0) >= caller.end_ms:
                caller = row
            continue
        before, caller = caller, None
        if before is None or row.start_ms is None or before.start_ms is None or before.end_ms is None:
            continue
        overlap = before.end_ms - row.start_ms
        if (
            overlap < max(1, settings.interruption_ms)
            or row.start_ms <= before.start_ms
            or _LISTENING.fullmatch(row.text)
        ):
            continue
        yield Occurrence(
            "agent-interrupted",
            "Agent interrupted the caller",
            "warning",
            f"The agent began {overlap / 1000:.1f} seconds before the caller had finished.",
            row,
            (quoted(before.text), quoted(row.text)),
            (before,),
            metadata={"overlap_ms": overlap},
        )


_LISTENING = re.compile(
    r"[\s\W]*(?:(?:mm+|hm+|mhm+|uh|huh|ah|oh|yes|yeah|yep|ok|okay|right|sure|i see|got it|go on|of course"
    r"|great|understood)"
    r"[\s\W]*){1,3}",
    re.I,
)
_GOODBYE = re.compile(
    r"\b(?:good ?bye|bye|have (?:a|an|yourself) |take care|(?:thanks?|thank you)(?: (?:so"
    r"|very) much)? for (?:calling|your)"
    r"|talk (?:to you )?soon|see you|good ?night|farewell|cheers|enjoy your|safe travels|you(?:['\u2019]re"
    r"| are) welcome"
    r"|all set|that(?:['\u2019]s| is| was) all|that(?:['\u2019]s| is) it|that(?:['\u2019]ll| will) be all"
    r"|nothing else|no,? thank)"
    r"(?:\b|(?<= ))",
    re.I,
)
_UNFINISHED = re.compile(
    r"(?:,|-|\u2013|\u2014|\.\.\.|…|\b(?:and|but|or|so|because|the|a|an|to|of|with|for|your|is|are))\s*$", re.I
)


def abrupt_end(talk: Conversation, settings: GraderSettings) -> Iterator[Occurrence]:
    """The caller hangs up on the agent, or an error or a timeout ends the call."""
    call = talk.call
    last = talk.speech[-1]
    ended = talk.ended_ms
    at = None if ended is None else int(ended // 1000)
    if call.status == "in_progress":
        return
    if call.end_reason in ("error", "timeout") or call.status == "failed":
        kind = "timeout" if call.end_reason == "timeout" else "error"
        yield Occurrence(
            f"abrupt-end.{kind}",
            "Call timed out" if kind == "timeout" else "Call ended with an error",
            "warning" if kind == "timeout" else "critical",
            f"The call ended with {'a time-out' if kind == 'timeout' else 'an error'}"
            f" after {'the agent' if last.speaker == 'agent' else 'the caller'} said this.",
            last,
            (quoted(last.text, len(last.text)),),
            second=last.second if at is None else at,
            metadata={"end_reason": call.end_reason, "status": call.status},
        )
        return
    if call.end_reason != "caller_hangup" or last.speaker != "agent" or ended is None or last.end_ms is None:
        return
    after = (ended - last.end_ms) / 1000
    asked = last.text.rstrip().endswith("?") or any(is_question(last.text[a:b]) for a, b in _last_sentence(last.text))
    unfinished = bool(_UNFINISHED.search(last.text[-200:])) or after < -0.3
    caller = talk.user_before.get(last.position)
    parted = bool(_GOODBYE.search(last.text)) or bool(caller and _GOODBYE.search(caller.text))
    if after > settings.abrupt_end_seconds or (parted and not unfinished):
        return
    if asked and re.search(r"\banything else\b", last.text, re.I):
        return
    how = "had asked a question" if asked else "was cut off" if unfinished else "had not said goodbye"
    yield Occurrence(
        "abrupt-end",
        "Caller hung up abruptly",
        "warning",
        f"The caller hung up {max(0.0, after):.1f} seconds after the agent, which {how}.",
        last,
        (quoted(last.text, len(last.text)),),
        (caller,) if caller else (),
        second=at,
        metadata={"seconds_after_agent": round(max(0.0, after), 1)},
    )


def _last_sentence(text: str) -> list[tuple[int, int]]:
    tail = max(0, len(text) - 2000)
    spans = list(sentences(text[tail:]))
    return [(a + tail, b + tail) for a, b in spans[-1:]]
