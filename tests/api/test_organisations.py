"""What is chosen for an organisation on the command line, and how soon it counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud import Client, Cloud
from fixloop.errors import NotFound
from fixloop.settings import settings
from fixloop.storage import platform
from fixloop_cli import manage
from fixloop_cli.build import Failed

NOW = 1_776_709_511_002


@pytest.fixture
def run(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on the tables of this process, and gives what it prints."""

    @contextmanager
    def here(_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(manage, "working", here)

    def command(group: Any, *words: str) -> str:
        done = CliRunner().invoke(group, list(words))
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return command


def test_what_is_named_is_set_and_the_rest_stays(caller: Client, run: Any) -> None:
    assert "triage: off" in run(manage.orgs, "show", caller.org)
    run(manage.orgs, "set", caller.org, "--triage", "on")
    shown = run(manage.orgs, "set", caller.org, "--grouping-threshold", "5")
    assert "triage: on" in shown
    assert "grouping threshold: 5" in shown
    assert "Aurora Labs" in run(manage.orgs, "show", caller.org)
    shown = run(manage.orgs, "set", caller.org, "--triage", "off", "--grouping-threshold", "0")
    assert "triage: off" in shown
    assert "GroupingThreshold" in shown
    held = platform.org(caller.org)
    assert held
    assert held["name"] == "Aurora Labs"


def test_an_unknown_organisation_or_nothing_to_set_is_refused(caller: Client, run: Any) -> None:
    with pytest.raises(NotFound, match="org_nowhere"):
        run(manage.orgs, "set", "org_nowhere", "--triage", "on")
    assert platform.org("org_nowhere") is None
    with pytest.raises(Failed, match="org_nowhere"):
        run(manage.orgs, "show", "org_nowhere")
    with pytest.raises(Failed, match="--triage"):
        run(manage.orgs, "set", caller.org)


def test_a_triage_model_is_chosen_shown_and_left_to_the_agents_again(caller: Client, run: Any) -> None:
    assert "triage model: the own model of each agent" in run(manage.orgs, "show", caller.org)
    for spec in ("openai:acme/small", "bedrock:amazon.nova-lite-v1:0", "extractive"):
        assert f"triage model: {spec}" in run(manage.orgs, "set", caller.org, "--triage-model", spec)
        assert f"triage model: {spec}" in run(manage.orgs, "show", caller.org)
        assert platform.org_settings(caller.org, NOW).triage_model == spec
    shown = run(manage.orgs, "set", caller.org, "--triage", "on")
    assert "triage model: extractive" in shown
    assert "the own model of each agent" in run(manage.orgs, "set", caller.org, "--triage-model", "own")
    held = platform.org(caller.org)
    assert held
    assert "triage_model" not in held


@pytest.mark.parametrize("spec", ["gpt-4o", "openai:acme", "https://models.example/v1", "", "bedrock:", "Own"])
def test_what_names_no_model_is_refused_as_a_triage_model(caller: Client, run: Any, spec: str) -> None:
    with pytest.raises(Failed, match="--triage-model takes"):
        run(manage.orgs, "set", caller.org, "--triage-model", spec, "--triage", "on")
    assert platform.org_settings(caller.org, NOW).triage_model is None
    assert platform.org_settings(caller.org, NOW).triage is False


def test_settings_are_remembered_for_no_longer_than_keys_are(caller: Client) -> None:
    assert platform.org_settings(caller.org, NOW).triage is False
    elsewhere = dict(platform._remembered)
    platform.change_org(caller.org, {"triage": True})
    platform._remembered.update(elsewhere)  # as in another process
    most = settings().key_cache_seconds * 1000
    assert most <= 60_000
    assert platform.org_settings(caller.org, NOW + most - 1).triage is False
    assert platform.org_settings(caller.org, NOW + most).triage is True


def test_a_key_is_made_for_a_user_with_the_named_roles(caller: Client, run: Any, cloud: Cloud) -> None:
    secret = run(manage.keys, "create", "--org", caller.org, "--role", "AppUser", "--role", "Reviewer").split()[0]
    principal = platform.find_key(secret)
    assert principal
    assert principal.user.roles == ["AppUser", "Reviewer"]
    made = caller.post("/api/v1/app/issue", {"resource_type": "Thread", "type": "Other"}).json()
    path = f"/api/v1/app/issue/{made['id']}"
    assert Client(cloud, secret).patch(path, {"state": "Closed"}).status == 403
    with pytest.raises(Failed, match="role"):
        run(manage.keys, "create", "--org", caller.org, "--role", "no role")
