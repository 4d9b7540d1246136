"""A ledger of ten million operations, one million of them in one wallet, for writes and verification.

The first run loads it, which takes minutes and 6 GB. It stays in .local/bench for later runs.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import LiteralString

import psycopg
from tqdm import tqdm
from uuid_utils.compat import uuid7

from loadtest.servers import DURABLE_SETTINGS
from local import liquibase, template
from local.postgres import SUPERUSER, Cluster

OPERATIONS = 10_000_000
OTHER_WALLETS = 9_000  # in addition to the hot wallet, which has every tenth operation
OPERATIONS_PER_TRANSACTION = 100_000
SAMPLES = 20

PREFIX = "ledger-"
NULL = "\t\\N"

# The first wallet is the hot one.
_WALLETS = """
INSERT INTO wallet (id, currency, label, created_at)
SELECT uuidv7(), 'RUB', CASE n WHEN 0 THEN 'hot' ELSE 'cold' END, now() - interval '1 day'
FROM generate_series(0, %s) AS n RETURNING id::text, date_trunc('second', now())
"""
_BALANCES = """
UPDATE wallet SET balance = last.sequence, sequence = last.sequence, hash = last.hash,
    updated_at = last.created_at
FROM (SELECT DISTINCT ON (wallet_id) * FROM operation ORDER BY wallet_id, created_at DESC) AS last
WHERE wallet.id = wallet_id
"""
# The hash is over the operation in the format of COPY (docs/reliability.md).
_COPY = """
COPY operation (id, wallet_id, sequence, type, amount, balance_after, status, reason, idempotency_key,
    transfer_id, counterparty_id, hold_id, reverses_id, expires_at, takes_rest, description, metadata, actor,
    accepted_at, created_at, hash) FROM STDIN
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
    """Start the cluster with the ledger. Load it first if it is missing or the schema has changed."""
    loaded = folder / f"{PREFIX}{liquibase.changelog_hash()[:16]}"
    if not loaded.exists():
        for outdated in folder.glob(f"{PREFIX}*"):
            Cluster(outdated).remove()
        load(folder / f"{PREFIX}new").rename(loaded)
    with Cluster(loaded, DURABLE_SETTINGS) as cluster:
        yield cluster


def load(folder: Path) -> Path:
    with Cluster(template.copy(folder).folder, template.FAST_SETTINGS) as cluster:
        # A replica's session does not check foreign keys, which all rows here satisfy.
        with psycopg.connect(cluster.url(SUPERUSER), options="-c session_replication_role=replica") as db:
            fill(db)
        with psycopg.connect(cluster.url(SUPERUSER), autocommit=True) as db:
            db.execute("VACUUM (FREEZE, ANALYZE)")
    return folder


def fill(db: psycopg.Connection, operations: int = OPERATIONS) -> None:
    rows = db.execute(_WALLETS, [OTHER_WALLETS]).fetchall()
    db.commit()
    lines = _lines([row[0] for row in rows], operations, until=rows[0][1])
    for _ in tqdm(
        range(0, operations, OPERATIONS_PER_TRANSACTION),
        "Loading the big ledger",
        unit=f" x {OPERATIONS_PER_TRANSACTION:,}",
    ):
        with db.cursor() as cursor, cursor.copy(_COPY) as copy:
            for line in islice(lines, OPERATIONS_PER_TRANSACTION):
                copy.write(line)
        db.commit()
    db.execute(_BALANCES)


def _lines(wallets: Sequence[str], operations: int, until: datetime) -> Iterator[bytes]:
    """Yield deposits of 1, one each millisecond until `until`; every tenth is the first wallet's."""
    hashes = [b""] * len(wallets)
    for n in range(operations):
        other = n - n // 10 - 1
        number, sequence = (
            (1 + other % OTHER_WALLETS, other // OTHER_WALLETS + 1) if n % 10 else (0, n // 10 + 1)
        )
        # The extra microsecond avoids a fraction that ends with zeros, which PostgreSQL would omit.
        at = until - timedelta(milliseconds=operations - n, microseconds=1)
        canonical = (
            f"{uuid7()}\t{wallets[number]}\t{sequence}\tDEPOSIT\t1.0000\t{sequence}.0000\tCOMPLETED"
            f"{NULL * 8}\t\t{{}}\t{NULL}\t{at:%Y-%m-%d %H:%M:%S.%f}+00"
        ).encode()
        hashes[number] = sha256(hashes[number] + canonical).digest()
        yield canonical + b"\t\\\\x" + hashes[number].hex().encode() + b"\n"


def hot_wallet(cluster: Cluster) -> str:
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        row = db.execute("SELECT id::text FROM wallet WHERE label = 'hot'").fetchone()
    assert row
    return str(row[0])


def query_ms(cluster: Cluster, wallet: str) -> tuple[float, float]:
    """Return the database's milliseconds for the newest page of history, and for the balance at a time."""
    with psycopg.connect(cluster.url(SUPERUSER)) as db:
        row = db.execute("SELECT min(created_at), max(created_at) FROM operation").fetchone()
        assert row
        first, last = row
        times = [first + (last - first) * (n + 0.5) / SAMPLES for n in range(SAMPLES)]
        pages = [_time(db, _NEWEST_PAGE, wallet) for _ in times]
        balances = [_time(db, _BALANCE_AT, wallet, time) for time in times]
    return statistics.median(pages), statistics.median(balances)


def _time(db: psycopg.Connection, query: LiteralString, *parameters: object) -> float:
    row = db.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters).fetchone()
    assert row
    plan = row[0][0]
    return float(plan["Planning Time"] + plan["Execution Time"])
