"""Model endpoints in Secrets Manager, and the commands that set them up."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from typer.testing import CliRunner, Result

from cloud import REGION, Cloud
from fixloop.errors import Invalid
from fixloop.models import Endpoint
from fixloop.settings import settings
from fixloop.storage import endpoints
from fixloop_cli import local, manage
from fixloop_cli.main import app
from fixloop_cli.target import Target

KEY = "sk-very-secret"
ACME = Endpoint("https://models.example.com/v1", KEY)


@pytest.fixture
def org(cloud: Cloud) -> Iterator[str]:
    yield cloud.org()
    endpoints._held.clear()


def secret(cloud: Cloud, org: str, name: str) -> Any:
    named = f"fixloop/{settings().stage}/{org}/models/{name}"
    return json.loads(cloud.client("secretsmanager").get_secret_value(SecretId=named)["SecretString"])


def test_an_endpoint_is_a_secret_of_its_organisation(cloud: Cloud, org: str):
    endpoints.put(org, "acme", ACME)
    assert secret(cloud, org, "acme") == {"base_url": ACME.base_url, "api_key": KEY}
    assert endpoints.endpoint(org, "acme") == ACME
    assert endpoints.endpoint(cloud.org(), "acme") is None
    assert endpoints.endpoint(org, "other") is None


def test_an_endpoint_can_be_set_up_anew_and_removed(cloud: Cloud, org: str):
    endpoints.put(org, "acme", ACME)
    endpoints.put(org, "acme", Endpoint("http://10.0.0.7:8000/v1", None, 0.1, 0.2))
    assert endpoints.endpoint(org, "acme") == Endpoint("http://10.0.0.7:8000/v1", None, 0.1, 0.2)
    assert endpoints.delete(org, "acme")
    assert endpoints.endpoint(org, "acme") is None
    assert not endpoints.delete(org, "acme")


def test_names_are_those_of_one_organisation_however_many_there_are(cloud: Cloud, org: str):
    expected = sorted(f"model-{number}" for number in range(105))
    for name in expected:
        endpoints.put(org, name, ACME)
    endpoints.put(cloud.org(), "of-another", ACME)
    assert endpoints.names(org) == expected


def test_what_was_read_is_remembered_for_a_minute(cloud: Cloud, org: str, monkeypatch: pytest.MonkeyPatch):
    now = itertools.count(1000.0, 25.0)
    monkeypatch.setattr(endpoints.time, "monotonic", lambda: next(now))
    endpoints.put(org, "acme", ACME)
    assert endpoints.endpoint(org, "acme") == ACME
    named = f"fixloop/{settings().stage}/{org}/models/acme"
    cloud.client("secretsmanager").delete_secret(SecretId=named, ForceDeleteWithoutRecovery=True)
    assert endpoints.endpoint(org, "acme") == ACME
    for _ in range(2):
        last = endpoints.endpoint(org, "acme")
    assert last is None


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "{}", '{"base_url": 7}', '{"base_url": "ftp://a"}',
                                     '{"base_url": "https://a", "colour": "red"}'])  # fmt: skip
def test_a_secret_that_somebody_broke_is_said_to_be_broken(cloud: Cloud, org: str, content: str):
    endpoints.put(org, "acme", ACME)
    named = f"fixloop/{settings().stage}/{org}/models/acme"
    cloud.client("secretsmanager").put_secret_value(SecretId=named, SecretString=content or " ")
    with pytest.raises(Invalid) as raised:
        endpoints.endpoint(org, "acme")
    assert list(raised.value.fields) == ["model"]


@pytest.mark.parametrize(
    ("name", "given", "field"),
    [
        ("a/b", ACME, "name"),
        ("", ACME, "name"),
        ("-a", ACME, "name"),
        ("a" * 64, ACME, "name"),
        ("a", Endpoint("file:///etc/passwd"), "base_url"),
        ("a", Endpoint("https://user:pass@host/v1"), "base_url"),
        ("a", Endpoint("https://host/v1?key=1"), "base_url"),
        ("a", Endpoint("https://host:port/v1"), "base_url"),
        ("a", Endpoint("https://host/v 1"), "base_url"),
        ("a", Endpoint("https://host/v1\r\nX: y"), "base_url"),
        ("a", Endpoint("https://host/v1", "two\nlines"), "api_key"),
        ("a", Endpoint("https://host/v1", "schlüssel"), "api_key"),
        ("a", Endpoint("https://host/v1", None, 1.0), "price"),
        ("a", Endpoint("https://host/v1", None, -1.0, 1.0), "price"),
        ("a", Endpoint("https://host/v1", None, float("nan"), 1.0), "price"),
    ],
)
def test_what_could_not_work_is_refused_and_not_stored(cloud: Cloud, org: str, name: str, given: Endpoint, field: str):
    with pytest.raises(Invalid) as raised:
        endpoints.put(org, name, given)
    assert list(raised.value.fields) == [field]
    assert endpoints.names(org) == []


# The commands


@pytest.fixture
def fixloop(cloud: Cloud, org: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line on the stack in moto."""
    outputs = {name: str(cloud.resolve(made["Value"])) for name, made in cloud.template["Outputs"].items()}
    session = botocore.session.get_session()
    target = Target(outputs, lambda service: session.create_client(service, REGION))
    monkeypatch.setattr(manage, "resolve", lambda context: target)

    def run(*words: str, said: str = "") -> Result:
        return CliRunner().invoke(app, list(words), input=said, env={"COLUMNS": "200"})

    return run


