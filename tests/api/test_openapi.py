"""The OpenAPI document says what the service does."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest
import yaml
from django.conf import LazySettings
from pydantic import BaseModel

from tests.api.test_problems import every_problem
from tests.support.client import Api
from wallets.api import urls
from wallets.api.document import JSON, build
from wallets.contract import request_schemas, responses
from wallets.contract.parsing import check, parse_object
from wallets.models import Operation, Wallet


@pytest.fixture(scope="session")
def document() -> Any:
    answer = Api().sender.send("GET", "/api/schema")
    assert answer.status == 200
    return yaml.load(answer.content, yaml.CSafeLoader)  # safe_load takes five times as long


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def shape_of(content: Any) -> type[BaseModel]:
    name = content["schema"]["$ref"].rpartition("/")[2]
    shape: type[BaseModel] = getattr(request_schemas, name, None) or getattr(responses, name)
    return shape


def test_the_document_is_valid(document: Any) -> None:
    from openapi_spec_validator import validate  # imports jsonschema, which takes 3 s of CPU

    validate(document)


def test_document_matches_the_schema_of_drf_spectacular(document: Any) -> None:
    """As `spectacular --validate`, which needs 10 s of CPU in jsonschema."""
    schema = json.loads(files("drf_spectacular").joinpath("validation/openapi_3_1_schema.json").read_bytes())
    assert document["openapi"].startswith("3.1")
    assert not jsonschema_rs.is_valid(schema, document | {"paths": []})
    jsonschema_rs.validate(schema, document)


@pytest.mark.slow
def test_it_is_made_without_a_warning() -> None:
    command = [sys.executable, "manage.py", "spectacular", "--fail-on-warn", "--file", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_address_and_method_is_in_it(document: Any) -> None:
    described = {(path, method) for path, method, _ in operations(document)}
    served = set()
    for route in urls.urlpatterns:
        path = "/api/v1/" + re.sub(r"<id:(\w+)>", r"{\1}", str(route.pattern))
        view = getattr(route.callback, "view_class")  # noqa: B009
        served |= {
            (path, method) for method in ("get", "post", "patch", "put", "delete") if hasattr(view, method)
        }
    assert described == served


def test_every_answer_has_an_example_of_its_shape(document: Any) -> None:
    for path, method, operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        for status, answer in operation["responses"].items():
            if status in ("204", "304"):
                continue
            for kind, content in answer["content"].items():
                examples = content["examples"].values()
                assert examples, (path, method, status)
                if kind in ("text/csv", "text/event-stream"):
                    continue  # test_history.py and test_asyncapi.py hold them to what is sent
                shape = shape_of(content)
                for example in examples:
                    shape.model_validate(example["value"])


def test_every_request_has_an_example_that_is_accepted(document: Any) -> None:
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            shape = shape_of(content)
            for example in content["examples"].values():
                check(shape, parse_object(json.dumps(example["value"]).encode()))


def test_what_bounds_a_number_is_said_in_the_words_of_json_schema(document: Any) -> None:
    parameters = document["paths"]["/api/v1/wallets"]["get"]["parameters"]
    limit = next(parameter["schema"] for parameter in parameters if parameter["name"] == "limit")
    assert limit == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    shapes = document["components"]["schemas"]
    assert (
        shapes["WebhookToRegister"]["properties"]["batch"].items() >= {"minimum": 1, "maximum": 500}.items()
    )
    hours = shapes["SecretToRotate"]["properties"]["formerValidHours"]
    assert hours.items() >= {"minimum": 0, "maximum": 168}.items()


def test_a_body_has_to_be_sent_unless_nothing_has_to_be_said(document: Any) -> None:
    optional = {
        operation["operationId"]
        for _, _, operation in operations(document)
        if "requestBody" in operation and not operation["requestBody"]["required"]
    }
    assert optional == {"holds_capture", "holds_void", "operations_reverse", "webhooks_rotate"}


def test_an_answer_links_to_what_can_be_asked_next(document: Any) -> None:
    answer = document["paths"]["/api/v1/wallets/{wallet_id}/holds"]["post"]["responses"]["201"]
    assert set(answer["links"]) == {"holds_read", "holds_capture", "holds_void"}
    asked = {operation["operationId"] for _, _, operation in operations(document)}
    for name, link in document["components"]["links"].items():
        assert name == link["operationId"]
        assert name in asked


@pytest.mark.parametrize("access", ["open", "key"])
def test_credentials_are_asked_for_where_the_service_does(settings: LazySettings, access: str) -> None:
    settings.API_ACCESS = access
    paths = json.loads(build()[JSON].plain)["paths"]
    nobody: list[Any] = [{}] if access == "open" else []
    assert paths["/api/v1/wallets"]["get"]["security"] == [{"bearer": []}, {"session": []}, *nobody]
    assert paths["/api/v1/me"]["get"]["security"] == [{"session": []}]
    assert not any(paths["/api/v1/login"]["post"].get("security", []))


def test_every_problem_of_the_service_is_in_it(document: Any) -> None:
    codes = {
        example["value"]["code"]
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for kind, content in answer.get("content", {}).items()
        if kind == "application/problem+json"
        for example in content["examples"].values()
    }
    everywhere = {"bad_request", "not_found", "method_not_allowed", "internal_error", "forbidden"}
    decisions = {"rejected_by_operator"}  # the reason of an operation; no request is answered with it
    assert codes | everywhere | decisions == {kind.code for kind in every_problem()}


def test_rendered_bodies_validate_against_their_schemas(api: Api) -> None:
    wallet_id = api.open(deposit="1", maxBalance="5", metadata={"a": 1})
    api.withdraw(wallet_id, 7)
    wallet = Wallet.objects.get(id=wallet_id)
    responses.WalletBody.model_validate(responses.wallet_body(wallet))
    for operation in Operation.objects.filter(wallet=wallet):
        responses.OperationBody.model_validate(responses.operation_body(operation, wallet.currency))


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc"])
def test_the_documentation_needs_nothing_from_elsewhere(live_api: Api, page: str) -> None:
    answer = live_api.sender.send("GET", page)
    html = answer.content.decode()
    assert answer.status == 200
    assert re.findall(r"https?://[^\"' ]+", html) == []
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    assert files
    for file in files:
        answer = live_api.sender.send("GET", file)
        assert answer.status == 200
        assert len(answer.content) == int(answer.headers["content-length"]) > 0
