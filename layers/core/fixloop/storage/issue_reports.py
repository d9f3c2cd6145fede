"""Issue reports: their table, and the counts they keep on their calls."""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Iterable
from typing import Any

from fixloop.errors import NotFound
from fixloop.issue_reports import Report, ReportIn, ReportQuery, Status, number_of, trace_id
from fixloop.settings import settings
from fixloop.storage import calls, dynamo
from fixloop.storage.dynamo import Action, ConditionFailed, Contended, Item
from fixloop.storage.lists import ORG, Filter, Lists, Place

TICK = 16
SHELF = 64  # reports that lie beside each other in the table, and are sealed together
LONG = 600
AT_ONCE = 20  # reports filed in one transaction
_ATTEMPTS = 10


def _table() -> str:
    return settings().issue_reports_table


def _key(org: str, number: int) -> Item:
    return {"pk": f"{org}#reports#{(number - 1) // SHELF}", "sk": f"report#{number:015d}"}


_INDEXES = {ORG: ("by_leaf", "lf"), "agent": ("by_agent", "af")}
lists = Lists(_table, chunk=SHELF, fan=48, indexes=_INDEXES, row_key=_key, shelved=True)


def _place(org: str, report: Report) -> Place:
    scopes = () if report.agent_id is None else (("agent", str(report.agent_id)),)
    return Place(org, report.id, report.created_at, report.leaf, scopes)


def _item(org: str, report: Report) -> Item:
    said = report.said.model_dump(exclude_defaults=True)
    kept = {
        **said,
        "title": report.said.title,
        "call_id": report.call_id,
        "trace_id": report.trace_id,
    }
    for name in ("agent_id", "call_start", "reported_by_id"):
        if (value := getattr(report, name)) is not None:
            kept[name] = value
    item = {
        **_key(org, report.id),
        **lists.attributes(_place(org, report)),
        "at": report.created_at,
        "doc": _packed(kept),
        "status": report.status,
        "updated_at": report.updated_at,
    }
    if report.id % TICK == 0:
        item["tick"] = True
    return item


def _packed(kept: dict[str, Any]) -> str | bytes:
    """JSON, deflated when it is long: a report is written to its table and two indexes, each in steps of 1 KB."""
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) < LONG else zlib.compress(text.encode())


def _unpacked(doc: str | bytes) -> dict[str, Any]:
    """What `_packed` was given. Streams bring bytes to a function as Base64."""
    if isinstance(doc, str) and not doc.startswith("{"):
        doc = base64.b64decode(doc)
    kept: dict[str, Any] = json.loads(doc if isinstance(doc, str) else zlib.decompress(doc))
    return kept


def report_of(item: Item) -> Report:
    """The report in a stored item, also in one that came through the table's stream. It was validated when it came."""
    kept = _unpacked(item["doc"])
    return Report.model_construct(
        id=item["n"],
        call_id=kept["call_id"],
        agent_id=kept.get("agent_id"),
        call_start=kept.get("call_start"),
        status=item["status"],
        reported_by_id=kept.get("reported_by_id"),
        trace_id=kept["trace_id"],
        created_at=item["t"],
        updated_at=item["updated_at"],
        said=ReportIn.model_construct(**kept),
    )


def prepare(call: calls.Row, said: list[ReportIn], reporter: int | None, now: int) -> list[Report]:
    """New reports on a call, numbered and timed, not yet stored. Those with source `system` have no reporter."""
    first, at = lists.allocate(call.org, now, len(said))
    return [
        Report(
            id=first + index,
            call_id=call.call_id,
            agent_id=call.agent_id,
            call_start=call.record["start_time"],
            status="open",
            reported_by_id=None if one.source == "system" else reporter,
            trace_id=trace_id(first + index, secrets.token_bytes(10)),
            created_at=at,
            updated_at=at,
            said=one,
        )
        for index, one in enumerate(said)
    ]


