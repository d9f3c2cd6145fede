"""DynamoDB in memory: what the product asks of a client, with the capacity that AWS would charge for it.

Emulators are too slow for 100,000 items and make up their ConsumedCapacity, so this computes it from item sizes by the
published rules. That its answers are right is what `tests/bench/test_store.py` shows, against moto.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from bench.expressions import Wire, condition, key_condition, updated

PAGE = 1024 * 1024


# Sizes and units


def value_size(wire: Wire) -> int:
    """Bytes of a value by DynamoDB's rules; numbers take a byte for two digits and one more."""
    ((kind, value),) = wire.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            return _number_size(value)
        case "B":
            return len(value)
        case "BOOL" | "NULL":
            return 1
        case "SS":
            return sum(len(one.encode()) for one in value)
        case "NS":
            return sum(map(_number_size, value))
        case "L":
            return 3 + sum(1 + value_size(one) for one in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + value_size(one) for name, one in value.items())
    raise ValueError(f"no size for {kind}")


def _number_size(text: str) -> int:
    digits = text.lstrip("-").replace(".", "").lstrip("0").rstrip("0") if "e" not in text.lower() else text
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")


def item_size(item: Wire) -> int:
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def read_units(size: int, *, consistent: bool) -> float:
    return max(1, -(-size // 4096)) * (1.0 if consistent else 0.5)


def write_units(size: int) -> int:
    return max(1, -(-size // 1024))


# Metering


@dataclass(frozen=True)
class Request:
    """One request: what it touched and what it cost. `read` counts evaluated and got items."""

    operation: str
    table: str
    index: str = ""
    read: int = 0
    reads: float = 0.0
    writes: float = 0.0
    split: dict[str, float] = field(default_factory=dict)  # write units by what was written


@dataclass
class Meter:
    requests: list[Request] = field(default_factory=list)

    @property
    def reads(self) -> float:
        return sum(request.reads for request in self.requests)

    @property
    def writes(self) -> float:
        return sum(request.writes for request in self.requests)

    @property
    def read(self) -> int:
        return sum(request.read for request in self.requests)


# Tables


class _Sorted:
    """The entries of one hash key in the order of the range key."""

    def __init__(self) -> None:
        self.ranges: list[Any] = []
        self.items: dict[Any, Wire] = {}

    def put(self, place: Any, item: Wire) -> None:
        if place not in self.items:
            if not self.ranges or place > self.ranges[-1]:
                self.ranges.append(place)
            else:
                insort(self.ranges, place)
        self.items[place] = item

    def drop(self, place: Any) -> None:
        if self.items.pop(place, None) is not None:
            del self.ranges[bisect_left(self.ranges, place)]


class _Index:
    """The table itself (`name` is empty) or one of its indexes."""

    def __init__(self, name: str, keys: list[str], base: list[str], projection: dict[str, Any]) -> None:
        self.name = name
        self.hash, self.range = keys
        self.base = base
        kept = projection.get("NonKeyAttributes", []) if projection["ProjectionType"] != "ALL" else None
        self.kept = None if kept is None else {*keys, *base, *kept}
        self.lists: dict[str, _Sorted] = defaultdict(_Sorted)

    def entry(self, item: Wire | None) -> Wire | None:
        if item is None or self.hash not in item or self.range not in item:
            return None
        return item if self.kept is None else {name: value for name, value in item.items() if name in self.kept}

    def place(self, entry: Wire) -> Any:
        """Ties of an index's range key are ordered by the table's own key."""
        own = _bare(entry[self.range])
        return own if not self.name else (own, *(_bare(entry[name]) for name in self.base))

    def own(self, place: Any) -> Any:
        """The range key alone."""
        return place[0] if self.name else place


def _bare(wire: Wire) -> Any:
    ((kind, value),) = wire.items()
    return int(value) if kind == "N" else value


class _Table:
    def __init__(self, properties: dict[str, Any]) -> None:
        base = _keys(properties)
        self.primary = _Index("", base, base, {"ProjectionType": "ALL"})
        self.indexes = {
            given["IndexName"]: _Index(given["IndexName"], _keys(given), base, given["Projection"])
            for given in properties.get("GlobalSecondaryIndexes", [])
        }

    def get(self, key: Wire) -> Wire | None:
        found = self.primary.lists.get(_bare(key[self.primary.hash]))
        return found.items.get(_bare(key[self.primary.range])) if found else None

    def put(self, new: Wire) -> dict[str, float]:
        return self._change(self.get(new), new)

    def drop(self, key: Wire) -> dict[str, float]:
        return self._change(self.get(key), None)

    def _change(self, old: Wire | None, new: Wire | None) -> dict[str, float]:
        """Write units: of the table by the larger of before and after, of an index by its entries that change."""
        units: dict[str, float] = {"": write_units(max(item_size(old or {}), item_size(new or {})))}
        self._swap(self.primary, old, new)
        for index in self.indexes.values():
            before, after = index.entry(old), index.entry(new)
            if before == after:
                continue
            moved = (
                before
                and after
                and (before[index.hash], before[index.range]) != (after[index.hash], after[index.range])
            )
            if moved:
                units[index.name] = write_units(item_size(before or {})) + write_units(item_size(after or {}))
            else:
                units[index.name] = write_units(max(item_size(before or {}), item_size(after or {})))
            self._swap(index, before, after)
        return units

    @staticmethod
    def _swap(index: _Index, before: Wire | None, after: Wire | None) -> None:
        if before is not None and (
            after is None or before[index.hash] != after[index.hash] or index.place(before) != index.place(after)
        ):
            index.lists[_bare(before[index.hash])].drop(index.place(before))
        if after is not None:
            index.lists[_bare(after[index.hash])].put(index.place(after), after)


def _keys(properties: dict[str, Any]) -> list[str]:
    return [key["AttributeName"] for key in sorted(properties["KeySchema"], key=lambda key: key["KeyType"])]


class Store:
    """The part of botocore's DynamoDB client that the product uses; values in wire form, as there."""

    def __init__(self, tables: dict[str, dict[str, Any]]) -> None:
        self._tables = {name: _Table(properties) for name, properties in tables.items()}
        self._meter: Meter | None = None
        self._lock = threading.RLock()

    @contextmanager
    def metered(self) -> Iterator[Meter]:
        """What is asked inside the block is in the meter."""
        outer, self._meter = self._meter, Meter()
        try:
            yield self._meter
        finally:
            self._meter = outer

    def items(self, table: str) -> Iterator[Wire]:
        for found in self._tables[table].primary.lists.values():
            yield from found.items.values()

    def _note(self, request: Request) -> None:
        if self._meter is not None:
            self._meter.requests.append(request)

    # Reads

    def get_item(self, *, TableName: str, Key: Wire, ConsistentRead: bool = False) -> Wire:  # noqa: N803 - AWS's names
        item = self._tables[TableName].get(Key)
        units = read_units(item_size(item or {}), consistent=ConsistentRead)
        self._note(Request("GetItem", TableName, read=int(item is not None), reads=units))
        return {"Item": item} if item is not None else {}

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> Wire:  # noqa: N803
        answer: dict[str, list[Wire]] = {}
        for name, asked in RequestItems.items():
            found = [self._tables[name].get(key) for key in asked["Keys"]]
            if len(found) > 100:
                raise ValueError("more than 100 keys")
            consistent = asked.get("ConsistentRead", False)
            units = sum(read_units(item_size(item or {}), consistent=consistent) for item in found)
            answer[name] = [item for item in found if item is not None]
            self._note(Request("BatchGetItem", name, read=len(answer[name]), reads=units))
        return {"Responses": answer, "UnprocessedKeys": {}}

    def query(self, *, TableName: str, KeyConditionExpression: str, **asked: Any) -> Wire:  # noqa: N803
        unknown = set(asked) - {
            *("ExpressionAttributeValues", "ExpressionAttributeNames", "IndexName", "ScanIndexForward", "Limit"),
            *("ExclusiveStartKey", "ConsistentRead", "Select"),
        }
        if unknown:
            raise ValueError(f"query does not know {unknown}")
        table = self._tables[TableName]
        index = table.indexes[asked["IndexName"]] if "IndexName" in asked else table.primary
        attribute, value, operation, bounds = key_condition(KeyConditionExpression)
        values = asked["ExpressionAttributeValues"]
        if attribute != index.hash:
            raise ValueError(f"{attribute} is not the hash key of {index.name or TableName}")
        places, entries = self._chosen(index, _bare(values[value]), operation, [_bare(values[one]) for one in bounds])
        if not asked.get("ScanIndexForward", True):
            places.reverse()
        if "ExclusiveStartKey" in asked:
            after = index.place(asked["ExclusiveStartKey"])
            ahead = asked.get("ScanIndexForward", True)
            places = [place for place in places if (place > after if ahead else place < after)]
        items: list[Wire] = []
        size, limit, cut = 0, asked.get("Limit", len(places) + 1), False
        for place in places:
            items.append(entries[place])
            size += item_size(entries[place])
            if len(items) == limit or size >= PAGE:
                cut = True  # as on AWS, also when nothing comes after
                break
        units = read_units(size, consistent=asked.get("ConsistentRead", False))
        self._note(Request("Query", TableName, index.name, read=len(items), reads=units))
        answer: Wire = {"Count": len(items), "ScannedCount": len(items)}
        if asked.get("Select") != "COUNT":
            answer["Items"] = items
        if cut:
            last = items[-1]
            answer["LastEvaluatedKey"] = {name: last[name] for name in (*index.base, index.hash, index.range)}
        return answer

    @staticmethod
    def _chosen(index: _Index, key: Any, operation: str, bounds: list[Any]) -> tuple[list[Any], dict[Any, Wire]]:
        found = index.lists.get(key)
        if found is None:
            return [], {}
        ranges = found.ranges
        if operation == "between":
            low, high = bounds
            start, stop = bisect_left(ranges, low, key=index.own), bisect_right(ranges, high, key=index.own)
            return ranges[start:stop], found.items
        if operation == "begins_with":
            return [place for place in ranges if index.own(place).startswith(bounds[0])], found.items
        return list(ranges), found.items

    # Writes

    def put_item(self, **request: Any) -> Wire:
        return self._one("PutItem", "Put", request)

    def update_item(self, **request: Any) -> Wire:
        return self._one("UpdateItem", "Update", request)

    def delete_item(self, **request: Any) -> Wire:
        return self._one("DeleteItem", "Delete", request)

    def _one(self, operation: str, verb: str, request: dict[str, Any]) -> Wire:
        with self._lock:
            table = self._tables[request["TableName"]]
            old = table.get(request.get("Key") or request["Item"])
            if not _holds(request, old):
                units = float(write_units(item_size(old or {})))
                self._note(Request(operation, request["TableName"], writes=units, split={"refused": units}))
                raise _refused(operation, request, old)
            new = _after(verb, request, old)
            split = table.put(new) if new is not None else table.drop(request["Key"])
        split = {f"{request['TableName']} {index}".strip(): units for index, units in split.items()}
        self._note(Request(operation, request["TableName"], writes=sum(split.values()), split=split))
        return {"Attributes": new} if request.get("ReturnValues") == "ALL_NEW" else {}

    def transact_write_items(self, *, TransactItems: list[Wire], ClientRequestToken: str = "") -> Wire:  # noqa: N803, ARG002
        with self._lock:
            held = []
            for action in TransactItems:
                ((verb, request),) = action.items()
                old = self._tables[request["TableName"]].get(request.get("Key") or request["Item"])
                held.append((verb, request, old, _holds(request, old)))
            if len({(r["TableName"], str(_key_of(self._tables[r["TableName"]], r))) for _, r, *_ in held}) < len(held):
                raise ValueError("two actions on one item")
            if not all(holds for *_, holds in held):
                units = sum(2.0 * write_units(item_size(old or {})) for _, _, old, _ in held)
                self._note(Request("TransactWriteItems", "", writes=units, split={"refused": units}))
                raise _cancelled(held)
            split: dict[str, float] = defaultdict(float)
            for verb, request, old, _ in held:
                table, new = self._tables[request["TableName"]], _after(verb, request, old)
                if verb == "ConditionCheck":
                    split[request["TableName"]] += 2 * write_units(item_size(old or {}))
                    continue
                for index, units in (table.put(new) if new is not None else table.drop(request["Key"])).items():
                    # The table's own part of a transaction is written twice, its indexes follow once.
                    split[f"{request['TableName']} {index}".strip()] += units if index else 2 * units
        self._note(Request("TransactWriteItems", "", writes=sum(split.values()), split=dict(split)))
        return {}


def _key_of(table: _Table, request: dict[str, Any]) -> tuple[Any, Any]:
    key = request.get("Key") or request["Item"]
    return _bare(key[table.primary.hash]), _bare(key[table.primary.range])


def _scope(request: dict[str, Any]) -> tuple[dict[str, str], dict[str, Wire]]:
    return request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})


def _holds(request: dict[str, Any], old: Wire | None) -> bool:
    text = request.get("ConditionExpression")
    return text is None or condition(text)(old or {}, _scope(request))


def _after(verb: str, request: dict[str, Any], old: Wire | None) -> Wire | None:
    match verb:
        case "Put":
            return dict(request["Item"])
        case "Update":
            return updated(
                request["UpdateExpression"], old if old is not None else dict(request["Key"]), _scope(request)
            )
    return old if verb == "ConditionCheck" else None


def _refused(operation: str, request: dict[str, Any], old: Wire | None) -> ClientError:
    answer: dict[str, Any] = {
        "Error": {"Code": "ConditionalCheckFailedException", "Message": "The conditional request failed"}
    }
    if old is not None and request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
        answer["Item"] = old
    return ClientError(answer, operation)  # type: ignore[arg-type]


def _cancelled(held: list[tuple[str, dict[str, Any], Wire | None, bool]]) -> ClientError:
    reasons: list[dict[str, Any]] = []
    for _, request, old, holds in held:
        reason: dict[str, Any] = {"Code": "None" if holds else "ConditionalCheckFailed"}
        if not holds and old is not None and request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
            reason["Item"] = old
        reasons.append(reason)
    answer = {"Error": {"Code": "TransactionCanceledException", "Message": "cancelled"}, "CancellationReasons": reasons}
    return ClientError(answer, "TransactWriteItems")  # type: ignore[arg-type]
