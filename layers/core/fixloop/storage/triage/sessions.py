"""Sessions of the agent on triage issues, and the prompts that wait in them for their answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from fixloop.errors import NotFound
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Action, Item
from fixloop.storage.triage import rows
from fixloop.storage.triage.rows import Change, Step
from fixloop.triage import agent
from fixloop.triage.activity import Actor, Entry, SessionSummary
from fixloop.triage.agent import Run, intent_of
from fixloop.triage.issues import Issue
from fixloop.triage.wire import identifier, is_identifier


def _session_key(org: str, issue_id: str, session_id: str) -> Item:
    return rows.key(org, issue_id, f"session#{session_id}")


def _stored(org: str, issue_id: str, summary: SessionSummary) -> Action:
    return rows.put({**_session_key(org, issue_id, summary["id"]), "doc": json.dumps(summary, ensure_ascii=False)})


def _started(summary: SessionSummary, actor: Actor) -> Entry:
    return Entry(type="session_started", actor=actor, detail="Started a session.", session=summary)


def start(
    org: str,
    issue_id: str,
    name: str,
    actor: Actor,
    now: int,
    also: Callable[[SessionSummary], list[Action]],
) -> SessionSummary:
    """Raises NotFound."""
    summary = agent.session(identifier(now, rows.noise()), org, name)

    def asked() -> Change:
        old = rows.find(org, issue_id)
        new = old.active(now, session=summary)
        return Change([Step(old, new, [_started(summary, actor)])], [_stored(org, issue_id, summary)])

    rows.change(org, asked, lambda _: also(summary))
    return summary


def prompt(
    org: str, issue_id: str, session_id: str, detail: str, actor: Actor, now: int, also: Callable[[Run], list[Action]]
) -> Run:
    """Puts a prompt behind those that wait; the table's stream brings it to who answers it. Raises NotFound."""
    made: list[Run] = []

    def asked() -> Change:
        old = rows.find(org, issue_id)
        held = dynamo.get(rows.table(), _session_key(org, issue_id, session_id)) if is_identifier(session_id) else None
        if held is None:
            raise NotFound("Session not found")
        run, new, entries, actions = waiting(org, old, json.loads(held["doc"]), detail, actor, now)
        made[:] = [run]
        return Change([Step(old, new, entries)], actions)

    rows.change(org, asked, lambda _: also(made[0]))
    return made[0]


def called_upon(
    org: str, issue: Issue, text: str, name: str, actor: Actor, now: int
) -> tuple[Issue, list[Entry], list[Action]]:
    """What a comment that speaks to the agent adds to its own change: a prompt in the latest session, or a new one."""
    summary, started = issue.session, []
    if summary is None:
        summary = agent.session(identifier(now, rows.noise()), org, name)
        started = [_started(summary, actor)]
    _, new, entries, actions = waiting(org, issue, summary, text, actor, now)
    return new, [*started, *entries], actions


def waiting(
    org: str, issue: Issue, summary: SessionSummary, detail: str, actor: Actor, now: int
) -> tuple[Run, Issue, list[Entry], list[Action]]:
    """A prompt's run, the issue with it, and what to write."""
    active: SessionSummary = {**summary, "status": "active"}
    intent, text = intent_of(detail)
    new = issue.active(now, pending_runs=issue.pending_runs + 1)
    if issue.session is None or issue.session["id"] == active["id"]:
        new = new.model_copy(update={"session": active})
    run = Run(
        id=rows.identified(new),
        org=org,
        issue_id=issue.id,
        session=active,
        intent=intent,
        text=text,
        asked_by=actor["id"],
        created_at=new.last_activity_at,
    )
    about = {"run_id": run.id, "intent": intent}
    entry = Entry(type="prompt", actor=actor, detail=detail or intent, metadata=about, session=active)
    row = {**rows.key(org, issue.id, f"run#{run.id}"), "kind": "run", "doc": run.model_dump_json()}
    return run, new, [entry], [rows.put(row), _stored(org, issue.id, active)]


def run_of(item: Item) -> Run:
    """The run in a stored item, also in one that came through the table's stream."""
    return Run.model_validate_json(item["doc"])


def waits(run: Run) -> Issue | None:
    """The issue of a run that is still to be answered; None when it was, or the issue is gone."""
    held = dynamo.get(rows.table(), rows.key(run.org, run.issue_id, f"run#{run.id}"))
    return rows.look(run.org, run.issue_id) if held and "done" not in held else None


def answer(run: Run, entries: Sequence[Entry], *, failed: bool, now: int) -> bool:
    """Puts a run's entries into the timeline, once; False when that had been done, or the issue is gone."""
    where = rows.key(run.org, run.issue_id, f"run#{run.id}")
    after: SessionSummary = {**run.session, "status": "error" if failed else "awaiting_input"}
    told = [entry.model_copy(update={"session": after}) for entry in entries]

    def asked() -> Change | None:
        old = rows.look(run.org, run.issue_id)
        held = dynamo.get(rows.table(), where)
        if old is None or held is None or "done" in held:
            return None
        new = old.active(now, pending_runs=old.pending_runs - 1)
        if old.session and old.session["id"] == after["id"]:
            new = new.model_copy(update={"session": after})
        done = dynamo.set_action(rows.table(), where, {"done": now})
        return Change([Step(old, new, told)], [done, _stored(run.org, run.issue_id, after)])

    return bool(rows.change(run.org, asked))
