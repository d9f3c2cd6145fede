"""Cold start: import and first request in fresh processes, of three packages that are run by turns.

- built: what `make build` makes, put together here from the packages of this environment: bytecode with unchecked
  hashes, botocore with a cut data folder;
- default: the same without those two, as a plain `sam build` would leave it;
- bare: boto3 as pip installs it, bytecode included, importing it and making a DynamoDB client; no request at all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.world import ROOT, environment

PAIRS = 31
BARE = ("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3")
FUNCTIONS = ("issue_reports", "calls")

_OURS = """
import json, sys, time
kept = json.load(open(sys.argv[1]))[sys.argv[2]]
clock, cpu = time.perf_counter(), time.process_time()
import app
imported = time.perf_counter()
from fixloop.aws import client
from botocore.awsrequest import AWSResponse
def answer(request, **_):
    operation = request.headers["X-Amz-Target"].decode().partition(".")[2]
    body = request.body.decode() if isinstance(request.body, bytes) else request.body
    told = kept["exact"].get(f"{operation} {body}")
    if told is None:
        asked = json.loads(body)
        key = asked.get("Key") or asked.get("Item", {})
        kind = key.get("sk", {}).get("S", "").partition("#")[0]
        table, change = asked.get("TableName"), asked.get("UpdateExpression")
        told = kept["loose"][f"{operation} {table} {key.get('pk')} {kind} {change}"]
    given = AWSResponse("http://dynamodb.invalid/", told[0], {}, None)
    given._content = told[1].encode()
    return given
client("dynamodb").meta.events.register("before-send.dynamodb", answer)
first = app.handler(kept["event"], None)
print(json.dumps([time.perf_counter() - clock, time.process_time() - cpu, imported - clock, len(sys.modules)]))
assert first["statusCode"] == 200, first
"""
_BARE = """
import json, sys, time
clock, cpu = time.perf_counter(), time.process_time()
import boto3
imported = time.perf_counter()
boto3.client("dynamodb")
print(json.dumps([time.perf_counter() - clock, time.process_time() - cpu, imported - clock, len(sys.modules)]))
"""


def measure(tapes: Path) -> list[dict[str, Any]]:
    """Times of each package, in ms, with their ratio to the bare handler's."""
    place = ROOT / ".cache" / "bench"
    shutil.rmtree(place, ignore_errors=True)
    built, default, bare = place / "built", place / "default", place / "bare"
    _packed(built, cut=True)
    _packed(default, cut=False)
    _copied(BARE, bare)
    subprocess.run([sys.executable, "-m", "compileall", "-q", bare], check=True)
    titles = {"issue_reports": "feed, first page", "calls": "calls, first page"}
    runs: dict[str, tuple[str, list[Path], list[str]]] = {"bare boto3 and client, no request": (_BARE, [bare], [])}
    for family in FUNCTIONS:
        arguments = [str(tapes), titles[family]]
        runs[f"{family}, built"] = (_OURS, [built / family, built / "python"], arguments)
    runs["issue_reports, built the default way"] = (
        _OURS,
        [default / "issue_reports", default / "python"],
        [str(tapes), titles["issue_reports"]],
    )
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for turn in range(PAIRS + 1):
        for name, run in runs.items():
            took = _run(*run)
            if turn:  # the first only warms the disk's cache
                times[name].append(took)
    return _summary(times)


def _summary(times: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    bare = next(iter(times.values()))
    found = []
    for name, taken in times.items():
        wall, cpu = [one[0] * 1000 for one in taken], [one[1] * 1000 for one in taken]
        found.append(
            {
                "what": name,
                "median_ms": statistics.median(wall),
                "min_ms": min(wall),
                "cpu_ms": statistics.median(cpu),
                "cpu_min_ms": min(cpu),
                "import_ms": statistics.median(one[2] * 1000 for one in taken),
                "modules": int(taken[0][3]),
                "ratio": statistics.median(one[0] / its[0] for one, its in zip(taken, bare, strict=True)),
                "ratio_of_minima": min(wall) / (min(one[0] for one in bare) * 1000),
                "cpu_ratio": statistics.median(one[1] / its[1] for one, its in zip(taken, bare, strict=True)),
                "runs": len(taken),
            }
        )
    return found


def _run(code: str, folders: list[Path], arguments: list[str]) -> list[float]:
    quiet = {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
    }
    # Without `site`, like Lambda's own interpreter: only the function's and the layers' folders are on the path.
    command = [sys.executable, "-S", "-c", code, *arguments]
    done = subprocess.run(command, env={**environment(), **quiet}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


def _packed(target: Path, *, cut: bool) -> None:
    """The layers in one `python` folder, each function in its own, as Lambda unpacks them; `cut` as our build does."""
    python, steps = target / "python", _steps()
    _copied(_required(), python)
    shutil.copytree(
        ROOT / "layers" / "core" / "fixloop", python / "fixloop", ignore=shutil.ignore_patterns("__pycache__")
    )
    for family in FUNCTIONS:
        (target / family).mkdir()
        shutil.copy(ROOT / "functions" / family / "app.py", target / family)
    if cut:
        steps.make_lean(python)
        steps.precompile(python, python)
        for family in FUNCTIONS:
            steps.compile_bytecode(target / family)


def _steps() -> ModuleType:
    """The layer's own build steps."""
    spec = importlib.util.spec_from_file_location("layer_build", ROOT / "layers" / "dependencies" / "build.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(ROOT / "layers")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _required() -> list[str]:
    text = (ROOT / "layers" / "dependencies" / "requirements.txt").read_text()
    return re.findall(r"(?m)^([\w.-]+)==", text)


def _copied(packages: tuple[str, ...] | list[str], target: Path) -> None:
    """Installed distributions without bytecode; nothing is downloaded."""
    target.mkdir(parents=True)
    for package in packages:
        for file in metadata.files(package) or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)
