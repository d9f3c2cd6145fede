"""Fills the layer of third-party packages: installs them, cuts away what an import need not load, compiles bytecode.

    python build.py ARTIFACTS_DIR

Runs on the Python whose bytecode is wanted, with nothing but the standard library. Settings come from the environment:

FIXLOOP_ARCHITECTURE   arm64 or x86_64 for Lambda; empty or `host` for this machine (the local AWS)
FIXLOOP_UV             the uv to install with; pip is used when it is missing or fails
FIXLOOP_LAYER_CACHE    a folder for finished layers; the same requirements are not built twice
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
PRECOMPILE = HERE / "precompile.py"

# The services we call, by the name of their folder in botocore. The DynamoDB model, which every function loads, is
# cut to the operations on items as well; None keeps all operations.
DATA_PLANE = frozenset(
    {
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "GetItem",
        "PutItem",
        "Query",
        "TransactGetItems",
        "TransactWriteItems",
        "UpdateItem",
    }
)
SERVICES: dict[str, frozenset[str] | None] = {
    "bedrock-runtime": None,
    "dynamodb": DATA_PLANE,
    "events": None,
    "s3": None,
    "secretsmanager": None,
    "sqs": None,
    "stepfunctions": None,
}
# The same services by the name that endpoints.json knows them by.
ENDPOINT_PREFIXES = frozenset({"bedrock-runtime", "dynamodb", "events", "s3", "secretsmanager", "sqs", "states"})
WHOLE_FILES = frozenset({"_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json"})
KEPT_MODELS = ("endpoint-rule-set-1", "paginators-1", "paginators-1.sdk-extras", "service-2", "service-2.sdk-extras")
# Packages that only gather names from their modules. What they gather is loaded when it is asked for: Powertools'
# router would bring everything for AppSync, Bedrock and asyncio along, and a class for each of AWS's events.
GATHERING = (
    "aws_lambda_powertools",
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/event_handler/openapi",
    "aws_lambda_powertools/utilities/data_classes",
)
# In place of modules that take long to import and have nothing to do here: botocore would write the documentation of
# each method from the model's prose, which is cut; pydantic would look for plugins in the metadata of every package,
# and urllib3 for a package that speaks HTTP/2.
NO_DOCUMENTATION = '''"""Methods of clients have no documentation here."""


class ClientMethodDocstring(str):
    def __new__(cls, *_, **__):
        return super().__new__(cls)


PaginatorDocstring = WaiterDocstring = ClientMethodDocstring
'''
NO_PLUGINS = '''"""There are no plugins here."""


def get_plugins():
    return ()
'''
REPLACED = {
    "botocore/docs/__init__.py": NO_DOCUMENTATION,
    "botocore/docs/docstring.py": NO_DOCUMENTATION,
    "pydantic/plugin/_loader.py": NO_PLUGINS,
    "urllib3/http2/__init__.py": '"""There is no HTTP/2 here."""\n',
}
GATHERED_LATER = """

_LATER = {later}


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    import importlib

    module, attribute = _LATER[name]
    value = globals()[name] = getattr(importlib.import_module(module, __name__), attribute)
    return value
