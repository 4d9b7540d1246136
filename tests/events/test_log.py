"""The log as readers see it: no entry is skipped or repeated, and each wallet's order is kept."""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, connection, transaction

from tests.support.client import Api
from tests.support.cluster import cluster
from tests.support.events import horizon
from wallets.database_retry import retry_until_deadline
from wallets.events import log
from wallets.events.log import ChangeEntry, LogItem, Position
from wallets.ledger import expiry
from wallets.ledger.commands import Deposit
from wallets.ledger.execute import execute
from wallets.models import Operation


def now() -> Position:
    return Position(horizon())


def read_all(position: Position, limit: int = 1000, of: set[str] | None = None) -> list[LogItem]:
    """Read all entries up to now, or only those of the wallets `of`."""
    found: list[LogItem] = []
    end = horizon()
    while True:
        entries, next_position = log.read(position, limit)
        found += [entry for entry in entries if of is None or str(entry.wallet_id) in of]
        if not entries and next_position.begin >= end:
            return found
        position = next_position


def deposit_in_another_session(wallet_id: str) -> None:
    with closing(connection):
        execute([Deposit(wallet_id=UUID(wallet_id), amount=Decimal(1))])


def test_log_has_every_change_in_order(api: Api) -> None:
    begin = now()
    wallet, other = api.open(label="till"), api.open()
    api.deposit(wallet, "50")
    api.withdraw(wallet, "51")
    api.transfer(wallet, other, "5")
    hold = api.hold(wallet, "4").json["id"]
    api.capture(hold, "3")
    api.patch(f"/wallets/{wallet}", {"status": "FROZEN"})
    found = read_all(begin, of={wallet, other})
    assert [entry.type for entry in found if str(entry.wallet_id) == wallet] == [
        *("OPENED", "DEPOSIT", "WITHDRAW", "TRANSFER_OUT", "HOLD", "CAPTURE", "CHANGED")
    ]
    assert [entry.type for entry in found if str(entry.wallet_id) == other] == ["OPENED", "TRANSFER_IN"]
    opened = found[0]
    assert isinstance(opened, ChangeEntry)
    assert opened.changes["label"] == "till"


def test_replayed_opening_is_in_the_log_once(api: Api) -> None:
    begin = now()
    wallet = api.open()
    for _ in range(2):
        api.post("/wallets", {"id": "01930a5d-0000-7000-8000-00000000e0e0", "label": "again"})
    ids = [str(entry.wallet_id) for entry in read_all(begin) if entry.type == "OPENED"]
    assert sorted(ids) == sorted([wallet, "01930a5d-0000-7000-8000-00000000e0e0"])


def test_expired_hold_of_an_idle_wallet_is_in_the_log(api: Api) -> None:
    wallet = api.open(deposit="5")
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    hold = api.hold(wallet, "5", expiresAt=soon).json["id"]
    begin = now()
    while not (found := read_all(begin, of={wallet})):
        expiry.record_expiries(DEFAULT_DB_ALIAS)
    (expired,) = found
    assert isinstance(expired, ChangeEntry)
    assert (expired.type, str(expired.expired_hold_id)) == ("HOLD_EXPIRED", hold)
    assert api.wallet(wallet)["available"] == "5.00"
    api.deposit(wallet, "1")
    expiry.record_expiries(DEFAULT_DB_ALIAS)
    assert [entry.type for entry in read_all(begin, of={wallet})] == ["HOLD_EXPIRED", "DEPOSIT"]


@contextmanager
def transaction_in_progress() -> Iterator[psycopg.Connection]:
    """Keep a transaction with an id open until the end of the block."""
    with psycopg.connect(cluster.url("postgres")) as other:
        other.execute("SELECT pg_current_xact_id()")
        yield other


def test_late_commit_is_not_skipped(api: Api) -> None:
    wallet = api.open()
    begin = now()
    with transaction_in_progress():
        api.deposit(wallet, "1")
        entries, position = log.read(begin, 100)
        assert entries == []  # a transaction with a lower id may still write
    assert [entry.type for entry in read_all(position, of={wallet})] == ["DEPOSIT"]


