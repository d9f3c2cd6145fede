"""What one create costs in write units: calls and reports, by every way they come in."""

from __future__ import annotations

from typing import Any

from bench.store import Meter
from bench.world import NOW, ORG, empty, played

PROMPT = """You are the phone agent of Aurora Lamps. Be friendly and brief.
Opening hours are Monday to Friday, 9:00 to 18:00.
Refunds are possible within 30 days of purchase if the lamp is unused.
Shipping takes 3 to 5 working days and costs $4.90; orders above $60 ship free.
Ask for the order number and the e-mail address before you look anything up.
If the caller is upset or asks for a person, transfer to the team. Never promise what is not written here."""
SAID = (
    ("assistant", "Hello, this is Aurora Lamps. How can I help you today?"),
    ("user", "Hi, I ordered a desk lamp two weeks ago and I'd like to return it, it doesn't fit."),
    ("assistant", "I'm sorry to hear that. Could you give me your order number, please?"),
    ("user", "Sure, it's 4417."),
    ("assistant", "Thank you. And the e-mail address you used for the order?"),
    ("user", "That's mara at example dot com."),
    ("assistant", "Thanks, Mara. I can see the order. Has the lamp been used?"),
    ("user", "No, it's still in its box."),
    ("assistant", "Then you can get a refund within 60 days of purchase. I'll send you a label by e-mail."),
    ("user", "Great. Does sending it back cost anything?"),
    ("assistant", "No, the label is free of charge."),
    ("user", "And when do I get my money?"),
    ("assistant", "As soon as the parcel has arrived with us, usually within a few days."),
    ("user", "Okay. Are you open on Saturday, in case I want to bring it by?"),
    ("assistant", "We are open Monday to Friday, from nine to six."),
    ("user", "All right, then I'll send it."),
    ("assistant", "Perfect. You'll have the label in your inbox in a few minutes."),
    ("user", "Thank you very much."),
    ("assistant", "You're welcome. Is there anything else I can do for you?"),
    ("user", "No, that was all. Bye."),
    ("assistant", "Goodbye, Mara, and have a nice day!"),
)


def call() -> dict[str, Any]:
    """A typical finished call, as it is PUT."""
    rows = [
        {"role": role, "content": content, "start_ms": 6500 * index, "end_ms": 6500 * index + 4200}
        for index, (role, content) in enumerate(SAID)
    ]
    return {
        "agent_id": 12,
        "direction": "inbound",
        "from_number": "+15550001111",
        "to_number": "+15559998888",
        "start_time": "2026-09-20T18:24:00.000Z",
        "duration_seconds": 137,
        "end_reason": "caller_hangup",
        "recording_url": "https://recordings.example.com/0123456789abcdef01234567.wav",
        "product": "voice",
        "voice": "nova",
        "billable_minutes": 3,
        "billing_total_cents": 27,
        "prompt_snapshot": PROMPT,
        "transcripts": rows,
    }


def measure() -> list[dict[str, Any]]:
    """Write units of each create, in the order in which they happen to a call."""
    from fixloop.calls import CallIn, received
    from fixloop.issue_reports import ReportIn
    from fixloop.loop import grade_call
    from fixloop.storage import calls, issue_reports

    store = empty()
    found: list[dict[str, Any]] = []

    def note(what: str, meter: Meter, of: str, count: int = 1) -> None:
        split: dict[str, float] = {}
        for request in meter.requests:
            for place, units in request.split.items():
                split[place] = split.get(place, 0) + units / count
        found.append({"what": what, "of": of, "units": meter.writes / count, "split": split, "count": count})

    with played(store):
        for lists in (calls.lists, issue_reports.lists):
            lists._known.clear()
        given = CallIn.model_validate(call())
        calls.put(ORG, 1, given, NOW)  # makes the leaf known, which later calls need not
        with store.metered() as meter:
            calls.put(ORG, 2, given, NOW)
        bodies = sum(request.writes for request in meter.requests if _is_body(request))
        note("PUT /v1/calls/{id}, 21 turns", meter, "calls")
        found[-1]["body"] = bodies
        with store.metered() as meter:
            call_id, n = calls.numbered(ORG, NOW)
            calls.insert(ORG, received(call_id, given, NOW), NOW, n=n)
        note("POST /v1/calls, 21 turns", meter, "calls")
        found[-1]["body"] = bodies
        with store.metered() as meter:
            grade, _ = grade_call(ORG, 2, force=False, now=NOW)
        note("grading it", meter, "grades")
        said = ReportIn(
            title="Agent promised the wrong refund period",
            description="Says 60 days, but our terms are 30. The customer now has it on tape.",
            severity="critical",
            timestamp_seconds=52,
        )
        for told in ("first", "second", "third"):
            row = calls.find(ORG, 2)
            reports = issue_reports.prepare(row, [said], 7, NOW)
            issue_reports.lists.announce(ORG, reports[0].leaf)
            with store.metered() as meter:
                reports = issue_reports.prepare(calls.find(ORG, 2), [said], 7, NOW)
                issue_reports.add(ORG, reports)
            note(f"POST …/issue-reports, the call's {told}", meter, "issue_reports")
        _by_event(store, note, grade)
    return found


def _by_event(store: Any, note: Any, grade: Any) -> None:
    """The same grade's issues, filed on a call without any reports yet."""
    from fixloop.calls import CallIn
    from fixloop.issue_reports import detected
    from fixloop.loop import grade_call
    from fixloop.storage import calls, issue_reports

    calls.put(ORG, 3, CallIn.model_validate(call()), NOW)
    grade_call(ORG, 3, force=False, now=NOW)
    listed = [detected(one) for one in grade.found["detected_issues"]]
    for one in listed:  # their leaves are known
        issue_reports.file_system(ORG, 1, [one], NOW)
    with store.metered() as meter:
        filed = issue_reports.file_system(ORG, 3, listed[:1], NOW)
    note("call.graded with one issue", meter, "issue_reports")
    calls.put(ORG, 4, CallIn.model_validate(call()), NOW)
    grade_call(ORG, 4, force=False, now=NOW)
    with store.metered() as meter:
        filed = issue_reports.file_system(ORG, 4, listed, NOW)
    note(f"call.graded with {len(filed)} issues, each", meter, "issue_reports", len(filed))
    with store.metered() as meter:
        issue_reports.join_pattern(ORG, filed[0])
    note("its place under its pattern (later, by event)", meter, "patterns")


def _is_body(request: Any) -> bool:
    return request.operation == "PutItem" and set(request.split) == {"CallsTable"}
