"""The OpenAPI document of all families, made from what their routes declare: `python -m fixloop_cli.openapi`.

A route's parameters and body come from the models that its handler reads, its answers from the shapes it declares, its
errors from what its method and path allow for, in the words of its dialect. Nothing of this is imported in Lambda.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

from fixloop.dialects import Dialect, of_path
from fixloop.errors import (
    Conflict,
    FixloopError,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    TimedOut,
    TooLarge,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
)
from fixloop.http import MAX_KEY_LENGTH, Api, Route

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "openapi.json"
JSON = dict[str, Any]
Sample = tuple[str, str, Any]
WIDTH = 120
REFERENCE = "#/components/schemas/{model}"

APIS = {
    "thunderphone": (
        "ThunderPhone",
        "Calls, grades, issue reports, and OpenTelemetry spans. Bare JSON, `snake_case`, times in milliseconds.",
    ),
    "thinkhive": (
        "ThinkHive",
        "Agents, traces, issues, fixes and shadow tests. `{success, data}`, `camelCase`, times in whole seconds.",
    ),
    "zylon": (
        "Zylon",
        "Issues that the people who use an app report. Bare JSON, `snake_case`, times in whole seconds.",
    ),
    "bland": ("Bland", "Triage issues. `{data, errors}`, `snake_case`, times in milliseconds."),
    "gomobile": ("GoMobile", "Call requests and the reports of their attempts. Bare JSON, `camelCase`."),
}
SECURITY: dict[str, JSON] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "authorization": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "The bare key, without `Bearer`.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
HEADERS: dict[str, JSON] = {
    "X-RateLimit-Limit": {
        "required": True,
        "description": "Requests that the key may make in a window.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Remaining": {
        "required": True,
        "description": "Those that are left of them.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "X-RateLimit-Reset": {
        "required": True,
        "description": "When the next window begins, in seconds since 1970.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Retry-After": {"required": True, "description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"required": True, "schema": {"type": "string", "const": "Bearer"}},
    "Idempotency-Replayed": {
        "description": "The request was answered before, and this is that answer.",
        "schema": {"type": "string", "const": "true"},
    },
}
LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
IDEMPOTENCY_KEY: JSON = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same request within 24 h: the first answer again. With another one: a 409.",
    "schema": {"type": "string", "maxLength": MAX_KEY_LENGTH},
}

# One of each error that is shown as the example of its status.
_SAID: dict[int, FixloopError] = {
    400: Invalid({"limit": ["Input should be a valid integer, unable to parse string as an integer"]}),
    401: Unauthorized(),
    403: Forbidden("This key's scope is read; this needs write."),
    404: NotFound("Not found."),
    409: Conflict("A request with this Idempotency-Key is being answered."),
    413: TooLarge("The body has 1048577 bytes; at most 1048576 are taken."),
    429: RateLimited(30),
    500: FixloopError("Internal server error."),
    502: UpstreamFailed("The model gave no answer."),
    503: Unavailable("Too many batches of one trace at once. Send this one again."),
    504: TimedOut("The replay took too long."),
}


class Schemas(GenerateJsonSchema):
    """JSON Schema as pydantic makes it, without titles, and with answers' objects closed unless they are open."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JSON:
        made = super().typed_dict_schema(schema)
        extra = schema.get("config", {}).get("extra_fields_behavior") or schema.get("extra_behavior")
        if self.mode == "serialization" and extra != "allow":
            made["additionalProperties"] = False
        made.pop("title", None)
        return made

    def model_schema(self, schema: core_schema.ModelSchema) -> JSON:
        made = super().model_schema(schema)
        made.pop("title", None)
        return made


@dataclass(frozen=True)
class Operation:
    """A route with its unique name: `family.handler`, and what is different in its path where the handler has more."""

    id: str
    route: Route

    @property
    def dialect(self) -> Dialect:
        return of_path(self.path)

    @property
    def path(self) -> str:
        return re.sub(r"<(\w+)>", r"{\1}", self.route.path)

    @property
    def names(self) -> list[str]:
        return re.findall(r"<(\w+)>", self.route.path)

    @property
    def shapes(self) -> Iterator[tuple[str, JsonSchemaMode, Any]]:
        """(what for, read or written, shape) of everything that the route takes and gives."""
        if self.route.query:
            yield "query", "validation", self.route.query
        if self.route.body:
            yield "body", "validation", self.route.body
        hints = get_type_hints(self.route.handler, include_extras=True)
        for name in self.names:
            yield f"path {name}", "validation", hints[name]
        for status, shape in self.route.answers.items():
            if shape is not None:
                yield f"answer {status}", "serialization", shape

    @property
    def statuses(self) -> list[int]:
        """Those of the errors that can occur."""
        possible = {400, 401, 403, 413, 429, 500} | {error.status for error in self.route.errors}
        if self.names:
            possible.add(404)
        if self.route.method != "GET":
            possible.add(409)
        return sorted(possible)


