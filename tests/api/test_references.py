"""The client's own names: the reference of a movement, and the external id of a wallet."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import LazySettings

from tests.support.chains import chain_anew
from tests.support.client import Answer, Api
from tests.support.cluster import cluster
from tests.support.keys import new_key
from tests.support.people import Person, new_account
from wallets.access.rights import ADMIN
from wallets.ledger.inbox import drain
from wallets.ledger.verify import verify

ORDER: dict[str, Any] = {"reference": "order-7", "description": "two cups", "metadata": {"order": 7}}
REFUND: dict[str, Any] = {"reference": "refund-7", "description": "broken", "metadata": {"cup": 1}}
NOTHING: dict[str, Any] = {"reference": "", "description": "", "metadata": {}}


def details_of(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ORDER}


# --- References -------------------------------------------------------------------------------------
def test_movement_shows_its_reference_wherever_it_is_read(api: Api) -> None:
    wallet_id = api.open()
    answer = api.deposit(wallet_id, "10", **ORDER)
    assert details_of(answer.json) == ORDER
    assert details_of(api.get(f"/operations/{answer.json['id']}").json) == ORDER
    assert [details_of(item) for item in api.history(wallet_id)] == [ORDER]
    statement = api.get(f"/wallets/{wallet_id}/statement").json
    assert [details_of(entry) for entry in statement["entries"]] == [ORDER]
    assert details_of(api.deposit(wallet_id, "10").json) == NOTHING


def test_both_operations_of_a_transfer_have_its_reference(api: Api) -> None:
    source_id, target_id = api.open(deposit="10"), api.open()
    body = api.transfer(source_id, target_id, "4", **ORDER).json
    assert details_of(body["source"]) == details_of(body["target"]) == ORDER


def test_items_of_a_bulk_have_references(api: Api) -> None:
    source_id, target_id = api.open(deposit="10"), api.open()
    deposit = {"walletId": target_id, "operationType": "DEPOSIT", "amount": "1", **ORDER}
    transfer = {"sourceWalletId": source_id, "targetWalletId": target_id, "amount": "1", **REFUND}
    results = api.bulk(deposit, transfer).json["results"]
    assert details_of(results[0]["operation"]) == ORDER
    assert details_of(results[1]["transfer"]["source"]) == REFUND


def test_operation_accepted_asynchronously_keeps_its_reference(api: Api) -> None:
    wallet_id = api.open()
    accepted = api.deposit(wallet_id, "10", **ORDER, Prefer="respond-async")
    body = {"operationType": "DEPOSIT", "amount": "10", **ORDER}
    accepted = api.post(f"/wallets/{wallet_id}/operation", body, Prefer="respond-async")
    assert (accepted.status, details_of(accepted.json)) == (202, ORDER)
    while drain(500):
        pass
    assert details_of(api.get(f"/operations/{accepted.json['id']}").json) == ORDER


def test_key_with_another_reference_is_refused(api: Api) -> None:
    wallet_id = api.open()
    first = api.deposit(wallet_id, "10", "key", **ORDER)
    assert api.deposit(wallet_id, "10", "key", **ORDER).json == first.json
    assert api.deposit(wallet_id, "10", "key", **ORDER | {"reference": "order-8"}).code == (
        "idempotency_key_reused"
    )


@pytest.mark.parametrize("reference", ["x" * 256, "a\x00b", 7])
def test_malformed_reference_is_refused(api: Api, reference: object) -> None:
    wallet_id = api.open()
    answer = api.deposit(wallet_id, "10", reference=reference)
    assert answer.code == "validation_error"
    assert [error["field"] for error in answer.json["errors"]] == ["reference"]
    assert api.history(wallet_id) == []


# --- What follows a hold or an operation ------------------------------------------------------------
def reversed_deposit(api: Api, **fields: Any) -> Answer:
    operation = api.deposit(api.open(), "10", **ORDER).json
    return api.reverse(operation["id"], **fields)


def reversed_transfer(api: Api, **fields: Any) -> Answer:
    transfer = api.transfer(api.open(deposit="10"), api.open(), "10", **ORDER).json
    return api.reverse(transfer["id"], **fields)


def captured_hold(api: Api, **fields: Any) -> Answer:
    hold = api.hold(api.open(deposit="10"), "10", **ORDER).json
    assert details_of(hold) == ORDER
    return api.capture(hold["id"], **fields)


def voided_hold(api: Api, **fields: Any) -> Answer:
    """Void a hold and return the operation that did."""
    wallet_id = api.open(deposit="10")
    hold = api.hold(wallet_id, "10", **ORDER).json
    assert details_of(api.void(hold["id"], **fields).json) == ORDER  # the hold stays as it was placed
    (void,) = api.history(wallet_id, "type=VOID")
    return api.get(f"/operations/{void['id']}")


FOLLOW_UPS = [reversed_deposit, reversed_transfer, captured_hold, voided_hold]
FollowUp = Callable[..., Answer]


@pytest.mark.parametrize("follow_up", FOLLOW_UPS)
def test_follow_up_inherits_what_it_does_not_say(api: Api, follow_up: FollowUp) -> None:
    assert details_of(follow_up(api).json) == ORDER
    assert details_of(follow_up(api, **REFUND).json) == REFUND
    assert details_of(follow_up(api, description="late").json) == ORDER | {"description": "late"}


def test_replay_of_a_follow_up_may_repeat_or_omit_what_it_inherited(api: Api) -> None:
    operation = api.deposit(api.open(), "10", **ORDER).json
    first = api.reverse(operation["id"], "1", "key")
    for fields in ({}, ORDER, {"reference": "order-7"}):
        again = api.reverse(operation["id"], "1", "key", **fields)
        assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
    assert api.reverse(operation["id"], "1", "key", **REFUND).code == "idempotency_key_reused"


def test_replay_finds_a_follow_up_from_before_inheritance(api: Api) -> None:
    wallet_id = api.open()
    operation = api.deposit(wallet_id, "10", **ORDER).json
    first = api.reverse(operation["id"], "1", "key").json
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute(
            "UPDATE operation SET reference = '', description = '', metadata = '{}' WHERE id = %s",
            [first["id"]],
        )
        chain_anew(database, wallet_id)
    again = api.reverse(operation["id"], "1", "key")
    assert (again.status, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json == first | NOTHING


def test_csv_shows_reference_and_metadata(api: Api) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, "5", **ORDER | {"reference": "=1+1"})
    csv = api.get(f"/wallets/{wallet_id}/statement", Accept="text/csv").content.decode().splitlines()
    assert csv[0].endswith(",idempotencyKey,reference,metadata")
    assert csv[2].endswith(",'=1+1," + '"{""order"":7}"')


def test_changed_reference_of_a_hold_is_found(api: Api) -> None:
    wallet_id = api.open(deposit="10")
    hold = api.hold(wallet_id, "10", **ORDER).json
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute("UPDATE hold SET reference = 'order-8' WHERE id = %s", [hold["id"]])
    found = [difference.what for difference in verify([wallet_id])]  # type: ignore[list-item]
    assert found == [f"hold {hold['id']} is not as operation {hold['id']} says"]


# --- External ids -----------------------------------------------------------------------------------
def new_external_id() -> str:
    return f"customer-{uuid4()}"


def ids_found(api: Api, external_id: str) -> list[str]:
    return [item["id"] for item in api.get(f"/wallets?externalId={external_id}").json["items"]]


def test_wallet_is_found_by_its_external_id(api: Api) -> None:
    external_id = new_external_id()
    assert ids_found(api, external_id) == []
    wallet_id = api.open(externalId=external_id)
    assert api.wallet(wallet_id)["externalId"] == external_id
    assert ids_found(api, external_id) == [wallet_id]


def test_external_id_of_another_wallet_is_refused(api: Api) -> None:
    external_id = new_external_id()
    wallet_id, other_id = api.open(externalId=external_id), api.open()
    assert api.post("/wallets", {"externalId": external_id}).code == "external_id_taken"
    assert api.patch(f"/wallets/{other_id}", {"externalId": external_id}).code == "external_id_taken"
    assert api.wallet(other_id)["externalId"] is None
    assert ids_found(api, external_id) == [wallet_id]


def test_external_id_is_set_changed_and_removed(api: Api) -> None:
    wallet_id = api.open()
    for external_id in (new_external_id(), new_external_id(), None):
        body = api.patch(f"/wallets/{wallet_id}", {"externalId": external_id}).json
        assert body["externalId"] == external_id
        assert api.wallet(wallet_id) == body


def test_opening_is_replayed_with_its_external_id(api: Api) -> None:
    body = {"id": str(uuid4()), "externalId": new_external_id()}
    first = api.post("/wallets", body)
    again = api.post("/wallets", body)
    assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
    assert api.post("/wallets", {"id": body["id"]}).code == "idempotency_key_reused"


@pytest.mark.usefixtures("quick_hashing")
def test_each_owner_has_external_ids_of_its_own(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"
    external_id = new_external_id()
    owners: list[Person] = [new_account(), new_account()]
    clients = [Api(key=new_key(ADMIN, owner=owner.user, is_restricted=True)) for owner in owners]
    bank = Api(key=new_key(ADMIN))
    opened = [client.open(externalId=external_id) for client in (*clients, bank)]
    assert [ids_found(client, external_id) for client in clients] == [[opened[0]], [opened[1]]]
    assert ids_found(bank, external_id) == opened[::-1]
    assert clients[0].post("/wallets", {"externalId": external_id}).code == "external_id_taken"


@pytest.mark.parametrize("external_id", ["", "a b", "a\u00a0b", "a\x00", "x" * 256, "\u202eabc", 7])
def test_malformed_external_id_is_refused(api: Api, external_id: object) -> None:
    answer = api.post("/wallets", {"externalId": external_id})
    assert answer.code == "validation_error"
    assert [error["field"] for error in answer.json["errors"]] == ["externalId"]
