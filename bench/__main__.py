"""`make bench`: prints what things cost and which targets are met, and writes it all to `bench-results.json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import families as others
from bench import lists, writes
from bench.world import ROOT

RESULTS = ROOT / "bench-results.json"
console = Console(width=int(os.environ.get("COLUMNS", "132")), highlight=False)

MOST_READ_UNITS, MOST_WRITE_UNITS, MOST_GROWTH, MOST_WARM, MOST_COLD = 30, 8, 1.1, 1.3, 1.0


def main() -> None:
    began = time.monotonic()
    with ProcessPoolExecutor(2) as workers, console.status("Filling lists with 1,000 and 100,000 rows"):
        parts: list[Future[Any]] = [workers.submit(lists.measure, family) for family in ("calls", "issue_reports")]
        written = workers.submit(writes.measure)
        further = [workers.submit(others.measure, name) for name in others.FAMILIES]
        families, creates = [part.result() for part in parts], written.result()
        rest = [part.result() for part in further]
    for family in families:
        _show_pages(family)
    _show_walks(families)
    for family in rest:
        _show_others(family)
    _show_writes(creates, families)
    with tempfile.TemporaryDirectory() as scratch:
        with console.status("Warm requests"):
            file = Path(scratch) / "warm.json"
            with (Path(scratch) / "log").open("w") as log:
                command = [sys.executable, "-m", "bench.warm", str(file)]
                subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
            kept = json.loads(file.read_text())
            (Path(scratch) / "tapes.json").write_text(json.dumps(kept["tapes"]))
        _show_warm(kept["warm"])
        with console.status("Cold starts"):
            from bench import cold

            colds = cold.measure(Path(scratch) / "tapes.json")
        _show_cold(colds)
    with console.status("Replays on a local stack") as status:
        from bench import replays

        replayed = replays.measure(lambda text: status.update(f"Replays: {text}"))
    _show_replays(replayed)
    targets = [
        *_list_targets(families),
        *_other_targets(rest),
        *_write_targets(creates, families),
        *_time_targets(kept["warm"], colds),
        *_replay_targets(replayed),
    ]
    _show_targets(targets)
    results = {"lists": families, "writes": creates, "warm": kept["warm"], "cold": colds, "replays": replayed}
    results["other_lists"] = rest
    results["targets"] = targets
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"{time.monotonic() - began:.0f} s; everything is in {RESULTS.name}")


# Pages


def _show_pages(family: dict[str, Any]) -> None:
    pages = family["pages"]
    sizes = sorted({page["stored"] for page in pages})
    table = Table(
        title=f"{lists.TITLES[family['family']]}: a page of {lists.LIMIT}, the dearest of all values of the filters",
        caption="requests / items read (counters and index entries too) / read units",
        title_justify="left",
    )
    table.add_column("filters set")
    table.add_column("dates")
    for size in sizes:
        table.add_column(f"{size:,} stored\nfirst page", justify="right")
        table.add_column(f"{size:,} stored\noffset ≤ {lists.DEEP:,}", justify="right")
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for page in pages:
        grouped[(*page["filters"], page["dates"])].append(page)
    for (*names, dates), found in sorted(grouped.items(), key=lambda entry: (len(entry[0]), entry[0])):
        cells = []
        for size in sizes:
            for first in (True, False):
                chosen = [one for one in found if one["stored"] == size and (one["offset"] == 0) is first]
                cells.append(_dearest(chosen))
        table.add_row(" ".join(names) or "none", dates, *cells)
    console.print(table)


def _dearest(pages: list[dict[str, Any]]) -> str:
    if not pages:
        return "[dim]no second page[/]"
    page = max(pages, key=lambda one: (one["units"], one["read"]))
    units = f"{page['units']:g}"
    return f"{page['requests']} / {page['read']} / " + (
        units if page["units"] <= MOST_READ_UNITS else f"[red]{units}[/]"
    )


def _show_walks(families: list[dict[str, Any]]) -> None:
    table = Table(title="GET /v1/calls by number: walks all calls of that number", title_justify="left")
    for name in ("filter", "number of", "stored", "calls of it", "requests", "items read", "read units"):
        table.add_column(name, justify="left" if name in ("filter", "number of") else "right")
    for walk in (walk for family in families for walk in family["walks"]):
        ((name, who),) = walk["filters"].items()
        figures = (walk["stored"], walk["matching"], walk["requests"], walk["read"])
        table.add_row(name, who, *(f"{figure:,}" for figure in figures), f"{walk['units']:g}")
    console.print(table)


def _list_targets(families: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for family in families:
        title, pages = lists.TITLES[family["family"]], family["pages"]
        first = [page for page in pages if page["offset"] == 0]
        growth = _growth(first)
        yield _target(
            f"{title}: first page at 100,000 against 1,000 stored, read units, all filters together",
            growth["all"],
            MOST_GROWTH,
            "×",
        )
        yield _target(f"{title}: … the worst single combination", growth["worst"], MOST_GROWTH, "×", growth["of"])
        worst = max(first, key=lambda page: page["read"] - 2 * page["returned"])
        over = sum(page["read"] > 2 * page["returned"] + 50 for page in first)
        yield _target(
            f"{title}: items read beyond twice those returned, first page",
            worst["read"] - 2 * worst["returned"],
            50,
            " items",
            f"{_said(worst)}; {over} of {len(first)} pages over",
        )
        every = pages + family["fullest"]
        worst = max(every, key=lambda page: page["units"])
        over = sum(page["units"] > MOST_READ_UNITS for page in every)
        yield _target(
            f"{title}: read units of a page at any offset",
            worst["units"],
            MOST_READ_UNITS,
            "",
            f"{_said(worst)}; {over} of {len(every)} pages over",
        )


def _growth(first: list[dict[str, Any]]) -> dict[str, Any]:
    """Read units of first pages at the larger size against the smaller: of those that are full at both."""
    by_query: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for page in first:
        by_query[json.dumps([page["filters"], page["dates"]])][page["stored"]] = page
    small, large = lists.SIZES
    pairs = [both for both in by_query.values() if len(both) == 2 and both[small]["returned"] == lists.LIMIT]
    worst = max(pairs, key=lambda both: both[large]["units"] / both[small]["units"])
    return {
        "all": sum(both[large]["units"] for both in pairs) / sum(both[small]["units"] for both in pairs),
        "worst": worst[large]["units"] / worst[small]["units"],
        "of": f"{_said(worst[large])}: {worst[small]['units']:g} → {worst[large]['units']:g}",
    }


def _said(page: dict[str, Any]) -> str:
    filters = " ".join(f"{name}={value}" for name, value in page["filters"].items()) or "no filter"
    dates = "" if page["dates"] == "-" else f", dates: {page['dates']}"
    return f"{filters}{dates}, offset {page['offset']:,} of {page['matching']:,} among {page['stored']:,}"


# The other families' lists


def _show_others(family: dict[str, Any]) -> None:
    small, large = others.SIZES
    table = Table(
        title=f"{others.TITLES[family['family']]}: a page of {others.LIMIT}",
        caption="requests / items read (counters and index entries too) / read units",
        title_justify="left",
    )
    table.add_column("asked for")
    table.add_column("offset", justify="right")
    for size in (small, large):
        table.add_column(f"{size:,} stored", justify="right")
    for (what, offset), pages in _by_page(family).items():
        cells = [f"{p['requests']} / {p['read']} / {p['units']:g}" for p in (pages[small], pages[large])]
        table.add_row(what, f"{offset:,}", *cells)
    console.print(table)


def _by_page(family: dict[str, Any]) -> dict[tuple[str, int], dict[int, dict[str, Any]]]:
    found: dict[tuple[str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for page in family["pages"]:
        found[(page["what"], page["offset"])][page["stored"]] = page
    return found


def _other_targets(rest: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    small, large = others.SIZES
    for family in rest:
        title = others.TITLES[family["family"]]
        full = [p for (_, offset), p in _by_page(family).items() if not offset and p[small]["returned"] == others.LIMIT]
        growth = sum(p[large]["units"] for p in full) / sum(p[small]["units"] for p in full)
        yield _target(f"{title}: first page at 100,000 against 1,000 stored, read units", growth, MOST_GROWTH, "×")
        first = [page for page in family["pages"] if not page["offset"]]
        worst = max(first, key=lambda page: page["read"] - 2 * page["returned"])
        over = sum(page["read"] > 2 * page["returned"] + 50 for page in first)
        beyond = worst["read"] - 2 * worst["returned"]
        note = f"{worst['what']}; {over} of {len(first)} pages over"
        yield _target(f"{title}: items read beyond twice those returned, first page", beyond, 50, " items", note)
        worst = max(family["pages"], key=lambda page: page["units"])
        over = sum(page["units"] > MOST_READ_UNITS for page in family["pages"])
        note = (
            f"{worst['what']}, offset {worst['offset']:,} of {worst['stored']:,}; {over} of {len(family['pages'])} over"
        )
        yield _target(f"{title}: read units of a page", worst["units"], MOST_READ_UNITS, "", note)
        if family["family"] == "traces":
            yield _target("POST /api/traces: write units", family["create"] + 1, MOST_WRITE_UNITS, "", "1 for its body")


# Writes


def _show_writes(creates: list[dict[str, Any]], families: list[dict[str, Any]]) -> None:
    table = Table(title="Write units of a create", title_justify="left")
    for name in ("what", "tables and indexes", "sealing", "together"):
        table.add_column(name, justify="right" if name in ("sealing", "together") else "left")
    for create in creates:
        split = ", ".join(f"{place} {units:g}" for place, units in create["split"].items())
        sealing = _sealing(create, families)
        table.add_row(create["what"], split, f"{sealing:.2f}" if sealing else "", f"{create['units'] + sealing:.2f}")
    console.print(table)
    calls = next(create for create in creates if "body" in create)
    console.print(f"Of a call's units its body (transcript, prompt) takes {calls['body']:g}.")


def _sealing(create: dict[str, Any], families: list[dict[str, Any]]) -> float:
    return next((family["sealing"]["writes"] for family in families if family["family"] == create["of"]), 0.0)


def _write_targets(creates: list[dict[str, Any]], families: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for create in creates:
        if create["of"] in ("calls", "issue_reports"):
            units = create["units"] + _sealing(create, families)
            note = f"{units - create['body']:.2f} without its body" if "body" in create else ""
            yield _target(f"{create['what']}: write units", units, MOST_WRITE_UNITS, "", note)


# Times


def _show_warm(warm: list[dict[str, Any]]) -> None:
    table = Table(
        title="Warm requests, ms of processor time; the network is cut off in both",
        caption="bare: a boto3 handler that makes the same requests and dumps as much JSON; reading: and unpacks items",
        title_justify="left",
    )
    for name in (
        "request",
        "DynamoDB requests",
        "answer",
        "fixloop",
        "bare",
        "reading",
        "÷ bare",
        "of minima",
        "÷ reading",
    ):
        table.add_column(name, justify="left" if name == "request" else "right")
    for one in warm:
        times = (f"{one[name]:.2f}" for name in ("ours_ms", "bare_ms", "reading_ms"))
        ratios = (f"{one[name]:.2f}×" for name in ("ratio", "ratio_of_minima", "ratio_reading"))
        table.add_row(one["title"], str(one["requests"]), f"{one['bytes'] / 1000:.1f} kB", *times, *ratios)
    console.print(table)


def _show_cold(colds: list[dict[str, Any]]) -> None:
    table = Table(
        title=f"Cold: import and first request in fresh processes, {colds[0]['runs']} of each by turns",
        title_justify="left",
    )
    for name in ("what", "modules", "import ms", "ms, median", "min", "CPU ms", "÷ bare", "of minima"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in colds:
        times = (f"{one[name]:.0f}" for name in ("import_ms", "median_ms", "min_ms", "cpu_ms"))
        ratios = (f"{one[name]:.2f}×" for name in ("ratio", "ratio_of_minima"))
        table.add_row(one["what"], str(one["modules"]), *times, *ratios)
    console.print(table)


def _time_targets(warm: list[dict[str, Any]], colds: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for one in warm:
        note = f"of minima {one['ratio_of_minima']:.2f}×"
        yield _target(f"Warm, {one['title']}: CPU against the bare handler", one["ratio"], MOST_WARM, "×", note)
    for one in colds[1:]:
        if "default" not in one["what"]:
            note = f"of minima {one['ratio_of_minima']:.2f}×"
            yield _target(f"Cold, {one['what']}: against bare boto3 and its client", one["ratio"], MOST_COLD, "×", note)


# Replays


def _show_replays(replayed: list[dict[str, Any]]) -> None:
    from bench import replays

    table = Table(
        title=f"Replays against a provider that takes {replays.LATENCY * 1000:.0f} ms, every result stored",
        caption=f"capped: a provider that answers {replays.CAP} requests a second",
        title_justify="left",
    )
    for name in ("what", "provider", "traces", "seconds", "CPU s", "calls", "results", "progress seen"):
        table.add_column(name, justify="left" if name in ("what", "provider") else "right")
    for one in replayed:
        cpu = "" if one["cpu"] is None else f"{one['cpu']:.1f}"
        figures = (one["asked"], one["stored"], one["seen"] or "")
        shown = (str(figure) for figure in figures)
        table.add_row(one["what"], _capped(one), str(one["traces"]), f"{one['seconds']:.1f}", cpu, *shown)
    console.print(table)


def _capped(one: dict[str, Any]) -> str:
    return "capped" if "capped" in one["model"] else "free"


def _replay_targets(replayed: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    from bench import replays

    for one in replayed:
        title = f"Replays, {one['what']}, {one['traces']:,} traces, {_capped(one)} provider"
        capped = _capped(one) == "capped"
        most = replays.MOST_WORKER if one["what"] == "worker alone" else replays.MOST_PATH
        seconds = replays.MOST_CAPPED if capped else most
        yield _target(f"{title}: seconds", one["seconds"], seconds, " s")
        if capped:
            yield _target(f"{title}: calls", one["asked"], replays.MOST_ASKED, "")
        yield _target(f"{title}: results lost", one["traces"] - one["stored"], 0, "")


# Targets


def _target(what: str, value: float, most: float, unit: str, note: str = "") -> dict[str, Any]:
    met = value <= most
    return {"what": what, "value": round(value, 3), "most": most, "unit": unit, "met": met, "note": note}


def _show_targets(targets: list[dict[str, Any]]) -> None:
    table = Table(title="Targets", title_justify="left")
    for name in ("", "what", "is", "at most", "where"):
        table.add_column(name, justify="right" if name in ("is", "at most") else "left")
    for target in targets:
        mark = "[green]met[/]" if target["met"] else "[red]missed[/]"
        figures = (f"{target[name]:.4g}{target['unit']}" for name in ("value", "most"))
        table.add_row(mark, target["what"], *figures, target["note"])
    console.print(table)
    missed = sum(not target["met"] for target in targets)
    console.print(f"{len(targets) - missed} of {len(targets)} targets met, {missed} missed.")


if __name__ == "__main__":
    main()
