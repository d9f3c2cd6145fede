"""The layers as built: bytecode that is used, data that still serves every region, nothing that is not needed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "annotated_types",
    "aws_lambda_powertools",
    "botocore",
    "dateutil",
    "jmespath",
    "orjson",
    "pydantic",
    "pydantic_core",
    "six.py",
    "typing_extensions.py",
    "typing_inspection",
    "urllib3",
}


def make(folder: Path, target: str, artifacts: Path, scratch: Path) -> Path:
    """Run a build recipe as `sam build` does: in a copy of the folder, with ARTIFACTS_DIR set."""
    shutil.copytree(folder, scratch)
    artifacts.mkdir()
    uv = Path(sys.prefix) / "bin" / "uv"
    environment = {
        **os.environ,
        "ARTIFACTS_DIR": str(artifacts),
        "FIXLOOP_PYTHON": sys.executable,
        "FIXLOOP_UV": str(uv) if uv.exists() else "",
        "FIXLOOP_ARCHITECTURE": "host",
        "FIXLOOP_LAYER_CACHE": str(ROOT / ".cache" / "layers"),
    }
    makefile = folder / "Makefile" if (folder / "Makefile").exists() else folder.parent / "Makefile"
    subprocess.run(["make", "--makefile", makefile, target], cwd=scratch, env=environment, check=True)
    return artifacts


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("layers")
    return [
        make(ROOT / "layers" / name, f"build-{resource}", folder / name, folder / f"{name}-source") / "python"
        for name, resource in (("core", "CoreLayer"), ("dependencies", "DependenciesLayer"))
    ]


def run_in_lambda(layers: list[Path], code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code on an interpreter that sees the layers and the standard library only, as a function does."""
    base = getattr(sys, "_base_executable", sys.executable)
    return subprocess.run(
        [base, "-S", "-B", *options, "-c", f"import sys; sys.path[:0] = {[str(layer) for layer in layers]}\n{code}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"},
    )


