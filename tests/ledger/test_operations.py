"""Deposits and withdrawals: responses, refusals and history."""

from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Books, Unchanged
from tests.support.client import UNKNOWN_ID, Api


def test_response_shows_the_stored_operation(api: Api) -> None:
    wallet_id = api.open()
    answer = api.deposit(wallet_id, "1000", key="order-1", description="Пополнение", metadata={"n": 1})
    operation = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/operations/{operation['id']}"
    assert operation == {
        "id": operation["id"],
        "walletId": wallet_id,
        "sequence": 1,
        "operationType": "DEPOSIT",
        "amount": "1000.00",
        "currency": "RUB",
        "status": "COMPLETED",
        "reason": None,
        "balance": "1000.00",
        "transferId": None,
        "counterpartyWalletId": None,
        "holdId": None,
        "reversesId": None,
        "idempotencyKey": "order-1",
        "reference": "",
        "description": "Пополнение",
        "metadata": {"n": 1},
        "createdAt": operation["createdAt"],
    }
    assert api.operation(operation["id"]) == operation
    wallet = api.wallet(wallet_id)
    assert (wallet["balance"], wallet["sequence"], wallet["updatedAt"]) == (
        "1000.00",
        1,
        operation["createdAt"],
    )


@pytest.mark.parametrize("amount", ["10.0000", "10." + "0" * 30, "10.00000"])
def test_zeros_after_the_digits_of_the_currency_are_no_rounding(api: Api, amount: str) -> None:
    wallet_id = api.open(currency="EUR", maxBalance="100.000")
    answer = api.deposit(wallet_id, amount)
    assert (answer.status, answer.json["amount"], answer.json["balance"]) == (201, "10.00", "10.00")
    held = api.hold(wallet_id, "1.000").json
    assert api.capture(held["id"], "0.500").json["amount"] == "0.50"
    assert api.reverse(answer.json["id"], "1.000").json["amount"] == "1.00"
    Books((wallet_id,)).verify()


@pytest.mark.parametrize("spelling", ["walletId", "valletId"])
def test_wallet_may_be_named_in_the_body(api: Api, spelling: str) -> None:
    wallet_id = api.open()
    answer = api.post("/wallet", {spelling: wallet_id, "operationType": "DEPOSIT", "amount": 1000})
    assert (answer.status, answer.json["balance"]) == (201, "1000.00")


@pytest.mark.parametrize(
    "body",
    [
        {"operationType": "DEPOSIT", "amount": 1},
        {"walletId": "x", "operationType": "DEPOSIT", "amount": 1},
        {"walletId": str(uuid4()), "valletId": str(uuid4()), "operationType": "DEPOSIT", "amount": 1},
    ],
)
def test_body_must_name_one_wallet(api: Api, body: dict[str, Any]) -> None:
    assert api.post("/wallet", body).code == "validation_error"


def test_unknown_wallet_in_the_body_is_not_found(api: Api) -> None:
    body = {"walletId": str(uuid4()), "operationType": "DEPOSIT", "amount": 1}
    assert api.post("/wallet", body).code == "wallet_not_found"


@pytest.mark.parametrize("amount", [b"115.6", b"115.60", b'"115.60"', b'"115.6"'])
def test_amount_is_parsed_from_its_text(api: Api, amount: bytes) -> None:
    wallet_id = api.open()
    body = b'{"operationType": "DEPOSIT", "amount": %s}' % amount
    answer = api.sender.send("POST", f"/api/v1/wallets/{wallet_id}/operation", body)
    assert answer.json["amount"] == "115.60"


def test_amount_has_the_digits_of_its_currency(api: Api) -> None:
    yen, dinar = api.open(currency="JPY"), api.open(currency="KWD")
    assert api.deposit(yen, "100").json["balance"] == "100"
    assert api.deposit(dinar, "1.234").json["balance"] == "1.234"


@pytest.mark.parametrize(
    ("currency", "amount"), [("JPY", "1.5"), ("RUB", "0.001"), ("RUB", "10.001"), ("KWD", "1.2345")]
)
def test_invalid_amount_is_refused_and_leaves_no_trace(
    api: Api, unchanged: Unchanged, currency: str, amount: str
) -> None:
    wallet_id = api.open(currency=currency)
    with unchanged(wallet_id):
        answer = api.deposit(wallet_id, amount, key="k")
        assert (answer.status, answer.code) == (400, "validation_error")
        assert answer.json["errors"][0]["field"] == "amount"
    assert api.deposit(wallet_id, "1", key="k").status == 201  # the key is still free