def families(root: Path = ROOT) -> dict[str, Api]:
    """The handlers of all functions that serve routes, by the name of their folder."""
    found = {}
    for file in sorted(root.glob("functions/*/app.py")):
        if "handler = Api(" not in file.read_text():
            continue
        name = f"fixloop_functions_{file.parent.name}"
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(str(file))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        found[file.parent.name] = module.handler
    return found


def document(root: Path = ROOT) -> JSON:
    """The whole document. Raises ValueError for a route that declares no answer."""
    operations = sorted(_operations(root), key=lambda one: list(APIS).index(one.dialect.name))
    for one in operations:
        if not one.route.answers:
            raise ValueError(f"{one.route.method} {one.route.path} declares no answers")
    dialects = {one.dialect.name: one.dialect for one in operations}
    schemas, defined = _schemas(operations, dialects)
    samples = _samples(root)
    paths: JSON = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.route.method.lower()] = _operation(one, schemas, defined, samples)
    for query in {schema["$ref"] for (_, what), schema in schemas.items() if what == "query"}:
        defined.pop(query.rpartition("/")[2], None)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fixloop",
            "summary": project["description"],
            "description": "Made from the code by `make openapi`. Every path takes any key in any of the three ways.",
            "version": project["version"],
            "license": {"name": project["license"], "identifier": project["license"]},
        },
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "description": "The stack's output `ApiUrl`.",
                "variables": {"api": {"default": "api"}, "region": {"default": "us-east-1"}},
            }
        ],
        "security": [{name: []} for name in SECURITY],
        "tags": [{"name": title, "description": about} for name, (title, about) in APIS.items() if name in dialects],
        "paths": paths,
        "components": {
            "securitySchemes": SECURITY,
            "headers": HEADERS,
            "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY},
            "responses": {
                f"{APIS[name][0]}{status}": _refusal(dialect, status, schemas[name, "error"])
                for name, dialect in dialects.items()
                for status in sorted(
                    {status for one in operations if one.dialect == dialect for status in one.statuses}
                )
            },
            "schemas": dict(sorted(defined.items())),
        },
    }


def _schemas(
    operations: list[Operation], dialects: dict[str, Dialect]
) -> tuple[dict[tuple[str, str], JSON], dict[str, JSON]]:
    """The schema of everything by (operation or dialect, what for), and those that they refer to by name."""
    wanted: list[tuple[tuple[str, str], JsonSchemaMode, TypeAdapter[Any]]] = [
        ((_name(one), what), mode, TypeAdapter(shape)) for one in operations for what, mode, shape in one.shapes
    ]
    wanted += [
        ((name, "error"), "serialization", TypeAdapter(get_type_hints(dialect.error)["return"]))
        for name, dialect in dialects.items()
    ]
    made, whole = TypeAdapter.json_schemas(wanted, ref_template=REFERENCE, schema_generator=Schemas)
    named = {_short(name): _renamed(schema) for name, schema in whole["$defs"].items()}
    return {key: _renamed(schema) for (key, _), schema in made.items()}, named


def _short(name: str) -> str:
    """`fixloop__triage__issues__IssueIn`, one of two of that name, is `triage.issues.IssueIn`; `One_X_` is `One.X`."""
    *modules, last = name.rstrip("_").removeprefix("fixloop__").split("__")
    return ".".join([*modules, last.replace("_", ".")])


def _renamed(part: Any) -> Any:
    if isinstance(part, list):
        return [_renamed(one) for one in part]
    if not isinstance(part, dict):
        return part
    before, _, name = str(part.get("$ref", "")).rpartition("/")
    renamed = {key: _renamed(value) for key, value in part.items()}
    return {**renamed, "$ref": f"{before}/{_short(name)}"} if before else renamed


def _name(one: Operation) -> str:
    return f"{one.route.method} {one.route.path}"


