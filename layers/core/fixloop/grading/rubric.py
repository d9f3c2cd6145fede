"""The grade of a call: its detected issues weighed by a rubric, the outcome, and a summary in words."""

import math
import re
from typing import Literal, NamedTuple

from fixloop.grading.conversation import Conversation, lay_out
from fixloop.grading.detectors import detect
from fixloop.grading.findings import DetectedIssue, Grade, GradedCall, GraderSettings, RubricItem, Severity

GRADER_MODEL = "fixloop-detectors"
GRADER_VERSION = "1"
DEFAULTS = GraderSettings()


class Criterion(NamedTuple):
    """A criterion, and how much of its score each kind of issue takes at most (by ref, without its suffix)."""

    name: str
    weight: float
    good: str
    takes: dict[str, float]


RUBRIC = (
    Criterion("accuracy", 0.30, "Every number, date and amount stated is borne out.",
              {"contradicts-prompt": 1.0, "unsupported-answer": 1.0}),
    Criterion("task_completion", 0.25, "Tools worked, promises were kept, the call came to its end.",
              {"failed-tool-call": 1.2, "promised-transfer-missing": 1.0, "promised-action-missing": 1.4,
               "abrupt-end": 1.2, "contradicts-prompt": 0.5}),
    Criterion("responsiveness", 0.15, "The caller never waited long for an answer.", {"long-silence": 1.0}),
    Criterion("conversation_flow", 0.15, "Nobody was interrupted or had to say things twice.",
              {"caller-repeated": 1.0, "agent-repeated": 1.0, "agent-interrupted": 1.0}),
    Criterion("caller_welfare", 0.15, "The caller was treated with respect and stayed calm.",
              {"agent-profanity": 1.0, "caller-anger": 1.0}),
)  # fmt: skip
_PENALTY: dict[Severity, float] = {"info": 0.1, "warning": 0.4, "critical": 1.0}
_MORE_OF_THE_SAME = 4  # occurrences beyond this no longer lower the score

_CONTENT = re.compile(
    r"\b(?:thank(?:s| you)|great|perfect|awesome|wonderful|excellent|that(?:['\u2019]s| is) (?:all|it|great"
    r"|perfect|helpful)"
    r"|sounds good|appreciate|brilliant|lovely|cheers|good ?bye|bye)\b",
    re.I,
)


def grade(call: GradedCall, settings: GraderSettings = DEFAULTS) -> Grade:
    """Grades a call. The same call and settings always give the same grade."""
    talk = lay_out(call)
    if not talk.user:
        return _nothing_said(talk)
    issues = detect(talk, settings)
    rubric = [_scored(criterion, issues) for criterion in RUBRIC]
    outcome, reason = _outcome(talk, issues)
    abusive = next((i for i in issues if i.ref == "agent-profanity"), None)
    goal: dict[str, Literal["achieved", "missed"]] = {"success": "achieved", "failure": "missed"}
    return Grade(
        status="completed",
        score=round(sum(item.weight * item.score for item in rubric), 4),
        summary=_summary(talk, issues),
        rubric_breakdown=rubric,
        detected_issues=issues,
        call_outcome=outcome,
        goal_achievement=goal.get(outcome),
        goal_reasoning=reason if outcome in goal else None,
        outcome_reasoning=reason,
        caller_welfare_violation=abusive is not None,
        caller_welfare_reasoning=abusive.description if abusive else "The agent used no abusive language.",
    )


def _nothing_said(talk: Conversation) -> Grade:
    who = "The caller said nothing." if talk.agent else "Nobody said anything."
    return Grade(
        status="completed",
        score=None,
        summary=f"No conversation: {who[0].lower()}{who[1:]}",
        rubric_breakdown=[],
        detected_issues=[],
        call_outcome="no_conversation",
        goal_achievement="no_opportunity",
        goal_reasoning=who,
        outcome_reasoning=who,
        caller_welfare_violation=False,
        caller_welfare_reasoning=who,
    )


def _scored(criterion: Criterion, issues: list[DetectedIssue]) -> RubricItem:
    score, reasons = 1.0, []
    for issue in issues:
        share = criterion.takes.get(re.split(r"[:.]", issue.ref, maxsplit=1)[0])
        if share is None:
            continue
        times = min(issue.metadata["count"], _MORE_OF_THE_SAME)
        score *= (1 - min(1.0, _PENALTY[issue.severity] * share)) ** times
        count = issue.metadata["count"]
        reasons.append(f"{issue.title} ({issue.severity}{f', {count} times' if count > 1 else ''})")
    explanation = "; ".join(reasons) or criterion.good
    return RubricItem(criterion=criterion.name, weight=criterion.weight, score=round(score, 4), explanation=explanation)


def _outcome(talk: Conversation, issues: list[DetectedIssue]) -> tuple[Literal["success", "failure", "unknown"], str]:
    if not talk.agent:
        return "failure", "The caller spoke and the agent never answered."
    grave = [i for i in issues if i.severity == "critical" or i.ref == "abrupt-end.timeout"]
    if grave:
        return "failure", grave[0].description
    open_ends = [i for i in issues if i.severity == "warning" and i.ref.startswith(("failed-", "promised-", "abrupt-"))]
    if open_ends:
        return "failure", open_ends[0].description
    last = talk.user[-1]
    if any(i.ref == "caller-anger" for i in issues):
        return "unknown", "The caller was angry; nothing shows whether they got what they came for."
    if talk.call.end_reason == "transfer":
        return "success", "The call was transferred."
    if _CONTENT.search(last.text[-2000:]):
        return "success", f'The caller closed with "{last.text.strip()[-200:]}".'
    return "unknown", "Nothing in the caller's last words shows whether they got what they came for."


def _summary(talk: Conversation, issues: list[DetectedIssue]) -> str:
    turns = len(talk.speech)
    length = f"{turns} turn{'s' if turns != 1 else ''}"
    if talk.call.duration_seconds is not None and 0 < talk.call.duration_seconds < math.inf:
        length += f" in {talk.call.duration_seconds:.0f} seconds"
    if not issues:
        return f"No issues found ({length})."
    worst = sorted(issues, key=lambda i: ("critical", "warning", "info").index(i.severity))
    listed = "; ".join(f"{i.title} ({i.severity})" for i in worst[:5])
    more = f"; and {len(issues) - 5} more" if len(issues) > 5 else ""
    return f"{len(issues)} issue{'s' if len(issues) != 1 else ''} found ({length}): {listed}{more}."
