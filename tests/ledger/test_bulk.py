"""Bulk requests: each command has its own result, or the bulk is atomic."""

from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.conftest import Books, Unchanged
from tests.support.client import Answer, Api
from wallets.ledger.commands import AtomicBulk, Deposit, Withdraw
from wallets.ledger.decisions import Posted
from wallets.ledger.execute import execute
from wallets.problems import InsufficientFunds


def deposit(wallet_id: str, amount: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"walletId": wallet_id, "operationType": "DEPOSIT", "amount": amount, **fields}


def withdraw(wallet_id: str, amount: Any = "1", **fields: Any) -> dict[str, Any]:
    return deposit(wallet_id, amount, **fields) | {"operationType": "WITHDRAW"}


def transfer(source_id: str, target_id: str, amount: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"sourceWalletId": source_id, "targetWalletId": target_id, "amount": amount, **fields}


def verdicts(answer: Answer) -> list[tuple[int, str | None, bool]]:
    """Return of each result the status, the problem code and whether it is a replay."""
    assert answer.status == 200, answer
    return [
        (result["status"], result.get("problem", {}).get("code"), result["replayed"])
        for result in answer.json["results"]
    ]


def without_request_ids(answer: Answer) -> list[Any]:
    """Return the results without the fields that differ between a request and its replay."""
    results: list[Any] = answer.json["results"]
    for result in results:
        result.pop("replayed")
        for name in ("requestId", "remaining", "available"):
            result.get("problem", {}).pop(name, None)
    return results


# --- Independent commands ---------------------------------------------------------------------------
def test_results_are_in_the_order_of_the_commands(api: Api) -> None:
    one, other, unknown, euro = api.open(), api.open(), str(uuid4()), api.open(currency="EUR")
    answer = api.bulk(
        withdraw(one, "10"),
        deposit(one, "10"),
        transfer(one, other, "4"),
        withdraw(one, "6.01"),
        deposit(unknown),
        transfer(one, euro, "1"),
        deposit(one, "0.001"),
        withdraw(one, "6"),
    )
    assert verdicts(answer) == [
        (409, "insufficient_funds", False),
        (201, None, False),
        (201, None, False),
        (409, "insufficient_funds", False),
        (404, "wallet_not_found", False),
        (409, "currency_mismatch", False),
        (400, "validation_error", False),
        (201, None, False),
    ]
    assert (api.balance(one), api.balance(other), api.balance(euro)) == ("0.00", "4.00", "0.00")
    Books((one, other, euro)).verify()


def test_result_equals_the_response_of_a_single_request(api: Api) -> None:
    one, other = api.open(deposit="10"), api.open()
    deposited, sent, refused = api.bulk(
        deposit(one, "1", description="x", metadata={"a": 1}), transfer(one, other, "1"), withdraw(one, "99")
    ).json["results"]
    operation, paid = deposited["operation"], sent["transfer"]
    assert api.operation(operation["id"]) == operation
    assert (operation["description"], operation["metadata"]) == ("x", {"a": 1})
    assert api.get(f"/transfers/{paid['id']}").json == paid
    assert refused["problem"]["status"] == refused["status"] == 409
    recorded = api.operation(refused["problem"]["operationId"])
    assert (recorded["status"], recorded["amount"]) == ("REJECTED", "99.00")
    assert {name for result in (deposited, sent, refused) for name in result} == {
        *("status", "replayed"),
        *("operation", "transfer", "problem"),
    }


def test_bulk_may_have_a_thousand_commands(api: Api) -> None:
    one, other = api.open(), api.open()
    commands = [deposit(one, "2") if number % 2 else transfer(one, other) for number in range(1000)]
    answer = api.bulk(*commands)
    # The first transfer finds no money to send; every later one finds enough.
    assert [status for status, _, _ in verdicts(answer)] == [409] + [201] * 999
    assert (api.balance(one), api.balance(other)) == ("501.00", "499.00")
    sequences = [result["operation"]["sequence"] for result in answer.json["results"][1::2]]
    assert sequences == list(range(1, 1000, 2))
    Books((one, other)).verify()


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("count", [0, 1001])
def test_bulk_of_none_or_over_a_thousand_is_refused(
    api: Api, unchanged: Unchanged, count: int, atomic: bool
) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.bulk(*[deposit(wallet_id)] * count, atomic=atomic)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [error["field"] for error in answer.json["errors"]] == ["operations"]


