"""What is said to a model as data, and answers that have to be JSON: between them nothing is taken on trust."""

from __future__ import annotations

import json
import secrets
from typing import Any


def quoted(content: Any) -> str:
    """Data as JSON in ASCII that cannot hold the mark, nor any other, behind which it ends."""
    return json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")


def marked(data: str, nonce: str) -> str:
    """Data between marks that its author could not know."""
    return f"<data {nonce}>\n{data}\n</data {nonce}>"


def read(text: str) -> Any:
    """The JSON that an answer is, in a fence or not; no key twice, no NaN. Raises ValueError and RecursionError."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        stripped = stripped.split("\n", 1)[1].removesuffix("```").strip()
    return json.loads(stripped, object_pairs_hook=_once, parse_constant=_never)


def repeats(given: str, nonce: str) -> bool:
    """Whether an answer names the question it was asked."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), nonce.encode())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _never(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
