"""What a shadow test says for a pipeline: whether the bar is met, as a table, as JUnit and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree  # nosec B405  # XML is only written here

QUOTED = 300  # characters of an explanation that a table cell holds


@dataclass(frozen=True)
class Bar:
    """What a test has to reach: at least this share improved, at most this share regressed. Both 0 to 1."""

    min_improved: float
    max_regressed: float


@dataclass(frozen=True)
class Report:
    """A finished test as `GET /api/shadow-tests/{id}` shows it, all its results, and what was asked of it."""

    test: dict[str, Any]
    results: list[dict[str, Any]]
    bar: Bar

    @property
    def counts(self) -> dict[str, int]:
        results = self.test.get("results") or {}
        return {name: int(results.get(name, 0)) for name in ("improved", "unchanged", "regressed")}

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The traces that could not be replayed."""
        return [one for one in self.results if one["verdict"] is None]

    def share(self, verdict: str) -> float:
        total = sum(self.counts.values())
        return self.counts[verdict] / total if total else 0.0

    def misses(self) -> list[str]:
        """Why the bar is missed; nothing where it is met."""
        if self.test["status"] != "completed":
            error = (self.test.get("results") or {}).get("error", "no reason was given")
            return [f"the test has {self.test['status']}: {error}"]
        said = []
        if self.share("improved") < self.bar.min_improved:
            said.append(f"improved {self.share('improved'):.1%}, wanted at least {self.bar.min_improved:.1%}")
        if self.share("regressed") > self.bar.max_regressed:
            said.append(f"regressed {self.share('regressed'):.1%}, wanted at most {self.bar.max_regressed:.1%}")
        return said

    def summary(self) -> str:
        counted = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        lost = f", {len(self.failed)} not replayed" if self.failed else ""
        return f"{counted}{lost} of {self.test['traceCount']} traces"


def junit(report: Report) -> str:
    """One test case per trace, in the form that pipelines read: regressed is a failure, not replayed an error."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"shadow test {report.test['id']}",
        tests=str(len(report.results)),
        failures=str(report.counts["regressed"]),
        errors=str(len(report.failed)),
    )
    for one in report.results:
        seconds = f"{(one['latencyMs'] or 0) / 1000:.3f}"
        case = ElementTree.SubElement(
            suite, "testcase", name=one["traceId"], classname=f"fix {report.test['fixId']}", time=seconds
        )
        if one["verdict"] is None:
            ElementTree.SubElement(case, "error", message=_xml(one["error"] or "not replayed"))
        elif one["verdict"] == "regressed":
            said = ElementTree.SubElement(case, "failure", message=_xml(one["explanation"] or ""))
            said.text = _xml(f"Original:\n{one['originalOutput']}\n\nFixed:\n{one['fixedOutput']}")
    if misses := report.misses():
        case = ElementTree.SubElement(suite, "testcase", name="the bar", classname=f"fix {report.test['fixId']}")
        ElementTree.SubElement(case, "failure", message=_xml("; ".join(misses)))
        suite.set("tests", str(len(report.results) + 1))
        suite.set("failures", str(report.counts["regressed"] + 1))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(report: Report) -> str:
    """For a pull request: the verdict, the counts, and what got worse or could not be replayed."""
    misses = report.misses()
    lines = [
        f"## {'❌ The bar is missed' if misses else '✅ The bar is met'}: fix `{report.test['fixId']}`",
        "",
        *(f"- {miss}" for miss in misses),
        *([""] if misses else []),
        "| improved | unchanged | regressed | not replayed | improvement rate |",
        "|---|---|---|---|---|",
        f"| {' | '.join(map(str, report.counts.values()))} | {len(report.failed)} | {report.share('improved'):.1%} |",
        "",
    ]
    worse = [one for one in report.results if one["verdict"] == "regressed"]
    if worse or report.failed:
        lines += ["| trace | verdict | original | fixed | why |", "|---|---|---|---|---|"]
    for one in [*worse, *report.failed]:
        scores = [score(one["originalScore"]), score(one["fixedScore"])]
        why = _cell(one["explanation"] or one["error"] or "")
        lines.append(f"| `{one['traceId']}` | {one['verdict'] or 'not replayed'} | {' | '.join(scores)} | {why} |")
    usage = report.test.get("usage") or {}
    cost = usage.get("costEstimateUsd")
    spent = "" if cost is None else f", about ${cost:.4f}"
    tokens = f"{usage.get('inputTokens', 0)} tokens in, {usage.get('outputTokens', 0)} out{spent}"
    lines += [*([""] if worse or report.failed else []), f"Shadow test `{report.test['id']}`: {tokens}.", ""]
    return "\n".join(lines)


def score(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _cell(text: str) -> str:
    text = " ".join(text.split())
    cut = text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"
    return cut.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _xml(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return "".join(
        c for c in text if c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or 0xE000 <= ord(c) <= 0xFFFD or c > "\uffff"
    )
