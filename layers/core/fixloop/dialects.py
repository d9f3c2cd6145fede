"""How each of the five APIs says errors and writes times. A dialect is a value; a renderer is a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from fixloop.errors import FixloopError, Invalid
from fixloop.times import iso_ms, iso_s


@dataclass(frozen=True)
class Dialect:
    """`error` gives the body of an answer that is not a success; `time` writes an instant given in ms."""

    name: str
    error: Callable[[FixloopError], Mapping[str, Any]]
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
    502: "UPSTREAM_FAILED",
    503: "UNAVAILABLE",
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
_GOMOBILE_REFUSALS = {
    "invalid_call_request": "CallRequestValidationError",
    "invalid_retry_strategy": "InvalidRetryStrategyError",
    "invalid_start_time": "InvalidStartTimeError",
}


class Detail(TypedDict):
    detail: str


def _thunderphone(error: FixloopError) -> Detail | dict[str, list[str]]:
    """`{field: ["…"]}` for bad fields, else `{detail}`."""
    if isinstance(error, Invalid) and error.fields:
        return dict(error.fields)
    return {"detail": error.message}


class ThinkHiveProblem(TypedDict):
    """`details` has every bad field by name."""

    code: str
    message: str
    details: NotRequired[dict[str, list[str]]]


class ThinkHiveError(TypedDict):
    success: Literal[False]
    error: ThinkHiveProblem
    code: str
    message: str


def _thinkhive(error: FixloopError) -> ThinkHiveError:
    """The nested form of the published page, with code and message repeated on top for newer clients."""
    code = _THINKHIVE_CODES.get(error.status, error.code.upper())
    problem: ThinkHiveProblem = {"code": code, "message": error.message}
    if isinstance(error, Invalid) and error.fields:
        problem["details"] = error.fields
    return {"success": False, "error": problem, "code": code, "message": error.message}


class ZylonError(TypedDict):
    message: str


def _zylon(error: FixloopError) -> ZylonError:
    return {"message": error.message}


class BlandProblem(TypedDict):
    error: str
    message: str


class BlandError(TypedDict):
    data: None
    errors: list[BlandProblem]


def _bland(error: FixloopError) -> BlandError:
    code = _BLAND_CODES.get(error.status, error.code)
    message = "Unauthorized" if error.status == 401 else error.message
    return {"data": None, "errors": [{"error": code, "message": message}]}


class GoMobileError(TypedDict):
    statusCode: int
    message: str
    error: str


def _gomobile(error: FixloopError) -> GoMobileError:
    return {
        "statusCode": error.status,
        "message": error.message,
        "error": _GOMOBILE_REFUSALS.get(error.code)
        or _GOMOBILE_NAMES.get(error.status, "InternalServerErrorException"),
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
