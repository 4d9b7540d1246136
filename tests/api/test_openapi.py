"""The OpenAPI document agrees with the service."""

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
from tests.support.openapi import inlined, objects, refers_to
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
    """Return each path and method with its operation, in which the shared problems are inlined."""
    return [
        (path, method, operation)
        for path, item in inlined(document)["paths"].items()
        for method, operation in item.items()
    ]


def schema_of(content: Any) -> type[BaseModel]:
    name = content["schema"]["$ref"].rpartition("/")[2]
    shape: type[BaseModel] = getattr(request_schemas, name, None) or getattr(responses, name)
    return shape


def test_document_is_valid(document: Any) -> None:
    from openapi_spec_validator import validate  # imports jsonschema, which takes 3 s of CPU

    validate(document)


def test_document_matches_the_schema_of_drf_spectacular(document: Any) -> None:
    """Validate as `spectacular --validate` does, without its 10 s of CPU in jsonschema."""
    schema = json.loads(files("drf_spectacular").joinpath("validation/openapi_3_1_schema.json").read_bytes())
    assert document["openapi"].startswith("3.1")
    assert not jsonschema_rs.is_valid(schema, document | {"paths": []})
    jsonschema_rs.validate(schema, document)


@pytest.mark.slow
def test_document_is_built_without_a_warning() -> None:
    command = [sys.executable, "manage.py", "spectacular", "--fail-on-warn", "--file", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_document_has_every_url_and_method(document: Any) -> None:
    described = {(path, method) for path, method, _ in operations(document)}
    served = set()
    for route in urls.urlpatterns:
        path = "/api/v1/" + re.sub(r"<id:(\w+)>", r"{\1}", str(route.pattern))
        view = getattr(route.callback, "view_class")  # noqa: B009
        served |= {
            (path, method) for method in ("get", "post", "patch", "put", "delete") if hasattr(view, method)
        }
    assert described == served


def test_every_response_has_a_valid_example(document: Any) -> None:
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
                    continue  # tested in test_history.py and test_asyncapi.py
                shape = schema_of(content)
                for example in examples:
                    shape.model_validate(example["value"])


def test_every_request_has_an_accepted_example(document: Any) -> None:
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            shape = schema_of(content)
            for example in content["examples"].values():
                check(shape, parse_object(json.dumps(example["value"]).encode()))


def test_bounds_of_numbers_are_json_schema_keywords(document: Any) -> None:
    parameters = document["paths"]["/api/v1/wallets"]["get"]["parameters"]
    limit = next(parameter["schema"] for parameter in parameters if parameter["name"] == "limit")
    assert limit == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    shapes = document["components"]["schemas"]
    batch, null = shapes["WebhookToRegister"]["properties"]["batch"]["anyOf"]
    assert batch.items() >= {"minimum": 1, "maximum": 500}.items()
    assert null == {"type": "null"}
    hours, null = shapes["SecretToRotate"]["properties"]["formerValidHours"]["anyOf"]
    assert hours.items() >= {"minimum": 0, "maximum": 168}.items()
    assert null == {"type": "null"}


def test_body_is_required_unless_all_fields_are_optional(document: Any) -> None:
    optional = {
        operation["operationId"]
        for _, _, operation in operations(document)
        if "requestBody" in operation and not operation["requestBody"]["required"]
    }
    assert optional == {"captureHold", "voidHold", "reverseOperation", "rotateWebhookSecret"}


def test_response_links_to_the_next_requests(document: Any) -> None:
    answer = document["paths"]["/api/v1/wallets/{wallet_id}/holds"]["post"]["responses"]["201"]
    assert set(answer["links"]) == {"getHold", "captureHold", "voidHold"}
    operation_ids = {operation["operationId"] for _, _, operation in operations(document)}
    for name, link in document["components"]["links"].items():
        assert name == link["operationId"]
        assert name in operation_ids


# --- Rules for generated clients --------------------------------------------------------------------
VERBS = (
    *("capture", "create", "delete", "deposit", "execute", "get", "list", "log", "open", "place", "register"),
    *("replay", "reverse", "rotate", "sign", "stream", "test", "update", "void"),
)


def test_operation_ids_are_a_verb_and_a_noun(document: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    form = rf"({'|'.join(VERBS)})([A-Z][a-z]+)+"
    assert [name for name in names if not re.fullmatch(form, name)] == []


def test_every_operation_has_one_described_tag(document: Any) -> None:
    tags = [tag["name"] for tag in document["tags"]]
    assert tags[0] == "wallets"
    assert all(tag["description"] for tag in document["tags"])
    assert [
        operation["tags"] for _, _, operation in operations(document) if len(operation["tags"]) != 1
    ] == []
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == set(tags)


@pytest.mark.parametrize(
    ("public_url", "server"), [("https://wallets.example.com", "https://wallets.example.com"), ("", "/")]
)
def test_server_is_the_public_url(settings: LazySettings, public_url: str, server: str) -> None:
    settings.PUBLIC_URL = public_url
    assert json.loads(build()[JSON].plain)["servers"] == [{"url": server}]


def test_no_schema_combines_alternatives_with_properties(document: Any) -> None:
    """Generators keep the alternatives and drop the properties."""
    combined = [
        each
        for each in objects(document)
        if "properties" in each and {"oneOf", "anyOf", "allOf"} & each.keys()
    ]
    assert combined == []


def test_times_have_the_format_date_time(document: Any) -> None:
    """A field is a time if an example has a time with its name."""
    time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
    times = {
        name
        for each in objects(document)
        for name, value in each.items()
        if isinstance(value, str) and time.fullmatch(value)
    }
    fields = [item for each in objects(document) for item in each.get("properties", {}).items()]
    parameters = [
        (parameter["name"], parameter["schema"])
        for _, _, operation in operations(document)
        for parameter in operation.get("parameters", [])
    ]
    # `from` of a webhook is an enum.
    typed = [
        (name, schema) for name, schema in fields + parameters if name in times and "$ref" not in str(schema)
    ]
    assert {name for name, _ in typed} >= {"createdAt", "expiresAt", "from", "to", "at"}
    assert [(name, schema) for name, schema in typed if not is_time(schema)] == []


def is_time(schema: Any) -> bool:
    options = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
    return all((option["type"], option.get("format")) == ("string", "date-time") for option in options)


def test_response_schemas_permit_unknown_fields(document: Any) -> None:
    """Otherwise a generated client fails when a later version adds a field."""
    schemas = document["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    answers = [operation["responses"] for _, _, operation in operations(document)]
    assert refers_to(document, answers) & closed == set()
    bodies = [operation.get("requestBody") for _, _, operation in operations(document)]
    assert refers_to(document, bodies) & closed  # the service refuses an unknown field of a request


def test_every_enum_is_a_component(document: Any) -> None:
    schemas = document["components"]["schemas"]
    named = {name: schema for name, schema in schemas.items() if "enum" in schema}
    assert {"WalletStatus", "OperationType", "CurrencyCode"} <= named.keys()
    assert all(schema["type"] == "string" for schema in named.values())
    values = [tuple(schema["enum"]) for schema in named.values()]
    assert len(set(values)) == len(values)
    assert [each for each in objects(document) if "enum" in each and each not in named.values()] == []
    assert sum("enum" in each for each in objects(document)) == len(named)


def test_every_object_is_a_component_without_a_title(document: Any) -> None:
    """Generators invent names for other objects, and take the title for a name."""
    schemas = document["components"]["schemas"]
    objects_with_fields = [
        each for each in objects(document) if each.get("type") == "object" and "properties" in each
    ]
    assert [each for each in objects_with_fields if each not in schemas.values()] == []
    assert [each for each in objects(schemas) if isinstance(each.get("title"), str)] == []


def test_every_problem_is_described_once(document: Any) -> None:
    problems = [
        answer
        for item in document["paths"].values()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert [answer for answer in problems if answer.keys() != {"$ref"}] == []
    shared = document["components"]["responses"]
    assert {answer["$ref"] for answer in problems} == {f"#/components/responses/{name}" for name in shared}
    assert len({json.dumps(answer, sort_keys=True) for answer in shared.values()}) == len(shared)
    examples = document["components"]["examples"]
    assert len({json.dumps(example["value"]) for example in examples.values()}) == len(examples)
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/problem+json", {"examples": {}})
            assert {str(each["value"]["status"]) for each in content["examples"].values()} <= {status}


def test_every_security_scheme_is_used_and_described(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    assert all(scheme["description"] for scheme in schemes.values())
    needed = {
        name
        for _, _, operation in operations(document)
        for each in operation.get("security", [])
        for name in each
    }
    assert needed == schemes.keys()


# --- Credentials, problems and pages ----------------------------------------------------------------
@pytest.mark.parametrize("access", ["open", "key"])
def test_document_requires_the_credentials_of_the_service(settings: LazySettings, access: str) -> None:
    settings.API_ACCESS = access
    paths = json.loads(build()[JSON].plain)["paths"]
    anonymous: list[Any] = [{}] if access == "open" else []
    assert paths["/api/v1/wallets"]["get"]["security"] == [{"bearer": []}, {"session": []}, *anonymous]
    with_csrf: dict[str, list[str]] = {"session": [], "csrf": []}
    assert paths["/api/v1/wallets"]["post"]["security"] == [{"bearer": []}, with_csrf, *anonymous]
    assert paths["/api/v1/me"]["get"]["security"] == [{"session": []}]
    assert paths["/api/v1/logout"]["post"]["security"] == [with_csrf]
    assert not any(paths["/api/v1/login"]["post"].get("security", []))


def test_document_has_every_problem_of_the_service(document: Any) -> None:
    codes = {
        example["value"]["code"]
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for kind, content in answer.get("content", {}).items()
        if kind == "application/problem+json"
        for example in content["examples"].values()
    }
    everywhere = {"bad_request", "not_found", "method_not_allowed", "internal_error", "forbidden"}
    decisions = {"rejected_by_operator"}  # the reason of an operation; no response has this code
    assert codes | everywhere | decisions == {kind.code for kind in every_problem()}


def test_response_bodies_match_their_schemas(api: Api) -> None:
    wallet_id = api.open(deposit="1", maxBalance="5", metadata={"a": 1})
    api.withdraw(wallet_id, 7)
    wallet = Wallet.objects.get(id=wallet_id)
    responses.WalletBody.model_validate(responses.wallet_body(wallet))
    for operation in Operation.objects.filter(wallet=wallet):
        responses.OperationBody.model_validate(responses.operation_body(operation, wallet.currency))


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc"])
def test_documentation_loads_nothing_from_other_hosts(live_api: Api, page: str) -> None:
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
