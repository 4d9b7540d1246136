"""Reversals: the opposite movement, whole or partial, in total never more than the original."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

from tests.conftest import Books, Unchanged
from tests.ledger.test_idempotency import repeated
from tests.support.client import UNKNOWN_ID, Api
from wallets.ledger.inbox import drain


@dataclass(frozen=True)
class MovedMoney:
    """An operation that has moved 40, with the balance of its wallet before and after."""

    operation_id: str
    wallet_id: str
    before: str
    now: str
    other_id: str | None = None

    @property
    def wallet_ids(self) -> tuple[str, ...]:
        return (self.wallet_id, self.other_id) if self.other_id else (self.wallet_id,)


def deposit(api: Api) -> MovedMoney:
    wallet_id = api.open(deposit="100")
    return MovedMoney(api.deposit(wallet_id, "40").json["id"], wallet_id, "100.00", "140.00")


def withdrawal(api: Api) -> MovedMoney:
    wallet_id = api.open(deposit="100")
    return MovedMoney(api.withdraw(wallet_id, "40").json["id"], wallet_id, "100.00", "60.00")


def captured(api: Api) -> MovedMoney:
    """Capture 40 of a hold of 50."""
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "50").json["id"]
    return MovedMoney(api.capture(hold_id, "40").json["id"], wallet_id, "100.00", "60.00")


def transfer_out(api: Api) -> MovedMoney:
    source_id, target_id = api.open(deposit="100"), api.open(deposit="100")
    operation_id = api.transfer(source_id, target_id, "40").json["source"]["id"]
    return MovedMoney(operation_id, source_id, "100.00", "60.00", target_id)


def transfer_in(api: Api) -> MovedMoney:
    source_id, target_id = api.open(deposit="100"), api.open(deposit="100")
    operation_id = api.transfer(source_id, target_id, "40").json["target"]["id"]
    return MovedMoney(operation_id, target_id, "100.00", "140.00", source_id)


Move = Callable[[Api], MovedMoney]
MOVES = [deposit, withdrawal, captured, transfer_out, transfer_in]
OF_TWO = [transfer_out, transfer_in]


# --- Effects ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("move", MOVES)
def test_whole_reversal_restores_the_balance(api: Api, unmoved: Unchanged, move: Move) -> None:
    moved = move(api)
    assert api.balance(moved.wallet_id) == moved.now
    answer = api.reverse(moved.operation_id)
    operation = answer.json
    assert (answer.status, answer.headers["location"]) == (201, f"/api/v1/operations/{operation['id']}")
    kind = "REVERSAL_OUT" if moved.now == "140.00" else "REVERSAL_IN"
    assert (operation["operationType"], operation["amount"]) == (kind, "40.00")
    assert (operation["balance"], operation["reversesId"]) == (moved.before, moved.operation_id)
    assert operation["counterpartyWalletId"] == moved.other_id
    assert api.operation(operation["id"]) == operation
    assert [api.balance(wallet_id) for wallet_id in moved.wallet_ids] == ["100.00"] * len(moved.wallet_ids)
    with unmoved(*moved.wallet_ids):
        assert api.reverse(moved.operation_id).code == "reversal_exceeds_original"
        assert api.reverse(moved.operation_id, "0.01").code == "reversal_exceeds_original"


@pytest.mark.parametrize("move", MOVES)
def test_partial_reversals_never_exceed_the_original(api: Api, unmoved: Unchanged, move: Move) -> None:
    moved = move(api)
    with unmoved(*moved.wallet_ids):
        assert api.reverse(moved.operation_id, "40.01").code == "reversal_exceeds_original"
    assert api.reverse(moved.operation_id, "15").status == 201
    assert api.reverse(moved.operation_id, "24.99").status == 201
    with unmoved(*moved.wallet_ids):
        assert api.reverse(moved.operation_id, "0.02").code == "reversal_exceeds_original"
    assert api.reverse(moved.operation_id).json["amount"] == "0.01"
    assert api.balance(moved.wallet_id) == moved.before
    Books(moved.wallet_ids).verify()


def test_reversal_of_either_side_reverses_the_transfer(api: Api, unmoved: Unchanged) -> None:
    source_id, target_id = api.open(deposit="100"), api.open()
    transfer = api.transfer(source_id, target_id, "40").json
    from_source = api.reverse(transfer["source"]["id"], "10").json
    from_target = api.reverse(transfer["target"]["id"], "20").json
    assert (from_source["operationType"], from_source["balance"]) == ("REVERSAL_IN", "70.00")
    assert (from_target["operationType"], from_target["balance"]) == ("REVERSAL_OUT", "10.00")
    ours, theirs = api.history(source_id)[:2], api.history(target_id)[:2]
    assert [item["reversesId"] for item in ours] == [transfer["source"]["id"]] * 2
    assert [item["reversesId"] for item in theirs] == [transfer["target"]["id"]] * 2
    assert [item["transferId"] for item in ours] == [item["transferId"] for item in theirs]
    with unmoved(source_id, target_id):
        for side in ("source", "target"):
            assert api.reverse(transfer[side]["id"], "10.01").code == "reversal_exceeds_original"
    assert api.reverse(transfer["id"]).json["amount"] == "10.00"
    assert (api.balance(source_id), api.balance(target_id)) == ("100.00", "0.00")
    Books((source_id, target_id)).verify()


@pytest.mark.parametrize(("currency", "part", "left"), [("JPY", "15", "25"), ("KWD", "0.001", "39.999")])
def test_reversal_has_the_digits_of_its_currency(api: Api, currency: str, part: str, left: str) -> None:
    wallet_id = api.open(currency=currency)
    operation_id = api.deposit(wallet_id, "40").json["id"]
    assert api.reverse(operation_id, part).json["balance"] == left
    assert api.reverse(operation_id).json["amount"] == left


# --- Refusals ---------------------------------------------------------------------------------------
def test_reversal_cannot_be_reversed(api: Api, unmoved: Unchanged) -> None:
    for move in MOVES:
        moved = move(api)
        reversal_id = api.reverse(moved.operation_id, "10").json["id"]
        with unmoved(*moved.wallet_ids):
            assert api.reverse(reversal_id).code == "operation_not_reversible"


def test_operation_that_moved_no_money_cannot_be_reversed(api: Api, unmoved: Unchanged) -> None:
    wallet_id, other_id = api.open(deposit="100"), api.open()
    hold_id = api.hold(wallet_id, "40").json["id"]
    api.void(hold_id)
    (void,) = api.history(wallet_id, "type=VOID")
    rejected = [
        api.withdraw(wallet_id, "1000").json["operationId"],
        api.transfer(wallet_id, other_id, "1000").json["operationId"],
        api.capture(hold_id).json["operationId"],
    ]
    with unmoved(wallet_id, other_id):
        for operation_id in (hold_id, void["id"], *rejected):
            for amount in (None, "1"):
                answer = api.reverse(operation_id, amount)
                assert (answer.status, answer.code) == (409, "operation_not_reversible")
                recorded = api.operation(answer.json["operationId"])
                assert (recorded["reversesId"], recorded["status"]) == (operation_id, "REJECTED")


@pytest.mark.parametrize("operation_id", [UNKNOWN_ID, "x"])
def test_reversal_of_an_unknown_operation_is_not_found(api: Api, operation_id: str) -> None:
    answer = api.reverse(operation_id)
    assert (answer.status, answer.code) == (404, "operation_not_found")


@pytest.mark.parametrize(("amount", "code"), [("0", "out_of_range"), ("0.001", "too_many_digits")])
def test_reversal_of_an_invalid_amount_leaves_no_trace(
    api: Api, unchanged: Unchanged, amount: str, code: str
) -> None:
    moved = deposit(api)
    with unchanged(moved.wallet_id):
        answer = api.reverse(moved.operation_id, amount, key="k")
        assert (answer.status, answer.json["errors"][0]["code"]) == (400, code)
    assert api.reverse(moved.operation_id, "1", key="k").status == 201


@pytest.mark.parametrize("way", ["withdrawn", "held"])
@pytest.mark.parametrize("move", [deposit, transfer_in, transfer_out])
def test_reversal_beyond_available_is_refused(api: Api, unmoved: Unchanged, move: Move, way: str) -> None:
    moved = move(api)
    payer_id = moved.other_id if move is transfer_out else moved.wallet_id
    assert payer_id
    (api.withdraw if way == "withdrawn" else api.hold)(payer_id, "100.01")
    with unmoved(*moved.wallet_ids):
        assert api.reverse(moved.operation_id).code == "insufficient_funds"
    assert api.reverse(moved.operation_id, "39.99").status == 201
    Books(moved.wallet_ids).verify()


def test_reversal_respects_the_balance_limit(api: Api, unmoved: Unchanged) -> None:
    wallet_id, other_id = api.open(deposit="100", maxBalance="100"), api.open()
    withdrawn = api.withdraw(wallet_id, "40").json["id"]
    sent = api.transfer(wallet_id, other_id, "40").json["target"]["id"]
    api.deposit(wallet_id, "60.01")
    with unmoved(wallet_id, other_id):
        for operation_id in (withdrawn, sent):
            assert api.reverse(operation_id).code == "balance_limit_exceeded"
    assert api.reverse(sent, "19.99").status == 201
    assert api.balance(wallet_id) == "100.00"
    Books((wallet_id, other_id)).verify()


@pytest.mark.parametrize("move", MOVES)
def test_reversal_to_a_frozen_wallet_is_refused(api: Api, unmoved: Unchanged, move: Move) -> None:
    for number in range(len(move(api).wallet_ids)):
        moved = move(api)
        api.patch(f"/wallets/{moved.wallet_ids[number]}", {"status": "FROZEN"})
        with unmoved(*moved.wallet_ids):
            assert api.reverse(moved.operation_id).code == "wallet_frozen"


@pytest.mark.parametrize("is_own", [True, False])
def test_reversal_to_a_closed_wallet_is_refused(api: Api, unmoved: Unchanged, is_own: bool) -> None:
    source_id, target_id = api.open(deposit="40"), api.open()
    transfer = api.transfer(source_id, target_id, "40").json
    api.patch(f"/wallets/{source_id}", {"status": "CLOSED"})
    with unmoved(source_id, target_id):
        side = "source" if is_own else "target"
        assert api.reverse(transfer[side]["id"]).code == "wallet_closed"


# --- Replays ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("amount", [None, "10"])
@pytest.mark.parametrize("move", MOVES)
def test_replayed_reversal_gets_the_first_response(
    api: Api, unchanged: Unchanged, move: Move, amount: str | None
) -> None:
    moved = move(api)
    first = api.reverse(moved.operation_id, amount, key="k")
    api.reverse(moved.operation_id)  # the remaining amount
    with unchanged(*moved.wallet_ids):
        again = api.reverse(moved.operation_id, amount, key="k")
        assert (again.status, again.content) == (201, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert api.reverse(moved.operation_id, "11", key="k").code == "idempotency_key_reused"


@pytest.mark.parametrize(("first", "second"), [(None, "40"), ("40", None)])
def test_reversal_of_all_differs_from_reversal_of_the_same_amount(
    api: Api, unchanged: Unchanged, first: str | None, second: str | None
) -> None:
    moved = deposit(api)
    api.reverse(moved.operation_id, first, key="k")
    with unchanged(moved.wallet_id):
        assert api.reverse(moved.operation_id, second, key="k").code == "idempotency_key_reused"


def test_key_of_a_reversal_of_another_operation_is_refused(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    one, other = (api.deposit(wallet_id, "40").json["id"] for _ in range(2))
    api.reverse(one, key="k")
    with unchanged(wallet_id):
        assert api.reverse(other, key="k").code == "idempotency_key_reused"
        assert api.withdraw(wallet_id, "40", key="k").code == "idempotency_key_reused"


@pytest.mark.parametrize("move", OF_TWO)
def test_key_belongs_to_the_reversed_side(api: Api, move: Move) -> None:
    moved = move(api)
    assert moved.other_id
    api.reverse(moved.operation_id, "10", key="k")
    assert api.deposit(moved.other_id, "1", key="k").status == 201
    assert api.deposit(moved.wallet_id, "1", key="k").code == "idempotency_key_reused"


@pytest.mark.parametrize("amount", [None, "40"])
def test_refused_reversal_is_replayed_after_its_reason_has_passed(
    api: Api, unchanged: Unchanged, amount: str | None
) -> None:
    moved = deposit(api)
    api.withdraw(moved.wallet_id, "110")
    first = api.reverse(moved.operation_id, amount, key="k")
    api.deposit(moved.wallet_id, "110")
    with unchanged(moved.wallet_id):
        again = api.reverse(moved.operation_id, amount, key="k")
        assert again.code == "insufficient_funds"
        assert repeated(again.json) == repeated(first.json)
    assert api.reverse(moved.operation_id, amount, key="k2").status == 201


def test_client_id_of_a_reversal_is_both_id_and_key(api: Api, unchanged: Unchanged) -> None:
    moved, chosen = transfer_out(api), str(uuid4())
    first = api.reverse(moved.operation_id, id=chosen)
    assert (first.json["id"], first.json["idempotencyKey"]) == (chosen, chosen)
    with unchanged(*moved.wallet_ids):
        assert api.reverse(moved.operation_id, id=chosen).content == first.content


def test_accepted_reversal_of_all_is_replayed_with_its_response(api: Api) -> None:
    moved = deposit(api)
    path, headers = f"/operations/{moved.operation_id}/reversal", {"Idempotency_Key": "k"}
    accepted = api.post(path, {}, Prefer="respond-async", **headers)
    assert (accepted.status, accepted.json["amount"]) == (202, "40.00")
    api.reverse(moved.operation_id, "15")
    assert api.post(path, {}, **headers).content == accepted.content
    while api.operation(accepted.json["id"])["status"] == "PENDING":
        drain(100)
    assert api.post(path, {}, **headers).content == accepted.content
    carried_out = api.operation(accepted.json["id"])
    assert (carried_out["amount"], carried_out["balance"]) == ("25.00", "100.00")
    Books((moved.wallet_id,)).verify()
