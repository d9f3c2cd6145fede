"""The local AWS: starts MiniStack, deploys the template to it, and stops it without losing anything.

Everything it writes lies in one directory (`.local` by default), so that two checkouts, or a checkout and its tests,
run beside each other. Nothing listens on another address than 127.0.0.1, and the caller's AWS settings are not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import botocore.session
from botocore.config import Config

from fixloop_cli import build
from fixloop_cli.build import Failed, Say

DEFAULT_DIRECTORY = ".local"
FIRST_PORT = 4566
PORTS_TRIED = 200
REGION = "us-east-1"
STACK_NAME = "fixloop"
ARTIFACTS_BUCKET = "fixloop-artifacts"
# What the local stack is deployed with beside the host's runtime.
PARAMETERS = {"Stage": "local", "DeletionProtection": "false"}
START_SECONDS = 60.0
STOP_SECONDS = 60.0

# MiniStack takes these for the account's root, whatever their secret; the functions get their own roles' credentials.
ROOT_KEY = "test"
CREDENTIALS = {"aws_access_key_id": ROOT_KEY, "aws_secret_access_key": ROOT_KEY}
# What functions or installers may need of the caller's environment. Anything else, AWS settings above all, stays out.
PASSED_ON = (
    "FIXLOOP_DRAIN_SECONDS",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
)
PASSED_ON_TO_INSTALLERS = ("PIP_", "UV_", "REQUESTS_CA_BUNDLE")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")

# What a deployment is made from; a change in any of it means another one.
DEPLOYED_FROM = ("template.yaml", "functions", "layers", "statemachines")
NOT_DEPLOYED = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")


@dataclass(frozen=True)
class Stack:
    """A running local stack. `stack.json` in its directory holds the same, readable by its owner only."""

    url: str
    api_key: str
    org_id: str
    endpoint_url: str
    region: str
    stack_name: str
    outputs: dict[str, str]
    directory: Path
    pid: int
    port: int
    deployed: str

    def client(self, service: str) -> Any:
        return client(service, self.endpoint_url, self.region)


def up(
    root: Path, directory: Path | None = None, *, say: Say = lambda _: None, parameters: Mapping[str, str] | None = None
) -> Stack:
    """Start the local AWS, deploy what changed, and make sure there is an organisation with an admin key.

    Doing it twice is quick and changes nothing. Raises `Failed` with what to do.
    """
    root = root.resolve()
    directory = (directory or root / DEFAULT_DIRECTORY).resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_one(directory):
        runtime = build.host_runtime()
        wanted = {**runtime.parameters, **PARAMETERS, **(parameters or {})}
        digest = digest_of(root, wanted)
        before = read(directory)
        pid, port, started = start(directory, before.port if before else FIRST_PORT, say)
        if before and not started and before.deployed == digest and before.api_key and before.port == port:
            return before
        endpoint_url = f"http://127.0.0.1:{port}"
        if not (before and before.deployed == digest and stack_exists(endpoint_url)):
            deploy(root, directory, endpoint_url, runtime, wanted, say)
        return describe(directory, pid, port, digest, before, say)


def down(directory: Path) -> bool:
    """Stop the local AWS when everything under way has finished, and keep its state. False when none was running."""
    pid = running(directory)[0]
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: running(directory)[0] is None, STOP_SECONDS):
        raise Failed(
            f"The local AWS (process {pid}) did not stop within {STOP_SECONDS:.0f} s. Its log is "
            f"{log_file(directory)}. To end it and lose what it has not saved: kill -9 {pid}"
        )
    return True


def read(directory: Path) -> Stack | None:
    """The stack that was last brought up in this directory, running or not."""
    try:
        kept = json.loads((directory / "stack.json").read_text())
        return Stack(**{**kept, "directory": directory})
    except (FileNotFoundError, ValueError, TypeError):
        return None


def find_directory(start: Path) -> Path | None:
    """The directory of the local stack: FIXLOOP_DIRECTORY, or the nearest `.local` from here upwards."""
    named = os.environ.get("FIXLOOP_DIRECTORY")
    if named:
        return Path(named).resolve()
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / DEFAULT_DIRECTORY / "stack.json").is_file():
            return folder / DEFAULT_DIRECTORY
    return None


def find_root(start: Path) -> Path:
    """The project: the nearest folder from here upwards with the template in it."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "template.yaml").is_file() and (folder / "layers").is_dir():
            return folder
    raise Failed("There is no template.yaml here or above. Run this in the folder of the fixloop project.")


