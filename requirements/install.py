"""Makes a virtual environment from a compiled requirements file, and does nothing when it is already so.

    python requirements/install.py ENVIRONMENT REQUIREMENTS [--project DIRECTORY]

Only the standard library is used, because this is what runs first on a fresh machine. Packages are checked against
their hashes. The installer is uv, itself installed by pip into `.venv`; where uv fails, pip does it more slowly.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST = (3, 11)
STAMP = ".fixloop-stamp"


class SetupFailed(Exception):
    """What went wrong and what to do about it, for a person to read."""


def main() -> int:
    arguments = read_arguments()
    try:
        check_python()
        install(arguments.environment.resolve(), arguments.requirements.resolve(), arguments.project)
    except SetupFailed as failure:
        print(f"\nsetup: {failure}", file=sys.stderr)
        return 1
    return 0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a virtual environment from a compiled requirements file.")
    parser.add_argument("environment", type=Path)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--project", type=Path, help="also install the project in this folder, editable")
    return parser.parse_args()


def check_python() -> None:
    if sys.version_info < OLDEST:
        raise SetupFailed(
            f"Python {sys.version_info.major}.{sys.version_info.minor} is too old, 3.11 or newer is needed. "
            "Name another one: make setup PYTHON=python3.13"
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise SetupFailed(
            "this Python cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv"
        ) from None


def stamp_of(requirements: Path, project: Path | None) -> str:
    """Changes when the environment must be brought up to date, and only then."""
    files = [requirements, HERE / "uv.txt", Path(__file__).resolve()]
    if project is not None:
        files.append(project / "pyproject.toml")
    seen = hashlib.sha256(f"{sys.version}\n{sys.base_prefix}\n".encode())
    for file in files:
        seen.update(hashlib.sha256(file.read_bytes()).digest())
    return seen.hexdigest()


def install(environment: Path, requirements: Path, project: Path | None) -> None:
    project = project.resolve() if project else None
    stamp_file = environment / STAMP
    stamp = stamp_of(requirements, project)
    if stamp_file.is_file() and stamp_file.read_text() == stamp:
        return
    with locked(environment):
        if stamp_file.is_file() and stamp_file.read_text() == stamp:
            return
        stamp_file.unlink(missing_ok=True)
        say(f"{environment.name}: installing {requirements.name} for Python {sys.version.split()[0]}")
        python = make_environment(environment)
        install_packages(python, requirements)
        if project is not None:
            say(f"{environment.name}: installing the project itself, editable")
            install_project(python, project)
        stamp_file.write_text(stamp)
        say(f"{environment.name}: ready")


class locked:  # noqa: N801 - used as a function
    """Keeps two setups at the same time (two terminals, parallel make) from writing into one environment."""

    def __init__(self, environment: Path) -> None:
        environment.parent.mkdir(parents=True, exist_ok=True)
        self.path = environment.with_name(environment.name + ".lock")

    def __enter__(self) -> None:
        import fcntl

        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        self.file.close()


def make_environment(environment: Path) -> Path:
    """A virtual environment of this Python; one left by another version is made anew."""
    python = environment / "bin" / "python"
    if not python.exists() or version_of(python) != sys.version:
        try:
            venv.create(environment, clear=True, symlinks=True, with_pip=environment.name == ".venv")
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupFailed(f"{environment} could not be made ({error}). Is the disk full, or read-only?") from error
    return python


def version_of(python: Path) -> str:
    answer = subprocess.run([python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
    return answer.stdout.rstrip("\n")


def install_packages(python: Path, requirements: Path) -> None:
    wanted = ["--require-hashes", "-r", str(requirements)]
    uv = uv_beside(python)
    if uv and run([uv, "pip", "install", "--python", python, "--quiet", *wanted]):
        return
    say("uv did not manage it, so pip does; this takes a few minutes")
    if not run([*pip_for(python), "install", "--quiet", *wanted]):
        raise SetupFailed(
            f"the packages of {requirements} could not be installed; the lines above say why. "
            "Most often the package index is out of reach: set PIP_INDEX_URL or PIP_PROXY as your network needs, "
            "then run make setup again (it goes on where it stopped)."
        )


def install_project(python: Path, project: Path) -> None:
    wanted = ["--no-deps", "--no-build-isolation", "--editable", str(project)]
    uv = uv_beside(python)
    if uv and run([uv, "pip", "install", "--python", python, "--quiet", *wanted]):
        return
    if not run([*pip_for(python), "install", "--quiet", *wanted]):
        raise SetupFailed(f"the project in {project} could not be installed; the lines above say why.")


def uv_beside(python: Path) -> Path | None:
    """The uv of `.venv`, installed there by pip when missing; None when it cannot be had."""
    home = python.parents[1].with_name(".venv")
    uv = home / "bin" / "uv"
    if not uv.exists() and (home / "bin" / "python").exists():
        run([home / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", HERE / "uv.txt"])
    return uv if uv.exists() else None


def pip_for(python: Path) -> list[str | Path]:
    """pip, run from `.venv` (the other environments have none of their own)."""
    return [python.parents[1].with_name(".venv") / "bin" / "python", "-m", "pip", "--python", python]


def run(command: list[str | Path]) -> bool:
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_PROGRESS": "1", "UV_LINK_MODE": "copy"}
    return subprocess.run(command, env={**os.environ, **quiet}).returncode == 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
