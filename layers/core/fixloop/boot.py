"""Imported first by every function: while its modules load, nothing is collected, or compiled that is compiled already.

The layer of third-party packages has, beside their bytecode, what Python would still compile from text when they are
imported and first used: dataclasses, annotations in quotes, regular expressions. It is taken from there; what is not
there, and everything where there is no such layer, is compiled as ever.
"""

import gc

gc.disable()

import builtins  # noqa: E402
import dataclasses  # noqa: E402
import marshal  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
import typing  # noqa: E402
from typing import Any  # noqa: E402


def _hand_out(texts: dict[tuple[str, str], Any], patterns: dict[tuple[str | bytes, int], Any]) -> None:
    """Lets the standard library look into what `layers/dependencies/precompile.py` kept before it compiles."""

    def execute(text: str, *scopes: Any) -> None:
        builtins.exec(texts.get(("exec", text), text), *scopes)  # noqa: S102 - as dataclasses does, whose text it is

    def compiled(text: str, name: str, mode: str, *flags: Any, **options: Any) -> Any:
        known = None if flags or options else texts.get((mode, text))
        return known or builtins.compile(text, name, mode, *flags, **options)

    compiler = re._compiler  # type: ignore[attr-defined]
    plain, engine = compiler.compile, compiler._sre

    def pattern(given: Any, flags: int = 0) -> Any:
        known = patterns.get((given, int(flags))) if isinstance(given, str | bytes) else None
        return engine.compile(given, *known) if known else plain(given, flags)

    vars(dataclasses)["exec"] = execute
    vars(typing)["compile"] = compiled
    compiler.compile = pattern


def _start() -> None:
    name = f"compiled.{sys.implementation.cache_tag}"
    for folder in sys.path:  # as any module of the layer would be found
        try:
            with open(f"{folder}/{name}", "rb") as kept:  # noqa: PTH123 - before pathlib is there
                content = kept.read()
        except OSError:
            continue
        _hand_out(*marshal.loads(content))  # noqa: S302  # nosec B302  # from the layer, like all bytecode
        return


def done() -> None:
    """Called on the last line of a function's module."""
    gc.freeze()
    gc.enable()


_start()

import pydantic  # noqa: E402

pydantic.BaseModel.model_config["defer_build"] = True  # a request needs few of a function's models
