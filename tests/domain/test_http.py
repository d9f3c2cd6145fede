"""Bodies and fields: what is JSON here, and how a bad field is named."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fixloop.errors import Invalid
from fixloop.http import MAX_DEPTH, Api, Reply, Request, _Resolver, checked
from fixloop.identity import Principal, User


class Shape(BaseModel):
    name: str
    number: int = 0
    inner: list[dict[str, int]] = []


def request(raw: str, **query: list[str]) -> Request:
    principal = Principal(key_id="k", org_id="o", user=User(id=1))
    return Request(principal=principal, method="POST", path="/x", query=query, headers={}, content=raw.encode(), now=0)


@pytest.mark.parametrize(
    "raw", ["", "{", "NaN", "[Infinity]", "1e400", '"\\ud800"', "9" * 5000, "[" * 5000 + "]" * 5000]
)
def test_what_is_no_json_is_refused(raw: str) -> None:
    with pytest.raises(Invalid):
        request(raw).json()


@pytest.mark.parametrize("raw", ["[]", "5", '"x"', "null"])
def test_a_body_must_be_an_object(raw: str) -> None:
    with pytest.raises(Invalid, match="object"):
        request(raw).model(Shape)


def test_a_body_may_be_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    assert request("[" * MAX_DEPTH + "]" * MAX_DEPTH).json()
    with pytest.raises(Invalid, match="deeper"):
        request("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)).json()


def test_brackets_in_text_are_not_depth() -> None:
    assert request(json.dumps("[" * 500)).json() == "[" * 500


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")), st.lists))
def test_any_json_is_read_as_it_is(content: Any) -> None:
    assert request(json.dumps(content)).json() == content


def test_an_empty_body_stands_for_its_default() -> None:
    assert request(" ").model(Shape, default={"name": "x"}).name == "x"


def test_every_bad_field_is_named_as_the_caller_spelled_it() -> None:
    with pytest.raises(Invalid) as refused:
        checked(Shape, {"number": "x", "inner": [{"a": 1}, {"b": "y"}, 3]})
    assert refused.value.fields.keys() == {"name", "number", "inner.1.b", "inner.2"}


@pytest.mark.parametrize("number", ["5", True, 5.0, None, [5]])
def test_a_body_says_numbers_as_numbers(number: Any) -> None:
    with pytest.raises(Invalid) as refused:
        request(json.dumps({"name": "x", "number": number})).model(Shape)
    assert list(refused.value.fields) == ["number"]


def test_a_query_says_numbers_as_text() -> None:
    assert request("", name=["x"], number=["1", "5"], inner=[""]).parameters(Shape).number == 5


def test_two_requests_are_the_same_if_all_they_say_is() -> None:
    base = request("a", x=["1"])
    assert base.fingerprint == request("a", x=["1"]).fingerprint
    others = [request("b", x=["1"]), request("a", x=["2"]), request("a")]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_an_api_knows_its_routes() -> None:
    api = Api(clock=lambda: 0)

    @api.route("GET", "/v1/things/<thing_id>/parts")
    def parts(_: Request, thing_id: str) -> Reply:
        return Reply(200, thing_id)

    assert api.routes() == [("GET", "/v1/things/[^/]+/parts")]


def test_a_request_keeps_its_event_while_another_thread_has_one() -> None:
    resolver, entered, answered = _Resolver(), threading.Event(), threading.Event()
    seen: dict[str, str] = {}

    @resolver.get("/slow")
    def slow() -> str:
        entered.set()
        assert answered.wait(10)
        seen["slow"] = resolver.current_event.path
        return ""

    @resolver.get("/quick")
    def quick() -> str:
        seen["quick"] = resolver.current_event.path
        return ""

    def ask(path: str) -> None:
        http = {"method": "GET", "path": path}
        resolver.resolve({"rawPath": path, "requestContext": {"http": http, "stage": "$default"}}, None)

    waiting = threading.Thread(target=ask, args=("/slow",))
    waiting.start()
    assert entered.wait(10)
    ask("/quick")
    answered.set()
    waiting.join(10)
    assert seen == {"slow": "/slow", "quick": "/quick"}
