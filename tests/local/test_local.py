"""The local stack's start, without starting it: ports, directories, stamps, and who may read the key."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fixloop_cli import local
from fixloop_cli.build import Failed

ROOT = Path(__file__).resolve().parents[2]


def stack_in(directory: Path, **changes: object) -> local.Stack:
    values: dict[str, object] = {
        "url": "http://127.0.0.1:4566/_aws/execute-api/abc",
        "api_key": "k",
        "org_id": "o",
        "endpoint_url": "http://127.0.0.1:4566",
        "region": "us-east-1",
        "stack_name": "fixloop",
        "outputs": {"ApiUrl": "u"},
        "directory": directory,
        "pid": 1,
        "port": 4566,
        "deployed": "digest",
    }
    return local.Stack(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "functions" / "calls").mkdir(parents=True)
    (tmp_path / "layers" / "core").mkdir(parents=True)
    (tmp_path / "template.yaml").write_text("Resources: {}\n")
    (tmp_path / "functions" / "calls" / "app.py").write_text("handler = None\n")
    return tmp_path


def test_a_busy_port_is_stepped_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found, reservation = local.reserved_port(port)
        reservation.close()
        assert found > port


def test_a_free_port_is_kept():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found, reservation = local.reserved_port(port)
    with reservation:
        assert found == port
        other, second = local.reserved_port(port)  # nothing listens there yet, but somebody is about to
        second.close()
        assert other > port
    again, third = local.reserved_port(port)
    third.close()
    assert again == port


def test_what_is_kept_is_read_again_and_only_its_owner_may(tmp_path: Path):
    stack = stack_in(tmp_path)
    local.write(stack)
    assert local.read(tmp_path) == stack
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "{}", '{"url": "x", "unknown": 1}'])
def test_a_broken_stack_file_counts_as_none(tmp_path: Path, content: str):
    (tmp_path / "stack.json").write_text(content)
    assert local.read(tmp_path) is None


def test_a_dead_process_is_not_taken_for_running_though_its_file_is_there(tmp_path: Path):
    (tmp_path / "emulator.lock").write_text(json.dumps({"pid": os.getpid(), "port": 4566}))
    assert local.running(tmp_path) == (None, None)
    assert local.down(tmp_path) is False


def test_the_holder_of_the_lock_is_running(tmp_path: Path):
    hold = (
        "import sys, pathlib; from fixloop_cli.emulator import take_lock\n"
        "lock = take_lock(pathlib.Path(sys.argv[1]), 4999); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "emulator.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert local.running(tmp_path) == (holder.pid, 4999)
    holder.communicate("")
    assert local.running(tmp_path) == (None, None)


def test_the_digest_follows_what_is_deployed_and_nothing_else(project: Path):
    before = local.digest_of(project, {"Stage": "local"})
    (project / "README.md").write_text("words")
    (project / "layers" / "core" / "__pycache__").mkdir()
    (project / "layers" / "core" / "__pycache__" / "x.pyc").write_bytes(b"0")
    assert local.digest_of(project, {"Stage": "local"}) == before
    assert local.digest_of(project, {"Stage": "other"}) != before
    (project / "functions" / "calls" / "app.py").write_text("handler = 1\n")
    assert local.digest_of(project, {"Stage": "local"}) != before


def test_a_moved_file_is_another_deployment(project: Path):
    before = local.digest_of(project, {})
    (project / "functions" / "calls" / "app.py").rename(project / "functions" / "calls" / "main.py")
    assert local.digest_of(project, {}) != before


def test_the_directory_is_found_from_below_and_can_be_named(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FIXLOOP_DIRECTORY", raising=False)
    below = project / "functions" / "calls"
    assert local.find_directory(below) is None
    (project / ".local").mkdir()
    (project / ".local" / "stack.json").write_text("{}")
    assert local.find_directory(below) == project / ".local"
    monkeypatch.setenv("FIXLOOP_DIRECTORY", str(project / "elsewhere"))
    assert local.find_directory(below) == project / "elsewhere"


def test_outside_a_project_it_says_so(tmp_path: Path):
    with pytest.raises(Failed, match=r"no template\.yaml"):
        local.find_root(tmp_path)


def test_the_callers_aws_settings_reach_neither_the_local_aws_nor_its_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "MY_SECRET"):
        monkeypatch.setenv(name, "the caller's")
    environment = local.emulator_environment(tmp_path, 4566)
    assert "the caller's" not in environment.values()
    assert environment["BIND_HOST"] == "127.0.0.1"
    for name in ("STATE_DIR", "S3_DATA_DIR", "TMPDIR"):
        assert Path(environment[name]).is_relative_to(tmp_path)


def test_a_start_that_fails_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "bin" / "python"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho it is broken >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(Failed, match=r"did not start[\s\S]*it is broken[\s\S]*rm -r"):
        local.start(tmp_path / "stack", 4566, lambda _: None)