def client(service: str, endpoint_url: str, region: str = REGION) -> Any:
    """A botocore client of the local AWS, with an administrator's rights and none of the caller's own settings."""
    session = botocore.session.Session()
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    session.set_config_variable("profile", None)
    retries = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5)
    return session.create_client(service, region, endpoint_url=endpoint_url, config=retries, **CREDENTIALS)


# --- the process ------------------------------------------------------------------------------------------------------


def start(directory: Path, port: int, say: Say) -> tuple[int, int, bool]:
    """The process and port of the local AWS in this directory, and whether it had to be started."""
    pid, its_port = running(directory)
    if pid is not None and its_port is not None:
        if wait_until(lambda: healthy(its_port), START_SECONDS):
            return pid, its_port, False
        raise Failed(
            f"The local AWS (process {pid}) runs but does not answer. Its log is {log_file(directory)}. "
            f"End it with: kill -9 {pid}, and run this again."
        )
    say("Starting the local AWS")
    port, reservation = reserved_port(port)
    log_file(directory).parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / "tmp", ignore_errors=True)  # what a crash may have left
    for folder in ("state", "s3", "tmp"):
        (directory / folder).mkdir(exist_ok=True)
    with log_file(directory).open("a") as log, reservation:
        process = subprocess.Popen(
            [sys.executable, "-m", "fixloop_cli.emulator", str(directory), str(port), str(reservation.fileno())],
            cwd=directory,
            env=emulator_environment(directory, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[reservation.fileno()],  # the port stays reserved for as long as the process lives
        )
    ready = wait_until(lambda: process.poll() is not None or healthy(port), START_SECONDS)
    if not ready or process.poll() is not None:
        process.kill()
        raise Failed(
            f"The local AWS did not start. The end of {log_file(directory)}:\n\n"
            f"{build.last_lines(log_file(directory), 25)}\n\nIf its saved state is broken, start anew: "
            f"rm -r {directory}"
        )
    return process.pid, port, True


def running(directory: Path) -> tuple[int | None, int | None]:
    """Process id and port of the local AWS in this directory. It holds a lock while it lives, so this is no guess."""
    try:
        lock = (directory / "emulator.lock").open()
    except FileNotFoundError:
        return None, None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                held = json.loads(lock.read())
                return held["pid"], held["port"]
            except ValueError:
                return None, None
    return None, None


def emulator_environment(directory: Path, port: int) -> dict[str, str]:
    proxies = {name: os.environ[name] for name in PROXIES if name in os.environ}
    return {
        **callers(PASSED_ON),
        **proxies,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": "unix:///nowhere/no-docker.sock",
        "AUTH": "true",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(directory / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(directory / "s3"),
        "TMPDIR": str(directory / "tmp"),
        "MINISTACK_REGION": REGION,
        "LOG_LEVEL": os.environ.get("FIXLOOP_EMULATOR_LOG_LEVEL", "WARNING"),
        "LAMBDA_EXECUTOR": "local",
        **no_settings(directory),
    }


def no_settings(directory: Path) -> dict[str, str]:
    """Keeps the caller's AWS profile, credentials and region out."""
    return {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "__SAM_CLI_APP_DIR": str(directory / "sam"),
    }


def callers(names: tuple[str, ...], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name in names or (prefixes and name.startswith(prefixes))
    }


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def reserved_port(wanted: int) -> tuple[int, IO[str]]:
    """The wanted port, or the first free one after it, and an open file that keeps other checkouts' stacks off it."""
    folder = Path(tempfile.gettempdir()) / f"fixloop-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in range(wanted, wanted + PORTS_TRIED):
        reservation = (folder / str(port)).open("w")
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port, reservation
        reservation.close()
    raise Failed(
        f"No free port between {wanted} and {wanted + PORTS_TRIED} on 127.0.0.1. Stop something and try again."
    )


def log_file(directory: Path) -> Path:
    return directory / "logs" / "emulator.log"


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """One `up` at a time in a directory; the second waits and finds everything done."""
    with (directory / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- the deployment ---------------------------------------------------------------------------------------------------


def deploy(
    root: Path,
    directory: Path,
    endpoint_url: str,
    runtime: build.Runtime,
    parameters: Mapping[str, str],
    say: Say,
) -> None:
    environment = {
        **callers(PASSED_ON, PASSED_ON_TO_INSTALLERS),
        **{name: os.environ[name] for name in PROXIES if name in os.environ},
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **no_settings(directory),
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "SAM_CLI_POLL_DELAY": "0.2",
    }
    say("Building functions and layers")
    build.build(root, directory / "build", runtime, environment=environment, log=directory / "logs" / "build.log")
    say("Deploying template.yaml")
    make_artifacts_bucket(endpoint_url)
    forget_failed_stack(endpoint_url)
    build.deploy(
        directory / "build",
        STACK_NAME,
        parameters,
        arguments=["--s3-bucket", ARTIFACTS_BUCKET],
        environment=environment,
        log=directory / "logs" / "deploy.log",
    )
    pid = running(directory)[0]
    if pid is not None:
        os.kill(pid, signal.SIGUSR1)  # save the state: a crash from now on needs no other deployment


def digest_of(root: Path, parameters: Mapping[str, str]) -> str:
    """Changes when there is something to deploy."""
    seen = hashlib.sha256(json.dumps([parameters, sys.version, platform.machine()], sort_keys=True).encode())
    for name in DEPLOYED_FROM:
        for file in sorted(files_in(root / name)):
            seen.update(f"{file.relative_to(root)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return seen.hexdigest()


def files_in(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for entry in path.iterdir():
            if entry.name not in NOT_DEPLOYED and not entry.name.endswith(".egg-info"):
                yield from files_in(entry)


def make_artifacts_bucket(endpoint_url: str) -> None:
    s3 = client("s3", endpoint_url)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        s3.create_bucket(Bucket=ARTIFACTS_BUCKET)


def stack_status(endpoint_url: str) -> str:
    cloudformation = client("cloudformation", endpoint_url)
    try:
        return str(cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]["StackStatus"])
    except cloudformation.exceptions.ClientError:
        return ""


def stack_exists(endpoint_url: str) -> bool:
    return stack_status(endpoint_url) in {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}


def forget_failed_stack(endpoint_url: str) -> None:
    """A stack whose first deployment failed cannot be updated; nothing is in it yet."""
    if stack_status(endpoint_url) in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"}:
        cloudformation = client("cloudformation", endpoint_url)
        cloudformation.delete_stack(StackName=STACK_NAME)
        wait_until(lambda: stack_status(endpoint_url) in {"", "DELETE_COMPLETE"}, 30)


def describe(directory: Path, pid: int, port: int, digest: str, before: Stack | None, say: Say) -> Stack:
    endpoint_url = f"http://127.0.0.1:{port}"
    cloudformation = client("cloudformation", endpoint_url)
    described = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    url = f"{endpoint_url}/_aws/execute-api/{api_id(cloudformation)}"
    outputs["ApiUrl"] = url
    org_id, api_key = admin(outputs, endpoint_url, before, say)
    stack = Stack(
        url=url,
        api_key=api_key,
        org_id=org_id,
        endpoint_url=endpoint_url,
        region=REGION,
        stack_name=STACK_NAME,
        outputs=outputs,
        directory=directory,
        pid=pid,
        port=port,
        deployed=digest,
    )
    write(stack)
    return stack


def api_id(cloudformation: Any) -> str:
    resources = cloudformation.describe_stack_resources(StackName=STACK_NAME)["StackResources"]
    for resource in resources:
        if resource["ResourceType"] == "AWS::ApiGatewayV2::Api":
            return str(resource["PhysicalResourceId"])
    raise Failed("The deployed template has no AWS::ApiGatewayV2::Api, so there is no address to call.")


def admin(outputs: dict[str, str], endpoint_url: str, before: Stack | None, say: Say) -> tuple[str, str]:
    """The organisation and key that the local stack is used with: the same ones for as long as the state is kept."""
    from fixloop_cli import manage  # which imports this module

    say("Making sure there is an organisation with an admin key")
    previous = (before.org_id, before.api_key) if before and before.api_key else None
    session = {"endpoint_url": endpoint_url, "region_name": REGION, **CREDENTIALS}
    org_id, api_key = manage.ensure_local_admin(outputs, session, previous=previous)
    return org_id, api_key


def write(stack: Stack) -> None:
    """Readable by the owner only: it holds a key."""
    file = stack.directory / "stack.json"
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        json.dump({**asdict(stack), "directory": str(stack.directory)}, output, indent=2)
        output.write("\n")
    fresh.replace(file)


def remove(directory: Path) -> None:
    """Stop the local AWS and delete everything it kept."""
    down(directory)
    shutil.rmtree(directory, ignore_errors=True)
