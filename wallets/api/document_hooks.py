"""Completes the OpenAPI document after drf-spectacular has put the endpoints together.

The parts that several endpoints share become components: problems, the enums of queries, links.
"""

from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings

from wallets import problems
from wallets.api.openapi import query_components

Json = dict[str, Any]
# In the order in which a reader needs them.
TAGS: Final = {
    "wallets": "Open, read and change wallets, and follow their events.",
    "operations": "Deposits, withdrawals, reversals and bulks, and the history of a wallet.",
    "transfers": "Money from one wallet to another.",
    "holds": "Money that is reserved, and then captured or released.",
    "history": "The balance of a wallet at a time, and its statement.",
    "webhooks": "Where the service sends events, and the state of the deliveries.",
    "people": "Accounts and sessions of users.",
}
# The schemas of bodies that may be absent.
OPTIONAL: Final = {"HoldToVoid", "PartToTake", "SecretToRotate"}
# Response schemas with an id, and the path parameter that takes this id.
LINKED: Final = {
    "WalletBody": "wallet_id",
    "OperationBody": "operation_id",
    "TransferBody": "transfer_id",
    "HoldBody": "hold_id",
    "RegisteredWebhookBody": "webhook_id",
    "WebhookBody": "webhook_id",
}


def with_server_and_tags(result: Json, **_: Any) -> Json:
    tags = [{"name": name, "description": description} for name, description in TAGS.items()]
    return result | {"servers": [{"url": settings.PUBLIC_URL or "/"}], "tags": tags}


def with_query_components(result: Json, **_: Any) -> Json:
    """Add the schemas to which query parameters refer. drf-spectacular adds only those of bodies."""
    schemas = result["components"]["schemas"]
    result["components"]["schemas"] = dict(sorted({**query_components, **schemas}.items()))
    return result


def without_titles(result: Json, **_: Any) -> Json:
    """Remove the titles that pydantic makes of names: generators would name types after them."""
    for schema in _objects(result["components"]["schemas"]):
        if isinstance(schema.get("title"), str):  # otherwise it is the schema of a field with this name
            del schema["title"]
    return result


def _objects(value: Any) -> Iterator[Json]:
    """Yield each object in the value, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def with_required_bodies(result: Json, **_: Any) -> Json:
    """Mark the request bodies that are required. drf-spectacular requires those with a required field."""
    for operation in _operations(result):
        if "requestBody" in operation:
            operation["requestBody"]["required"] = _schema_of(operation["requestBody"]) not in OPTIONAL
    return result


def with_shared_problems(result: Json, **_: Any) -> Json:
    """Describe each problem once, and once each response of a status that can be any one of some problems."""
    examples: Json = {}
    responses: Json = {}
    names: dict[tuple[str, ...], str] = {}  # of the responses, by the names of their examples
    for operation in _operations(result):
        for status, response in operation["responses"].items():
            if content := response.get("content", {}).get(problems.CONTENT_TYPE):
                kinds = tuple(content["examples"])
                name = names.setdefault(kinds, _response_name(kinds, operation["operationId"]))
                examples |= content["examples"]
                content["examples"] = {kind: _reference("examples", kind) for kind in kinds}
                responses[name] = response
                operation["responses"][status] = _reference("responses", name)
    result["components"] |= {"examples": examples, "responses": responses}
    return result


def _response_name(kinds: tuple[str, ...], operation_id: str) -> str:
    """Return a name that says what the response is. Only conflicts can have more than two problems."""
    if len(kinds) <= 2:  # noqa: PLR2004
        return "Or".join(kinds)
    return f"{operation_id[0].upper()}{operation_id[1:]}Conflict"


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def with_links(result: Json, **_: Any) -> Json:
    """Add links from the responses to the requests that take their id."""
    links = result["components"]["links"] = {
        operation["operationId"]: {
            "operationId": operation["operationId"],
            "parameters": {parameter: "$response.body#/id"},
        }
        for parameter in LINKED.values()
        for path, item in result["paths"].items()
        if f"{{{parameter}}}" in path
        for operation in item.values()
    }
    for operation in _operations(result):
        for response in operation["responses"].values():
            schema = _schema_of(response)
            if schema in LINKED:
                response["links"] = {
                    name: _reference("links", name)
                    for name, link in links.items()
                    if LINKED[schema] in link["parameters"]
                }
    return result


def _operations(result: Json) -> Iterator[Json]:
    for item in result["paths"].values():
        yield from item.values()


def _schema_of(body: Json) -> str:
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return name
