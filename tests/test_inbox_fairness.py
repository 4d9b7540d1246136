"""The inbox is drained fairly: one wallet's flood delays the entries of others by a bounded share."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection, transaction

from tests.client import Api
from tests.cluster import cluster
from tests.conftest import Books
from tests.test_inbox import deposit_later, drain_all, later, left, operation, transfer, withdraw_later
from wallets.ledger.inbox import Drain
from wallets.ledger.inbox_claim import Entry, Turns

Database = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def database() -> Iterator[Database]:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _only_own_entries(database: Database) -> Iterator[None]:
    drain_all()
    database.execute("DELETE FROM inbox")
    yield
    database.execute("DELETE FROM inbox")


def flood(database: Database, wallet_id: str, entries: int) -> None:
    database.execute(
        "INSERT INTO inbox (id, wallet_id, type, amount, created_at)"
        " SELECT gen_random_uuid(), %s, 'DEPOSIT', 1, now() FROM generate_series(1, %s)",
        [wallet_id, entries],
    )


def claim(turns: Turns, size: int) -> list[Entry]:
    with transaction.atomic():
        return turns.claim(size, [])


def test_flood_of_one_wallet_delays_others_by_no_claim(api: Api, database: Database) -> None:
    flooding, others = api.open(), [api.open() for _ in range(10)]
    flood(database, flooding, 5000)
    accepted = [deposit_later(api, other, 1) for other in others]
    assert Drain().run(100) == 100
    assert {operation(api, one)["status"] for one in accepted} == {"COMPLETED"}
    assert left(flooding) == 5000 - 90
    Books((flooding, *others)).verify()


def test_wallets_share_half_of_a_claim(api: Api, database: Database) -> None:
    one, other = api.open(), api.open()
    flood(database, one, 1000)
    flood(database, other, 1000)
    by_wallet = [str(entry.wallet_id) for entry in claim(Turns(), 100)]
    assert (by_wallet.count(one), by_wallet.count(other)) == (75, 25)


def test_claim_of_one_wallet_is_full(api: Api, database: Database) -> None:
    flood(database, api.open(), 1000)
    positions = [entry.position for entry in claim(Turns(), 100)]
    assert positions == list(range(positions[0], positions[0] + 100))


def test_more_wallets_than_a_claim_has_places_for_take_turns(api: Api, database: Database) -> None:
    """Among n wallets, an entry that is the first of its wallet waits for at most n / half a claim claims."""
    flooding, others = api.open(), [api.open() for _ in range(12)]
    flood(database, flooding, 1000)
    for other in others:
        deposit_later(api, other, 1)
    own, claims = Drain(), -(-13 // 5)
    assert [own.run(10) for _ in range(claims)] == [10] * claims
    assert left(*others) == 0


def test_flood_of_transfers_keeps_the_order_of_both_wallets(api: Api, database: Database) -> None:
    source, target = api.open(deposit="50"), api.open()
    for _ in range(50):
        later(api, "/transfers", transfer(source, target, 1))
    withdrawal = withdraw_later(api, target, 50)
    own = Drain()
    while own.run(10):
        pass
    assert operation(api, withdrawal)["status"] == "COMPLETED"
    assert (api.balance(source), api.balance(target)) == ("0.00", "0.00")
    Books((source, target)).verify()


def test_entry_claimed_too_early_holds_up_no_wallet(api: Api, database: Database) -> None:
    """A wallet's turn may come while its transfer still waits for the other wallet: that is no hindrance."""
    wallets = sorted(api.open(deposit="5") for _ in range(2))
    first, second = wallets
    flood(database, second, 100)
    later(api, "/transfers", transfer(first, second, 5))
    own = Drain()
    done = [own.run(10) for _ in range(12)]
    assert sum(done) == 101
    assert done[:11] == [9] * 11  # each claim has the transfer in vain, and nothing waits for it
    assert api.balance(second) == "110.00"


def test_wallet_that_is_held_up_is_passed_over(api: Api, database: Database) -> None:
    busy, free = api.open(), api.open()
    flood(database, busy, 1000)
    deposit_later(api, free, 1)
    with transaction.atomic():
        claimed = Turns().claim(10, [UUID(busy)])
    assert [str(entry.wallet_id) for entry in claimed] == [free]


def test_claims_of_two_workers_have_no_entry_in_common(api: Api, database: Database) -> None:
    flood(database, api.open(), 50)
    with transaction.atomic():
        ours = {entry.id for entry in Turns().claim(20, [])}
        with psycopg.connect(cluster.url("postgres")) as other:
            free = other.execute("SELECT id FROM inbox FOR UPDATE SKIP LOCKED").fetchall()
    assert len(ours) == 20
    assert ours.isdisjoint(id for (id,) in free)


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("_NEXT_WALLETS", "inbox_waiting_wallet_idx"),
        ("_FIRST_OF_EACH", "inbox_waiting_wallet_idx"),
        ("_OLDEST", "inbox_waiting_idx"),
    ],
)
def test_claim_reads_as_much_as_it_takes(api: Api, database: Database, statement: str, index: str) -> None:
    """However long the inbox is: each statement is read from an index and ends by a LIMIT."""
    from wallets.ledger import inbox_claim

    flood(database, api.open(), 3000)
    for _ in range(20):
        flood(database, api.open(), 50)
    database.execute("ANALYZE inbox")
    asked: dict[str, Any] = {
        "after": UUID(int=0),
        "most": 50,
        "wallets": [uuid4()],
        "each": 10,
        "claimed": [],
        "held_up": [],
        "looked_at": 200,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {getattr(inbox_claim, statement)}", asked)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert index in plan
    assert "Seq Scan on inbox" not in plan
    assert "Limit" in plan
