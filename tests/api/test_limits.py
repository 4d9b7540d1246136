"""Limits: what a refusal says of them, and how they change."""

import pytest
from django.conf import LazySettings

from tests.conftest import Unchanged
from tests.support.client import Answer, Api
from tests.support.keys import new_key
from tests.support.people import new_account
from wallets.access.rights import ADMIN, LIMITS, TRANSFER, WRITE
from wallets.models import User, WalletChange


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
    anna, bank = new_account("100"), Api(key=new_key(ADMIN))
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


# --- Changes of limits and owner --------------------------------------------------------------------
def test_changed_limits_apply_to_the_next_operation(api: Api) -> None:
    wallet_id = api.open(deposit="10", currency="EUR")
    changed = api.patch(f"/wallets/{wallet_id}", {"overdraftLimit": "5", "maxBalance": "20.00"})
    assert (changed.json["overdraftLimit"], changed.json["maxBalance"]) == ("5.00", "20.00")
    assert api.wallet(wallet_id) == changed.json
    assert api.deposit(wallet_id, "10.01").code == "balance_limit_exceeded"
    assert api.withdraw(wallet_id, "15").status == 201
    assert api.patch(f"/wallets/{wallet_id}", {"maxBalance": None}).json["maxBalance"] is None
    (newest, first) = WalletChange.objects.filter(wallet_id=wallet_id, type="CHANGED").order_by("-created_at")
    assert first.changes == {"overdraft_limit": ["0.00", "5.00"], "max_balance": [None, "20.00"]}
    assert newest.changes == {"max_balance": ["20.00", None]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"overdraftLimit": "9.99"}, "overdraft_limit_exceeded"),
        ({"maxBalance": "4.99"}, "balance_limit_exceeded"),
        ({"overdraftLimit": "10.001"}, "validation_error"),
        ({"maxBalance": "-1"}, "validation_error"),
        ({"ownerEmail": "unknown@example.com"}, "account_not_found"),
    ],
)
def test_limit_that_the_wallet_exceeds_is_refused(
    api: Api, unchanged: Unchanged, change: dict[str, str], code: str
) -> None:
    wallet_id = api.open(deposit="5", overdraftLimit="10", currency="EUR")
    api.hold(wallet_id, "15")
    with unchanged(wallet_id):
        assert api.patch(f"/wallets/{wallet_id}", change).code == code
    exact = api.patch(f"/wallets/{wallet_id}", {"overdraftLimit": "10.00", "maxBalance": "5.00"})
    assert exact.status == 200


@pytest.mark.usefixtures("quick_hashing")
def test_owner_is_the_account_with_the_verified_address(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"
    anna, bank = new_account(), Api(key=new_key(ADMIN))
    client = Api(key=new_key(ADMIN, owner=anna.user, is_restricted=True))
    wallet_id = bank.open()
    assert client.get(f"/wallets/{wallet_id}").code == "wallet_not_found"
    assert bank.patch(f"/wallets/{wallet_id}", {"ownerEmail": anna.user.email}).status == 200
    assert client.get(f"/wallets/{wallet_id}").status == 200
    assert bank.patch(f"/wallets/{wallet_id}", {"ownerEmail": None}).status == 200
    assert client.get(f"/wallets/{wallet_id}").code == "wallet_not_found"
    User.objects.filter(pk=anna.user.pk).update(verified_email="")
    refused = bank.patch(f"/wallets/{wallet_id}", {"ownerEmail": anna.user.email})
    assert refused.code == "account_not_found"


@pytest.mark.usefixtures("quick_hashing")
@pytest.mark.parametrize("change", [{"overdraftLimit": "1"}, {"maxBalance": None}, {"ownerEmail": None}])
def test_limits_and_owner_need_a_scope_and_no_restriction(
    settings: LazySettings, unchanged: Unchanged, change: dict[str, str | None]
) -> None:
    settings.API_ACCESS = "key"
    anna = new_account()
    path = f"/wallets/{anna.wallet_id}"
    with unchanged(anna.wallet_id):
        assert Api(key=new_key(WRITE)).patch(path, change).code == "forbidden"
        restricted = Api(key=new_key(ADMIN, owner=anna.user, is_restricted=True))
        assert restricted.patch(path, change).code == "forbidden"
    assert Api(key=new_key(WRITE, LIMITS)).patch(path, change).status == 200


@pytest.mark.usefixtures("quick_hashing")
def test_new_owner_may_have_the_external_id_already(settings: LazySettings) -> None:
    settings.API_ACCESS = "key"
    anna, bank = new_account(), Api(key=new_key(ADMIN))
    wallet_id = bank.open(externalId=f"till-{anna.wallet_id}")
    bank.patch(f"/wallets/{anna.wallet_id}", {"externalId": f"till-{anna.wallet_id}"})
    refused = bank.patch(f"/wallets/{wallet_id}", {"ownerEmail": anna.user.email})
    assert refused.code == "external_id_taken"