# --- Keys -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("atomic", [False, True])
def test_second_command_with_a_key_is_a_replay(api: Api, atomic: bool) -> None:
    one, other = api.open(deposit="10"), api.open()
    again = [deposit(one, "1", idempotencyKey="a"), transfer(one, other, "2", idempotencyKey="b")]
    answer = api.bulk(*again, *again, atomic=atomic)
    assert verdicts(answer) == [(201, None, False)] * 2 + [(201, None, True)] * 2
    results = without_request_ids(answer)
    assert results[:2] == results[2:]
    assert "idempotent-replayed" not in answer.headers
    assert (api.balance(one), api.balance(other)) == ("9.00", "2.00")
    Books((one, other)).verify()


def test_second_command_with_the_key_of_a_refusal_replays_it(api: Api) -> None:
    wallet_id = api.open()
    refused = withdraw(wallet_id, "1", idempotencyKey="a")
    answer = api.bulk(refused, deposit(wallet_id, "1"), refused)
    assert verdicts(answer) == [
        (409, "insufficient_funds", False),
        (201, None, False),
        (409, "insufficient_funds", True),
    ]
    results = without_request_ids(answer)
    assert results[0] == results[2]


def test_different_command_with_a_key_of_the_bulk_is_refused(api: Api) -> None:
    wallet_id = api.open()
    answer = api.bulk(
        deposit(wallet_id, "1", idempotencyKey="a"),
        deposit(wallet_id, "2", idempotencyKey="a"),
        deposit(wallet_id, "1.0", idempotencyKey="a"),
    )
    assert verdicts(answer) == [
        (201, None, False),
        (422, "idempotency_key_reused", False),
        (201, None, True),
    ]
    assert api.balance(wallet_id) == "1.00"


@pytest.mark.parametrize("atomic", [False, True])
def test_bulk_and_single_requests_share_keys_and_ids(api: Api, unchanged: Unchanged, atomic: bool) -> None:
    wallet_id, chosen = api.open(), str(uuid4())
    alone = [api.deposit(wallet_id, "1", key="a").json, api.deposit(wallet_id, "2", id=chosen).json]
    with unchanged(wallet_id):
        answer = api.bulk(
            deposit(wallet_id, 1, idempotencyKey="a"), deposit(wallet_id, 2, id=chosen), atomic=atomic
        )
        assert verdicts(answer) == [(201, None, True)] * 2
        assert [result["operation"] for result in answer.json["results"]] == alone
        assert answer.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("atomic", [False, True])
def test_header_key_covers_the_whole_bulk(api: Api, unchanged: Unchanged, atomic: bool) -> None:
    one, other = api.open(deposit="10"), api.open()
    commands = [deposit(one), transfer(one, other), withdraw(one, "2", idempotencyKey="own"), deposit(one)]
    first = api.bulk(*commands, key=f"k-{one}", atomic=atomic)
    assert verdicts(first) == [(201, None, False)] * 4
    with unchanged(one, other):
        again = api.bulk(*commands, key=f"k-{one}", atomic=atomic)
        assert verdicts(again) == [(201, None, True)] * 4
        assert without_request_ids(again) == without_request_ids(first)
        assert again.headers["idempotent-replayed"] == "true"
        assert api.withdraw(one, "2", key="own").status == 201


def test_replay_of_a_bulk_includes_its_refusals(api: Api, unchanged: Unchanged) -> None:
    one, other = api.open(), api.open()
    commands = [withdraw(one, "5"), deposit(one, "5"), transfer(one, other, "9")]
    first = api.bulk(*commands, key=f"k-{one}")
    api.deposit(one, "100")
    with unchanged(one, other):
        again = api.bulk(*commands, key=f"k-{one}")
        assert [status for status, _, _ in verdicts(again)] == [409, 201, 409]
        assert without_request_ids(again) == without_request_ids(first)


# --- Atomic bulk ------------------------------------------------------------------------------------
def test_atomic_bulk_carries_out_all_commands(api: Api) -> None:
    one, other, third = api.open(), api.open(), api.open()
    commands = [
        deposit(one, "10"),
        *[deposit(third, "1")] * 3,  # the transfer is later than these
        transfer(one, third, "0.5"),
        transfer(one, other, "9.5"),
        transfer(other, third, "9.5"),
    ]
    assert verdicts(api.bulk(*commands, atomic=True)) == [(201, None, False)] * len(commands)
    assert [api.balance(wallet_id) for wallet_id in (one, other, third)] == ["0.00", "0.00", "13.00"]
    Books((one, other, third)).verify()


