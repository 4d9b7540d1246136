"""A ledger of ten million operations, one million of them in one wallet.

It is loaded once, which takes minutes and 6 GB, and stays under .local/bench for the next time. Its hashes
are no chain: it is there to be written to.
"""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
from tqdm import tqdm

from loadtest.servers import DURABLE
from local import liquibase, template
from local.postgres import SUPERUSER, Cluster

OPERATIONS = 10_000_000
OTHERS = 9_000  # wallets beside the hot one; every tenth operation is the hot one's
SLICE = 100_000  # operations a transaction
LOOKS = 20

PREFIX = "ledger-"

# Number 0 is the hot wallet.
_WALLETS = """
CREATE TEMPORARY TABLE numbered AS
SELECT n AS number, uuidv7() AS id FROM generate_series(0, %(others)s::bigint) AS n;
CREATE INDEX ON numbered (number);
INSERT INTO wallet (id, currency, label, created_at)
SELECT id, 'RUB', CASE number WHEN 0 THEN 'hot' ELSE 'cold' END, now() - interval '1 day' FROM numbered;
"""
# As they would have come: one a millisecond, the last of them a moment ago.
_OPERATIONS = """
INSERT INTO operation (id, wallet_id, sequence, type, amount, balance_after, status, created_at, hash)
SELECT uuidv7(at - now()), id, sequence, 'DEPOSIT', 1, sequence, 'COMPLETED', at, sha256('')
FROM generate_series(%(first)s::bigint, %(first)s + %(count)s - 1) AS n,
     LATERAL (SELECT n - n / 10 - 1 AS other, now() - (%(all)s - n) * interval '1 ms' AS at),
     LATERAL (SELECT CASE n %% 10 WHEN 0 THEN 0 ELSE 1 + other %% %(others)s END AS number,
                     CASE n %% 10 WHEN 0 THEN n / 10 + 1 ELSE other / %(others)s + 1 END AS sequence)
     JOIN numbered USING (number)
ORDER BY n
"""
_BALANCES = """
UPDATE wallet SET balance = total.count, sequence = total.count, updated_at = total.last
FROM (SELECT wallet_id, count(*), max(created_at) AS last FROM operation GROUP BY wallet_id) AS total
WHERE id = wallet_id
"""
_NEWEST_PAGE = (
    "SELECT * FROM operation WHERE wallet_id = (SELECT %s::uuid) ORDER BY created_at DESC, id DESC LIMIT 51"
)
_BALANCE_AT = """
SELECT sequence, balance_after FROM operation
WHERE wallet_id = (SELECT %s::uuid) AND created_at < %s AND sequence IS NOT NULL
ORDER BY created_at DESC LIMIT 1
"""


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """The cluster with the ledger, loaded where it is not there yet or the schema has changed since."""
    loaded = folder / f"{PREFIX}{liquibase.changelog_hash()[:16]}"
    if not loaded.exists():
        for outdated in folder.glob(f"{PREFIX}*"):
            Cluster(outdated).remove()
        load(folder / f"{PREFIX}new").rename(loaded)
    with Cluster(loaded, DURABLE) as cluster:
        yield cluster


def load(folder: Path) -> Path:
    with Cluster(template.copy(folder).folder, template.FAST) as cluster:
        # A replica's session leaves out the foreign key of every row; what is written here keeps it.
        with psycopg.connect(cluster.url(SUPERUSER), options="-c session_replication_role=replica") as db:
            fill(db)
        with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
            db.execute("VACUUM (FREEZE, ANALYZE)")
    return folder


def fill(db: psycopg.Connection, operations: int = OPERATIONS) -> None:
    db.execute(_WALLETS % {"others": OTHERS})
    db.commit()
    for first in tqdm(range(0, operations, SLICE), "Loading the big ledger", unit=f" x {SLICE:,}"):
        db.execute(_OPERATIONS, {"first": first, "count": SLICE, "all": operations, "others": OTHERS})
        db.commit()
    db.execute(_BALANCES)


def hot_wallet(cluster: Cluster) -> str:
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        row = db.execute("SELECT id::text FROM wallet WHERE label = 'hot'").fetchone()
    assert row
    return str(row[0])


def looks(cluster: Cluster, wallet: str) -> tuple[float, float]:
    """Milliseconds in the database for the newest page of history, and for the balance at a time."""
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        row = db.execute("SELECT min(created_at), max(created_at) FROM operation").fetchone()
        assert row
        first, last = row
        times = [first + (last - first) * (n + 0.5) / LOOKS for n in range(LOOKS)]
        pages = [_time(db, _NEWEST_PAGE, wallet) for _ in times]
        balances = [_time(db, _BALANCE_AT, wallet, time) for time in times]
    return statistics.median(pages), statistics.median(balances)


def _time(db: psycopg.Connection, query: LiteralString, *parameters: object) -> float:
    row = db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters).fetchone()
    assert row
    plan = row[0][0]
    return float(plan["Planning Time"] + plan["Execution Time"])
