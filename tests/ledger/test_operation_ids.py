"""An id names one operation and one hold across all wallets, even if other ids share half of its bits."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection, transaction

from tests.conftest import Books, Unchanged
from tests.support.chains import superuser
from tests.support.client import Answer, Api, OverHttp
from tests.support.cluster import cluster
from tests.support.events import relaying, subscribed, wait_until
from tests.support.receivers import receiver
from wallets.advisory_locks import LockClass, lock_key
from wallets.ledger import inbox
from wallets.ledger.commands import CaptureHold, Deposit, VoidHold
from wallets.ledger.decisions import Posted
from wallets.ledger.execute import DEFERRED, execute
from wallets.ledger.tables import Tables
from wallets.ledger.verify import verify
from wallets.models import Operation
from wallets.problems import HoldNotFound, IdempotencyKeyReused

ROOT = Path(__file__).parents[2]
CHANGESETS = (ROOT / "liquibase/changes/012-operation-id.sql").read_text().split("\n--changeset ")
REUSED = "idempotency_key_reused"


def sharing_low_half(other: UUID) -> UUID:
    return UUID(bytes=uuid4().bytes[:8] + other.bytes[8:])


@pytest.fixture(name="superuser")
def _superuser() -> Iterator[psycopg.Connection]:
    with superuser() as database:
        yield database


# --- Under contention -------------------------------------------------------------------------------
Send = Callable[[Api, str, str], Answer]
SENDS: dict[str, Send] = {
    "deposits": lambda api, wallet, id: api.deposit(wallet, "1", id=id),
    "holds": lambda api, wallet, id: api.hold(wallet, "1", id=id),
    "transfers": lambda api, wallet, id: api.transfer(wallet, api.open(), "1", id=id),
}


def test_locked_operation_id_does_not_defer_the_wallet_with_that_id(api: Api) -> None:
    """A client may choose the id of a wallet as the id of an operation on another wallet."""
    wallet, other = UUID(api.open()), UUID(api.open())
    same_id = Deposit(wallet_id=other, id=wallet, amount=Decimal(1), client_chose_id=True)
    with psycopg.connect(cluster.url("postgres")) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(LockClass.OPERATION_ID, wallet)])
        outcomes = execute([same_id, Deposit(wallet_id=wallet, amount=Decimal(2))], contended=[other])
    assert outcomes[0] is DEFERRED
    assert isinstance(outcomes[1], Posted)
    assert (api.balance(str(wallet)), api.balance(str(other))) == ("2.00", "0.00")
    Books((str(wallet), str(other))).verify()


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
@pytest.mark.slow
def test_contended_id_is_used_once_beside_similar_ids(live_api: Api, service: str, send: Send) -> None:
    """Other ids, and a webhook whose lock the relay holds, share the low half of the id."""
    chosen = uuid4()
    wallets = [live_api.open(deposit="100") for _ in range(8)]
    clients = 16

    def client(number: int) -> list[Answer]:
        sender = OverHttp(service)
        with closing(sender.connection):
            return [send(Api(sender), wallets[number % 8], ids[round][number % 4]) for round in range(10)]

    # Four clients name each id, on two wallets; all ids share their low half.
    ids = [[str(sharing_low_half(chosen)) for _ in range(4)] for _ in range(10)]
    with ExitStack() as stack:
        deliveries = stack.enter_context(receiver())
        webhook = stack.enter_context(subscribed(deliveries.url(), id=sharing_low_half(chosen)))
        stack.enter_context(relaying())
        live_api.deposit(wallets[0], "1")
        wait_until(lambda: deliveries.of(wallets[0]), f"the relay does not serve {webhook.id}")
        with ThreadPoolExecutor(clients) as pool:
            answers = [answer for of_client in pool.map(client, range(clients)) for answer in of_client]
    assert {(answer.status, answer.code) for answer in answers if answer.status != 201} == {(422, REUSED)}
    used = Operation.objects.filter(id__in=[id for round in ids for id in round])
    assert Counter(used.values_list("id", flat=True)) == {UUID(id): 1 for round in ids for id in round}
    Books(tuple(wallets)).verify()


def test_id_sharing_its_low_half_with_a_locked_webhook_is_accepted(api: Api) -> None:
    wallet, chosen = api.open(), uuid4()
    with psycopg.connect(cluster.url()) as relay:
        served = lock_key(LockClass.SUBSCRIBER, sharing_low_half(chosen))
        relay.execute("SELECT pg_advisory_lock(%s)", [served])
        assert api.deposit(wallet, "1", id=str(chosen)).status == 201


def test_transaction_without_the_lock_still_uses_an_id_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of the previous version takes another lock; the unique constraint decides."""
    monkeypatch.setattr(Tables, "lock_ids", lambda *_, **__: set())
    one, other, chosen = UUID(api.open()), UUID(api.open()), uuid4()

    def deposit(wallet_id: UUID) -> list[object]:
        try:
            command = Deposit(
                wallet_id=wallet_id, id=chosen, key=str(chosen), client_chose_id=True, amount=Decimal(1)
            )
            return list(execute([command]))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        [first] = execute(
            [Deposit(wallet_id=one, id=chosen, key=str(chosen), client_chose_id=True, amount=Decimal(1))]
        )
        second = pool.submit(deposit, other)
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
            waits = "SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'"
            wait_until(
                lambda: database.execute(waits).fetchall(),
                "the second transaction does not wait for the first",
            )
    assert isinstance(first, Posted)
    [refusal] = second.result()
    assert isinstance(refusal, IdempotencyKeyReused)
    assert [api.balance(str(wallet)) for wallet in (one, other)] == ["1.00", "0.00"]


