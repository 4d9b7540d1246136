"""The ledger as a superuser sees and changes it: a wallet's chain, read and written anew."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.support.cluster import cluster
from wallets.ledger import chain


@contextmanager
def superuser() -> Iterator[psycopg.Connection]:
    """One that switches off foreign keys and triggers, as a person with these rights can."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as database:
        database.execute("SET session_replication_role = replica")
        yield database


def lines(database: psycopg.Connection, wallet_id: str) -> list[tuple[bytes, bytes]]:
    """The wallet's operations as COPY writes them, in their order, each behind its hash."""
    columns = ", ".join(chain.COLUMNS)
    asked = (
        f"COPY (SELECT encode(hash, 'hex'), {columns} FROM operation WHERE wallet_id = '{wallet_id}'"
        " ORDER BY created_at) TO STDOUT"
    )
    database.execute("SET timezone = 'UTC'")
    with database.cursor() as cursor, cursor.copy(asked.encode()) as copied:
        rows = [bytes(row)[:-1] for row in copied]
    return [(bytes.fromhex(row[:64].decode()), row[65:]) for row in rows]


def chain_anew(database: psycopg.Connection, wallet_id: str) -> None:
    """As if the wallet's operations had been written as they are now. A forger knows how, too."""
    last = chain.BEGINNING
    for _, operation in lines(database, wallet_id):
        last = chain.link(last, operation)
        database.execute("UPDATE operation SET hash = %s WHERE id = %s", [last, operation[:36].decode()])
    database.execute("UPDATE wallet SET hash = %s WHERE id = %s", [last, wallet_id])
