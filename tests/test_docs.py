"""The documentation says what is: links, commands, endpoints, parameters, events, limits; and leaves none out."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cloud import ROOT, template
from fixloop import calls, http, issue_reports, ranges
from fixloop.events import SHAPES
from fixloop.settings import Settings
from fixloop_cli.main import app

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
NAMED = [str(page.relative_to(ROOT)) for page in sorted(PAGES)]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
COMMAND = re.compile(r"(?<!from )(?<!\S)(?:\.venv/bin/)?fixloop((?: +[^\s|>;)#]+)+)")
TOUR = re.compile(r"<!-- tour -->(.*?)<!-- /tour -->", re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    return FENCE.sub("", text(page))


def spans(page: str) -> list[str]:
    """What stands between single backticks, each on one line."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def shell(page: str) -> list[str]:
    """Every line that a reader may type: of sh blocks (joined where they go on, without comments) and of spans."""
    lines: list[str] = []
    for kind, content in FENCE.findall(text(page)):
        if kind == "sh":
            lines += [re.sub(r"\s#\s.*", "", line) for line in content.replace("\\\n", " ").splitlines()]
    return [*lines, *spans(page)]


def anchors(page: Path) -> set[str]:
    """The names GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMED)
def test_every_link_leads_to_a_file_and_a_heading_in_it(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if not re.match(r"https?:|mailto:", link):
            path, _, anchor = link.partition("#")
            target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", NAMED)
def test_every_path_that_is_named_exists(page: str) -> None:
    ours = {entry.name for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    for span in spans(page):
        if re.fullmatch(r"[\w./-]+", span) and "/" in span and span.partition("/")[0] in ours:
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize("page", NAMED)
def test_every_make_target_that_is_named_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    for line in shell(page):
        for target in re.findall(r"(?<![\w./-])make ([a-z][a-z-]*)", line):
            assert target in targets, line


def parsed(words: list[str]) -> None:
    """Follows `words` through the command line. Raises AssertionError at what it does not know."""
    command: Any = typer.main.get_command(app)
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("-"):
            option = next((one for one in command.params if word.partition("=")[0] in one.opts), None)
            assert option or word == "--help", f"{command.name} has no {word}"
            if option and not option.is_flag and "=" not in word:
                assert waiting, f"{word} needs a value"
                waiting.pop(0)
        elif hasattr(command, "commands"):
            assert word in command.commands, f"{command.name} has no {word}"
            command = command.commands[word]


@pytest.mark.parametrize("page", NAMED)
def test_every_fixloop_command_that_is_named_exists_with_its_options(page: str) -> None:
    for line in shell(page):
        for said in COMMAND.findall(line):
            words = shlex.split(said) if said.count('"') % 2 == 0 else said.split()
            parsed([word.strip('"') for word in words])


def test_the_makefile_calls_the_command_as_it_is() -> None:
    called = re.findall(r"@\$\(FIXLOOP\) ([^;|}\n]+)", text("Makefile"))
    assert called
    for said in called:
        parsed(re.sub(r"\$\(\w+\)", "x", said).split())


def endpoints() -> set[tuple[str, str]]:
    """(method, path) of every row in the tables of endpoints."""
    rows = (row for page in ROOT.glob("docs/api*.md") for row in page.read_text().splitlines())
    found = (re.match(r"\| (GET|POST|PUT|PATCH|DELETE) \| `(/[^`]+)`", row) for row in rows)
    return {(row[1], re.sub(r"\{\w+\}", "{}", row[2])) for row in found if row}


def routes() -> Iterator[tuple[str, str]]:
    """(method, path) of every route in the functions."""
    for file in ROOT.glob("functions/*/app.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "route":
                method, path = (ast.literal_eval(argument) for argument in node.args[:2])
                yield method, re.sub(r"<\w+>", "{}", path)


def test_the_endpoints_in_the_documentation_are_the_routes() -> None:
    assert endpoints() == set(routes())


def test_the_limits_in_the_documentation_are_the_codes() -> None:
    limits = text("docs/api.md").partition("## Limits")[2].partition("## Errors")[0]
    assert f"{Settings.model_fields['max_body_bytes'].default:,} bytes" in limits
    assert f"{http.MAX_DEPTH} levels" in limits
    assert f"{issue_reports.MAX_TEXT:,} bytes" in limits
    assert f"| {ranges.MAX_PAGE} |" in limits


def test_every_filter_of_a_list_is_documented() -> None:
    page = text("docs/api.md")
    listing, feed = page.partition("### Listing")[2].partition("### Grade")[0], page.partition("### The feed")[2]
    for name in calls.CallQuery.model_fields:
        assert f"`{name}`" in listing
    for name in issue_reports.ReportQuery.model_fields:
        assert f"`{name}`" in feed


@pytest.mark.parametrize("model", [calls.CallIn, issue_reports.ReportIn])
def test_every_field_of_a_body_is_documented(model: Any) -> None:
    for name in model.model_fields:
        assert f"`{name}`" in text("docs/api.md"), name


def test_the_parameters_in_the_documentation_are_the_templates_with_their_defaults() -> None:
    table = text("docs/operations.md").partition("## Parameters")[2].partition("\n## ")[0]
    said = {name: default.strip("`") for name, default in re.findall(r"^\| `(\w+)` \| (\S+) \|", table, re.MULTILINE)}
    real = {name: str(made.get("Default", "")) or "empty" for name, made in template()["Parameters"].items()}
    assert said == real


def test_every_alarm_is_documented() -> None:
    alarms = {name for name, made in template()["Resources"].items() if made["Type"] == "AWS::CloudWatch::Alarm"}
    assert set(re.findall(r"^\| `(\w+Alarm)` \|", text("docs/operations.md"), re.MULTILINE)) == alarms


def test_every_metric_is_documented() -> None:
    table = text("docs/operations.md").partition("## Metrics")[2].partition("\n## ")[0]
    files = [*ROOT.glob("functions/*/app.py"), *ROOT.glob("layers/core/fixloop/**/*.py")]
    counted = {name for file in files for name in re.findall(r'(?<![.\w])count\("(\w+)"', file.read_text())}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == counted


@pytest.mark.parametrize("event", SHAPES)
def test_every_event_is_documented(event: str) -> None:
    assert f"`{event}`" in text("docs/events.md")


@pytest.mark.parametrize("page", [page for page in NAMED if TOUR.search(text(page))])
def test_a_tour_needs_an_address_and_a_key_and_nothing_else(page: str) -> None:
    tour = TOUR.search(text(page))
    assert tour
    blocks = [content for kind, content in FENCE.findall(tour[1]) if kind == "sh"]
    assert blocks
    set_here = set(re.findall(r"^(\w+)=", "".join(blocks), re.MULTILINE))
    for block in blocks:
        assert set(re.findall(r"\$\{?([A-Z]\w+)", block)) <= {"FIXLOOP_URL", "FIXLOOP_API_KEY"} | set_here
        assert block.count("curl ") == block.count("curl -sS --fail-with-body")


def test_the_version_is_in_the_changelog() -> None:
    version = re.search(r'^version = "(.+)"$', text("pyproject.toml"), re.MULTILINE)
    assert version
    assert f"## [{version[1]}]" in text("CHANGELOG.md")
