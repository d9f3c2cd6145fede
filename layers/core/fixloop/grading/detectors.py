"""The detectors of a call, and the issues they find together."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate

from fixloop.grading.answers import unsupported_answer
from fixloop.grading.conversation import Conversation
from fixloop.grading.findings import DetectedIssue, GraderSettings
from fixloop.grading.occurrences import Occurrence, merged
from fixloop.grading.pacing import abrupt_end, agent_interrupted, long_silence
from fixloop.grading.repetition import agent_repeated, caller_repeated
from fixloop.grading.tone import agent_profanity, caller_anger
from fixloop.grading.tools import broken_promise, failed_tool_call

_ROOM = 150_000  # bytes of all issues as JSON

Detector = Callable[[Conversation, GraderSettings], Iterator[Occurrence]]

DETECTORS: tuple[Detector, ...] = (
    long_silence,
    caller_repeated,
    agent_repeated,
    agent_interrupted,
    abrupt_end,
    broken_promise,
    failed_tool_call,
    unsupported_answer,
    caller_anger,
    agent_profanity,
)


def detect(talk: Conversation, settings: GraderSettings) -> list[DetectedIssue]:
    """What all detectors find, one issue per ref, in the order in which they show in the call.

    A call made to have thousands of them is told of as many as fit an event.
    """
    by_ref: dict[str, list[Occurrence]] = defaultdict(list)
    for detector in DETECTORS:
        for occurrence in detector(talk, settings):
            by_ref[occurrence.ref].append(occurrence)
    issues = [merged(ref, occurrences) for ref, occurrences in by_ref.items()]
    issues.sort(key=lambda i: (i.turn_index is None, i.turn_index or 0, i.ref))
    sizes = accumulate(len(issue.model_dump_json().encode()) for issue in issues)
    return [issue for issue, size in zip(issues, sizes, strict=True) if size <= _ROOM]
