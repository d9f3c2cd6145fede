"""The few errors the domain raises; each dialect gives them its own voice, one table maps them to a status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class FixloopError(Exception):
    """Something the caller of an API is told about. `message` is safe to show."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(FixloopError):
    """The request breaks a rule. `fields` names every bad field in the caller's own spelling, in the order found."""

    status = 400
    code = "invalid"

    def __init__(self, fields: Mapping[str, Sequence[str]] | None = None, message: str | None = None) -> None:
        self.fields = {name: list(messages) for name, messages in (fields or {}).items()}
        said = "; ".join(f"{name}: {' '.join(messages)}" for name, messages in self.fields.items())
        super().__init__(message or said or "The request is not valid.")


class Unauthorized(FixloopError):
    """No key, or one that is unknown, revoked or expired."""

    status = 401
    code = "unauthorized"

    def __init__(self, message: str = "Missing or invalid API key.") -> None:
        super().__init__(message)


class Forbidden(FixloopError):
    """A good key that may not do this."""

    status = 403
    code = "forbidden"


class NotFound(FixloopError):
    """Nothing of that name in the caller's organisation."""

    status = 404
    code = "not_found"


class MethodNotAllowed(FixloopError):
    """The path exists, with other methods. `allowed` are those."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f'Method "{method}" not allowed.')
        self.allowed = sorted(allowed)


class Conflict(FixloopError):
    """The object's state, or another request, stands in the way."""

    status = 409
    code = "conflict"


class TooLarge(FixloopError):
    """The body is over the limit."""

    status = 413
    code = "too_large"


class UpstreamFailed(FixloopError):
    """A model that was asked for the answer did not give one."""

    status = 502
    code = "upstream_failed"


class Unavailable(FixloopError):
    """Nothing is wrong with the request; the same again in a moment will do."""

    status = 503
    code = "unavailable"


class TimedOut(FixloopError):
    """The answer would have come too late for the gateway."""

    status = 504
    code = "timeout"


class RateLimited(FixloopError):
    """The key has used up its window. `retry_after` is in seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests. Try again in {retry_after} s.")
        self.retry_after = retry_after
