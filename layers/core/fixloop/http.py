"""From an API Gateway event to a family's function and back: keys, limits, bodies, errors in the caller's dialect."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ValidationError

from fixloop.dialects import Dialect, of_path
from fixloop.errors import (
    Conflict,
    FixloopError,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
)
from fixloop.exact import Exact, Written, whole
from fixloop.identity import Principal, Scope, presented
from fixloop.observe import count, logger
from fixloop.settings import settings
from fixloop.storage import dynamo, platform
from fixloop.storage.dynamo import Action, ConditionFailed, Contended
from fixloop.storage.platform import Answer, Lease

MAX_DEPTH = 64
MAX_KEY_LENGTH = 255
_PARAMETER = re.compile(r"<(\w+)>")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[..., "Reply"]


@dataclass(frozen=True)
class Reply:
    """What a route says: a status, a JSON body (None for an empty one, Written for text as it is), further headers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """A route as its family declares it.

    `query` and `body` are the models that the handler reads, `answers` the shape of each status that is a success (None
    where there is no body), `errors` what it may raise beyond what its method and path allow for, `media` the types
    that it takes and gives.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope
    query: type[BaseModel] | None = None
    body: Any = None
    answers: Mapping[int, Any] = field(default_factory=dict)
    errors: tuple[type[FixloopError], ...] = ()
    media: tuple[str, ...] = ("application/json",)

    @property
    def pattern(self) -> str:
        return _PARAMETER.sub(r"[^/]+", self.path)


@dataclass
class Request:
    """One authenticated request. `now` in ms."""

    principal: Principal
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    content: bytes
    now: int
    idempotency_key: str | None = None
    kept: bool = False

    @property
    def org(self) -> str:
        return self.principal.org_id

    @property
    def raw(self) -> str:
        """The body as text. Raises Invalid."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise Invalid(message="The body is not UTF-8.") from None

    def json(self, *, default: Any = None) -> Any:
        """The body as JSON; `default`, if given, stands for an empty one. Raises Invalid."""
        if not self.raw.strip() and default is not None:
            return default
        return parsed(self.raw)

    def model(self, shape: type[Model], *, default: Any = None) -> Model:
        """The body as `shape`, its JSON types taken at their word. Raises Invalid naming every bad field."""
        body = self.json(default=default)
        if not isinstance(body, dict):
            raise Invalid(message="The body must be a JSON object.")
        return checked(shape, body, strict=True)

    def parameters(self, shape: type[Model], **fixed: str) -> Model:
        """The query string as `shape`; of a repeated parameter the last counts, empty ones do not. `fixed` ones win."""
        given = {name: values[-1] for name, values in self.query.items() if values[-1] != ""}
        return checked(shape, {**given, **fixed})

    def keep(self, reply: Reply) -> list[Action]:
        """What to write in one transaction with the effect, so that a repeat with the same key gets `reply` again."""
        if self.idempotency_key is None:
            return []
        self.kept = True
        return [self._remember(reply)]

    def _remember(self, reply: Reply) -> Action:
        answer = Answer(reply.status, reply.body)
        return platform.remember(self.org, self.idempotency_key or "", self.fingerprint, answer, self.now)

    @property
    def fingerprint(self) -> str:
        asked = "\n".join([self.method, self.path, json.dumps(self.query, sort_keys=True), ""])
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass") + self.content).hexdigest()


def checked(shape: type[Model], given: Mapping[str, Any], *, strict: bool = False) -> Model:
    """`given` as `shape`; `strict` takes no text or truth value for a number. Raises Invalid naming every bad field."""
    try:
        return shape.model_validate(given, strict=strict or None)
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(str(part) for part in problem["loc"]) or "body"
            message = problem["msg"].removeprefix("Value error, ")
            if message not in fields.setdefault(name, []):
                fields[name].append(message)
        raise Invalid(fields) from None


