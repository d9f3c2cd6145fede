"""The API over HTTP, as any client of it speaks."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from fixloop_cli.build import Failed

PATIENCE = 60  # seconds for one answer


class Caller:
    """A key at a base URL."""

    def __init__(self, url: str, key: str) -> None:
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise Failed(f"{url} is not an http or https URL")
        self._secure = split.scheme == "https"
        self._host, self._port, self._path = split.hostname, split.port, split.path.rstrip("/")
        self._key = key

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body. Raises `Failed` when nobody answers."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=PATIENCE)
        try:
            connection.request(
                method,
                self._path + path,
                None if body is None else json.dumps(body),
                {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self._host} did not answer {method} {path}: {error}") from None
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text) if text else None
        except ValueError:
            raise Failed(f"{method} {path} was answered {answer.status} without JSON: {text[:200]}") from None

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The body of an answer that must be a success. Raises `Failed` with what came instead."""
        status, said = self(method, path, body)
        if status >= 300:
            error = said.get("error") if isinstance(said, dict) else None
            reason = error["message"] if isinstance(error, dict) and "message" in error else json.dumps(said)
            raise Failed(f"{method} {path} was answered {status}: {reason}")
        return said
