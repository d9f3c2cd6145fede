"""Bodies of any size: compressed, in the table while they fit an item, in the bucket when they do not."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fixloop.aws import client
from fixloop.settings import settings
from fixloop.storage import dynamo
from fixloop.storage.dynamo import Item

FITS = 300_000  # bytes; an item may have 400 KB with its names


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def store(table: str, pk: str, prefix: str, content: Any, **attributes: Any) -> str:
    """Writes `content` under a name made from its hash, before anything points at it, and returns that name."""
    name = f"{prefix}#{digest(content)}"
    packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
    item: Item = {"pk": pk, "sk": name, **attributes}
    if len(packed) <= FITS:
        item["gz"] = packed
    else:
        item["s3"] = f"{pk.replace('#', '/')}/{name.replace('#', '/')}/{secrets.token_hex(8)}.json.gz"
        client("s3").put_object(
            Bucket=settings().blobs_bucket, Key=item["s3"], Body=packed, ContentType="application/json"
        )
    dynamo.put(table, item)
    return name


def load(table: str, pk: str, name: str) -> Any:
    """What `store` was given. Raises LookupError when it is gone."""
    item = dynamo.get(table, {"pk": pk, "sk": name})
    if item is None:
        raise LookupError(f"{pk} has no {name}")
    return _content(item)


def load_all(table: str, pk: str, names: Sequence[str]) -> dict[str, Any]:
    """What `store` was given, by name, read together; without those that are gone."""
    found: dict[str, Any] = {}
    for item in dynamo.get_many(table, ({"pk": pk, "sk": name} for name in dict.fromkeys(names)), consistent=True):
        with suppress(LookupError):
            found[item["sk"]] = _content(item)
    return found


def _content(item: Item) -> Any:
    packed = item.get("gz")
    if packed is None:
        try:
            packed = client("s3").get_object(Bucket=settings().blobs_bucket, Key=item["s3"])["Body"].read()
        except client("s3").exceptions.NoSuchKey:
            raise LookupError(f"{item['s3']} is gone") from None
    return json.loads(gzip.decompress(packed))


def held(table: str, pk: str, name: str) -> Item | None:
    """What `discard` needs to know, to be asked for while something still points at the body."""
    return dynamo.get(table, {"pk": pk, "sk": name})


def discard(table: str, item: Item | None) -> None:
    """Removes a body nothing points at any more, unless the same content was stored anew since it was `held`."""
    if item is None:
        return
    try:
        dynamo.delete(table, {"pk": item["pk"], "sk": item["sk"]}, condition="w = :w", values={":w": item["w"]})
    except dynamo.ConditionFailed:
        return
    if "s3" in item:
        client("s3").delete_object(Bucket=settings().blobs_bucket, Key=item["s3"])