def parsed(raw: str, *, exact: bool = False) -> Any:
    """JSON as the APIs take it: no NaN, no numbers out of range, no endless nesting; `exact` keeps digits as written.

    Raises Invalid.
    """
    try:
        numbers = {"parse_float": Exact, "parse_int": whole} if exact else {"parse_float": _finite}
        body = json.loads(raw, parse_constant=_no_constant, **numbers)
        if _SURROGATE.search(raw):
            json.dumps(body, ensure_ascii=False).encode()
    except RecursionError:
        raise Invalid(message=f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except UnicodeEncodeError:
        raise Invalid(message="The body has an unpaired surrogate, which is not a character.") from None
    except ValueError as error:
        raise Invalid(message=f"The body is not valid JSON: {error}.") from None
    if raw.count("[") + raw.count("{") > MAX_DEPTH and _deeper(body, MAX_DEPTH):
        raise Invalid(message=f"The body is nested deeper than {MAX_DEPTH} levels.")
    return body


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is out of range")
    return number


def _deeper(body: Any, levels: int) -> bool:
    layer = [body]
    for _ in range(levels):
        layer = [
            element
            for container in layer
            for element in (container.values() if isinstance(container, dict) else container)
            if isinstance(element, dict | list)
        ]
        if not layer:
            return False
    return True


class Gate:
    """Who may come in: keys remembered for `key_cache_seconds`, and each key's share of its rate window."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[float, Principal]] = {}
        self._leases: dict[str, Lease] = {}

    def principal(self, headers: dict[str, Any], now: float) -> Principal:
        """Raises Unauthorized."""
        secret = presented(headers)
        if not secret:
            raise Unauthorized("Authentication credentials were not provided.")
        loaded, known = self._keys.get(secret, (0.0, None))
        if known is None or now - loaded > settings().key_cache_seconds:
            known = platform.find_key(secret)
            if known is None:
                self._keys.pop(secret, None)
                raise Unauthorized()
            if len(self._keys) > 1000:
                self._keys.clear()
            self._keys[secret] = (now, known)
        if not known.usable(int(now * 1000)):
            raise Unauthorized()
        return known

    def admit(self, principal: Principal, now: int) -> dict[str, str]:
        """Takes one request off the key's window and gives the headers that say so. Raises RateLimited."""
        held = self._leases.get(principal.key_id)
        if held is None or held.left <= 0 or now >= held.started + platform.WINDOW_SECONDS:
            try:
                held = platform.lease(principal.key_id, principal.limit, now)
            except RateLimited:
                raise
            except (ClientError, BotoCoreError, Contended) as error:
                logger().warning(
                    "rate window not reachable, letting the request in", extra={"reason": type(error).__name__}
                )
                held = Lease(now, 1, 0)
            self._leases[principal.key_id] = held
        held.left -= 1
        return _rate_headers(principal.limit, held.remaining(), held.started + platform.WINDOW_SECONDS)


def _rate_headers(limit: int, remaining: int, reset: int) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(max(0, remaining)),
        "X-RateLimit-Reset": str(reset),
    }


class _Resolver(APIGatewayHttpResolver):
    """Powertools keeps the event on a class of all resolvers; here each thread has its own."""

    def __init__(self) -> None:
        self._mine = threading.local()
        super().__init__()

    @property
    def current_event(self) -> Any:  # type: ignore[override]
        return self._mine.event

    def _to_proxy_event(self, event: dict[str, Any]) -> Any:
        self._mine.event = super()._to_proxy_event(event)
        return self._mine.event


