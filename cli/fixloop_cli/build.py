"""Builds and deploys template.yaml with the SAM CLI: the same two commands for the local AWS and for AWS."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]

# The runtime on AWS when a Python of that version is at hand, because bytecode must be compiled by the same version.
PREFERRED_VERSION = "3.13"
SUPPORTED_VERSIONS = ("3.11", "3.12", "3.13", "3.14")
CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND")


class Failed(Exception):
    """Something a person has to act on; the text says what to do."""


@dataclass(frozen=True)
class Runtime:
    """What the functions will run on, and the interpreter of that version which compiles them."""

    python: Path
    version: str
    architecture: str
    local: bool = False

    @property
    def parameters(self) -> dict[str, str]:
        return {"PythonRuntime": f"python{self.version}", "Architecture": self.architecture}


def host_runtime() -> Runtime:
    """This machine's own Python and processor, for the local AWS."""
    architecture = "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"
    return Runtime(Path(sys.executable), host_version(), architecture, local=True)


def aws_runtime(architecture: str, say: Say) -> Runtime:
    """The preferred version where its interpreter can be run, else the host's."""
    found = shutil.which(f"python{PREFERRED_VERSION}")
    if host_version() != PREFERRED_VERSION and found and answers(Path(found), PREFERRED_VERSION):
        return Runtime(Path(found), PREFERRED_VERSION, architecture)
    if host_version() != PREFERRED_VERSION:
        say(
            f"No python{PREFERRED_VERSION} on the PATH to compile bytecode with: building for python{host_version()}, "
            "this environment's own version"
        )
    if host_version() not in SUPPORTED_VERSIONS:
        raise Failed(
            f"Lambda runs Python {SUPPORTED_VERSIONS[0]} to {SUPPORTED_VERSIONS[-1]}, this is {host_version()}. "
            f"Put a python{PREFERRED_VERSION} on the PATH and run make build again."
        )
    return Runtime(Path(sys.executable), host_version(), architecture)


def host_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def answers(python: Path, version: str) -> bool:
    """Whether this is a working interpreter of that version, and not a shim that only says where one is."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return answer.returncode == 0 and answer.stdout.strip() == version


def build(root: Path, target: Path, runtime: Runtime, *, environment: Mapping[str, str], log: Path) -> None:
    """Fill `target` with the processed template and everything it deploys, bytecode included."""
    beside = Path(sys.prefix) / "bin"
    sam(
        [
            "build",
            "--template-file",
            str(root / "template.yaml"),
            "--build-dir",
            str(target),
            "--parallel",
            "--parameter-overrides",
            *overrides(runtime.parameters),
        ],
        root=root,
        environment={
            **environment,
            "FIXLOOP_PYTHON": str(runtime.python),
            "FIXLOOP_UV": str(beside / "uv") if (beside / "uv").exists() else "",
            "FIXLOOP_PIP_PYTHON": str(beside / "python"),
            "FIXLOOP_ARCHITECTURE": "host" if runtime.local else runtime.architecture,
            "FIXLOOP_LAYER_CACHE": str(root / ".cache" / "layers"),
        },
        log=log,
        failed="The build failed",
    )


def deploy(
    target: Path,
    stack_name: str,
    parameters: Mapping[str, str],
    *,
    arguments: list[str],
    environment: Mapping[str, str],
    log: Path | None,
) -> None:
    """Bring the stack to what was built. With `log` the output goes there, without it to the terminal."""
    sam(
        [
            "deploy",
            "--template-file",
            str(target / "template.yaml"),
            "--stack-name",
            stack_name,
            "--capabilities",
            *CAPABILITIES,
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--no-progressbar",
            *arguments,
            "--parameter-overrides",
            *overrides(parameters),
        ],
        root=target,
        environment=environment,
        log=log,
        failed="The deployment failed",
    )


def overrides(parameters: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def sam(arguments: list[str], *, root: Path, environment: Mapping[str, str], log: Path | None, failed: str) -> None:
    command = [str(sam_executable()), *arguments]
    quiet = {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_BETA_FEATURES": "0", "PYTHONWARNINGS": "ignore"}
    if log is None:
        if subprocess.run(command, cwd=root, env={**environment, **quiet}).returncode:
            raise Failed(f"{failed}; the lines above say why.")
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        code = subprocess.run(command, cwd=root, env={**environment, **quiet}, stdout=output, stderr=output).returncode
    if code:
        raise Failed(f"{failed}. The end of {log}:\n\n{last_lines(log, 25)}")


def sam_executable() -> Path:
    """The SAM CLI, which has an environment of its own beside ours."""
    beside = Path(sys.prefix).with_name(".venv-sam") / "bin" / "sam"
    found = beside if beside.exists() else Path(shutil.which("sam") or "")
    if not found.is_file():
        raise Failed("The SAM CLI is not installed. Run: make setup")
    return found


def last_lines(file: Path, count: int) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-count:])


def callers_environment() -> dict[str, str]:
    """For AWS: the caller's own credentials, region and profile."""
    return dict(os.environ)