def test_wallet_order_follows_the_lock_not_the_transaction_ids(api: Api) -> None:
    wallet = api.open()
    begin = now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")  # this transaction has the smaller id
        with ThreadPoolExecutor(1) as pool:
            pool.submit(deposit_in_another_session, wallet).result()
        execute([Deposit(wallet_id=UUID(wallet), amount=Decimal(2))])
    rows = (
        Operation.objects.filter(wallet_id=wallet)
        .order_by("sequence")
        .values_list("transaction_id", "amount")
    )
    (first, _), (second, _) = rows
    assert int(first) > int(second)
    assert [entry.amount for entry in read_all(begin, of={wallet})] == [1, 2]  # type: ignore[union-attr]


def test_horizon_never_separates_entries_of_reversed_transaction_ids(api: Api) -> None:
    """The id of the open transaction is between the ids of the two that write."""
    wallet = api.open()
    begin = now()
    with ExitStack() as stack:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")
            stack.enter_context(transaction_in_progress())
            with ThreadPoolExecutor(1) as pool:
                pool.submit(deposit_in_another_session, wallet).result()
            execute([Deposit(wallet_id=UUID(wallet), amount=Decimal(2))])
        entries, position = log.read(begin, 100)
        assert [entry for entry in entries if str(entry.wallet_id) == wallet] == []
    assert [entry.amount for entry in read_all(position, of={wallet})] == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_a_long_window_is_read_page_by_page(api: Api, limit: int) -> None:
    wallets = {api.open() for _ in range(3)}
    begin = now()
    with transaction_in_progress():  # keeps all entries in one window
        for number in range(20):
            for wallet in sorted(wallets):
                api.deposit(wallet, number + 1)
    found = read_all(begin, limit, of=wallets)
    assert len(found) == len({entry.id for entry in found}) == 60
    assert found == sorted(found, key=lambda entry: (entry.created_at, entry.id))


def test_the_log_can_be_read_from_its_beginning(api: Api) -> None:
    wallet = api.open(deposit="1")
    entries = read_all(Position(0), limit=500)
    assert len(entries) == len({(type(entry), entry.id) for entry in entries})
    assert [entry.type for entry in entries if str(entry.wallet_id) == wallet] == ["OPENED", "DEPOSIT"]


def test_read_of_some_wallets_returns_only_their_entries(api: Api) -> None:
    begin = now()
    one, _, _ = api.open(deposit="1"), api.open(deposit="1"), api.open(deposit="1")
    horizon()
    entries, _ = log.read(begin, 100, [UUID(one)])
    assert [entry.type for entry in entries] == ["OPENED", "DEPOSIT"]


def test_position_ahead_of_the_database_returns_nothing() -> None:
    """After a restore, PostgreSQL assigns transaction ids again that were read before."""
    ahead = Position(log.horizon() + 1_000_000)
    assert log.read(ahead, 10) == ([], ahead)


def test_concurrent_reader_sees_each_entry_once(api: Api) -> None:
    wallets = [api.open() for _ in range(6)]
    begin = now()
    seen: list[LogItem] = []
    is_over = threading.Event()

    def write(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        with closing(connection):
            for _ in range(60):
                some = dice.sample(wallets, dice.randint(1, 3))
                commands = [Deposit(wallet_id=UUID(wallet), amount=Decimal(1)) for wallet in some]
                retry_until_deadline(partial(execute, commands))

    def follow() -> None:
        position = begin
        dice = random.Random(7)  # noqa: S311
        with closing(connection):
            while True:
                is_last = is_over.is_set()
                entries, position = log.read(position, dice.choice([2, 10, 200]))
                seen.extend(entries)
                if is_last and not entries and position.begin >= horizon():
                    return

    with ThreadPoolExecutor(5) as pool:
        follower = pool.submit(follow)
        list(pool.map(write, range(4)))
        is_over.set()
        follower.result()
    sequences = defaultdict(list)
    for entry in seen:
        if str(entry.wallet_id) in wallets and not isinstance(entry, ChangeEntry):
            sequences[str(entry.wallet_id)].append(entry.sequence)
    for wallet in wallets:
        assert sequences[wallet] == list(range(1, api.wallet(wallet)["sequence"] + 1))