def add(org: str, reports: list[Report], *also: Action) -> None:
    """Stores reports of one call and counts them on it, all or nothing.

    Raises ConditionFailed when the call is gone, one of the system refs was filed before, or one of `also` is refused.
    """
    for report in reports:
        lists.announce(org, report.leaf)
    refs = [
        one.said.detected_issue_ref for one in reports if one.said.source == "system" and one.said.detected_issue_ref
    ]
    critical = sum(1 for report in reports if report.said.severity == "critical")
    dynamo.write(
        [
            calls.counted(org, reports[0].call_id, [report.id for report in reports], critical, refs),
            *(dynamo.put_action(_table(), _item(org, one), condition="attribute_not_exists(pk)") for one in reports),
            *also,
        ]
    )


def file_system(org: str, call_id: int, detected: list[ReportIn], now: int) -> list[Report]:
    """One report per `detected_issue_ref` that the call has none for yet, whoever else is filing at the same time.

    Raises NotFound for an unknown call.
    """
    filed: list[Report] = []
    unique = {one.detected_issue_ref: one for one in reversed(detected)}
    for _ in range(_ATTEMPTS + len(unique) // AT_ONCE):
        call = calls.find(org, call_id)
        missing = [one for ref, one in reversed(unique.items()) if ref not in call.refs][:AT_ONCE]
        if not missing:
            return filed
        reports = prepare(call, missing, None, now)
        try:
            add(org, reports)
        except ConditionFailed:
            continue
        filed += reports
    raise Contended(f"reports on call {call_id} could not be filed")


def page(org: str, query: ReportQuery) -> list[Report]:
    """A page of the feed, newest first."""
    wanted = Filter(
        scope=ORG if query.agent_id is None else f"agent#{query.agent_id}",
        wanted=query.wants,
        since=query.start_date,
        until=query.end_date,
    )
    return [report_of(row) for row in lists.page(org, wanted, offset=query.offset, limit=query.limit).rows]


def of_call(call: calls.Row) -> list[Report]:
    """All reports of one call, newest first."""
    return find_many(call.org, call.report_ids)


def find_many(org: str, numbers: Iterable[int]) -> list[Report]:
    """Those of the reports that there are, newest first."""
    items = dynamo.get_many(_table(), (_key(org, number) for number in numbers), consistent=True)
    return sorted(map(report_of, items), key=lambda report: -report.id)


def find(org: str, key: str) -> Report:
    """By `trace_id` or by id. Raises NotFound."""
    number = number_of(key)
    item = dynamo.get(_table(), _key(org, number)) if number is not None else None
    report = report_of(item) if item else None
    if report is None or (report.trace_id != key.lower() and not (key.isascii() and key.isdigit())):
        raise NotFound(f"Issue report {key} not found.")
    return report


def set_status(org: str, report: Report, status: Status, now: int) -> Report:
    """The report with its new status; one that has it already is left as it is."""
    for _ in range(_ATTEMPTS):
        if report.status == status:
            return report
        changed = report.model_copy(update={"status": status, "updated_at": max(now, report.updated_at + 1)})
        place = _place(org, changed)
        lists_as = {name: value for name, value in lists.attributes(place).items() if name not in ("n", "t")}
        fields: Item = {**lists_as, "status": status, "updated_at": changed.updated_at}
        change = dynamo.set_action(
            _table(),
            _key(org, report.id),
            fields,
            names={"#status": "status"},
            values={":status": report.status},
            condition="#status = :status",
        )
        try:
            lists.move(_place(org, report), place, change)
        except ConditionFailed:
            report = find(org, str(report.id))
            continue
        return changed
    raise Contended(f"report {report.id} kept changing")


# Patterns


def join_pattern(org: str, report: Report) -> None:
    """Lists the report under its `detected_issue_ref`. Doing it again changes nothing."""
    if report.said.detected_issue_ref:
        dynamo.put(_table(), {**_pattern_key(org, report.said.detected_issue_ref), "sk": f"{report.id:015d}"})


def of_pattern(org: str, ref: str) -> list[int]:
    """Ids of the reports with this `detected_issue_ref`, oldest first."""
    rows = dynamo.query(_table(), "pk = :pk", {":pk": _pattern_key(org, ref)["pk"]})
    return [int(row["sk"]) for row in rows]


def _pattern_key(org: str, ref: str) -> Item:
    return {"pk": f"{org}#pattern#{ref}"}
