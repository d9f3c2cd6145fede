"""What the agent of triage does with the loop when it is asked: tells how things stand, drafts a fix, has it tested."""

from __future__ import annotations

import hashlib

from botocore.exceptions import BotoCoreError, ClientError

from fixloop import models
from fixloop.agents import Agent
from fixloop.changes import DiffDoesNotApply, parse_changes
from fixloop.errors import Conflict, FixloopError, Invalid, NotFound
from fixloop.fixes import Fix, applied
from fixloop.issues import Issue as LoopIssue
from fixloop.models import ModelError
from fixloop.observe import logger
from fixloop.patience import OutOfTime, Patient
from fixloop.shadow_tests import Config, ShadowTest, Tally
from fixloop.storage import agents, endpoints, fixes, issues, paces, platform, shadow_tests, traces
from fixloop.storage.dynamo import ConditionFailed
from fixloop.storage.triage import sessions
from fixloop.thinkhive import identifier
from fixloop.traces import Trace
from fixloop.triage.agent import Log, Run
from fixloop.triage.drafter import Case, Unusable, propose
from fixloop.triage.drafts import READ, Draft, draft, findings
from fixloop.triage.issues import Issue

TESTED = 1000  # traces of one test


def answer(run: Run, now: int, deadline: float) -> bool:
    """Does what a prompt asks and says in the timeline what came of it. Repeats change nothing.

    `now` in ms; a model is not asked beyond `deadline`, one of `time.monotonic`.
    """
    issue = sessions.waits(run)
    if issue is None:
        return False
    log = Log(run)
    try:
        if run.intent == "fix":
            _fix(run, issue, log, now, deadline)
        else:
            _WORK[run.intent](run, issue, log)
    except FixloopError as refused:
        log.error(refused.message)
    return sessions.answer(run, log.entries, failed=log.failed, now=now)


def _loop_issue(issue: Issue, run: Run, log: Log) -> LoopIssue | None:
    linked = issues.look(run.org, issue.loop_issue_id) if issue.loop_issue_id else None
    if linked is None:
        gone = f" {issue.loop_issue_id}, which is gone" if issue.loop_issue_id else ""
        log.response(
            f"{issue.triage_id} is not linked to an issue of the loop{gone}, so there are no traces to work on. It has "
            f"{issue.resources.get('call', 0)} calls and {issue.flag_count} flags attached."
        )
    return linked


# Status


def _status(run: Run, issue: Issue, log: Log) -> None:
    log.action("Read the issue, its fixes and their shadow tests.")
    linked = _loop_issue(issue, run, log)
    if linked is None:
        return
    said = [
        f"{issue.triage_id} is {issue.status.replace('_', ' ')}. It stands for {linked.id} "
        f'"{linked.title}" ({linked.status}, {linked.severity}, {linked.trace_count} traces).'
    ]
    proposed = fixes.of_issue(run.org, linked.id)
    if not proposed:
        said.append("There is no fix yet.")
    for fix in proposed[:10]:
        said.append(f"{fix.id} ({fix.type}) is {fix.status}: {fix.description}")
        for test, tally in _tests(run.org, fix)[:3]:
            said.append(f"  {_told(test, tally)}")
    log.response("\n".join(said))


def _tests(org: str, fix: Fix) -> list[tuple[ShadowTest, Tally]]:
    tests = shadow_tests.of_fix(org, fix.id)
    return list(zip(tests, shadow_tests.tallies(org, tests), strict=True))


def _told(test: ShadowTest, tally: Tally) -> str:
    counts = tally.counts()
    said = f"Shadow test {test.id} is {test.status}: {tally.done} of {test.trace_count} traces replayed"
    if tally.replayed:
        said += f", {counts['improved']} improved, {counts['unchanged']} unchanged, {counts['regressed']} regressed"
    return f"{said}; {test.error}" if test.error else f"{said}."


# Fix


