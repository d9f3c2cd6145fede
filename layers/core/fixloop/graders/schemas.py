"""The common part of JSON Schema: enough to say what shape an answer must have."""

from __future__ import annotations

import math
from typing import Any

from fixloop.graders.patterns import TooExpensive, pattern

MAX_DEPTH = 32
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_LIMITS = (
    ("minimum", "is below the minimum of"),
    ("maximum", "is above the maximum of"),
    ("exclusiveMinimum", "must be above"),
    ("exclusiveMaximum", "must be below"),
)
_SIZES = (
    ("minLength", str, "has fewer characters than"),
    ("maxLength", str, "has more characters than"),
    ("minItems", list, "has fewer elements than"),
    ("maxItems", list, "has more elements than"),
    ("minProperties", dict, "has fewer properties than"),
    ("maxProperties", dict, "has more properties than"),
)
_NOTES = {"$schema", "$id", "$comment", "title", "description", "default", "examples", "format"}
_KNOWN = (
    {"type", "required", "properties", "additionalProperties", "items", "enum", "const", "pattern", "uniqueItems"}
    | {"anyOf", "oneOf", "allOf", "not", "multipleOf"}
    | {name for name, _ in _LIMITS}
    | {name for name, _, _ in _SIZES}
)


def check(schema: Any, at: str = "schema", depth: int = 0) -> None:
    """Raises ValueError where `schema` is none, or uses a keyword that is not known here: it would not be obeyed."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise ValueError(f"{at} must be an object or a boolean")
    if depth > MAX_DEPTH:
        raise ValueError(f"{at} is nested deeper than {MAX_DEPTH} levels")
    unknown = sorted(set(map(str, schema)) - _KNOWN - _NOTES)
    if unknown:
        raise ValueError(f'{at} has the keyword "{unknown[0]}", which is not known here')
    types = schema.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if not isinstance(name, str) or name not in _TYPES:
            raise ValueError(f"{at}.type must be one of {', '.join(_TYPES)}")
    for name in [name for name, _ in _LIMITS] + [name for name, _, _ in _SIZES] + ["multipleOf"]:
        value = schema.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or (name == "multipleOf" and value <= 0):
            raise ValueError(f"{at}.{name} must be a number")
    if "pattern" in schema:
        try:
            pattern(str(schema["pattern"]))
        except ValueError as error:
            raise ValueError(f"{at}.pattern {error}") from None
    if not isinstance(schema.get("enum", []), list):
        raise ValueError(f"{at}.enum must be a list")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ValueError(f"{at}.required must be a list of strings")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise ValueError(f"{at}.properties must be an object")
    for name, inner in properties.items():
        check(inner, f"{at}.properties.{name}", depth + 1)
    for name in ("items", "additionalProperties", "not"):
        if name in schema:
            check(schema[name], f"{at}.{name}", depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema and not (isinstance(schema[name], list) and schema[name]):
            raise ValueError(f"{at}.{name} must be a list of schemas")
        for number, inner in enumerate(schema.get(name, [])):
            check(inner, f"{at}.{name}.{number}", depth + 1)


def problem(value: Any, schema: Any, at: str = "$", depth: int = 0) -> str | None:
    """The first thing that is wrong with `value`, or None. `schema` has been checked."""
    if isinstance(schema, bool):
        return None if schema else f"{at} must not be there"
    if depth > 2 * MAX_DEPTH:
        return f"{at} is nested too deeply"
    types = schema.get("type")
    if types is not None and not any(_is(value, name) for name in (types if isinstance(types, list) else [types])):
        return f"{at} must be {' or '.join(types) if isinstance(types, list) else types}, not {_kind(value)}"
    if "const" in schema and not _equal(value, schema["const"]):
        return f"{at} must be {schema['const']!r}"
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        return f"{at} must be one of {', '.join(repr(one) for one in schema['enum'][:20])}"
    return (
        _number(value, schema, at)
        or _sized(value, schema, at)
        or _object(value, schema, at, depth)
        or _array(value, schema, at, depth)
        or _combined(value, schema, at, depth)
    )


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES[name])


def _kind(value: Any) -> str:
    return next(name for name in ("boolean", "integer", *_TYPES) if _is(value, name))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return bool(a == b)


def _number(value: Any, schema: dict[str, Any], at: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    for name, said in _LIMITS:
        limit = schema.get(name)
        if limit is None:
            continue
        low = name in ("minimum", "exclusiveMinimum")
        beyond = value < limit if low else value > limit
        if beyond or (name.startswith("exclusive") and value == limit):
            return f"{at} {said} {limit}"
    step = schema.get("multipleOf")
    if step is not None and (not math.isfinite(value) or abs(value / step - round(value / step)) > 1e-9):
        return f"{at} must be a multiple of {step}"
    return None


def _sized(value: Any, schema: dict[str, Any], at: str) -> str | None:
    for name, kind, said in _SIZES:
        limit = schema.get(name)
        if limit is not None and isinstance(value, kind):
            size = len(value)
            if size < limit if name.startswith("min") else size > limit:
                return f"{at} {said} {limit}"
    if "pattern" in schema and isinstance(value, str):
        try:
            if pattern(str(schema["pattern"])).search(value) is None:
                return f"{at} does not match {schema['pattern']}"
        except TooExpensive:
            return f"{at} could not be matched against {schema['pattern']} in reasonable time"
    return None


def _object(value: Any, schema: dict[str, Any], at: str, depth: int) -> str | None:
    if not isinstance(value, dict):
        return None
    for name in schema.get("required", []):
        if name not in value:
            return f"{at}.{name} is missing"
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in properties:
            found = problem(inner, properties[name], f"{at}.{name}", depth + 1)
        elif others is False:
            found = f"{at}.{name} is not allowed"
        else:
            found = problem(inner, others, f"{at}.{name}", depth + 1)
        if found:
            return found
    return None


def _array(value: Any, schema: dict[str, Any], at: str, depth: int) -> str | None:
    if not isinstance(value, list):
        return None
    if "items" in schema:
        for number, inner in enumerate(value):
            if found := problem(inner, schema["items"], f"{at}[{number}]", depth + 1):
                return found
    if schema.get("uniqueItems") and any(_equal(a, b) for i, a in enumerate(value[:500]) for b in value[:i]):
        return f"{at} must not hold anything twice"
    return None


def _combined(value: Any, schema: dict[str, Any], at: str, depth: int) -> str | None:
    for inner in schema.get("allOf", []):
        if found := problem(value, inner, at, depth + 1):
            return found
    if "anyOf" in schema and all(problem(value, inner, at, depth + 1) for inner in schema["anyOf"]):
        return f"{at} has none of the shapes it may have"
    if "oneOf" in schema:
        fitting = sum(problem(value, inner, at, depth + 1) is None for inner in schema["oneOf"])
        if fitting != 1:
            return f"{at} must have exactly one of the shapes it may have, not {fitting}"
    if "not" in schema and problem(value, schema["not"], at, depth + 1) is None:
        return f"{at} has a shape it must not have"
    return None
