"""The built-in grader: detectors over a finished call's transcript and events, a rubric that adds up, and a summary."""

from fixloop.grading.detectors import DETECTORS
from fixloop.grading.findings import DetectedIssue, Grade, GradedCall, GraderSettings, RubricItem, Severity, Turn
from fixloop.grading.rubric import GRADER_MODEL, GRADER_VERSION, grade

__all__ = [
    "DETECTORS",
    "GRADER_MODEL",
    "GRADER_VERSION",
    "DetectedIssue",
    "Grade",
    "GradedCall",
    "GraderSettings",
    "RubricItem",
    "Severity",
    "Turn",
    "grade",
]