def test_atomic_bulk_of_a_thousand_is_all_or_nothing(api: Api, unmoved: Unchanged) -> None:
    one, other = api.open(deposit="1000"), api.open()
    with unmoved(one, other):
        answer = api.bulk(*[transfer(one, other)] * 999, transfer(one, other, "1.01"), atomic=True)
        assert (answer.status, answer.code) == (409, "insufficient_funds")
        assert answer.json["errors"][0]["field"] == "operations.999"
    assert api.bulk(*[transfer(one, other)] * 1000, atomic=True).status == 200
    assert (api.balance(one), api.balance(other)) == ("0.00", "1000.00")
    Books((one, other)).verify()


def test_first_refusal_of_an_atomic_bulk_is_named_and_recorded(api: Api, unmoved: Unchanged) -> None:
    one, other = api.open(deposit="10"), api.open()
    with unmoved(one, other):
        answer = api.bulk(
            deposit(one), transfer(one, other, "11"), withdraw(one, "12"), withdraw(one, "99"), atomic=True
        )
        assert (answer.status, answer.code) == (409, "insufficient_funds")
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [
            ("operations.2", "insufficient_funds")
        ]
    (recorded,) = api.history(one, "status=REJECTED")
    assert (recorded["id"], recorded["amount"]) == (answer.json["operationId"], "12.00")


@pytest.mark.parametrize(
    ("last", "code", "field"),
    [
        ({"walletId": str(uuid4())}, "wallet_not_found", "operations.1"),
        ({"idempotencyKey": "used"}, "idempotency_key_reused", "operations.1"),
        ({"amount": "0.001"}, "validation_error", "operations.1.amount"),
    ],
)
def test_unrecorded_refusal_of_an_atomic_bulk_leaves_no_trace(
    api: Api, unchanged: Unchanged, last: dict[str, str], code: str, field: str
) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, "7", key="used")
    with unchanged(wallet_id):
        answer = api.bulk(deposit(wallet_id), deposit(wallet_id) | last, atomic=True)
        assert answer.status == (400 if code == "validation_error" else 409)
        assert (answer.code, answer.json["errors"][0]["field"]) == (code, field)


def test_replay_of_a_refused_atomic_bulk_is_refused_alike(api: Api, unchanged: Unchanged) -> None:
    one, other = api.open(deposit="5"), api.open()
    commands = [withdraw(one, "5"), withdraw(other, "5")]
    first = api.bulk(*commands, atomic=True, key=f"k-{one}")
    assert first.json["errors"][0]["field"] == "operations.1"
    api.deposit(other, "5")  # the refused command could be carried out now
    with unchanged(one, other):
        assert refusal(api.bulk(*commands, atomic=True, key=f"k-{one}")) == refusal(first)
    api.withdraw(one, "5")  # the other command would be refused now
    with unchanged(one, other):
        again = api.bulk(*commands, atomic=True, key=f"k-{one}")
        assert refusal(again) == refusal(first)
        assert again.headers["idempotent-replayed"] == "true"


def refusal(answer: Answer) -> tuple[int, str, str, Any]:
    problem = answer.json
    return answer.status, answer.code, problem["operationId"], problem["errors"]


def test_replayed_refusal_refuses_the_atomic_bulk(api: Api, unchanged: Unchanged) -> None:
    one, other = api.open(deposit="5"), api.open()
    alone = api.withdraw(other, "5", key="a")
    with unchanged(one, other):
        answer = api.bulk(withdraw(one, "5"), withdraw(other, "5", idempotencyKey="a"), atomic=True)
        assert answer.json["errors"][0]["field"] == "operations.1"
        assert answer.json["operationId"] == alone.json["operationId"]


def test_keys_of_rolled_back_commands_stay_free(api: Api) -> None:
    wallet_id = api.open()
    api.bulk(
        deposit(wallet_id, "1", idempotencyKey="a"),
        withdraw(wallet_id, "2", idempotencyKey="b"),
        deposit(wallet_id, "3", idempotencyKey="c"),
        atomic=True,
    )
    assert api.deposit(wallet_id, "9", key="a").status == 201
    assert api.withdraw(wallet_id, "2", key="b").code == "insufficient_funds"
    assert api.deposit(wallet_id, "9", key="c").status == 201
    Books((wallet_id,)).verify()


def test_refused_atomic_bulk_does_not_affect_later_commands(api: Api) -> None:
    """Sequences and balances continue from their values before the bulk."""
    wallet_id = api.open(deposit="1")
    api.bulk(deposit(wallet_id, "50"), withdraw(wallet_id, "99"), atomic=True)
    after = api.withdraw(wallet_id, "1").json
    assert (after["sequence"], after["balance"]) == (2, "0.00")
    assert api.withdraw(wallet_id, "0.01").status == 409
    Books((wallet_id,)).verify()


