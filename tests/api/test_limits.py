"""What is left: in a refusal, of an operation, and of a hold."""

import pytest
from django.conf import LazySettings

from tests.support.client import Answer, Api
from tests.support.keys import new_key
from tests.support.people import somebody
from wallets.access.rights import ADMIN, TRANSFER


def left(answer: Answer) -> dict[str, str]:
    return {name: answer.json[name] for name in ("remaining", "available") if name in answer.json}


def test_refused_withdrawal_says_what_is_available(api: Api) -> None:
    wallet_id = api.open(deposit="100", overdraftLimit="20", currency="EUR")
    api.hold(wallet_id, "30")
    for refused in (
        api.withdraw(wallet_id, "90.01"),
        api.hold(wallet_id, "90.01"),
        api.transfer(wallet_id, api.open(currency="EUR"), "90.01"),
    ):
        assert (refused.code, left(refused)) == (
            "insufficient_funds",
            {"remaining": "90.00", "available": "70.00"},
        )
    assert api.withdraw(wallet_id, "90").status == 201


def test_refused_deposit_says_how_much_fits(api: Api) -> None:
    wallet_id = api.open(deposit="60", maxBalance="100")
    refused = api.deposit(wallet_id, "41")
    assert (refused.code, left(refused)) == ("balance_limit_exceeded", {"remaining": "40.00"})
    assert api.deposit(wallet_id, "40").status == 201


def test_refused_capture_and_reversal_say_what_remains(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "30").json["id"]
    assert left(api.capture(hold_id, "31")) == {"remaining": "30.00"}
    operation_id = api.withdraw(wallet_id, "50").json["id"]
    api.reverse(operation_id, "20")
    assert left(api.reverse(operation_id, "31")) == {"remaining": "30.00"}


def test_replay_of_a_refusal_leaves_the_limit_out(api: Api) -> None:
    wallet_id = api.open(deposit="10")
    first, again = (api.withdraw(wallet_id, "20", "key") for _ in range(2))
    assert left(first) == {"remaining": "10.00", "available": "10.00"}
    assert (again.headers["idempotent-replayed"], left(again)) == ("true", {})


@pytest.mark.usefixtures("quick_hashing")
def test_limit_of_an_unreadable_wallet_is_not_told(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"
    anna, bank = somebody("100"), Api(key=new_key(ADMIN))
    full = bank.open(maxBalance="10")
    transfer = bank.transfer(anna.wallet_id, full, "10").json
    bank.withdraw(full, "10")
    without_read = Api(key=new_key(TRANSFER))
    refused = without_read.reverse(transfer["id"])
    assert (refused.code, left(refused)) == ("insufficient_funds", {})
    assert left(bank.reverse(transfer["id"])) == {"remaining": "0.00", "available": "0.00"}
    refused = without_read.transfer(anna.wallet_id, full, "20")
    assert (refused.code, left(refused)) == ("target_cannot_receive", {})


def test_operation_shows_its_reversals(api: Api) -> None:
    operation_id = api.deposit(api.open(), "50").json["id"]
    reversals = [api.reverse(operation_id, amount).json["id"] for amount in ("20", "1.50")]
    assert api.reverse(operation_id, "40").status == 409
    body = api.get(f"/operations/{operation_id}").json
    assert (body["reversedAmount"], body["reversalIds"]) == ("21.50", reversals)
    body = api.get(f"/operations/{reversals[0]}").json
    assert (body["reversedAmount"], body["reversalIds"]) == ("0.00", [])


def test_hold_shows_its_captures(api: Api) -> None:
    wallet_id = api.open(deposit="100")
    hold_id = api.hold(wallet_id, "50").json["id"]
    assert api.get(f"/holds/{hold_id}").json["captures"] == []
    capture = api.capture(hold_id, "20").json
    assert api.get(f"/holds/{hold_id}").json["captures"] == [capture]