# --- The database's own guarantee -------------------------------------------------------------------
COPIES = {
    "operation": "amount, status, type, sequence, balance_after, created_at, hash",
    "inbox": "amount, type, created_at",
}


@pytest.mark.parametrize("table", COPIES)
def test_database_refuses_an_id_that_another_wallet_uses(api: Api, table: str) -> None:
    used, other = api.deposit(api.open(), "1").json["id"], api.open()
    columns = COPIES[table]
    with (
        psycopg.connect(cluster.url()) as database,
        pytest.raises(psycopg.errors.UniqueViolation, match=f"the id {used} of wallet {other}") as error,
    ):
        database.execute(
            f"INSERT INTO {table} (id, wallet_id, {columns})"
            f" SELECT id, %s, {columns} FROM operation WHERE id = %s".encode(),
            [other, used],
        )
    assert error.value.diag.constraint_name == "operation_id_pk"


def test_two_operations_of_one_statement_cannot_share_an_id(api: Api) -> None:
    one, other, chosen = api.open(deposit="1"), api.open(), str(uuid4())
    columns = COPIES["operation"]
    with psycopg.connect(cluster.url()) as database, pytest.raises(psycopg.errors.UniqueViolation):
        database.execute(
            f"INSERT INTO operation (id, wallet_id, {columns})"
            f" SELECT %s, wallet.id, amount, operation.status, type, 2, balance_after, clock_timestamp(),"
            " operation.hash"
            " FROM operation, wallet WHERE operation.wallet_id = %s AND wallet.id IN (%s, %s)".encode(),
            [chosen, one, one, other],
        )


def test_accepted_operation_keeps_its_id_from_inbox_to_ledger(api: Api) -> None:
    wallet, chosen = api.open(), str(uuid4())
    deposit = {"operationType": "DEPOSIT", "amount": "1", "id": chosen}
    assert api.post(f"/wallets/{wallet}/operation", deposit, Prefer="respond-async").status == 202
    wait_until(lambda: not inbox.drain(100), "the inbox is not drained")
    assert api.operation(chosen)["status"] == "COMPLETED"
    assert api.deposit(api.open(), "1", id=chosen).code == REUSED
    Books((wallet,)).verify()


# --- Existing duplicates ----------------------------------------------------------------------------
def copy_row(superuser: psycopg.Connection, table: str, id: str, target: str) -> None:
    columns = ", ".join(
        name
        for (name,) in superuser.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped AND attname NOT IN ('wallet_id', 'position')",
            [table],
        )
    )
    statement = f"INSERT INTO {table} (wallet_id, {columns}) SELECT %s, {columns} FROM {table} WHERE id = %s"
    assert superuser.execute(statement.encode(), [target, id]).rowcount == 1