def test_withdraw_beyond_available_is_refused_and_recorded(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    answer = api.withdraw(wallet_id, "100.01")
    assert (answer.status, answer.code) == (409, "insufficient_funds")
    recorded = api.operation(answer.json["operationId"])
    assert (recorded["status"], recorded["reason"]) == ("REJECTED", "insufficient_funds")
    assert (recorded["sequence"], recorded["balance"]) == (None, None)
    wallet = api.wallet(wallet_id)
    assert (wallet["balance"], wallet["sequence"]) == ("100.00", 1)
    assert api.withdraw(wallet_id, "100").json["balance"] == "0.00"


def test_balance_stays_between_overdraft_and_maximum(api: Api) -> None:
    wallet_id = api.open(overdraftLimit="50", maxBalance="150")
    assert api.withdraw(wallet_id, "50").json["balance"] == "-50.00"
    assert api.withdraw(wallet_id, "0.01").code == "insufficient_funds"
    assert api.deposit(wallet_id, "200").json["balance"] == "150.00"
    assert api.deposit(wallet_id, "0.01").code == "balance_limit_exceeded"
    Books((wallet_id,)).verify()


def test_largest_amount_can_be_moved(api: Api) -> None:
    wallet_id = api.open()
    assert api.deposit(wallet_id, 1000000000000).status == 201
    assert api.deposit(wallet_id, "1000000000000.01").json["errors"][0]["code"] == "out_of_range"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("operationType", "deposit"),
        ("operationType", "TRANSFER_IN"),
        ("operationType", None),
        ("operationType", ["DEPOSIT"]),
        ("description", "x" * 501),
        ("description", 5),
        ("id", 5),
        ("walletId", UNKNOWN_ID),
        ("balance", "5"),
        ("actor", "operator:root"),
    ],
)
def test_invalid_field_is_named_and_changes_nothing(
    api: Api, unchanged: Unchanged, field: str, value: Any
) -> None:
    wallet_id = api.open()
    body = {"operationType": "DEPOSIT", "amount": 1} | {field: value}
    with unchanged(wallet_id):
        answer = api.post(f"/wallets/{wallet_id}/operation", body)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert answer.json["errors"][0]["field"] == field


def test_sql_in_a_field_is_stored_as_text(api: Api) -> None:
    text = "'); DROP TABLE wallet; -- %s %(a)s {} \\ \" ` $1"
    wallet_id = api.open(label=text, metadata={text: text})
    operation = api.deposit(
        wallet_id, 1, key="';DROP-TABLE/**/operation;--%s", description=text, metadata={text: [text]}
    )
    assert operation.json["description"] == text
    assert operation.json["metadata"] == {text: [text]}
    assert (
        api.deposit(
            wallet_id, 1, key="';DROP-TABLE/**/operation;--%s", description=text, metadata={text: [text]}
        ).json
        == operation.json
    )
    assert api.wallet(wallet_id)["label"] == text


@pytest.mark.parametrize("operation_id", [UNKNOWN_ID, "x"])
def test_unknown_operation_is_not_found(api: Api, operation_id: str) -> None:
    assert api.get(f"/operations/{operation_id}").code == "operation_not_found"


# --- History ----------------------------------------------------------------------------------------
def test_history_is_newest_first_without_gaps(api: Api) -> None:
    wallet_id = api.open(deposit="5")
    for _ in range(4):
        api.withdraw(wallet_id, 2)
    history = api.history(wallet_id)
    assert [item["sequence"] for item in history] == [None, None, 3, 2, 1]
    times = [item["createdAt"] for item in history]
    assert times == sorted(set(times), reverse=True)


def test_history_is_filtered(api: Api) -> None:
    wallet_id = api.open(deposit="5")
    first = api.withdraw(wallet_id, 1).json
    api.withdraw(wallet_id, 100)
    last = api.deposit(wallet_id, 1).json
    everything = api.history(wallet_id)
    assert len(everything) == 4
    assert [item["id"] for item in api.history(wallet_id, "type=DEPOSIT")] == [
        last["id"],
        everything[3]["id"],
    ]
    assert [item["reason"] for item in api.history(wallet_id, "status=REJECTED")] == ["insufficient_funds"]
    between = f"from={first['createdAt']}&to={last['createdAt']}"
    assert [item["id"] for item in api.history(wallet_id, between)] == [everything[1]["id"], first["id"]]
    assert api.history(wallet_id, f"{between}&status=COMPLETED") == [first]


def test_cursor_keeps_its_filters_during_inserts(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    withdrawals = [api.withdraw(wallet_id, 1).json["id"] for _ in range(5)]
    path = f"/wallets/{wallet_id}/operations"
    page = api.get(f"{path}?type=WITHDRAW&limit=2").json
    seen = [item["id"] for item in page["items"]]
    while page["nextCursor"]:
        api.withdraw(wallet_id, 1)
        api.deposit(wallet_id, 1)
        page = api.get(f"{path}?limit=2&cursor={page['nextCursor']}").json
        seen += [item["id"] for item in page["items"]]
    assert seen == withdrawals[::-1]


def test_cursor_with_other_filters_is_refused(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    api.withdraw(wallet_id, 1)
    path = f"/wallets/{wallet_id}/operations"
    cursor = api.get(f"{path}?status=COMPLETED&limit=1").json["nextCursor"]
    assert api.get(f"{path}?status=COMPLETED&cursor={cursor}").status == 200
    assert api.get(f"{path}?status=REJECTED&cursor={cursor}").code == "validation_error"


@pytest.mark.parametrize(
    "query",
    [
        *("type=X", "type=DEPOSIT%00", "status=PENDING", "sort=asc", "from=2026-01-01T00:00:00Z&from=x"),
        *("from=yesterday", "from=1700000000", "to=2026-01-01", "from=2026-01-01T00:00:00"),
        *("from=2026-13-01T00:00:00Z", "to=0001-01-01T00:00:00%2B23:00"),
        "from=%D9%A2%D9%A0%D9%A2%D9%A6-01-01T00:00:00Z",  # Arabic digits
    ],
)
def test_invalid_filter_is_refused(api: Api, query: str) -> None:
    answer = api.get(f"/wallets/{api.open()}/operations?{query}")
    assert (answer.status, answer.code) == (400, "validation_error")
