"""An OpenAI-compatible endpoint as it answers in practice: well, throttled, failing, slow, broken."""

import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fixloop.errors import Invalid
from fixloop.models import Endpoint, ModelRefused, ModelUnavailable, Prompt, Throttled, named
from fixloop.models.openai import OpenAI
from fixloop.traces import Document, Message, Parameters

GOOD = {
    "choices": [{"message": {"role": "assistant", "content": "30 days."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 21, "completion_tokens": 3},
}
PROMPT = Prompt("Answer.", [Message(role="user", content="How long?")], [Document(id="p", text="30 days.")])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = lambda handler: handler.reply(200, GOOD)
        self.asked = []
        self.connections = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        self.server.connections.add(self.client_address)
        self.server.answer(self)

    def reply(self, status, body, **headers):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def model(server) -> OpenAI:
    return OpenAI(Endpoint(server.url, "secret-key"), "gpt-4o")


def test_a_question_is_asked_and_its_answer_read(server, model):
    asked = Prompt("Be kind.", [*PROMPT.messages], PROMPT.context, Parameters(temperature=0, max_tokens=9, stop=["X"]))
    answer = model.complete(asked)
    assert (answer.text, answer.input_tokens, answer.output_tokens, answer.finish_reason) == ("30 days.", 21, 3, "stop")
    assert answer.latency_ms >= 0
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret-key"
    assert body == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be kind.\n\nContext:\n\n[p]\n30 days."},
            {"role": "user", "content": "How long?"},
        ],
        "temperature": 0.0,
        "max_tokens": 9,
        "stop": ["X"],
    }


def test_a_thread_keeps_its_connection(server, model):
    for _ in range(5):
        model.complete(PROMPT)
    assert len(server.connections) == 1


def test_threads_do_not_share_connections(server, model):
    gate = threading.Barrier(4)

    def answer(handler):
        gate.wait(5)
        handler.reply(200, GOOD)

    server.answer = answer
    threads = [threading.Thread(target=model.complete, args=(PROMPT,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.connections) == 4


def test_a_connection_that_the_server_closed_is_opened_again(server, model):
    def last(handler):
        handler.reply(200, GOOD)
        handler.close_connection = True

    server.answer = last
    for _ in range(3):
        assert model.complete(PROMPT).text == "30 days."
        time.sleep(0.05)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({}, None),
        ({"Retry_After": "3"}, 3.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"retry_after_ms": "250", "Retry_After": "9"}, 0.25),
        ({"Retry_After": "-4"}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "1e9"}, 3600.0),
    ],
)
def test_throttling_says_when_to_come_back(server, model, headers, after):
    server.answer = lambda handler: handler.reply(429, {"error": {"message": "slow down"}}, **headers)
    with pytest.raises(Throttled) as raised:
        model.complete(PROMPT)
    assert raised.value.retry_after == after
    assert len(server.asked) == 1


def test_a_date_to_come_back_at_is_understood(server, model):
    server.answer = lambda handler: handler.reply(429, {}, Retry_After=formatdate(time.time() + 30, usegmt=True))
    with pytest.raises(Throttled) as raised:
        model.complete(PROMPT)
    assert raised.value.retry_after == pytest.approx(30, abs=2)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
def test_a_failing_server_is_unavailable(server, model, status):
    server.answer = lambda handler: handler.reply(status, b"<html>oops</html>", Retry_After="2")
    with pytest.raises(ModelUnavailable, match=str(status)) as raised:
        model.complete(PROMPT)
    assert raised.value.retry_after == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 422])
def test_a_refused_question_is_not_worth_another_try(server, model, status):
    error = {"error": {"message": "bad key secret-key", "code": "x"}}
    server.answer = lambda handler: handler.reply(status, error, Location="http://127.0.0.1:1/")
    with pytest.raises(ModelRefused) as raised:
        model.complete(PROMPT)
    assert "secret-key" not in raised.value.message


