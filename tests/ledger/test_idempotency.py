"""An idempotency key counts once: the same request is replayed, a different request is refused."""

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.conftest import Books, Unchanged
from tests.support.client import Api
from wallets.ledger.commands import (
    AtomicBulk,
    CaptureHold,
    Command,
    Deposit,
    MakeTransfer,
    PlaceHold,
    Reverse,
    VoidHold,
)
from wallets.ledger.execute import execute
from wallets.ledger.lookups import original
from wallets.problems import Problem


def test_replay_gets_the_first_response_and_moves_no_money(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    first = api.deposit(wallet_id, "10", key="k")
    api.deposit(wallet_id, "5")
    with unchanged(wallet_id):
        for spelling in ("10", "10.0", "10.00", "10.0000", "10." + "0" * 30, 10, 10.0):
            again = api.deposit(wallet_id, spelling, key="k")
            assert (again.status, again.json) == (201, first.json)
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers


def test_refusal_is_replayed_after_its_reason_has_passed(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    first = api.withdraw(wallet_id, "10", key="k")
    api.deposit(wallet_id, "100")
    with unchanged(wallet_id):
        again = api.withdraw(wallet_id, "10", key="k")
        assert (first.status, again.status) == (409, 409)
        assert again.headers["idempotent-replayed"] == "true"
        assert repeated(again.json) == repeated(first.json)


def repeated(problem: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a problem that every replay of it has."""
    own = ("requestId", "remaining", "available")
    return {name: value for name, value in problem.items() if name not in own}


@pytest.mark.parametrize(
    "reason", ["wallet_frozen", "wallet_closed", "balance_limit_exceeded", "insufficient_funds"]
)
def test_every_refusal_of_a_rule_is_replayed(api: Api, reason: str) -> None:
    wallet_id = api.open(maxBalance="0")
    if reason in ("wallet_frozen", "wallet_closed"):
        api.patch(f"/wallets/{wallet_id}", {"status": reason[7:].upper()})
    move = api.deposit if reason == "balance_limit_exceeded" else api.withdraw
    first, again = move(wallet_id, 1, key="k"), move(wallet_id, 1, key="k")
    assert first.code == again.code == reason
    assert first.json["operationId"] == again.json["operationId"]


@pytest.mark.parametrize(
    "other",
    [{"amount": "10.01"}, {"operationType": "WITHDRAW"}, {"description": "x"}, {"metadata": {"a": 1}}],
)
def test_key_of_a_different_request_is_refused(api: Api, unchanged: Unchanged, other: dict[str, Any]) -> None:
    wallet_id = api.open()
    body = {"operationType": "DEPOSIT", "amount": "10"}
    path = f"/wallets/{wallet_id}/operation"
    api.post(path, body, Idempotency_Key="k")
    with unchanged(wallet_id):
        answer = api.post(path, body | other, Idempotency_Key="k")
        assert (answer.status, answer.code) == (422, "idempotency_key_reused")


def test_metadata_is_compared_as_json(api: Api) -> None:
    wallet_id = api.open()
    api.deposit(wallet_id, 1, key="k", metadata={"a": 1, "b": 1.5})
    assert api.deposit(wallet_id, 1, key="k", metadata={"b": 1.5, "a": 1}).status == 201
    assert api.deposit(wallet_id, 1, key="k", metadata={"a": True, "b": 1.5}).status == 422


def test_key_used_on_one_wallet_is_free_on_another(api: Api) -> None:
    one, other = api.open(), api.open()
    first, second = api.deposit(one, 1, key="k"), api.deposit(other, 2, key="k")
    assert (first.status, second.status) == (201, 201)
    assert first.json["id"] != second.json["id"]


def test_every_request_without_a_key_counts(api: Api) -> None:
    wallet_id = api.open()
    for _ in range(3):
        api.deposit(wallet_id, 1)
    assert api.balance(wallet_id) == "3.00"


def test_key_may_be_quoted(api: Api) -> None:
    wallet_id = api.open()
    first = api.deposit(wallet_id, 1, key='"order 1"'.replace(" ", "-"))
    assert first.json["idempotencyKey"] == "order-1"
    assert api.deposit(wallet_id, 1, key="order-1").json == first.json


def test_longest_key_is_accepted(api: Api) -> None:
    wallet_id = api.open()
    assert api.deposit(wallet_id, 1, key="~" * 255).status == 201


@pytest.mark.parametrize("key", ["", '""', "a b", "я", "x" * 256, '"' + "x" * 256 + '"', '"a"b"', "a\tb"])
def test_invalid_key_is_refused(api: Api, unchanged: Unchanged, key: str) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.deposit(wallet_id, 1, key=key)
        assert (answer.status, answer.code) == (400, "validation_error")
        assert answer.json["errors"][0]["field"] == "Idempotency-Key"


# --- Client ids -------------------------------------------------------------------------------------
def test_client_id_is_both_id_and_key(api: Api, unchanged: Unchanged) -> None:
    wallet_id, chosen = api.open(), str(uuid4())
    first = api.deposit(wallet_id, 1, id=chosen)
    assert (first.json["id"], first.json["idempotencyKey"]) == (chosen, chosen)
    with unchanged(wallet_id):
        assert api.deposit(wallet_id, 1, id=chosen).json == first.json
        assert api.deposit(wallet_id, 1, key=chosen).json == first.json
        assert api.deposit(wallet_id, 2, id=chosen).code == "idempotency_key_reused"


def test_client_id_names_one_operation_in_all_wallets(api: Api, unchanged: Unchanged) -> None:
    one, other, chosen = api.open(), api.open(), str(uuid4())
    api.deposit(one, 1, id=chosen)
    with unchanged(one, other):
        assert api.deposit(other, 1, id=chosen).code == "idempotency_key_reused"


def test_id_that_the_service_generated_is_taken(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    made = api.deposit(wallet_id, 1).json["id"]
    with unchanged(wallet_id):
        assert api.deposit(wallet_id, 2, id=made).code == "idempotency_key_reused"


def test_id_together_with_a_key_is_refused(api: Api, unchanged: Unchanged) -> None:
    wallet_id = api.open()
    with unchanged(wallet_id):
        answer = api.deposit(wallet_id, 1, key="k", id=str(uuid4()))
        assert (answer.status, answer.json["errors"][0]["field"]) == (400, "id")


# --- Commits in doubt -------------------------------------------------------------------------------
def commands(api: Api, kind: str) -> list[Command]:
    """Return two commands of the kind: the first is carried out, the second is refused."""
    one, other = (UUID(api.open(deposit="100")) for _ in range(2))
    hold = UUID(api.hold(str(one), "40").json["id"])
    match kind:
        case "transfer":
            return [MakeTransfer(wallet_id=one, target_id=other, amount=Decimal(n)) for n in (50, 11)]
        case "hold":
            return [PlaceHold(wallet_id=one, amount=Decimal(n)) for n in (50, 11)]
        case "capture":
            return [CaptureHold(wallet_id=one, hold_id=hold, amount=amount) for amount in (None, Decimal(1))]
        case "void":
            return [VoidHold(wallet_id=one, hold_id=hold) for _ in range(2)]
    operation_id = UUID(api.transfer(str(one), str(other), "50").json["id"])
    wallet_id, reversed_ = original(operation_id)
    return [Reverse(wallet_id=wallet_id, original=reversed_, amount=Decimal(n)) for n in (30, 21)]


KINDS = ["transfer", "hold", "capture", "void", "reversal"]


@pytest.mark.parametrize("kind", KINDS)
def test_command_in_doubt_is_found_and_not_repeated(api: Api, unchanged: Unchanged, kind: str) -> None:
    sent = commands(api, kind)
    wallet_ids = {str(wallet_id) for command in sent for wallet_id in command.wallet_ids}
    done, refused = execute(sent)
    with unchanged(*wallet_ids):
        done_again, refused_again = execute(sent, is_recovering=True)
    assert done == done_again
    assert isinstance(refused, Problem)
    assert isinstance(refused_again, Problem)
    assert (refused.code, refused.operation_id) == (refused_again.code, refused_again.operation_id)
    assert not refused_again.replayed
    Books(tuple(wallet_ids)).verify()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_refused", [False, True])
def test_atomic_bulk_in_doubt_is_found_as_a_whole(
    api: Api, unchanged: Unchanged, kind: str, is_refused: bool
) -> None:
    sent = commands(api, kind)
    first = Deposit(wallet_id=sent[0].wallet_id, amount=Decimal("0.01"))
    bulk = AtomicBulk(commands=(first, *(sent if is_refused else sent[:1])))
    wallet_ids = {str(wallet_id) for wallet_id in bulk.wallet_ids}
    (outcome,) = execute([bulk])
    with unchanged(*wallet_ids):
        (again,) = execute([bulk], is_recovering=True)
    if is_refused:
        assert isinstance(outcome, Problem)
        assert isinstance(again, Problem)
        assert (outcome.operation_id, outcome.errors) == (again.operation_id, again.errors)
    else:
        assert outcome == again
    Books(tuple(wallet_ids)).verify()
