"""Any OpenAI-compatible chat completions endpoint, over the standard library's HTTP client."""

from __future__ import annotations

import http.client
import io
import json
import select
import socket
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fixloop.errors import Invalid
from fixloop.models import (
    TIMEOUT,
    Completion,
    Endpoint,
    Finish,
    ModelRefused,
    ModelUnavailable,
    Prompt,
    Throttled,
    estimated_tokens,
)

MAX_ANSWER = 10 * 1024 * 1024
MAX_RETRY_AFTER = 3600.0
_CHUNK = 64 * 1024
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length", "max_tokens": "length"}
_BROKEN = (http.client.HTTPException, OSError)


def address(base_url: str) -> SplitResult:
    """The parts of an endpoint's URL. Raises Invalid naming `base_url`."""
    problem = Invalid({"base_url": ["must be an http or https URL without user, query and fragment"]})
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise problem from None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    sound = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if parts.scheme in ("http", "https") and parts.hostname and port != 0 and plain and sound:
        return parts
    raise problem


class OpenAI:
    """A model behind an OpenAI-compatible endpoint. Each thread keeps a connection of its own open."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        parts = address(endpoint.base_url)
        self.model = model
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/") + "/chat/completions"
        self._key = endpoint.api_key
        self._mine = threading.local()

    def complete(self, prompt: Prompt, *, timeout: float = TIMEOUT) -> Completion:
        """Raises Throttled, ModelUnavailable or ModelRefused. `timeout` bounds the whole exchange, however it drips."""
        started = time.monotonic()
        status, headers, raw = self._exchange(self._body(prompt), started + timeout)
        if status != 200:
            raise self._refusal(status, headers, raw)
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            raise ModelUnavailable("The model endpoint's answer is not JSON.") from None
        return self._completion(answer, prompt, round((time.monotonic() - started) * 1000))

    def _body(self, prompt: Prompt) -> bytes:
        system = prompt.instructions()
        wanted = prompt.parameters
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                *([{"role": "system", "content": system}] if system.strip() else []),
                *({"role": "user" if m.role == "tool" else m.role, "content": m.content} for m in prompt.messages),
            ],
        }
        asked = {
            "temperature": wanted.temperature,
            "top_p": wanted.top_p,
            "max_tokens": wanted.max_tokens,
            "stop": wanted.stop or None,
        }
        body |= {name: value for name, value in asked.items() if value is not None}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

    def _exchange(self, body: bytes, deadline: float) -> tuple[int, http.client.HTTPMessage, bytes]:
        kept: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if kept is not None and (kept.sock is None or _went_away(kept.sock)):
            kept.close()
            kept = None
        if kept is not None:
            try:
                return self._ask(kept, body, deadline)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                kept.close()  # the server had just closed an idle connection: it did not see the question
            except TimeoutError:
                kept.close()
                raise ModelUnavailable("The model endpoint did not answer in time.", slow=True) from None
            except _BROKEN as error:
                kept.close()
                raise ModelUnavailable(f"The model endpoint broke off its answer ({type(error).__name__}).") from None
        fresh = self._connection(deadline)
        try:
            return self._ask(fresh, body, deadline)
        except TimeoutError:
            fresh.close()
            raise ModelUnavailable("The model endpoint did not answer in time.", slow=True) from None
        except ssl.SSLCertVerificationError:
            fresh.close()
            raise ModelRefused("The model endpoint's certificate is not valid.") from None
        except _BROKEN as error:
            fresh.close()
            raise ModelUnavailable(
                f"The model endpoint could not be reached or broke off ({type(error).__name__})."
            ) from None

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        left = max(0.001, deadline - time.monotonic())
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=left, context=_tls())
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=left)
        connection.response_class = _Response
        self._mine.connection = connection
        return connection

    def _ask(
        self, connection: http.client.HTTPConnection, body: bytes, deadline: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "fixloop"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if connection.sock is None:
            connection.connect()  # sets TCP_NODELAY
        elif isinstance(connection.sock, socket.socket):
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        _deadlines.at = deadline
        connection.request("POST", self._path, body=body, headers=headers)
        response = connection.getresponse()
        raw = bytearray()
        while chunk := response.read(_CHUNK):
            raw += chunk
            if len(raw) > MAX_ANSWER:
                connection.close()
                raise ModelUnavailable("The model endpoint's answer is over 10 MB.")
        if response.will_close:
            connection.close()
        return response.status, response.headers, bytes(raw)

    def _refusal(
        self, status: int, headers: http.client.HTTPMessage, raw: bytes
    ) -> Throttled | ModelUnavailable | ModelRefused:
        code, said = _said(raw)
        if self._key:
            said = said.replace(self._key, "…")
        after = _retry_after(headers)
        if status == 429 and code != "insufficient_quota":
            return Throttled("The model endpoint is throttling (429).", after)
        if status in (408, 409, 425) or status >= 500:
            return ModelUnavailable(f"The model endpoint failed ({status}).", after)
        if status in (401, 403):
            return ModelRefused(f"The model endpoint did not accept the API key ({status}).")
        return ModelRefused(f"The model endpoint refused the request ({status}){': ' + said if said else ''}.")

    def _completion(self, answer: Any, prompt: Prompt, latency_ms: int) -> Completion:
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            content = message.get("content")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ModelUnavailable("The model endpoint's answer is no chat completion.") from None
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        if not content and isinstance(message.get("refusal"), str):
            content = message["refusal"]
        reason = choice.get("finish_reason")
        if not content and reason == "content_filter":
            raise ModelRefused("The model endpoint's content filter withheld the answer.")
        if content is None:
            content = ""
        if not isinstance(content, str):
            raise ModelUnavailable("The model endpoint's answer has no text.")
        usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
        asked = prompt.instructions() + "".join(m.content for m in prompt.messages)
        return Completion(
            text=content,
            input_tokens=_count(usage.get("prompt_tokens"), asked),
            output_tokens=_count(usage.get("completion_tokens"), content),
            latency_ms=latency_ms,
            finish_reason=_FINISH.get(str(reason), "other"),
        )


def _count(given: Any, text: str) -> int:
    return given if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else estimated_tokens(text)


def _said(raw: bytes) -> tuple[str, str]:
    """The provider's code and its message, shortened."""
    try:
        error = json.loads(raw)["error"]
        if isinstance(error, str):
            return "", error[:200]
        return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")[:200].rstrip(".")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date); None where neither makes sense."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = (headers.get(name) or "").strip()
        try:
            seconds = float(given) * scale
        except ValueError:
            if scale != 1.0 or not given:
                continue
            try:
                seconds = parsedate_to_datetime(given).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds == seconds:
            return min(max(seconds, 0.0), MAX_RETRY_AFTER)
    return None


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _went_away(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: the server's goodbye."""
    try:
        watch = select.poll()
        watch.register(sock, select.POLLIN)
        return bool(watch.poll(0))
    except (OSError, ValueError):
        return True


_deadlines = threading.local()


class _Response(http.client.HTTPResponse):
    """A response whose every read, of headers too, stays within this thread's deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, _deadlines.at))


class _Timed(io.RawIOBase):
    """What a socket receives, until a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