@pytest.fixture
def duplicate(api: Api, superuser: psycopg.Connection) -> Iterator[tuple[str, str, str]]:
    """Copy a hold and its operation to a second wallet. Return the id and both wallets."""
    one, other = api.open(deposit="5"), api.open(deposit="5")
    held = api.hold(one, "1").json["id"]
    for table in ("operation", "hold"):
        copy_row(superuser, table, held, other)
    yield held, one, other
    for table in ("operation", "hold"):
        superuser.execute(f"DELETE FROM {table} WHERE id = %s AND wallet_id = %s".encode(), [held, other])


def test_changeset_names_duplicate_ids(
    superuser: psycopg.Connection, duplicate: tuple[str, str, str]
) -> None:
    id, one, other = duplicate
    [changeset] = [text for text in CHANGESETS if text.startswith("walletsvc:012-operation-id-of-existing")]
    with pytest.raises(psycopg.errors.RaiseException, match=re.escape(f"{id} (wallets {one} and {other})")):
        superuser.execute(changeset.partition("\n")[2].encode())


def test_changeset_registers_existing_ids(api: Api, superuser: psycopg.Connection) -> None:
    id = api.deposit(wallet := api.open(), "1").json["id"]
    superuser.execute("DELETE FROM operation_id WHERE id = %s", [id])
    assert [difference.what for difference in verify([UUID(wallet)])] == [
        f"operation {id}: its id is registered for no wallet"
    ]
    [changeset] = [text for text in CHANGESETS if text.startswith("walletsvc:012-operation-id-of-existing")]
    superuser.execute(changeset.partition("\n")[2].encode())
    assert verify([UUID(wallet)]) == []


def test_verification_finds_duplicate_ids_of_operations_and_holds(duplicate: tuple[str, str, str]) -> None:
    id, one, other = duplicate
    found = {difference.what for difference in verify([UUID(other)])}
    assert {f"{kind} {id}: its id is registered for wallet {one}" for kind in ("operation", "hold")} <= found


def test_verification_finds_duplicate_ids_of_inbox_entries(api: Api, superuser: psycopg.Connection) -> None:
    one, other = api.open(), api.open()
    accepted = api.post(
        f"/wallets/{one}/operation", {"operationType": "DEPOSIT", "amount": "1"}, Prefer="respond-async"
    )
    id = accepted.json["id"]
    copy_row(superuser, "inbox", id, other)
    try:
        assert [difference.what for difference in verify([UUID(other)])] == [
            f"inbox entry {id}: its id is registered for wallet {one}"
        ]
    finally:
        superuser.execute("DELETE FROM inbox WHERE id = %s", [id])


# --- Holds ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [CaptureHold, VoidHold])
def test_hold_of_another_wallet_is_not_found(
    api: Api, unchanged: Unchanged, command: type[CaptureHold] | type[VoidHold]
) -> None:
    one, other = api.open(deposit="5"), api.open(deposit="5")
    held = UUID(api.hold(one, "1").json["id"])
    with unchanged(one, other):
        [refusal] = execute([command(wallet_id=UUID(other), hold_id=held)])
        assert isinstance(refusal, HoldNotFound)


# --- Advisory locks ---------------------------------------------------------------------------------
def test_each_use_of_advisory_locks_has_its_own_class() -> None:
    """Compare the lock classes of each module that takes or releases an advisory lock."""
    used = {}
    for path in sorted((ROOT / "wallets").rglob("*.py")):
        source = path.read_text()
        if (
            re.search(r"pg_\w*advisory\w*lock\(|pg_\w*advisory_xact_lock", source)
            and path.name != "advisory_locks.py"
        ):
            used[path.relative_to(ROOT / "wallets").as_posix()] = set(re.findall(r"LockClass\.(\w+)", source))
    assert used == {
        "events/webhook_registry.py": {"REGISTRATION"},
        "events/relay.py": {"SUBSCRIBER"},
        "events/delivery_state.py": {"OLD_DELIVERIES"},
        "ledger/tables.py": {"OPERATION_ID"},
    }
    assert set().union(*used.values()) == {lock_class.name for lock_class in LockClass}


def test_lock_keys_depend_on_the_class_and_the_whole_id() -> None:
    id = uuid4()
    keys = {lock_key(lock_class, of) for lock_class in LockClass for of in (None, id, sharing_low_half(id))}
    assert len(keys) == 3 * len(LockClass)
    flipped = {lock_key(LockClass.OPERATION_ID, UUID(int=id.int ^ 1 << bit)) for bit in range(128)}
    assert len(flipped) == 128