def test_refused_atomic_bulk_is_invisible_within_its_transaction(api: Api) -> None:
    wallet_id = UUID(api.open())
    command = Deposit(wallet_id=wallet_id, amount=Decimal(1), key="a")
    too_much = Withdraw(wallet_id=wallet_id, amount=Decimal(2))
    refused, posted, again = execute(
        [AtomicBulk(commands=(command, too_much)), replace(command, id=uuid4()), replace(command, id=uuid4())]
    )
    assert isinstance(refused, InsufficientFunds)
    assert isinstance(posted, Posted)
    assert isinstance(again, Posted)
    assert (posted.replayed, posted.operation.sequence) == (False, 1)
    assert (again.replayed, again.operation) == (True, posted.operation)
    Books((str(wallet_id),)).verify()


# --- Validation -------------------------------------------------------------------------------------
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"amount": "x"}, "operations.1.amount", "invalid_amount"),
        ({"amount": "-1"}, "operations.1.amount", "invalid_amount"),
        ({"walletId": "x"}, "operations.1.walletId", "invalid_id"),
        ({"operationType": "GIFT"}, "operations.1.operationType", "unknown_value"),
        ({"operationType": "CAPTURE"}, "operations.1.operationType", "unknown_value"),
        ({"idempotencyKey": ""}, "operations.1.idempotencyKey", "invalid"),
        ({"idempotencyKey": "a b"}, "operations.1.idempotencyKey", "invalid"),
        ({"idempotencyKey": "x" * 256}, "operations.1.idempotencyKey", "invalid"),
        ({"id": "x"}, "operations.1.id", "invalid_id"),
        ({"id": str(uuid4()), "idempotencyKey": "a"}, "operations.1.id", "conflict"),
        ({"note": "x"}, "operations.1.note", "unknown_field"),
        ({"metadata": {"a": {"b": "\u0000"}}}, "operations.1.metadata", "invalid_text"),
    ],
)
def test_invalid_command_is_named_by_its_index(  # noqa: PLR0913, PLR0917
    api: Api, unchanged: Unchanged, change: dict[str, Any], field: str, code: str, atomic: bool
) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.bulk(deposit(wallet_id), deposit(wallet_id) | change, atomic=atomic)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]


def test_invalid_transfer_is_named_by_its_index(api: Api, unchanged: Unchanged) -> None:
    one, other = api.open(deposit="5"), api.open()
    with unchanged(one, other):
        answer = api.bulk(
            transfer(one, other),
            transfer(one, "x"),
            transfer(one, one),
            {"sourceWalletId": one, "amount": "1"},
        )
        assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [
            ("operations.1.targetWalletId", "invalid_id"),
            ("operations.2", "same_wallet"),
            ("operations.3.targetWalletId", "required"),
        ]


@pytest.mark.parametrize("item", [None, 1, "x", [], [{}], {}])
def test_item_that_is_no_command_is_refused(api: Api, unchanged: Unchanged, item: Any) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.bulk(deposit(wallet_id), item)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert {error["field"].split(".")[1] for error in answer.json["errors"]} == {"1"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"operations": None},
        {"operations": {}},
        {"operations": "x"},
        {"operations": [], "atomic": True},
        {"atomic": True},
    ],
)
def test_body_without_a_list_of_commands_is_refused(api: Api, body: dict[str, Any]) -> None:
    answer = api.post("/operations", body)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.json["errors"]] == ["operations"]


@pytest.mark.parametrize("atomic", ["true", 1, 0])
def test_atomic_is_true_or_false(api: Api, unchanged: Unchanged, atomic: Any) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.bulk(deposit(wallet_id), atomic=atomic)
        assert (answer.status, answer.json["errors"][0]["field"]) == (400, "atomic")


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        ({"operations": ["x"]}, "operations.0", "must be an object"),
        ({"operations": {}}, "operations", "must be an array"),
        ({"operations": [], "atomic": "yes"}, "atomic", "must be true or false"),
    ],
)
def test_wrong_type_is_described_in_json_terms(
    api: Api, body: dict[str, Any], field: str, detail: str
) -> None:
    answer = api.post("/operations", body)
    assert answer.code == "validation_error"
    assert {"field": field, "code": "invalid_type", "detail": detail} in answer.json["errors"]