"""
LINUX = {"arm64": "aarch64", "x86_64": "x86_64"}
INSTALLERS_NOTES = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json")


def main() -> None:
    target = Path(sys.argv[1]) / "python"
    cache = os.environ.get("FIXLOOP_LAYER_CACHE")
    if not cache:
        build(target)
        return
    finished = Path(cache) / cache_key()
    if not finished.is_dir():
        finished.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=finished.parent) as scratch:
            fresh = Path(scratch) / "python"
            build(fresh)
            if not finished.is_dir():  # another build may have been quicker
                fresh.replace(finished)
    shutil.copytree(finished, target, dirs_exist_ok=True)


def cache_key() -> str:
    """Everything that decides what the layer holds."""
    seen = hashlib.sha256(REQUIREMENTS.read_bytes() + Path(__file__).read_bytes() + PRECOMPILE.read_bytes())
    seen.update(f"{sys.version}|{architecture() or sys.platform}".encode())
    return seen.hexdigest()[:24]


def architecture() -> str:
    wanted = os.environ.get("FIXLOOP_ARCHITECTURE", "")
    return "" if wanted == "host" else wanted


def build(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    install(target, architecture())
    make_lean(target)
    if architecture():
        with tempfile.TemporaryDirectory() as scratch:  # the same packages, for the machine that builds
            install(Path(scratch), "")
            make_lean(Path(scratch))
            precompile(Path(scratch), target)
    else:
        precompile(target, target)


def make_lean(target: Path) -> None:
    """Everything but what needs the packages to be imported."""
    tidy(target)
    cut_botocore(target / "botocore" / "data")
    for module, text in REPLACED.items():
        if not (target / module).is_file():
            raise SystemExit(f"there is no {module} to replace: mend REPLACED in {__file__}")
        (target / module).write_text(text)
    for package in GATHERING:
        gather_later(target / package / "__init__.py")
    compile_bytecode(target)


def install(target: Path, machine: str) -> None:
    wanted = ["--require-hashes", "--no-deps", "-r", str(REQUIREMENTS), "--target", str(target)]
    uv = os.environ.get("FIXLOOP_UV") or shutil.which("uv")
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--link-mode", "copy"]
        if subprocess.run([*command, *uv_platform(machine), *wanted]).returncode == 0:
            return
        sys.stderr.write("uv failed, trying pip\n")
    pip = os.environ.get("FIXLOOP_PIP_PYTHON") or sys.executable
    command = [pip, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*command, *pip_platform(machine), *wanted], check=True)


def uv_platform(machine: str) -> list[str]:
    if not machine:
        return []
    return [
        "--only-binary",
        ":all:",
        "--python-version",
        python_version(),
        "--python-platform",
        f"{LINUX[machine]}-manylinux2014",
    ]


def pip_platform(machine: str) -> list[str]:
    wanted = ["--only-binary", ":all:", "--python-version", python_version()]
    return [*wanted, "--platform", f"manylinux2014_{LINUX[machine]}"] if machine else wanted


def python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def tidy(target: Path) -> None:
    """Away with what an import never needs; licences and versions stay in the .dist-info folders."""
    for folder in ("bin", "__pycache__"):
        shutil.rmtree(target / folder, ignore_errors=True)
    for note in INSTALLERS_NOTES:
        for file in target.glob(f"*.dist-info/{note}"):
            file.unlink()
    for leftover in (".lock", ".gitignore"):
        (target / leftover).unlink(missing_ok=True)
    for stub in target.rglob("*.pyi"):
        stub.unlink()


def cut_botocore(data: Path) -> None:
    """Keep the models of our services and the files all services share.

    With only these, finding a service lists seven folders instead of more than four hundred, and loading the
    DynamoDB model reads a twentieth of it. Every region and partition keeps working.
    """
    for entry in data.iterdir():
        if entry.is_dir() and entry.name not in SERVICES:
            shutil.rmtree(entry)
        elif entry.is_file() and model_name(entry) + ".json" not in WHOLE_FILES:
            entry.unlink()
    for entry in data.iterdir():
        if entry.is_file():
            write_plain(entry, read_model(entry))
    cut_endpoints(data / "endpoints.json")
    for service, operations in SERVICES.items():
        *older, newest = sorted((data / service).iterdir())
        for version in older:
            shutil.rmtree(version)
        cut_service(newest, operations)


def cut_service(version: Path, operations: frozenset[str] | None) -> None:
    for file in version.iterdir():
        name = model_name(file)
        if name not in KEPT_MODELS:
            file.unlink()
            continue
        model = read_model(file)
        if name == "service-2":
            model = without_documentation(model)
            if operations is not None:
                model = only_operations(model, operations)
        elif name == "paginators-1" and operations is not None:
            model["pagination"] = {key: page for key, page in model["pagination"].items() if key in operations}
        write_plain(file, model)


def model_name(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".json")


def read_model(file: Path) -> Any:
    content = file.read_bytes()
    return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)


def write_plain(file: Path, model: Any) -> None:
    """Not compressed: unpacking costs more at start than reading, and the layer's own archive is compressed anyway."""
    plain = file.with_name(model_name(file) + ".json")
    plain.write_text(json.dumps(model, separators=(",", ":")))
    if plain != file:
        file.unlink()