def test_imports_come_from_the_bytecode_and_nothing_is_compiled(layers: list[Path]):
    imports = [f"fixloop.{path.stem}" for path in (layers[0] / "fixloop").glob("*.py") if path.stem != "__init__"]
    folder = str(layers[0].parent.parent)
    done = run_in_lambda(
        layers,
        "import aws_lambda_powertools.event_handler, botocore.session, pydantic, orjson\n"
        f"import {', '.join(sorted(imports))}\n",
        "-v",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [line.split("code object from ")[1] for line in done.stderr.splitlines() if "code object from " in line]
    ours = [name.strip("'") for name in loaded if folder in name]
    assert [name for name in ours if not name.endswith(".pyc")] == []
    assert len(ours) > 150


def test_what_the_packages_have_python_compile_when_imported_is_compiled_already(layers: list[Path]):
    done = run_in_lambda(
        layers,
        "import builtins, collections, dataclasses, json, re, typing\n"
        "plain, compiled = re._compiler.compile, collections.Counter()\n"
        "def counted(pattern, flags=0):\n"
        "    compiled['patterns'] += 1\n"
        "    return plain(pattern, flags)\n"
        "re._compiler.compile, compiler = counted, builtins.compile\n"
        "def counting(*given, **options):\n"
        "    compiled['texts'] += 1\n"
        "    return compiler(*given, **options)\n"
        "builtins.compile = counting\n"
        "from fixloop import boot\n"
        "import aws_lambda_powertools.event_handler.api_gateway, botocore.session, pydantic.main\n"
        "handed_out = [vars(dataclasses).get('exec'), vars(typing).get('compile')]\n"
        "soon = dict(compiled)\n"
        "boot.done()\n"
        "print(json.dumps({**soon, 'handed_out': all(handed_out), 'matched': bool(re.match('a(b)', 'ab'))}))",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["handed_out"]
    assert told["matched"]
    assert told.get("patterns", 0) <= 5
    assert told.get("texts", 0) <= 5


def test_what_is_compiled_ahead_does_what_its_text_says(layers: list[Path]):
    done = run_in_lambda(
        layers,
        "import importlib, marshal, re, _sre\n"
        f"kept = open({str(layers[1] / f'compiled.{sys.implementation.cache_tag}')!r}, 'rb').read()\n"
        "texts, patterns = marshal.loads(kept)\n"
        "assert len(texts) > 300 and len(patterns) > 80, (len(texts), len(patterns))\n"
        "for (mode, text), code in texts.items():\n"
        "    assert compile(text, '<string>', mode, dont_inherit=True) == code, text\n"
        "for (pattern, flags), made in patterns.items():\n"
        "    assert _sre.compile(pattern, *made) == re.compile(pattern, flags), pattern\n",
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_compiled_ahead_is_the_same_every_time(layers: list[Path], tmp_path: Path):
    file = tmp_path / "compiled"
    command = [sys.executable, "-S", "-B", ROOT / "layers" / "dependencies" / "precompile.py", layers[1], file]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "0", "PATH": os.environ["PATH"]})
    assert file.read_bytes() == (layers[1] / f"compiled.{sys.implementation.cache_tag}").read_bytes()


def test_a_function_without_what_is_compiled_ahead_works_all_the_same(layers: list[Path], tmp_path: Path):
    core = shutil.copytree(layers[0], tmp_path / "python")
    done = run_in_lambda(
        [core, layers[1]],
        "from fixloop import boot, calls\nboot.done()\nprint(calls.CallIn(agent_id=5).agent_id)",
    )
    assert done.stdout == "5\n", done.stderr[-2000:]


def test_packages_bring_along_only_what_is_asked_of_them(layers: list[Path]):
    done = run_in_lambda(
        layers,
        "import sys\n"
        "from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types\n"
        "import botocore.session\n"
        "unasked = ('asyncio', 'botocore.docs.method', 'importlib.metadata',"
        " 'aws_lambda_powertools.event_handler.appsync', 'aws_lambda_powertools.utilities.data_classes.kafka_event')\n"
        "print([name for name in unasked if name in sys.modules])\n"
        "import pydantic\n"
        "from aws_lambda_powertools import Logger, Metrics, Tracer, single_metric\n"
        "from aws_lambda_powertools.event_handler import *\n"
        "from aws_lambda_powertools.utilities.data_classes import *\n"
        "print(AppSyncResolver.__name__, BedrockAgentResolver.__name__, KafkaEvent.__name__, callable(event_source))\n"
        "try: from aws_lambda_powertools.event_handler import Nothing\n"
        "except ImportError as error: print(type(error).__name__)\n",
    )
    assert done.stdout.splitlines() == [
        "[]",
        "AppSyncResolver BedrockAgentResolver KafkaEvent True",
        "ImportError",
    ], done.stderr[-2000:]


def test_bytecode_is_kept_whatever_the_files_times_are(layers: list[Path]):
    for layer in layers:
        for file in layer.rglob("*.pyc"):
            flags = int.from_bytes(file.read_bytes()[4:8], "little")
            assert flags == 0b01, f"{file} is checked against its source"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "dynamodb.eu-west-1.amazonaws.com"),
        ("us-east-1", "dynamodb.us-east-1.amazonaws.com"),
        ("ap-south-2", "dynamodb.ap-south-2.amazonaws.com"),
        ("cn-north-1", "dynamodb.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "dynamodb.us-gov-west-1.amazonaws.com"),
    ],
)
def test_clients_can_be_made_in_every_partition(layers: list[Path], region: str, host: str):
    done = run_in_lambda(
        layers,
        "import botocore.session, json\n"
        "session = botocore.session.get_session()\n"
        "keys = dict(aws_access_key_id='a', aws_secret_access_key='b')\n"
        "names = ['bedrock-runtime', 'dynamodb', 'events', 's3', 'secretsmanager', 'sqs', 'stepfunctions']\n"
        f"clients = {{name: session.create_client(name, {region!r}, **keys) for name in names}}\n"
        "seen = {}\n"
        "def stop(request, **_):\n"
        "    seen['url'] = request.url\n"
        "    raise ZeroDivisionError\n"
        "client = clients['dynamodb']\n"
        "client.meta.events.register('before-send', stop)\n"
        "try: client.get_item(TableName='t', Key={'pk': {'S': 'x'}})\n"
        "except ZeroDivisionError: pass\n"
        "print(json.dumps({'url': seen['url'], 'table': client.exceptions.ConditionalCheckFailedException.__name__,"
        " 'operations': sorted(client.meta.method_to_api_mapping.values()),"
        " 'pages': client.can_paginate('query')}))",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["url"] == f"https://{host}/"
    assert told["table"] == "ConditionalCheckFailedException"
    assert told["pages"] is True
    assert told["operations"] == [
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "GetItem",
        "PutItem",
        "Query",
        "TransactGetItems",
        "TransactWriteItems",
        "UpdateItem",
    ]


def test_the_errors_of_the_cut_model_are_told_apart(layers: list[Path]):
    done = run_in_lambda(
        layers,
        "import botocore.session\n"
        "from botocore.awsrequest import AWSResponse\n"
        "client = botocore.session.get_session().create_client("
        "'dynamodb', 'eu-west-1', aws_access_key_id='a', aws_secret_access_key='b')\n"
        "class Raw:\n"
        "    def stream(self, *_, **__): yield body\n"
        'body = b\'{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",'
        '"CancellationReasons":[{"Code":"ConditionalCheckFailed"}],"message":"m"}\'\n'
        "client.meta.events.register('before-send', lambda **_: AWSResponse('u', 400, {}, Raw()))\n"
        "try: client.transact_write_items(TransactItems=[{'Put': {'TableName': 't', 'Item': {'pk': {'S': 'x'}}}}])\n"
        "except client.exceptions.TransactionCanceledException as error:\n"
        "    print(error.response['CancellationReasons'][0]['Code'])",
    )
    assert done.stdout == "ConditionalCheckFailed\n", done.stderr[-2000:]


def test_the_layer_holds_the_packages_asked_for_and_no_others(layers: list[Path]):
    core, dependencies = layers
    assert {path.name for path in core.iterdir()} == {"fixloop"}
    held = {path.name for path in dependencies.iterdir() if not path.name.endswith(".dist-info")} - {"__pycache__"}
    assert held == PACKAGES | {f"compiled.{sys.implementation.cache_tag}"}
    assert not [path for layer in layers for path in layer.rglob("tests") if path.is_dir()]
    assert len(list((dependencies / "botocore" / "data").iterdir())) == 11


def test_two_builds_are_the_same_to_the_byte(layers: list[Path], tmp_path: Path):
    again = make(ROOT / "layers" / "core", "build-CoreLayer", tmp_path / "core", tmp_path / "source") / "python"
    files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert files
    assert all((again / file).read_bytes() == (layers[0] / file).read_bytes() for file in files)


@pytest.mark.parametrize("folder", sorted((ROOT / "functions").glob("*/")), ids=lambda path: path.name)
def test_a_function_is_its_one_file_and_its_bytecode(folder: Path, tmp_path: Path):
    built = make(folder, "build-AnyFunction", tmp_path / "built", tmp_path / "source")
    version = "".join(platform.python_version_tuple()[:2])
    files = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert files == {"app.py", f"__pycache__/app.cpython-{version}.pyc"}
