"""The template and the code say the same: routes, environment, and what each function may touch."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cloud import ROOT, Cloud, template
from fixloop.http import Api
from fixloop.settings import Settings

TEMPLATE = template()
FUNCTIONS = {
    name: made["Properties"] for name, made in TEMPLATE["Resources"].items() if made["Type"].endswith("::Function")
}
TABLES = {name for name, made in TEMPLATE["Resources"].items() if made["Type"] == "AWS::DynamoDB::Table"}


def routes() -> dict[str, str]:
    """Route key → the function behind it."""
    resources, found = TEMPLATE["Resources"], {}
    for resource in resources.values():
        if resource["Type"] == "AWS::ApiGatewayV2::Route":
            integration = re.findall(r"\w+", resource["Properties"]["Target"]["Fn::Sub"])[-1]
            uri = resources[integration]["Properties"]["IntegrationUri"]
            found[resource["Properties"]["RouteKey"]] = uri["Fn::GetAtt"].partition(".")[0]
    return found


WITHOUT_A_NAME = (
    ":secret:fixloop/${Stage}/*",  # one secret per model endpoint, added while the stack runs
    "::foundation-model/*",  # whichever the organisations choose
    ":inference-profile/*",
    ":execution:fixloop-${Stage}-shadow-tests:*",
)


def statements(function: str) -> list[dict[str, Any]]:
    return [one for policy in FUNCTIONS[function].get("Policies", []) for one in policy["Statement"]]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def arn(resource: Any) -> str:
    """`Table` or `Table/index/*` from a resource's GetAtt or Sub."""
    text: str = resource.get("Ref") or resource.get("Fn::GetAtt") or resource["Fn::Sub"]
    return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text).removesuffix(".Arn")


def test_every_route_of_every_function_is_reached_through_the_template(cloud: Cloud) -> None:
    served = 0
    for name in FUNCTIONS:
        handler = cloud.module(name).handler
        if isinstance(handler, Api):
            for method, pattern in handler.routes():
                path = pattern.replace("[^/]+", "17")
                assert cloud.route(method, path)[1] == name, f"{method} {path}"
                served += 1
    assert served >= 14


def test_every_function_behind_a_route_serves_something_there(cloud: Cloud) -> None:
    for key, function in routes().items():
        handler = cloud.module(function).handler
        assert isinstance(handler, Api), key
        if key != "$default":
            sample = re.sub(r"\{\w+\}", "17", key.partition(" ")[2]).replace("{proxy+}", "17")
            assert any(re.fullmatch(pattern, sample) for _, pattern in handler.routes()), key


def test_what_no_route_names_goes_to_a_function_that_serves_nothing(cloud: Cloud) -> None:
    assert cloud.module(routes()["$default"]).handler.routes() == []


def test_the_environment_in_the_template_is_what_the_settings_read() -> None:
    given = {name.lower() for name in TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]}
    given |= {
        name.lower() for function in FUNCTIONS.values() for name in function.get("Environment", {}).get("Variables", {})
    }
    ours = {name for name in given if not name.startswith("powertools_")}
    by_lambda = {"aws_region"}
    required = {name for name, field in Settings.model_fields.items() if field.is_required()}
    assert required <= ours | by_lambda
    assert ours <= Settings.model_fields.keys()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_names_its_own_log_group_service_and_folder(function: str) -> None:
    properties = FUNCTIONS[function]
    folder = properties["CodeUri"].rstrip("/").rpartition("/")[2]
    assert function == folder.title().replace("_", "") + "Function"
    assert properties["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == folder
    assert properties["LoggingConfig"]["LogGroup"]["Ref"] == function.removesuffix("Function") + "Logs"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_policy_allows_every_action_or_every_resource(function: str) -> None:
    for statement in statements(function):
        assert statement["Effect"] == "Allow"
        for action in listed(statement["Action"]):
            assert "*" not in action
        for resource in listed(statement["Resource"]):
            assert isinstance(resource, dict)
            named = arn(resource).replace("/index/*", "").replace("BlobsBucket/*", "BlobsBucket")
            assert named.isalnum() or any(named.endswith(known) for known in WITHOUT_A_NAME), named


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_may_scan_or_administer(function: str) -> None:
    actions = {action for statement in statements(function) for action in listed(statement["Action"])}
    assert actions <= {
        *(f"dynamodb:{verb}" for verb in ("GetItem", "BatchGetItem", "PutItem", "UpdateItem", "DeleteItem", "Query")),
        *("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        *("events:PutEvents", "sqs:SendMessage"),
        *("states:StartExecution", "states:StopExecution"),
        *("secretsmanager:GetSecretValue", "bedrock:InvokeModel"),
    }


def test_the_machine_may_run_its_own_functions_and_batches_alone() -> None:
    (machine,) = (r for r in TEMPLATE["Resources"].values() if r["Type"] == "AWS::Serverless::StateMachine")
    properties = machine["Properties"]
    tasks = {value["Fn::GetAtt"] for name, value in properties["DefinitionSubstitutions"].items() if "Arn" in name}
    (policy,) = properties["Policies"]
    for statement in policy["Statement"]:
        for action in listed(statement["Action"]):
            assert action == "lambda:InvokeFunction" or action.startswith(("s3:Get", "states:"))
            if action == "lambda:InvokeFunction":
                assert {resource["Fn::GetAtt"] for resource in listed(statement["Resource"])} == tasks
            else:
                text = statement["Resource"]["Fn::Sub"]
                assert "BlobsBucket" in text or "fixloop-${Stage}-shadow-tests" in text
    used = set(re.findall(r"\$\{(\w+)\}", (ROOT / properties["DefinitionUri"]).read_text()))
    assert used == set(properties["DefinitionSubstitutions"])


@cache
def imports(file: Path) -> set[Path]:
    """Modules of ours that a file imports itself."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fixloop"):
            continue
        for name in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)):
            path = ROOT / "layers" / "core" / name.replace(".", "/")
            source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
            if source.exists():
                found.add(source)
    return found


def imported(file: Path) -> set[Path]:
    """Modules of ours that a file imports, itself or through others."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        new = imports(waiting.pop()) - found
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_touch_no_table_that_its_code_does_not_know(function: str) -> None:
    named = {arn(resource).partition("/")[0] for one in statements(function) for resource in listed(one["Resource"])}
    code = "".join(file.read_text() for file in imported(ROOT / FUNCTIONS[function]["CodeUri"] / "app.py"))
    known = {name.title().replace("_", "") for name in re.findall(r"settings\(\)\.(\w+_table)\b", code)}
    assert named & TABLES <= known


def test_functions_import_nothing_but_the_layers_and_the_standard_library() -> None:
    allowed = {"fixloop", "aws_lambda_powertools", "botocore", "pydantic"} | sys.stdlib_module_names
    for file in ROOT.glob("functions/*/app.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed, file
