"""Transfers: two operations in one atomic step."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Books, Unchanged
from tests.ledger.test_idempotency import repeated
from tests.support.client import Answer, Api


def test_response_shows_both_sides_of_a_transfer(api: Api) -> None:
    source_id, target_id = api.open(deposit="100"), api.open(deposit="5")
    answer = api.transfer(source_id, target_id, "40", key="t-1", description="rent", metadata={"month": 1})
    transfer = answer.json
    common = {
        "amount": "40.00",
        "currency": "RUB",
        "status": "COMPLETED",
        "reason": None,
        "transferId": transfer["id"],
        "holdId": None,
        "reversesId": None,
        "reference": "",
        "description": "rent",
        "metadata": {"month": 1},
        "createdAt": transfer["createdAt"],
        "sequence": 2,
    }
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/transfers/{transfer['id']}"
    assert transfer == {
        "id": transfer["source"]["id"],
        "amount": "40.00",
        "currency": "RUB",
        "status": "COMPLETED",
        "reason": None,
        "source": common
        | {
            "id": transfer["id"],
            "walletId": source_id,
            "operationType": "TRANSFER_OUT",
            "balance": "60.00",
            "counterpartyWalletId": target_id,
            "idempotencyKey": "t-1",
        },
        "target": common
        | {
            "id": transfer["target"]["id"],
            "walletId": target_id,
            "operationType": "TRANSFER_IN",
            "balance": "45.00",
            "counterpartyWalletId": source_id,
            "idempotencyKey": None,
        },
        "createdAt": transfer["createdAt"],
    }
    assert (api.balance(source_id), api.balance(target_id)) == ("60.00", "45.00")
    Books((source_id, target_id)).verify()


def test_transfer_and_its_sides_have_their_own_ids(api: Api) -> None:
    source_id, target_id = api.open(deposit="10"), api.open()
    transfer = api.transfer(source_id, target_id, "10").json
    assert api.get(f"/transfers/{transfer['id']}").json == transfer
    for side, wallet_id in (("source", source_id), ("target", target_id)):
        assert api.operation(transfer[side]["id"]) == transfer[side]
        assert api.history(wallet_id)[0] == transfer[side]


def test_transfer_is_found_only_by_its_own_id(api: Api) -> None:
    source_id, target_id = api.open(deposit="10"), api.open()
    transfer = api.transfer(source_id, target_id, "10").json
    deposit_id = api.history(source_id)[-1]["id"]
    for other_id in (transfer["target"]["id"], deposit_id, str(uuid4()), "x"):
        answer = api.get(f"/transfers/{other_id}")
        assert (answer.status, answer.code) == (404, "transfer_not_found")


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "100"), ("KWD", "0.001"), ("EUR", "0.01")])
def test_transfer_has_the_digits_of_its_currency(api: Api, currency: str, amount: str) -> None:
    source_id, target_id = api.open(deposit="100", currency=currency), api.open(currency=currency)
    transfer = api.transfer(source_id, target_id, amount).json
    assert (transfer["amount"], transfer["target"]["balance"]) == (amount, amount)


# --- Validation -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"amount": "0"}, "amount", "out_of_range"),
        ({"amount": "-1"}, "amount", "invalid_amount"),
        ({"amount": "1.001"}, "amount", "too_many_digits"),
        ({"targetWalletId": "x"}, "targetWalletId", "invalid_id"),
        ({"sourceWalletId": None}, "sourceWalletId", "invalid_type"),
        ({"currency": "RUB"}, "currency", "unknown_field"),
    ],
)
def test_invalid_transfer_is_refused_and_leaves_no_trace(
    api: Api, unchanged: Unchanged, change: dict[str, Any], field: str, code: str
) -> None:
    source_id, target_id = api.open(deposit="10"), api.open()
    body = {"sourceWalletId": source_id, "targetWalletId": target_id, "amount": "1"}
    with unchanged(source_id, target_id):
        answer = api.post("/transfers", body | change, Idempotency_Key="k")
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]
    assert api.post("/transfers", body, Idempotency_Key="k").status == 201  # the key is still free


def test_transfer_to_the_same_wallet_is_refused(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open(deposit="10")
    with unchanged(wallet_id):
        answer = api.transfer(wallet_id, wallet_id, "1")
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, "same_wallet")


def test_both_wallets_of_a_transfer_must_exist(api: Api, unchanged: Unchanged) -> None:
    wallet_id, unknown_id = api.open(deposit="10"), str(uuid4())
    with unchanged(wallet_id):
        for source_id, target_id in ((wallet_id, unknown_id), (unknown_id, wallet_id)):
            answer = api.transfer(source_id, target_id, "1", key="k")
            assert (answer.status, answer.code) == (404, "wallet_not_found")
    assert api.transfer(wallet_id, api.open(), "1", key="k").status == 201  # the key is still free


# --- Refusals by the rules --------------------------------------------------------------------------
def frozen_source(api: Api) -> tuple[str, str]:
    source_id = api.open(deposit="100")
    api.patch(f"/wallets/{source_id}", {"status": "FROZEN"})
    return source_id, api.open()


def frozen_target(api: Api) -> tuple[str, str]:
    return api.open(deposit="100"), with_status(api, "FROZEN")


def closed_source(api: Api) -> tuple[str, str]:
    return with_status(api, "CLOSED"), api.open()


def closed_target(api: Api) -> tuple[str, str]:
    return api.open(deposit="100"), with_status(api, "CLOSED")


def with_status(api: Api, status: str) -> str:
    wallet_id = api.open()
    api.patch(f"/wallets/{wallet_id}", {"status": status})
    return wallet_id


def other_currency(api: Api) -> tuple[str, str]:
    return api.open(deposit="100", currency="EUR"), api.open(currency="USD")


def too_little(api: Api) -> tuple[str, str]:
    return api.open(deposit="9.99"), api.open()


def too_little_beside_a_hold(api: Api) -> tuple[str, str]:
    source_id = api.open(deposit="100")
    api.hold(source_id, "90.01")
    return source_id, api.open()


def full_target(api: Api) -> tuple[str, str]:
    return api.open(deposit="100"), api.open(deposit="90.01", maxBalance="100")


@pytest.mark.parametrize(
    ("wallets", "code"),
    [
        (other_currency, "currency_mismatch"),
        (closed_source, "wallet_closed"),
        (closed_target, "wallet_closed"),
        (frozen_source, "wallet_frozen"),
        (frozen_target, "wallet_frozen"),
        (too_little, "insufficient_funds"),
        (too_little_beside_a_hold, "insufficient_funds"),
        (full_target, "balance_limit_exceeded"),
    ],
)
def test_refused_transfer_is_recorded_on_the_source_and_replayed(
    api: Api, unmoved: Unchanged, wallets: Callable[[Api], tuple[str, str]], code: str
) -> None:
    source_id, target_id = wallets(api)
    with unmoved(source_id, target_id):
        first = api.transfer(source_id, target_id, "10", key="k")
        assert (first.status, first.code) == (409, code)
    recorded = api.get(f"/transfers/{first.json['operationId']}").json
    assert (recorded["status"], recorded["reason"], recorded["target"]) == ("REJECTED", code, None)
    assert (recorded["source"]["walletId"], recorded["source"]["balance"]) == (source_id, None)
    assert recorded["source"]["counterpartyWalletId"] == target_id
    assert [item["status"] for item in api.history(target_id)].count("REJECTED") == 0
    again = api.transfer(source_id, target_id, "10", key="k")
    assert repeated(again.json) == repeated(first.json)
    assert again.headers["idempotent-replayed"] == "true"


def test_transfer_respects_the_limits_to_the_last_cent(api: Api) -> None:
    source_id = api.open(deposit="10", overdraftLimit="5")
    target_id = api.open(deposit="85", maxBalance="100")
    transfer = api.transfer(source_id, target_id, "15").json
    assert (transfer["source"]["balance"], transfer["target"]["balance"]) == ("-5.00", "100.00")
    assert api.transfer(source_id, target_id, "0.01").code == "insufficient_funds"
    assert api.transfer(target_id, source_id, "100").json["target"]["balance"] == "95.00"
    Books((source_id, target_id)).verify()


# --- Replays ----------------------------------------------------------------------------------------
def test_replayed_transfer_gets_the_first_response(api: Api, unchanged: Unchanged) -> None:
    source_id, target_id = api.open(deposit="100"), api.open()
    first = api.transfer(source_id, target_id, "10", key="k")
    api.transfer(target_id, source_id, "5")
    api.patch(f"/wallets/{target_id}", {"status": "FROZEN"})
    with unchanged(source_id, target_id):
        for spelling in ("10", "10.0", 10, 10.00):
            again = api.transfer(source_id, target_id, spelling, key="k")
            assert (again.status, again.content) == (201, first.content)
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers


def test_refused_transfer_is_replayed_after_its_reason_has_passed(api: Api, unchanged: Unchanged) -> None:
    source_id, target_id = api.open(), api.open()
    first = api.transfer(source_id, target_id, "10", key="k")
    api.deposit(source_id, "100")
    with unchanged(source_id, target_id):
        again = api.transfer(source_id, target_id, "10", key="k")
        assert (again.code, again.json["operationId"]) == ("insufficient_funds", first.json["operationId"])
    assert api.transfer(source_id, target_id, "10", key="k2").status == 201


@pytest.mark.parametrize("of_first", ["completed", "refused"])
@pytest.mark.parametrize("other", ["amount", "target", "description", "metadata", "withdrawal"])
def test_key_of_a_different_transfer_is_refused(
    api: Api, unchanged: Unchanged, of_first: str, other: str
) -> None:
    source_id, target_id, third_id = api.open(), api.open(), api.open()
    if of_first == "completed":
        api.deposit(source_id, "100")
    api.transfer(source_id, target_id, "10", key="k")

    def another() -> Answer:
        match other:
            case "amount":
                return api.transfer(source_id, target_id, "10.01", key="k")
            case "target":
                return api.transfer(source_id, third_id, "10", key="k")
            case "withdrawal":
                return api.withdraw(source_id, "10", key="k")
        changed = {"description": "x"} if other == "description" else {"metadata": {"a": 1}}
        return api.transfer(source_id, target_id, "10", key="k", **changed)

    with unchanged(source_id, target_id, third_id):
        answer = another()
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")


def test_key_belongs_to_the_source_and_is_free_on_the_target(api: Api) -> None:
    one, other = api.open(deposit="100"), api.open(deposit="100")
    there = api.transfer(one, other, "10", key="k")
    back = api.transfer(other, one, "10", key="k")
    assert (there.status, back.status) == (201, 201)
    assert there.json["id"] != back.json["id"]
    assert api.deposit(api.open(), "10", key="k").status == 201
    assert api.deposit(one, "10", key="k").code == "idempotency_key_reused"
    Books((one, other)).verify()


def test_client_id_of_a_transfer_is_both_id_and_key(api: Api, unchanged: Unchanged) -> None:
    source_id, target_id, chosen = api.open(deposit="100"), api.open(deposit="100"), str(uuid4())
    first = api.transfer(source_id, target_id, "10", id=chosen)
    assert (first.json["id"], first.json["source"]["idempotencyKey"]) == (chosen, chosen)
    with unchanged(source_id, target_id):
        assert api.transfer(source_id, target_id, "10", id=chosen).content == first.content
        assert api.transfer(source_id, target_id, "11", id=chosen).code == "idempotency_key_reused"
        assert api.transfer(target_id, source_id, "10", id=chosen).code == "idempotency_key_reused"
        assert api.deposit(target_id, "10", id=chosen).code == "idempotency_key_reused"
        target_side = first.json["target"]["id"]
        assert api.transfer(target_id, source_id, "10", id=target_side).code == "idempotency_key_reused"


def test_every_transfer_without_a_key_counts(api: Api) -> None:
    source_id, target_id = api.open(deposit="3"), api.open()
    assert [api.transfer(source_id, target_id, 1).status for _ in range(4)] == [201, 201, 201, 409]
    assert api.balance(target_id) == "3.00"
    Books((source_id, target_id)).verify()