def _fix(run: Run, issue: Issue, log: Log, now: int, deadline: float) -> None:
    linked = _loop_issue(issue, run, log)
    if linked is None:
        return
    made = _made(run)
    if made is not None:
        _present(made, log)
        return
    so_far = fixes.of_issue(run.org, linked.id)
    ids = issues.trace_ids(run.org, linked.id)[:READ]
    read = [trace for one in ids if (trace := _trace(run.org, one)) is not None]
    log.action(f"Read {len(read)} of the {linked.trace_count} traces of {linked.id}.", trace_ids=ids)
    found = [one for trace in read for one in findings(trace)]
    for one in found[:5]:
        against = f'; the source says "{one.source}"' if one.source else ", which no source says"
        log.thought(f'{one.trace_id} says "{one.said}"{against}.')
    agent = agents.look(run.org, linked.agent_id)
    case = Case(
        title=issue.title,
        description=issue.description,
        wish=run.text,
        agent=agent.content if agent else None,
        traces=read,
        found=found,
        known=[issue.title, issue.description] if issue.source == "manual" else [],
        tried=[(one.type, one.status, one.changes) for one in so_far],
    )
    drafted = _by_model(run, case, log, now, deadline) if read else None
    if drafted is None:
        drafted = draft(found, read, run.session["agent_name"], case.prompt)
    if drafted is None:
        log.response(
            f"None of the {len(read)} traces read contradicts its prompt or context, so I drafted no fix. What is "
            "wrong must be something else; a flag with a note on the moment would tell."
        )
        return
    log.thought(drafted.reason)
    known = next((one for one in so_far if _same(one, drafted)), None)
    if known is not None:
        log.response(f"{known.id}, which is {known.status}, says that already. I drafted nothing new.")
        return
    _present(_stored(run, linked, agent, drafted), log)


def _made(run: Run) -> Fix | None:
    """The fix that this run had stored before it was taken up again."""
    try:
        return fixes.find(run.org, _fix_id(run))
    except NotFound:
        return None


def _present(made: Fix, log: Log) -> None:
    log.action(f"Drafted {made.id}, a {made.type}.", fix_id=made.id)
    log.artifact("fix", made.id, f"Draft of a {made.type}", dict(made.created()), ready=True)
    log.response(f"{made.description} It is the draft {made.id}. Ask me to verify it against the recorded traces.")


def _by_model(run: Run, case: Case, log: Log, now: int, deadline: float) -> Draft | None:
    """The draft of the model that is to be asked, if there is one, it can be had in time, and it sees something to fix.

    What it says, or why it could not be used, is logged for the people who read the timeline, and nowhere else.
    """
    spec = _chosen(run.org, case, now)
    if spec == models.DEFAULT:
        return None
    try:
        made = models.named(spec, lambda name: endpoints.endpoint(run.org, name))
        model = Patient(made, paces.Pace(run.org, spec, 1), deadline)
        proposal = propose(model, case, f"{run.session['agent_name']} with {spec}")
    except (ModelError, OutOfTime, Unusable, Invalid, BotoCoreError, ClientError) as refused:
        about = {"org_id": run.org, "model": spec, "why": type(refused).__name__}
        logger().warning("a fix is drafted without the model", extra=about)
        log.thought(f"The model {spec} could not be used: {_why(refused)} What follows comes from the built-in rules.")
        return None
    log.action(
        f"Asked {spec} for a fix.",
        model=spec,
        input_tokens=proposal.input_tokens,
        output_tokens=proposal.output_tokens,
    )
    if proposal.draft is None:
        log.thought(f"{spec} sees nothing to change: {proposal.rationale} What follows comes from the built-in rules.")
    return proposal.draft


def _chosen(org: str, case: Case, now: int) -> str:
    """The organisation's model, else the agent's own if it can be asked, else the default, which drafts nothing."""
    chosen = platform.org_settings(org, now).triage_model
    if chosen:
        return chosen
    own = case.agent.model if case.agent else None
    return own if own and models.well_formed(own) else models.DEFAULT


