"""The Python client calls the running service."""

import asyncio
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import walletsvc_client as package
from local import ROOT, python_client
from tests.support.client import UNKNOWN_ID
from tests.support.keys import new_key, new_person
from wallets.access.rights import ADMIN, DEPOSIT
from wallets.problems import Problem
from walletsvc_client import (
    UNSET,
    AsyncClient,
    BulkDeposit,
    BulkTransfer,
    BulkWithdrawal,
    Client,
    ExternalIdTaken,
    Forbidden,
    IdempotencyKeyReused,
    InsufficientFunds,
    Unauthorized,
    UnexpectedResponse,
    ValidationError,
    WalletNotFound,
    WalletsvcError,
    error_of,
    models,
)

CLIENT = ROOT / "clients" / "python"


@pytest.fixture
def key() -> str:
    return new_key(ADMIN)


@pytest.fixture
def client(service: str, key: str) -> Iterator[Client]:
    with Client(service, key) as client:
        yield client


@pytest.fixture
def wallet(client: Client) -> models.Wallet:
    wallet = client.create_wallet(currency="EUR")
    client.deposit(wallet.id, "100")
    return wallet


# --- Generated parts --------------------------------------------------------------------------------
def files_of(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.py")}


def test_generated_package_is_up_to_date(tmp_path: Path) -> None:
    python_client.write(tmp_path / "generated")
    expected, found = files_of(tmp_path / "generated"), files_of(python_client.GENERATED)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == [], "run `make clients`"


def test_each_problem_code_has_an_exception() -> None:
    for problem in Problem.__subclasses__():
        error = getattr(package, problem.__name__)
        assert issubclass(error, WalletsvcError)
        assert error.code == problem.code


def test_unknown_enumeration_value_is_kept() -> None:
    status = models.WalletStatus("DORMANT")
    assert (status, status.value, status.name) == ("DORMANT", "DORMANT", "DORMANT")
    assert "DORMANT" not in [each.value for each in models.WalletStatus]


# --- Wallets ----------------------------------------------------------------------------------------
def test_wallet_is_created_found_and_changed(client: Client) -> None:
    name = f"customer-{uuid4()}"
    wallet = client.create_wallet(
        currency="JPY", external_id=name, label="till", metadata={"till": "7"}, max_balance="1000"
    )
    assert (wallet.balance, wallet.max_balance) == (Decimal(0), Decimal(1000))
    assert wallet.metadata["till"] == "7"
    assert list(client.find_wallets(external_id=name)) == [wallet]
    assert list(client.find_wallets(external_id=name, metadata={"till": 8})) == []
    changed = client.update_wallet(wallet.id, label="till 2", metadata={"till": None}, status="FROZEN")
    assert (changed.label, changed.status) == ("till 2", models.WalletStatus.FROZEN)
    assert changed.metadata.to_dict() == {}
    assert changed.external_id == name
    assert client.update_wallet(wallet.id, external_id=None).external_id is None
    assert client.get_wallet(str(wallet.id)).external_id is None


def test_limits_and_owner_of_a_wallet_are_changed(client: Client) -> None:
    wallet, owner = client.create_wallet(currency="EUR"), new_person()
    changed = client.update_wallet(
        wallet.id, overdraft_limit="5", max_balance=Decimal("9.50"), owner_email=owner.email
    )
    assert (changed.overdraft_limit, changed.max_balance) == (Decimal("5.00"), Decimal("9.50"))
    assert list(client.find_wallets(owner_email=owner.email)) == [changed]
    changed = client.update_wallet(wallet.id, max_balance=None, owner_email=None)
    assert (changed.overdraft_limit, changed.max_balance) == (Decimal("5.00"), None)
    assert list(client.find_wallets(owner_email=owner.email)) == []


# --- Money ------------------------------------------------------------------------------------------
def test_deposit_withdrawal_and_transfer_move_money(client: Client, wallet: models.Wallet) -> None:
    other = client.create_wallet(currency="EUR")
    deposit = client.deposit(
        wallet.id, Decimal("1E+1"), reference="order-7", description="tea", metadata={"a": 1}
    )
    assert (deposit.balance, deposit.reference, deposit.metadata["a"]) == (Decimal("110.00"), "order-7", 1)
    assert client.withdraw(wallet.id, "10.50").balance == Decimal("99.50")
    transfer = client.transfer(wallet.id, other.id, "9.50")
    assert transfer.target
    assert (transfer.source.balance, transfer.target.balance) == (Decimal("90.00"), Decimal("9.50"))
    assert client.get_transfer(transfer.id) == transfer
    reversal = client.reverse(deposit.id, Decimal("4"))
    assert client.get_operation(deposit.id).reversal_ids == [reversal.id]
    assert client.reverse(deposit.id).amount == 6


def test_holds_are_captured_and_voided(client: Client, wallet: models.Wallet) -> None:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    hold = client.hold(wallet.id, "40", expires_at=expires_at, reference="order-7")
    assert (hold.amount, hold.expires_at) == (Decimal(40), expires_at)
    assert client.get_balance(wallet.id).available == 60
    capture = client.capture(hold.id, "30")
    assert (capture.reference, client.get_hold(hold.id).captures) == ("order-7", [capture])
    other = client.hold(wallet.id, "5")
    assert client.void(other.id, description="cancelled").status == "VOIDED"
    assert [each.id for each in client.list_holds(wallet.id, limit=1)] == [other.id, hold.id]
    assert [each.id for each in client.list_holds(wallet.id, status="CAPTURED")] == [hold.id]


def test_bulk_returns_the_result_of_each_item(client: Client, wallet: models.Wallet) -> None:
    other = client.create_wallet(currency="EUR")
    results = client.bulk(
        [
            BulkDeposit(wallet_id=wallet.id, amount="1", idempotency_key=f"{uuid4()}"),
            BulkWithdrawal(wallet_id=wallet.id, amount="1000"),
            BulkTransfer(source_id=wallet.id, target_id=other.id, amount=Decimal(3), reference="r"),
        ]
    ).results
    assert [result.status for result in results] == [201, 409, 201]
    assert results[0].operation
    assert results[0].operation.balance == 101
    assert results[1].problem
    error = error_of(results[1].problem)
    assert isinstance(error, InsufficientFunds)
    assert (error.remaining, error.operation_id is None) == (Decimal(101), False)
    assert results[2].transfer
    assert results[2].transfer.source.reference == "r"
    assert results[2].problem is UNSET


def test_atomic_bulk_is_refused_as_a_whole(client: Client, wallet: models.Wallet) -> None:
    items = [BulkDeposit(wallet_id=wallet.id, amount="1"), BulkWithdrawal(wallet_id=wallet.id, amount="1000")]
    with pytest.raises(InsufficientFunds) as caught:
        client.bulk(items, atomic=True)
    assert [each.field for each in caught.value.errors] == ["operations.1"]
    assert client.get_wallet(wallet.id).balance == 100


def test_asynchronous_deposit_is_pending(client: Client, wallet: models.Wallet) -> None:
    deposit = client.deposit(wallet.id, "1", respond_async=True)
    assert (deposit.status, deposit.balance) == (models.OperationStatus.PENDING, None)
    assert client.get_operation(deposit.id).status == "PENDING"


@pytest.mark.parametrize("amount", [0.1, 1, True, None, float("nan")])
def test_amount_of_another_type_is_refused(client: Client, wallet: models.Wallet, amount: Any) -> None:
    with pytest.raises(TypeError, match="an amount is a Decimal or a str"):
        client.deposit(wallet.id, amount)


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_infinite_amount_is_refused(client: Client, wallet: models.Wallet, amount: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        client.deposit(wallet.id, Decimal(amount))


# --- Idempotency keys -------------------------------------------------------------------------------
@pytest.mark.parametrize("key_part", ["plain", "with, comma"])
def test_own_idempotency_key_is_replayed(client: Client, wallet: models.Wallet, key_part: str) -> None:
    key = f"{key_part}{uuid4()}".replace(" ", "")
    first = client.deposit(wallet.id, "1", idempotency_key=key)
    assert client.deposit(wallet.id, "1.00", idempotency_key=key) == first
    assert first.idempotency_key == key
    with pytest.raises(IdempotencyKeyReused) as caught:
        client.deposit(wallet.id, "2", idempotency_key=key)
    assert (caught.value.idempotency_key, caught.value.status) == (key, 422)
    assert list(client.find_operations(idempotency_key=key)) == [first]


def test_each_request_has_a_new_key(client: Client, wallet: models.Wallet) -> None:
    keys = {client.deposit(wallet.id, "1").idempotency_key for _ in range(3)}
    assert len(keys) == 3
    assert None not in keys


# --- Errors -----------------------------------------------------------------------------------------
def test_refusal_has_the_fields_of_the_problem(client: Client, wallet: models.Wallet) -> None:
    with pytest.raises(InsufficientFunds) as caught:
        client.withdraw(wallet.id, "100.01")
    error = caught.value
    assert (error.code, error.title, error.status) == ("insufficient_funds", "Insufficient funds", 409)
    assert (error.remaining, error.available) == (Decimal(100), Decimal(100))
    assert error.request_id
    assert error.request_id in str(error)
    assert error.detail in str(error)
    assert not error.outcome_is_unknown
    assert client.get_operation(str(error.operation_id)).reason == "insufficient_funds"


def test_zero_as_remaining_amount_is_kept(client: Client) -> None:
    wallet = client.create_wallet()
    with pytest.raises(InsufficientFunds) as caught:
        client.withdraw(wallet.id, "1")
    assert (caught.value.remaining, caught.value.available) == (Decimal(0), Decimal(0))


def test_errors_have_the_class_of_their_code(service: str, client: Client) -> None:
    with pytest.raises(WalletNotFound):
        client.get_wallet(UNKNOWN_ID)
    with pytest.raises(ValidationError) as caught:
        client.create_wallet(currency="XXX")
    assert [error.field for error in caught.value.errors] == ["currency"]
    name = f"{uuid4()}"
    client.create_wallet(external_id=name)
    with pytest.raises(ExternalIdTaken):
        client.create_wallet(external_id=name)
    with Client(service, "wk_wrong") as stranger, pytest.raises(Unauthorized):
        stranger.get_wallet(UNKNOWN_ID)
    with Client(service, new_key(DEPOSIT)) as till, pytest.raises(Forbidden):
        till.get_wallet(UNKNOWN_ID)


def test_unknown_code_raises_the_base_class() -> None:
    problem = models.Problem("/errors/new", "New", 409, "A new rule.", "new_rule", "r1")
    error = error_of(problem)
    assert (type(error), error.code, error.status) == (WalletsvcError, "new_rule", 409)
    assert WalletsvcError.code == ""


def test_wrong_base_url_is_an_unexpected_response(service: str, key: str) -> None:
    with Client(f"{service}/livez?", key) as client, pytest.raises(UnexpectedResponse) as caught:
        client.get_wallet(UNKNOWN_ID)
    assert caught.value.status == 200


@pytest.mark.parametrize("id", ["", "..", "../webhooks", "7"])
def test_malformed_id_is_never_sent(client: Client, id: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        client.get_wallet(id)


# --- Lists ------------------------------------------------------------------------------------------
def test_lists_read_all_pages(client: Client, wallet: models.Wallet) -> None:
    made = [client.deposit(wallet.id, f"{number}.00", metadata={"order": "7"}) for number in range(1, 6)]
    listed = list(client.list_operations(wallet.id, limit=2, type="DEPOSIT"))
    assert [each.id for each in listed[:-1]] == [each.id for each in reversed(made)]
    found = client.find_operations(
        wallet_id=wallet.id,
        type=[models.OperationType.DEPOSIT, models.OperationType.WITHDRAW],
        min_amount=Decimal("2"),
        max_amount="4",
        from_=made[0].created_at,
        to=made[-1].created_at + timedelta(seconds=1),
        metadata={"order": 7},
        status="COMPLETED",
        limit=1,
    )
    assert [each.amount for each in found] == [4, 3, 2]


def test_times_without_time_zone_are_refused(client: Client, wallet: models.Wallet) -> None:
    with pytest.raises(ValueError, match="time zone"):
        client.get_balance(wallet.id, datetime(2026, 1, 1))  # noqa: DTZ001


def test_balance_and_statement_of_a_period(client: Client, wallet: models.Wallet) -> None:
    withdrawal = client.withdraw(wallet.id, "40")
    assert client.get_balance(wallet.id, withdrawal.created_at - timedelta(microseconds=1)).balance == 100
    statement = client.get_statement(wallet.id, from_=withdrawal.created_at)
    assert (statement.opening_balance, statement.closing_balance) == (Decimal(100), Decimal(60))
    assert statement.entries == [withdrawal]


# --- Other requests ---------------------------------------------------------------------------------
@pytest.mark.usefixtures("no_subscribers")
def test_request_without_a_method_is_sent(client: Client) -> None:
    body = {"name": "shop", "url": "https://shop.example.com/events"}
    made = client.request("POST", "/webhooks", body=body, idempotency_key=f"{uuid4()}")
    assert [each["id"] for each in client.request("GET", "/webhooks", query={"limit": "5"})["items"]] == [
        made["id"]
    ]
    assert client.request("DELETE", f"/webhooks/{made['id']}") == {}


# --- asyncio ----------------------------------------------------------------------------------------
def test_async_client_moves_money_and_lists(service: str, key: str) -> None:
    async def run() -> None:
        async with AsyncClient(service, key) as client:
            wallet = await client.create_wallet(currency="EUR")
            await asyncio.gather(*(client.deposit(wallet.id, "1") for _ in range(5)))
            with pytest.raises(InsufficientFunds) as caught:
                await client.withdraw(wallet.id, "6")
            assert caught.value.remaining == 5
            listed = [
                each.balance async for each in client.list_operations(wallet.id, limit=2, type="DEPOSIT")
            ]
            assert listed == [5, 4, 3, 2, 1]

    asyncio.run(run())


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert methods(AsyncClient) - {"aclose"} == methods(Client) - {"close"}
    assert len(methods(Client)) > 20


# --- Package ----------------------------------------------------------------------------------------
def test_package_has_the_version_and_licence_of_the_service() -> None:
    client, service = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (CLIENT, ROOT)
    )
    for field in ("version", "license", "requires-python"):
        assert client[field] == service[field]
    assert (CLIENT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (CLIENT / "src" / "walletsvc_client" / "py.typed").exists()


def test_service_does_not_import_the_client() -> None:
    files = [file for folder in ("walletsvc", "wallets", "local") for file in (ROOT / folder).rglob("*.py")]
    assert [file for file in files if "import walletsvc_client" in file.read_text()] == []
    assert [file for file in files if "from walletsvc_client" in file.read_text()] == []