class Api:
    """A family's routes. `api(event, context)` is its Lambda handler."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._resolver = _Resolver()
        self._resolver.not_found(self._unrouted)
        self._gate = Gate()
        self._clock = clock
        self._routes: list[Route] = []

    def route(
        self,
        method: str,
        path: str,
        scope: Scope | None = None,
        *,
        query: type[BaseModel] | None = None,
        body: Any = None,
        answers: Mapping[int, Any] | None = None,
        errors: tuple[type[FixloopError], ...] = (),
        media: tuple[str, ...] = ("application/json",),
    ) -> Callable[[Handler], Handler]:
        """Serves `path`, whose `<name>` parts are passed by name. Reading needs a read key, all else a write key.

        The rest is what the OpenAPI document says of the route (see `Route`) and changes nothing in how it is served.
        """
        needed = scope or (Scope.READ if method == "GET" else Scope.WRITE)

        def register(handler: Handler) -> Handler:
            self._routes.append(Route(method, path, handler, needed, query, body, answers or {}, errors, media))

            @self._resolver.route(path, method)
            def routed(**parts: str) -> Response[str]:
                named = {name: unquote(part) for name, part in parts.items()}
                return self._answer(lambda request: handler(request, **named), needed)

            return handler

        return register

    def declared(self) -> list[Route]:
        """Every route in the order of the file; a route that declares nothing is its handler's other route again."""
        told = {route.handler: route for route in self._routes if route.answers}
        return [
            replace(told.get(route.handler, route), method=route.method, path=route.path, scope=route.scope)
            for route in self._routes
        ]

    def routes(self) -> list[tuple[str, str]]:
        """(method, path pattern) of every route."""
        return [(route.method, route.pattern) for route in self._routes]

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        request_id = str(event.get("requestContext", {}).get("requestId", ""))
        logger().set_correlation_id(request_id)
        try:
            answer: dict[str, Any] = self._resolver.resolve(event, context)
        except Exception:
            logger().exception("unhandled")
            count("ServerErrors")
            body = of_path(str(event.get("rawPath", ""))).error(FixloopError("Internal server error."))
            answer = {"statusCode": 500, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}
        return answer

    def _unrouted(self, _: Exception) -> Response[str]:
        event = self._resolver.current_event
        allowed = [route.method for route in self._routes if re.fullmatch(route.pattern, event.path)]
        error: FixloopError = NotFound("Not found.")
        if allowed and event.http_method not in allowed:
            error = MethodNotAllowed(event.http_method, allowed)
        return _rendered(of_path(event.path), error, {})

    def _answer(self, handler: Callable[[Request], Reply], needed: Scope) -> Response[str]:
        event = self._resolver.current_event
        dialect = of_path(event.path)
        headers: dict[str, str] = {}
        try:
            request = self._admitted(needed, headers)
            return _json(self._once(request, handler), headers)
        except FixloopError as error:
            return _rendered(dialect, error, headers)
        except Contended:
            return _rendered(dialect, Conflict("Too many writers at once. Try again."), headers)
        except Exception:
            logger().exception("failed", extra={"path": event.path, "method": event.http_method})
            count("ServerErrors")
            return _rendered(dialect, FixloopError("Internal server error."), headers)

    def _admitted(self, needed: Scope, headers: dict[str, str]) -> Request:
        event = self._resolver.current_event.raw_event
        given = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        now = self._clock()
        principal = self._gate.principal(given, now)
        if not principal.scope.allows(needed):
            raise Forbidden(f"This key's scope is {principal.scope.value}; this needs {needed.value}.")
        try:
            headers.update(self._gate.admit(principal, int(now)))
        except RateLimited as limited:
            count("RateLimited")
            reset = int(now) + limited.retry_after
            headers.update(_rate_headers(principal.limit, 0, reset) | {"Retry-After": str(limited.retry_after)})
            raise
        return Request(
            principal=principal,
            method=str(event["requestContext"]["http"]["method"]),
            path=self._resolver.current_event.path,
            query=_query(str(event.get("rawQueryString") or "")),
            headers=given,
            content=_body(event),
            now=int(now * 1000),
            idempotency_key=_idempotency_key(event, given),
        )

    def _once(self, request: Request, handler: Callable[[Request], Reply]) -> Reply:
        if request.idempotency_key is None:
            return handler(request)
        if replayed := self._replay(request):
            return replayed
        try:
            reply = handler(request)
            if not request.kept and reply.status < 400:
                dynamo.write([request._remember(reply)])
            return reply
        except ConditionFailed:  # another request with the same key was first; its answer is the answer
            if replayed := self._replay(request):
                return replayed
            raise Conflict("A request with this Idempotency-Key is being answered.") from None

    @staticmethod
    def _replay(request: Request) -> Reply | None:
        answer = platform.answered(request.org, request.idempotency_key or "", request.fingerprint, request.now)
        return Reply(answer.status, answer.body, {"Idempotency-Replayed": "true"}) if answer else None


def _idempotency_key(event: dict[str, Any], headers: Mapping[str, Any]) -> str | None:
    key = str(headers.get("idempotency-key") or "").strip()
    if not key or event["requestContext"]["http"]["method"] != "POST":
        return None
    if len(key) > MAX_KEY_LENGTH:
        raise Invalid({"Idempotency-Key": [f"must have at most {MAX_KEY_LENGTH} characters"]})
    return key


def _query(raw: str) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    return query


def _body(event: dict[str, Any]) -> bytes:
    raw = event.get("body") or ""
    most = settings().max_body_bytes
    try:
        binary = base64.b64decode(raw) if event.get("isBase64Encoded") else raw.encode("utf-8", "surrogatepass")
    except ValueError:
        raise Invalid(message="The body is not Base64.") from None
    if len(binary) > most:
        raise TooLarge(f"The body has {len(binary)} bytes; at most {most} are taken.")
    return binary


def _json(reply: Reply, headers: Mapping[str, str]) -> Response[str]:
    if reply.body is None:
        return Response(reply.status, headers={**headers, **reply.headers}, body="")
    return Response(
        reply.status,
        content_type="application/json",
        headers={**headers, **reply.headers},
        body=reply.body if isinstance(reply.body, Written) else json.dumps(reply.body, ensure_ascii=False),
    )


def _rendered(dialect: Dialect, error: FixloopError, headers: dict[str, str]) -> Response[str]:
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return _json(Reply(error.status, dialect.error(error)), headers)
