"""docs/openapi.json is what the code declares, and what the code declares is what it does."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel

import answers
from cloud import Answer
from fixloop.http import Route
from fixloop_cli import openapi

LIMITS = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "999", "X-RateLimit-Reset": "1776709560"}
KIND = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    return [route for api in openapi.families().values() for route in api.declared()]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_document_in_the_repository_is_made_from_the_code_as_it_is(document: dict[str, Any]) -> None:
    assert openapi.DOCUMENT.read_text() == openapi.written(document), "run: make openapi"


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_route_is_an_operation_of_its_own(document: dict[str, Any], routes: list[Route]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) == len(routes) > 40


def read(function: Any, module: dict[str, Any], seen: set[str]) -> Iterator[tuple[str, Any]]:
    """(how, model) of everything that a handler, or a function of its file that it calls, reads a request as."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        match node:
            case ast.Call(func=ast.Attribute(attr="model" | "parameters" as how), args=[ast.Name(id=name), *_]):
                yield how, module[name]
            case ast.Call(func=ast.Name(id="checked"), args=[ast.Name(id=name), *_]):
                yield "checked", module[name]
            case ast.Call(func=ast.Name(id=name)) if name not in seen and inspect.isfunction(module.get(name)):
                called = module[name]
                if called.__globals__ is module:
                    yield from read(called, module, seen | {name})
            case ast.Attribute(value=ast.Name(id="request"), attr="query"):
                yield "query", None


def test_a_route_declares_the_models_that_its_handler_reads(routes: list[Route]) -> None:
    for route in routes:
        where = f"{route.method} {route.path}"
        handler: Any = route.handler
        found = list(read(handler, handler.__globals__, {handler.__name__}))
        bodies = {model for how, model in found if how == "model"}
        queries = {model for how, model in found if how == "parameters"}
        either = {model for how, model in found if how == "checked"}
        assert bodies <= {route.body}, where
        assert queries <= {route.query}, where
        assert route.query is None or route.query in queries | either, where
        assert route.query or not any(how == "query" for how, _ in found), f"{where} reads an undeclared query"
        if isinstance(route.body, type) and issubclass(route.body, BaseModel):
            assert route.body in bodies | either, where


def test_every_post_takes_an_idempotency_key_and_nothing_else_does(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        taken = {"$ref": "#/components/parameters/IdempotencyKey"} in operation.get("parameters", [])
        assert taken == (method == "POST"), path


def test_every_operation_says_how_it_refuses_in_the_words_of_its_api(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "401", "403", "429", "500"} <= refusals.keys()
        assert ("404" in refusals) or "{" not in path
        assert ("409" in refusals) or method == "GET"
        for status, answer in refusals.items():
            assert answer == {"$ref": f"#/components/responses/{operation['tags'][0]}{status}"}


def test_an_example_is_as_its_schema_says(document: dict[str, Any]) -> None:
    checked = 0
    for _, path, operation in operations(document):
        told = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in told:
            schema = {**told["schema"], "components": document["components"]}
            assert Draft202012Validator(schema).is_valid(told["example"]), path
            checked += 1
    assert checked >= 8


@pytest.mark.parametrize(
    ("method", "path", "answer", "complaint"),
    [
        ("GET", "/api/agents/x", Answer(418, {}, "{}"), "does not document 418"),
        ("GET", "/api/agents/x", Answer(404, KIND, '{"detail": "Not found."}'), "is not as documented"),
        ("DELETE", "/api/agents/x", Answer(200, KIND, '{"success": true, "message": ""}'), "has no X-RateLimit"),
        ("DELETE", "/api/agents/x", Answer(200, LIMITS, '{"success": true, "message": ""}'), "is of type"),
        ("DELETE", "/api/agents/x", Answer(200, LIMITS | KIND, '{"success": true}'), "is not as documented"),
        (
            "DELETE",
            "/api/agents/x",
            Answer(200, LIMITS | KIND, '{"success": true, "message": "", "more": 1}'),
            "is not as documented",
        ),
    ],
)
def test_an_answer_that_is_not_as_documented_fails_the_test_that_got_it(
    method: str, path: str, answer: Answer, complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        answers.check(method, path, answer)


def test_an_answer_as_documented_fails_no_test() -> None:
    answers.check("DELETE", "/api/agents/x", Answer(200, LIMITS | KIND, '{"success": true, "message": ""}'))
    answers.check("GET", "/v1/nothing", Answer(404, KIND, '{"detail": "Not found."}'))