def _operation(
    one: Operation, schemas: dict[tuple[str, str], JSON], defined: dict[str, JSON], samples: list[Sample]
) -> JSON:
    handler, key = one.route.handler, _name(one)
    told: JSON = {
        "operationId": one.id,
        "summary": handler.__name__.replace("_", " ").capitalize(),
        "tags": [APIS[one.dialect.name][0]],
    }
    if handler.__doc__:
        told["description"] = inspect.cleandoc(handler.__doc__)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schemas[key, f"path {name}"]} for name in one.names
    ]
    if one.route.query:
        parameters += _query(_found(schemas[key, "query"], defined))
    if one.route.method == "POST":
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if parameters:
        told["parameters"] = parameters
    if one.route.body:
        told["requestBody"] = {
            "required": True,
            "content": {
                media: {"schema": schemas[key, "body"], **_example(one, samples)} if media == "application/json" else {}
                for media in one.route.media
            },
        }
    answers: JSON = {}
    for status in one.route.answers:
        headers = [*LIMITS, "Idempotency-Replayed"] if one.route.method == "POST" else LIMITS
        answers[str(status)] = {"description": _phrase(status), "headers": _headers(headers)}
        if one.route.answers[status] is not None:
            answers[str(status)]["content"] = {
                media: {"schema": schemas[key, f"answer {status}"]} if media == "application/json" else {}
                for media in one.route.media
            }
    title = APIS[one.dialect.name][0]
    answers |= {str(status): {"$ref": f"#/components/responses/{title}{status}"} for status in one.statuses}
    told["responses"] = answers
    return told


def _operations(root: Path) -> Iterator[Operation]:
    for family, api in families(root).items():
        served: dict[str, Route] = {}
        for route in api.declared():
            name = f"{family}.{route.handler.__name__}"
            if name in served:
                other = served[name].path.split("/")
                name += "." + next((part for part in reversed(route.path.split("/")) if part not in other), "alias")
            served[name] = route
            yield Operation(name, route)


def _samples(root: Path) -> list[Sample]:
    """Method, path and body of the sample requests that the tests play."""
    events = [json.loads(file.read_text()) for file in sorted(root.glob("events/*/*.json"))]
    return [
        (event["requestContext"]["http"]["method"], event["rawPath"], json.loads(event["body"]))
        for event in events
        if "rawPath" in event and event.get("body") and not event.get("isBase64Encoded")
    ]


def _example(one: Operation, samples: list[Sample]) -> JSON:
    for method, path, body in samples:
        if method == one.route.method and re.fullmatch(one.route.pattern, path):
            return {"example": body}
    return {}


def _query(model: JSON) -> list[JSON]:
    parameters = []
    for name, schema in model["properties"].items():
        told = dict(schema)
        kinds = [kind for kind in told.pop("anyOf", []) if kind != {"type": "null"}]
        told |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
        if told.get("default", "") is None:
            del told["default"]
        about = told.pop("description", None)
        required = name in model.get("required", ())
        described = {"description": about} if about else {}
        parameters.append({"name": name, "in": "query", "required": required, **described, "schema": told})
    return parameters


def _found(schema: JSON, defined: dict[str, JSON]) -> JSON:
    return defined[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _refusal(dialect: Dialect, status: int, schema: JSON) -> JSON:
    headers = {401: ["WWW-Authenticate"], 429: [*LIMITS, "Retry-After"]}.get(status, [])
    made: JSON = {"description": _phrase(status)}
    if headers:
        made["headers"] = _headers(headers)
    example = dialect.error(_SAID[status])
    return {**made, "content": {"application/json": {"schema": schema, "example": example}}}


def _headers(names: Sequence[str]) -> JSON:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _phrase(status: int) -> str:
    """As RFC 9110 calls it; Python before 3.13 has older names for two."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def main() -> None:
    """Writes docs/openapi.json."""
    DOCUMENT.write_text(written(document()))


def written(content: JSON) -> str:
    """The document as it is kept in the repository: indented, with what fits a line on one."""
    return _lines(content, "") + "\n"


def _lines(part: Any, margin: str) -> str:
    flat = json.dumps(part, ensure_ascii=False)
    if not isinstance(part, dict | list) or len(margin) + len(flat) <= WIDTH:
        return flat
    inner = margin + "  "
    if isinstance(part, dict):
        entries = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(value, inner)}" for key, value in part.items()]
    else:
        entries = [_lines(value, inner) for value in part]
    opening, closing = "{}" if isinstance(part, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(entries) + f"\n{margin}{closing}"


if __name__ == "__main__":
    main()
