"""docs/asyncapi.yaml describes exactly the events that the service sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from django.db import DEFAULT_DB_ALIAS

from tests.support.client import Api
from wallets.contract.responses import HoldBody, OperationBody
from wallets.events import cloudevents, log
from wallets.events.cloudevents import TYPES, events_of
from wallets.ledger import expiry
from wallets.operation_types import NAMES

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

DOCUMENT = Path("docs/asyncapi.yaml")


@cache
def document() -> Any:
    return yaml.safe_load(DOCUMENT.read_text())


@cache
def validators() -> "dict[str, Draft7Validator]":
    """Return the validators by event type."""
    # jsonschema takes 3 s of CPU to import; every process of pytest-xdist imports this module.
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT7

    resource = Resource.from_contents(document(), default_specification=DRAFT7)
    registry = Registry().with_resource("asyncapi.yaml", resource)
    return {
        message["name"]: Draft7Validator(
            {"$ref": "asyncapi.yaml" + message["payload"]["$ref"]},
            registry=registry,
            format_checker=Draft7Validator.FORMAT_CHECKER,
        )
        for message in document()["components"]["messages"].values()
    }


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (node["$ref"],) if "$ref" in node else ()
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from refs(child)


def test_every_reference_resolves() -> None:
    for ref in refs(document()):
        found = document()
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]


def test_document_has_exactly_the_event_types() -> None:
    assert set(validators()) == {*TYPES, "webhook.test"}
    for name, channel in document()["channels"].items():
        assert len(channel["messages"]) == (1 if name == "webhookTest" else len(TYPES))


def test_operations_and_holds_have_the_fields_of_the_api() -> None:
    schemas = document()["components"]["schemas"]
    for name, body in (("Operation", OperationBody), ("Hold", HoldBody)):
        assert set(schemas[name]["properties"]) == set(body.model_json_schema()["properties"])


def test_operation_types_are_those_of_the_table() -> None:
    operation = document()["components"]["schemas"]["Operation"]
    assert operation["properties"]["operationType"]["enum"] == list(NAMES)


@pytest.fixture
def sent_events(api: Api) -> list[dict[str, Any]]:
    """Return events of all types, as they are sent."""
    begin = log.Position(log.horizon())
    wallet, other = api.open(label="till", metadata={"a": 1}), api.open(maxBalance="100")
    api.deposit(wallet, "50.5", key="order-1", description="a", metadata={"b": [1]})
    api.withdraw(wallet, "51")
    transfer = api.transfer(wallet, other, "5").json
    api.transfer(wallet, other, "99")
    api.reverse(transfer["id"], "1")
    api.hold(wallet, "999")
    api.capture(api.hold(wallet, "4").json["id"], "3")
    api.void(api.hold(wallet, "4", description="b").json["id"])
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    api.hold(wallet, "4", expiresAt=soon)
    api.patch(f"/wallets/{wallet}", {"status": "FROZEN", "label": "closed", "metadata": {}})
    api.deposit(wallet, "1")
    while "wallet.hold.expired" not in types_of(found := events_since(begin, wallet, other)):
        expiry.record_expiries(DEFAULT_DB_ALIAS)
    return found


def types_of(events: list[dict[str, Any]]) -> set[str]:
    return {event["type"] for event in events}


def events_since(begin: log.Position, *wallets: str) -> list[dict[str, Any]]:
    entries, _ = log.read(begin, 1000)
    events = [event for event in events_of(entries) if str(event.wallet_id) in wallets]
    return [json.loads(event.content) for event in events]


def test_events_match_their_schemas(sent_events: list[dict[str, Any]]) -> None:
    assert types_of(sent_events) == set(TYPES)
    for event in sent_events:
        validators()[event["type"]].validate(event)
        for validator in [each for type, each in validators().items() if type != event["type"]]:
            assert not validator.is_valid(event)
    assert len({event["id"] for event in sent_events}) == len(sent_events)


def test_test_event_matches_its_schema() -> None:
    event = json.loads(cloudevents.test_event().content)
    assert [type for type, each in validators().items() if each.is_valid(event)] == ["webhook.test"]
    for wrong in ({"subject": "x"}, {"data": {"extra": 1}}, {"time": 1}):
        assert not validators()["webhook.test"].is_valid(event | wrong)


def test_extra_or_missing_field_is_invalid(sent_events: list[dict[str, Any]]) -> None:
    for event in sent_events:
        validator = validators()[event["type"]]
        assert not validator.is_valid(event | {"extra": 1})
        assert not validator.is_valid(event | {"data": event["data"] | {"extra": 1}})
        for name in event["data"]:
            less = {key: value for key, value in event["data"].items() if key != name}
            assert not validator.is_valid(event | {"data": less}), name


def test_event_rendered_twice_is_identical(api: Api) -> None:
    begin = log.Position(log.horizon())
    wallet = api.open(deposit="5")
    hold = api.hold(wallet, "2").json["id"]
    first = events_since(begin, wallet)
    api.void(hold)
    assert events_since(begin, wallet)[: len(first)] == first


def test_amounts_and_balances_are_those_of_the_api(sent_events: list[dict[str, Any]]) -> None:
    changes = [event["data"] for event in sent_events if event["type"] == "wallet.balance.changed"]
    assert sorted((each["change"], each["balance"]) for each in changes) == sorted(
        [("50.50", "50.50"), ("-5.00", "45.50"), ("5.00", "5.00")]
        + [("-1.00", "4.00"), ("1.00", "46.50"), ("-3.00", "43.50")]
    )