def test_the_commands_add_list_and_remove_and_never_show_the_key(
    cloud: Cloud, org: str, fixloop: Any, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    mine = ("--org", org)
    prices = ("--input-price", "0.5", "--output-price", "1.5")
    added = fixloop(
        "models", "add", "acme", "--base-url", ACME.base_url, "--api-key-stdin", *prices, *mine, said=f"{KEY}\n"
    )
    assert added.exit_code == 0, added.output
    assert added.output.strip() == "openai:acme/MODEL"
    assert secret(cloud, org, "acme") == {
        "base_url": ACME.base_url,
        "api_key": KEY,
        "input_price": 0.5,
        "output_price": 1.5,
    }
    assert fixloop("models", "add", "open", "--base-url", "http://127.0.0.1:9/v1", *mine).exit_code == 0
    listed = fixloop("models", "list", *mine)
    rows = [line.split() for line in listed.output.splitlines()[1:]]
    assert rows == [
        ["acme", ACME.base_url, "yes", "$0.5", "/", "$1.5"],
        ["open", "http://127.0.0.1:9/v1", "no", "unknown"],
    ]
    assert fixloop("models", "remove", "acme", *mine).exit_code == 0
    assert fixloop("models", "list", *mine).output.count("openai") == 0
    assert endpoints.names(org) == ["open"]
    assert KEY not in added.output + listed.output
    assert not [line for line in caplog.messages if KEY in line and "fixloop" in line.split(":")[0]]


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (["add", "acme", "--base-url", "ftp://a", "--org", "ORG"], "", "base_url"),
        (["add", "a/b", "--base-url", "https://a", "--org", "ORG"], "", "name"),
        (["add", "acme", "--base-url", "https://a", "--api-key-stdin", "--org", "ORG"], "\n", "stdin"),
        (["add", "acme", "--base-url", "https://a", "--input-price", "1", "--org", "ORG"], "", "price"),
        (["add", "acme", "--base-url", "https://a", "--org", "org_nobody"], "", "not found"),
        (["add", "acme", "--base-url", "https://a"], "", "--org"),
        (["list"], "", "--org"),
        (["remove", "acme", "--org", "ORG"], "", "not found"),
    ],
)
def test_the_commands_say_what_is_wrong(org: str, fixloop: Any, words: list[str], said: str, remedy: str):
    failed = fixloop("models", *[org if word == "ORG" else word for word in words], said=said)
    assert failed.exit_code != 0
    assert remedy in str(failed.exception)
    assert endpoints.names(org) == []


def test_with_local_the_stacks_own_organisation_is_meant(
    org: str, fixloop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    class Stack:
        org_id = org

    monkeypatch.setattr(local, "find_directory", lambda start: tmp_path)
    monkeypatch.setattr(local, "read", lambda directory: Stack)
    assert fixloop("--local", "models", "add", "acme", "--base-url", "https://a/v1").exit_code == 0
    assert endpoints.names(org) == ["acme"]
