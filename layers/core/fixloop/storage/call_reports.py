"""Call jobs, their attempts, and what is remembered of numbers and flows: the call reports table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from fixloop.attempts import Sighting
from fixloop.aws import client
from fixloop.call_reports import Attempt, Job, Kept
from fixloop.errors import Conflict, NotFound
from fixloop.settings import settings
from fixloop.storage import blobs, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item

REMEMBERED_SECONDS = 30 * 24 * 3600  # how long an attempt counts for what is found out about its number and its flow
LENT_SECONDS = 900  # how long the address of a report too large for an answer works
_ATTEMPTS = 8


def _table() -> str:
    return settings().call_reports_table


# Jobs


def _job_key(org: str, job_id: str) -> Item:
    return {"pk": f"{org}#job#{job_id}", "sk": "job"}


def job_of(item: Item) -> Job:
    """The job in a stored item, also in one that came through the table's stream."""
    return Job(
        id=item["pk"].partition("#job#")[2],
        state=item["state"],
        most=item["most"],
        expires=item["expires"] * 1000,
        started=item.get("started", False),
        request=json.loads(item["doc"]),
        reason=item.get("reason"),
    )


def add_job(org: str, job: Job, now: int, *also: Action) -> None:
    """Raises ConditionFailed when one of `also` is refused."""
    item = {
        **_job_key(org, job.id),
        "kind": "job",
        "state": job.state,
        "most": job.most,
        "expires": job.expires // 1000,
        "doc": json.dumps(job.request, ensure_ascii=False),
        "at": now,
    }
    dynamo.write([dynamo.put_action(_table(), item, condition="attribute_not_exists(pk)"), *also])


def cancel_job(org: str, job_id: str, now: int) -> None:
    """Cancels a job that waits for its first attempt; one that has had it goes on. Raises NotFound."""
    try:
        dynamo.write(
            [_job_change(org, job_id, {"state": "cancelled", "changed": now}, "attribute_not_exists(started)")]
        )
    except ConditionFailed:
        job, attempts = find(org, job_id, now)
        if job is None and not attempts:
            raise NotFound(f"Job {job_id} not found.") from None


def fail_job(org: str, job_id: str, reason: str, now: int) -> None:
    """Marks a job that could not be processed. One that has failed, was cancelled or is not known stays as it is."""
    try:
        dynamo.write([_job_change(org, job_id, {"state": "failed", "reason": reason, "changed": now})])
    except ConditionFailed:
        return


def _job_change(org: str, job_id: str, fields: dict[str, Any], *conditions: str) -> Action:
    return dynamo.set_action(
        _table(),
        _job_key(org, job_id),
        fields,
        names={"#state": "state"},
        values={":queued": "queued"},
        condition=" AND ".join(["#state = :queued", *conditions]),
    )


def find(org: str, job_id: str, now: int) -> tuple[Job | None, list[Kept]]:
    """A job's row, until it expires, and its attempts in order."""
    rows = list(
        dynamo.query(
            _table(),
            "pk = :pk AND sk BETWEEN :first AND :job",
            {":pk": _job_key(org, job_id)["pk"], ":first": "attempt#", ":job": "job"},
            ConsistentRead=True,
        )
    )
    job = job_of(rows.pop()) if rows and rows[-1]["sk"] == "job" else None
    return (job if job and job.expires > now else None), [kept_of(row) for row in rows]


# Attempts


def _key(org: str, job_id: str, number: int) -> Item:
    return {"pk": _job_key(org, job_id)["pk"], "sk": f"attempt#{number:05d}"}


def _call_key(org: str, call_id: str) -> Item:
    return {"pk": f"{org}#report#{call_id}", "sk": "attempt"}


def kept_of(item: Item) -> Kept:
    """The attempt in a stored item, also in one that came through the table's stream."""
    return Kept(
        job_id=item["pk"].partition("#job#")[2],
        number=int(item["sk"].partition("#")[2]),
        call_id=item["call"],
        outcome=item["outcome"],
        live=item["live"],
        at=item["at"],
        cost=item.get("cost"),
        revision=item["body"],
        reported=item["reported"],
        joined=item.get("joined"),
    )


def attempt(org: str, job_id: str, number: int) -> Kept:
    """Raises NotFound."""
    item = dynamo.get(_table(), _key(org, job_id, number))
    if item is None:
        raise NotFound(f"Attempt {number} of job {job_id} not found.")
    return kept_of(item)