def test_a_used_up_quota_is_not_throttling(server, model):
    server.answer = lambda handler: handler.reply(429, {"error": {"code": "insufficient_quota", "message": "pay"}})
    with pytest.raises(ModelRefused):
        model.complete(PROMPT)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": [{"message": 7}]}', b"\xff\xfe",
     b'{"choices": [{"message": {"content": {"a": 1}}}]}', b"[" * 100_000],
)  # fmt: skip
def test_a_broken_answer_is_unavailable(server, model, body):
    server.answer = lambda handler: handler.reply(200, body)
    with pytest.raises(ModelUnavailable):
        model.complete(PROMPT)


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "stop", "ab"),
        ({"content": None, "refusal": "No."}, "stop", "No."),
        ({"content": None}, "tool_calls", ""),
    ],
)
def test_answers_in_other_forms_are_read(server, model, message, reason, text):
    server.answer = lambda handler: handler.reply(200, {"choices": [{"message": message, "finish_reason": reason}]})
    answer = model.complete(PROMPT)
    assert answer.text == text
    assert answer.input_tokens > 0


def test_a_filtered_answer_is_refused(server, model):
    withheld = {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}
    server.answer = lambda handler: handler.reply(200, withheld)
    with pytest.raises(ModelRefused):
        model.complete(PROMPT)


def test_an_answer_that_breaks_off_is_unavailable(server, model):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices"')
        handler.close_connection = True

    server.answer = half
    with pytest.raises(ModelUnavailable):
        model.complete(PROMPT)
    server.answer = lambda handler: handler.reply(200, GOOD)
    assert model.complete(PROMPT).text == "30 days."


def test_a_server_that_hangs_up_without_a_word_is_unavailable_and_not_asked_for_ever(server, model):
    server.answer = lambda handler: setattr(handler, "close_connection", True)
    with pytest.raises(ModelUnavailable):
        model.complete(PROMPT)
    assert len(server.asked) <= 2


def test_a_slow_server_is_given_up_in_time(server, model):
    server.answer = lambda handler: time.sleep(3)
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match="in time") as raised:
        model.complete(PROMPT, timeout=0.3)
    assert raised.value.slow
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_dripping_server_is_given_up_in_time(server, model, part):
    def drip(handler):
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b" " * 500
        head = 10 if part == "headers" else raw.index(b"\r\n\r\n") + 4
        handler.wfile.write(raw[:head])
        for at in range(head, len(raw)):
            time.sleep(0.05)
            handler.wfile.write(raw[at : at + 1])

    server.answer = drip
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match="in time") as raised:
        model.complete(PROMPT, timeout=0.4)
    assert raised.value.slow
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("honest", [True, False])
def test_an_endless_answer_is_cut_off(server, model, honest):
    def flood(handler):
        handler.send_response(200)
        if honest:
            handler.send_header("Content-Length", str(2**33))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b" " * 65536)
        handler.close_connection = True

    server.answer = flood
    with pytest.raises(ModelUnavailable, match="10 MB"):
        model.complete(PROMPT)


def test_nobody_listening_is_unavailable():
    with pytest.raises(ModelUnavailable):
        OpenAI(Endpoint("http://127.0.0.1:1/v1"), "m").complete(PROMPT, timeout=2)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/", "http://", "http://u:p@host/", "http://a/?x=1", "host"]
)
def test_only_plain_web_addresses_are_endpoints(url):
    with pytest.raises(Invalid):
        OpenAI(Endpoint(url), "m")


def test_a_key_does_not_show_in_an_endpoint():
    assert "secret" not in repr(Endpoint("http://a/v1", "secret"))


def test_models_are_found_by_name(server):
    endpoints = {"acme": Endpoint(server.url)}
    assert named("openai:acme/vendor/model-1", endpoints.get).complete(PROMPT).text == "30 days."
    assert server.asked[0][2]["model"] == "vendor/model-1"
    assert "Authorization" not in server.asked[0][1]
    assert named("extractive").complete(PROMPT).text
    for spec in ("openai:nobody/m", "openai:acme/", "openai:http://x/m", "gpt-4o", "bedrock:", "", "extractive:x"):
        with pytest.raises(Invalid) as raised:
            named(spec, endpoints.get)
        assert list(raised.value.fields) == ["model"]
