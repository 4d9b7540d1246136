"""A superuser's access to the ledger: read a wallet's hash chain, and recompute it after a change."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.support.cluster import cluster
from wallets.ledger import chain


@contextmanager
def superuser() -> Iterator[psycopg.Connection]:
    """Connect as a superuser with foreign keys and triggers switched off."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute("SET session_replication_role = replica")
        yield database


def lines(database: psycopg.Connection, wallet_id: str) -> list[tuple[bytes, bytes]]:
    """Return the hash and the COPY line of each operation of the wallet, in order."""
    columns = ", ".join(chain.COLUMNS)
    statement = (
        f"COPY (SELECT encode(hash, 'hex'), {columns} FROM operation WHERE wallet_id = '{wallet_id}'"
        " ORDER BY created_at) TO STDOUT"
    )
    database.execute("SET timezone = 'UTC'")
    with database.cursor() as cursor, cursor.copy(statement.encode()) as copied:
        rows = [bytes(row) for row in copied]
    return [(bytes.fromhex(row[:64].decode()), chain.hashed(row[65:])) for row in rows]


def chain_anew(database: psycopg.Connection, wallet_id: str) -> None:
    """Recompute all hashes of the wallet from its current rows, as a forger could."""
    last = chain.BEGINNING
    for _, operation in lines(database, wallet_id):
        last = chain.link(last, operation)
        database.execute("UPDATE operation SET hash = %s WHERE id = %s", [last, operation[:36].decode()])
    database.execute("UPDATE wallet SET hash = %s WHERE id = %s", [last, wallet_id])
