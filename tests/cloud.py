"""The template played in moto: its tables, routes, streams and rules, with the functions in this process."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

import answers
import executions
from better_moto import forget_deliveries, taken_messages, taken_records

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT, REGION = "123456789012", "us-east-1"
_PSEUDO = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT}


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms as one-key dictionaries."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {("Ref" if tag == "Ref" else f"Fn::{tag}"): value}


_Loader.add_multi_constructor("!", _tagged)


def template() -> dict[str, Any]:
    """template.yaml as plain data."""
    loaded: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)
    return loaded


@dataclass
class Answer:
    """What the API said."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Failure:
    """An invocation that raised: what a dead-letter queue would get."""

    function: str
    event: dict[str, Any]
    error: BaseException


@dataclass
class Client:
    """A caller with a key."""

    cloud: Cloud
    key: str
    org: str = ""

    def __call__(self, method: str, path: str, json: Any = None, **options: Any) -> Answer:
        headers = {"authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return self.cloud.request(method, path, json=json, headers=headers, **options)

    def get(self, path: str, **query: Any) -> Answer:
        return self("GET", path + (f"?{urlencode(query, doseq=True)}" if query else ""))

    def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return self("POST", path, json, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> Answer:
        return self("PUT", path, json, **options)

    def patch(self, path: str, json: Any = None, **options: Any) -> Answer:
        return self("PATCH", path, json, **options)


@dataclass
class Cloud:
    """Use inside moto's mock_aws. Everything is made from the template; what a test renames there is missing here."""

    template: dict[str, Any] = field(default_factory=template)
    failures: list[Failure] = field(default_factory=list)
    _modules: dict[str, ModuleType] = field(default_factory=dict)
    _read: dict[str, str] = field(default_factory=dict)
    _machines: dict[str, str] = field(default_factory=dict)
    _queues: dict[str, str] = field(default_factory=dict)

    # Making it

    def build(self) -> Cloud:
        from fixloop import aws
        from fixloop.settings import settings

        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION=REGION)
        os.environ.update(AWS_DEFAULT_REGION=REGION, POWERTOOLS_METRICS_DISABLED="true")
        os.environ.pop("AWS_ENDPOINT_URL", None)
        os.environ.update(self.environment())
        for remembered in (aws.client, aws._session, settings):
            remembered.cache_clear()
        self._streams: list[str] = []
        for name, resource in self.template["Resources"].items():
            made: Callable[[str, dict[str, Any]], None] | None = {
                "AWS::DynamoDB::Table": self._table,
                "AWS::S3::Bucket": self._bucket,
                "AWS::Events::EventBus": self._bus,
            }.get(resource["Type"])
            if made:
                made(name, resource["Properties"])
        for name in self.functions():
            self._rules(name)
        for name, resource in self.template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::StateMachine":
                self._machine(name, resource["Properties"])
        return self

    def client(self, service: str) -> Any:
        from fixloop.aws import client

        return client(service)

    def resolve(self, value: Any) -> Any:
        """A property's value here: resources are called by their logical ids, parameters take their defaults."""
        match value:
            case {"Ref": name}:
                return _PSEUDO.get(name) or self.template["Parameters"].get(name, {}).get("Default", name)
            case {"Fn::GetAtt": path}:
                return path.partition(".")[0]
            case {"Fn::Sub": text}:
                return re.sub(r"\$\{([\w:]+)[^}]*\}", lambda found: str(self.resolve({"Ref": found[1]})), text)
            case {"Fn::If": [_, _, otherwise]}:
                return self.resolve(otherwise)
            case dict():
                return {key: self.resolve(element) for key, element in value.items()}
            case list():
                return [self.resolve(element) for element in value]
        return value

    def environment(self) -> dict[str, str]:
        variables = self.template["Globals"]["Function"]["Environment"]["Variables"]
        resolved = {name: str(self.resolve(value)) for name, value in variables.items()}
        resolved["BLOBS_BUCKET"] = resolved["BLOBS_BUCKET"].lower()
        return resolved

    def functions(self) -> dict[str, dict[str, Any]]:
        resources = self.template["Resources"]
        return {n: r["Properties"] for n, r in resources.items() if r["Type"] == "AWS::Serverless::Function"}

    def _table(self, name: str, properties: dict[str, Any]) -> None:
        wanted = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        request = {key: properties[key] for key in wanted if key in properties}
        if "StreamSpecification" in properties:
            request["StreamSpecification"] = {**properties["StreamSpecification"], "StreamEnabled": True}
        self.client("dynamodb").create_table(TableName=name, **self.resolve(request))
        if "StreamSpecification" in properties:
            self._streams.append(name)

    def _bucket(self, name: str, properties: dict[str, Any]) -> None:
        self.client("s3").create_bucket(Bucket=name.lower())

    def _bus(self, name: str, properties: dict[str, Any]) -> None:
        self.client("events").create_event_bus(Name=name)

    def _machine(self, name: str, properties: dict[str, Any]) -> None:
        """Its tasks are the functions' names where a deployed one has their ARNs."""
        definition = (ROOT / properties["DefinitionUri"]).read_text()
        definition = definition.replace('"ToleratedFailurePercentage": 100,', "")  # moto does not know it
        for placeholder, value in properties["DefinitionSubstitutions"].items():
            known = self.resolve(value)
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{known}" if known in self.functions() else known
            definition = definition.replace("${" + placeholder + "}", arn)
        role = f"arn:aws:iam::{ACCOUNT}:role/{name}"
        named = self.resolve(properties["Name"])
        self.client("stepfunctions").create_state_machine(name=named, definition=definition, roleArn=role)
        self._machines[f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{named}"] = name

    def _rules(self, function: str) -> None:
        for name, event in self.functions()[function].get("Events", {}).items():
            if event["Type"] != "EventBridgeRule" or "EventBusName" not in event["Properties"]:
                continue
            queue = f"{function}-{name}"
            self.client("sqs").create_queue(QueueName=queue)
            arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
            rule, bus = f"{function}{name}", self.resolve(event["Properties"]["EventBusName"])
            pattern = json.dumps(event["Properties"]["Pattern"])
            self.client("events").put_rule(Name=rule, EventBusName=bus, EventPattern=pattern)
            self.client("events").put_targets(Rule=rule, EventBusName=bus, Targets=[{"Id": "1", "Arn": arn}])
            self._queues[queue] = function

    # Calling it

    def module(self, function: str) -> ModuleType:
        """The function's app.py, loaded once for this cloud."""
        folder = self.functions()[function]["CodeUri"].rstrip("/")
        if folder not in self._modules:
            name = f"app_{uuid.uuid4().hex}"
            spec = importlib.util.spec_from_file_location(name, ROOT / folder / "app.py")
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            self._modules[folder] = module
        return self._modules[folder]

    def invoke(self, function: str, event: dict[str, Any]) -> Any:
        return self.module(function).handler(event, _Context(function))

    def route(self, method: str, path: str) -> tuple[str, str]:
        """The route key and the function that API Gateway would choose: the most specific match."""
        matching = (rank for verb, path_like, rank in self._routes if verb in ("ANY", method) and path_like(path))
        *_, key, function = max(matching)
        return key, function

    @cached_property
    def _routes(self) -> list[tuple[str, Callable[[str], Any], tuple[int, int, str, str]]]:
        """Method, a test of the path, and for each route its rank: how narrow it is, its key and its function."""
        found: list[tuple[str, Callable[[str], Any], tuple[int, int, str, str]]] = []
        for resource in self.template["Resources"].values():
            if resource["Type"] != "AWS::ApiGatewayV2::Route":
                continue
            key = resource["Properties"]["RouteKey"]
            integration = re.findall(r"\w+", resource["Properties"]["Target"]["Fn::Sub"])[-1]
            uri = self.template["Resources"][integration]["Properties"]["IntegrationUri"]
            function = uri["Fn::GetAtt"].partition(".")[0]
            if key == "$default":
                found.append(("ANY", lambda path: True, (0, 0, key, function)))
                continue
            verb, _, pattern = key.partition(" ")
            expression = re.sub(r"\{\w+\+\}", ".+", pattern)
            expression = re.sub(r"\{\w+\}", "[^/]+", expression)
            greedy = 1 if "+}" in pattern else 2
            found.append((verb, re.compile(expression).fullmatch, (greedy, pattern.count("/"), key, function)))
        return found

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        split = urlsplit(path)
        key, function = self.route(method, split.path)
        content = body if body is not None else (None if json is None else _dumps(json))
        event = {
            "version": "2.0",
            "routeKey": key,
            "rawPath": split.path,
            "rawQueryString": split.query,
            "headers": {"content-type": "application/json", **{k.lower(): v for k, v in (headers or {}).items()}},
            "requestContext": {
                "http": {"method": method, "path": split.path, "sourceIp": "127.0.0.1"},
                "requestId": uuid.uuid4().hex,
                "stage": "$default",
            },
            "body": content,
            "isBase64Encoded": False,
        }
        given = self.invoke(function, event)
        answer = Answer(given["statusCode"], dict(given.get("headers") or {}), given.get("body") or "")
        answers.check(method, split.path, answer)
        return answer

    # The asynchronous half

    def forget(self) -> None:
        """Nothing that happened so far is delivered, and nothing has failed: each test answers for itself alone."""
        forget_deliveries(ACCOUNT, REGION)
        self.failures.clear()

    def settle(self) -> None:
        """Delivers stream records and events until nothing more happens. What raises is in `failures`."""
        while self._pump_streams() + self._pump_rules() + self._pump_machines():
            pass

    def put_event(self, detail_type: str, detail: dict[str, Any], source: str = "fixloop") -> None:
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "EventBusName": "Bus"}
        self.client("events").put_events(Entries=[entry])

    def stream_records(self, table: str) -> list[dict[str, Any]]:
        """The records of a table's stream that nobody asked for before."""
        arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}/stream/now"
        return [{**record, "eventSourceARN": arn} for record in taken_records(ACCOUNT, REGION, table)]

    def _pump_streams(self) -> int:
        seen = 0
        for table in self._streams:
            records = self.stream_records(table)
            seen += len(records)
            for function, properties in self.functions().items():
                for event in properties.get("Events", {}).values():
                    settings = event["Properties"]
                    if event["Type"] == "DynamoDB" and self.resolve(settings["Stream"]) == table:
                        patterns = [json.loads(f["Pattern"]) for f in settings["FilterCriteria"]["Filters"]]
                        chosen = [r for r in records if any(matches(p, r) for p in patterns)]
                        for start in range(0, len(chosen), settings["BatchSize"]):
                            self._try(function, {"Records": chosen[start : start + settings["BatchSize"]]})
        return seen

    def _pump_rules(self) -> int:
        seen = 0
        for queue, function in self._queues.items():
            for body in taken_messages(ACCOUNT, REGION, queue):
                seen += 1
                self._try(function, json.loads(body))
        return seen

    def _pump_machines(self) -> int:
        """Waits for executions to end; those that did not succeed are told of as Step Functions tells."""
        seen = 0
        for arn in self._machines:
            if executions.started(ACCOUNT, REGION, arn) <= self._read.keys():
                continue
            for execution in executions.ended(self.client("stepfunctions"), arn):
                if execution["executionArn"] in self._read:
                    continue
                self._read[execution["executionArn"]] = execution["status"]
                seen += 1
                if execution["status"] != "SUCCEEDED":
                    self._execution_ended(execution)
        return seen

    def _execution_ended(self, execution: dict[str, Any]) -> None:
        known = self.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])
        wanted = ("executionArn", "stateMachineArn", "name", "status", "input", "error", "cause")
        detail = {key: known.get(key) for key in wanted}
        event = {"source": "aws.states", "detail-type": "Step Functions Execution Status Change", "detail": detail}
        for function, properties in self.functions().items():
            for rule in properties.get("Events", {}).values():
                if rule["Type"] == "EventBridgeRule" and "EventBusName" not in rule["Properties"]:
                    pattern = self.resolve(rule["Properties"]["Pattern"])
                    pattern["detail"]["stateMachineArn"] = list(self._machines)
                    if _listed(pattern, event):
                        self._try(function, event)

    def _try(self, function: str, event: dict[str, Any]) -> None:
        try:
            self.invoke(function, event)
        except Exception as error:
            self.failures.append(Failure(function, event, error))

    # Callers

    def org(self, name: str = "Aurora Labs") -> str:
        from fixloop.storage import platform

        return platform.create_org(name, 1_700_000_000_000)

    def caller(self, org: str | None = None, **options: Any) -> Client:
        """A client with a new key, in a new organisation unless one is given."""
        from fixloop.storage import platform

        org = org or self.org()
        secret, _ = platform.create_key(org, 1_700_000_000_000, **{"limit": 10**9, **options})
        return Client(self, secret, org)


@dataclass
class _Context:
    """As much of Lambda's context as Powertools looks at."""

    function_name: str
    memory_limit_in_mb: int = 1024
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:test"
    aws_request_id: str = "test"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


def _dumps(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _listed(pattern: Any, value: Any) -> bool:
    """Whether a rule's pattern (plain values only) lets an event through."""
    if isinstance(pattern, dict):
        return all(key in value and _listed(p, value[key]) for key, p in pattern.items())
    return value in pattern


def matches(pattern: Any, value: Any) -> bool:
    """Whether an event source mapping's filter pattern (plain values and prefixes only) lets `value` through."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(key in value and matches(p, value[key]) for key, p in pattern.items())
    return any(value.startswith(one["prefix"]) if isinstance(one, dict) else value == one for one in pattern)
