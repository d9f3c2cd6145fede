"""The bench's in-memory DynamoDB: it answers as moto does, and counts units as DynamoDB's documentation says."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloud import Client, Cloud
from fixloop.aws import clients_from
from fixloop.storage import calls, issue_reports

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.store import Store, item_size, read_units, value_size, write_units
from bench.world import empty
from bench.writes import call

from bench import store as bench_store

NOW = 1_790_000_000_000


class Twin:
    """A client that asks moto and the store the same, and holds their answers against each other."""

    def __init__(self, moto: Any, store: Store) -> None:
        self.moto, self.store, self.asked = moto, store, 0

    def __getattr__(self, operation: str) -> Any:
        def ask(**request: Any) -> Any:
            self.asked += 1
            answers = [_outcome(getattr(client, operation), request) for client in (self.moto, self.store)]
            theirs, ours = (_comparable(operation, answer) for answer in answers)
            assert ours == theirs, (operation, request)
            if isinstance(answers[0], ClientError):
                raise answers[0]
            return answers[0]

        return ask


def _outcome(ask: Any, request: dict[str, Any]) -> Any:
    try:
        return ask(**request)
    except ClientError as error:
        return error


def _comparable(operation: str, answer: Any) -> Any:
    if isinstance(answer, ClientError):
        reasons = answer.response.get("CancellationReasons", [])
        return (
            answer.response["Error"]["Code"],
            answer.response.get("Item"),
            [(reason["Code"], reason.get("Item")) for reason in reasons],
        )
    # Where a limit is reached at the very end, AWS and the store say that there may be more; moto knows there is not.
    left_out = ("ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics", "UnprocessedKeys", "LastEvaluatedKey")
    content = {name: value for name, value in answer.items() if name not in left_out}
    if operation == "batch_get_item":
        return {table: sorted(map(_sets, items), key=str) for table, items in content["Responses"].items()}
    return _sets(content)


def _sets(value: Any) -> Any:
    """Sets in one order, numbers in one form."""
    if isinstance(value, dict):
        for kind in ("SS", "NS"):
            if set(value) == {kind}:
                return {kind: sorted(value[kind])}
        return {name: _sets(part) for name, part in sorted(value.items())}
    return [_sets(part) for part in value] if isinstance(value, list) else value


@pytest.fixture
def twins(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Twin]:
    twin = Twin(cloud.client("dynamodb"), empty())
    others = {service: cloud.client(service) for service in ("s3", "events")}
    for lists in (calls.lists, issue_reports.lists):
        monkeypatch.setattr(lists, "_known", set())
        monkeypatch.setattr(lists, "chunk", 8)
    with clients_from(lambda service: twin if service == "dynamodb" else others[service]):
        yield twin


def test_the_store_answers_as_moto_does_to_all_that_the_product_asks(cloud: Cloud, twins: Twin) -> None:
    chance = random.Random(3)
    caller: Client = cloud.caller()
    given = call()
    for number in range(1, 40):
        changed = {
            "agent_id": chance.choice((11, 12, None)),
            "direction": chance.choice(("inbound", "outbound", "web")),
            "status": chance.choice(("completed", "failed")),
            "is_test_call": chance.random() < 0.1,
        }
        assert caller.put(f"/v1/calls/{number}", given | changed).status == 201
        report = {"title": "t", "severity": chance.choice(("info", "critical"))}
        made = caller.post(f"/v1/calls/{chance.randrange(1, number + 1)}/issue-reports", report)
        assert made.status == 201
        if chance.random() < 0.4:
            status = {"status": chance.choice(("acknowledged", "resolved"))}
            assert caller.patch(f"/v1/issue-reports/{made.json()['trace_id']}", status).status == 200
        if chance.random() < 0.2:
            assert caller.put(f"/v1/calls/{number}", given | {"agent_id": changed["agent_id"]}).status == 200
        if number % 8 == 0:
            calls.lists.seal(caller.org, NOW * 2)
            issue_reports.lists.seal(caller.org, NOW * 2)
    assert caller.post("/v1/calls", given).status == 201
    assert caller.post("/v1/calls/1/grade").status == 201
    assert caller.get("/v1/calls/999999").status == 404
    for path in ("/v1/issue-reports", "/v1/calls"):
        for query in ({}, {"status": "open"}, {"agent_id": "11"}, {"offset": "20"}, {"start_date": "2026-09-20"}):
            if path != "/v1/calls" or query.get("status") != "open":
                assert caller.get(path, limit=10, **query).status == 200
    assert caller.get("/v1/calls", from_number="+15550001111").json()["total"] == 40
    assert twins.asked > 500


def test_sizes_follow_the_documentation() -> None:
    assert value_size({"S": "grün"}) == 5
    assert [value_size({"N": text}) for text in ("7", "12", "123", "-123", "1000", "1790000000000")] == [
        2,
        2,
        3,
        4,
        2,
        3,
    ]
    assert value_size({"BOOL": True}) == value_size({"NULL": True}) == 1
    assert value_size({"L": [{"S": "ab"}]}) == 3 + 1 + 2
    assert value_size({"M": {"k": {"S": "ab"}}}) == 3 + 1 + 1 + 2
    assert item_size({"pk": {"S": "abc"}, "ns": {"NS": ["1", "22"]}}) == 2 + 3 + 2 + 2 + 2


@pytest.mark.parametrize(("size", "units"), [(0, 1), (1, 1), (4096, 1), (4097, 2), (8192, 2)])
def test_reads_are_counted_in_steps_of_4_kb_and_cost_half_when_eventual(size: int, units: int) -> None:
    assert read_units(size, consistent=True) == units
    assert read_units(size, consistent=False) == units / 2


@pytest.mark.parametrize(("size", "units"), [(0, 1), (1024, 1), (1025, 2)])
def test_writes_are_counted_in_steps_of_1_kb(size: int, units: int) -> None:
    assert write_units(size) == units


TABLE = {
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by_leaf",
            "KeySchema": [{"AttributeName": "lf", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["t"]},
        }
    ],
}


def row(n: int, leaf: str = "x", size: int = 10, **more: Any) -> dict[str, Any]:
    key = {"pk": {"S": f"row{n}"}, "sk": {"S": "row"}}
    return {**key, "n": {"N": str(n)}, "lf": {"S": leaf}, "doc": {"S": "d" * size}, **more}


@pytest.fixture
def rows() -> Store:
    return Store({"rows": TABLE})


def cost(rows: Store, ask: Any, **request: Any) -> bench_store.Meter:
    with rows.metered() as meter:
        ask(**request)
    return meter


def test_a_new_row_costs_itself_and_each_index_entry(rows: Store) -> None:
    assert cost(rows, rows.put_item, TableName="rows", Item=row(1, size=1500)).writes == 2 + 1


def test_an_update_costs_the_whole_item_and_only_the_entries_that_change(rows: Store) -> None:
    rows.put_item(TableName="rows", Item=row(1, size=1500))
    key = {"pk": {"S": "row1"}, "sk": {"S": "row"}}

    def update(name: str, value: dict[str, str]) -> float:
        expression = {"UpdateExpression": "SET #a = :a", "ExpressionAttributeNames": {"#a": name}}
        values = {":a": value}
        return cost(
            rows, rows.update_item, TableName="rows", Key=key, ExpressionAttributeValues=values, **expression
        ).writes

    assert update("other", {"S": "o"}) == 2
    assert update("t", {"N": "5"}) == 2 + 1
    assert update("lf", {"S": "y"}) == 2 + 2  # the entry goes from one key to another


def test_a_refused_write_costs_what_is_there_and_a_transaction_twice_its_items(rows: Store) -> None:
    rows.put_item(TableName="rows", Item=row(1, size=2500))
    with rows.metered() as meter, pytest.raises(ClientError):
        rows.put_item(TableName="rows", Item=row(1), ConditionExpression="attribute_not_exists(pk)")
    assert meter.writes == 3
    put = [{"Put": {"TableName": "rows", "Item": row(n)}} for n in (2, 3)]
    assert cost(rows, rows.transact_write_items, TransactItems=put).writes == 2 * (2 + 1)


def test_a_query_adds_up_its_entries_before_it_rounds_and_a_batch_rounds_each(rows: Store) -> None:
    for n in range(1, 11):
        rows.put_item(TableName="rows", Item=row(n, size=500))
    values = {":hash": {"S": "x"}, ":low": {"N": "1"}, ":high": {"N": "10"}}
    condition = "lf = :hash AND n BETWEEN :low AND :high"
    asked = {"IndexName": "by_leaf", "KeyConditionExpression": condition, "ExpressionAttributeValues": values}
    meter = cost(rows, rows.query, TableName="rows", **asked)
    assert (meter.read, meter.reads) == (10, 0.5)
    assert cost(rows, rows.query, TableName="rows", Select="COUNT", Limit=3, **asked).read == 3
    nothing = {**asked, "ExpressionAttributeValues": {**values, ":hash": {"S": "none"}}}
    assert cost(rows, rows.query, TableName="rows", **nothing).reads == 0.5
    keys = [{"pk": {"S": f"row{n}"}, "sk": {"S": "row"}} for n in range(1, 11)]
    asked = {"rows": {"Keys": keys}}
    assert cost(rows, rows.batch_get_item, RequestItems=asked).reads == 5


def test_pages_end_at_their_limit_and_go_on_after_it(rows: Store) -> None:
    for n in range(1, 6):
        rows.put_item(TableName="rows", Item=row(n))
    values = {":hash": {"S": "x"}, ":low": {"N": "1"}, ":high": {"N": "9"}}
    condition = "lf = :hash AND n BETWEEN :low AND :high"
    asked = {"IndexName": "by_leaf", "KeyConditionExpression": condition, "ExpressionAttributeValues": values}
    first = rows.query(TableName="rows", ScanIndexForward=False, Limit=3, **asked)
    rest = rows.query(TableName="rows", ScanIndexForward=False, ExclusiveStartKey=first["LastEvaluatedKey"], **asked)
    assert [item["n"]["N"] for item in first["Items"] + rest["Items"]] == ["5", "4", "3", "2", "1"]
    assert "doc" not in first["Items"][0]
