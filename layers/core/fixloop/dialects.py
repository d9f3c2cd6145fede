"""How each of the five APIs says errors and writes times. A dialect is a value; a renderer is a plain function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fixloop.errors import FixloopError, Invalid
from fixloop.times import iso_ms, iso_s

JSON = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """`error` gives the body of an answer that is not a success; `time` writes an instant given in ms."""

    name: str
    error: Callable[[FixloopError], JSON]
    time: Callable[[int], str]


_THINKHIVE_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    413: "PAYLOAD_TOO_LARGE",
    429: "RATE_LIMITED",
    500: "INTERNAL_ERROR",
    504: "TIMEOUT",
}
_BLAND_CODES = {400: "bad_request", 401: "AUTH_FAILURE", 413: "payload_too_large", 500: "internal_error"}
_GOMOBILE_NAMES = {
    400: "BadRequestException",
    401: "UnauthorizedException",
    403: "ForbiddenException",
    404: "NotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictException",
    413: "PayloadTooLargeException",
    429: "TooManyRequestsException",
    500: "InternalServerErrorException",
}


def _thunderphone(error: FixloopError) -> JSON:
    """`{field: ["…"]}` for bad fields, else `{detail}`."""
    if isinstance(error, Invalid) and error.fields:
        return dict(error.fields)
    return {"detail": error.message}


def _thinkhive(error: FixloopError) -> JSON:
    """The nested form of the published page, with code and message repeated on top for newer clients."""
    code = _THINKHIVE_CODES.get(error.status, error.code.upper())
    body = {"success": False, "error": {"code": code, "message": error.message}, "code": code, "message": error.message}
    if isinstance(error, Invalid) and error.fields:
        body["error"] = {"code": code, "message": error.message, "details": error.fields}
    return body


def _zylon(error: FixloopError) -> JSON:
    return {"message": error.message}


def _bland(error: FixloopError) -> JSON:
    code = _BLAND_CODES.get(error.status, error.code)
    message = "Unauthorized" if error.status == 401 else error.message
    return {"data": None, "errors": [{"error": code, "message": message}]}


def _gomobile(error: FixloopError) -> JSON:
    return {
        "statusCode": error.status,
        "message": error.message,
        "error": _GOMOBILE_NAMES.get(error.status, "InternalServerErrorException"),
    }


THUNDERPHONE = Dialect("thunderphone", _thunderphone, iso_ms)
THINKHIVE = Dialect("thinkhive", _thinkhive, iso_s)
ZYLON = Dialect("zylon", _zylon, iso_s)
BLAND = Dialect("bland", _bland, iso_ms)
GOMOBILE = Dialect("gomobile", _gomobile, iso_ms)

_BY_PREFIX = (
    ("/v1/triage", BLAND),
    ("/api/v1/app", ZYLON),
    ("/call-report", GOMOBILE),
    ("/call-requests", GOMOBILE),
    ("/api/call-report", GOMOBILE),
    ("/api/call-requests", GOMOBILE),
    ("/api", THINKHIVE),
)


def of_path(path: str) -> Dialect:
    """The dialect a caller of `path` expects to be answered in, also where no route is."""
    for prefix, dialect in _BY_PREFIX:
        if path == prefix or path.startswith(prefix + "/"):
            return dialect
    return THUNDERPHONE
