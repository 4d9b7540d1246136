"""The inbox is drained fairly: one wallet's flood delays the entries of others by a bounded share."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from tests.conftest import Books, Unchanged
from tests.ledger.test_inbox import (
    deposit_later,
    deposits,
    drain_all,
    later,
    left,
    operation,
    transfer,
    withdraw_later,
)
from tests.support.client import Api
from tests.support.cluster import cluster
from wallets.ledger.inbox import Drain
from wallets.ledger.inbox_claim import ClaimedEntry, Turns

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


def claim(turns: Turns, size: int) -> list[ClaimedEntry]:
    with transaction.atomic():
        return turns.claim(size, [])


def test_flood_of_one_wallet_does_not_delay_others(api: Api, database: Database) -> None:
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


def test_more_wallets_than_places_in_a_claim_take_turns(api: Api, database: Database) -> None:
    """Among n wallets, the first entry of a wallet waits for at most n / (half of the claim size) claims."""
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


def test_entry_claimed_too_early_delays_no_wallet(api: Api, database: Database) -> None:
    """A claim may include a transfer whose other wallet has earlier entries. The transfer is then skipped."""
    wallets = sorted(api.open(deposit="5") for _ in range(2))
    first, second = wallets
    flood(database, second, 100)
    later(api, "/transfers", transfer(first, second, 5))
    own = Drain()
    done = [own.run(10) for _ in range(12)]
    assert sum(done) == 101
    assert done[:11] == [9] * 11  # each claim includes the transfer and skips it
    assert api.balance(second) == "110.00"


def test_claim_skips_a_delayed_wallet(api: Api, database: Database) -> None:
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


# --- Limit of pending entries -----------------------------------------------------------------------
@pytest.fixture
def limit(settings: LazySettings) -> int:
    settings.INBOX_PENDING_PER_WALLET = 3
    return 3


def test_full_inbox_refuses_and_changes_nothing(api: Api, unchanged: Unchanged, limit: int) -> None:
    wallet_id, other = api.open(deposit="1"), api.open()
    accepted = [deposit_later(api, wallet_id, 1, key=f"{n}") for n in range(limit)]
    assert {answer.status for answer in accepted} == {202}
    with unchanged(wallet_id, other):
        refused = deposit_later(api, wallet_id, 1, key="more")
        assert (refused.status, refused.code) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) > 0
        assert later(api, "/transfers", transfer(wallet_id, other, 1)).status == 429
        assert deposit_later(api, wallet_id, 1, key="0").json == accepted[0].json  # a replay adds no entry
        assert deposit_later(api, wallet_id, "0.001").status == 400
    assert deposit_later(api, other, 1).status == 202
    assert api.deposit(wallet_id, 1).status == 201  # a synchronous request has no limit
    drain_all()
    assert deposit_later(api, wallet_id, 1, key="more").status == 202


def test_set_aside_entry_counts_toward_the_limit(api: Api, database: Database, limit: int) -> None:
    wallet_id = api.open()
    for _ in range(limit):
        deposit_later(api, wallet_id, 1)
    database.execute("UPDATE inbox SET set_aside_at = now() WHERE wallet_id = %s", [wallet_id])
    assert deposit_later(api, wallet_id, 1).status == 429


def test_incoming_transfers_do_not_fill_the_inbox_of_their_target(api: Api, limit: int) -> None:
    target = api.open()
    for _ in range(limit + 1):
        assert later(api, "/transfers", transfer(api.open(), target, 1)).status == 202
    assert deposit_later(api, target, 1).status == 202


def test_bulk_is_accepted_up_to_the_limit(api: Api, limit: int) -> None:
    wallet_id = api.open()
    body = {"operations": deposits(wallet_id, [1] * (limit + 2))}
    results = later(api, "/operations", body).json["results"]
    assert [result["status"] for result in results] == [202] * limit + [429] * 2
    assert left(wallet_id) == limit


def test_atomic_bulk_beyond_the_limit_is_refused_as_a_whole(api: Api, limit: int) -> None:
    wallet_id = api.open()
    many, few = deposits(wallet_id, [1] * (limit + 1)), deposits(wallet_id, [1] * limit)
    refused = later(api, "/operations", {"operations": many, "atomic": True})
    assert (refused.status, refused.code, left(wallet_id)) == (429, "too_many_requests", 0)
    assert later(api, "/operations", {"operations": few, "atomic": True}).status == 200
    assert later(api, "/operations", {"operations": few, "atomic": True}).status == 429
    assert left(wallet_id) == limit


def test_concurrent_requests_do_not_exceed_the_limit(api: Api, limit: int) -> None:
    wallet_id = api.open()

    def send(_: int) -> int:
        with closing(connection):
            return deposit_later(Api(), wallet_id, 1).status

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(16)))
    assert (answers.count(202), answers.count(429)) == (limit, 16 - limit)
    assert left(wallet_id) == limit


# --- Cost of a claim --------------------------------------------------------------------------------
@pytest.mark.parametrize("statement", ["_NEXT_WALLETS", "_FIRST_OF_EACH", "_OLDEST"])
def test_claim_is_read_from_an_index_with_a_limit(api: Api, database: Database, statement: str) -> None:
    """The cost of a claim does not depend on the length of the inbox.

    While no entry is set aside, the planner may use the index of all entries or that of the pending ones.
    """
    from wallets.ledger import inbox_claim

    flood(database, api.open(), 3000)
    for _ in range(20):
        flood(database, api.open(), 50)
    database.execute("ANALYZE inbox")
    parameters: dict[str, Any] = {
        "after": UUID(int=0),
        "most": 50,
        "wallets": [uuid4()],
        "each": 10,
        "claimed": [],
        "blocked": [],
        "looked_at": 200,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {getattr(inbox_claim, statement)}", parameters)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert re.search(r"Index (Only )?Scan using inbox_\w*(wallet|position|waiting)\w*_idx", plan), plan
    assert "Seq Scan on inbox" not in plan
    assert "Limit" in plan
