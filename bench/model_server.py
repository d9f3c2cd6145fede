"""A model provider on loopback: OpenAI-compatible, with a latency and a cap that are known.

`python -m bench.model_server --latency 0.1 --cap 20` serves until it is ended and prints its URL first;
`GET /stats` tells how many requests came and how many were throttled. In a test, `with ModelServer(...) as server`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
Answers = Callable[[dict[str, Any]], "str | Reply"]


def agreeable(body: dict[str, Any]) -> str:
    """The last line of what was asked: an answer that depends on its question."""
    return str(body["messages"][-1]["content"]).splitlines()[-1]


def completion(text: str) -> Reply:
    body = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20},
    }
    return 200, {}, json.dumps(body).encode()


class ModelServer:
    """`answers` gives the text for a request's body, or a whole reply (status, headers, body).

    `latency` in seconds before a good answer. `cap` is the most requests answered in any one second; more get 429,
    with the seconds until there is room again, rounded up, as `Retry-After` unless `retry_after` is False.
    """

    def __init__(
        self, answers: Answers = agreeable, *, latency: float = 0.0, cap: int | None = None, retry_after: bool = True
    ) -> None:
        self.answers, self.latency, self.cap, self.retry_after = answers, latency, cap, retry_after
        self.asked = self.throttled = self.most = self._now = 0
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.url = ""
        self._granted: deque[float] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()

    async def serve(self, port: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._stop = asyncio.Event()
        self._ready.set()
        async with server:
            await self._stop.wait()
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                fields = {
                    name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)
                }
                content = await reader.readexactly(int(fields.get("content-length", 0)))
                self.keys.add(fields.get("authorization", "").removeprefix("Bearer "))
                writer.write(_rendered(await self._reply(first, content)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(self, first: str, content: bytes) -> Reply:
        if first.startswith("GET /stats"):
            return 200, {}, json.dumps({"asked": self.asked, "throttled": self.throttled, "most": self.most}).encode()
        self.asked += 1
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if (wait := self._wait()) > 0:
                self.throttled += 1
                headers = {"Retry-After": str(int(wait) + 1)} if self.retry_after else {}
                return 429, headers, b'{"error": {"message": "slow down", "type": "rate_limit"}}'
            body = json.loads(content)
            self.bodies.append(body)
            said = self.answers(body)
            if self.latency:
                await asyncio.sleep(self.latency)
            return completion(said) if isinstance(said, str) else said
        finally:
            self._now -= 1

    def _wait(self) -> float:
        """Seconds until a request would be answered; 0 for one that is, which then counts."""
        if self.cap is None or self._loop is None:
            return 0.0
        now = self._loop.time()
        while self._granted and self._granted[0] <= now - 1:
            self._granted.popleft()
        if len(self._granted) < self.cap:
            self._granted.append(now)
            return 0.0
        return self._granted[0] + 1 - now

    def __enter__(self) -> ModelServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


def _rendered(reply: Reply) -> bytes:
    status, headers, body = reply
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\n{lines}\r\n".encode() + body


async def _served(options: argparse.Namespace) -> None:
    server = ModelServer(latency=options.latency, cap=options.cap, retry_after=not options.silent)
    running = asyncio.create_task(server.serve(options.port))
    while not server.url:
        await asyncio.sleep(0.01)
    print(server.url, flush=True)  # noqa: T201
    await running


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds before an answer")
    parser.add_argument("--cap", type=int, help="requests answered per second")
    parser.add_argument("--silent", action="store_true", help="429 without Retry-After")
    asyncio.run(_served(parser.parse_args()))