def without_documentation(model: Any) -> Any:
    """The model without its prose, but for what is said of a client's parameters: botocore insists on that."""
    if isinstance(model, dict):
        return {
            key: value if key == "clientContextParams" else without_documentation(value)
            for key, value in model.items()
            if not (key == "documentation" and isinstance(value, str))
        }
    if isinstance(model, list):
        return [without_documentation(value) for value in model]
    return model


def only_operations(model: dict[str, Any], operations: frozenset[str]) -> dict[str, Any]:
    """The model with these operations and the shapes they reach."""
    missing = operations - set(model["operations"])
    if missing:
        raise SystemExit(f"this botocore knows no {', '.join(sorted(missing))}: mend SERVICES in {__file__}")
    kept = {name: operation for name, operation in model["operations"].items() if name in operations}
    return {**model, "operations": kept, "shapes": reachable_shapes(model["shapes"], kept)}


def reachable_shapes(shapes: dict[str, Any], roots: Any) -> dict[str, Any]:
    waiting = shapes_named_in(roots)
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting |= shapes_named_in(shapes[name])
    return {name: shape for name, shape in shapes.items() if name in reached}


def shapes_named_in(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*(shapes_named_in(value) for value in part))
    if not isinstance(part, dict):
        return set()
    named = {part["shape"]} if isinstance(part.get("shape"), str) else set()
    return named.union(*(shapes_named_in(value) for value in part.values()))


def cut_endpoints(file: Path) -> None:
    endpoints = json.loads(file.read_text())
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in services if name in ENDPOINT_PREFIXES}
    write_plain(file, endpoints)


def gather_later(package: Path) -> None:
    """Names that a package takes from its modules and does not use itself are loaded when they are first asked for.

    A name that is also its module's stays as it is: whoever imports the module first would put that in its place.
    """
    tree = ast.parse(package.read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    later: dict[str, tuple[str, str]] = {}
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("aws_lambda_powertools.")
        ):
            module = "." * node.level + (node.module or "")
            moved = [name for name in node.names if not {name.name, name.asname} & {*used, module.rpartition(".")[2]}]
            later |= {name.asname or name.name: (module, name.name) for name in moved}
            node.names = [name for name in node.names if name not in moved]
            if not node.names:
                continue
        kept.append(node)
    tree.body = kept
    package.write_text(ast.unparse(tree) + GATHERED_LATER.format(later=later))


def precompile(packages: Path, target: Path) -> None:
    """What Python compiles from text when it imports `packages`, into `target`, beside the bytecode."""
    file = target / f"compiled.{sys.implementation.cache_tag}"
    command = [sys.executable, "-S", "-B", str(PRECOMPILE), str(packages), str(file)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")})


def compile_bytecode(target: Path) -> None:
    """With unchecked hashes: Lambda unpacks files with other times, so bytecode checked by time would be stale.

    The hash seed is fixed by running in a process of its own: otherwise the order of sets in the bytecode, and with
    it the layer's hash, differs from build to build and every deployment uploads it anew.
    """
    code = (
        "import compileall, py_compile, sys; "
        "sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, workers=0, "
        "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"
    )
    subprocess.run([sys.executable, "-c", code, "."], check=True, cwd=target, env={**os.environ, "PYTHONHASHSEED": "0"})


if __name__ == "__main__":
    main()
