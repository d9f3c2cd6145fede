"""Holds every answer of the API against the OpenAPI document: its status, type, headers and body."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema_rs import Draft202012Validator

if TYPE_CHECKING:
    from cloud import Answer

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return loaded


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Every path as an expression, those with fewer parameters first."""
    paths = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in paths]


@cache
def _validator(path: str, method: str, status: str) -> Draft202012Validator | None:
    content = _response(path, method, status).get("content", {}).get("application/json")
    if content is None:
        return None
    whole = {**content["schema"], "components": document()["components"]}
    return Draft202012Validator(whole, validate_formats=True)


def _response(path: str, method: str, status: str) -> dict[str, Any]:
    """Raises KeyError for a status that the operation does not document."""
    response: dict[str, Any] = document()["paths"][path][method]["responses"][status]
    return _resolved(response)


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    *_, kind, name = part["$ref"].split("/")
    found: dict[str, Any] = document()["components"][kind][name]
    return found


def check(method: str, path: str, answer: Answer) -> None:
    """Raises AssertionError for an answer that the document does not allow; what it does not serve may say anything."""
    template = next((template for expression, template in _paths() if expression.fullmatch(path)), None)
    if template is None or method.lower() not in document()["paths"][template]:
        return
    where, status = f"{method} {template}", str(answer.status)
    try:
        response = _response(template, method.lower(), status)
    except KeyError:
        raise AssertionError(f"{where} does not document {status}: {answer.text[:500]}") from None
    for name, header in response.get("headers", {}).items():
        assert name in answer.headers or not _resolved(header).get("required"), f"{where} {status} has no {name}"
    kind = answer.headers.get("Content-Type", "")
    assert not answer.text or kind in response.get("content", {}), f"{where} {status} is of type {kind}"
    validator = _validator(template, method.lower(), status)
    if answer.text and validator is not None:
        for problem in validator.iter_errors(json.loads(answer.text)):
            at = ".".join(map(str, problem.instance_path))
            raise AssertionError(f"{where} {status} is not as documented at {at!r}: {problem.message[:1000]}")