def _why(refused: Exception) -> str:
    """Why a model could not be used, as a sentence for people."""
    match refused:
        case Unusable():
            return f"it was asked twice and drafted nothing that could work, because {refused.message.rstrip('.')}."
        case Invalid():
            return "; ".join(said for messages in refused.fields.values() for said in messages) + "."
        case ModelError():
            return refused.message
        case OutOfTime():
            return str(refused)
    return "its endpoint could not be looked up."


def _trace(org: str, trace_id: str) -> Trace | None:
    try:
        return traces.find(org, trace_id)
    except NotFound:
        return None


def _same(fix: Fix, drafted: Draft) -> bool:
    return fix.status != "rejected" and (fix.type, fix.changes) == (drafted.type, drafted.changes)


def _noise(run: Run) -> int:
    return int(hashlib.sha256(run.id.encode()).hexdigest()[:8], 16) % 36**4


def _fix_id(run: Run) -> str:
    """The same whenever the run is taken up again."""
    return identifier("fix", run.created_at, _noise(run))


def _stored(run: Run, linked: LoopIssue, agent: Agent | None, drafted: Draft) -> Fix:
    """Raises Conflict when the agent's prompt does not take the change."""
    changes = parse_changes(drafted.type, drafted.changes)
    if agent is not None:
        try:
            applied(agent.content, changes)
        except DiffDoesNotApply as refused:
            raise Conflict(f"The drafted change does not apply to {agent.id}: {refused.message}") from None
    n, at = fixes.number(run.org, run.created_at)
    made = Fix(
        id=_fix_id(run),
        n=n,
        issue_id=linked.id,
        type=drafted.type,
        status="draft",
        description=drafted.description,
        changes=drafted.changes,
        author=run.asked_by,
        created_at=at,
        updated_at=at,
    )
    try:
        fixes.add(run.org, made)
    except ConditionFailed:  # by this run, taken up twice at once
        return fixes.find(run.org, made.id)
    return made


# Verify


def _verify(run: Run, issue: Issue, log: Log) -> None:
    linked = _loop_issue(issue, run, log)
    if linked is None:
        return
    waiting = [one for one in fixes.of_issue(run.org, linked.id) if one.status not in ("applied", "rejected")]
    if not waiting:
        log.response(f"{linked.id} has no fix that waits to be tested. Ask me for one.")
        return
    fix = waiting[0]
    active = next((pair for pair in _tests(run.org, fix) if pair[0].active and pair[0].id != _test_id(run)), None)
    if active is not None:
        log.response(f"{fix.id} is being tested already. {_told(*active)}")
        return
    ids = issues.trace_ids(run.org, linked.id)
    lost = set(traces.missing(run.org, ids))
    ids = [one for one in ids if one not in lost][:TESTED]
    if not ids:
        log.response(f"{linked.id} has no traces to replay {fix.id} on.")
        return
    test = _begun(run, fix, ids)
    log.action(f"Started {test.id}: a replay of {len(ids)} traces with {fix.id} and without.", shadow_test_id=test.id)
    log.artifact("shadow_test", test.id, f"Shadow test of {fix.id}", dict(test.created()), ready=False)
    log.response(
        f"{test.id} replays {len(ids)} recorded traces against {fix.id}. Ask me for the status to see how it goes."
    )


def _test_id(run: Run) -> str:
    return identifier("st", run.created_at, _noise(run))


def _begun(run: Run, fix: Fix, trace_ids: list[str]) -> ShadowTest:
    n, at = shadow_tests.number(run.org, run.created_at)
    test = ShadowTest(
        id=_test_id(run),
        n=n,
        fix_id=fix.id,
        fix_type=fix.type,
        changes=fix.changes,
        issue_id=fix.issue_id,
        trace_count=len(trace_ids),
        config=Config(comparisonMode="automated"),
        traces=shadow_tests.keep_traces(run.org, _test_id(run), trace_ids),
        author=run.asked_by,
        created_at=at,
        updated_at=at,
    )
    try:
        shadow_tests.add(run.org, test)
    except ConditionFailed:  # by this run, before it was taken up again
        return shadow_tests.find(run.org, test.id)
    return test


_WORK = {"status": _status, "verify": _verify}