def put(org: str, job_id: str, given: Attempt, reported: int, now: int) -> tuple[Kept, bool]:
    """Stores an attempt as `given`, told at `reported`, and whether that made it. What is older changes nothing.

    Raises Conflict when the call is another attempt's, or the attempt another call's.
    """
    for _ in range(_ATTEMPTS):
        held = dynamo.get(_table(), _key(org, job_id, given.number))
        known = kept_of(held) if held else None
        if known and known.call_id != given.call_id:
            raise Conflict(f"Attempt {given.number} of job {job_id} is call {known.call_id}.")
        if known and known.outdates(given, reported):
            return known, False
        try:
            if known is None:
                return _insert(org, job_id, given, reported, now), True
            return _replace(org, known, given, reported, now), False
        except ConditionFailed:
            _not_another(org, job_id, given)
    raise Contended(f"attempt {given.number} of job {job_id} kept changing")


def _not_another(org: str, job_id: str, given: Attempt) -> None:
    holder = dynamo.get(_table(), _call_key(org, given.call_id))
    if holder and (holder["job"], holder["attempt"]) != (job_id, given.number):
        raise Conflict(f"Call {given.call_id} is attempt {holder['attempt']} of job {holder['job']}.")


def _fields(given: Attempt, revision: str, reported: int, now: int) -> Item:
    fields: Item = {
        "outcome": given.outcome,
        "live": given.live,
        "at": given.at,
        "body": revision,
        "reported": reported,
        "changed": now,
    }
    return fields if given.cost is None else {**fields, "cost": given.cost}


def _insert(org: str, job_id: str, given: Attempt, reported: int, now: int) -> Kept:
    key = _key(org, job_id, given.number)
    revision = blobs.store(_table(), key["pk"], f"text#{given.number}", given.text)
    row = {**key, "kind": "attempt", "call": given.call_id, **_fields(given, revision, reported, now)}
    call = {**_call_key(org, given.call_id), "job": job_id, "attempt": given.number}
    actions = [
        dynamo.put_action(_table(), row, condition="attribute_not_exists(pk)"),
        dynamo.put_action(_table(), call, condition="attribute_not_exists(pk)"),
    ]
    waiting = dynamo.get(_table(), _job_key(org, job_id))
    if waiting and not waiting.get("started"):  # so that it cannot be cancelled any more
        actions.append(
            dynamo.set_action(_table(), _job_key(org, job_id), {"started": True}, condition="attribute_exists(pk)")
        )
    dynamo.write(actions)
    return kept_of(row)


def _replace(org: str, known: Kept, given: Attempt, reported: int, now: int) -> Kept:
    key = _key(org, known.job_id, known.number)
    revision = f"text#{given.number}#{blobs.digest(given.text)}"
    if revision == known.revision:
        return known
    outdated = blobs.held(_table(), key["pk"], known.revision)
    blobs.store(_table(), key["pk"], f"text#{given.number}", given.text)
    change = dynamo.set_action(
        _table(),
        key,
        _fields(given, revision, reported, now),
        remove=("cost",) if given.cost is None else (),
        names={"#body": "body"},
        values={":body": known.revision},
        condition="#body = :body",
    )
    dynamo.write([change])
    blobs.discard(_table(), outdated)
    return attempt(org, known.job_id, known.number)


def texts(org: str, attempts: Sequence[Kept]) -> list[str]:
    """The reports of attempts of one job, as JSON."""
    if not attempts:
        return []
    pk = _job_key(org, attempts[0].job_id)["pk"]
    found = blobs.load_all(_table(), pk, [one.revision for one in attempts])
    return [found[one.revision] if one.revision in found else text(org, one) for one in attempts]


def text(org: str, kept: Kept) -> str:
    """An attempt's report as JSON."""
    pk = _job_key(org, kept.job_id)["pk"]
    for _ in range(_ATTEMPTS):
        try:
            content: str = blobs.load(_table(), pk, kept.revision)
        except LookupError:  # replaced since the row was read
            kept = attempt(org, kept.job_id, kept.number)
        else:
            return content
    raise Contended(f"attempt {kept.number} of job {kept.job_id} kept changing")


def of_call(org: str, call_id: str) -> Kept:
    """The attempt whose call this is. Raises NotFound."""
    holder = dynamo.get(_table(), _call_key(org, call_id))
    if holder is None:
        raise NotFound(f"Call {call_id} not found.")
    return attempt(org, holder["job"], holder["attempt"])


