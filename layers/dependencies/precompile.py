"""Imports and uses the layer's packages as our functions do, and keeps what Python compiles from text on the way.

    python -S precompile.py PACKAGES FILE

Bytecode spares compiling files. But dataclasses, annotations in quotes and regular expressions are compiled from text
whenever they are met: a quarter of what an import costs. FILE gets the outcome, for `fixloop.boot` to hand out: two
dicts, from (mode, text) to code and from (pattern, flags) to what `_sre.compile` takes. It is good for Pythons of this
minor version, on any machine; what is not in it is compiled as ever.
"""

from __future__ import annotations

import builtins
import dataclasses
import io
import marshal
import os
import re
import sys
import typing
from pathlib import Path
from types import CodeType
from typing import Any

texts: dict[tuple[str, str], CodeType] = {}
patterns: dict[tuple[str | bytes, int], tuple[Any, ...]] = {}


def recorded_exec(text: str, *scopes: Any) -> None:
    code = texts.setdefault(("exec", text), builtins.compile(text, "<string>", "exec", dont_inherit=True))
    builtins.exec(code, *scopes)  # noqa: S102 - as dataclasses does, whose text it is


def recorded_compile(text: str, name: str, mode: str, *flags: Any, **options: Any) -> CodeType:
    code: CodeType = builtins.compile(text, name, mode, *flags, dont_inherit=True, **options)
    if not flags and not options:
        texts[mode, text] = code
    return code


class RecordedSre:
    """The engine of regular expressions; every pattern that it is asked for is kept."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def compile(self, pattern: Any, flags: int, code: list[int], groups: int, index: Any, names: Any) -> Any:
        if isinstance(pattern, str | bytes):
            self.last = (int(flags), [int(step) for step in code], int(groups), dict(index), tuple(names))
        return self._engine.compile(pattern, flags, code, groups, index, names)


def record() -> None:
    vars(dataclasses)["exec"] = recorded_exec
    vars(typing)["compile"] = recorded_compile
    compiler = re._compiler  # type: ignore[attr-defined]
    plain, engine = compiler.compile, RecordedSre(compiler._sre)
    compiler._sre = engine

    def recorded_pattern(pattern: Any, flags: int = 0) -> Any:
        made = plain(pattern, flags)
        if isinstance(pattern, str | bytes):
            patterns[pattern, int(flags)] = engine.last
        return made

    compiler.compile = recorded_pattern


def first_request() -> None:
    """Without a network: the router, a model, the logger, and a client that asks DynamoDB."""
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "nobody")
    os.environ |= {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "POWERTOOLS_SERVICE_NAME": "precompile",
        "POWERTOOLS_METRICS_NAMESPACE": "precompile",
    }
    import concurrent.futures.thread  # noqa: F401 - for what it compiles
    import urllib.parse  # noqa: F401

    import botocore.session
    import orjson  # noqa: F401
    from aws_lambda_powertools import Logger, Metrics
    from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
    from botocore.awsrequest import AWSResponse
    from botocore.config import Config
    from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

    class Given(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: typing.Annotated[str, StringConstraints(max_length=9)] = "n"
        many: typing.Annotated[int, Field(ge=1)] = 1

        @field_validator("many")
        @classmethod
        def _same(cls, value: int) -> int:
            return value

        @model_validator(mode="before")
        @classmethod
        def _whole(cls, value: Any) -> Any:
            return value

    Metrics()
    logger = Logger(stream=io.StringIO())
    client = botocore.session.get_session().create_client(
        "dynamodb", config=Config(retries={"mode": "standard", "total_max_attempts": 3})
    )
    answer = AWSResponse("http://nowhere.invalid/", 200, {}, None)
    answer._content = b"{}"
    client.meta.events.register("before-send.dynamodb", lambda **_: answer)
    resolver = APIGatewayHttpResolver()

    @resolver.get("/things/<name>")
    def thing(name: str) -> Response[str]:
        client.get_item(TableName="t", Key={"pk": {"S": Given(name=name).name}})
        logger.info("done", extra={"name_": name})
        return Response(200, body=name)

    request = {"http": {"method": "GET", "path": "/things/a"}, "requestId": "r", "stage": "$default"}
    event = {"version": "2.0", "rawPath": "/things/a", "headers": {}, "requestContext": request}
    told = resolver.resolve(event, None)
    if told["statusCode"] != 200:
        raise SystemExit(f"the first request ended with {told}")


def main() -> None:
    packages, file = sys.argv[1:]
    sys.path.insert(0, packages)
    record()
    first_request()
    Path(file).write_bytes(marshal.dumps((texts, patterns)))


if __name__ == "__main__":
    main()