def lend(org: str, job_id: str, report: str) -> str:
    """Puts a report that no answer can hold in the bucket for a day, and gives an address to read it at."""
    content = report.encode()
    where = {
        "Bucket": settings().blobs_bucket,
        "Key": f"answer/{org}/call-report/{job_id}/{hashlib.sha256(content).hexdigest()[:32]}.json",
    }
    client("s3").put_object(**where, Body=content, ContentType="application/json")
    address: str = client("s3").generate_presigned_url("get_object", Params=where, ExpiresIn=LENT_SECONDS)
    return address


# The calls that the loop makes of attempts


def _joined_key(org: str, call: int) -> Item:
    return {"pk": f"{org}#call#{call}", "sk": "attempt"}


def join(org: str, kept: Kept, call: int) -> int:
    """Binds an attempt to a call's number, once; the number it is bound to."""
    holder = {**_joined_key(org, call), "job": kept.job_id, "attempt": kept.number}
    try:
        dynamo.write(
            [
                dynamo.set_action(
                    _table(),
                    _key(org, kept.job_id, kept.number),
                    {"joined": call},
                    condition="attribute_exists(pk) AND attribute_not_exists(joined)",
                ),
                dynamo.put_action(_table(), holder, condition="attribute_not_exists(pk)"),
            ]
        )
    except ConditionFailed:
        bound = attempt(org, kept.job_id, kept.number).joined
        if bound is None:
            raise Contended(f"call {call} is another attempt's") from None
        return bound
    return call


def of_loop_call(org: str, call: int) -> Kept | None:
    """The attempt that a call was made of."""
    holder = dynamo.get(_table(), _joined_key(org, call))
    return attempt(org, holder["job"], holder["attempt"]) if holder else None


def costs_of_calls(org: str, calls: Iterable[int]) -> dict[int, Decimal]:
    """What the attempts behind calls cost, by the call's number, in the unit of their reports. Others are left out."""
    holders = dynamo.get_many(_table(), (_joined_key(org, call) for call in dict.fromkeys(calls)), consistent=True)
    rows = dynamo.get_many(_table(), (_key(org, one["job"], one["attempt"]) for one in holders), consistent=True)
    return {row["joined"]: Decimal(row["cost"]) for row in rows if "cost" in row and "joined" in row}


def cost_of_call(org: str, call: int) -> Decimal | None:
    """What the attempt behind a call cost, or None where there is none or it has no billing."""
    return costs_of_calls(org, [call]).get(call)


# What is remembered of numbers and flows


def see(org: str, seen: Sighting) -> None:
    """Remembers an attempt under its number and its flow. Doing it again changes nothing."""
    partitions = [_number_key(org, seen.number)]
    if seen.flow_id:
        partitions.append(_flow_key(org, seen.flow_id))
    for pk in partitions:
        dynamo.put(
            _table(),
            {
                "pk": pk,
                "sk": f"{seen.at:015d}#{seen.attempt:05d}#{seen.job_id}",
                "doc": seen.model_dump_json(),
                "expires": max(seen.at, seen.told) // 1000 + REMEMBERED_SECONDS,
            },
        )


def _number_key(org: str, number: str) -> str:
    return f"{org}#number#{number}"


def _flow_key(org: str, flow_id: str) -> str:
    return f"{org}#flow#{flow_id}"


def of_number(org: str, number: str, most: int) -> list[Sighting]:
    """The latest attempts to reach a number, newest first."""
    return _seen(_number_key(org, number), most)


def of_flow(org: str, flow_id: str, most: int) -> list[Sighting]:
    """The latest attempts that ran a flow, newest first."""
    return _seen(_flow_key(org, flow_id), most)


def _seen(pk: str, most: int) -> list[Sighting]:
    rows = dynamo.query(_table(), "pk = :pk", {":pk": pk}, ScanIndexForward=False, Limit=most, ConsistentRead=True)
    return [Sighting.model_validate_json(row["doc"]) for row in rows]


def claim(org: str, natural_key: str, seen: Sighting) -> Sighting:
    """The attempt that a finding is reported on: `seen`, unless another was first."""
    key = {"pk": f"{org}#found#{natural_key}", "sk": "found"}
    try:
        dynamo.put(_table(), {**key, "doc": seen.model_dump_json()}, condition="attribute_not_exists(pk)")
    except ConditionFailed as refused:
        if refused.items[0]:
            return Sighting.model_validate_json(refused.items[0]["doc"])
        raise
    return seen
